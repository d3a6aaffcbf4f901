//! The few calls of the C library that have no safe form elsewhere, each behind one. Knows nothing of models.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps None fails, which is its purpose"))]

pub mod allocator;
