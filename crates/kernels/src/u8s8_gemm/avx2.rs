//! Eight sums. Bytes are multiplied where two products fit into sixteen bits (see `order`), and elsewhere widened to
//! sixteen bits, even and odd ones apart.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16,
};

use super::generic::{self, Block, Job, Planes, Sums, Tables};
use super::order::HEAD;
use crate::panels::{Table, tiles};
use crate::vector::{F32x8, Vector};

#[derive(Clone, Copy)]
pub(super) struct I32x8(__m256i);

// SAFETY (all methods): AVX2 is there, and memory is readable and writable as the trait asks; the caller promised.
impl Sums for I32x8 {
    const LANES: usize = 8;
    type Floats = F32x8;
    /// The even ones and the odd ones.
    type Bytes = [__m256i; 2];
    type Weights = [__m256i; 2];

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_set1_epi32(value) })
    }

    #[inline(always)]
    unsafe fn bytes(four: u32) -> [__m256i; 2] {
        // SAFETY: as said above.
        unsafe {
            let all = _mm256_set1_epi32(four.cast_signed());
            [_mm256_and_si256(all, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(all)]
        }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> [__m256i; 2] {
        // SAFETY: as said above.
        unsafe { widened(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn dot(self, bytes: [__m256i; 2], weights: [__m256i; 2]) -> Self {
        // SAFETY: as said above.
        unsafe {
            let even = _mm256_madd_epi16(bytes[0], weights[0]);
            let odd = _mm256_madd_epi16(bytes[1], weights[1]);
            Self(_mm256_add_epi32(self.0, _mm256_add_epi32(even, odd)))
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn floats(self) -> F32x8 {
        // SAFETY: as said above.
        F32x8(unsafe { _mm256_cvtepi32_ps(self.0) })
    }
}

/// Bytes as sixteen bits, the even ones and the odd ones.
///
/// # Safety
/// AVX2 is there.
#[inline(always)]
pub(super) unsafe fn widened(bytes: __m256i) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)] }
}

/// As `generic::tile` of one vector, for weights in the order of `order`: where products of neighbours fit into sixteen
/// bits, bytes are multiplied as they are.
///
/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[inline(always)]
unsafe fn ordered<const M: usize, const BY_ROW: bool>(job: &Job) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let mut block = Block::first(job);
        for nth in 0..job.blocks {
            let (mut weights, mut order) = (job.weights, job.order);
            for panel in 0..job.panels {
                let next = job.next.wrapping_add(panel * job.next_pitch + nth * job.next_block);
                let sums = generic::begin::<I32x8, M, 1>(job.bias.add(panel * I32x8::LANES));
                let (sums, behind) = ordered_sums::<M>(job, block, sums, (weights, order, next));
                generic::finish::<I32x8, M, 1, BY_ROW>(job, block, panel * I32x8::LANES, &sums);
                (weights, order) = behind;
            }
            block = block.below(job, M);
        }
    }
}

/// The sums of a block with one panel, and where its weights and their order end.
///
/// # Safety
/// As `ordered`.
#[inline(always)]
unsafe fn ordered_sums<const M: usize>(
    job: &Job,
    block: Block,
    mut sums: [[I32x8; 1]; M],
    (mut weights, mut order, mut next): (*const i8, *const u32, *const i8),
) -> ([[I32x8; 1]; M], (*const i8, *const u32)) {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let (groups, rest) = (job.depth / 4, job.depth % 4);
        for tap in 0..job.taps {
            let mut rows = [std::ptr::null(); M];
            for (m, row) in rows.iter_mut().enumerate() {
                *row = *block.rows.add(tap * M + m);
            }
            let (couples, narrow) = (*order as usize, *order.add(1) as usize);
            order = order.add(HEAD);
            for _ in 0..couples {
                let w = [_mm256_loadu_si256(weights.cast()), _mm256_loadu_si256(weights.add(32).cast())];
                let first = [*order as usize, *order.add(1) as usize];
                for (row, [sum]) in rows.iter().zip(&mut sums) {
                    let x = _mm256_set1_epi32(row.add(first[0]).cast::<i32>().read_unaligned());
                    let y = _mm256_set1_epi32(row.add(first[1]).cast::<i32>().read_unaligned());
                    let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(x, w[0]), _mm256_maddubs_epi16(y, w[1]));
                    sum.0 = _mm256_add_epi32(sum.0, _mm256_madd_epi16(pairs, ones));
                }
                F32x8::prefetch(next.cast());
                next = next.wrapping_add(job.next_step * 2);
                (weights, order) = (weights.add(64), order.add(2));
            }
            for _ in 0..narrow {
                let (w, first) = (_mm256_loadu_si256(weights.cast()), *order as usize);
                for (row, [sum]) in rows.iter().zip(&mut sums) {
                    let x = _mm256_set1_epi32(row.add(first).cast::<i32>().read_unaligned());
                    let pairs = _mm256_maddubs_epi16(x, w);
                    sum.0 = _mm256_add_epi32(sum.0, _mm256_madd_epi16(pairs, ones));
                }
                F32x8::prefetch(next.cast());
                next = next.wrapping_add(job.next_step);
                (weights, order) = (weights.add(32), order.add(1));
            }
            for _ in couples * 2 + narrow..groups {
                let (w, first) = (I32x8::weights(weights), *order as usize);
                for (row, [sum]) in rows.iter().zip(&mut sums) {
                    *sum = sum.dot(I32x8::bytes(row.add(first).cast::<u32>().read_unaligned()), w);
                }
                F32x8::prefetch(next.cast());
                next = next.wrapping_add(job.next_step);
                (weights, order) = (weights.add(32), order.add(1));
            }
            if rest > 0 {
                let w = I32x8::weights(weights);
                for (row, [sum]) in rows.iter().zip(&mut sums) {
                    *sum = sum.dot(I32x8::bytes(generic::first(row.add(groups * 4), rest)), w);
                }
                (weights, order) = (weights.add(32), order.add(1));
            }
        }
        (sums, (weights, order))
    }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn plain<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { ordered::<M, false>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn by_row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { ordered::<M, true>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn computed<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<I32x8, M, N, true>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma")]
unsafe fn planes(job: &Planes) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::planes::<I32x8, 1>(job) }
}

pub(super) static TABLES: Tables = Tables {
    plain: Table { name: "avx2", lanes: 8, tiles: &[tiles!(plain 1: 1 2 3 4 5 6 7 8)] },
    by_row: Table { name: "avx2", lanes: 8, tiles: &[tiles!(by_row 1: 1 2 3 4 5 6 7 8)] },
    computed: Table {
        name: "avx2",
        lanes: 8,
        tiles: &[tiles!(computed 1: 1 2 3 4 5 6 7 8), tiles!(computed 2: 1 2 3 4)],
    },
    is_ordered: true,
    planes,
};
