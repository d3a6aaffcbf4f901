//! Weights before they are packed: where each element lies, so that no copy of them in another order is needed.

use std::ops::Range;

/// A matrix of `taps * depth` rows for each column, in the order that whoever has it keeps it in.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    elements: &'a [f32],
    pub(crate) taps: usize,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
    /// Elements from one tap, row of a tap, and column to the next.
    pitch: [usize; 3],
    /// What all weights of a column are multiplied by.
    scale: Option<&'a [f32]>,
}

impl<'a> Weights<'a> {
    /// In the order `[tap][depth][column]`.
    ///
    /// # Panics
    /// When there are not as many elements.
    pub fn new(elements: &'a [f32], [taps, depth, columns]: [usize; 3]) -> Self {
        let weights = Self { elements, taps, depth, columns, pitch: [depth * columns, columns, 1], scale: None };
        assert_eq!(elements.len(), taps * depth * columns, "weights are [tap][depth][column]");
        weights
    }

    /// In the order `[column][depth][tap]`, as filters of images are written down.
    ///
    /// # Panics
    /// When there are not as many elements.
    pub fn of_filters(elements: &'a [f32], size: [usize; 3]) -> Self {
        let [taps, depth, _] = size;
        Self { pitch: [1, taps, depth * taps], ..Self::new(elements, size) }
    }

    /// A matrix whose elements are so far apart from one row to the next, and from one column to the next.
    ///
    /// # Panics
    /// When it does not lie within the elements.
    pub(crate) fn matrix(elements: &'a [f32], [rows, columns]: [usize; 2], [down, across]: [usize; 2]) -> Self {
        let last = rows.saturating_sub(1) * down + columns.saturating_sub(1) * across;
        let is_within = rows == 0 || columns == 0 || last < elements.len();
        assert!(is_within, "{rows}x{columns} weights lie within their memory");
        Self { elements, taps: 1, depth: rows, columns, pitch: [0, down, across], scale: None }
    }

    /// The same with each column times a number.
    ///
    /// # Panics
    /// When there is not a number for each column.
    #[must_use]
    pub fn scaled(self, scale: Option<&'a [f32]>) -> Self {
        assert!(scale.is_none_or(|scale| scale.len() == self.columns), "there is a number for each column");
        Self { scale, ..self }
    }

    /// As they lie in memory, not times anything.
    pub fn elements(&self) -> &'a [f32] {
        self.elements
    }

    /// Taps, rows of a tap, and columns.
    pub fn size(&self) -> [usize; 3] {
        [self.taps, self.depth, self.columns]
    }

    /// One of them.
    pub fn at(&self, tap: usize, row: usize, column: usize) -> f32 {
        let [taps, rows, columns] = self.pitch;
        let element = self.elements[tap * taps + row * rows + column * columns];
        self.scale.map_or(element, |scale| element * scale[column])
    }

    /// All of them in the order `[tap][depth][column]`.
    pub fn taps_first(&self) -> Vec<f32> {
        let mut elements = vec![0.0; self.taps * self.depth * self.columns];
        if self.columns > 0 {
            self.lay_out(0, self.columns, self.columns, &mut elements);
        }
        elements
    }

    /// Lays out so many columns from one on in rows of `width`, of which what is behind the columns is zero: all taps one
    /// after the other.
    pub(crate) fn lay_out(&self, first: usize, columns: usize, width: usize, to: &mut [f32]) {
        let depth = self.depth;
        for from in (0..depth).step_by(TOGETHER) {
            let rows = TOGETHER.min(depth - from);
            for tap in 0..self.taps {
                let to = &mut to[(tap * depth + from) * width..][..rows * width];
                match self.pitch {
                    [_, _, 1] => self.copy_rows([tap, from], first..first + columns, width, to),
                    _ => self.turn([tap, from], first..first + columns, width, to),
                }
            }
        }
    }

    /// Rows of a tap whose elements lie beside each other.
    fn copy_rows(&self, [tap, from]: [usize; 2], columns: Range<usize>, width: usize, to: &mut [f32]) {
        for (row, to) in to.chunks_exact_mut(width).enumerate() {
            let (taken, filled) = to.split_at_mut(columns.len());
            let begin = tap * self.pitch[0] + (from + row) * self.pitch[1] + columns.start;
            taken.copy_from_slice(&self.elements[begin..][..columns.len()]);
            if let Some(scale) = self.scale {
                taken.iter_mut().zip(&scale[columns.clone()]).for_each(|(to, scale)| *to *= scale);
            }
            filled.fill(0.0);
        }
    }

    /// Rows of a tap whose elements lie apart: squares of them, so that whole lines of memory are read and written.
    fn turn(&self, [tap, from]: [usize; 2], columns: Range<usize>, width: usize, to: &mut [f32]) {
        let [taps, down, across] = self.pitch;
        for (at, to) in to.chunks_mut(SQUARE * width).enumerate() {
            let begin = tap * taps + (from + at * SQUARE) * down;
            let rows = to.len() / width;
            for column in (0..width).step_by(SQUARE) {
                let mut square = [[0.0; SQUARE]; SQUARE];
                for at in column..columns.len().min(column + SQUARE) {
                    let from = &self.elements[begin + (columns.start + at) * across..];
                    let from = &from[..(rows - 1) * down + 1];
                    for (row, square) in square[..rows].iter_mut().enumerate() {
                        square[at - column] = from[row * down];
                    }
                }
                // Nothing is done to others, not even times one: they may be pairs of smaller numbers.
                if let Some(scale) = self.scale {
                    let scale = &scale[columns.start + column.min(columns.len())..columns.end];
                    for row in &mut square[..rows] {
                        row.iter_mut().zip(scale).for_each(|(to, scale)| *to *= scale);
                    }
                }
                for (to, square) in to.chunks_exact_mut(width).zip(&square) {
                    let to = &mut to[column..width.min(column + SQUARE)];
                    to.copy_from_slice(&square[..to.len()]);
                }
            }
        }
    }
}

/// Rows that are laid out before the next tap of them: their elements lie between each other, and stay in a near cache.
const TOGETHER: usize = 64;

/// Floats of a cache line.
const SQUARE: usize = 16;
