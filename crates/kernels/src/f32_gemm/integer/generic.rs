//! The inner loop over one tile of rows that are integers of sixteen bits, and how floats become such rows.
//!
//! A row is blocks one behind the other: integers, two in the place of a float, then what they are multiplied with, then
//! their sum times that.

use std::mem::take;

use super::Round;
use crate::f32_gemm::generic::{Block, Codes, Job, end};
use crate::vector::Vector;

/// Products of pairs of integers, summed in 32 bits.
///
/// # Safety
/// As the methods of [`Vector`]. A table has 32 integers of sixteen bits, and there is a word for each lane, of two halves.
pub(super) trait Integers {
    type Floats: Vector;
    type Table: Copy;
    type Words: Copy;

    unsafe fn zero() -> Self::Words;
    unsafe fn table(from: *const f32) -> Self::Table;
    unsafe fn words(from: *const f32) -> Self::Words;
    /// The same pair for all lanes.
    unsafe fn pair(from: *const f32) -> Self::Words;
    /// What the lowest four bits of every half stand for.
    unsafe fn look_up(table: Self::Table, words: Self::Words) -> Self::Words;
    /// Halves without so many of their lowest bits.
    unsafe fn without(words: Self::Words, bits: u32) -> Self::Words;
    /// Sums with the products of both halves.
    unsafe fn add(pair: Self::Words, numbers: Self::Words, sums: Self::Words) -> Self::Words;
    unsafe fn floats(sums: Self::Words) -> Self::Floats;
    /// What is summed of the pairs of a row whatever the columns.
    #[inline(always)]
    unsafe fn aside(_table: Self::Table, _pair: Self::Words, sums: Self::Words) -> Self::Words {
        sums
    }
    /// Sums of numbers, from those of what was looked up and that beside them.
    #[inline(always)]
    unsafe fn settled(_table: Self::Table, sums: Self::Words, _aside: Self::Words) -> Self::Words {
        sums
    }
}

/// What becomes of the sums of blocks.
pub(super) trait Scales {
    /// Each block has scales of its own, not only each column.
    const BLOCKS: bool;
    /// Integers of a block are so much off.
    const SHIFTS: bool;
}

pub(super) struct Whole;

pub(super) struct Blocks;

pub(super) struct Shifted;

impl Scales for Whole {
    const BLOCKS: bool = false;
    const SHIFTS: bool = false;
}

impl Scales for Blocks {
    const BLOCKS: bool = true;
    const SHIFTS: bool = false;
}

impl Scales for Shifted {
    const BLOCKS: bool = true;
    const SHIFTS: bool = true;
}

/// As `f32_gemm::generic::tile`.
///
/// # Safety
/// The processor has the instructions of `T`, and the job's pointers are valid.
#[inline(always)]
pub(super) unsafe fn tile<T: Integers, S: Scales, const M: usize, const N: usize>(job: &Job) {
    let Some(codes) = &job.codes else { return };
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let mut block = Block::first(job);
        for _ in 0..job.blocks {
            let mut rows = [std::ptr::null(); M];
            for (m, row) in rows.iter_mut().enumerate() {
                *row = *block.rows.add(m);
            }
            for panel in 0..job.panels {
                let [words, scales] = [panel * job.weights_pitch, panel * codes.pitch];
                let place = Place {
                    words: job.weights.wrapping_add(words),
                    scales: codes.scales.wrapping_add(scales),
                    shifts: codes.shifts.wrapping_add(scales),
                };
                let [mut sums] = chain::<T, S, M, 1, N>(job, codes, rows, place);
                end::<T::Floats, f32, M, N>(job, block, panel * N * T::Floats::LANES, &mut sums);
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
pub(super) unsafe fn row<T: Integers, S: Scales, const P: usize, const N: usize>(job: &Job) {
    let Some(codes) = &job.codes else { return };
    // SAFETY: the caller's promise is that of these reads, writes and calls.
    unsafe {
        let place = Place { words: job.weights, scales: codes.scales, shifts: codes.shifts };
        let all = chain::<T, S, 1, P, N>(job, codes, [*job.rows], place);
        let mut sums = [[T::Floats::splat(0.0); N]; P];
        for (p, [of_panel]) in all.into_iter().enumerate() {
            sums[p] = of_panel;
        }
        end::<T::Floats, f32, P, N>(job, Block::first(job), 0, &mut sums);
    }
}

/// Where the words of a panel and what goes with them begin.
struct Place {
    words: *const f32,
    scales: *const f32,
    shifts: *const f32,
}

/// For each panel, row and vector.
type Sums<V, const M: usize, const P: usize, const N: usize> = [[[V; N]; M]; P];

/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn chain<T: Integers, S: Scales, const M: usize, const P: usize, const N: usize>(
    job: &Job,
    codes: &Codes,
    mut rows: [*const f32; M],
    mut place: Place,
) -> Sums<T::Floats, M, P, N> {
    // SAFETY: the caller's promise is that of these reads and calls.
    unsafe {
        let none = T::Floats::splat(0.0);
        let (mut sums, mut left, mut block) = ([[[none; N]; M]; P], job.depth, 0);
        while left > 0 {
            let steps = left.min(codes.block);
            let made = products::<T, M, P, N>(job, codes, &mut rows, steps, &mut place.words);
            for p in 0..P {
                for n in 0..N {
                    let at = p * codes.pitch + (block * N + n) * T::Floats::LANES;
                    let scale = if S::BLOCKS { T::Floats::load(place.scales.add(at)) } else { none };
                    let shift = if S::SHIFTS { T::Floats::load(place.shifts.add(at)) } else { none };
                    for m in 0..M {
                        let floats = T::floats(made[p][m][n]);
                        let scaled = if S::BLOCKS { floats.mul(scale) } else { floats };
                        sums[p][m][n] = scaled.mul_add(T::Floats::splat(*rows[m]), sums[p][m][n]);
                        if S::SHIFTS {
                            let sum = T::Floats::splat(*rows[m].add(1));
                            sums[p][m][n] = shift.mul_add(sum, sums[p][m][n]);
                        }
                    }
                }
            }
            for row in &mut rows {
                *row = row.add(2);
            }
            (left, block) = (left - steps, block + 1);
        }
        if !S::BLOCKS {
            for (p, sums) in sums.iter_mut().enumerate() {
                for sums in sums {
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = sum.mul(T::Floats::load(place.scales.add(p * codes.pitch + n * T::Floats::LANES)));
                    }
                }
            }
        }
        sums
    }
}

/// Sums of a block, whose pairs and words are gone through.
///
/// # Safety
/// As `tile`.
#[inline(always)]
unsafe fn products<T: Integers, const M: usize, const P: usize, const N: usize>(
    job: &Job,
    codes: &Codes,
    rows: &mut [*const f32; M],
    steps: usize,
    words: &mut *const f32,
) -> Sums<T::Words, M, P, N> {
    // SAFETY: the caller's promise is that of these reads and calls.
    unsafe {
        let (table, pairs) = (T::table(codes.table), (HALF_BITS / codes.bits) as usize);
        let (mut sums, mut aside) = ([[[T::zero(); N]; M]; P], [T::zero(); M]);
        for _ in 0..steps {
            let mut several = [[T::zero(); N]; P];
            for (p, several) in several.iter_mut().enumerate() {
                for (n, word) in several.iter_mut().enumerate() {
                    *word = T::words(words.add(p * job.weights_pitch + n * T::Floats::LANES));
                }
            }
            *words = words.add(N * T::Floats::LANES);
            for pair in 0..pairs {
                for m in 0..M {
                    aside[m] = T::aside(table, T::pair(rows[m].add(pair)), aside[m]);
                }
                for p in 0..P {
                    let mut numbers = [T::zero(); N];
                    for n in 0..N {
                        numbers[n] = T::look_up(table, several[p][n]);
                        several[p][n] = T::without(several[p][n], codes.bits);
                    }
                    for m in 0..M {
                        let x = T::pair(rows[m].add(pair));
                        for n in 0..N {
                            sums[p][m][n] = T::add(x, numbers[n], sums[p][m][n]);
                        }
                    }
                }
            }
            for row in rows.iter_mut() {
                *row = row.add(pairs);
            }
        }
        for sums in &mut sums {
            for (sums, &aside) in sums.iter_mut().zip(&aside) {
                for sum in sums {
                    *sum = T::settled(table, *sum, aside);
                }
            }
        }
        sums
    }
}

/// Blocks of so many floats become blocks of a row, the last filled with zeros up to a whole number of `step`s. What is not
/// finite makes all of its block none.
#[inline(always)]
pub(super) fn round(from: &[f32], mut to: &mut [f32], block: usize, step: usize) {
    for from in from.chunks(block) {
        let greatest = from.iter().fold(0, |greatest, x| greatest.max(x.to_bits() & MAGNITUDE));
        let (greatest, is_finite) = (f32::from_bits(greatest), greatest < INFINITE);
        // Below this the integers' unit would be no normal float.
        let is_zero = greatest < f32::MIN_POSITIVE * GREATEST;
        let factor = if is_zero || !is_finite { 0.0 } else { GREATEST / greatest };
        let (pairs, rest) = take(&mut to).split_at_mut(from.len().next_multiple_of(step) / 2);
        let integers: &mut [[u16; 2]] = bytemuck::cast_slice_mut(pairs);
        let integers = integers.as_flattened_mut();
        // The lowest bits of such a float are an integer, the nearest (the even one of two).
        #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are asked for")]
        let lower = |x: f32| (x * factor + INTEGERS).to_bits() as u16;
        let (taken, filled) = integers.split_at_mut(from.len());
        let mut sum = 0;
        for (to, &x) in taken.iter_mut().zip(from) {
            *to = lower(x);
            sum += i32::from(to.cast_signed());
        }
        filled.fill(0);
        let (ends, rest) = rest.split_at_mut(2);
        let unit = if is_zero { 0.0 } else { greatest / GREATEST };
        (ends[0], ends[1]) = if is_finite { (unit, sum as f32 * unit) } else { (f32::NAN, f32::NAN) };
        to = rest;
    }
}

/// Runs one that rounds.
pub(super) fn call_round(round: Round, from: &[f32], to: &mut [f32], [block, step]: [usize; 2]) {
    // SAFETY: it is only found in the table of a level, which proves its instructions.
    unsafe { round(from, to, block, step) }
}

/// Of a half of a word.
pub(super) const HALF_BITS: u32 = 16;

/// What the greatest magnitude of a block becomes.
const GREATEST: f32 = 32767.0;

/// Of a float all but its sign, and that of infinity.
const MAGNITUDE: u32 = 0x7fff_ffff;
const INFINITE: u32 = 0x7f80_0000;

/// 2^23 + 2^22: the last digit of floats of this size is that before the point.
const INTEGERS: f32 = 12_582_912.0;
