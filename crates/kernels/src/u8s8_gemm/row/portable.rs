//! Eight columns to a vector, one by one.

use std::array;

use super::super::portable::{LANES, Lanes};
use super::generic::{self, BlocksJob, Interleave, Kernels, LinesJob, VECTORS, WORD};

// SAFETY: memory is readable as the trait asks; the caller promised.
impl Interleave for Lanes {
    #[inline(always)]
    unsafe fn interleave(lines: [*const i8; WORD]) -> [[[i8; 4]; LANES]; VECTORS] {
        let place = |vector: usize, lane: usize| lane / WORD * VECTORS * WORD + vector * WORD + lane % WORD;
        // SAFETY: as said above.
        let word = |place: usize| lines.map(|line| unsafe { *line.add(place) });
        array::from_fn(|vector| array::from_fn(|lane| word(place(vector, lane))))
    }
}

/// # Safety
/// The job is as `generic::blocks` asks.
unsafe fn blocks(job: &BlocksJob<'_>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::blocks::<Lanes>(job) }
}

/// # Safety
/// The job is as `generic::lines` asks.
unsafe fn lines(job: &LinesJob<'_>) {
    // SAFETY: the caller's promise; no instruction set is needed.
    unsafe { generic::lines::<Lanes>(job) }
}

pub(super) static KERNELS: Kernels =
    Kernels { name: "portable", lanes: LANES, blocks, places: None, lines, lines_share_max: 0.65 };
