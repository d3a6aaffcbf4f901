//! Ensembles of decision trees: every row walks down every tree, and the weights of the leaves it reaches are combined.
//!
//! A walk is a chain of dependent loads, so several run interleaved: as many rows down one tree, which then stays in the
//! first-level cache, or one row down as many trees. Weights are combined in the order of trees for each row by itself.

mod generic;
mod pack;

use std::fmt;

use crate::grid::Grid;
use generic::Job;

/// An ensemble as a model describes it. Nodes refer to each other by their places.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest<T> {
    pub nodes: Vec<Node<T>>,
    pub roots: Vec<usize>,
    pub targets: usize,
    pub aggregate: Aggregate,
    /// Added to what the trees make: nothing, or a number for each target.
    pub base: Vec<T>,
    /// What a row has for a target that none of its leaves has a weight for, before `base`: NaN rather than zero.
    pub tell_absent: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node<T> {
    Branch(Branch<T>),
    /// Targets and their weights.
    Leaf(Vec<(usize, T)>),
}

/// Goes to `then` where the test of a feature holds, or the feature is NaN and `missing` says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch<T> {
    pub feature: usize,
    pub test: Test<T>,
    pub missing: bool,
    pub then: usize,
    pub otherwise: usize,
}

/// A feature compared. NaN fails all of them but `NotEqual`.
#[derive(Clone, Debug, PartialEq)]
pub enum Test<T> {
    AtMost(T),
    Below(T),
    AtLeast(T),
    Above(T),
    Equal(T),
    NotEqual(T),
    Member(Vec<T>),
}

/// How weights for one target become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Sum,
    /// The sum over the number of trees.
    Average,
    Min,
    Max,
}

/// What is wrong with a forest, and at which of its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub node: usize,
    pub fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A root or a branch leads to a node that is none.
    NoNode,
    /// It is reached by two ways, one of which may be itself.
    ReachedTwice,
    Feature,
    Threshold,
    Target,
    Weight,
    /// There are more nodes or weights than can be counted with 32 bits.
    TooMany,
}

/// A forest made ready to run.
#[derive(Clone, PartialEq)]
pub struct Ensemble<T> {
    nodes: Vec<Packed<T>>,
    /// Beside every node, the outcomes of its comparison that go to the second child; see [`generic`].
    masks: Vec<u8>,
    /// Sorted members; a node that asks for one has its place for a threshold.
    sets: Vec<Vec<T>>,
    trees: Vec<Tree>,
    leaves: Leaves<T>,
    /// Whether a row without NaN may go by thresholds alone.
    plain: bool,
    /// Whether a row may have no weight for a target.
    scattered: bool,
    /// Features that a row must have.
    width: usize,
    targets: usize,
    aggregate: Aggregate,
    base: Vec<T>,
    tell_absent: bool,
}

/// A node whose children lie beside each other: a feature of at most the threshold goes to the first. A leaf is its own
/// first child.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Packed<T> {
    threshold: T,
    feature: u32,
    first: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tree {
    root: u32,
    /// Steps from the root to its deepest leaf.
    depth: u32,
    /// Of all its weights, where leaves have one each.
    target: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Leaves<T> {
    /// Beside every node its weight.
    One(Vec<T>),
    /// Beside every node, and one more, the first of its weights.
    Several { starts: Vec<u32>, weights: Vec<(u32, T)> },
}

/// An element of features, thresholds and weights.
pub trait Element: Copy + PartialOrd + Default + fmt::Debug + Send + Sync + 'static {
    const NAN: Self;
    const INFINITY: Self;

    fn is_nan(self) -> bool;
    fn is_lowest(self) -> bool;
    fn next_down(self) -> Self;
    fn plus(self, other: Self) -> Self;
    fn over(self, count: usize) -> Self;
    fn of_index(index: usize) -> Self;
    fn to_index(self) -> usize;
}

impl<T: Element> Ensemble<T> {
    /// # Errors
    /// The first node that makes no sense.
    pub fn pack(forest: &Forest<T>) -> Result<Self, Malformed> {
        pack::pack(forest)
    }

    /// Features that a row has at least.
    pub fn width(&self) -> usize {
        self.width
    }

    pub fn targets(&self) -> usize {
        self.targets
    }

    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    /// Whether some row may have no weight for some target.
    pub fn is_scattered(&self) -> bool {
        self.scattered
    }

    pub fn bytes(&self) -> usize {
        let leaves = match &self.leaves {
            Leaves::One(weights) => size_of_val(&weights[..]),
            Leaves::Several { starts, weights } => size_of_val(&starts[..]) + size_of_val(&weights[..]),
        };
        let sets: usize = self.sets.iter().map(|set| size_of_val(&set[..])).sum();
        size_of_val(&self.nodes[..]) + self.masks.len() + size_of_val(&self.trees[..]) + leaves + sets
    }

    /// Computes rows of an output of rows by targets until none is left.
    ///
    /// # Panics
    /// When `x` has not the output's rows of `width` features, or these are fewer than branches ask for.
    pub fn run(&self, x: &[T], width: usize, grid: &Grid<'_, T>) {
        let [rows, targets] = grid.size();
        assert!(targets == self.targets && x.len() == rows * width, "x has the output's rows");
        assert!(width >= self.width, "rows have {} features at least, got {width}", self.width);
        while let Some(mut tile) = grid.take() {
            let (first, count) = (tile.first()[0], tile.size()[0]);
            let x = &x[first * width..(first + count) * width];
            let plain = self.plain && !x.iter().any(|x| x.is_nan());
            (0..count).for_each(|row| tile.row(row).fill(self.start()));
            generic::call(&Job { ensemble: self, x, width, rows: count, out: tile.out, pitch: tile.pitch }, plain);
            (0..count).for_each(|row| self.finish(tile.row(row)));
        }
    }

    /// Cuts an output into tiles for `run`.
    ///
    /// # Panics
    /// When `out` cannot hold the rows.
    pub fn grid<'a>(&self, out: &'a mut [T], rows: usize) -> Grid<'a, T> {
        Grid::new(out, self.targets, [rows, self.targets], [TILE_ROWS, self.targets])
    }

    /// What a target has before any weight.
    fn start(&self) -> T {
        let adds = matches!(self.aggregate, Aggregate::Sum | Aggregate::Average);
        if adds && !self.scattered { T::default() } else { T::NAN }
    }

    fn finish(&self, row: &mut [T]) {
        for (at, to) in row.iter_mut().enumerate() {
            if to.is_nan() && self.scattered && !self.tell_absent {
                *to = T::default();
            }
            if self.aggregate == Aggregate::Average {
                *to = to.over(self.trees.len());
            }
            if let Some(base) = self.base.get(at) {
                *to = to.plus(*base);
            }
        }
    }
}

impl<T: Element> fmt::Debug for Ensemble<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, trees, width, targets, aggregate, .. } = self;
        let (nodes, trees) = (nodes.len(), trees.len());
        write!(f, "Ensemble({trees} trees, {nodes} nodes, {width} features, {targets} targets, {aggregate:?})")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNode => "leads to a node that is not there",
            Self::ReachedTwice => "is reached by two ways",
            Self::Feature => "asks for a feature beyond any",
            Self::Threshold => "compares with NaN",
            Self::Target => "has a weight for a target that is none",
            Self::Weight => "has NaN for a weight",
            Self::TooMany => "is one too many",
        })
    }
}

macro_rules! elements {
    ($($type:ident)*) => { $(
        #[expect(
            clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
            reason = "indices of sets are few, and a count of trees is rounded as the division is"
        )]
        impl Element for $type {
            const NAN: Self = Self::NAN;
            const INFINITY: Self = Self::INFINITY;

            fn is_nan(self) -> bool {
                self.is_nan()
            }

            fn is_lowest(self) -> bool {
                self == Self::NEG_INFINITY
            }

            fn next_down(self) -> Self {
                self.next_down()
            }

            fn plus(self, other: Self) -> Self {
                self + other
            }

            fn over(self, count: usize) -> Self {
                self / count as Self
            }

            fn of_index(index: usize) -> Self {
                index as Self
            }

            fn to_index(self) -> usize {
                self as usize
            }
        }
    )* };
}

elements!(f32 f64);

/// Rows that go through one tree before the next: 13 KiB of fifty floats beside a tree of 255 branches.
const TILE_ROWS: usize = 64;
