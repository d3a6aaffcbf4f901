//! One row of bytes without zeros of the weights, or of the row, against products with all, at every level this processor
//! has.

use std::fmt::Debug;

use kinglet_kernels::u8s8_gemm::{Finish, Gemm, Lines, Requantize, SparseRow, Weights, Written};
use kinglet_kernels::{LeftOut, Level, Window};

const BYTES: Finish = Finish::Bytes { zero: 3, low: 3, high: 250 };

/// Bytes of which so many in a thousand are not zero, in blocks of so many columns by so many rows.
fn made_up(depth: usize, columns: usize, kept: u64, [high, wide]: [usize; 2]) -> Vec<i8> {
    let across = columns.div_ceil(wide);
    let blocks: Vec<u64> = values(depth.div_ceil(high) * across, 3).collect();
    let is_kept = |at: usize| blocks[at / columns / high * across + at % columns / wide] % 1000 < kept;
    let byte = |(at, x): (usize, u64)| if is_kept(at) { x.to_le_bytes()[1].cast_signed() } else { 0 };
    values(depth * columns, 4).enumerate().map(byte).collect()
}

/// Made-up numbers, the same for the same seed.
fn values(count: usize, seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 32
    };
    (0..count).map(next)
}

/// A row of which so many in a thousand are not zero.
fn row(depth: usize, kept: u64) -> Vec<u8> {
    values(depth, 1).map(|x| if x % 1000 < kept { x.to_le_bytes()[2] } else { 0 }).collect()
}

/// The same bits as all products have, by every way that there is.
fn check<T: Written + PartialEq + Debug>(
    elements: &[i8],
    row: &[u8],
    columns: usize,
    finish: Finish,
    [fill, empty]: [T; 2],
) {
    let depth = row.len();
    let bias: Vec<i32> = (0..1000).step_by(7).cycle().take(columns).collect();
    let scale: Vec<f32> = (0..columns).map(|at| 1e-3 / (1 + at % 7) as f32).collect();
    let then = Requantize { bias: &bias, scale: &scale, finish, plus: None };
    let weights = Weights { elements, taps: 1, depth, columns };
    for level in Level::all() {
        let gemm = Gemm::pack(level, &weights, 5, &then, None);
        let mut expected = vec![empty; columns];
        gemm.run(row, &Window::rows(1, depth), None, &gemm.grid(&mut expected, columns, 1));
        let told = format!("{level} {depth}x{columns} {finish:?}");
        for left_out in [LeftOut::Blocks, LeftOut::Anywhere] {
            let Some(sparse) = SparseRow::pack(level, &weights, 5, &then, left_out) else { continue };
            let mut out = vec![fill; columns + 3];
            sparse.run(row, &sparse.grid(&mut out[..columns]));
            assert_eq!(out[..columns], expected, "{told} {left_out:?}");
            assert_eq!(out[columns..], [fill; 3], "{told} {left_out:?}");
        }
        let lines = Lines::pack(level, &weights, 5, &then);
        let (mut room, mut out) = (vec![0u32; lines.room_bytes().div_ceil(4)], vec![fill; columns + 3]);
        let nonzero = lines.any_nonzero(row, bytemuck::cast_slice_mut(&mut room));
        lines.run(&nonzero, &lines.grid(&mut out[..columns]));
        assert_eq!(out[..columns], expected, "{told} lines");
        assert_eq!(out[columns..], [fill; 3], "{told} lines");
    }
}

#[test]
fn every_tail_of_depth_and_columns() {
    for depth in [0, 1, 3, 4, 5, 63, 64, 65, 127, 128, 129, 260] {
        for columns in [1, 7, 8, 9, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 200] {
            for (kept, side) in [(0, [1, 1]), (100, [1, 1]), (1000, [1, 1]), (200, [4, 16])] {
                let elements = made_up(depth, columns, kept, side);
                check(&elements, &row(depth, 500), columns, BYTES, [7, 0]);
                check(&elements, &row(depth, 500), columns, Finish::Floats, [7.0, 0.0]);
            }
        }
    }
}

#[test]
fn rows_of_any_share_of_zeros() {
    let elements = made_up(300, 150, 300, [1, 1]);
    for kept in [0, 10, 300, 999, 1000] {
        check(&elements, &row(300, kept), 150, BYTES, [7, 0]);
    }
}

#[test]
fn scales_that_lead_beyond_integers() {
    let (elements, row) = (made_up(64, 70, 500, [1, 1]), row(64, 800));
    let (bias, scale) = (vec![1 << 20; 70], vec![1e6; 70]);
    let then = Requantize { bias: &bias, scale: &scale, finish: BYTES, plus: None };
    let weights = Weights { elements: &elements, taps: 1, depth: 64, columns: 70 };
    for level in Level::all() {
        let sparse = SparseRow::pack(level, &weights, 0, &then, LeftOut::Blocks).into_iter();
        for sparse in sparse.chain(SparseRow::pack(level, &weights, 0, &then, LeftOut::Anywhere)) {
            let mut out = [0u8; 70];
            sparse.run(&row, &sparse.grid(&mut out));
            assert!(out.iter().all(|byte| [3, 250].contains(byte)), "{level} {out:?}");
        }
    }
}

#[test]
fn what_is_read_falls_with_the_weights_that_are_left() {
    let level = Level::all().last().unwrap_or_else(|| Level::detect(kinglet_kernels::isa::Set::Portable));
    let then = Requantize { bias: &[0; 256], scale: &[1.0; 256], finish: BYTES, plus: None };
    let share = |kept, side, left_out| {
        let elements = made_up(512, 256, kept, side);
        let weights = Weights { elements: &elements, taps: 1, depth: 512, columns: 256 };
        SparseRow::pack(level, &weights, 0, &then, left_out).map(|sparse| sparse.share())
    };
    assert!(share(100, [4, 16], LeftOut::Blocks).is_some_and(|share| share < 0.2));
    assert!(share(100, [1, 1], LeftOut::Blocks).is_some_and(|share| share > 0.9));
    assert!(share(100, [1, 1], LeftOut::Anywhere).is_none_or(|share| share < 0.4));
}

#[test]
fn rows_with_few_zeros_are_told() {
    let then = Requantize { bias: &[0; 64], scale: &[1.0; 64], finish: BYTES, plus: None };
    let weights = Weights { elements: &[1; 64 * 64], taps: 1, depth: 64, columns: 64 };
    for level in Level::all() {
        let lines = Lines::pack(level, &weights, 0, &then);
        let mut room = vec![0u32; lines.room_bytes().div_ceil(4)];
        let mut is_taken = |kept| lines.nonzero(&row(64, kept), bytemuck::cast_slice_mut(&mut room)).is_some();
        assert!(is_taken(100) && !is_taken(1000), "{level}");
    }
}
