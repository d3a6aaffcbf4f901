//! Counters of the kernel's performance events that belong to a processor, such as its energy (perf_event_open(2)).

use std::io;

/// An open counter: whole-processor, running.
#[derive(Debug)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there are none on other systems"))]
pub struct Counter(std::fs::File);

impl Counter {
    /// The counter `config` of the unit of type `kind`, as it counts on one processor for everything that runs there.
    ///
    /// # Errors
    /// When the system has no such counter, or this process may not read it: that takes `CAP_PERFMON`, or
    /// `kernel.perf_event_paranoid` below 1.
    #[cfg(target_os = "linux")]
    pub fn open(kind: u32, config: u64, cpu: u32) -> io::Result<Self> {
        use std::os::fd::FromRawFd;
        let attributes = Attributes { kind, size: ATTRIBUTES_BYTES, config, ..Attributes::default() };
        let cpu = i32::try_from(cpu).map_err(io::Error::other)?;
        let (any_process, no_group) = (-1, -1);
        // SAFETY: the system reads as many bytes of the attributes as they say they have, which is their size, and they
        // outlive the call; the other arguments are plain numbers.
        let file = unsafe {
            libc::syscall(libc::SYS_perf_event_open, &raw const attributes, any_process, cpu, no_group, CLOSE_ON_EXEC)
        };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        let file = i32::try_from(file).map_err(io::Error::other)?;
        // SAFETY: the system has just made this descriptor for us, and nobody else knows it.
        Ok(Self(unsafe { std::fs::File::from_raw_fd(file) }))
    }

    /// # Errors
    /// Always: other systems have no such counters.
    #[cfg(not(target_os = "linux"))]
    pub fn open(_: u32, _: u64, _: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What it has counted since it was opened.
    ///
    /// # Errors
    /// When the system cannot tell, as when the processor has gone.
    pub fn read(&self) -> io::Result<u64> {
        use std::io::Read;
        let mut count = [0; 8];
        (&self.0).read_exact(&mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}

/// `struct perf_event_attr` in its first published form, which every later system takes.
#[repr(C)]
#[derive(Debug, Default)]
#[cfg(target_os = "linux")]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

/// `PERF_ATTR_SIZE_VER0`.
#[cfg(target_os = "linux")]
const ATTRIBUTES_BYTES: u32 = 64;

/// `PERF_FLAG_FD_CLOEXEC` of linux/perf_event.h.
#[cfg(target_os = "linux")]
const CLOSE_ON_EXEC: libc::c_ulong = 8;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_refused() {
        assert_eq!(size_of::<Attributes>(), ATTRIBUTES_BYTES as usize);
        assert!(Counter::open(u32::MAX, 0, 0).is_err());
    }

    /// The software unit's CPU clock is there wherever events are, and counts nanoseconds. Containers may forbid it.
    #[test]
    fn a_clock_counts() {
        const PERF_TYPE_SOFTWARE: u32 = 1;
        const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
        let Ok(counter) = Counter::open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, 0) else { return };
        let first = counter.read().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(counter.read().unwrap() > first);
    }
}
