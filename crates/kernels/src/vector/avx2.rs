//! Eight lanes.

use std::arch::x86_64::{
    __m256, __m256i, _CMP_LT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T1, _mm_add_ps, _mm_add_ss,
    _mm_cvtsi128_si64, _mm_cvtss_f32, _mm_loadu_ps, _mm_max_ps, _mm_max_ss, _mm_movehdup_ps, _mm_movehl_ps,
    _mm_packus_epi16, _mm_packus_epi32, _mm_prefetch, _mm_set_epi64x, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_blendv_ps, _mm256_castpd_ps, _mm256_castps_pd, _mm256_castps_si256,
    _mm256_castps128_ps256, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmp_ps,
    _mm256_cmpeq_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtps_epi32, _mm256_div_ps,
    _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_insertf128_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_max_ps, _mm256_min_ps, _mm256_movemask_ps,
    _mm256_mul_ps, _mm256_round_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_slli_epi32, _mm256_srai_epi32, _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_ps, _mm256_unpackhi_pd,
    _mm256_unpackhi_ps, _mm256_unpacklo_pd, _mm256_unpacklo_ps,
};

use super::{UPPER, Vector};

#[derive(Clone, Copy)]
pub(crate) struct F32x8(pub(crate) __m256);

/// Eight lanes of which the first are chosen, for every count: read `8 - count` from the start.
const FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The mask of the first `count` lanes.
///
/// # Safety
/// AVX is there.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    let from = &FIRST[8 - count.min(8)..][..8];
    // SAFETY: `from` has eight lanes.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

// SAFETY (all methods): AVX2 and FMA are there, and memory is readable and writable as the trait asks; the caller
// promised.
impl Vector for F32x8 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        // SAFETY: a prefetch reads nothing and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: as said above; masked lanes are not touched.
        Self(unsafe { _mm256_maskload_ps(from, first(count)) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as said above.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: as said above; masked lanes are not touched.
        unsafe { _mm256_maskstore_ps(to, first(count), self.0) }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, count: usize) -> Self {
        let mut bytes = [0u8; 8];
        // SAFETY: as said above.
        unsafe {
            if count < 8 {
                std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
            } else {
                bytes = from.cast::<[u8; 8]>().read_unaligned();
            }
            Self(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_set_epi64x(0, i64::from_le_bytes(bytes)))))
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, zero: i32, to: *mut u8, count: usize) {
        // SAFETY: as said above.
        unsafe {
            let lanes = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(zero));
            let words = _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
            let bytes = _mm_cvtsi128_si64(_mm_packus_epi16(words, words)).to_le_bytes();
            if count < 8 {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count);
            } else {
                to.cast::<[u8; 8]>().write_unaligned(bytes);
            }
        }
    }

    #[inline(always)]
    unsafe fn transpose(rows: *const *const f32, first: usize, to: *mut f32, pitch: usize) {
        // SAFETY: as said above.
        unsafe {
            let quad = |row: usize, at: usize| _mm_loadu_ps((*rows.add(row)).add(first + at));
            for at in [0, 4] {
                // Each with elements of a row and of the fourth behind it.
                let mut four = [_mm256_setzero_ps(); 4];
                for (row, four) in four.iter_mut().enumerate() {
                    *four = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(quad(row, at)), quad(row + 4, at));
                }
                let [a, b, c, d] = four;
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
                let (above, beyond) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                let (above, beyond) = (_mm256_castps_pd(above), _mm256_castps_pd(beyond));
                let turned = [
                    _mm256_unpacklo_pd(ab, cd),
                    _mm256_unpackhi_pd(ab, cd),
                    _mm256_unpacklo_pd(above, beyond),
                    _mm256_unpackhi_pd(above, beyond),
                ];
                for (nth, turned) in turned.into_iter().enumerate() {
                    _mm256_storeu_ps(to.add((at + nth) * pitch), _mm256_castpd_ps(turned));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    unsafe fn scale(self, power: Self) -> Self {
        // SAFETY: as said above. Two halves of the power, each of which is an exponent of its own.
        unsafe {
            let power = _mm256_cvtps_epi32(power.0);
            let half = _mm256_srai_epi32::<1>(power);
            let exponent =
                |power| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(power, _mm256_set1_epi32(127))));
            let scaled = _mm256_mul_ps(self.0, exponent(half));
            Self(_mm256_mul_ps(scaled, exponent(_mm256_sub_epi32(power, half))))
        }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_fmadd_ps(self.0, by.0, plus.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as said above.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: as said above.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn nonzero(self) -> u32 {
        // SAFETY: as said above.
        unsafe {
            let zero = _mm256_cmpeq_epi32(_mm256_castps_si256(self.0), _mm256_setzero_si256());
            !_mm256_movemask_ps(_mm256_castsi256_ps(zero)).cast_unsigned() & 0xff
        }
    }

    #[inline(always)]
    unsafe fn apart(self) -> [Self; 2] {
        // SAFETY: as said above.
        unsafe {
            let both = _mm256_castps_si256(self.0);
            let upper = _mm256_and_si256(both, _mm256_set1_epi32(UPPER));
            [Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(both))), Self(_mm256_castsi256_ps(upper))]
        }
    }

    #[inline(always)]
    unsafe fn where_negative(self, negative: Self, other: Self) -> Self {
        // SAFETY: as said above.
        unsafe {
            let negatives = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, _mm256_setzero_ps());
            Self(_mm256_blendv_ps(other.0, negative.0, negatives))
        }
    }
}
