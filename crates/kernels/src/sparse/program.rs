//! Weights as the steps that kernels take: which row of a panel meets which weights.

use std::collections::HashMap;
use std::ops::Range;

use super::generic::{OFFSET_BITS, STEPS};
use super::{BLOCKS, Kernels, PANEL, SUMS, VECTORS};
use crate::aligned::Aligned;

/// Weights as words `[row][column]`, dense. A word of zero is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// What kernels run for some weights.
///
/// The code of a part is that of blocks. A block is its number of steps; of each of its columns the offset in bytes of its
/// sums; and its steps, always four together: two words with the offsets in bytes of the rows in the panel, 16 bits each,
/// and of each step the weights of the columns. The last of them may be fewer.
#[derive(Debug)]
pub(crate) struct Program {
    rows: usize,
    columns: usize,
    /// Pixels of a full panel.
    pixels: usize,
    /// Which of `BLOCKS`.
    block_at: usize,
    code: Aligned,
    /// Of the first columns together, panel by panel, then of the next.
    parts: Vec<Part>,
    fill: Fill,
}

/// How many weights there are, how many of them kernels multiply, and how many are not zero; all in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub all: usize,
    pub multiplied: usize,
    pub nonzero: usize,
}

/// The blocks of some columns with the rows of one panel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) code: usize,
    pub(crate) blocks: usize,
}

/// Columns that go together, and the rows in which any of them has a weight.
struct Block {
    columns: Vec<usize>,
    rows: Vec<usize>,
}

impl Program {
    /// With blocks of so many columns.
    ///
    /// # Panics
    /// When there are no such blocks, or the matrix has other words than its extents say.
    pub(crate) fn of(matrix: &Matrix<'_>, kernels: &Kernels, block: usize) -> Self {
        let Matrix { words, rows, columns } = *matrix;
        assert_eq!(words.len(), rows * columns, "words are rows by columns");
        let block_at = BLOCKS.iter().position(|&columns| columns == block).expect("kernels have blocks of the size");
        let each = VECTORS * kernels.lanes;
        let mut program = Self {
            rows,
            columns,
            pixels: each,
            block_at,
            code: Aligned::default(),
            parts: Vec::new(),
            fill: Fill { all: words.len(), multiplied: 0, nonzero: 0 },
        };
        let mut code = Vec::new();
        for first in (0..columns).step_by(TOGETHER) {
            let blocks = blocks(matrix, first..columns.min(first + TOGETHER), block);
            for panel in (0..rows.max(1)).step_by(program.panel_rows()) {
                let part = program.write(matrix, &blocks, [first, panel], &mut code);
                program.parts.push(part);
            }
        }
        program.code = Aligned::zeroed(size_of_val(&*code));
        program.code.elements_mut()[..code.len()].copy_from_slice(&code);
        program
    }

    /// Appends the code of one panel, blocks of few steps first: the processor foretells the end of a loop that takes as
    /// many turns as the one before.
    fn write(
        &mut self,
        matrix: &Matrix<'_>,
        blocks: &[Block],
        [first, panel]: [usize; 2],
        code: &mut Vec<u32>,
    ) -> Part {
        let (begin, end) = (panel, panel + self.panel_rows());
        let mut cut: Vec<(&Block, &[usize])> = blocks
            .iter()
            .map(|block| {
                let at = |row| block.rows.partition_point(|&other| other < row);
                (block, &block.rows[at(begin)..at(end)])
            })
            .collect();
        cut.sort_by_key(|(_, rows)| rows.len());
        let part = code.len();
        let size = BLOCKS[self.block_at];
        // Sums of columns that a block lacks lie behind all others.
        let sums = |column: Option<&usize>| column.map_or(TOGETHER, |column| column - first) * self.pixels;
        let bytes = |words: usize| u32::try_from(words * size_of::<u32>()).expect("rooms are small");
        let mut count = 0;
        for (block, rows) in cut {
            // Later panels add nothing to sums of such blocks, the first one begins them.
            if rows.is_empty() && panel > 0 {
                continue;
            }
            count += 1;
            code.push(u32::try_from(rows.len()).expect("panels have few rows"));
            code.extend((0..size).map(|nth| bytes(sums(block.columns.get(nth)))));
            for rows in rows.chunks(STEPS as usize) {
                let offset = |nth: usize| rows.get(nth).map_or(0, |row| bytes((row - panel) * self.pixels));
                code.extend([0, 2].map(|nth| offset(nth) | offset(nth + 1) << OFFSET_BITS));
                for row in rows {
                    let weight = |nth: usize| block.columns.get(nth).map_or(0, |column| matrix.at(*row, *column));
                    code.extend((0..size).map(weight));
                    self.fill.nonzero += (0..size).filter(|&nth| weight(nth) != 0).count();
                    self.fill.multiplied += size;
                }
            }
        }
        Part { code: part, blocks: count }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Pixels of a full panel, and words from the sums of a column to those of the next.
    pub(crate) fn pixels(&self) -> usize {
        self.pixels
    }

    /// Columns of a tile that leaves some to each of so many threads, where it can: rows of the image are laid out again
    /// for every tile of columns.
    pub(crate) fn tile_columns(&self, rows: usize, threads: usize) -> usize {
        let down = rows.div_ceil(self.pixels).max(1);
        let wanted = if threads > 1 { TILES_PER_THREAD * threads } else { 1 };
        let across = wanted.div_ceil(down).max(self.columns.div_ceil(SUMS / self.pixels));
        self.columns.div_ceil(across).next_multiple_of(TOGETHER)
    }

    pub(crate) fn fill(&self) -> Fill {
        self.fill
    }

    /// Columns of a block.
    pub(crate) fn block(&self) -> usize {
        BLOCKS[self.block_at]
    }

    pub(super) fn block_at(&self) -> usize {
        self.block_at
    }

    pub(super) fn panel_rows(&self) -> usize {
        PANEL / self.pixels
    }

    pub(super) fn code(&self) -> &[u32] {
        self.code.elements()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.code.bytes()
    }

    /// Panels that the rows lie in.
    pub(super) fn panels(&self) -> usize {
        self.rows.div_ceil(self.panel_rows()).max(1)
    }

    /// What the columns that go together from one on do with a panel.
    ///
    /// # Panics
    /// When none begin with it.
    pub(super) fn part(&self, column: usize, panel: usize) -> Part {
        assert!(column.is_multiple_of(TOGETHER), "columns go together from {column} on");
        self.parts[column / TOGETHER * self.panels() + panel]
    }
}

impl Fill {
    /// Of both weights together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            multiplied: self.multiplied + other.multiplied,
            nonzero: self.nonzero + other.nonzero,
        }
    }
}

impl Matrix<'_> {
    fn at(&self, row: usize, column: usize) -> u32 {
        self.words[row * self.columns + column]
    }
}

/// Blocks of columns: those of equal rows first, and what is left in order.
fn blocks(matrix: &Matrix<'_>, columns: Range<usize>, size: usize) -> Vec<Block> {
    let mut rows_of = vec![Vec::new(); columns.len()];
    for row in 0..matrix.rows {
        let words = &matrix.words[row * matrix.columns..][columns.clone()];
        let with_words = words.iter().zip(&mut rows_of).filter(|(word, _)| **word != 0);
        with_words.for_each(|(_, rows)| rows.push(row));
    }
    let mut alike: HashMap<Vec<usize>, Vec<usize>> = HashMap::new();
    for (column, rows) in columns.zip(rows_of) {
        alike.entry(rows).or_default().push(column);
    }
    let mut blocks = Vec::new();
    let mut rest = Vec::new();
    for (rows, columns) in alike {
        let chunks = columns.chunks_exact(size);
        rest.extend(chunks.remainder().iter().map(|&column| (column, rows.clone())));
        blocks.extend(chunks.map(|columns| Block { columns: columns.to_vec(), rows: rows.clone() }));
    }
    rest.sort_unstable();
    for columns in rest.chunks(size) {
        let mut rows: Vec<usize> = columns.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
        rows.sort_unstable();
        rows.dedup();
        blocks.push(Block { columns: columns.iter().map(|(column, _)| *column).collect(), rows });
    }
    // The order of a hash map is not that of the next load.
    blocks.sort_by(|a, b| a.columns.cmp(&b.columns));
    blocks
}

/// Columns whose blocks lie together.
pub(super) const TOGETHER: usize = 64;

/// Tiles that share the work of an output evenly enough.
const TILES_PER_THREAD: usize = 2;
