//! Two operands combined, of every type of numbers.

use bytemuck::Pod;
use kinglet_kernels::Level;
use kinglet_kernels::f32_functions::{Arithmetic, Operands};

use super::elementwise::{Combining, combine};
use super::types::numbers;
use super::{Io, Layer};
use crate::engine::graph::op::Binary;
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) struct Combine {
    pub(super) binary: Binary,
    pub(super) level: Level,
}

impl Layer for Combine {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        if io.output.fact.dtype == DType::F32 {
            return combine_floats(io, team, self.binary, self.level);
        }
        numbers!(io.output.fact.dtype, T => combine(io, team, T::function(self.binary)));
    }

    fn kernel(&self, _made: DType) -> String {
        // Where elements are floats.
        if arithmetic(self.binary).is_some() { format!("f32_functions__{}", self.level) } else { "plain".into() }
    }
}

/// An element that is computed with.
pub(super) trait Number: Pod + PartialOrd + Send + Sync {
    const ONE: Self;
    /// What no element is less than, and none greater.
    const BOUNDS: [Self; 2];

    fn function(binary: Binary) -> fn(Self, Self) -> Self;

    /// The number of some elements.
    fn of_count(count: usize) -> Self;
}

macro_rules! floats {
    ($($type:ident)*) => { $(
        impl Number for $type {
            const ONE: Self = 1.0;
            const BOUNDS: [Self; 2] = [Self::NEG_INFINITY, Self::INFINITY];

            fn of_count(count: usize) -> Self {
                count as Self
            }

            #[inline(always)]
            fn function(binary: Binary) -> fn(Self, Self) -> Self {
                match binary {
                    Binary::Add => |a, b| a + b,
                    Binary::Sub => |a, b| a - b,
                    Binary::Mul => |a, b| a * b,
                    Binary::Div => |a, b| a / b,
                    Binary::Pow => $type::powf,
                    Binary::Min => |a, b| if a < b || a.is_nan() { a } else { b },
                    Binary::Max => |a, b| if a > b || a.is_nan() { a } else { b },
                    Binary::Modulo => |a, b| {
                        let rest = a % b;
                        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
                    },
                    Binary::Remainder => |a, b| a % b,
                    // Inference knows none of floats.
                    Binary::BitAnd | Binary::BitOr | Binary::BitXor | Binary::ShiftLeft | Binary::ShiftRight => |a, _| a,
                }
            }
        }
    )* };
}

/// What has no answer is zero; what does not fit wraps.
macro_rules! integers {
    ($($type:ident)*) => { $(
        impl Number for $type {
            const ONE: Self = 1;
            const BOUNDS: [Self; 2] = [Self::MIN, Self::MAX];

            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "wraps as products do")]
            fn of_count(count: usize) -> Self {
                count as Self
            }

            #[allow(unused_comparisons, reason = "types with a sign are among them")]
            #[inline(always)]
            fn function(binary: Binary) -> fn(Self, Self) -> Self {
                match binary {
                    Binary::Add => Self::wrapping_add,
                    Binary::Sub => Self::wrapping_sub,
                    Binary::Mul => Self::wrapping_mul,
                    Binary::Div => |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
                    Binary::Pow => |a, b| count(b.into()).map_or(0, |b| a.wrapping_pow(b)),
                    Binary::Min => Ord::min,
                    Binary::Max => Ord::max,
                    Binary::Modulo => |a, b| {
                        let rest = if b == 0 { 0 } else { a.wrapping_rem(b) };
                        if rest != 0 && (rest < 0) != (b < 0) { rest.wrapping_add(b) } else { rest }
                    },
                    Binary::Remainder => |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) },
                    Binary::BitAnd => |a, b| a & b,
                    Binary::BitOr => |a, b| a | b,
                    Binary::BitXor => |a, b| a ^ b,
                    Binary::ShiftLeft => |a, b| count(b.into()).and_then(|b| a.checked_shl(b)).unwrap_or(0),
                    Binary::ShiftRight => |a, b| count(b.into()).and_then(|b| a.checked_shr(b)).unwrap_or(0),
                }
            }
        }
    )* };
}

fn count(number: i128) -> Option<u32> {
    u32::try_from(number).ok()
}

floats!(f32 f64);
integers!(i8 i16 i32 i64 u8 u16 u32 u64);

/// What there are kernels for.
fn arithmetic(binary: Binary) -> Option<Arithmetic> {
    match binary {
        Binary::Add => Some(Arithmetic::Add),
        Binary::Sub => Some(Arithmetic::Sub),
        Binary::Mul => Some(Arithmetic::Mul),
        Binary::Div => Some(Arithmetic::Div),
        _ => None,
    }
}

/// Floats by a kernel.
#[derive(Clone, Copy)]
struct ByKernel(Arithmetic, Level);

impl Combining<f32, f32> for ByKernel {
    fn combine(self, operands: Operands<'_, f32>, to: &mut [f32]) {
        self.0.run(self.1, operands, to);
    }
}

/// A loop for each function that has no kernel: the compiler makes vectors of those it sees.
fn combine_floats(io: &mut Io<'_>, team: &mut Team, binary: Binary, level: Level) {
    if let Some(arithmetic) = arithmetic(binary) {
        return combine(io, team, ByKernel(arithmetic, level));
    }
    match binary {
        Binary::Min => combine(io, team, |a: f32, b: f32| if a < b || a.is_nan() { a } else { b }),
        Binary::Max => combine(io, team, |a: f32, b: f32| if a > b || a.is_nan() { a } else { b }),
        // By far the most powers are squares.
        Binary::Pow if io.operands[1].elements::<f32>() == [2.0] => combine(io, team, |a: f32, _| a * a),
        other => combine(io, team, f32::function(other)),
    }
}
