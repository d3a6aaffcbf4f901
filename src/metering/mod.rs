//! Room 6: what requests cost. Counts, wall time and CPU time today; joules join here.
//!
//! `statistics` holds the cumulative numbers of the protocol's statistics extension, one set per loaded version.

pub mod statistics;

pub use statistics::{Settled, Snapshot, Statistics};
