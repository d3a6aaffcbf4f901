//! Tensors that lie in memory which client and server share (Triton's system shared memory extension).
//!
//! Clients register parts of POSIX segments as regions and name them in place of a tensor's bytes. Inputs are copied out
//! before a request goes on, outputs are copied in by its encoder: no room behind the front end knows of it. `region` has the
//! files, `placement` what a request says, `fetch` the copies. docs/shared-memory.md says what is refused.

pub mod config;
mod error;
mod fetch;
mod placement;
mod region;
#[cfg(test)]
pub(in crate::frontend) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, header};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};

pub use config::SharedMemoryConfig;
pub use error::MemoryError;
pub use placement::{Placed, Placement, REGION, Slot, bytes_to_copy};
pub use region::Registration;

use self::config::{NAME_BYTES_MAX, Prefix};
use self::region::Region;
use crate::access::{Caller, Target, Verb};
use crate::telemetry::shared_memory::SharedMemoryMetrics;

/// What a call may do with shared memory.
#[derive(Clone, Debug)]
pub enum SharedMemory {
    Off,
    /// A page makes the call.
    Closed,
    On(Arc<Regions>),
}

/// Every region that is registered.
#[derive(Debug)]
pub struct Regions {
    folder: OwnedFd,
    prefix: Prefix,
    registered: Mutex<Registered>,
    metrics: SharedMemoryMetrics,
}

#[derive(Debug)]
struct Registered {
    regions: BTreeMap<String, Arc<Region>>,
    /// Of all of them.
    bytes: u64,
    regions_max: usize,
    bytes_max: u64,
}

impl SharedMemory {
    /// # Errors
    /// When it is turned on and the folder of segments cannot be opened.
    pub fn start(config: &SharedMemoryConfig, metrics: SharedMemoryMetrics) -> io::Result<Self> {
        if !config.enabled {
            return Ok(Self::Off);
        }
        let folder = openat(CWD, &config.path, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let (regions_max, bytes_max) = (config.regions_max, config.bytes_max.0);
        let registered = Registered { regions: BTreeMap::new(), bytes: 0, regions_max, bytes_max };
        let prefix = config.prefix.clone();
        Ok(Self::On(Arc::new(Regions { folder, prefix, registered: Mutex::new(registered), metrics })))
    }

    pub fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }

    /// New limits hold for what is registered from now on.
    pub fn reconfigure(&self, config: &SharedMemoryConfig) {
        if let Self::On(regions) = self {
            let mut registered = regions.lock();
            (registered.regions_max, registered.bytes_max) = (config.regions_max, config.bytes_max.0);
        }
    }

    /// The same for a call with these headers: of those who may use it alone, since regions are everybody's. Pages have no segments, and a page of any site can have its visitors'
    /// browsers send requests to here.
    pub fn for_call(&self, headers: &HeaderMap, caller: &Caller) -> Self {
        let is_page = || headers.contains_key(header::ORIGIN) || headers.contains_key(FETCH_SITE);
        let may = || caller.may(Verb::Memory, Target::Server).is_ok();
        if self.is_on() && (is_page() || !may()) { Self::Closed } else { self.clone() }
    }

    /// # Errors
    /// When the name or the key is none, the name is taken, a limit is reached, or there is no such part of a segment.
    pub fn register(&self, name: &str, registration: Registration) -> Result<(), MemoryError> {
        let regions = self.regions()?;
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(MemoryError::Name(name.len()));
        }
        let file_name = regions.prefix.file_name(&registration.key).ok_or(MemoryError::Key)?.to_owned();
        let mut registered = regions.lock();
        registered.check_room(name, registration.byte_size)?;
        let region = Region::open(&regions.folder, &file_name, registration)?;
        registered.bytes += region.registration.byte_size;
        registered.regions.insert(name.to_owned(), Arc::new(region));
        regions.tell(&registered);
        Ok(())
    }

    /// Forgets one region, or all. Requests that use them go on with them.
    ///
    /// # Errors
    /// When the extension is off.
    pub fn unregister(&self, name: Option<&str>) -> Result<(), MemoryError> {
        let regions = self.regions()?;
        let mut registered = regions.lock();
        match name {
            None => {
                registered.regions.clear();
                registered.bytes = 0;
            }
            // One that is not there is gone already.
            Some(name) => {
                let gone = registered.regions.remove(name).map_or(0, |region| region.registration.byte_size);
                registered.bytes -= gone;
            }
        }
        regions.tell(&registered);
        Ok(())
    }

    /// One region, or all by name, as they were registered.
    ///
    /// # Errors
    /// When the one is not registered.
    pub fn status(&self, name: Option<&str>) -> Result<Vec<(String, Registration)>, MemoryError> {
        let registered = self.regions()?.lock();
        let told = |(name, region): (&String, &Arc<Region>)| (name.clone(), region.registration.clone());
        let Some(name) = name else { return Ok(registered.regions.iter().map(told).collect()) };
        let found = registered.regions.get_key_value(name).map(told);
        Ok(vec![found.ok_or_else(|| MemoryError::Unknown(name.to_owned()))?])
    }

    /// A part of a region, for as long as it is needed.
    fn slot(&self, name: String, offset: u64, byte_size: u64) -> Result<Slot, MemoryError> {
        let region = self.regions()?.lock().regions.get(&name).map(Arc::clone);
        match region {
            Some(region) => Slot::of(name, region, offset, byte_size),
            None => Err(MemoryError::Unknown(name)),
        }
    }

    fn regions(&self) -> Result<&Regions, MemoryError> {
        match self {
            Self::Off => Err(MemoryError::Off),
            Self::Closed => Err(MemoryError::Page),
            Self::On(regions) => Ok(regions),
        }
    }
}

impl Regions {
    fn lock(&self) -> MutexGuard<'_, Registered> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, registered: &Registered) {
        self.metrics.tell(registered.regions.len(), registered.bytes);
    }
}

impl Registered {
    fn check_room(&self, name: &str, byte_size: u64) -> Result<(), MemoryError> {
        if self.regions.contains_key(name) {
            return Err(MemoryError::Registered(name.to_owned()));
        }
        if self.regions.len() >= self.regions_max {
            return Err(MemoryError::Full { what: "regions", limit: self.regions_max as u64 });
        }
        if self.bytes.checked_add(byte_size).is_none_or(|bytes| bytes > self.bytes_max) {
            return Err(MemoryError::Full { what: "bytes", limit: self.bytes_max });
        }
        Ok(())
    }
}

pub const EXTENSION: &str = "system_shared_memory";
/// Browsers say with it who makes a call; nobody else does.
const FETCH_SITE: &str = "sec-fetch-site";
