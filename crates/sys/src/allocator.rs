//! What the process asks of glibc's allocator, so that memory of an unloaded model goes back to the system. Other C
//! libraries are left as they are.
//!
//! By default glibc raises the size from which it maps memory by itself whenever such memory is freed, up to 32 MiB:
//! weights then lie among small allocations, and one that lives on keeps them all. Pages freed amid a heap stay until
//! somebody asks for them to be given back.

/// From now on allocations of `bytes` and more are mapped by themselves, and so given back when they are freed; smaller
/// ones are kept for the next up to twice that size. Best called before threads are started.
pub fn map_alone_from(bytes: usize) {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    set(M_MMAP_THRESHOLD, bytes);
    // Setting the one stops glibc from choosing the other, which would stay at its initial 128 KiB.
    set(M_TRIM_THRESHOLD, bytes.saturating_mul(2));
}

/// Threads share this many heaps at most. glibc makes up to eight for each core otherwise, and what is freed in one is of
/// no use to the others. Best called before threads are started.
pub fn share_heaps(heaps: usize) {
    set(M_ARENA_MAX, i32::try_from(heaps).unwrap_or(i32::MAX));
}

/// Gives all free pages back to the system. Takes milliseconds for each gigabyte, and holds up other threads'
/// allocations meanwhile.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim may be called at any time from any thread; it touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set(parameter: i32, value: i32) {
    // SAFETY: it changes how later calls are served, not what they promise: a word for each parameter, which glibc writes
    // under the lock of its main arena and other threads read at some time before or after.
    unsafe {
        libc::mallopt(parameter, value);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set(_: i32, _: i32) {}

// mallopt(3), parameters of malloc.h.
const M_TRIM_THRESHOLD: i32 = -1;
const M_MMAP_THRESHOLD: i32 = -3;
const M_ARENA_MAX: i32 = -8;

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident_pages() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn freed_memory_goes_back() {
        map_alone_from(1 << 20);
        let before = resident_pages();
        // Small pieces, every other one kept: 64 MiB of heap with holes in it.
        let mut pieces: Vec<Option<Vec<u8>>> = (0..4096).map(|_| Some(vec![1; 16 << 10])).collect();
        let held = resident_pages();
        assert!(held > before + 12_000, "{before} to {held} pages");
        pieces.iter_mut().step_by(2).for_each(|piece| *piece = None);
        give_back();
        let given = resident_pages();
        assert!(given < held - 5_000, "{held} to {given} pages");
        assert!(pieces.iter().flatten().all(|piece| piece.iter().all(|byte| *byte == 1)));
    }
}
