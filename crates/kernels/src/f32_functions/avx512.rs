//! Functions, lanes as wide as the registers.

use std::arch::x86_64::{
    _mm512_and_ps, _mm512_andnot_ps, _mm512_castps_si512, _mm512_loadu_ps, _mm512_or_ps, _mm512_permutexvar_ps,
    _mm512_set1_ps,
};
use std::f32::consts::FRAC_1_SQRT_2;

use half::bf16;

use super::generic::{self, Gelu, Halves, Norm, Rows, Scores, Table};
use super::{Arithmetic, Function, Operands};
use crate::vector::{F32x16, Stored, Vector};

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and `rows` are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn map(function: Function, rows: &Rows<f32>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::map::<F32x16, f32>(function, rows) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and `rows` are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn map_halves(function: Function, rows: &Rows<bf16>) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::map::<F32x16, bf16>(function, rows) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and operands of many elements have as many as `to`.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn combine(arithmetic: Arithmetic, operands: Operands<'_>, to: &mut [f32]) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::combine::<F32x16>(arithmetic, operands, to) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and `scores`, `to` and `results` are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn softmax(scores: &Scores, to: *mut f32, results: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::softmax::<F32x16, f32>(scores, to, results, count) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ and VL, and `norm`, `from` and `to` are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn normalize(norm: &Norm, from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::normalize::<F32x16, f32, f32>(norm, from, to, count) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and pointers are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn softmax_to_halves(scores: &Scores, to: *mut f32, results: *mut bf16, count: usize) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::softmax::<F32x16, bf16>(scores, to, results, count) }
}

/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and BF16, and `norm`, `from` and `to` are valid for `count` elements.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn normalize_between<I: Stored<F32x16>, O: Stored<F32x16>>(
    norm: &Norm,
    from: *const I,
    to: *mut O,
    count: usize,
) {
    // SAFETY: the caller's promise; the features are enabled here.
    unsafe { generic::normalize::<F32x16, I, O>(norm, from, to, count) }
}

// SAFETY: AVX-512 F and DQ are there; the caller promised.
impl Gelu for F32x16 {
    /// The error function by a polynomial for each of sixteen parts of its axis, within 3e-7.
    #[inline(always)]
    unsafe fn gelu(self) -> Self {
        // SAFETY: as said above.
        unsafe {
            let (half, size) = (self.mul(Self::splat(0.5)), _mm512_andnot_ps(_mm512_set1_ps(-0.0), self.0));
            let place = Self(size).mul_add(Self::splat(PARTS_A_UNIT * FRAC_1_SQRT_2), Self::splat(-0.5));
            // Just before the middle behind the last part, where nothing is rounded up.
            let place = Self::splat((PARTS as f32 - 0.5).next_down()).min(place);
            // So large a number has no digits behind the point, and the nearest integer in its lowest bits.
            let (large, part) = (Self::splat(12_582_912.0), place.add(Self::splat(12_582_912.0)));
            let (within, part) = (place.sub(part.sub(large)), _mm512_castps_si512(part.0));
            let mut erf = Self(_mm512_permutexvar_ps(part, _mm512_loadu_ps(ERF[4].as_ptr())));
            for factors in [&ERF[3], &ERF[2], &ERF[1], &ERF[0]] {
                erf = erf.mul_add(within, Self(_mm512_permutexvar_ps(part, _mm512_loadu_ps(factors.as_ptr()))));
            }
            let sign = _mm512_and_ps(_mm512_set1_ps(-0.0), self.0);
            half.mul_add(Self(_mm512_or_ps(erf.0, sign)), half)
        }
    }
}

pub(super) static TABLE: Table = Table { map, combine, softmax, normalize };
pub(super) static HALVES: Halves = Halves {
    map: map_halves,
    softmax: softmax_to_halves,
    normalize: normalize_between,
    normalize_floats: normalize_between,
    normalize_to_floats: normalize_between,
};

/// Parts of the axis from zero on, as many as a register has lanes, four to a unit.
const PARTS: usize = 16;
const PARTS_A_UNIT: f32 = 4.0;

/// By power, then part: the error function of `part + 0.5 + x` quarters, for `x` from -0.5 to 0.5, fitted at Chebyshev's
/// points.
#[expect(clippy::excessive_precision, reason = "columns of as many digits")]
static ERF: [[f32; PARTS]; 5] = [
    [
        0.14031620, 0.40411690, 0.62324089, 0.78407508, 0.88838822, 0.94817007, 0.97844374, 0.99199003, 0.99734598,
        0.99921703, 0.99979460, 0.99995214, 0.99999011, 0.99999821, 0.99999970, 0.99999994,
    ],
    [
        0.27771935, 0.24508734, 0.19087540, 0.13118753, 0.07956965, 0.04259053, 0.02011811, 0.00838624, 0.00308497,
        0.00100146, 0.00028689, 0.00007252, 0.00001618, 0.00000318, 0.00000055, 0.00000008,
    ],
    [
        -0.0086786, -0.0229766, -0.0298238, -0.0286969, -0.0223788, -0.0146405, -0.0081731, -0.0039312, -0.0016390,
        -0.0005947, -0.0001883, -0.0000521, -0.0000126, -0.0000027, -0.0000005, -0.0000001,
    ],
    [
        -0.0055734, -0.0036561, -0.0008782, 0.0014315, 0.0025197, 0.0024584, 0.0017937, 0.0010572, 0.0005200,
        0.0002171, 0.0000777, 0.0000240, 0.0000064, 0.0000015, 0.0000003, 0.0000001,
    ],
    [
        0.0002663, 0.0006461, 0.0006855, 0.0004381, 0.0001107, -0.0001171, -0.0001929, -0.0001647, -0.0001031,
        -0.0000516, -0.0000214, -0.0000075, -0.0000022, -0.0000006, -0.0000001, 0.0,
    ],
];
