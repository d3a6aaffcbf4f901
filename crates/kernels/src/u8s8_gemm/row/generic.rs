//! The loops over groups of columns.

use super::super::generic::{Block, Job, Sums, begin, finish};
use crate::vector::Vector;

/// Bytes of a row by their places in a chunk of it.
///
/// # Safety
/// As the methods of [`Sums`].
pub(super) trait Pick: Sums {
    type Chunk: Copy;

    /// `count` bytes are readable, at most as many as a chunk has.
    unsafe fn chunk(from: *const u8, count: usize) -> Self::Chunk;
    /// Four places for each lane are readable, each within a chunk.
    unsafe fn pick(chunk: Self::Chunk, places: *const u8) -> Self::Bytes;
}

/// Words of weights from four lines.
///
/// # Safety
/// As the methods of [`Sums`].
pub(super) trait Interleave: Sums {
    /// Of a group of columns, which stand in lines as `lines::place` says.
    unsafe fn interleave(lines: [*const i8; WORD]) -> [Self::Weights; VECTORS];
}

/// The kernels of an instruction set.
#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) name: &'static str,
    pub(super) lanes: usize,
    pub(super) blocks: unsafe fn(&BlocksJob<'_>),
    /// Where bytes are found by a permutation.
    pub(super) places: Option<unsafe fn(&PlacesJob<'_>)>,
    pub(super) lines: unsafe fn(&LinesJob<'_>),
    /// With more elements than so many of one that are not zero, a product with all weights takes less time.
    pub(super) lines_share_max: f32,
}

/// What a group of columns works on.
#[derive(Debug)]
pub(super) struct BlocksJob<'a> {
    pub(super) row: &'a [u8],
    /// `[step][VECTORS]`: where four elements of the row begin.
    pub(super) offsets: &'a [u32],
    /// `[step][VECTORS][LANES][4]`.
    pub(super) weights: &'a [i8],
    pub(super) results: Job,
}

/// What a group of columns works on.
#[derive(Debug)]
pub(super) struct PlacesJob<'a> {
    pub(super) row: &'a [u8],
    /// `[VECTORS][chunk]`.
    pub(super) steps: &'a [u8],
    /// `[step][LANES][4]`.
    pub(super) places: &'a [u8],
    pub(super) weights: &'a [i8],
    pub(super) results: Job,
}

/// What a panel of columns works on.
#[derive(Debug)]
pub(super) struct LinesJob<'a> {
    /// By fours.
    pub(super) lines: &'a [u32],
    /// The elements of the row that they meet.
    pub(super) bytes: &'a [u8],
    /// One or two.
    pub(super) groups: usize,
    /// Whether lines come from memory.
    pub(super) are_far: bool,
    /// `[line][groups * VECTORS * LANES]`.
    pub(super) weights: &'a [i8],
    pub(super) results: Job,
}

/// Runs the kernel of a level.
pub(super) fn call_blocks(kernels: &Kernels, job: &BlocksJob<'_>) {
    assert_eq!(job.weights.len(), job.offsets.len() * kernels.lanes * WORD, "there are weights for all steps");
    assert!(job.offsets.len().is_multiple_of(VECTORS), "a step has all vectors");
    // SAFETY: it is found in the table of a level, which proves its instructions; extents were asserted, offsets are those
    // of words within the row, as they were packed, and results are those of a tile.
    unsafe { (kernels.blocks)(job) }
}

/// As `call_blocks`, where there is such a kernel.
pub(super) fn call_places(kernels: &Kernels, job: &PlacesJob<'_>) {
    let steps: usize = job.steps.iter().map(|&steps| usize::from(steps)).sum();
    let bytes = steps * kernels.lanes * WORD;
    assert_eq!((job.weights.len(), job.places.len()), (bytes, bytes), "there are weights for all steps");
    assert_eq!(job.steps.len(), VECTORS * job.row.len().div_ceil(CHUNK), "every chunk has its steps");
    let kernel = kernels.places.expect("what was packed has a kernel");
    // SAFETY: as in `call_blocks`; places are within chunks, as they were packed.
    unsafe { kernel(job) }
}

/// As `call_blocks`; lines are those of the weights.
pub(super) fn call_lines(kernels: &Kernels, job: &LinesJob<'_>) {
    assert!(job.lines.len() == job.bytes.len() && job.lines.len().is_multiple_of(WORD), "elements come by fours");
    // SAFETY: as in `call_blocks`; `Lines::run` has checked that there are such lines.
    unsafe { (kernels.lines)(job) }
}

/// # Safety
/// The processor has the instructions of `S`, and what `call_blocks` says holds.
#[inline(always)]
pub(super) unsafe fn blocks<S: Sums>(job: &BlocksJob<'_>) {
    // SAFETY: the caller's promise is that of these reads and calls.
    unsafe {
        let [mut sums] = begin::<S, 1, VECTORS>(job.results.bias);
        let (row, mut weights) = (job.row.as_ptr(), job.weights.as_ptr());
        for offsets in job.offsets.chunks_exact(VECTORS) {
            for (sum, &offset) in sums.iter_mut().zip(offsets) {
                let x = S::bytes(row.add(offset as usize).cast::<u32>().read_unaligned());
                *sum = sum.dot(x, S::weights(weights));
                weights = weights.add(S::LANES * WORD);
            }
        }
        end(&job.results, 0, &sums);
    }
}

/// # Safety
/// The processor has the instructions of `S`, and what `call_places` says holds.
#[inline(always)]
pub(super) unsafe fn places<S: Pick>(job: &PlacesJob<'_>) {
    // SAFETY: the caller's promise is that of these reads and calls.
    unsafe {
        let [mut sums] = begin::<S, 1, VECTORS>(job.results.bias);
        let (mut places, mut weights) = (job.places.as_ptr(), job.weights.as_ptr());
        let chunks = job.row.len().div_ceil(CHUNK);
        for (n, all) in sums.iter_mut().enumerate() {
            let mut sum = *all;
            for (row, &steps) in job.row.chunks(CHUNK).zip(&job.steps[n * chunks..]) {
                let chunk = S::chunk(row.as_ptr(), row.len());
                for _ in 0..steps {
                    sum = sum.dot(S::pick(chunk, places), S::weights(weights));
                    (places, weights) = (places.add(S::LANES * WORD), weights.add(S::LANES * WORD));
                }
            }
            *all = sum;
        }
        end(&job.results, 0, &sums);
    }
}

/// # Safety
/// The processor has the instructions of `S`, and what `call_lines` says holds.
#[inline(always)]
pub(super) unsafe fn lines<S: Interleave>(job: &LinesJob<'_>) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        match job.groups {
            1 => lines_of::<S, 1>(job),
            _ => lines_of::<S, 2>(job),
        }
    }
}

/// `G` groups together: all that a line has of a panel is read at once.
///
/// # Safety
/// As `lines`.
#[inline(always)]
unsafe fn lines_of<S: Interleave, const G: usize>(job: &LinesJob<'_>) {
    // SAFETY: the caller's promise is that of these reads and calls.
    unsafe {
        let width = VECTORS * S::LANES;
        let mut sums = [[S::zero(); VECTORS]; G];
        for (group, sums) in sums.iter_mut().enumerate() {
            [*sums] = begin::<S, 1, VECTORS>(job.results.bias.add(group * width));
        }
        for (at, (lines, bytes)) in job.lines.chunks_exact(WORD).zip(job.bytes.chunks_exact(WORD)).enumerate() {
            // What comes is no stream that a processor would foresee.
            let ahead = if job.are_far { WORD } else { 0 };
            for &line in job.lines.iter().skip(at * WORD + AHEAD).take(ahead) {
                for group in 0..G {
                    S::Floats::prefetch(job.weights.as_ptr().add((line as usize * G + group) * width).cast());
                }
            }
            let x = S::bytes(bytes.as_ptr().cast::<u32>().read_unaligned());
            let mut from = [job.weights.as_ptr(); WORD];
            for (from, &line) in from.iter_mut().zip(lines) {
                *from = from.add(line as usize * G * width);
            }
            for sums in &mut sums {
                let weights = S::interleave(from);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = sum.dot(x, weights);
                }
                for from in &mut from {
                    *from = from.wrapping_add(width);
                }
            }
        }
        for (group, sums) in sums.iter().enumerate() {
            end(&job.results, group * width, sums);
        }
    }
}

/// What follows the sums of a group that begins at a column.
///
/// # Safety
/// As `finish`.
#[inline(always)]
unsafe fn end<S: Sums>(results: &Job, column: usize, sums: &[S; VECTORS]) {
    let block = Block::first(results);
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        if results.columns >= column + VECTORS * S::LANES {
            return finish::<S, 1, VECTORS, false>(results, block, column, &[*sums]);
        }
        for (n, &sum) in sums.iter().enumerate() {
            let at = column + n * S::LANES;
            if at < results.columns {
                finish::<S, 1, 1, false>(results, block, at, &[[sum]]);
            }
        }
    }
}

/// Vectors of columns of a group.
pub(super) const VECTORS: usize = 4;

/// Weights of a column that are multiplied together.
pub(super) const WORD: usize = 4;

/// Lines from one that is multiplied to one that is asked for.
const AHEAD: usize = 64;

/// Bytes of a row that two registers of the widest kind hold.
pub(super) const CHUNK: usize = 128;
