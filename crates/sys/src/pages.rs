//! Zeroed memory of its own, in large pages where the system has them: a page comes with a fault when it is first touched,
//! and large ones come 512 times less often.

use std::io;

#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::MmapMut;

/// Goes back to the system when it is dropped.
#[derive(Debug)]
pub struct Pages {
    mapped: MmapMut,
    /// Where the first large page begins.
    start: usize,
    bytes: usize,
}

impl Pages {
    /// So many bytes, all zero, from the beginning of a large page on.
    ///
    /// # Errors
    /// When the system has no room for them.
    pub fn zeroed(bytes: usize) -> io::Result<Self> {
        let length = bytes.checked_add(LARGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapped = MmapMut::map_anon(length)?;
        let start = mapped.as_ptr().align_offset(LARGE_PAGE);
        // What is behind the last whole one would take a whole one's memory.
        let rest = bytes % LARGE_PAGE;
        let large = if rest >= WORTH_WHOLE { bytes - rest + LARGE_PAGE } else { bytes - rest };
        #[cfg(target_os = "linux")]
        if large > 0 {
            // Systems without large pages go on with small ones.
            let _ = mapped.advise_range(Advice::HugePage, start, large.min(length - start));
        }
        Ok(Self { mapped, start, bytes })
    }
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.mapped[self.start..][..self.bytes]
    }
}

impl AsMut<[u8]> for Pages {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.mapped[self.start..][..self.bytes]
    }
}

/// As most processors have them. Less is not worth memory of its own.
pub const LARGE_PAGE: usize = 2 << 20;

/// Of a large page, beside one that is filled: an eighth of it is lost at most.
const WORTH_WHOLE: usize = LARGE_PAGE / 4 * 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_begins_with_a_large_page() {
        for bytes in [0, 1, LARGE_PAGE - 1, LARGE_PAGE, LARGE_PAGE + WORTH_WHOLE, 5 * LARGE_PAGE + 64] {
            let mut pages = Pages::zeroed(bytes).unwrap();
            assert_eq!(pages.as_ref().len(), bytes);
            assert_eq!(pages.as_ref().as_ptr().align_offset(LARGE_PAGE), 0);
            assert!(pages.as_ref().iter().all(|&byte| byte == 0));
            pages.as_mut().fill(1);
            assert!(pages.as_ref().iter().all(|&byte| byte == 1));
        }
        assert!(Pages::zeroed(usize::MAX).is_err());
    }
}
