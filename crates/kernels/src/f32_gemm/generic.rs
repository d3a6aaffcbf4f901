//! The inner loop over one tile, for any vector: `M` rows by `N` vectors of columns stay in registers.

use crate::activation::Activation;
use crate::panels::Table;
use crate::vector::{Vector, activate};

/// The kernels of an instruction set.
#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) tiles: Table<Job>,
    /// By vectors less one: one row of several panels at once.
    pub(super) rows: &'static [unsafe fn(&Job)],
    /// How many those are.
    pub(super) together: usize,
}

/// What a tile kernel works on. All pointers are valid for the extents beside them.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) taps: usize,
    /// Elements of every tap.
    pub(super) depth: usize,
    /// `[taps][M]`: where a row's elements of a tap begin.
    pub(super) rows: *const *const f32,
    /// `[taps * depth][N * LANES]`.
    pub(super) weights: *const f32,
    /// From one panel of weights to the next.
    pub(super) weights_pitch: usize,
    /// What will be read next, or anything: it is only fetched, so many elements with each row of the weights.
    pub(super) next: *const f32,
    pub(super) next_step: usize,
    pub(super) out: *mut f32,
    pub(super) out_pitch: usize,
    /// Columns to write, more than `(N - 1) * LANES`.
    pub(super) columns: usize,
    /// Whether sums begin with what is in `out`.
    pub(super) resume: bool,
    /// What follows the last sum; without it the sums are written as they are.
    pub(super) ends: Option<End>,
}

#[derive(Debug)]
pub(super) struct End {
    /// `[N * LANES]`.
    pub(super) bias: *const f32,
    /// From the bias of one row to that of the next: zero where rows are rows of a product.
    pub(super) bias_pitch: usize,
    /// The tile's first element and the distance of rows.
    pub(super) residual: Option<(*const f32, usize)>,
    pub(super) activation: Activation,
}

/// Runs a kernel of a table.
pub(super) fn call(kernel: unsafe fn(&Job), job: &Job) {
    // SAFETY: kernels are only found in the table of a level, which proves their instructions; `Gemm::run` has checked
    // the extents that the job's pointers cover, and the job has as many rows as the kernel.
    unsafe { kernel(job) }
}

/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut sums = begin::<V, M, N>(job);
        let mut weights = job.weights;
        let mut next = job.next;
        for tap in 0..job.taps {
            let mut rows = [std::ptr::null(); M];
            for (m, row) in rows.iter_mut().enumerate() {
                *row = *job.rows.add(tap * M + m);
            }
            for k in 0..job.depth {
                let mut w = [V::splat(0.0); N];
                for (n, w) in w.iter_mut().enumerate() {
                    *w = V::load(weights.add(n * V::LANES));
                }
                for m in 0..M {
                    let x = V::splat(*rows[m].add(k));
                    for n in 0..N {
                        sums[m][n] = x.mul_add(w[n], sums[m][n]);
                    }
                }
                V::prefetch(next);
                next = next.wrapping_add(job.next_step);
                weights = weights.add(N * V::LANES);
            }
        }
        end::<V, M, N>(job, &mut sums);
    }
}

/// One row of a product with `M` whole panels: its results are seen as a tile with a row for each panel. A product waits
/// for its sum before it can add to it; this many sums leave no time to wait.
///
/// # Safety
/// As `tile`.
#[inline(always)]
pub(super) unsafe fn row<V: Vector, const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut sums = begin::<V, M, N>(job);
        let mut weights = job.weights;
        for tap in 0..job.taps {
            let row = *job.rows.add(tap);
            for k in 0..job.depth {
                let x = V::splat(*row.add(k));
                for (m, sums) in sums.iter_mut().enumerate() {
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = x.mul_add(V::load(weights.add(m * job.weights_pitch + n * V::LANES)), *sum);
                    }
                }
                weights = weights.add(N * V::LANES);
            }
        }
        end::<V, M, N>(job, &mut sums);
    }
}

/// Zeros, or what the part before has left.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn begin<V: Vector, const M: usize, const N: usize>(job: &Job) -> [[V; N]; M] {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        if job.resume {
            for (m, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    let (from, left) = (job.out.add(m * job.out_pitch + n * V::LANES), job.columns - n * V::LANES);
                    *sum = if left < V::LANES { V::load_first(from, left) } else { V::load(from) };
                }
            }
        }
        sums
    }
}

/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn end<V: Vector, const M: usize, const N: usize>(job: &Job, sums: &mut [[V; N]; M]) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        match &job.ends {
            None => write::<V, M, N>(job, sums),
            Some(end) => finish::<V, M, N>(job, end, sums),
        }
    }
}

/// Bias, residual and bounds in registers; other activations over what was written, which is in the nearest cache.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn finish<V: Vector, const M: usize, const N: usize>(job: &Job, end: &End, sums: &mut [[V; N]; M]) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        for (m, sums) in sums.iter_mut().enumerate() {
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(V::load(end.bias.add(m * end.bias_pitch + n * V::LANES)));
            }
        }
        if let Some((residual, pitch)) = end.residual {
            for (m, sums) in sums.iter_mut().enumerate() {
                for (n, sum) in sums.iter_mut().enumerate() {
                    let (from, left) = (residual.add(m * pitch + n * V::LANES), job.columns - n * V::LANES);
                    *sum = sum.add(if left < V::LANES { V::load_first(from, left) } else { V::load(from) });
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
        write::<V, M, N>(job, sums);
        // Each loop has its function compiled into it.
        match end.activation {
            Activation::None | Activation::Clip { .. } | Activation::Function(_) => {}
            Activation::LeakyRelu { slope } => over::<V, M, N>(job, |x| activate(x, Activation::LeakyRelu { slope })),
            Activation::HardSigmoid { alpha, beta } => {
                over::<V, M, N>(job, |x| activate(x, Activation::HardSigmoid { alpha, beta }));
            }
            Activation::HardSwish => over::<V, M, N>(job, |x| activate(x, Activation::HardSwish)),
        }
    }
}

/// A function of all that was written.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn over<V: Vector, const M: usize, const N: usize>(job: &Job, function: impl Fn(V) -> V) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        for m in 0..M {
            for n in 0..N {
                let (at, left) = (job.out.add(m * job.out_pitch + n * V::LANES), job.columns - n * V::LANES);
                if left < V::LANES {
                    function(V::load_first(at, left)).store_first(at, left);
                } else {
                    function(V::load(at)).store(at);
                }
            }
        }
    }
}

/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn write<V: Vector, const M: usize, const N: usize>(job: &Job, sums: &[[V; N]; M]) {
    // SAFETY: the caller's promise is that of these writes.
    unsafe {
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let (to, left) = (job.out.add(m * job.out_pitch + n * V::LANES), job.columns - n * V::LANES);
                if left < V::LANES { sum.store_first(to, left) } else { sum.store(to) }
            }
        }
    }
}
