//! Sixteen lanes.

use std::arch::x86_64::{
    __m256i, __m512, __m512i, __mmask16, _CMP_LT_OQ, _MM_HINT_T1, _mm_loadu_si128, _mm_maskz_loadu_epi8, _mm_prefetch,
    _mm256_loadu_si256, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16, _mm256_storeu_si256, _mm512_add_epi32,
    _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps,
    _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_cvtps_epi32, _mm512_div_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_blend_ps, _mm512_mask_cvtepi32_storeu_epi8, _mm512_mask_storeu_epi8,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_packs_epi32,
    _mm512_packus_epi16, _mm512_permutexvar_epi32, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_slli_epi32,
    _mm512_storeu_ps, _mm512_sub_ps,
};

use std::mem::transmute;

use half::bf16;

use super::{Stored, UPPER, Vector};

#[derive(Clone, Copy)]
pub(crate) struct F32x16(pub(crate) __m512);

/// The lowest `count` bits.
#[inline(always)]
pub(crate) fn first_lanes(count: usize) -> __mmask16 {
    debug_assert!(count <= 16, "{count} of 16 lanes");
    // The mask of 16 needs a bit more than it has.
    u16::try_from((1u32 << count) - 1).unwrap_or(u16::MAX)
}

/// The nearest integers of 16 bits, four of each vector by turns; what is no number is the least.
///
/// # Safety
/// The processor has AVX-512 F and BW.
#[inline(always)]
unsafe fn halves(a: F32x16, b: F32x16) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        // What is too much for an integer of 32 bits would become the least.
        let most = F32x16::splat(65536.0);
        _mm512_packs_epi32(_mm512_cvtps_epi32(most.min(a).0), _mm512_cvtps_epi32(most.min(b).0))
    }
}

// SAFETY (all methods): AVX-512 F is there, and memory is readable and writable as the trait asks; the caller promised.
impl Vector for F32x16 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        // SAFETY: a prefetch reads nothing and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: as said above; masked lanes are not touched.
        Self(unsafe { _mm512_maskz_loadu_ps(first_lanes(count), from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as said above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: as said above; masked lanes are not touched.
        unsafe { _mm512_mask_storeu_ps(to, first_lanes(count), self.0) }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, count: usize) -> Self {
        // SAFETY: as said above.
        unsafe {
            let bytes = match count {
                16 => _mm_loadu_si128(from.cast()),
                _ => _mm_maskz_loadu_epi8(first_lanes(count), from.cast()),
            };
            Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, zero: i32, to: *mut u8, count: usize) {
        // SAFETY: as said above.
        unsafe {
            let bytes = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(zero));
            // No case for whole vectors: callers unroll loops around this only while it is short.
            _mm512_mask_cvtepi32_storeu_epi8(to.cast(), first_lanes(count), bytes);
        }
    }

    #[inline(always)]
    unsafe fn store_nearest_bytes<const N: usize>(several: [Self; N], to: *mut u8, count: usize) {
        // SAFETY: as said above; lanes behind `count` are not touched.
        unsafe {
            // Where there are fewer vectors than four, what takes the place of the others is not stored.
            let first = halves(several[0], several[1 % N]);
            let packed = _mm512_packus_epi16(first, if N > 2 { halves(several[2 % N], several[3 % N]) } else { first });
            // Every 128 bits have four of each vector.
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_mask_storeu_epi8(to.cast(), u64::MAX >> (64 - count), _mm512_permutexvar_epi32(order, packed));
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: as said above. Zero: to the nearest, no digits behind the point.
        Self(unsafe { _mm512_roundscale_ps::<0>(self.0) })
    }

    #[inline(always)]
    unsafe fn scale(self, power: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_scalef_ps(self.0, power.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_fmadd_ps(self.0, by.0, plus.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as said above.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: as said above.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn apart(self) -> [Self; 2] {
        // SAFETY: as said above.
        unsafe {
            let both = _mm512_castps_si512(self.0);
            let upper = _mm512_and_si512(both, _mm512_set1_epi32(UPPER));
            [Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(both))), Self(_mm512_castsi512_ps(upper))]
        }
    }

    #[inline(always)]
    unsafe fn where_negative(self, negative: Self, other: Self) -> Self {
        // SAFETY: as said above.
        unsafe {
            let negatives = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps());
            Self(_mm512_mask_blend_ps(negatives, other.0, negative.0))
        }
    }
}

// SAFETY (both methods): AVX-512 F, BW, VL and BF16 are there, and memory is readable and writable as the trait asks; the
// caller promised. Masked lanes are not touched.
impl Stored<F32x16> for bf16 {
    #[inline(always)]
    unsafe fn load(from: *const Self, count: usize) -> F32x16 {
        // SAFETY: as said above.
        unsafe {
            let halves = match count {
                16.. => _mm256_loadu_si256(from.cast()),
                _ => _mm256_maskz_loadu_epi16(first_lanes(count), from.cast()),
            };
            F32x16(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves))))
        }
    }

    /// Each the nearest, the even one of two. Numbers too small for a normal float become zero, as products take them.
    #[inline(always)]
    unsafe fn store(lanes: F32x16, to: *mut Self, count: usize) {
        // SAFETY: as said above; both types are 256 bits that may be any.
        unsafe {
            let halves: __m256i = transmute(_mm512_cvtneps_pbh(lanes.0));
            match count {
                16.. => _mm256_storeu_si256(to.cast(), halves),
                _ => _mm256_mask_storeu_epi16(to.cast(), first_lanes(count), halves),
            }
        }
    }
}
