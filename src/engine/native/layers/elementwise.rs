//! Functions of single elements, of one operand or of two that are broadcast.

use bytemuck::Pod;
use half::f16;
use kinglet_kernels::f32_functions::{Function, Operands};
use kinglet_kernels::{Activation, Grid, Level};

use super::movement::{broadcast_strides, joined};
use super::types::numbers;
use super::{Io, Layer, unary};
use crate::engine::graph::op::Compare;
use crate::engine::pool::Team;
use crate::tensor::{DType, PerAxis};

#[derive(Debug)]
pub(super) struct Activate {
    pub(super) activation: Activation,
    pub(super) level: Level,
}

impl Layer for Activate {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let activation = self.activation;
        if let (Activation::Function(function), DType::F32) = (activation, io.output.fact.dtype) {
            let x = io.operands[0];
            let grid = Function::grid(io.output.elements());
            return team.share(&|| function.run(self.level, x.elements(), &grid));
        }
        if io.output.fact.dtype == DType::F64 {
            return map(io, |x: f64| unary::apply(activation, x));
        }
        // Each call has its function compiled into it.
        match activation {
            Activation::Clip { low, high } => map(io, |x| Activation::Clip { low, high }.apply(x)),
            Activation::HardSwish => map(io, |x| Activation::HardSwish.apply(x)),
            Activation::HardSigmoid { alpha, beta } => map(io, |x| Activation::HardSigmoid { alpha, beta }.apply(x)),
            _ => map(io, |x: f32| activation.apply(x)),
        }
    }

    fn kernel(&self, _made: DType) -> String {
        match self.activation {
            Activation::Function(_) => format!("f32_functions__{}", self.level),
            _ => "plain".into(),
        }
    }
}

/// A scale and a shift for each place along an axis.
#[derive(Debug)]
pub(super) struct Affine(pub(super) usize);

impl Layer for Affine {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let [x, scale, shift] = [io.operands[0], io.operands[1], io.operands[2]];
        let (extent, inner) = (x.shape()[self.0], x.shape()[self.0 + 1..].iter().product::<usize>());
        let (scale, shift): (&[f32], &[f32]) = (scale.elements(), shift.elements());
        let from: &[f32] = bytemuck::cast_slice(x.bytes);
        if inner == 1 {
            let rows =
                from.chunks_exact(extent.max(1)).zip(io.output.elements::<f32>().chunks_exact_mut(extent.max(1)));
            for (from, to) in rows {
                let factors = scale.iter().zip(shift);
                to.iter_mut().zip(from).zip(factors).for_each(|((to, x), (scale, shift))| *to = x * scale + shift);
            }
            return;
        }
        let blocks = from.chunks_exact(inner.max(1)).zip(io.output.elements::<f32>().chunks_exact_mut(inner.max(1)));
        for (at, (from, to)) in blocks.enumerate() {
            let (scale, shift) = (scale[at % extent], shift[at % extent]);
            to.iter_mut().zip(from).for_each(|(to, x)| *to = x * scale + shift);
        }
    }
}

/// Two operands compared.
#[derive(Debug)]
pub(super) struct Test(pub(super) Compare);

impl Layer for Test {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        numbers!(io.operands[0].fact.dtype, T => test::<T>(io, team, self.0));
    }
}

fn test<T: Pod + PartialOrd + Default + Sync>(io: &mut Io<'_>, team: &mut Team, compare: Compare) {
    let zero = T::default();
    let f: fn(&T, &T, &T) -> bool = match compare {
        Compare::Equal => |a, b, _| a == b,
        Compare::Less => |a, b, _| a < b,
        Compare::LessOrEqual => |a, b, _| a <= b,
        Compare::Greater => |a, b, _| a > b,
        Compare::GreaterOrEqual => |a, b, _| a >= b,
        Compare::And => |a, b, zero| a != zero && b != zero,
        Compare::Or => |a, b, zero| a != zero || b != zero,
    };
    combine(io, team, |a: T, b: T| u8::from(f(&a, &b, &zero)));
}

/// Element types changed, as C does: towards zero, and saturating where C has no answer.
#[derive(Debug)]
pub(super) struct Convert;

impl Layer for Convert {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        match io.operands[0].fact.dtype {
            DType::F32 => convert(io, |x: f32| Number::Float(x.into())),
            DType::F64 => convert(io, |x: f64| Number::Float(x)),
            DType::F16 => convert(io, |x: u16| Number::Float(f16::from_bits(x).to_f64())),
            DType::I32 => convert(io, |x: i32| Number::Integer(x.into())),
            DType::Bool => convert(io, |x: u8| Number::Integer((x != 0).into())),
            DType::U8 => convert(io, |x: u8| Number::Integer(x.into())),
            DType::I8 => convert(io, |x: i8| Number::Integer(x.into())),
            DType::I16 => convert(io, |x: i16| Number::Integer(x.into())),
            DType::U16 => convert(io, |x: u16| Number::Integer(x.into())),
            DType::U32 => convert(io, |x: u32| Number::Integer(x.into())),
            DType::U64 => convert(io, |x: u64| Number::Natural(x)),
            _ => convert(io, |x: i64| Number::Integer(x)),
        }
    }
}

/// An element between two types.
enum Number {
    Float(f64),
    Integer(i64),
    Natural(u64),
}

impl Number {
    fn float(self) -> f64 {
        match self {
            Self::Float(x) => x,
            Self::Integer(x) => x as f64,
            Self::Natural(x) => x as f64,
        }
    }
}

/// The conversions that `as` is for.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the purpose")]
#[expect(trivial_numeric_casts, reason = "one arm of the macro for each type")]
fn convert<T: Pod>(io: &mut Io<'_>, widen: impl Fn(T) -> Number) {
    let from: &[T] = bytemuck::cast_slice(io.operands[0].bytes);
    macro_rules! into {
        ($to:ty) => {
            for (to, &from) in bytemuck::cast_slice_mut::<u8, $to>(io.output.bytes).iter_mut().zip(from) {
                *to = match widen(from) {
                    Number::Float(x) => x as $to,
                    Number::Integer(x) => x as $to,
                    Number::Natural(x) => x as $to,
                };
            }
        };
    }
    match io.output.fact.dtype {
        DType::F32 => into!(f32),
        DType::F64 => into!(f64),
        DType::I32 => into!(i32),
        DType::I64 => into!(i64),
        DType::U8 => into!(u8),
        DType::I8 => into!(i8),
        DType::I16 => into!(i16),
        DType::U16 => into!(u16),
        DType::U32 => into!(u32),
        DType::U64 => into!(u64),
        DType::F16 => {
            let bits = |x: T| f16::from_f64(widen(x).float()).to_bits();
            io.output.elements::<u16>().iter_mut().zip(from).for_each(|(to, &from)| *to = bits(from));
        }
        _ => {
            for (to, &from) in io.output.bytes.iter_mut().zip(from) {
                *to = match widen(from) {
                    Number::Float(x) => (x != 0.0).into(),
                    Number::Integer(x) => (x != 0).into(),
                    Number::Natural(x) => (x != 0).into(),
                };
            }
        }
    }
}

/// An activation of elements where they are.
pub(super) fn activate(elements: &mut [f32], activation: Activation) {
    match activation {
        Activation::None => {}
        Activation::Clip { low, high } => {
            elements.iter_mut().for_each(|x| *x = Activation::Clip { low, high }.apply(*x));
        }
        _ => elements.iter_mut().for_each(|x| *x = activation.apply(*x)),
    }
}

pub(super) fn map<T: Pod>(io: &mut Io<'_>, f: impl Fn(T) -> T) {
    let from: &[T] = bytemuck::cast_slice(io.operands[0].bytes);
    for (to, &from) in io.output.elements::<T>().iter_mut().zip(from) {
        *to = f(from);
    }
}

/// Two operands made one.
pub(super) trait Combining<T, U>: Copy + Sync {
    fn combine(self, operands: Operands<'_, T>, to: &mut [U]);
}

impl<T: Copy, U, F: Fn(T, T) -> U + Copy + Sync> Combining<T, U> for F {
    fn combine(self, operands: Operands<'_, T>, to: &mut [U]) {
        match operands {
            Operands::Each([a, b]) => to.iter_mut().zip(a).zip(b).for_each(|((to, &a), &b)| *to = self(a, b)),
            Operands::WithOne(a, b) => to.iter_mut().zip(a).for_each(|(to, &a)| *to = self(a, b)),
            Operands::OneWith(a, b) => to.iter_mut().zip(b).for_each(|(to, &b)| *to = self(a, b)),
            Operands::WithRow(each, row) => by_row(row, each, to, |row, each| self(each, row)),
            Operands::RowWith(row, each) => by_row(row, each, to, self),
        }
    }
}

/// A row combined with each of many.
fn by_row<T: Copy, U>(row: &[T], each: &[T], to: &mut [U], f: impl Fn(T, T) -> U) {
    for (to, each) in to.chunks_exact_mut(row.len()).zip(each.chunks_exact(row.len())) {
        to.iter_mut().zip(row).zip(each).for_each(|((to, &row), &each)| *to = f(row, each));
    }
}

/// Two operands, broadcast.
pub(super) fn combine<T, U>(io: &mut Io<'_>, team: &mut Team, f: impl Combining<T, U>)
where
    T: Pod + Sync,
    U: Pod + Send,
{
    let [a, b] = [io.operands[0], io.operands[1]];
    let shape = &io.output.fact.shape;
    let strides = [a, b].map(|operand| broadcast_strides(operand.shape(), shape));
    let axes = joined(shape, [&strides[0], &strides[1]]);
    let to: &mut [U] = bytemuck::cast_slice_mut(io.output.bytes);
    let (a, b) = (a.elements::<T>(), b.elements::<T>());
    let Some(((outer, strides), inner)) = axes.split_first().filter(|_| to.len() >= SHARED_ELEMENTS_MIN) else {
        return pairs(a, b, &axes, to, f);
    };
    // Places along the outermost axis, as many as make a tile worth taking.
    let (each, strides) = (to.len() / outer, strides.map(isize::unsigned_abs));
    let grid = Grid::new(to, each, [*outer, each], [TILE_ELEMENTS.div_ceil(each), each]);
    team.share(&|| {
        while let Some(mut tile) = grid.take() {
            let ([first, _], [places, _]) = (tile.first(), tile.size());
            let mut axes: PerAxis<_> = std::iter::once((places, strides.map(usize::cast_signed))).collect();
            axes.extend_from_slice(inner);
            pairs(&a[first * strides[0]..], &b[first * strides[1]..], &axes, tile.whole(), f);
        }
    });
}

/// Combines elements, `axes` being extents and strides of both operands from the outermost on.
fn pairs<T: Pod, U: Pod>(a: &[T], b: &[T], axes: &[(usize, [isize; 2])], to: &mut [U], f: impl Combining<T, U>) {
    let count = to.len();
    match *axes {
        _ if to.is_empty() => {}
        [] | [(_, [1, 1])] => f.combine(Operands::Each([&a[..count], &b[..count]]), to),
        [(_, [1, 0])] => f.combine(Operands::WithOne(&a[..count], b[0]), to),
        [(_, [0, 1])] => f.combine(Operands::OneWith(a[0], &b[..count]), to),
        [(_, [each, 0]), (width, [1, 1])] if each.unsigned_abs() == width => {
            f.combine(Operands::WithRow(&a[..count], &b[..width]), to);
        }
        [(_, [0, each]), (width, [1, 1])] if each.unsigned_abs() == width => {
            f.combine(Operands::RowWith(&a[..width], &b[..count]), to);
        }
        [(extent, [a_stride, b_stride]), ref inner @ ..] => {
            let length = to.len() / extent;
            let (a_stride, b_stride) = (a_stride.unsigned_abs(), b_stride.unsigned_abs());
            for (at, to) in to.chunks_exact_mut(length).enumerate() {
                pairs(&a[at * a_stride..], &b[at * b_stride..], inner, to, f);
            }
        }
    }
}

/// Fewer are combined before another thread has heard of it.
const SHARED_ELEMENTS_MIN: usize = 32 << 10;

/// Elements that a thread combines before it takes more.
const TILE_ELEMENTS: usize = 8 << 10;
