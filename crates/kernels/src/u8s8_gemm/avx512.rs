//! Sixteen sums; four products for each with one instruction of VNNI.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_setzero_si512,
};

use super::generic::{self, Block, Job, Planes, Sums, Tables};
use crate::panels::{Table, tiles};
use crate::vector::{F32x16, ToBytes, Vector, columns_as_bytes, store_rows_of_bytes};

#[derive(Clone, Copy)]
pub(super) struct I32x16(__m512i);

// SAFETY (all methods): AVX-512 with VNNI is there, and memory is readable and writable as the trait asks; the caller
// promised.
impl Sums for I32x16 {
    const LANES: usize = 16;
    type Floats = F32x16;
    type Bytes = __m512i;
    type Weights = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_set1_epi32(value) })
    }

    #[inline(always)]
    unsafe fn bytes(four: u32) -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_set1_epi32(four.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn dot(self, bytes: __m512i, weights: __m512i) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, bytes, weights) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn floats(self) -> F32x16 {
        // SAFETY: as said above.
        F32x16(unsafe { _mm512_cvtepi32_ps(self.0) })
    }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<I32x16, M, N, false>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn by_row<const M: usize, const N: usize>(job: &Job) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::tile::<I32x16, M, N, true>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn planes(job: &Planes) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe {
        match job.results.bytes {
            Some(bytes) if job.results.plus.is_none() && job.results.is_small => planes_of_bytes(job, bytes),
            _ => generic::planes::<I32x16, 4>(job),
        }
    }
}

/// Sums that become bytes before they are turned: there is a quarter as much to turn.
///
/// # Safety
/// As `planes`.
#[inline(always)]
unsafe fn planes_of_bytes(job: &Planes, bytes: ToBytes) {
    const LANES: usize = I32x16::LANES;
    let results = &job.results;
    let mut block = Block::first(results);
    for row in (0..job.rows).step_by(LANES) {
        let count = LANES.min(job.rows - row);
        for column in (0..results.columns).step_by(LANES) {
            // SAFETY: the caller's promise is that of these reads, writes and calls.
            unsafe {
                if count < LANES || column + LANES > results.columns {
                    generic::planes_of::<I32x16, 1>(job, block, [row, count], column);
                    continue;
                }
                let mut four = [_mm512_setzero_si512(); 4];
                for (nth, four) in four.iter_mut().enumerate() {
                    let product = |beside: usize| product(job, row, column + nth * 4 + beside);
                    *four = columns_as_bytes([product(0), product(1), product(2), product(3)], bytes);
                }
                store_rows_of_bytes(four, block.out.add(column), results.out_pitch);
            }
        }
        block = block.below(results, count);
    }
}

/// What a vector of sums of one column becomes.
///
/// # Safety
/// As `planes`.
#[inline(always)]
unsafe fn product(job: &Planes, row: usize, column: usize) -> F32x16 {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        let bias = I32x16::splat(*job.results.bias.add(column));
        let sums = I32x16::load(job.sums.add(column * job.pitch + row)).add(bias);
        sums.floats().mul(F32x16::splat(*job.results.scale.add(column)))
    }
}

macro_rules! table {
    ($function:ident) => {
        Table {
    name: "avx512vnni",
    lanes: 16,
    tiles: &[
        tiles!($function 1: 1 2 3 4 5 6 7 8 9 10 11 12),
        tiles!($function 2: 1 2 3 4 5 6 7 8 9 10 11 12),
        tiles!($function 3: 1 2 3 4 5 6 7 8),
        tiles!($function 4: 1 2 3 4 5 6),
    ],
}
    };
}

pub(super) static TABLES: Tables =
    Tables { plain: table!(tile), by_row: table!(by_row), computed: table!(by_row), is_ordered: false, planes };
