//! Memory that starts on a cache line, so that no vector load of packed weights crosses two.

use bytemuck::{Pod, Zeroable};

/// Zeroed memory, aligned to 64 bytes, seen as elements of any plain type.
#[derive(Clone, Debug, Default)]
pub struct Aligned {
    lines: Vec<Line>,
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
        // Fresh memory of the system is zero already.
        Self { lines: bytemuck::zeroed_vec(bytes.div_ceil(LINE)) }
    }

    /// The elements, in lines of which the last is filled with zeros.
    pub fn of(elements: &[f32]) -> Self {
        let mut aligned = Self::zeroed(size_of_val(elements));
        aligned.elements_mut::<f32>()[..elements.len()].copy_from_slice(elements);
        aligned
    }

    pub fn bytes(&self) -> usize {
        self.lines.len() * LINE
    }

    pub fn elements<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(&self.lines)
    }

    pub fn elements_mut<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_aligned() {
        let aligned = Aligned::of(&[1.0; 17]);
        assert_eq!(aligned.bytes(), 128);
        assert_eq!(aligned.elements::<u8>().as_ptr().align_offset(LINE), 0);
        assert_eq!(aligned.elements::<f32>()[16..18], [1.0, 0.0]);
        assert_eq!(Aligned::zeroed(0).elements::<f64>(), []);
    }
}
