//! The inner loop over one tile, for any vector: `M` rows by `N` vectors of columns stay in registers.

use std::marker::PhantomData;

use half::bf16;

use crate::activation::Activation;
use crate::panels::Table;
use crate::vector::{Stored, Vector, activate};

/// What a step of the loops multiplies: some elements of a row with four bytes of each column.
///
/// # Safety
/// Every method may be called only where the processor has the instructions of the implementing type. Reads touch `STEP`
/// elements of a row, or as many columns as a vector has lanes, and need no alignment.
pub(super) trait Product {
    /// Elements of a row in a step.
    const STEP: usize;
    type Sums: Vector;
    type Left: Copy;
    type Right: Copy;

    unsafe fn left(from: *const f32) -> Self::Left;
    unsafe fn right(from: *const f32) -> Self::Right;
    unsafe fn add(left: Self::Left, right: Self::Right, sums: Self::Sums) -> Self::Sums;
}

/// Floats.
pub(super) struct Floats<V>(PhantomData<V>);

// SAFETY (all methods): the caller promised.
impl<V: Vector> Product for Floats<V> {
    const STEP: usize = 1;
    type Sums = V;
    type Left = V;
    type Right = V;

    #[inline(always)]
    unsafe fn left(from: *const f32) -> V {
        // SAFETY: as said above.
        unsafe { V::splat(*from) }
    }

    #[inline(always)]
    unsafe fn right(from: *const f32) -> V {
        // SAFETY: as said above.
        unsafe { V::load(from) }
    }

    #[inline(always)]
    unsafe fn add(left: V, right: V, sums: V) -> V {
        // SAFETY: as said above.
        unsafe { left.mul_add(right, sums) }
    }
}

/// Two floats that are bf16 with two bf16 in the place of a float, for instruction sets that do not multiply them.
pub(super) struct Pairs<V>(PhantomData<V>);

// SAFETY (all methods): the caller promised.
impl<V: Vector> Product for Pairs<V> {
    const STEP: usize = 2;
    type Sums = V;
    type Left = [V; 2];
    type Right = [V; 2];

    #[inline(always)]
    unsafe fn left(from: *const f32) -> [V; 2] {
        // SAFETY: as said above.
        unsafe { [V::splat(*from), V::splat(*from.add(1))] }
    }

    #[inline(always)]
    unsafe fn right(from: *const f32) -> [V; 2] {
        // SAFETY: as said above.
        unsafe { V::load(from).apart() }
    }

    #[inline(always)]
    unsafe fn add(left: [V; 2], right: [V; 2], sums: V) -> V {
        // SAFETY: as said above.
        unsafe { left[1].mul_add(right[1], left[0].mul_add(right[0], sums)) }
    }
}

/// The kernels of an instruction set.
#[derive(Debug)]
pub(super) struct Kernels<E: 'static = f32> {
    /// What names of kernels begin with.
    pub(super) operation: &'static str,
    pub(super) tiles: Table<Job<E>>,
    /// By vectors less one: one row of several panels at once.
    pub(super) rows: &'static [unsafe fn(&Job<E>)],
    /// How many those are.
    pub(super) together: usize,
    /// Elements of a row in a step.
    pub(super) step: usize,
}

/// Kernels that multiply pairs of bf16, and what rounds floats to what they take for rows.
#[derive(Debug)]
pub(super) struct PairKernels {
    pub(super) products: Kernels,
    /// The same with results that are bf16, where rows are.
    pub(super) to_halves: Option<Kernels<bf16>>,
    pub(super) round: Round,
}

/// So many floats become as many bf16, two in the place of a float where a step takes one element, else one.
pub(super) type Round = unsafe fn(*const f32, *mut f32, usize);

/// What a tile kernel works on; results are stored as `E`. All pointers are valid for the extents beside them.
#[derive(Debug)]
pub(super) struct Job<E = f32> {
    pub(super) taps: usize,
    /// Steps of every tap.
    pub(super) depth: usize,
    /// Times `M` rows, each with all panels before the next.
    pub(super) blocks: usize,
    /// `[blocks][taps][M]`: where a row's elements of a tap begin.
    pub(super) rows: *const *const f32,
    /// Panels that the rows meet, one after the other.
    pub(super) panels: usize,
    /// `[taps * depth][N * LANES]` of each panel.
    pub(super) weights: *const f32,
    /// From one panel of weights to the next.
    pub(super) weights_pitch: usize,
    /// What will be read next, or anything: it is only fetched, so many elements with each row of the weights.
    pub(super) next: *const f32,
    pub(super) next_step: usize,
    /// From what one panel fetches to what the next does, and from what one block does.
    pub(super) next_pitch: usize,
    pub(super) next_block: usize,
    pub(super) out: *mut E,
    pub(super) out_pitch: usize,
    /// Columns to write, with more than `(N - 1) * LANES` of each panel.
    pub(super) columns: usize,
    /// Whether sums begin with what is in `out`, which are floats.
    pub(super) resume: bool,
    /// Whether elements of a row that are zero add nothing.
    pub(super) skips: bool,
    /// What weights mean that are codes.
    pub(super) codes: Option<Codes>,
    /// What follows the last sum; without it the sums are written as they are.
    pub(super) ends: Option<End<E>>,
}

/// Weights that are words of several codes, the first in the lowest bits, one step of a column in each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codes {
    /// Of a code.
    pub(super) bits: u32,
    /// Elements of a tap, and of a block of it.
    pub(super) depth: usize,
    pub(super) block: usize,
    /// What a code means, for every value of the bits that are looked at.
    pub(super) table: *const f32,
    /// What sums are multiplied with, `[blocks][N * LANES]` of each panel.
    pub(super) scales: *const f32,
    /// Times the sum of a row's block, what is added then, as `scales`; or nothing.
    pub(super) shifts: *const f32,
    pub(super) blocks: usize,
    /// From the scales of one panel to those of the next.
    pub(super) pitch: usize,
}

impl Codes {
    /// For the panels from a column on, which are so wide.
    pub(super) fn of(self, first: usize, width: usize) -> Self {
        let at = first * self.blocks;
        let [scales, shifts] = [self.scales, self.shifts].map(|of| of.wrapping_add(at));
        Self { scales, shifts, pitch: width * self.blocks, ..self }
    }
}

#[derive(Debug)]
pub(super) struct End<E = f32> {
    /// `[panels][N * LANES]`.
    pub(super) bias: *const f32,
    /// From the bias of one row to that of the next: zero where rows are rows of a product.
    pub(super) bias_pitch: usize,
    /// The tile's first element and the distance of rows.
    pub(super) residual: Option<(*const E, usize)>,
    pub(super) activation: Activation,
}

/// Runs a kernel of a table.
pub(super) fn call<E>(kernel: unsafe fn(&Job<E>), job: &Job<E>) {
    // SAFETY: kernels are only found in the table of a level, which proves their instructions; `Gemm::run` has checked
    // the extents that the job's pointers cover, and the job has as many rows as the kernel.
    unsafe { kernel(job) }
}

/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn tile<P: Product, E: Stored<P::Sums>, const M: usize, const N: usize>(job: &Job<E>) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut block = Block::first(job);
        for nth in 0..job.blocks {
            for panel in 0..job.panels {
                let column = panel * N * P::Sums::LANES;
                let mut sums = begin::<P::Sums, E, M, N>(job, block, column);
                let mut weights = job.weights.add(panel * job.weights_pitch);
                let mut next = job.next.wrapping_add(panel * job.next_pitch + nth * job.next_block);
                for tap in 0..job.taps {
                    let mut rows = [std::ptr::null(); M];
                    for (m, row) in rows.iter_mut().enumerate() {
                        *row = *block.rows.add(tap * M + m);
                    }
                    for k in 0..job.depth {
                        let mut w = [P::right(weights); N];
                        for (n, w) in w.iter_mut().enumerate().skip(1) {
                            *w = P::right(weights.add(n * P::Sums::LANES));
                        }
                        for m in 0..M {
                            let x = P::left(rows[m].add(k * P::STEP));
                            for n in 0..N {
                                sums[m][n] = P::add(x, w[n], sums[m][n]);
                            }
                        }
                        P::Sums::prefetch(next);
                        next = next.wrapping_add(job.next_step);
                        weights = weights.add(N * P::Sums::LANES);
                    }
                }
                end::<P::Sums, E, M, N>(job, block, column, &mut sums);
            }
            block = block.below(job, M);
        }
    }
}

/// Where a block finds its rows, writes results and finds what is added to them.
pub(super) struct Block<E> {
    pub(super) rows: *const *const f32,
    out: *mut E,
    residual: *const E,
}

impl<E> Clone for Block<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Block<E> {}

impl<E> Block<E> {
    #[inline(always)]
    pub(super) fn first(job: &Job<E>) -> Self {
        let residual = job.ends.as_ref().and_then(|end| end.residual);
        Self { rows: job.rows, out: job.out, residual: residual.map_or(std::ptr::null(), |(residual, _)| residual) }
    }

    /// The next block, of blocks of so many rows.
    #[inline(always)]
    pub(super) fn below(self, job: &Job<E>, rows: usize) -> Self {
        let pitch = job.ends.as_ref().and_then(|end| end.residual).map_or(0, |(_, pitch)| pitch);
        Self {
            rows: self.rows.wrapping_add(job.taps * rows),
            out: self.out.wrapping_add(rows * job.out_pitch),
            residual: self.residual.wrapping_add(rows * pitch),
        }
    }
}

/// One row of a product with `M` whole panels: its results are seen as a tile with a row for each panel. A product waits
/// for its sum before it can add to it; this many sums leave no time to wait. Weights of steps that add nothing are not read.
///
/// # Safety
/// As `tile`.
#[inline(always)]
pub(super) unsafe fn row<P: Product, E: Stored<P::Sums>, const M: usize, const N: usize>(job: &Job<E>) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut sums = begin::<P::Sums, E, M, N>(job, Block::first(job), 0);
        let mut weights = job.weights;
        for tap in 0..job.taps {
            let mut row = *job.rows.add(tap);
            for from in (0..job.depth).step_by(LOOKED_AT / P::STEP) {
                let steps = (LOOKED_AT / P::STEP).min(job.depth - from);
                let mut left = if job.skips { nonzero::<P>(row, steps) } else { first::<P>(steps) };
                while left != 0 {
                    let k = left.trailing_zeros() as usize / P::STEP;
                    left &= left - 1;
                    let (x, weights) = (P::left(row.add(k * P::STEP)), weights.add(k * N * P::Sums::LANES));
                    for (m, sums) in sums.iter_mut().enumerate() {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            let w = P::right(weights.add(m * job.weights_pitch + n * P::Sums::LANES));
                            *sum = P::add(x, w, *sum);
                        }
                    }
                }
                (row, weights) = (row.add(steps * P::STEP), weights.add(steps * N * P::Sums::LANES));
            }
        }
        end::<P::Sums, E, M, N>(job, Block::first(job), 0, &mut sums);
    }
}

/// Bits of the first steps of a row, at most as many as have [`LOOKED_AT`] elements: the lowest of each step's.
#[inline(always)]
fn first<P: Product>(steps: usize) -> u64 {
    let every = if P::STEP == 1 { u64::MAX } else { u64::MAX / 3 };
    every & u64::MAX >> (LOOKED_AT - steps * P::STEP)
}

/// As `first`, of those steps that have an element with any bit set.
///
/// # Safety
/// The processor has the instructions of `P`, and so many steps of the row are readable.
#[inline(always)]
unsafe fn nonzero<P: Product>(row: *const f32, steps: usize) -> u64 {
    const { assert!(P::STEP <= 2, "a step has an element or two") }
    let mut elements = 0;
    for at in (0..steps * P::STEP).step_by(P::Sums::LANES) {
        // SAFETY: the caller's promise is that of this read.
        let some = unsafe { <f32 as Stored<P::Sums>>::load(row.add(at), steps * P::STEP - at).nonzero() };
        elements |= u64::from(some) << at;
    }
    first::<P>(steps) & (elements | elements >> (P::STEP - 1))
}

/// Elements of a row that are looked at together: as many as a word has bits.
const LOOKED_AT: usize = 64;

/// The nearest bf16, the even one of two; of what is no number one that is none.
#[inline(always)]
pub(super) fn half(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let [low, high, ..] = (if x.is_nan() { bits >> 16 | 0x40 } else { rounded }).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// `Round` to floats.
///
/// # Safety
/// `count` floats are readable, and as many writable.
#[inline(always)]
pub(super) unsafe fn round(from: *const f32, to: *mut f32, count: usize) {
    for at in 0..count {
        // SAFETY: the caller's promise.
        unsafe { *to.add(at) = f32::from_bits(u32::from(half(*from.add(at))) << 16) };
    }
}

/// Runs one that rounds.
pub(super) fn call_round(kernels: &PairKernels, from: &[f32], to: &mut [f32]) {
    assert!((from.len() * kernels.products.step).div_ceil(2) <= to.len(), "there is room for all");
    // SAFETY: it is only found in the table of a level, which proves its instructions, and there is room for what it
    // writes, as was asserted.
    unsafe { (kernels.round)(from.as_ptr(), to.as_mut_ptr(), from.len()) }
}

/// As `call_round`, for kernels that round to halves.
pub(super) fn call_round_halves(kernels: &PairKernels, from: &[f32], to: &mut [u16]) {
    assert!(kernels.products.step == 1 && from.len() == to.len(), "there is half a float for each");
    // SAFETY: it is only found in the table of a level, which proves its instructions; it writes halves where its rows
    // have two in the place of a float, and needs no alignment.
    unsafe { (kernels.round)(from.as_ptr(), to.as_mut_ptr().cast(), from.len()) }
}

/// Zeros, or what the part before has left.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn begin<V: Vector, E: Stored<V>, const M: usize, const N: usize>(
    job: &Job<E>,
    block: Block<E>,
    column: usize,
) -> [[V; N]; M] {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        if job.resume {
            for (m, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    let at = column + n * V::LANES;
                    *sum = E::load(block.out.add(m * job.out_pitch + at), job.columns - at);
                }
            }
        }
        sums
    }
}

/// # Safety
/// As `tile`.
#[inline(always)]
pub(super) unsafe fn end<V: Vector, E: Stored<V>, const M: usize, const N: usize>(
    job: &Job<E>,
    block: Block<E>,
    column: usize,
    sums: &mut [[V; N]; M],
) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        match &job.ends {
            None => write::<V, E, M, N>(job, block, column, sums),
            Some(end) => finish::<V, E, M, N>(job, block, column, end, sums),
        }
    }
}

/// Bias, residual and bounds in registers; other activations in the nearest cache.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn finish<V: Vector, E: Stored<V>, const M: usize, const N: usize>(
    job: &Job<E>,
    block: Block<E>,
    column: usize,
    end: &End<E>,
    sums: &mut [[V; N]; M],
) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        for (m, sums) in sums.iter_mut().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(V::load(end.bias.add(m * end.bias_pitch + column + n * V::LANES)));
            }
        }
        if let Some((_, pitch)) = end.residual {
            for (m, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    let at = column + n * V::LANES;
                    *sum = sum.add(E::load(block.residual.add(m * pitch + at), job.columns - at));
                }
            }
        }
        let (low, high) = match end.activation {
            Activation::Clip { low, high } => (low, high),
            _ => (f32::NEG_INFINITY, f32::INFINITY),
        };
        let (low, high) = (V::splat(low), V::splat(high));
        for sums in sums.iter_mut() {
            for sum in sums.iter_mut() {
                *sum = high.min(low.max(*sum));
            }
        }
        // Each loop has its function compiled into it.
        macro_rules! through {
            ($activation:expr) => {{
                // Loops of so much are not unrolled, and an array that a loop indexes lies in memory: a copy does.
                let mut copied = *sums;
                let copied: &mut [[V; N]; M] = std::hint::black_box(&mut copied);
                for sums in copied.iter_mut() {
                    for sum in sums.iter_mut() {
                        *sum = activate(*sum, $activation);
                    }
                }
                write::<V, E, M, N>(job, block, column, copied);
            }};
        }
        match end.activation {
            Activation::None | Activation::Clip { .. } | Activation::Function(_) => {
                write::<V, E, M, N>(job, block, column, sums);
            }
            Activation::LeakyRelu { slope } => through!(Activation::LeakyRelu { slope }),
            Activation::HardSigmoid { alpha, beta } => through!(Activation::HardSigmoid { alpha, beta }),
            Activation::HardSwish => through!(Activation::HardSwish),
        }
    }
}

/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn write<V: Vector, E: Stored<V>, const M: usize, const N: usize>(
    job: &Job<E>,
    block: Block<E>,
    column: usize,
    sums: &[[V; N]; M],
) {
    // SAFETY: the caller's promise is that of these writes.
    unsafe {
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let at = column + n * V::LANES;
                E::store(*sum, block.out.add(m * job.out_pitch + at), job.columns - at);
            }
        }
    }
}
