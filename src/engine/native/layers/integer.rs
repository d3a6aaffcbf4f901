//! Products of two operands of bytes, signed or not, with zero points that are known when they meet: exact integers.
//!
//! The kernel gives sums as floats, which hold every integer up to 2^24: the depth is cut into pieces whose sums stay
//! below.

use kinglet_kernels::u8s8_gemm::{Finish, Matrix, Zeros};
use kinglet_kernels::{LINE, Level};

use super::matmul::{extents, meetings};
use super::{Io, Layer, View};
use crate::engine::graph::infer::Facts;
use crate::engine::pool::Team;
use crate::tensor::{DType, Shape};

#[derive(Debug)]
pub(super) struct IntegerMatMul(pub(super) Level);

/// Bytes of scratch for each purpose, one behind the other.
struct Rooms {
    left: usize,
    right: usize,
    packed: usize,
    sums: usize,
}

impl Rooms {
    fn of(level: Level, a: &Shape, b: &Shape) -> Self {
        let [rows, depth, columns] = extents(a, b);
        let room = |bytes: usize| bytes.next_multiple_of(LINE);
        Self {
            left: room(rows * depth),
            right: room(depth * columns),
            packed: room(Matrix::new(level, depth.min(DEPTH_MAX), columns).bytes()),
            sums: room(rows * columns * size_of::<f32>()),
        }
    }
}

impl Layer for IntegerMatMul {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let ([rows, depth, columns], pairs) = meetings(io);
        let [a, b, left_zero, right_zero] = [io.operands[0], io.operands[1], io.operands[2], io.operands[3]];
        let rooms = Rooms::of(self.0, a.shape(), b.shape());
        let (left, rest) = io.scratch.split_at_mut(rooms.left);
        let (right, rest) = rest.split_at_mut(rooms.right);
        let (packed, sums) = rest.split_at_mut(rooms.packed);
        let sums: &mut [f32] = &mut bytemuck::cast_slice_mut(&mut sums[..rooms.sums])[..rows * columns];
        let out: &mut [i32] = bytemuck::cast_slice_mut(io.output.bytes);
        for (out, [from_left, from_right]) in out.chunks_exact_mut((rows * columns).max(1)).zip(pairs) {
            let (left, right) = (&mut left[..rows * depth], &mut right[..depth * columns]);
            unsigned(a, from_left, left);
            unsigned(b, from_right, right);
            let summed = bytemuck::cast_slice_mut(&mut *sums);
            begin(out, (left, left_zero), (right, right_zero), [depth, columns], summed);
            for from in (0..depth).step_by(DEPTH_MAX) {
                let length = DEPTH_MAX.min(depth - from);
                let matrix = Matrix::new(self.0, length, columns);
                matrix.pack(&right[from * columns..][..length * columns], NONE, 1.0, packed);
                {
                    let grid = matrix.grid(sums, columns, rows);
                    let (left, packed) = (&left[from..], &*packed);
                    team.share(&|| matrix.run(left, depth, packed, NONE, Finish::Floats, &grid));
                }
                #[expect(clippy::cast_possible_truncation, reason = "sums are integers below 2^24")]
                out.iter_mut().zip(&*sums).for_each(|(out, &sum)| *out = out.wrapping_add(sum as i32));
            }
        }
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let Rooms { left, right, packed, sums } = Rooms::of(self.0, &operands[0].shape, &operands[1].shape);
        left + right + packed + sums
    }

    fn kernel(&self, _made: DType) -> String {
        Matrix::kernel(self.0)
    }
}

/// Bytes of a matrix, signed ones as much higher as makes them unsigned.
fn unsigned(of: View<'_>, from: usize, to: &mut [u8]) {
    to.copy_from_slice(&of.bytes[from..][..to.len()]);
    if of.fact.dtype == DType::I8 {
        to.iter_mut().for_each(|byte| *byte ^= 0x80);
    }
}

/// What zero points take off the sums of products: one for all, or for each row on the left and each column on the right.
fn begin(
    out: &mut [i32],
    (left, left_zero): (&[u8], View<'_>),
    (right, right_zero): (&[u8], View<'_>),
    [depth, columns]: [usize; 2],
    summed: &mut [i32],
) {
    let zero = |of: View<'_>, at: usize| {
        let byte = of.bytes[at.min(of.bytes.len() - 1)];
        i32::from(if of.fact.dtype == DType::I8 { byte ^ 0x80 } else { byte })
    };
    let whole = i32::try_from(depth).unwrap_or(i32::MAX);
    let columns_summed = &mut summed[..columns];
    columns_summed.fill(0);
    for right in right.chunks_exact(columns.max(1)) {
        columns_summed.iter_mut().zip(right).for_each(|(sum, &byte)| *sum += i32::from(byte));
    }
    out.fill(0);
    for (row, (out, left)) in out.chunks_exact_mut(columns.max(1)).zip(left.chunks_exact(depth.max(1))).enumerate() {
        let sum: i32 = left.iter().map(|&byte| i32::from(byte)).sum();
        let taken = zero(left_zero, row);
        let more = whole.wrapping_mul(taken).wrapping_sub(sum);
        for (column, (out, column_sum)) in out.iter_mut().zip(&*columns_summed).enumerate() {
            *out = more.wrapping_mul(zero(right_zero, column)).wrapping_sub(taken.wrapping_mul(*column_sum));
        }
    }
}

const NONE: Zeros = Zeros { left: 0, right: 0 };

/// The longest sums of products of two bytes that stay below 2^24.
const DEPTH_MAX: usize = (1 << 24) / (255 * 255);
