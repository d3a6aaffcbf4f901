//! Operators as they run: one file per family, each from the operator to bytes in the arena.

mod arithmetic;
mod arrangement;
mod attention;
mod bytes;
mod choice;
mod contraction;
mod conv;
mod conv_transpose;
mod dense;
mod dynamic;
mod elementwise;
mod fourier;
mod integer;
mod linear;
mod low_bit;
mod matmul;
mod merged;
mod movement;
mod normalize;
mod pad;
mod pool;
mod quantized;
mod recurrent;
mod reduce;
mod resize;
mod sampling;
mod selection;
mod softmax;
mod sparse;
mod trees;
mod types;
mod unary;
mod windows;

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytemuck::Pod;
use kinglet_kernels::{Aligned, Fill, Level, Window};

use super::tuning::{self, Tuning};
use crate::engine::Precision;
use crate::engine::graph::infer::{Facts, PerOperand};
use crate::engine::graph::{Fact, Graph, Node, Op, ValueId, floats, floats_in};
use crate::engine::pool::Team;
use crate::tensor::{DType, Shape, Tensor};

/// An operator with its weights packed, for any extents.
pub(super) trait Layer: Debug + Send + Sync {
    /// Computes the output from the operands; all have the extents that inference gave them, and contents that `check`
    /// lets pass.
    fn run(&self, io: &mut Io<'_>, team: &mut Team);

    /// Whether the operands contain what `run` can take. Asked before every run, also of contents that a request brings.
    fn check(&self, _operands: &[View<'_>]) -> Result<(), Unfit> {
        Ok(())
    }

    /// Bytes this layer needs besides its output, for these extents and at most so many threads.
    fn scratch(&self, _operands: &Facts<'_>, _threads: usize) -> usize {
        0
    }

    /// The layer as one that makes its output line by line, if it may make some lines without the others.
    fn by_lines(&self) -> Option<&dyn ByLines> {
        None
    }

    /// What may lie in memory as bf16, for operands of such extents. Asked only where the instruction set multiplies it.
    fn halves(&self, _operands: &Facts<'_>) -> Halves {
        Halves::NONE
    }

    /// Bytes of packed weights.
    fn bytes(&self) -> usize {
        0
    }

    /// What is left of weights that are multiplied without their zeros.
    fn fill(&self) -> Option<Fill> {
        None
    }

    /// What runs it, in the words of kernels, where the output lies in memory as this type.
    fn kernel(&self, _made: DType) -> String {
        "plain".into()
    }
}

/// Which operands and results of a layer may be bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Halves {
    pub(super) first: First,
    /// Operands behind the first that are as the output is; others are as they are declared.
    pub(super) alike: usize,
    pub(super) output: bool,
}

/// What the first operand may lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    Floats,
    Either,
    AsOutput,
}

impl Halves {
    pub(super) const NONE: Self = Self { first: First::Floats, alike: 0, output: false };
    /// The first operand is as the output.
    pub(super) const ALIKE: Self = Self { first: First::AsOutput, alike: 0, output: true };
}

/// A layer whose output is an image of which each line sees a few lines of the first operand. Other operands are seen
/// where the output is.
pub(super) trait ByLines: Debug + Send + Sync {
    /// How the output sees an image.
    fn window(&self, x: &Fact) -> Option<Window>;

    /// As [`Layer::scratch`], for what a window sees of an image.
    fn scratch_over(&self, _window: &Window, _x: &Fact, _threads: usize) -> usize {
        0
    }

    /// As [`Layer::run`], for what a window sees. Facts are those of whole images, bytes those of the window's lines.
    fn run_over(&self, window: &Window, io: &mut Io<'_>, team: &mut Team);

    /// As [`Layer::halves`].
    fn halves(&self, _x: &Fact) -> Halves {
        Halves::NONE
    }

    /// Whether some lines may be made without the others.
    fn comes_apart(&self) -> bool {
        true
    }

    /// As [`Layer::bytes`].
    fn bytes(&self) -> usize {
        0
    }

    /// As [`Layer::fill`].
    fn fill(&self) -> Option<Fill> {
        None
    }

    /// As [`Layer::kernel`].
    fn kernel(&self, made: DType) -> String;
}

/// A layer that goes by lines, over all of them.
#[derive(Debug)]
struct AllLines<T>(T);

impl<T: ByLines> Layer for AllLines<T> {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        if let Some(window) = self.0.window(io.operands[0].fact) {
            self.0.run_over(&window, io, team);
        }
    }

    fn scratch(&self, operands: &Facts<'_>, threads: usize) -> usize {
        self.0.window(operands[0]).map_or(0, |window| self.0.scratch_over(&window, operands[0], threads))
    }

    fn by_lines(&self) -> Option<&dyn ByLines> {
        self.0.comes_apart().then_some(&self.0)
    }

    fn halves(&self, operands: &Facts<'_>) -> Halves {
        self.0.halves(operands[0])
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn fill(&self) -> Option<Fill> {
        self.0.fill()
    }

    fn kernel(&self, made: DType) -> String {
        self.0.kernel(made)
    }
}

/// What a layer works on.
pub(super) struct Io<'a> {
    pub(super) operands: PerOperand<View<'a>>,
    pub(super) output: ViewMut<'a>,
    pub(super) scratch: &'a mut [u8],
}

#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) fact: &'a Fact,
    pub(super) bytes: &'a [u8],
}

pub(super) struct ViewMut<'a> {
    pub(super) fact: &'a Fact,
    pub(super) bytes: &'a mut [u8],
}

/// What layers are made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lowering<'a> {
    pub(super) level: Level,
    pub(super) precision: Precision,
    /// What chooses between kernels, where the layer is more than a constant.
    pub(super) tuning: Option<&'a Tuning>,
}

impl<'a> Lowering<'a> {
    /// Exact layers by the rules of thumb.
    fn plain(level: Level) -> Self {
        Self { level, precision: Precision::Exact, tuning: None }
    }

    /// Packs a product `[taps, depth, columns]` as the candidate that runs fastest over the window, where there is one to
    /// try. See [`Tuning::choose`].
    fn choose<K, R: FnMut(&K)>(
        self,
        operation: &str,
        size: [usize; 3],
        probe: Option<&Window>,
        candidates: &RangeInclusive<usize>,
        pack: &impl Fn(Option<usize>) -> Option<K>,
        prepare: impl FnOnce(&Window) -> R,
    ) -> Option<K> {
        let (tuning, probe) = self.tuning.zip(probe)?;
        tuning.choose(&tuning::product(operation, size, probe), candidates, pack, || prepare(probe))
    }
}

/// A layer and the operands that it takes at run time; others are packed.
pub(super) struct Lowered {
    pub(super) layer: Box<dyn Layer>,
    pub(super) operands: Vec<ValueId>,
}

/// What an operand contains that its operator cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("index {index} is outside an axis of {extent}")]
    Index { index: i64, extent: usize },
    #[error("{axis} is no axis of {shape}")]
    Axis { axis: i64, shape: Shape },
}

/// Why an operator cannot run natively.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LowerError {
    #[error("{what} must be constant")]
    Variable { what: &'static str },
    #[error("weights have shape {0}")]
    Weights(Shape),
    #[error("there is no kernel for {0}")]
    Type(DType),
}

impl Io<'_> {
    /// Runs a layer on this.
    pub(super) fn run(&mut self, layer: &dyn Layer, team: &mut Team) -> Result<(), Unfit> {
        layer.check(&self.operands)?;
        layer.run(self, team);
        Ok(())
    }
}

impl View<'_> {
    pub(super) fn elements<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(self.bytes)
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.fact.shape
    }
}

impl ViewMut<'_> {
    pub(super) fn elements<T: Pod>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.bytes)
    }
}

/// The layer of a node. `sample` is what its output may look like, where that does not depend on contents.
pub(super) fn lower(
    graph: &Graph,
    node: &Node,
    sample: Option<&Fact>,
    lowering: Lowering<'_>,
) -> Result<Lowered, LowerError> {
    let level = lowering.level;
    let all = |layer: Box<dyn Layer>| Ok(Lowered { layer, operands: node.inputs.clone() });
    let first = |layer: Box<dyn Layer>| Ok(Lowered { layer, operands: node.inputs[..1].to_vec() });
    match &node.op {
        Op::Conv(conv) => conv::lower(conv, graph, node, sample, lowering),
        Op::Linear(linear) => linear::lower(linear, graph, node, sample, lowering),
        Op::MatMul => all(Box::new(matmul::MatMul(level))),
        Op::Attention(attention) => all(Box::new(attention::Attend { attention: *attention, level })),
        Op::Normalize { epsilon } => all(Box::new(normalize::Normalize { epsilon: *epsilon, level })),
        Op::Pool(pool) => all(Box::new(AllLines(pool::Pooling::new(pool, level)))),
        Op::Windows(windows) => all(Box::new(windows::Windowed(windows.clone()))),
        Op::Affine { axis } => all(Box::new(elementwise::Affine(*axis))),
        Op::Activation(activation) => all(Box::new(elementwise::Activate { activation: *activation, level })),
        Op::Unary(unary) => all(Box::new(unary::Map(*unary))),
        Op::Binary(binary) => all(Box::new(arithmetic::Combine { binary: *binary, level })),
        Op::Compare(compare) => all(Box::new(elementwise::Test(*compare))),
        Op::Where => all(Box::new(choice::Choose)),
        Op::Not => all(Box::new(choice::Turn)),
        Op::Pad(kind) => all(Box::new(pad::Padding(*kind))),
        Op::ConvTranspose(conv) => conv_transpose::lower(conv, graph, node, level),
        Op::Resize(resize) => all(Box::new(resize::Resizing(*resize))),
        Op::Cast { .. } => all(Box::new(elementwise::Convert)),
        Op::Recurrent(op) => recurrent::lower(op, graph, node, level),
        Op::Reduce(reduce) => all(Box::new(reduce::Reduction::new(reduce, level))),
        Op::Softmax { axis, log } => all(Box::new(softmax::Softmax { axis: *axis, log: *log, level })),
        Op::Reshape { .. } | Op::Flatten { .. } | Op::Squeeze | Op::Unsqueeze => first(Box::new(movement::Copy)),
        Op::Transpose { axes } => all(Box::new(movement::Transpose { axes: axes.clone(), level })),
        Op::Concat { axis } => all(Box::new(movement::Concat(*axis))),
        Op::Gather { axis } => all(Box::new(movement::Gather(*axis))),
        Op::Slice => all(Box::new(movement::Slice)),
        Op::Expand => first(Box::new(movement::Expand)),
        Op::Fill { value } => all(Box::new(movement::Fill(value.clone()))),
        Op::Shape { .. } | Op::Size => all(Box::new(movement::Copy)),
        Op::Arg(arg) => all(Box::new(selection::Extreme(*arg))),
        Op::Top(top) => first(Box::new(selection::Order(*top))),
        Op::CumulativeSum { exclusive, reverse } => {
            all(Box::new(selection::RunningSum { exclusive: *exclusive, reverse: *reverse }))
        }
        Op::GatherElements { axis } => all(Box::new(selection::GatherElements(*axis))),
        Op::ScatterElements { axis, with } => all(Box::new(selection::ScatterElements { axis: *axis, with: *with })),
        Op::Sample(sampling) => all(Box::new(sampling::Sample(sampling.clone()))),
        Op::Contract(contraction) => all(Box::new(contraction::Contract(contraction.clone()))),
        Op::Fourier { inverse, onesided } => all(Box::new(fourier::Fourier { inverse: *inverse, onesided: *onesided })),
        Op::Arrange(arrangement) => all(Box::new(arrangement::Arrange(arrangement.clone()))),
        Op::Quantize { axis } => all(Box::new(quantized::Quantize { axis: *axis, level })),
        Op::Dequantize { axis } => all(Box::new(quantized::Dequantize { axis: *axis, level })),
        Op::QuantizedConv(conv) => quantized::lower_conv(conv, graph, node, sample, lowering),
        Op::QuantizedLinear(product) => quantized::lower_linear(*product, graph, node, sample, lowering),
        Op::QuantizedMatMul(product) => all(Box::new(matmul::QuantizedMatMul { product: *product, level })),
        Op::DynamicLinear { zero } => dynamic::lower(*zero, graph, node, level),
        Op::IntegerMatMul => all(Box::new(integer::IntegerMatMul(level))),
        Op::LookUp => all(Box::new(quantized::LookUp)),
        Op::Trees(trees) => all(Box::new(trees::Walk(Arc::clone(trees)))),
        Op::QuantizedAdd(sum) => all(Box::new(quantized::Add { sum: *sum, level })),
        Op::NonZero | Op::NonMaxSuppression { .. } | Op::Unique(_) | Op::Several(_) | Op::Part(_) => {
            all(Box::new(movement::Copy))
        }
    }
}

/// The elements and the shape of a constant operand of floats.
fn constant<'a>(
    graph: &'a Graph,
    node: &Node,
    at: usize,
    what: &'static str,
) -> Result<(Cow<'a, [f32]>, Shape), LowerError> {
    let input = node.inputs.get(at).copied().ok_or(LowerError::Variable { what })?;
    let Some(tensor) = graph.constant(input) else {
        let decoded = graph.coded(input).ok_or(LowerError::Variable { what })?.decoded();
        return Ok((Cow::Owned(floats(&decoded).unwrap_or_default()), decoded.shape().clone()));
    };
    Ok((floats_in(tensor).ok_or(LowerError::Type(tensor.dtype()))?, tensor.shape().clone()))
}

/// The first operand of a node, and the last where that is a residual.
fn with_residual(node: &Node, has_residual: bool) -> Vec<ValueId> {
    let residual = if has_residual { node.inputs.last().copied() } else { None };
    std::iter::once(node.inputs[0]).chain(residual).collect()
}

/// Runs a node on known operands.
pub(in crate::engine) fn evaluate(graph: &Graph, node: &Node, operands: &[&Tensor], level: Level) -> Option<Tensor> {
    let facts: Vec<Fact> = operands.iter().map(|tensor| Fact::of((*tensor).clone())).collect();
    let facts: Facts<'_> = facts.iter().collect();
    let fact = crate::engine::graph::infer::infer(&node.op, &facts).ok()?;
    if let Some(value) = fact.value {
        return Some(value);
    }
    let length = fact.bytes().filter(|bytes| *bytes <= EVALUATED_BYTES_MAX)?;
    let lowered = lower(graph, node, Some(&fact), Lowering::plain(level)).ok()?;
    let mut storage = Vec::new();
    let mut views = Vec::new();
    for operand in &lowered.operands {
        let at = node.inputs.iter().position(|input| input == operand)?;
        storage.push((at, Aligned::of(operands[at].bytes())));
    }
    for (at, aligned) in &storage {
        views.push(View { fact: facts[*at], bytes: &aligned.elements()[..operands[*at].bytes().len()] });
    }
    let mut output = Aligned::zeroed(length);
    let mut scratch = Aligned::zeroed(lowered.layer.scratch(&facts, 1));
    {
        let output = ViewMut { fact: &fact, bytes: &mut output.elements_mut()[..length] };
        let mut io = Io { operands: views.into_iter().collect(), output, scratch: scratch.elements_mut() };
        io.run(&*lowered.layer, &mut Team::alone()).ok()?;
    }
    let bytes = output.elements::<u8>()[..length].to_vec();
    Tensor::new(fact.dtype, fact.shape, bytes.into()).ok()
}

/// What constants may grow to when they are computed at load.
const EVALUATED_BYTES_MAX: usize = 256 << 20;
