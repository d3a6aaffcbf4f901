//! An output matrix cut into tiles that any number of threads take from, each tile once.
//!
//! This is what makes parallel kernels safe to call: a [`Tile`] is the only way to its elements, and a [`Grid`] gives
//! every tile to one taker.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A matrix of `rows` by `cols` elements, rows `pitch` elements apart, and the tiles not yet taken.
#[derive(Debug)]
pub struct Grid<'a, T = f32> {
    out: *mut T,
    pitch: usize,
    size: [usize; 2],
    tile: [usize; 2],
    next: AtomicUsize,
    borrowed: PhantomData<&'a mut [T]>,
}

/// A rectangle of a matrix that nobody else writes or reads.
#[derive(Debug)]
pub struct Tile<'a, T = f32> {
    pub(crate) out: *mut T,
    pub(crate) pitch: usize,
    /// The first row and column, in the matrix.
    pub(crate) first: [usize; 2],
    pub(crate) size: [usize; 2],
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: a grid is a unique borrow of its elements, and hands each of them to one tile, by an atomic counter.
unsafe impl<T: Send> Sync for Grid<'_, T> {}
// SAFETY: as `&mut [T]`.
unsafe impl<T: Send> Send for Grid<'_, T> {}
// SAFETY: as `&mut [T]`: tiles of a grid do not overlap.
unsafe impl<T: Send> Send for Tile<'_, T> {}

impl<'a, T> Grid<'a, T> {
    /// # Panics
    /// When the matrix does not lie within `out`, rows overlap, or a tile is empty.
    pub fn new(out: &'a mut [T], pitch: usize, size: [usize; 2], tile: [usize; 2]) -> Self {
        let [rows, cols] = size;
        let end = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * pitch + cols };
        assert!(end <= out.len() && (cols <= pitch || rows <= 1), "{rows}x{cols} rows lie within the output");
        assert!(!tile.contains(&0), "a tile has elements");
        Self { out: out.as_mut_ptr(), pitch, size, tile, next: AtomicUsize::new(0), borrowed: PhantomData }
    }

    pub fn tiles(&self) -> usize {
        self.size[0].div_ceil(self.tile[0]) * self.size[1].div_ceil(self.tile[1])
    }

    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// A tile that nobody has taken: those of one row of tiles first, left to right.
    pub fn take(&self) -> Option<Tile<'_, T>> {
        let across = self.size[1].div_ceil(self.tile[1]);
        // Threads that find nothing add at most one each.
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= self.tiles() {
            return None;
        }
        let first = [index / across * self.tile[0], index % across * self.tile[1]];
        let size = [0, 1].map(|axis| self.tile[axis].min(self.size[axis] - first[axis]));
        // SAFETY: `first` lies in the matrix, which lies within the borrowed slice (checked in `new`).
        let out = unsafe { self.out.add(first[0] * self.pitch + first[1]) };
        Some(Tile { out, pitch: self.pitch, first, size, borrowed: PhantomData })
    }
}

impl<T> Tile<'_, T> {
    pub fn first(&self) -> [usize; 2] {
        self.first
    }

    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Some rows of the tile.
    ///
    /// # Panics
    /// When the rows are not the tile's.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "what is returned has the rows to itself")]
    pub(crate) fn rows(&mut self, rows: Range<usize>) -> Tile<'_, T> {
        assert!(rows.start <= rows.end && rows.end <= self.size[0], "rows {rows:?} are the tile's {}", self.size[0]);
        Tile {
            // Within the tile, or behind it where there are no rows.
            out: self.out.wrapping_add(rows.start * self.pitch),
            pitch: self.pitch,
            first: [self.first[0] + rows.start, self.first[1]],
            size: [rows.len(), self.size[1]],
            borrowed: PhantomData,
        }
    }

    /// Some rows of the tile, cut again.
    ///
    /// # Panics
    /// When the rows are not the tile's, or a tile of these would be empty.
    pub(crate) fn grid(&mut self, rows: Range<usize>, tile: [usize; 2]) -> Grid<'_, T> {
        assert!(!tile.contains(&0), "a tile has elements");
        let Tile { out, pitch, size, borrowed, .. } = self.rows(rows);
        Grid { out, pitch, size, tile, next: AtomicUsize::new(0), borrowed }
    }

    /// All elements of a tile as wide as its matrix, whose rows lie one behind the other.
    ///
    /// # Panics
    /// When the tile is not.
    pub fn whole(&mut self) -> &mut [T] {
        assert_eq!(self.size[1], self.pitch, "the tile has all columns of a dense matrix");
        // SAFETY: the rows lie in the tile, without gaps; they are this tile's alone, and the slice borrows the tile.
        unsafe { std::slice::from_raw_parts_mut(self.out, self.size[0] * self.pitch) }
    }

    /// The elements of one row of the tile.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.size[0], "row {row} is one of the tile's {}", self.size[0]);
        // SAFETY: the row lies in the tile, whose elements are this tile's alone, and the slice borrows the tile.
        unsafe { std::slice::from_raw_parts_mut(self.out.add(row * self.pitch), self.size[1]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_everything_once() {
        let mut out = vec![0u8; 6 * 11];
        let grid = Grid::new(&mut out, 11, [6, 10], [4, 3]);
        assert_eq!(grid.tiles(), 8);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(mut tile) = grid.take() {
                        for row in 0..tile.size()[0] {
                            tile.row(row).iter_mut().for_each(|element| *element += 1);
                        }
                    }
                });
            }
        });
        assert!(out.chunks(11).all(|row| row[..10].iter().all(|&e| e == 1) && row[10] == 0));
    }

    #[test]
    fn a_tile_of_all_columns_is_one_piece() {
        let mut out: Vec<u8> = (0..12).collect();
        let grid = Grid::new(&mut out, 3, [4, 3], [2, 3]);
        let _first = grid.take();
        assert_eq!(grid.take().unwrap().whole(), [6, 7, 8, 9, 10, 11]);
    }

    #[test]
    #[should_panic(expected = "all columns")]
    fn a_tile_of_some_columns_is_no_piece() {
        Grid::new(&mut [0u8; 12], 3, [4, 3], [2, 2]).take().unwrap().whole();
    }

    #[test]
    fn an_empty_matrix_has_no_tiles() {
        assert!(Grid::new(&mut [0.0; 0], 5, [0, 5], [1, 1]).take().is_none());
        assert!(Grid::new(&mut [0.0; 0], 0, [5, 0], [1, 1]).take().is_none());
    }

    #[test]
    #[should_panic(expected = "rows lie within")]
    fn a_matrix_larger_than_its_memory_is_refused() {
        let _grid = Grid::new(&mut [0.0; 9], 5, [2, 5], [1, 1]);
    }
}
