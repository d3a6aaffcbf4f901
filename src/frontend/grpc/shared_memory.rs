//! The system shared memory extension: which regions there are, registers and unregisters them.

use crate::frontend::shared_memory::Registration;
use crate::frontend::{Refusal, SharedMemory};
use crate::proto::inference::system_shared_memory_status_response::RegionStatus;
use crate::proto::inference::{
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse,
};

/// # Errors
/// When the region that it names is not registered.
pub(super) fn status(
    memory: &SharedMemory,
    request: &SystemSharedMemoryStatusRequest,
) -> Result<SystemSharedMemoryStatusResponse, Refusal> {
    let regions = memory.status(given(&request.name))?.into_iter().map(|(name, registration)| {
        let Registration { key, offset, byte_size } = registration;
        (name.clone(), RegionStatus { name, key, offset, byte_size })
    });
    Ok(SystemSharedMemoryStatusResponse { regions: regions.collect() })
}

/// # Errors
/// When it cannot be registered.
pub(super) fn register(
    memory: &SharedMemory,
    request: SystemSharedMemoryRegisterRequest,
) -> Result<SystemSharedMemoryRegisterResponse, Refusal> {
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    memory.register(&name, Registration { key, offset, byte_size })?;
    Ok(SystemSharedMemoryRegisterResponse {})
}

/// # Errors
/// When the extension is off.
pub(super) fn unregister(
    memory: &SharedMemory,
    request: &SystemSharedMemoryUnregisterRequest,
) -> Result<SystemSharedMemoryUnregisterResponse, Refusal> {
    memory.unregister(given(&request.name))?;
    Ok(SystemSharedMemoryUnregisterResponse {})
}

/// An empty name stands for all.
fn given(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}
