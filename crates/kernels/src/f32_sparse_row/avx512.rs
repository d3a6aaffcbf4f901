//! A chunk is two registers, and one permutation picks from both.

use std::arch::x86_64::{_mm_loadu_si128, _mm512_cvtepu8_epi32, _mm512_permutex2var_ps};

use super::generic::{self, Job, Kernels, Pick};
use crate::vector::{F32x16, Vector};

// SAFETY (both methods): AVX-512 F is there, and memory is readable as the trait asks; the caller promised.
impl Pick for F32x16 {
    type Chunk = [Self; 2];

    #[inline(always)]
    unsafe fn chunk(from: *const f32, count: usize) -> [Self; 2] {
        // SAFETY: as said above; masked lanes are not touched.
        unsafe {
            match count {
                32.. => [Self::load(from), Self::load(from.add(16))],
                _ => [
                    Self::load_first(from, count.min(16)),
                    Self::load_first(from.wrapping_add(16), count.saturating_sub(16)),
                ],
            }
        }
    }

    #[inline(always)]
    unsafe fn pick(chunk: [Self; 2], places: *const u8) -> Self {
        // SAFETY: as said above.
        unsafe {
            let places = _mm512_cvtepu8_epi32(_mm_loadu_si128(places.cast()));
            Self(_mm512_permutex2var_ps(chunk[0].0, places, chunk[1].0))
        }
    }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job is as `generic::blocks` asks.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn blocks(job: Job<'_>, offsets: &[u32]) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::blocks::<F32x16, 4>(job, offsets) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and the job is as `generic::places` asks.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn places(job: Job<'_>, steps: &[usize], places: &[u8]) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::places::<F32x16, 4>(job, steps, places) }
}

pub(super) static KERNELS: Kernels = Kernels { name: "avx512", lanes: 16, width: 64, blocks, places: Some(places) };
