//! The few things that need unsafe code outside of kernels, each behind a safe form. Knows nothing of models.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps None fails, which is its purpose"))]

pub mod allocator;
pub mod lend;
pub mod mapped;
pub mod pages;
pub mod perf;
pub mod standard_error;
pub mod thread_clock;
