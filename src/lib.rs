//! Kinglet: an inference server that serves neural networks on CPUs for the fewest joules.
//!
//! The rooms stand in the order a request meets them; `pipeline` is the whole path in one function. A room names only
//! rooms above it here (`tests/tidy.rs` holds that).
#![forbid(unsafe_code)]

pub mod digest;
pub mod error;
pub mod infer;
pub mod proto;
pub mod tensor;
pub mod units;
pub mod watched;

pub mod telemetry;

pub mod access;

pub mod engine;
pub mod metering;

pub mod integrity;

pub mod repository;

pub mod admission;
pub mod routing;

pub mod cache;

pub mod batching;

pub mod pipeline;

pub mod frontend;

pub mod compress;

pub mod config;

pub mod tune;

pub mod app;

pub mod cli;
