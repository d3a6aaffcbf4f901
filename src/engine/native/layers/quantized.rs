//! Quantized operators: bytes times bytes, sums of bytes, and the ways from floats and back.

use bytemuck::Pod;
use kinglet_kernels::u8_functions::{self, Scale, Sum};
use kinglet_kernels::u8s8_depthwise::{ByteDepthwise, ByteFilters};
use kinglet_kernels::u8s8_gemm::{Finish, Requantize, Residual, Weights, Written};
use kinglet_kernels::{Fill, Level, Window};

use super::super::tuning::Probe;
use super::bytes::{Bytes, OneRow};
use super::conv::{probe, window};
use super::linear::rows;
use super::merged::{merged, merges, widen};
use super::{AllLines, ByLines, Io, Layer, LowerError, Lowered, Lowering, View, constant, with_residual};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::{Quantized, QuantizedConv, Spatial};
use crate::engine::graph::{Fact, Graph, Node, integers, taps_first};
use crate::engine::pool::Team;
use crate::tensor::{DType, Shape};

/// What a product of bytes is packed from, besides its geometry.
struct Constants {
    weights: Vec<i8>,
    shape: Shape,
    scale: Vec<f32>,
    bias: Vec<i32>,
}

impl Constants {
    /// Operands 1 to 3 of a node.
    fn of(graph: &Graph, node: &Node) -> Result<Self, LowerError> {
        let tensor = |at: usize, what| {
            let tensor = node.inputs.get(at).and_then(|&input| graph.constant(input));
            tensor.ok_or(LowerError::Variable { what })
        };
        let (weights, bias) = (tensor(1, "the weights")?, tensor(3, "the bias")?);
        let numbers = integers(bias).ok_or(LowerError::Type(bias.dtype()))?;
        let bias = numbers.into_iter().map(|number| i32::try_from(number).unwrap_or(i32::MAX)).collect();
        if weights.dtype() != DType::I8 {
            return Err(LowerError::Type(weights.dtype()));
        }
        Ok(Self {
            weights: weights.bytes().iter().map(|byte| byte.cast_signed()).collect(),
            shape: weights.shape().clone(),
            scale: constant(graph, node, 2, "the scales")?.0.into_owned(),
            bias,
        })
    }

    fn fit(&self, elements: usize, columns: usize) -> bool {
        self.weights.len() == elements && self.scale.len() == columns && self.bias.len() == columns
    }
}

pub(super) fn lower_linear(
    product: Quantized,
    graph: &Graph,
    node: &Node,
    sample: Option<&Fact>,
    lowering: Lowering<'_>,
) -> Result<Lowered, LowerError> {
    let constants = Constants::of(graph, node)?;
    let &[depth, columns] = &constants.shape[..] else { return Err(LowerError::Weights(constants.shape)) };
    if !constants.fit(depth * columns, columns) {
        return Err(LowerError::Weights(constants.shape));
    }
    let weights = Weights { elements: &constants.weights, taps: 1, depth, columns };
    let then = Requantize { bias: &constants.bias, scale: &constants.scale, finish: product.finish, plus: None };
    let probe = sample.map(|sample| Probe::rows(rows(sample), depth, columns));
    let gemm = Bytes::pack(lowering, &weights, product.zero, &then, probe.as_ref());
    let row = OneRow::pack(lowering, &weights, product.zero, &then, &gemm);
    Ok(Lowered { layer: Box::new(Product { gemm, row, finish: product.finish }), operands: vec![node.inputs[0]] })
}

#[derive(Debug)]
struct Product {
    gemm: Bytes,
    row: Option<OneRow>,
    finish: Finish,
}

impl Product {
    fn run_as<T: Written>(&self, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let depth = x.shape().last().copied().unwrap_or(0);
        let rows = x.shape()[..x.shape().len().saturating_sub(1)].iter().product();
        let row = self.row.as_ref().filter(|_| rows == 1);
        if row.is_some_and(|row| row.run::<T>(x.bytes, io.scratch, io.output.elements(), team)) {
            return;
        }
        let grid = self.gemm.grid(io.output.elements::<T>(), self.gemm.columns(), rows, team.size());
        team.share(&|| self.gemm.run(x.bytes, &Window::rows(rows, depth), None, &grid));
    }
}

impl Layer for Product {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        match self.finish {
            Finish::Floats => self.run_as::<f32>(io, team),
            Finish::Bytes { .. } => self.run_as::<u8>(io, team),
        }
    }

    fn scratch(&self, _operands: &Facts<'_>, _threads: usize) -> usize {
        self.row.as_ref().map_or(0, OneRow::scratch)
    }

    fn bytes(&self) -> usize {
        self.gemm.bytes() + self.row.as_ref().map_or(0, OneRow::bytes)
    }

    fn fill(&self) -> Option<Fill> {
        self.gemm.fill()
    }

    fn kernel(&self, _made: DType) -> String {
        match &self.row {
            Some(row) => format!("{} and, for one row, {}", self.gemm.kernel(), row.kernel()),
            None => self.gemm.kernel(),
        }
    }
}

pub(super) fn lower_conv(
    conv: &QuantizedConv,
    graph: &Graph,
    node: &Node,
    sample: Option<&Fact>,
    lowering: Lowering<'_>,
) -> Result<Lowered, LowerError> {
    let constants = Constants::of(graph, node)?;
    let QuantizedConv { conv, product, plus } = conv;
    let &[out, depth, ..] = &constants.shape[..] else { return Err(LowerError::Weights(constants.shape)) };
    let spatial = conv.window.clone();
    let taps = spatial.kernel[0] * spatial.kernel[1];
    if !constants.fit(out * depth * taps, out) {
        return Err(LowerError::Weights(constants.shape));
    }
    if conv.is_depthwise(&constants.shape) {
        let filters = ByteFilters {
            weights: &taps_first(&constants.weights, [depth, taps], 0..out),
            kernel: spatial.kernel,
            across: [spatial.stride[1], spatial.dilation[1]],
            channels: out,
            bias: &constants.bias,
            scale: &constants.scale,
        };
        let packed = ByteDepthwise::pack(lowering.level, &filters, product.zero, product.finish);
        let layer = AllLines(Depthwise { spatial, packed });
        return Ok(Lowered { layer: Box::new(layer), operands: vec![node.inputs[0]] });
    }
    let is_merged = conv.groups == 1 && merges(&spatial, depth, MERGED_BYTES_MAX);
    let [taps_packed, depth_packed] =
        if is_merged { [spatial.kernel[0], spatial.kernel[1] * depth] } else { [taps, depth] };
    let columns = out / conv.groups;
    let probe = probe(&spatial, sample, conv.groups * depth, taps * depth * columns);
    let over = |window: &Window| if is_merged { merged(&spatial, window, depth).0 } else { *window };
    let probe = probe.map(|probe| probe.map(over));
    let group = |group: usize| {
        let range = group * columns..(group + 1) * columns;
        let elements = taps_first(&constants.weights, [depth, taps], range.clone());
        let weights = Weights { elements: &elements, taps: taps_packed, depth: depth_packed, columns };
        let (bias, scale) = (&constants.bias[range.clone()], &constants.scale[range]);
        let then = Requantize { bias, scale, finish: product.finish, plus: *plus };
        Bytes::pack(lowering, &weights, product.zero, &then, probe.as_ref())
    };
    let groups = (0..conv.groups).map(group).collect();
    let layer = AllLines(Convolution { spatial, is_merged, zero: product.zero, finish: product.finish, groups });
    Ok(Lowered { layer: Box::new(layer), operands: with_residual(node, conv.residual) })
}

/// Each channel by itself.
#[derive(Debug)]
struct Depthwise {
    spatial: Spatial,
    packed: ByteDepthwise,
}

impl ByLines for Depthwise {
    fn window(&self, x: &Fact) -> Option<Window> {
        window(&self.spatial, false, x)
    }

    fn run_over(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let channels = x.shape().last().copied().unwrap_or(0);
        let grid = self.packed.grid(&mut *io.output.bytes, channels, window);
        team.share(&|| self.packed.run(x.bytes, window, &grid));
    }

    fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    fn kernel(&self, _made: DType) -> String {
        self.packed.kernel()
    }
}

#[derive(Debug)]
struct Convolution {
    spatial: Spatial,
    /// Whether a line of the kernel is one tap, as in `conv`.
    is_merged: bool,
    zero: u8,
    finish: Finish,
    groups: Vec<Bytes>,
}

impl Convolution {
    fn run_as<T: Written>(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        let x = io.operands[0];
        let channels = x.shape().last().copied().unwrap_or(0);
        let mut window = *window;
        let mut image = x.bytes;
        if self.is_merged {
            let left = window.pad[1];
            let (merged, is_copied) = merged(&self.spatial, &window, channels);
            window = merged;
            if is_copied {
                let lines = &mut io.scratch[..window.images * window.pitch[0]];
                let places = [left * channels, window.pitch[1]];
                widen(x, self.spatial.axes, places, self.zero, lines, <[u8]>::copy_from_slice, team);
                image = io.scratch;
            }
        }
        let pitch = self.groups.iter().map(Bytes::columns).sum();
        let depth = channels / self.groups.len().max(1);
        let residual = io.operands.get(1).map(|other| other.bytes);
        let out = io.output.elements::<T>();
        for (at, gemm) in self.groups.iter().enumerate() {
            let image = image.get(at * depth..).unwrap_or_default();
            let first = at * gemm.columns();
            let out = out.get_mut(first..).unwrap_or_default();
            let grid = gemm.grid(out, pitch, window.pixels(), team.size());
            let residual = residual.map(|other| Residual { elements: other.get(first..).unwrap_or_default(), pitch });
            team.share(&|| gemm.run(image, &window, residual, &grid));
        }
    }
}

impl ByLines for Convolution {
    fn window(&self, x: &Fact) -> Option<Window> {
        window(&self.spatial, false, x)
    }

    fn run_over(&self, window: &Window, io: &mut Io<'_>, team: &mut Team) {
        match self.finish {
            Finish::Floats => self.run_as::<f32>(window, io, team),
            Finish::Bytes { .. } => self.run_as::<u8>(window, io, team),
        }
    }

    fn scratch_over(&self, window: &Window, x: &Fact, _threads: usize) -> usize {
        let (window, is_copied) = merged(&self.spatial, window, x.shape.last().copied().unwrap_or(0));
        // The kernel reads four bytes at a time.
        if self.is_merged && is_copied { window.images * window.pitch[0] + 3 } else { 0 }
    }

    fn bytes(&self) -> usize {
        self.groups.iter().map(Bytes::bytes).sum()
    }

    fn fill(&self) -> Option<Fill> {
        self.groups.iter().filter_map(Bytes::fill).reduce(Fill::with)
    }

    fn kernel(&self, _made: DType) -> String {
        self.groups.first().map(Bytes::kernel).unwrap_or_default()
    }
}

#[derive(Debug)]
pub(super) struct Add {
    pub(super) sum: Sum,
    pub(super) level: Level,
}

impl Layer for Add {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let from = [io.operands[0].bytes, io.operands[1].bytes];
        let grid = u8_functions::grid(&mut *io.output.bytes);
        team.share(&|| u8_functions::add(self.level, from, &self.sum, &grid));
    }

    fn kernel(&self, _made: DType) -> String {
        format!("u8_functions__{}", self.level)
    }
}

#[derive(Debug)]
pub(super) struct LookUp;

impl Layer for LookUp {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        // Inference has counted them.
        let Ok(table) = <&[u8; 256]>::try_from(io.operands[1].bytes) else { return };
        let from = io.operands[0].bytes;
        let grid = u8_functions::grid(&mut *io.output.bytes);
        team.share(&|| u8_functions::look_up(table, from, &grid));
    }
}

#[derive(Debug)]
pub(super) struct Quantize {
    pub(super) axis: isize,
    pub(super) level: Level,
}

impl Layer for Quantize {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let [x, scale, zero] = [io.operands[0], io.operands[1], io.operands[2]];
        match (single(scale, Some(zero)), io.output.fact.dtype) {
            (Some(to), DType::U8) => {
                let grid = u8_functions::grid(&mut *io.output.bytes);
                team.share(&|| u8_functions::quantize(self.level, x.elements(), to, &grid));
            }
            (_, DType::I8) => quantize::<i8>(self.axis, io, [i8::MIN.into(), i8::MAX.into()]),
            (_, DType::U16) => quantize::<u16>(self.axis, io, [0.0, u16::MAX.into()]),
            (_, DType::I16) => quantize::<i16>(self.axis, io, [i16::MIN.into(), i16::MAX.into()]),
            _ => quantize::<u8>(self.axis, io, [0.0, u8::MAX.into()]),
        }
    }

    fn kernel(&self, _made: DType) -> String {
        format!("u8_functions__{}", self.level)
    }
}

#[derive(Debug)]
pub(super) struct Dequantize {
    pub(super) axis: isize,
    pub(super) level: Level,
}

impl Layer for Dequantize {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let [x, scale] = [io.operands[0], io.operands[1]];
        match (single(scale, io.operands.get(2).copied()), x.fact.dtype) {
            (Some(of), DType::U8) => {
                let grid = u8_functions::grid(io.output.elements());
                team.share(&|| u8_functions::dequantize(self.level, x.bytes, of, &grid));
            }
            (_, DType::I8) => dequantize::<i8>(self.axis, io),
            (_, DType::I32) => dequantize::<i32>(self.axis, io),
            (_, DType::U16) => dequantize::<u16>(self.axis, io),
            (_, DType::I16) => dequantize::<i16>(self.axis, io),
            _ => dequantize::<u8>(self.axis, io),
        }
    }

    fn kernel(&self, _made: DType) -> String {
        format!("u8_functions__{}", self.level)
    }
}

/// One scale for all elements, and a zero point that is a byte.
fn single(scale: View<'_>, zero: Option<View<'_>>) -> Option<Scale> {
    let &[scale] = scale.elements::<f32>() else { return None };
    match zero.map(|zero| zero.bytes) {
        None => Some(Scale { scale, zero: 0 }),
        Some(&[zero]) => Some(Scale { scale, zero }),
        Some(_) => None,
    }
}

/// An integer that floats are made of, and made from.
trait Integer: Pod {
    fn to_i32(self) -> i32;
    /// From an integer in the type's range.
    fn from_f32(x: f32) -> Self;
}

macro_rules! integer {
    ($($type:ty)*) => { $(
        impl Integer for $type {
            #[allow(trivial_numeric_casts, clippy::cast_lossless, reason = "one for each type")]
            fn to_i32(self) -> i32 {
                self as i32
            }

            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in the type's range")]
            fn from_f32(x: f32) -> Self {
                x as Self
            }
        }
    )* };
}

integer!(u8 i8 u16 i16 i32);

/// For every element of the operand, where its scale and zero point stand.
fn places(axis: isize, x: View<'_>, scale: View<'_>) -> impl Fn(usize) -> usize + use<> {
    let count = scale.elements::<f32>().len().max(1);
    let axis = infer::axis(axis, x.shape()).ok().filter(|_| count > 1);
    let inner = axis.map_or(1, |axis| x.shape()[axis + 1..].iter().product::<usize>()).max(1);
    move |at| at / inner % count
}

fn quantize<T: Integer>(axis: isize, io: &mut Io<'_>, [low, high]: [f32; 2]) {
    let [x, scale, zero] = [io.operands[0], io.operands[1], io.operands[2]];
    let (scales, zeros, place) = (scale.elements::<f32>(), zero.elements::<T>(), places(axis, x, scale));
    for (at, (to, from)) in io.output.elements::<T>().iter_mut().zip(x.elements::<f32>()).enumerate() {
        let place = place(at);
        let shifted = (from / scales[place]).round_ties_even() + zeros[place].to_i32() as f32;
        *to = T::from_f32(shifted.max(low).min(high));
    }
}

fn dequantize<T: Integer>(axis: isize, io: &mut Io<'_>) {
    let [x, scale] = [io.operands[0], io.operands[1]];
    let zeros: &[T] = io.operands.get(2).map(View::elements).unwrap_or_default();
    let (scales, place) = (scale.elements::<f32>(), places(axis, x, scale));
    for (at, (to, from)) in io.output.elements::<f32>().iter_mut().zip(x.elements::<T>()).enumerate() {
        let place = place(at);
        let zero = zeros.get(place).map_or(0, |zero| zero.to_i32());
        *to = from.to_i32().wrapping_sub(zero) as f32 * scales[place];
    }
}

/// A tap of fewer bytes is over sooner than the next is found; copying an image is little beside its products.
const MERGED_BYTES_MAX: usize = 64;
