//! Eight lanes.

use std::arch::x86_64::{_mm_loadu_si128, _mm_or_si128, _mm_shuffle_epi8, _mm_storeu_si128};

use super::Scale;
use super::generic::{self, Added, Table};
use crate::vector::F32x8;

/// # Safety
/// The processor has AVX2 and FMA, and the pointers are valid for `count` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn quantize(from: *const f32, to: Scale, out: *mut u8, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::quantize::<F32x8>(from, to, out, count) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the pointers are valid for `count` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn dequantize(from: *const u8, of: Scale, out: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::dequantize::<F32x8>(from, of, out, count) }
}

/// # Safety
/// The processor has AVX2 and FMA, and the pointers are valid for `count` elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn add(from: [*const u8; 2], sum: &Added, out: *mut u8, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::add::<F32x8>(from, sum, out, count) }
}

/// # Safety
/// The processor has AVX2, and the pointers are valid for `count` elements of each plane, and the output for all.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn interleave(planes: [*const u8; 3], out: *mut u8, count: usize) {
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let whole = count / 16 * 16;
        for at in (0..whole).step_by(16) {
            let load = |plane: *const u8| _mm_loadu_si128(plane.add(at).cast());
            let [a, b, c] = [load(planes[0]), load(planes[1]), load(planes[2])];
            for (third, places) in PLACES.iter().enumerate() {
                let place = |nth: usize| _mm_loadu_si128(places[nth].as_ptr().cast());
                let [a, b, c] =
                    [_mm_shuffle_epi8(a, place(0)), _mm_shuffle_epi8(b, place(1)), _mm_shuffle_epi8(c, place(2))];
                _mm_storeu_si128(out.add(3 * at + 16 * third).cast(), _mm_or_si128(_mm_or_si128(a, b), c));
            }
        }
        let rest = [planes[0].add(whole), planes[1].add(whole), planes[2].add(whole)];
        generic::interleave(rest, out.add(3 * whole), count - whole);
    }
}

/// For each third of 48 interleaved bytes and each plane, the byte of sixteen that belongs there, or none.
const PLACES: [[[u8; 16]; 3]; 3] = {
    let mut places = [[[0x80; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        #[expect(clippy::cast_possible_truncation, reason = "less than 16")]
        let place = (at / 3) as u8;
        places[at / 16][at % 3][at % 16] = place;
        at += 1;
    }
    places
};

pub(super) static TABLE: Table = Table { quantize, dequantize, add, interleave };
