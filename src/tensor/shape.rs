//! Tensor shapes, whose arithmetic is always checked: sizes come from clients.

use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;

/// A list about as long as a tensor has axes. Two elements for each of six axes take no allocation.
pub type PerAxis<T> = SmallVec<[T; 12]>;

/// The extents of a tensor, outermost first. A scalar has none; an extent may be zero.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape(SmallVec<[usize; INLINE_RANK]>);

impl Shape {
    pub fn new(dims: &[usize]) -> Self {
        Self(SmallVec::from_slice(dims))
    }

    /// The number of elements, or `None` when it does not fit a `usize`.
    pub fn element_count(&self) -> Option<usize> {
        // A zero anywhere makes the product zero, so that [huge, huge, 0] is no overflow.
        if self.contains(&0) {
            return Some(0);
        }
        self.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
    }

    /// The extent of axis 0; a scalar is one row.
    pub fn rows(&self) -> usize {
        self.first().copied().unwrap_or(1)
    }

    /// The extents behind axis 0.
    pub fn row_dims(&self) -> &[usize] {
        self.get(1..).unwrap_or_default()
    }

    /// The same shape with another extent of axis 0. A scalar stays a scalar.
    pub fn with_rows(&self, rows: usize) -> Self {
        let mut dims = self.0.clone();
        if let Some(first) = dims.first_mut() {
            *first = rows;
        }
        Self(dims)
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(dims: I) -> Self {
        Self(dims.into_iter().collect())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, dim) in self.iter().enumerate() {
            let comma = if axis == 0 { "" } else { "," };
            write!(f, "{comma}{dim}")?;
        }
        f.write_str("]")
    }
}

/// Shapes up to this rank need no allocation.
const INLINE_RANK: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dims: &[usize], count: Option<usize>, shown: &str) {
        let shape = Shape::new(dims);
        assert_eq!(shape.element_count(), count, "{shape}");
        assert_eq!(shape.to_string(), shown);
    }

    #[test]
    fn counts_are_checked() {
        check(&[], Some(1), "[]");
        check(&[2, 3], Some(6), "[2,3]");
        check(&[usize::MAX, 2], None, &format!("[{},2]", usize::MAX));
        check(&[usize::MAX, 2, 0], Some(0), &format!("[{},2,0]", usize::MAX));
    }
}
