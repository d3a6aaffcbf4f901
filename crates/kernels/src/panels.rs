//! What packed products of any element type share: their panels, what is added to them, and the kernels of an instruction set.

use std::ops::Range;

use crate::grid::{Grid, Tile};

/// Added to a product: a matrix of the output's size.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a, T = f32> {
    pub elements: &'a [T],
    pub pitch: usize,
}

impl<T> Residual<'_, T> {
    /// # Panics
    /// When it has not so many rows of so many columns.
    pub(crate) fn check(&self, [rows, columns]: [usize; 2]) {
        let end = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * self.pitch + columns };
        assert!(end <= self.elements.len(), "the residual is pixels by columns");
    }
}

/// The kernels of an instruction set for jobs `J`, each of a number of rows and of vectors.
#[derive(Debug)]
pub(crate) struct Table<J: 'static> {
    pub(crate) name: &'static str,
    pub(crate) lanes: usize,
    /// By vectors less one, then by rows less one.
    pub(crate) tiles: &'static [&'static [unsafe fn(&J)]],
}

/// The most rows of any tile.
pub(crate) const ROWS_MAX: usize = 12;

/// `tile`, or another function, for `N` vectors and these numbers of rows.
macro_rules! tiles {
    ($function:ident $n:literal: $($m:literal)*) => { &[$($function::<$m, $n>),*] };
    ($n:literal: $($m:literal)*) => { &[$(tile::<$m, $n>),*] };
}
pub(crate) use tiles;

/// Columns cut into panels of equal width, of which the last may be narrower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels {
    pub(crate) columns: usize,
    lanes: usize,
    /// Of a full panel.
    vectors: usize,
    /// Rows of a full panel's tile.
    pub(crate) rows: usize,
}

/// Columns that are packed together.
pub(crate) struct Panel {
    pub(crate) columns: usize,
    pub(crate) vectors: usize,
}

/// Panels of one width that the same rows meet one after the other.
pub(crate) struct Together {
    pub(crate) panels: usize,
    /// Of all of them.
    pub(crate) columns: usize,
    /// Of each.
    pub(crate) vectors: usize,
}

impl<J> Table<J> {
    /// Panels of so many vectors; `None` takes the width that suits the number of columns.
    ///
    /// # Panics
    /// When no kernel is so wide.
    pub(crate) fn panels(&self, columns: usize, vectors: Option<usize>) -> Panels {
        let vectors = vectors.unwrap_or_else(|| self.width_for(columns));
        assert!((1..=self.tiles.len()).contains(&vectors), "no kernel is {vectors} vectors wide");
        Panels { columns, lanes: self.lanes, vectors, rows: self.tiles[vectors - 1].len() }
    }

    /// The width, in vectors, that computes the fewest empty lanes and loads the least for so many columns.
    fn width_for(&self, columns: usize) -> usize {
        let vectors = columns.div_ceil(self.lanes).max(1);
        // Loads per multiply-add of a full tile, times the vectors computed.
        let cost = |width: usize| -> f32 {
            let loads = |width: usize| {
                let rows = self.tiles[width - 1].len() as f32;
                width as f32 * (1.0 + (rows + width as f32) / (rows * width as f32))
            };
            let (full, rest) = (vectors / width, vectors % width);
            full as f32 * loads(width) + if rest > 0 { loads(rest) } else { 0.0 }
        };
        (1..=self.tiles.len()).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(1)
    }

    /// A kernel's name, `<dtype>_<op>_<rows>x<columns>__<isa>`.
    pub(crate) fn kernel(&self, operation: &str, panels: &Panels) -> String {
        format!("{operation}_{}x{}__{}", panels.rows, panels.width(), self.name)
    }
}

impl Panels {
    /// Columns of a full panel.
    pub(crate) fn width(&self) -> usize {
        self.vectors * self.lanes
    }

    /// Columns with those that fill the last vector.
    pub(crate) fn padded(&self) -> usize {
        self.columns.next_multiple_of(self.lanes)
    }

    /// The first columns of all panels.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.columns).step_by(self.width())
    }

    /// Those of some columns.
    ///
    /// # Panics
    /// When the columns are not of whole panels.
    pub(crate) fn part(&self, columns: &Range<usize>) -> Self {
        self.check_columns(columns);
        Self { columns: columns.len(), ..*self }
    }

    /// How many panels lie before one.
    pub(crate) fn nth(&self, first: usize) -> usize {
        first / self.width()
    }

    /// The panel that begins at a column.
    pub(crate) fn panel(&self, first: usize) -> Panel {
        let (columns, width) = (self.columns - first, self.width());
        if columns >= width {
            return Panel { columns: width, vectors: self.vectors };
        }
        Panel { columns, vectors: columns.div_ceil(self.lanes) }
    }

    /// All whole panels that lie in so many columns of a tile from one on, or the one that is narrower.
    pub(crate) fn together(&self, first: usize, columns: usize) -> Together {
        let (Panel { columns: of_one, vectors }, width) = (self.panel(first), self.width());
        let panels = if of_one < width { 1 } else { columns / width };
        Together { panels, columns: panels * of_one, vectors }
    }

    /// # Panics
    /// When a tile is not of whole panels, as those of `grid` are.
    pub(crate) fn check<T>(&self, tile: &Tile<'_, T>) {
        self.check_columns(&(tile.first[1]..tile.first[1] + tile.size[1]));
    }

    fn check_columns(&self, &Range { start, end }: &Range<usize>) {
        let whole = start.is_multiple_of(self.width()) && (end.is_multiple_of(self.width()) || end == self.columns);
        assert!(whole, "a tile of the output is of whole panels");
    }

    /// Cuts an output into tiles for `check`ed kernels, whose rows and columns read so many bytes each.
    ///
    /// # Panics
    /// When `out` cannot hold `rows` rows `pitch` elements apart.
    pub(crate) fn grid<'a, T>(&self, out: &'a mut [T], pitch: usize, rows: usize, bytes: [usize; 2]) -> Grid<'a, T> {
        Grid::new(out, pitch, [rows, self.columns], self.tile(bytes, rows))
    }

    /// Rows and columns of a tile, by the bytes that one of each reads: as many rows as keep their input in the
    /// second-level cache, and one panel, or as many as stay in the nearest cache together while rows pass. Where those are
    /// all columns, some of the output's `rows`, so that threads get tiles.
    pub(crate) fn tile(&self, [row_bytes, column_bytes]: [usize; 2], rows: usize) -> [usize; 2] {
        let near = NEAR_BYTES / (column_bytes * self.width()).max(1);
        let count = self.columns.div_ceil(self.width()).max(1);
        // As many in each tile.
        let together = count.div_ceil(count.div_ceil(near.max(1)));
        let shared = if together == count { rows.div_ceil(TILES_MIN) } else { rows };
        let cached = (TILE_BYTES / row_bytes.max(1)).min(TILE_ROWS_MAX);
        let rows = cached.min(shared).max(self.rows).next_multiple_of(self.rows);
        [rows, together * self.width()]
    }
}

/// What the rows of a tile read at most.
const TILE_BYTES: usize = 512 << 10;

/// Weights that rows pass by in the nearest cache.
const NEAR_BYTES: usize = 16 << 10;

/// Tiles of an output that has rows enough, and one panel or few.
const TILES_MIN: usize = 4;

/// Enough to read weights rarely, few enough that all cores get tiles.
const TILE_ROWS_MAX: usize = 96;
