//! Memory that starts on a cache line, so that no vector load of packed weights crosses two.

use bytemuck::{Pod, Zeroable};
use kinglet_sys::pages::{LARGE_PAGE, Pages};

/// Zeroed memory, aligned to 64 bytes, seen as elements of any plain type. Much of it lies in large pages.
#[derive(Debug)]
pub struct Aligned {
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Lines(Vec<Line>),
    Pages(Pages),
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Bytes of a cache line, and of the widest vector.
pub const LINE: usize = 64;

/// Floats of a cache line: lanes of the widest vector.
pub(crate) const LANES_MAX: usize = LINE / size_of::<f32>();

impl Aligned {
    /// Room for so many bytes, all zero; rounded up to whole lines.
    pub fn zeroed(bytes: usize) -> Self {
        let lines = bytes.div_ceil(LINE);
        // Fresh memory of the system is zero already.
        let of_heap = || Memory::Lines(bytemuck::zeroed_vec(lines));
        let memory = match lines * LINE {
            bytes @ LARGE_PAGE.. => Pages::zeroed(bytes).map_or_else(|_| of_heap(), Memory::Pages),
            _ => of_heap(),
        };
        Self { memory }
    }

    /// The elements, in lines of which the last is filled with zeros.
    pub fn of<T: Pod>(elements: &[T]) -> Self {
        let mut aligned = Self::zeroed(size_of_val(elements));
        aligned.elements_mut()[..elements.len()].copy_from_slice(elements);
        aligned
    }

    pub fn bytes(&self) -> usize {
        self.elements::<u8>().len()
    }

    pub fn elements<T: Pod>(&self) -> &[T] {
        match &self.memory {
            Memory::Lines(lines) => bytemuck::cast_slice(lines),
            Memory::Pages(pages) => bytemuck::cast_slice(pages.as_ref()),
        }
    }

    pub fn elements_mut<T: Pod>(&mut self) -> &mut [T] {
        match &mut self.memory {
            Memory::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Pages(pages) => bytemuck::cast_slice_mut(pages.as_mut()),
        }
    }
}

impl Default for Aligned {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_aligned() {
        let aligned = Aligned::of(&[1.0f32; 17]);
        assert_eq!(aligned.bytes(), 128);
        assert_eq!(aligned.elements::<u8>().as_ptr().align_offset(LINE), 0);
        assert_eq!(aligned.elements::<f32>()[16..18], [1.0, 0.0]);
        assert_eq!(Aligned::zeroed(0).elements::<f64>(), []);
        let large = Aligned::zeroed(LARGE_PAGE + 1);
        assert!(matches!(large.memory, Memory::Pages(_)) && large.bytes() == LARGE_PAGE + LINE);
        assert_eq!(large.elements::<u8>().as_ptr().align_offset(LINE), 0);
        assert!(large.elements::<u64>().iter().all(|&element| element == 0));
    }
}
