//! Shared memory in a folder of a test.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{Registration, SharedMemory, SharedMemoryConfig};
use crate::telemetry::Metrics;

pub(in crate::frontend) fn config(folder: &Path) -> SharedMemoryConfig {
    let config = crate::config::Config::default().shared_memory;
    SharedMemoryConfig { enabled: true, path: folder.into(), ..config }
}

pub(in crate::frontend) fn memory(config: &SharedMemoryConfig) -> SharedMemory {
    SharedMemory::start(config, Metrics::new().shared_memory).unwrap()
}

pub(in crate::frontend) fn registration(key: &str, offset: u64, byte_size: u64) -> Registration {
    Registration { key: key.into(), offset, byte_size }
}

/// A region of zeros that is a segment of its own, `/kinglet_test`.
pub(in crate::frontend) fn with_region(name: &str, byte_size: u64) -> (TempDir, SharedMemory) {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("kinglet_test")).unwrap().set_len(byte_size).unwrap();
    let memory = memory(&config(folder.path()));
    memory.register(name, registration("/kinglet_test", 0, byte_size)).unwrap();
    (folder, memory)
}
