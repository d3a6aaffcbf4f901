//! Scaled dot-product attention in `f32` (Vaswani et al., "Attention Is All You Need", 2017): for every head, scores of
//! queries with keys, their softmax, and the values so weighted. Scores live in a room of a few queries (Dao et al.,
//! "FlashAttention", 2022, have the idea of not writing all of them), and heads need not be transposed out of their
//! tokens: every operand says how far apart its elements are.

use std::marker::PhantomData;

use bytemuck::Pod;
use half::bf16;

use crate::f32_functions::{softmax_of_scores, softmax_of_scores_to_halves};
use crate::f32_gemm::Packing;
use crate::grid::{Grid, Tile};
use crate::isa::Level;

/// Attention of some extents, whose operands and results lie in memory as `E`.
#[derive(Clone, Copy, Debug)]
pub struct Attention<E = f32> {
    level: Level,
    extents: Extents,
    /// Scores are multiplied by this.
    scale: f32,
    keys: Packing,
    values: Packing,
    elements: PhantomData<E>,
}

/// What operands and results lie in memory as: floats, or bf16, which are multiplied in pairs where the instruction set does
/// that. Scores are floats, and rounded once they are weights.
pub trait Element: Pod + Send + Sync {
    /// How keys and values of so many rows and columns are packed.
    ///
    /// # Panics
    /// When the instruction set does not multiply such elements.
    #[doc(hidden)]
    fn packing(level: Level, size: [usize; 2]) -> Packing;

    /// Keys, which lie so far apart, as columns.
    #[doc(hidden)]
    fn pack_keys(packing: &Packing, keys: &[Self], strides: [usize; 2], to: &mut [f32]);

    /// So many values, which lie so far apart, as rows.
    #[doc(hidden)]
    fn pack_values(packing: &Packing, values: &[Self], count: usize, strides: [usize; 2], to: &mut [f32]);

    /// Scores of queries that lie so far apart.
    #[doc(hidden)]
    fn score(keys: &Packing, queries: &[Self], pitch: usize, packed: &[f32], scores: &Grid<'_>);

    /// A row of scores made weights, which begin where the row does.
    #[doc(hidden)]
    fn weights(level: Level, scale: f32, mask: Option<&[f32]>, scores: &mut [f32]);

    /// Values so weighted.
    #[doc(hidden)]
    fn weigh(values: &Packing, weights: &[f32], pitch: usize, packed: &[f32], out: &Grid<'_, Self>);
}

impl Element for f32 {
    fn packing(level: Level, [rows, columns]: [usize; 2]) -> Packing {
        Packing::matrix(level, rows, columns)
    }

    fn pack_keys(packing: &Packing, keys: &[Self], [token, element]: [usize; 2], to: &mut [f32]) {
        packing.pack(keys, [element, token], to);
    }

    fn pack_values(packing: &Packing, values: &[Self], _count: usize, strides: [usize; 2], to: &mut [f32]) {
        packing.pack(values, strides, to);
    }

    fn score(keys: &Packing, queries: &[Self], pitch: usize, packed: &[f32], scores: &Grid<'_>) {
        keys.run(queries, pitch, packed, scores);
    }

    fn weights(level: Level, scale: f32, mask: Option<&[f32]>, scores: &mut [f32]) {
        softmax_of_scores(level, scale, mask, scores);
    }

    fn weigh(values: &Packing, weights: &[f32], pitch: usize, packed: &[f32], out: &Grid<'_>) {
        values.run(weights, pitch, packed, out);
    }
}

/// Elements of a query, a key or a value lie beside each other; queries and keys have an even number of them and begin with
/// whole pairs.
impl Element for bf16 {
    fn packing(level: Level, [rows, columns]: [usize; 2]) -> Packing {
        Packing::pairs(level, rows, columns)
    }

    fn pack_keys(packing: &Packing, keys: &[Self], [token, element]: [usize; 2], to: &mut [f32]) {
        assert!(element == 1 && token.is_multiple_of(2), "keys begin with whole pairs");
        packing.pack(in_pairs(keys), [1, token / 2], to);
    }

    fn pack_values(packing: &Packing, values: &[Self], count: usize, [token, element]: [usize; 2], to: &mut [f32]) {
        assert_eq!(element, 1, "elements of a value lie beside each other");
        packing.pack_in_pairs(values, token, count, to);
    }

    fn score(keys: &Packing, queries: &[Self], pitch: usize, packed: &[f32], scores: &Grid<'_>) {
        assert!(pitch.is_multiple_of(2), "queries begin with whole pairs");
        keys.run(in_pairs(queries), pitch / 2, packed, scores);
    }

    fn weights(level: Level, scale: f32, mask: Option<&[f32]>, scores: &mut [f32]) {
        softmax_of_scores_to_halves(level, scale, mask, scores);
    }

    fn weigh(values: &Packing, weights: &[f32], pitch: usize, packed: &[f32], out: &Grid<'_, Self>) {
        values.run_to_halves(weights, pitch, packed, out);
    }
}

/// Whole pairs, each in the place of a float.
fn in_pairs(halves: &[bf16]) -> &[f32] {
    bytemuck::cast_slice(&halves[..halves.len() / 2 * 2])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    pub batch: usize,
    pub heads: usize,
    pub queries: usize,
    pub keys: usize,
    /// Elements of a query and of a key.
    pub depth: usize,
    /// Elements of a value.
    pub width: usize,
}

/// Elements in memory, and how many there are from one to the next along batch, head, token and element.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a, E = f32> {
    pub elements: &'a [E],
    pub strides: [usize; 4],
}

/// How results lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[batch][head][query][element]`.
    HeadsOutside,
    /// `[batch][query][head][element]`.
    HeadsInside,
}

impl<E: Element> Attention<E> {
    pub fn new(level: Level, extents: Extents, scale: f32) -> Self {
        let Extents { keys, depth, width, .. } = extents;
        let (by_keys, by_values) = (E::packing(level, [depth, keys]), E::packing(level, [keys, width]));
        Self { level, extents, scale, keys: by_keys, values: by_values, elements: PhantomData }
    }

    /// Elements that the packed keys and values of all heads take.
    pub fn packed_elements(&self) -> usize {
        self.extents.batch * self.extents.heads * self.of_head()
    }

    /// Elements of the room that a thread needs.
    pub fn room_elements(&self) -> usize {
        QUERIES_TOGETHER.min(self.extents.queries) * self.extents.keys
    }

    fn of_head(&self) -> usize {
        self.keys.elements() + self.values.elements()
    }

    /// Room for packed keys and values, cut for `pack`.
    ///
    /// # Panics
    /// When `packed` has fewer than `packed_elements`.
    pub fn packed_grid<'a>(&self, packed: &'a mut [f32]) -> Grid<'a> {
        let each = self.of_head();
        Grid::new(packed, each, [self.extents.batch * self.extents.heads, each], [1, each.max(1)])
    }

    /// Packs keys and values, head by head until none is left.
    ///
    /// # Panics
    /// When an operand is too short for its strides, or the grid is another than `packed_grid`.
    pub fn pack(&self, keys: &Strided<'_, E>, values: &Strided<'_, E>, grid: &Grid<'_>) {
        assert_eq!(grid.size(), [self.extents.batch * self.extents.heads, self.of_head()], "a row for each head");
        while let Some(mut tile) = grid.take() {
            let (batch, head) = (tile.first()[0] / self.extents.heads, tile.first()[0] % self.extents.heads);
            let (to_keys, to_values) = tile.row(0).split_at_mut(self.keys.elements());
            let [.., token, element] = keys.strides;
            E::pack_keys(&self.keys, keys.from([batch, head, 0]), [token, element], to_keys);
            let [.., token, element] = values.strides;
            let count = self.extents.keys;
            E::pack_values(&self.values, values.from([batch, head, 0]), count, [token, element], to_values);
        }
    }

    /// An output cut for `run`.
    ///
    /// # Panics
    /// When `out` has not an element for each result.
    pub fn grid<'a>(&self, out: &'a mut [E], order: Order) -> Grid<'a, E> {
        let size = self.size(order);
        Grid::new(out, size[1], size, [QUERIES_TOGETHER, self.extents.width.max(1)])
    }

    fn size(&self, order: Order) -> [usize; 2] {
        let Extents { batch, heads, queries, width, .. } = self.extents;
        match order {
            Order::HeadsOutside => [batch * heads * queries, width],
            Order::HeadsInside => [batch * queries, heads * width],
        }
    }

    /// Attends until no tile is left; any number of threads may do so at once, each with a room of its own. `mask` is
    /// added to the scaled scores; its elements lie beside each other along the keys.
    ///
    /// # Panics
    /// When an operand is too short for its strides, elements of a query do not lie beside each other, `packed` or `room`
    /// is too short, or the output was cut otherwise than by `grid`.
    pub fn run(
        &self,
        queries: &Strided<'_, E>,
        mask: Option<&Strided<'_>>,
        packed: &[f32],
        order: Order,
        grid: &Grid<'_, E>,
        room: &mut [f32],
    ) {
        let Extents { heads, queries: tokens, width, .. } = self.extents;
        assert_eq!(grid.size(), self.size(order), "the output has an element for each result");
        assert!(queries.strides[3] == 1 && mask.is_none_or(|mask| mask.strides[3] == 1), "elements are not apart");
        while let Some(mut tile) = grid.take() {
            let ([first, column], [rows, _]) = (tile.first(), tile.size());
            // Rows of a tile may belong to several heads, or inputs.
            let mut row = 0;
            while row < rows {
                let (outer, token) = ((first + row) / tokens, (first + row) % tokens);
                let (batch, head) = match order {
                    Order::HeadsOutside => (outer / heads, outer % heads),
                    Order::HeadsInside => (outer, column / width),
                };
                let count = (tokens - token).min(rows - row);
                let place = Place { batch, head, token, count };
                self.attend(place, queries, mask, packed, (&mut tile, row), room);
                row += count;
            }
        }
    }

    fn attend(
        &self,
        place: Place,
        queries: &Strided<'_, E>,
        mask: Option<&Strided<'_>>,
        packed: &[f32],
        (tile, row): (&mut Tile<'_, E>, usize),
        room: &mut [f32],
    ) {
        let Place { batch, head, token, count } = place;
        let keys = self.extents.keys;
        let packed = &packed[(batch * self.extents.heads + head) * self.of_head()..][..self.of_head()];
        let (packed_keys, packed_values) = packed.split_at(self.keys.elements());
        let scores = &mut room[..count * keys];
        let grid = self.keys.grid_of_one(scores, keys, count);
        E::score(&self.keys, queries.from([batch, head, token]), queries.strides[2], packed_keys, &grid);
        for (query, scores) in scores.chunks_exact_mut(keys.max(1)).enumerate() {
            let mask = mask.map(|mask| &mask.from([batch, head, token + query])[..keys]);
            E::weights(self.level, self.scale, mask, scores);
        }
        let grid = tile.grid(row..row + count, self.values.tile(usize::MAX));
        E::weigh(&self.values, scores, keys, packed_values, &grid);
    }
}

/// Queries of one head that are answered together.
#[derive(Clone, Copy)]
struct Place {
    batch: usize,
    head: usize,
    token: usize,
    count: usize,
}

impl<'a, E> Strided<'a, E> {
    /// Elements from a batch, head and token on.
    fn from(&self, place: [usize; 3]) -> &'a [E] {
        let first: usize = place.iter().zip(self.strides).map(|(at, stride)| at * stride).sum();
        &self.elements[first..]
    }
}

/// Their scores stay in the nearest caches with 512 keys; a panel of keys or values is read once for all of them.
const QUERIES_TOGETHER: usize = 64;
