//! The inner loop over one tile whose weights are codes: they become numbers in registers, once for all rows of the tile.

use crate::f32_gemm::generic::{Block, Codes, Job, end};
use crate::vector::Vector;

/// Numbers found in a table by the codes of a word for each lane.
///
/// # Safety
/// As the methods of [`Vector`]. A table has sixteen numbers, and there is a word for each lane.
pub(super) trait LookUp: Vector {
    type Table: Copy;
    type Words: Copy;

    unsafe fn table(from: *const f32) -> Self::Table;
    unsafe fn words(from: *const f32) -> Self::Words;
    /// What the lowest four bits of every word stand for.
    unsafe fn look_up(table: Self::Table, words: Self::Words) -> Self;
    /// Words without so many of their lowest bits.
    unsafe fn without(words: Self::Words, bits: u32) -> Self::Words;
}

/// As `f32_gemm::generic::tile`.
///
/// # Safety
/// The processor has the instructions of `V`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn tile<V: LookUp, const M: usize, const N: usize>(job: &Job) {
    let Some(codes) = &job.codes else { return };
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut block = Block::first(job);
        for _ in 0..job.blocks {
            for panel in 0..job.panels {
                let (words, scales) = (panel * job.weights_pitch, panel * codes.pitch);
                let from = [job.weights.wrapping_add(words), codes.scales.wrapping_add(scales)];
                let [mut sums] = chain::<V, M, 1, N>(job, codes, block.rows, from);
                end::<V, f32, M, N>(job, block, panel * N * V::LANES, &mut sums);
            }
            block = block.below(job, M);
        }
    }
}

/// As `f32_gemm::generic::row`: one row with `P` whole panels.
///
/// # Safety
/// As `tile`.
#[inline(always)]
pub(super) unsafe fn row<V: LookUp, const P: usize, const N: usize>(job: &Job) {
    let Some(codes) = &job.codes else { return };
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let all = chain::<V, 1, P, N>(job, codes, job.rows, [job.weights, codes.scales]);
        let mut sums = [[V::splat(0.0); N]; P];
        for (p, [of_panel]) in all.into_iter().enumerate() {
            sums[p] = of_panel;
        }
        end::<V, f32, P, N>(job, Block::first(job), 0, &mut sums);
    }
}

/// Scaled sums of `M` rows for each of `P` panels, whose words and scales begin at these places.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn chain<V: LookUp, const M: usize, const P: usize, const N: usize>(
    job: &Job,
    codes: &Codes,
    rows: *const *const f32,
    [mut words, scales]: [*const f32; 2],
) -> [[[V; N]; M]; P] {
    // SAFETY: the caller's promise is that of these reads and calls.
    unsafe {
        let (table, per_word) = (V::table(codes.table), (u32::BITS / codes.bits) as usize);
        let mut sums = [[[V::splat(0.0); N]; M]; P];
        for tap in 0..job.taps {
            let mut of_tap = [std::ptr::null(); M];
            for (m, row) in of_tap.iter_mut().enumerate() {
                *row = *rows.add(tap * M + m);
            }
            let mut at = 0;
            while at < codes.depth {
                let mut several = [[V::words(words); N]; P];
                for (p, several) in several.iter_mut().enumerate() {
                    for (n, word) in several.iter_mut().enumerate() {
                        *word = V::words(words.add(p * job.weights_pitch + n * V::LANES));
                    }
                }
                words = words.add(N * V::LANES);
                let end = codes.depth.min(at + per_word);
                while at < end {
                    for p in 0..P {
                        let mut numbers = [V::splat(0.0); N];
                        for n in 0..N {
                            numbers[n] = V::look_up(table, several[p][n]);
                            several[p][n] = V::without(several[p][n], codes.bits);
                        }
                        for m in 0..M {
                            let x = V::splat(*of_tap[m].add(at));
                            for n in 0..N {
                                sums[p][m][n] = x.mul_add(numbers[n], sums[p][m][n]);
                            }
                        }
                    }
                    at += 1;
                }
            }
        }
        for (p, sums) in sums.iter_mut().enumerate() {
            for sums in sums {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.mul(V::load(scales.add(p * codes.pitch + n * V::LANES)));
                }
            }
        }
        sums
    }
}
