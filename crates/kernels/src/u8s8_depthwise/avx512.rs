//! Blocks of four pixels and 64 channels: sixteen vectors of sums.

use std::arch::x86_64::{
    __m512i, _mm_mask_storeu_epi8, _mm_maskz_loadu_epi8, _mm256_castsi128_si256, _mm256_inserti128_si256,
    _mm256_mask_storeu_epi8, _mm256_maskz_loadu_epi8, _mm512_adds_epi16, _mm512_castsi256_si512,
    _mm512_castsi512_si128, _mm512_castsi512_si256, _mm512_cvtepi32_ps, _mm512_cvtps_epi32, _mm512_dpbusd_epi32,
    _mm512_extracti32x4_epi32, _mm512_extracti64x4_epi64, _mm512_inserti64x4, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_max_epu8, _mm512_min_epu8, _mm512_min_ps, _mm512_mul_ps,
    _mm512_packs_epi32, _mm512_packus_epi16, _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16,
};

use super::quads::{COLUMNS, GROUP, Job, PIXELS, SET, together};

pub(super) type Kernel = unsafe fn(&Job);

/// A kernel for so many taps of each line, and so many of them from a pixel to the next.
#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) across: usize,
    pub(super) stride: usize,
    pub(super) kernel: Kernel,
}

pub(super) static KERNELS: [Kernels; 4] = [
    Kernels { across: 3, stride: 1, kernel: line::<3, 1> },
    Kernels { across: 3, stride: 2, kernel: line::<3, 2> },
    Kernels { across: 5, stride: 1, kernel: line::<5, 1> },
    Kernels { across: 5, stride: 2, kernel: line::<5, 2> },
];

/// Runs a kernel of the table.
pub(super) fn call(kernel: Kernel, job: &Job) {
    // SAFETY: `Quads` are only made for a level that proves VNNI, and their `run` has checked the extents that the job's
    // pointers cover.
    unsafe { kernel(job) }
}

/// Pixels of a line with `K` taps, `S` pixels of the image from one to the next.
///
/// # Safety
/// The processor has AVX-512 F, BW, DQ, VL and VNNI, and the job's pointers are valid.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn line<const K: usize, const S: usize>(job: &Job) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let mut group = 0;
        while group * GROUP < job.channels {
            let mut pixel = 0;
            match together(job.channels - group * GROUP) {
                1 => {
                    while pixel + PIXELS <= job.pixels {
                        block::<K, S, PIXELS, 1>(job, group, pixel);
                        pixel += PIXELS;
                    }
                    match job.pixels - pixel {
                        1 => block::<K, S, 1, 1>(job, group, pixel),
                        2 => block::<K, S, 2, 1>(job, group, pixel),
                        3 => block::<K, S, 3, 1>(job, group, pixel),
                        _ => {}
                    }
                }
                2 => {
                    while pixel < job.pixels {
                        block::<K, S, PIXELS, 2>(job, group, pixel);
                        pixel += 2 * PIXELS;
                    }
                }
                _ => {
                    while pixel < job.pixels {
                        block::<K, S, PIXELS, 4>(job, group, pixel);
                        pixel += 4 * PIXELS;
                    }
                }
            }
            group += 1;
        }
    }
}

/// `R` times `P` pixels and a group of channels. Pixels behind the last are not written.
///
/// # Safety
/// As `line`.
#[inline(always)]
unsafe fn block<const K: usize, const S: usize, const P: usize, const R: usize>(job: &Job, group: usize, pixel: usize) {
    // SAFETY: the caller's promise is that of these reads, writes and calls; channels behind the last are not touched.
    unsafe {
        let channels = (GROUP / R).min(job.channels - group * GROUP);
        let (sets, second) = if K > 4 { (4, 2) } else { (2, 1) };
        let mut sums = [[_mm512_setzero_si512(); 4]; P];
        for sums in &mut sums {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_si512(job.bias.add(group * GROUP + v * 16).cast());
            }
        }
        let mut weights = job.weights.add(group * job.weights_pitch);
        for line in 0..job.lines {
            let columns = job.columns.add(line * COLUMNS + pixel * S);
            let load = |at: usize| load::<R>(columns.add(at), P * S, group * GROUP, channels);
            let mut left = couple(load(0), load(1));
            // A loop of so much is not unrolled, and an array that a loop indexes does not stay in registers.
            macro_rules! quads {
                ($($nth:literal)*) => { $(if $nth < (P - 1) * S / 2 + second {
                    let right = couple(load($nth * 2 + 2), load($nth * 2 + 3));
                    let quad = [
                        _mm512_unpacklo_epi16(left[0], right[0]),
                        _mm512_unpackhi_epi16(left[0], right[0]),
                        _mm512_unpacklo_epi16(left[1], right[1]),
                        _mm512_unpackhi_epi16(left[1], right[1]),
                    ];
                    for p in 0..P {
                        let (first, is_late) = (p * S / 2, p * S % 2);
                        if $nth == first {
                            add(&mut sums[p], quad, weights.add(is_late * second * SET));
                        }
                        if K > 4 && $nth == first + 1 {
                            add(&mut sums[p], quad, weights.add((is_late * second + 1) * SET));
                        }
                    }
                    left = right;
                })* };
            }
            quads!(0 1 2 3 4);
            let _ = left;
            weights = weights.add(sets * SET);
        }
        for (p, sums) in sums.into_iter().enumerate() {
            let (results, pixel) = (results(job, group, sums), pixel + p);
            let to = job.out.wrapping_add(pixel * job.out_pitch + group * GROUP);
            store::<R>(results, to, P * job.out_pitch, channels, (job.pixels - pixel.min(job.pixels)).div_ceil(P));
        }
    }
}

/// The channels of `R` pixels, beside each other, from one channel on; zeros behind the last.
///
/// # Safety
/// As `line`.
#[inline(always)]
unsafe fn load<const R: usize>(columns: *const *const u8, step: usize, first: usize, channels: usize) -> __m512i {
    // SAFETY: the caller's promise is that of these reads; channels behind the last are not touched.
    unsafe {
        let at = |nth: usize| (*columns.add(nth * step)).add(first).cast();
        match R {
            1 => _mm512_maskz_loadu_epi8(u64::MAX >> (64 - channels), at(0)),
            2 => {
                let half = |nth: usize| _mm256_maskz_loadu_epi8(u32::MAX >> (32 - channels), at(nth));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(0)), half(1))
            }
            _ => {
                let quarter = |nth: usize| _mm_maskz_loadu_epi8(u16::MAX >> (16 - channels), at(nth));
                let lower = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(quarter(0)), quarter(1));
                let upper = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(quarter(2)), quarter(3));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(lower), upper)
            }
        }
    }
}

/// Writes the channels of the first `count` of `R` pixels.
///
/// # Safety
/// As `line`.
#[inline(always)]
unsafe fn store<const R: usize>(results: __m512i, to: *mut u8, pitch: usize, channels: usize, count: usize) {
    // SAFETY: the caller's promise is that of these writes; channels behind the last are not touched.
    unsafe {
        match R {
            1 => _mm512_mask_storeu_epi8(to.cast(), u64::MAX >> (64 - channels), results),
            2 => {
                let halves = [_mm512_castsi512_si256(results), _mm512_extracti64x4_epi64::<1>(results)];
                for (nth, half) in halves.into_iter().enumerate().take(count) {
                    _mm256_mask_storeu_epi8(to.add(nth * pitch).cast(), u32::MAX >> (32 - channels), half);
                }
            }
            _ => {
                let quarters = [
                    _mm512_castsi512_si128(results),
                    _mm512_extracti32x4_epi32::<1>(results),
                    _mm512_extracti32x4_epi32::<2>(results),
                    _mm512_extracti32x4_epi32::<3>(results),
                ];
                for (nth, quarter) in quarters.into_iter().enumerate().take(count) {
                    _mm_mask_storeu_epi8(to.add(nth * pitch).cast(), u16::MAX >> (16 - channels), quarter);
                }
            }
        }
    }
}

/// The bytes of two pixels by turns, of the lower and the upper eight of every sixteen channels.
///
/// # Safety
/// As `line`.
#[inline(always)]
unsafe fn couple(a: __m512i, b: __m512i) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)] }
}

/// # Safety
/// As `line`.
#[inline(always)]
unsafe fn add(sums: &mut [__m512i; 4], quad: [__m512i; 4], weights: *const i8) {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        for v in 0..4 {
            sums[v] = _mm512_dpbusd_epi32(sums[v], quad[v], _mm512_loadu_si512(weights.add(v * GROUP).cast()));
        }
    }
}

/// Sums scaled, rounded to the nearest integer, the even one of two, and kept within their bounds. Packing them undoes the
/// order of their lanes.
///
/// # Safety
/// As `line`.
#[inline(always)]
unsafe fn results(job: &Job, group: usize, sums: [__m512i; 4]) -> __m512i {
    // SAFETY: the caller's promise is that of these reads.
    unsafe {
        // What is too much for an integer of 32 bits would become the least.
        let most = _mm512_set1_ps(65536.0);
        let mut integers = [_mm512_setzero_si512(); 4];
        for v in 0..4 {
            let scale = _mm512_loadu_ps(job.scale.add(group * GROUP + v * 16));
            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[v]), scale);
            integers[v] = _mm512_cvtps_epi32(_mm512_min_ps(most, product));
        }
        let zero = _mm512_set1_epi16(i16::try_from(job.bytes.zero()).unwrap_or_default());
        let [low, high] = job.bytes.bounds_of_bytes();
        let lower = _mm512_adds_epi16(_mm512_packs_epi32(integers[0], integers[1]), zero);
        let upper = _mm512_adds_epi16(_mm512_packs_epi32(integers[2], integers[3]), zero);
        let bytes = _mm512_packus_epi16(lower, upper);
        let (low, high) = (_mm512_set1_epi8(low.cast_signed()), _mm512_set1_epi8(high.cast_signed()));
        _mm512_min_epu8(_mm512_max_epu8(bytes, low), high)
    }
}
