//! Eight columns to a vector; bytes are widened to be multiplied.

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_unpackhi_epi8, _mm256_unpackhi_epi16, _mm256_unpacklo_epi8,
    _mm256_unpacklo_epi16,
};

use super::super::avx2::{I32x8, widened};
use super::generic::{self, BlocksJob, Interleave, Kernels, LinesJob};

// SAFETY: AVX2 is there, and memory is readable as the trait asks; the caller promised.
impl Interleave for I32x8 {
    #[inline(always)]
    unsafe fn interleave(lines: [*const i8; 4]) -> [[__m256i; 2]; 4] {
        // SAFETY: as said above.
        unsafe {
            let [a, b] = [_mm256_loadu_si256(lines[0].cast()), _mm256_loadu_si256(lines[1].cast())];
            let [c, d] = [_mm256_loadu_si256(lines[2].cast()), _mm256_loadu_si256(lines[3].cast())];
            let [ab, cd] = [_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d)];
            let [upper_ab, upper_cd] = [_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d)];
            [
                widened(_mm256_unpacklo_epi16(ab, cd)),
                widened(_mm256_unpackhi_epi16(ab, cd)),
                widened(_mm256_unpacklo_epi16(upper_ab, upper_cd)),
                widened(_mm256_unpackhi_epi16(upper_ab, upper_cd)),
            ]
        }
    }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job is as `generic::blocks` asks.
#[target_feature(enable = "avx2,fma")]
unsafe fn blocks(job: &BlocksJob<'_>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::blocks::<I32x8>(job) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the job is as `generic::lines` asks.
#[target_feature(enable = "avx2,fma")]
unsafe fn lines(job: &LinesJob<'_>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::lines::<I32x8>(job) }
}

pub(super) static KERNELS: Kernels =
    Kernels { name: "avx2", lanes: 8, blocks, places: None, lines, lines_share_max: 0.5 };
