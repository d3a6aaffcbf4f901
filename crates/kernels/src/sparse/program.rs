//! Weights as the steps that kernels take: which row of a panel meets which weights.

use std::collections::HashMap;
use std::ops::Range;

use super::generic::{OFFSET_BITS, STEPS, pitch};
use super::{BLOCKS, Kernels, PANEL_MAX, SUMS, VECTORS};
use crate::aligned::Aligned;
use crate::isa::nearest_cache;

/// Weights as words `[row][column]`, dense. A word of zero is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// What kernels run for some weights.
///
/// The code of a part is that of blocks, some of which take their steps by turns. Of such there is the number of steps that
/// the longest has; of each column of each block the offset in bytes of its sums; and steps, always four together: of each
/// block two words with the offsets in bytes of the rows in the panel, 16 bits each, and of each step the weights of the
/// columns of each block. The last of them may be fewer. Offsets are those of one vector of pixels: kernels take them times their
/// pitch.
#[derive(Debug)]
pub(crate) struct Program {
    rows: usize,
    columns: usize,
    /// Pixels and rows of a full panel.
    pixels: usize,
    panel_rows: usize,
    /// Which of `BLOCKS`, and how many such take their steps by turns.
    block_at: usize,
    turns: usize,
    code: Aligned,
    /// Of the first panel, of all columns that go together one after the other, then of the next: the order they run in.
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
    /// How often blocks are taken together.
    pub(crate) turns: usize,
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
            panel_rows: panel_rows(words, rows, each * size_of::<u32>()),
            block_at,
            turns: kernels.products.turns[block_at],
            code: Aligned::default(),
            parts: Vec::new(),
            fill: Fill { all: words.len(), multiplied: 0, nonzero: 0 },
        };
        let mut code = Vec::new();
        let together = |first| (first, blocks(matrix, first..columns.min(first + TOGETHER), block));
        let together: Vec<_> = (0..columns).step_by(TOGETHER).map(together).collect();
        for panel in (0..rows.max(1)).step_by(program.panel_rows()) {
            for (first, blocks) in &together {
                let part = program.write(matrix, blocks, [*first, panel], &mut code);
                program.parts.push(part);
            }
        }
        program.code = Aligned::of(&code);
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
        if panel > 0 {
            // The first panel begins the sums of blocks without rows, later ones add nothing to them.
            let without = cut.partition_point(|(_, rows)| rows.is_empty());
            cut.drain(..without - without % self.turns);
        }
        let part = Part { code: code.len(), turns: cut.len().div_ceil(self.turns) };
        let size = BLOCKS[self.block_at];
        // Sums of columns that a block lacks lie behind all others: only the last columns together are so few.
        let lanes = self.lanes();
        let sums = |column: Option<&usize>| column.map_or(TOGETHER, |column| column - first) * lanes;
        let bytes = |words: usize| u32::try_from(words * size_of::<u32>()).expect("rooms are small");
        for cut in cut.chunks(self.turns) {
            let blocks: Vec<_> = (0..self.turns).map(|nth| cut.get(nth).copied().unwrap_or((&NONE, &[]))).collect();
            let steps = cut.last().map_or(0, |(_, rows)| rows.len());
            code.push(u32::try_from(steps).expect("panels have few rows"));
            for (block, _) in &blocks {
                code.extend((0..size).map(|nth| bytes(sums(block.columns.get(nth)))));
            }
            for step in 0..steps {
                if step.is_multiple_of(STEPS as usize) {
                    for (_, rows) in &blocks {
                        let offset = |nth: usize| rows.get(step + nth).map_or(0, |row| bytes((row - panel) * lanes));
                        code.extend([0, 2].map(|nth| offset(nth) | offset(nth + 1) << OFFSET_BITS));
                    }
                }
                for (block, rows) in &blocks {
                    let weight = |nth: usize| {
                        let (row, column) = (rows.get(step)?, block.columns.get(nth)?);
                        Some(matrix.at(*row, *column))
                    };
                    code.extend((0..size).map(|nth| weight(nth).unwrap_or(0)));
                }
            }
            for (block, rows) in cut {
                let weights = rows.iter().flat_map(|row| block.columns.iter().map(|column| matrix.at(*row, *column)));
                self.fill.nonzero += weights.filter(|&weight| weight != 0).count();
            }
            self.fill.multiplied += steps * blocks.len() * size;
        }
        part
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Pixels of a full panel.
    pub(crate) fn pixels(&self) -> usize {
        self.pixels
    }

    /// Words from a row of a panel of so many pixels, or from the sums of a column, to the next.
    pub(crate) fn pitch(&self, pixels: usize) -> usize {
        pitch(pixels.div_ceil(self.lanes())) * self.lanes()
    }

    fn lanes(&self) -> usize {
        self.pixels / VECTORS
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
        self.panel_rows
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
        self.parts[panel * self.columns.div_ceil(TOGETHER) + column / TOGETHER]
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

/// Rows of each panel, of which there are as few as the nearest cache allows: sums are stored and loaded again for each.
/// Where more of the words are not zero, a part of the cache is left for the rest.
fn panel_rows(words: &[u32], rows: usize, row: usize) -> usize {
    let nonzero = words.iter().filter(|&&word| word != 0).count();
    let cache = nearest_cache().min(CACHE_MAX);
    let bytes = if nonzero * SPARSE <= words.len() { cache } else { cache / 6 * 5 };
    // A little more than fits is better than one panel more.
    let panels = (rows * row).saturating_sub(cache / 24).div_ceil(bytes).max(1);
    let panel_rows = rows.div_ceil(panels).max(1);
    assert!(panel_rows * row <= PANEL_MAX, "a panel fits the room");
    panel_rows
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

static NONE: Block = Block { columns: Vec::new(), rows: Vec::new() };

/// Columns whose blocks lie together.
pub(super) const TOGETHER: usize = 64;

/// Bytes of a cache that a panel fills at most, so that a little more fits the room.
const CACHE_MAX: usize = PANEL_MAX / 13 * 12;

/// One in so many words is not zero where panels fill the cache.
const SPARSE: usize = 7;

/// Tiles that share the work of an output evenly enough.
const TILES_PER_THREAD: usize = 2;
