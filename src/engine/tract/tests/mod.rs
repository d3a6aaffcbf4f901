//! Tiny models through the whole adapter: what is served, how rows are kept apart, and that the answers are right.

mod merging;
mod rewrites;
mod running;

use super::load::plan;
use crate::engine::testing::{answer, bytes_of, execute, options, tensor, values};
use crate::engine::{EngineError, Plan};
use crate::tensor::{DType, Shape, Tensor};
