//! A permutation sees eight elements: a chunk stays in memory, and elements are gathered from it.

use std::arch::x86_64::{_mm_loadl_epi64, _mm256_cvtepu8_epi32, _mm256_i32gather_ps};

use super::generic::{self, Job, Kernels, Pick};
use crate::vector::F32x8;

// SAFETY (both methods): AVX2 is there, and memory is readable as the trait asks; the caller promised.
impl Pick for F32x8 {
    type Chunk = *const f32;

    #[inline(always)]
    unsafe fn chunk(from: *const f32, _count: usize) -> *const f32 {
        from
    }

    #[inline(always)]
    unsafe fn pick(chunk: *const f32, places: *const u8) -> Self {
        // SAFETY: as said above; places that are taken are within the chunk, and that of zeros is its first.
        unsafe { Self(_mm256_i32gather_ps::<4>(chunk, _mm256_cvtepu8_epi32(_mm_loadl_epi64(places.cast())))) }
    }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job is as `generic::group` asks.
#[target_feature(enable = "avx2,fma")]
unsafe fn group(job: Job<'_>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::group::<F32x8, 4>(job) }
}

pub(super) static KERNELS: Kernels = Kernels { name: "avx2", width: 32, share_max: 0.1, group };
