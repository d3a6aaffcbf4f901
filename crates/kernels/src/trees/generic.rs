//! Interleaved walks, for rows that go by thresholds alone and for all others.
//!
//! Of a comparison there are four outcomes: less, equal, greater, and NaN. A mask has a bit for each, which says whether
//! it goes to the second child; so every test, and where NaN goes, is one loop without branches.

use super::{Aggregate, Element, Ensemble, Leaves, Packed};

/// What a kernel works on. `x` has `rows` rows of `width` elements, at least as many as branches ask for; `out` is valid
/// for as many rows of the ensemble's targets, `pitch` apart.
pub(super) struct Job<'a, T> {
    pub(super) ensemble: &'a Ensemble<T>,
    pub(super) x: &'a [T],
    pub(super) width: usize,
    pub(super) rows: usize,
    pub(super) out: *mut T,
    pub(super) pitch: usize,
}

/// Runs the loop that belongs to an ensemble and to rows that are `plain` or not.
pub(super) fn call<T: Element>(job: &Job<'_, T>, plain: bool) {
    // SAFETY: `Ensemble::run` has checked the extents that the job's pointers cover, and packing that nodes lead to nodes,
    // ask for features within `width`, and have weights for targets.
    unsafe {
        match plain {
            true => folded(job, &Plain { nodes: job.ensemble.nodes.as_ptr() }),
            false => folded(job, &Masked { ensemble: job.ensemble }),
        }
    }
}

/// # Safety
/// As `rows`.
unsafe fn folded<T: Element, W: Step<T>>(job: &Job<'_, T>, step: &W) {
    let empty = job.ensemble.scattered;
    // SAFETY: the caller's promise.
    unsafe {
        match job.ensemble.aggregate {
            Aggregate::Sum | Aggregate::Average if !empty => combined(job, step, T::plus),
            Aggregate::Sum | Aggregate::Average => combined(job, step, first_or(T::plus)),
            Aggregate::Min => combined(job, step, first_or(|held, weight| if weight < held { weight } else { held })),
            Aggregate::Max => combined(job, step, first_or(|held, weight| if weight > held { weight } else { held })),
        }
    }
}

/// A weight alone where there was none before, which is NaN.
fn first_or<T: Element>(fold: impl Fn(T, T) -> T + Copy) -> impl Fn(T, T) -> T + Copy {
    move |held, weight| if held.is_nan() { weight } else { fold(held, weight) }
}

/// # Safety
/// As `rows`.
unsafe fn combined<T: Element, W: Step<T>>(job: &Job<'_, T>, step: &W, fold: impl Fn(T, T) -> T + Copy) {
    // SAFETY: the caller's promise; there is a weight, or the start of weights, beside every node, and weights are for
    // targets, which are the columns of `out`.
    unsafe {
        match &job.ensemble.leaves {
            Leaves::One(weights) => rows(job, step, |out: *mut T, tree: usize, leaf: u32| {
                let to = out.add(job.ensemble.trees.get_unchecked(tree).target as usize);
                *to = fold(*to, *weights.get_unchecked(leaf as usize));
            }),
            Leaves::Several { starts, weights } => rows(job, step, |out: *mut T, _: usize, leaf: u32| {
                let from = *starts.get_unchecked(leaf as usize) as usize;
                let to = *starts.get_unchecked(leaf as usize + 1) as usize;
                for &(target, weight) in weights.get_unchecked(from..to) {
                    let to = out.add(target as usize);
                    *to = fold(*to, weight);
                }
            }),
        }
    }
}

/// All rows through all trees: whole groups of rows tree by tree, then each of the others through groups of trees.
///
/// # Safety
/// The job's pointers are valid, and its ensemble was packed.
#[inline(always)]
unsafe fn rows<T: Element, W: Step<T>>(job: &Job<'_, T>, step: &W, score: impl Fn(*mut T, usize, u32)) {
    let trees = &job.ensemble.trees[..];
    let grouped = job.rows / WALKS * WALKS;
    // SAFETY: rows and trees are counted; the caller's promise is that of the walks.
    unsafe {
        for (at, tree) in trees.iter().enumerate() {
            for first in (0..grouped).step_by(WALKS) {
                let x = job.x.as_ptr().add(first * job.width);
                let mut places = [tree.root; WALKS];
                for _ in 0..tree.depth {
                    for (walk, place) in places.iter_mut().enumerate() {
                        *place = step.step(*place, x.add(walk * job.width));
                    }
                }
                for (walk, place) in places.into_iter().enumerate() {
                    score(job.out.add((first + walk) * job.pitch), at, place);
                }
            }
        }
        for row in grouped..job.rows {
            let (x, out) = (job.x.as_ptr().add(row * job.width), job.out.add(row * job.pitch));
            for (group, trees) in trees.chunks(WALKS).enumerate() {
                let mut places: [u32; WALKS] = std::array::from_fn(|walk| trees[walk.min(trees.len() - 1)].root);
                let depth = trees.iter().map(|tree| tree.depth).max().unwrap_or(0);
                for _ in 0..depth {
                    for place in &mut places {
                        *place = step.step(*place, x);
                    }
                }
                for (walk, place) in places.into_iter().take(trees.len()).enumerate() {
                    score(out, group * WALKS + walk, place);
                }
            }
        }
    }
}

/// From a node to its child, or from a leaf to itself.
trait Step<T> {
    /// # Safety
    /// `place` is a node, and `x` has the features that branches ask for.
    unsafe fn step(&self, place: u32, x: *const T) -> u32;
}

/// For rows without NaN, in ensembles whose every test is "at most".
struct Plain<T> {
    nodes: *const Packed<T>,
}

impl<T: Element> Step<T> for Plain<T> {
    #[inline(always)]
    #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "the comparison as packing has it")]
    unsafe fn step(&self, place: u32, x: *const T) -> u32 {
        // SAFETY: the caller's promise.
        unsafe {
            let node = &*self.nodes.add(place as usize);
            let x = *x.add(node.feature as usize);
            node.first + u32::from(!(x <= node.threshold))
        }
    }
}

struct Masked<'a, T> {
    ensemble: &'a Ensemble<T>,
}

impl<T: Element> Step<T> for Masked<'_, T> {
    #[inline(always)]
    unsafe fn step(&self, place: u32, x: *const T) -> u32 {
        // SAFETY: the caller's promise; there is a mask beside every node.
        unsafe {
            let node = self.ensemble.nodes.get_unchecked(place as usize);
            let mask = *self.ensemble.masks.get_unchecked(place as usize);
            let x = *x.add(node.feature as usize);
            let outcome = if mask & MEMBER == 0 {
                outcome(x, node.threshold)
            } else {
                let set = &self.ensemble.sets[node.threshold.to_index()];
                let found = set.binary_search_by(|member| member.partial_cmp(&x).unwrap_or(std::cmp::Ordering::Less));
                if x.is_nan() { NAN } else { u8::from(found.is_err()) * GREATER }
            };
            node.first + u32::from(mask >> outcome & 1)
        }
    }
}

/// The bit of a comparison's outcome.
#[inline(always)]
#[expect(clippy::neg_cmp_op_on_partial_ord, reason = "NaN is neither")]
fn outcome<T: Element>(x: T, threshold: T) -> u8 {
    u8::from(!(x < threshold)) + u8::from(!(x <= threshold)) + u8::from(x.is_nan())
}

/// Bits of a mask: outcomes that go to the second child.
pub(super) const LESS: u8 = 0;
pub(super) const EQUAL: u8 = 1;
pub(super) const GREATER: u8 = 2;
pub(super) const NAN: u8 = 3;
/// In a mask: the threshold is the place of a set. Members are less, others greater.
pub(super) const MEMBER: u8 = 1 << 7;

/// Walks that run interleaved.
const WALKS: usize = 16;
