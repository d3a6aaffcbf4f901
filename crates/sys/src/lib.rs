//! The few calls of the C library that have no safe form elsewhere, each behind one. Knows nothing of models.

pub mod allocator;
