//! The inner loops of sparse products, for any vector: pixels lie along the lanes, weights that are not zero meet them one
//! after the other.

use std::marker::PhantomData;

use crate::aligned::LINE;
use crate::vector::Vector;

/// What a word of the weights and a vector of words of the image are multiplied as. A word is what sums take in one step:
/// one float, two bf16 or four bytes.
///
/// # Safety
/// Every method may be called only where the processor has the instructions of the implementing type. Loads and stores
/// touch exactly `LANES` words, which lie on a cache line or a half of one.
pub(super) trait Words {
    const LANES: usize;
    type Lanes: Copy;
    type Sums: Copy;

    /// Asks for the cache line of an address, which may be any.
    unsafe fn prefetch(from: *const u32);
    unsafe fn zero() -> Self::Sums;
    unsafe fn load_sums(from: *const u32) -> Self::Sums;
    unsafe fn store_sums(sums: Self::Sums, to: *mut u32);
    /// One word of weights for all lanes.
    unsafe fn splat(weight: *const u32) -> Self::Lanes;
    /// Each of four words of weights for all lanes.
    #[inline(always)]
    unsafe fn splat_each(weights: *const u32) -> [Self::Lanes; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            [
                Self::splat(weights),
                Self::splat(weights.add(1)),
                Self::splat(weights.add(2)),
                Self::splat(weights.add(3)),
            ]
        }
    }
    unsafe fn load(from: *const u32) -> Self::Lanes;
    unsafe fn add(weight: Self::Lanes, pixels: Self::Lanes, sums: Self::Sums) -> Self::Sums;
}

/// One float in each word.
pub(super) struct Floats<V>(PhantomData<V>);

// SAFETY (all methods): the caller promised.
impl<V: Vector> Words for Floats<V> {
    const LANES: usize = V::LANES;
    type Lanes = V;
    type Sums = V;

    #[inline(always)]
    unsafe fn prefetch(from: *const u32) {
        // SAFETY: as said above.
        unsafe { V::prefetch(from.cast()) }
    }

    #[inline(always)]
    unsafe fn zero() -> V {
        // SAFETY: as said above.
        unsafe { V::splat(0.0) }
    }

    #[inline(always)]
    unsafe fn load_sums(from: *const u32) -> V {
        // SAFETY: as said above.
        unsafe { V::load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_sums(sums: V, to: *mut u32) {
        // SAFETY: as said above.
        unsafe { sums.store(to.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(weight: *const u32) -> V {
        // SAFETY: as said above.
        unsafe { V::splat(*weight.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_each(weights: *const u32) -> [V; 4] {
        // SAFETY: as said above.
        unsafe { V::splat_each(weights.cast()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> V {
        // SAFETY: as said above.
        unsafe { V::load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add(weight: V, pixels: V, sums: V) -> V {
        // SAFETY: as said above.
        unsafe { weight.mul_add(pixels, sums) }
    }
}

/// What a kernel works on. All pointers are valid for what `code` says.
#[derive(Debug)]
pub(super) struct Job {
    /// See [`Program`](super::Program).
    pub(super) code: *const u32,
    pub(super) turns: usize,
    pub(super) panel: *const u32,
    pub(super) sums: *mut u32,
    /// Whether sums begin with what is there.
    pub(super) resume: bool,
}

/// Words of some pixels, to be laid out word by word.
#[derive(Debug)]
pub(super) struct Turn {
    /// Where the words of each pixel begin, one for each lane.
    pub(super) pixels: *const *const u32,
    pub(super) words: usize,
    pub(super) to: *mut u32,
    /// From a word to the next.
    pub(super) pitch: usize,
}

/// Runs a kernel of a level's table.
pub(super) fn call<J>(kernel: unsafe fn(&J), job: &J) {
    // SAFETY: kernels are only found in the table of a level, which proves their instructions; `Program` has made the
    // code for the room, and has checked what the pointers cover.
    unsafe { kernel(job) }
}

/// Blocks of `R` columns that meet the same rows of the panel, on `U` vectors of pixels. `T` blocks take their steps by
/// turns, so that no sum waits for the one before it. Loads are what bounds it then: four offsets come with one, and four
/// weights of each block lie behind them.
///
/// # Safety
/// The processor has the instructions of `W`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn products<W: Words, const R: usize, const T: usize, const U: usize>(job: &Job) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        let mut code = job.code;
        for _ in 0..job.turns {
            let (steps, outs) = (*code, code.add(1));
            code = outs.add(T * R);
            let mut sums = [[[W::zero(); U]; R]; T];
            if job.resume {
                for (block, sums) in sums.as_flattened_mut().iter_mut().enumerate() {
                    let from = job.sums.byte_add(*outs.add(block) as usize * pitch(U));
                    for (u, sum) in sums.iter_mut().enumerate() {
                        *sum = W::load_sums(from.add(u * W::LANES));
                    }
                }
            }
            for _ in 0..steps / STEPS {
                let mut offsets = offsets::<T>(code);
                W::prefetch(code.wrapping_add(AHEAD));
                W::prefetch(code.wrapping_add(AHEAD + LINE / size_of::<u32>()));
                for nth in 0..STEPS as usize {
                    step::<W, R, T, U>(job.panel, &mut offsets, code.add(2 * T + nth * T * R), &mut sums);
                }
                code = code.add(2 * T + STEPS as usize * T * R);
            }
            if steps % STEPS > 0 {
                let mut offsets = offsets::<T>(code);
                code = code.add(2 * T);
                for _ in 0..steps % STEPS {
                    step::<W, R, T, U>(job.panel, &mut offsets, code, &mut sums);
                    code = code.add(T * R);
                }
            }
            for (block, sums) in sums.as_flattened().iter().enumerate() {
                let to = job.sums.byte_add(*outs.add(block) as usize * pitch(U));
                for (u, sum) in sums.iter().enumerate() {
                    W::store_sums(*sum, to.add(u * W::LANES));
                }
            }
        }
    }
}

/// The offsets of four steps of each block, in order from the lowest bits.
///
/// # Safety
/// Two words of each are readable.
#[inline(always)]
unsafe fn offsets<const T: usize>(code: *const u32) -> [u64; T] {
    // SAFETY: the caller's promise.
    unsafe { code.cast::<[u64; T]>().read_unaligned() }
}

/// One step of each block: a row of the panel with a weight of each column.
///
/// # Safety
/// As `products`.
#[inline(always)]
unsafe fn step<W: Words, const R: usize, const T: usize, const U: usize>(
    panel: *const u32,
    offsets: &mut [u64; T],
    weights: *const u32,
    sums: &mut [[[W::Sums; U]; R]; T],
) {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        // As many come with one load.
        let four = if T == 4 { Some(W::splat_each(weights)) } else { None };
        for t in 0..T {
            let row = panel.byte_add((offsets[t] & OFFSET) as usize * pitch(U));
            offsets[t] >>= OFFSET_BITS;
            for u in 0..U {
                let pixels = W::load(row.add(u * W::LANES));
                for (r, sums) in sums[t].iter_mut().enumerate() {
                    let at = t * R + r;
                    let weight = match four {
                        Some(four) => four[at],
                        None => W::splat(weights.add(at)),
                    };
                    sums[u] = W::add(weight, pixels, sums[u]);
                }
            }
        }
    }
}

/// # Safety
/// The processor has the instructions of `V`, and the pointers are valid.
#[inline(always)]
pub(super) unsafe fn turn<V: Vector>(job: &Turn) {
    // SAFETY: the caller's promise is that of these reads and writes.
    unsafe {
        if job.words < V::LANES {
            for word in 0..job.words {
                for lane in 0..V::LANES {
                    *job.to.add(word * job.pitch + lane) = (*job.pixels.add(lane)).add(word).read_unaligned();
                }
            }
            return;
        }
        let mut word = 0;
        while word < job.words {
            // The last block lies over the one before it.
            let first = word.min(job.words - V::LANES);
            V::transpose(job.pixels.cast(), first, job.to.add(first * job.pitch).cast(), job.pitch);
            word += V::LANES;
        }
    }
}

/// Vectors from a row of a panel, or the sums of a column, to the next: rows of few vectors lie close together, or they
/// would share few sets of the cache.
pub(super) const fn pitch(vectors: usize) -> usize {
    vectors.next_power_of_two()
}

/// Steps whose offsets come together, and how each lies in their word.
pub(super) const STEPS: u32 = 4;
pub(super) const OFFSET_BITS: u32 = 16;
const OFFSET: u64 = u16::MAX as u64;

/// Words of code that are asked for ahead: it is read once for some pixels, and lies farther away than the nearest cache.
const AHEAD: usize = 512;
