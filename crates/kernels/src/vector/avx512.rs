//! Sixteen lanes.

use std::arch::asm;
use std::arch::x86_64::{
    __m256i, __m512, __m512i, __mmask16, _CMP_LT_OQ, _MM_HINT_T1, _mm_loadu_si128, _mm_maskz_loadu_epi8, _mm_prefetch,
    _mm_setr_epi8, _mm_storeu_si128, _mm256_loadu_si256, _mm256_mask_storeu_epi8, _mm256_mask_storeu_epi16,
    _mm256_maskz_loadu_epi16, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_adds_epi16,
    _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_castsi512_si128, _mm512_castsi512_si256, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi8,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_cvtps_epi32,
    _mm512_div_ps, _mm512_extracti32x4_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_blend_ps,
    _mm512_mask_cvtepi32_storeu_epi8, _mm512_mask_storeu_epi8, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_max_epi32, _mm512_max_epu8, _mm512_max_ps, _mm512_min_epi32, _mm512_min_epu8, _mm512_min_ps, _mm512_mul_ps,
    _mm512_packs_epi32, _mm512_packus_epi16, _mm512_permute_ps, _mm512_permutexvar_epi32, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi8, _mm512_set1_epi16,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps, _mm512_shuffle_epi8, _mm512_shuffle_f32x4,
    _mm512_slli_epi32, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps, _mm512_test_epi32_mask,
    _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::mem::transmute;

use half::bf16;

use super::{Stored, ToBytes, UPPER, Vector};

#[derive(Clone, Copy)]
pub(crate) struct F32x16(pub(crate) __m512);

/// The lowest `count` bits.
#[inline(always)]
pub(crate) fn first_lanes(count: usize) -> __mmask16 {
    debug_assert!(count <= 16, "{count} of 16 lanes");
    // The mask of 16 needs a bit more than it has.
    u16::try_from((1u32 << count) - 1).unwrap_or(u16::MAX)
}

/// What makes an integer of a number when it is added: the last digit that a float of this size has is that before the
/// point. Bits of such floats are in the order of their numbers, and all below stay below.
const INTEGERS: f32 = 12_582_912.0;

/// The nearest integers of 16 bits, four of each vector by turns; what is no number is the least. `SMALL` as for
/// `store_as_bytes`.
///
/// # Safety
/// The processor has AVX-512 F and BW.
#[inline(always)]
unsafe fn halves<const SMALL: bool>(a: F32x16, b: F32x16) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        // What is too much for an integer of 32 bits would become the least.
        let most = F32x16::splat(65536.0);
        let [a, b] = if SMALL { [a, b] } else { [most.min(a), most.min(b)] };
        _mm512_packs_epi32(_mm512_cvtps_epi32(a.0), _mm512_cvtps_epi32(b.0))
    }
}

/// Four vectors as bytes, four of each by turns. `SMALL` as for `store_as_bytes`.
///
/// # Safety
/// As `halves`.
#[inline(always)]
unsafe fn by_turns<const SMALL: bool>([a, b, c, d]: [F32x16; 4], bytes: ToBytes) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let (first, second) = (halves::<SMALL>(a, b), halves::<SMALL>(c, d));
        if bytes.is_plain() {
            return _mm512_packus_epi16(first, second);
        }
        let zero = _mm512_set1_epi16(i16::try_from(bytes.zero()).unwrap_or_default());
        let [low, high] = bytes.bounds_of_bytes().map(u8::cast_signed);
        let packed = _mm512_packus_epi16(_mm512_adds_epi16(first, zero), _mm512_adds_epi16(second, zero));
        _mm512_min_epu8(_mm512_max_epu8(packed, _mm512_set1_epi8(low)), _mm512_set1_epi8(high))
    }
}

/// Sixteen results of each of four columns as bytes: those of a row side by side, and rows by turns. That all are small
/// is promised as for `store_as_bytes`.
///
/// # Safety
/// As `halves`.
#[inline(always)]
pub(crate) unsafe fn columns_as_bytes(columns: [F32x16; 4], bytes: ToBytes) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let beside = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_shuffle_epi8(by_turns::<true>(columns, bytes), _mm512_broadcast_i32x4(beside))
    }
}

/// Stores sixteen rows of bytes, of four times four columns.
///
/// # Safety
/// The processor has AVX-512 F, and sixteen bytes are writable at each of sixteen places `pitch` apart.
#[inline(always)]
pub(crate) unsafe fn store_rows_of_bytes(columns: [__m512i; 4], to: *mut u8, pitch: usize) {
    let [a, b, c, d] = columns;
    // SAFETY: the caller's promise.
    unsafe {
        let floats = [_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), _mm512_castsi512_ps(c), _mm512_castsi512_ps(d)];
        for (nth, rows) in turn_quarters(floats).into_iter().enumerate() {
            let (rows, to) = (_mm512_castps_si512(rows), |row: usize| to.add((row * 4 + nth) * pitch).cast());
            _mm_storeu_si128(to(0), _mm512_castsi512_si128(rows));
            _mm_storeu_si128(to(1), _mm512_extracti32x4_epi32::<1>(rows));
            _mm_storeu_si128(to(2), _mm512_extracti32x4_epi32::<2>(rows));
            _mm_storeu_si128(to(3), _mm512_extracti32x4_epi32::<3>(rows));
        }
    }
}

/// The first `count` of one vector, as `store_as_bytes`.
///
/// # Safety
/// As the methods of [`Vector`].
#[inline(always)]
unsafe fn store_one<const SMALL: bool>(results: F32x16, bytes: ToBytes, to: *mut u8, count: usize) {
    // SAFETY: the caller's promise; lanes behind `count` are not touched.
    unsafe {
        let results = if SMALL { results } else { F32x16::splat(65536.0).min(results) };
        // Bounds come first: the zero point could lead beyond the greatest integer.
        let [low, high] = bytes.bounds_of_bytes().map(|bound| _mm512_set1_epi32(i32::from(bound) - bytes.zero()));
        let within = _mm512_min_epi32(_mm512_max_epi32(_mm512_cvtps_epi32(results.0), low), high);
        let within = _mm512_add_epi32(within, _mm512_set1_epi32(bytes.zero()));
        match count {
            16 => _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(within)),
            _ => _mm512_mask_cvtepi32_storeu_epi8(to.cast(), first_lanes(count), within),
        }
    }
}

/// Four by four elements transposed in each quarter of four registers.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn turn_quarters([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let (ab, cd) = (_mm512_castps_pd(_mm512_unpacklo_ps(a, b)), _mm512_castps_pd(_mm512_unpacklo_ps(c, d)));
        let (above, beyond) = (_mm512_castps_pd(_mm512_unpackhi_ps(a, b)), _mm512_castps_pd(_mm512_unpackhi_ps(c, d)));
        [
            _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
            _mm512_castpd_ps(_mm512_unpacklo_pd(above, beyond)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(above, beyond)),
        ]
    }
}

/// Stores the first quarters of four registers, then the second ones, and so on.
///
/// # Safety
/// The processor has AVX-512 F, and sixteen elements are writable at each place.
#[inline(always)]
unsafe fn store_quarters([a, b, c, d]: [__m512; 4], to: [*mut f32; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (above, beyond) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        _mm512_storeu_ps(to[0], _mm512_shuffle_f32x4::<0x88>(even, above));
        _mm512_storeu_ps(to[1], _mm512_shuffle_f32x4::<0x88>(odd, beyond));
        _mm512_storeu_ps(to[2], _mm512_shuffle_f32x4::<0xdd>(even, above));
        _mm512_storeu_ps(to[3], _mm512_shuffle_f32x4::<0xdd>(odd, beyond));
    }
}

/// Four elements in each quarter. A compiler that saw through it would load each of them on its own again, where loads
/// are what is short.
///
/// # Safety
/// The processor has AVX-512 F, and four elements are readable.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn four_everywhere(from: *const f32) -> __m512 {
    let four;
    // SAFETY: the instruction reads what the caller says is readable, and writes a register.
    unsafe {
        asm!(
            "vbroadcastf32x4 {four}, [{from}]",
            four = lateout(zmm_reg) four,
            from = in(reg) from,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    four
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
    unsafe fn splat_each(from: *const f32) -> [Self; 4] {
        // SAFETY: as said above.
        unsafe {
            let four = four_everywhere(from);
            [
                Self(_mm512_permute_ps::<0b00_00_00_00>(four)),
                Self(_mm512_permute_ps::<0b01_01_01_01>(four)),
                Self(_mm512_permute_ps::<0b10_10_10_10>(four)),
                Self(_mm512_permute_ps::<0b11_11_11_11>(four)),
            ]
        }
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
    unsafe fn store_as_bytes<const N: usize, const SMALL: bool>(
        several: [Self; N],
        bytes: ToBytes,
        to: *mut u8,
        count: usize,
    ) {
        // SAFETY: as said above; lanes behind `count` are not touched.
        unsafe {
            if N == 1 {
                return store_one::<SMALL>(several[0], bytes, to, count);
            }
            // Where there are fewer vectors than four, what takes the place of the others is not stored.
            let last = if N > 2 { [several[2 % N], several[3 % N]] } else { [several[0], several[1 % N]] };
            let packed = by_turns::<SMALL>([several[0], several[1 % N], last[0], last[1]], bytes);
            // Every 128 bits have four of each vector.
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let packed = _mm512_permutexvar_epi32(order, packed);
            // No wider than what is written: across a border of cache lines is slow, with a mask too.
            match (N, count) {
                (4, 64) => _mm512_storeu_si512(to.cast(), packed),
                (3, 48) => {
                    _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(packed));
                    _mm_storeu_si128(to.add(32).cast(), _mm512_extracti32x4_epi32::<2>(packed));
                }
                (2, 32) => _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(packed)),
                (2, _) => {
                    _mm256_mask_storeu_epi8(to.cast(), u32::MAX >> (32 - count), _mm512_castsi512_si256(packed));
                }
                _ => _mm512_mask_storeu_epi8(to.cast(), u64::MAX >> (64 - count), packed),
            }
        }
    }

    #[inline(always)]
    unsafe fn transpose(rows: *const *const f32, first: usize, to: *mut f32, pitch: usize) {
        // SAFETY: as said above.
        unsafe {
            // Each row is read at once: rows that a power of two lies between would drive each other out of the cache.
            let row = |row: usize| _mm512_loadu_ps((*rows.add(row)).add(first));
            // Squares of four by four within quarters of the registers. An array that a loop indexes would lie in memory.
            let [a0, a1, a2, a3] = turn_quarters([row(0), row(1), row(2), row(3)]);
            let [b0, b1, b2, b3] = turn_quarters([row(4), row(5), row(6), row(7)]);
            let [c0, c1, c2, c3] = turn_quarters([row(8), row(9), row(10), row(11)]);
            let [d0, d1, d2, d3] = turn_quarters([row(12), row(13), row(14), row(15)]);
            // Then of quarters.
            let to = |nth: usize| to.add(nth * pitch);
            store_quarters([a0, b0, c0, d0], [to(0), to(4), to(8), to(12)]);
            store_quarters([a1, b1, c1, d1], [to(1), to(5), to(9), to(13)]);
            store_quarters([a2, b2, c2, d2], [to(2), to(6), to(10), to(14)]);
            store_quarters([a3, b3, c3, d3], [to(3), to(7), to(11), to(15)]);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as said above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn nearest_within(self, [low, high]: [f32; 2], plus: f32) -> Self {
        // SAFETY: as said above. Integers are compared where floats would wait for those that add.
        unsafe {
            let bound = |bound: f32| _mm512_castps_si512(_mm512_set1_ps(INTEGERS + bound));
            let integers = _mm512_castps_si512(_mm512_add_ps(self.0, _mm512_set1_ps(INTEGERS)));
            let within = _mm512_min_epi32(_mm512_max_epi32(integers, bound(low)), bound(high));
            Self(_mm512_sub_ps(_mm512_castsi512_ps(within), _mm512_set1_ps(INTEGERS - plus)))
        }
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
    unsafe fn nonzero(self) -> u32 {
        // SAFETY: as said above.
        unsafe {
            let words = _mm512_castps_si512(self.0);
            _mm512_test_epi32_mask(words, words).into()
        }
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
