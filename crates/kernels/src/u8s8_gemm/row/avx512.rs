//! Sixteen columns to a vector; with VBMI a chunk is two registers, and one permutation picks bytes from both.

use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_maskz_loadu_epi8, _mm512_permutex2var_epi8, _mm512_unpackhi_epi8,
    _mm512_unpackhi_epi16, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16,
};

use super::super::avx512::I32x16;
use super::generic::{self, BlocksJob, Interleave, Kernels, LinesJob, Pick, PlacesJob};

// SAFETY (both methods): AVX-512 with VBMI is there, and memory is readable as the trait asks; the caller promised.
impl Pick for I32x16 {
    type Chunk = [__m512i; 2];

    #[inline(always)]
    unsafe fn chunk(from: *const u8, count: usize) -> [__m512i; 2] {
        // SAFETY: as said above; masked bytes are not touched.
        unsafe {
            let first = |count: usize| if count < 64 { (1 << count) - 1 } else { u64::MAX };
            let upper = from.wrapping_add(64).cast();
            [
                _mm512_maskz_loadu_epi8(first(count), from.cast()),
                _mm512_maskz_loadu_epi8(first(count.saturating_sub(64)), upper),
            ]
        }
    }

    #[inline(always)]
    unsafe fn pick(chunk: [__m512i; 2], places: *const u8) -> __m512i {
        // SAFETY: as said above.
        unsafe { _mm512_permutex2var_epi8(chunk[0], _mm512_loadu_si512(places.cast()), chunk[1]) }
    }
}

// SAFETY: AVX-512 F and BW are there, and memory is readable as the trait asks; the caller promised.
impl Interleave for I32x16 {
    #[inline(always)]
    unsafe fn interleave(lines: [*const i8; 4]) -> [__m512i; 4] {
        // SAFETY: as said above.
        unsafe {
            let [a, b] = [_mm512_loadu_si512(lines[0].cast()), _mm512_loadu_si512(lines[1].cast())];
            let [c, d] = [_mm512_loadu_si512(lines[2].cast()), _mm512_loadu_si512(lines[3].cast())];
            let [ab, cd] = [_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)];
            let [upper_ab, upper_cd] = [_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)];
            [
                _mm512_unpacklo_epi16(ab, cd),
                _mm512_unpackhi_epi16(ab, cd),
                _mm512_unpacklo_epi16(upper_ab, upper_cd),
                _mm512_unpackhi_epi16(upper_ab, upper_cd),
            ]
        }
    }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, and the job is as `generic::blocks` asks.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn blocks(job: &BlocksJob<'_>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::blocks::<I32x16>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL, VNNI and VBMI, and the job is as `generic::places` asks.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")]
unsafe fn places(job: &PlacesJob<'_>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::places::<I32x16>(job) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, and the job is as `generic::lines` asks.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn lines(job: &LinesJob<'_>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::lines::<I32x16>(job) }
}

pub(super) static KERNELS: Kernels =
    Kernels { name: "avx512vnni", lanes: 16, blocks, places: None, lines, lines_share_max: 0.55 };

pub(super) static VBMI_KERNELS: Kernels =
    Kernels { name: "avx512vbmi", lanes: 16, blocks, places: Some(places), lines, lines_share_max: 0.55 };
