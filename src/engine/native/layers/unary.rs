//! Functions of single elements of every type that they have a meaning for.

use kinglet_kernels::Activation;
use kinglet_kernels::f32_functions::Function;

use super::elementwise::map;
use super::{Io, Layer};
use crate::engine::graph::op::Unary;
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) struct Map(pub(super) Unary);

impl Layer for Map {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        match io.output.fact.dtype {
            DType::F64 => of_doubles(io, self.0),
            DType::I8 => signed::of_i8(io, self.0),
            DType::I16 => signed::of_i16(io, self.0),
            DType::I32 => signed::of_i32(io, self.0),
            DType::I64 => signed::of_i64(io, self.0),
            DType::U8 => unsigned::of_u8(io, self.0),
            DType::U16 => unsigned::of_u16(io, self.0),
            DType::U32 => unsigned::of_u32(io, self.0),
            DType::U64 => unsigned::of_u64(io, self.0),
            _ => of_floats(io, self.0),
        }
    }
}

macro_rules! floats {
    ($($name:ident $type:ident),*) => { $(
        fn $name(io: &mut Io<'_>, unary: Unary) {
            match unary {
                Unary::Neg => map(io, |x: $type| -x),
                Unary::Abs => map(io, $type::abs),
                Unary::Log => map(io, $type::ln),
                Unary::Sqrt => map(io, $type::sqrt),
                Unary::Reciprocal => map(io, $type::recip),
                Unary::Floor => map(io, $type::floor),
                Unary::Ceil => map(io, $type::ceil),
                Unary::Softplus => map(io, |x: $type| if x > 20.0 { x } else { x.exp().ln_1p() }),
                Unary::Sign => map(io, |x: $type| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
                Unary::Round => map(io, $type::round_ties_even),
                Unary::Sin => map(io, $type::sin),
                Unary::Cos => map(io, $type::cos),
                Unary::Tan => map(io, $type::tan),
                Unary::Asin => map(io, $type::asin),
                Unary::Acos => map(io, $type::acos),
                Unary::Atan => map(io, $type::atan),
                Unary::Sinh => map(io, $type::sinh),
                Unary::Cosh => map(io, $type::cosh),
                Unary::Asinh => map(io, $type::asinh),
                Unary::Acosh => map(io, $type::acosh),
                Unary::Atanh => map(io, $type::atanh),
                // Inference knows none of floats.
                Unary::BitNot => map(io, |x: $type| x),
            }
        }
    )* };
}

floats!(of_floats f32, of_doubles f64);

/// Of integers inference knows but those that are named; what does not fit wraps.
mod signed {
    use super::{Io, Unary, map};

    macro_rules! integers {
        ($($name:ident $type:ident),*) => { $(
            pub(super) fn $name(io: &mut Io<'_>, unary: Unary) {
                match unary {
                    Unary::Neg => map(io, $type::wrapping_neg),
                    Unary::Abs => map(io, $type::wrapping_abs),
                    Unary::Sign => map(io, $type::signum),
                    Unary::BitNot => map(io, |x: $type| !x),
                    _ => map(io, |x: $type| x),
                }
            }
        )* };
    }

    integers!(of_i8 i8, of_i16 i16, of_i32 i32, of_i64 i64);
}

mod unsigned {
    use super::{Io, Unary, map};

    macro_rules! integers {
        ($($name:ident $type:ident),*) => { $(
            pub(super) fn $name(io: &mut Io<'_>, unary: Unary) {
                match unary {
                    Unary::Sign => map(io, |x: $type| x.min(1)),
                    Unary::BitNot => map(io, |x: $type| !x),
                    _ => map(io, |x: $type| x),
                }
            }
        )* };
    }

    integers!(of_u8 u8, of_u16 u16, of_u32 u32, of_u64 u64);
}

/// An activation of doubles. Inference knows none with an error function.
pub(super) fn apply(activation: Activation, x: f64) -> f64 {
    let hard = |alpha: f64, beta: f64| (alpha * x + beta).clamp(0.0, 1.0);
    match activation {
        // NaN stays NaN.
        Activation::Clip { low, .. } if x < f64::from(low) => f64::from(low).min(high(activation)),
        Activation::Clip { .. } if x > high(activation) => high(activation),
        Activation::LeakyRelu { slope } if x < 0.0 => x * f64::from(slope),
        Activation::HardSigmoid { alpha, beta } => hard(alpha.into(), beta.into()),
        Activation::HardSwish => x * hard(1.0 / 6.0, 0.5),
        Activation::Function(Function::Exp) => x.exp(),
        Activation::Function(Function::Tanh) => x.tanh(),
        Activation::Function(Function::Sigmoid) => 1.0 / (1.0 + (-x).exp()),
        Activation::Function(Function::Silu) => x / (1.0 + (-x).exp()),
        Activation::Function(Function::GeluTanh) => {
            let inner = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
            0.5 * x * (1.0 + (inner * (x + 0.044_715 * x * x * x)).tanh())
        }
        _ => x,
    }
}

fn high(activation: Activation) -> f64 {
    if let Activation::Clip { high, .. } = activation { high.into() } else { f64::INFINITY }
}
