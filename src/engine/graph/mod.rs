//! The engine's own form of a model: a closed set of typed operators over named values, in the order they run.
//!
//! Shapes are not stored. They are inferred for concrete extents of the inputs ([`infer`]), when a model loads for a
//! few samples and when it runs for what a request brings, so that there is one inference and no symbolic algebra.

pub(super) mod coded;
pub(super) mod control;
pub(super) mod foreign;
pub(super) mod infer;
pub(super) mod op;
pub(super) mod rows;
pub(super) mod samples;
pub(super) mod trees;
mod tried;

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

pub(super) use coded::Coded;
pub(super) use infer::Fact;
pub(super) use op::Op;

use crate::tensor::{DType, PerAxis, Shape, Tensor};

/// A value of a graph, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ValueId(usize);

#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    values: Vec<Value>,
    /// Each behind those whose outputs it takes.
    pub(super) nodes: Vec<Node>,
    pub(super) inputs: Vec<ValueId>,
    pub(super) outputs: Vec<ValueId>,
}

#[derive(Clone, Debug)]
struct Value {
    name: String,
    constant: Option<Tensor>,
    /// A constant whose elements are few bits each.
    coded: Option<Coded>,
    /// What a constant was whose contents have been packed elsewhere.
    forgotten: Option<Fact>,
    /// Extents, by axis, without which a pass has made this graph wrong.
    assumed: Vec<(usize, usize)>,
    grain: Option<Grain>,
}

/// What the elements of a constant are integer multiples of, because they were integers in the file: one number for
/// each place along an axis, or one for all.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grain {
    pub(super) axis: usize,
    pub(super) scales: Vec<f32>,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    /// As a user knows it: the ONNX operator and the node's name.
    pub(super) name: String,
    pub(super) op: Op,
    pub(super) inputs: Vec<ValueId>,
    pub(super) output: ValueId,
}

impl Graph {
    /// A value that a node will make, or a graph input.
    pub(super) fn add_value(&mut self, name: impl Into<String>) -> ValueId {
        self.values.push(Value {
            name: name.into(),
            constant: None,
            coded: None,
            forgotten: None,
            assumed: Vec::new(),
            grain: None,
        });
        ValueId(self.values.len() - 1)
    }

    pub(super) fn add_constant(&mut self, name: impl Into<String>, tensor: Tensor) -> ValueId {
        let id = self.add_value(name);
        self.values[id.0].constant = Some(tensor);
        id
    }

    /// A constant of FP32, as codes.
    pub(super) fn add_coded(&mut self, name: impl Into<String>, coded: Coded) -> ValueId {
        let id = self.add_value(name);
        self.values[id.0].coded = Some(coded);
        id
    }

    pub(super) fn coded(&self, value: ValueId) -> Option<&Coded> {
        self.values[value.0].coded.as_ref()
    }

    /// Appends a node with one output.
    pub(super) fn add(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> ValueId {
        let output = self.add_value(name);
        self.nodes.push(Node { name: name.to_owned(), op, inputs: inputs.to_vec(), output });
        output
    }

    pub(super) fn constant(&self, value: ValueId) -> Option<&Tensor> {
        self.values[value.0].constant.as_ref()
    }

    /// The contents of a constant, which is one no longer.
    pub(super) fn take(&mut self, value: ValueId) -> Option<Tensor> {
        self.values[value.0].constant.take()
    }

    /// A constant that may have been quantized.
    pub(super) fn add_grained(&mut self, name: impl Into<String>, tensor: Tensor, grain: Option<Grain>) -> ValueId {
        let id = self.add_constant(name, tensor);
        self.values[id.0].grain = grain;
        id
    }

    pub(super) fn set_grain(&mut self, value: ValueId, grain: Option<Grain>) {
        self.values[value.0].grain = grain;
    }

    pub(super) fn grain(&self, value: ValueId) -> Option<&Grain> {
        self.values[value.0].grain.as_ref()
    }

    /// The node that makes a value, of those before another.
    pub(super) fn maker(&self, value: ValueId, before: usize) -> Option<usize> {
        self.nodes[..before].iter().rposition(|node| node.output == value)
    }

    /// The node that makes a value which nothing but the node at `taker` takes.
    pub(super) fn sole_maker(&self, value: ValueId, taker: usize) -> Option<usize> {
        let taken = self.nodes.iter().flat_map(|node| &node.inputs).chain(&self.outputs);
        let is_sole = taken.filter(|taken| **taken == value).take(2).count() == 1;
        if is_sole { self.maker(value, taker) } else { None }
    }

    /// The node that alone takes what the node at `maker` makes.
    pub(super) fn sole_taker(&self, maker: usize) -> Option<usize> {
        let made = self.nodes[maker].output;
        let taker = self.nodes.iter().position(|node| node.inputs.contains(&made))?;
        (self.sole_maker(made, taker) == Some(maker)).then_some(taker)
    }

    pub(super) fn name(&self, value: ValueId) -> &str {
        &self.values[value.0].name
    }

    pub(super) fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Has everything that takes a node's output take `new`, and leaves the node without operands, for
    /// [`Self::drop_dead`] to find.
    pub(super) fn retire(&mut self, at: usize, new: ValueId) {
        let old = self.nodes[at].output;
        self.nodes[at].inputs.clear();
        let taken = self.nodes.iter_mut().flat_map(|node| &mut node.inputs).chain(&mut self.outputs);
        taken.filter(|value| **value == old).for_each(|value| *value = new);
    }

    /// From now on a value has these extents where they are given; inference refuses others.
    pub(super) fn assume(&mut self, value: ValueId, extents: impl Iterator<Item = (usize, usize)>) {
        self.values[value.0].assumed.extend(extents);
    }

    /// Whether anything is assumed of a value's extents.
    pub(super) fn is_assumed(&self, value: ValueId) -> bool {
        !self.values[value.0].assumed.is_empty()
    }

    /// An axis whose extent is not the one that was assumed, and that one.
    pub(super) fn broken_assumption(&self, value: ValueId, shape: &Shape) -> Option<(usize, usize)> {
        self.values[value.0].assumed.iter().copied().find(|(axis, extent)| shape.get(*axis) != Some(extent))
    }

    /// Turns a value into a constant; the node that made it is dead then.
    pub(super) fn fix(&mut self, value: ValueId, tensor: Tensor) {
        self.values[value.0].constant = Some(tensor);
    }

    /// Drops the contents of a constant of more elements than this; its shape stays.
    pub(super) fn forget_contents(&mut self, value: ValueId, elements_max: usize) {
        let value = &mut self.values[value.0];
        if let Some(constant) = value.constant.take_if(|constant| constant.element_count() > elements_max) {
            value.forgotten = Some(Fact::new(constant.dtype(), constant.shape().clone()));
        }
        if let Some(coded) = value.coded.take() {
            value.forgotten = Some(Fact::new(DType::F32, coded.shape));
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.values.len()).map(ValueId)
    }

    /// Elements of a constant, whether it has its contents or not.
    pub(super) fn constant_elements(&self, value: ValueId) -> Option<usize> {
        let value = &self.values[value.0];
        let coded = || value.coded.as_ref().and_then(|coded| coded.shape.element_count());
        let forgotten = || value.forgotten.as_ref().and_then(|fact| fact.shape.element_count());
        value.constant.as_ref().map(Tensor::element_count).or_else(coded).or_else(forgotten)
    }

    /// What is known of constants, whether they have their contents or not.
    pub(super) fn constant_facts(&self) -> impl Iterator<Item = (ValueId, Fact)> {
        self.values.iter().enumerate().filter_map(|(at, value)| {
            let fact = value.constant.as_ref().map(|constant| Fact::of(constant.clone()));
            let coded = || value.coded.as_ref().map(|coded| Fact::new(DType::F32, coded.shape.clone()));
            Some((ValueId(at), fact.or_else(coded).or_else(|| value.forgotten.clone())?))
        })
    }

    /// Drops nodes whose outputs nobody takes, and the contents of constants that nobody takes.
    pub(super) fn drop_dead(&mut self) {
        let mut alive = vec![false; self.values.len()];
        self.outputs.iter().for_each(|output| alive[output.0] = true);
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.drain(..).rev() {
            if alive[node.output.0] && self.values[node.output.0].constant.is_none() {
                node.inputs.iter().for_each(|input| alive[input.0] = true);
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        for (value, alive) in self.values.iter_mut().zip(alive) {
            if !alive {
                (value.constant, value.coded) = (None, None);
            }
        }
    }
}

impl ValueId {
    pub(super) fn index(self) -> usize {
        self.0
    }
}

/// Elements of a constant in native order.
pub(super) fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    floats_in(tensor).map(Cow::into_owned)
}

/// As `floats`, where they lie if they lie as floats do.
pub(super) fn floats_in(tensor: &Tensor) -> Option<Cow<'_, [f32]>> {
    if tensor.dtype() != DType::F32 {
        return None;
    }
    if let (true, Ok(elements)) = (cfg!(target_endian = "little"), bytemuck::try_cast_slice(tensor.bytes())) {
        return Some(Cow::Borrowed(elements));
    }
    Some(tensor.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Weights `[column][depth][tap]` of some columns as `[tap][depth][column]`.
pub(super) fn taps_first<T: Copy + Default>(source: &[T], [depth, taps]: [usize; 2], columns: Range<usize>) -> Vec<T> {
    let (each, width) = ((depth * taps).max(1), columns.len());
    let mut out = vec![T::default(); depth * taps * width];
    let source = &source[columns.start * depth * taps..columns.end * depth * taps];
    // Squares, so that whole lines of memory are read and written.
    for (from, first) in source.chunks(SQUARE * each).zip((0..).step_by(SQUARE)) {
        let together = from.len() / each;
        for at in (0..each).step_by(SQUARE) {
            let rows = SQUARE.min(each - at);
            let mut square = [[T::default(); SQUARE]; SQUARE];
            for (column, from) in from.chunks_exact(each).enumerate() {
                from[at..][..rows].iter().zip(&mut square).for_each(|(from, to)| to[column] = *from);
            }
            for (row, square) in square[..rows].iter().enumerate() {
                let (k, tap) = ((at + row) / taps, (at + row) % taps);
                out[(tap * depth + k) * width + first..][..together].copy_from_slice(&square[..together]);
            }
        }
    }
    out
}

/// Floats of a cache line.
const SQUARE: usize = 16;

/// Elements of an integer constant.
pub(super) fn integers(tensor: &Tensor) -> Option<PerAxis<i64>> {
    let bytes = tensor.bytes();
    Some(match tensor.dtype() {
        DType::I64 => bytes.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().expect("eight bytes"))).collect(),
        DType::I32 => {
            bytes.chunks_exact(4).map(|c| i32::from_le_bytes(c.try_into().expect("four bytes")).into()).collect()
        }
        _ => return None,
    })
}

/// Elements of a constant of numbers of any type, those beyond 2^53 to the nearest that a float has.
#[expect(trivial_numeric_casts, clippy::cast_lossless, reason = "one arm of the macro for each type")]
pub(super) fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    let bytes = tensor.bytes();
    macro_rules! read {
        ($type:ident) => {{
            let read = |chunk: &[u8]| $type::from_le_bytes(chunk.try_into().expect("chunks of the size")) as f64;
            bytes.chunks_exact(size_of::<$type>()).map(read).collect()
        }};
    }
    Some(match tensor.dtype() {
        DType::Bool | DType::U8 => read!(u8),
        DType::I8 => read!(i8),
        DType::U16 => read!(u16),
        DType::I16 => read!(i16),
        DType::U32 => read!(u32),
        DType::I32 => read!(i32),
        DType::U64 => read!(u64),
        DType::I64 => read!(i64),
        DType::F32 => read!(f32),
        DType::F64 => read!(f64),
        DType::F16 | DType::Bf16 | DType::Bytes => return None,
    })
}

/// A constant of `f32`.
pub(super) fn tensor_of(shape: &[usize], elements: &[f32]) -> Tensor {
    let bytes: Vec<u8> = match cfg!(target_endian = "little") {
        true => bytemuck::cast_slice(elements).to_vec(),
        false => elements.iter().flat_map(|element| element.to_le_bytes()).collect(),
    };
    Tensor::new(DType::F32, Shape::new(shape), bytes.into()).expect("elements fill their shape")
}

/// As `tensor_of`, of elements that stay where they are.
pub(super) fn tensor_holding(shape: &[usize], elements: Vec<f32>) -> Tensor {
    if cfg!(target_endian = "big") {
        return tensor_of(shape, &elements);
    }
    let bytes = Bytes::from_owner(Held(elements));
    Tensor::new(DType::F32, Shape::new(shape), bytes).expect("elements fill their shape")
}

/// Elements to change: where they lie, if nobody else holds them there, else a copy.
pub(super) enum FloatsMut {
    InPlace(BytesMut),
    Copied(Vec<f32>),
}

impl FloatsMut {
    /// Of a tensor of `f32`; of another, none.
    pub(super) fn of(tensor: Tensor) -> Self {
        if cfg!(target_endian = "big") || tensor.dtype() != DType::F32 {
            return Self::Copied(floats(&tensor).unwrap_or_default());
        }
        match tensor.into_bytes().try_into_mut() {
            Ok(bytes) if bytemuck::try_cast_slice::<u8, f32>(&bytes).is_ok() => Self::InPlace(bytes),
            Ok(bytes) => Self::Copied(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)),
            Err(bytes) => Self::Copied(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)),
        }
    }

    pub(super) fn as_mut(&mut self) -> &mut [f32] {
        match self {
            Self::InPlace(bytes) => bytemuck::cast_slice_mut(bytes),
            Self::Copied(elements) => elements,
        }
    }

    pub(super) fn into_tensor(self, shape: &[usize]) -> Tensor {
        match self {
            Self::Copied(elements) => tensor_holding(shape, elements),
            Self::InPlace(bytes) => {
                Tensor::new(DType::F32, Shape::new(shape), bytes.freeze()).expect("elements fill their shape")
            }
        }
    }
}

struct Held(Vec<f32>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A constant of `i64`.
pub(super) fn tensor_of_integers(shape: &[usize], elements: &[i64]) -> Tensor {
    let bytes: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    Tensor::new(DType::I64, Shape::new(shape), bytes.into()).expect("elements fill their shape")
}

/// A constant of one number of any type; what does not fit is the nearest that does.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the purpose")]
pub(super) fn tensor_of_number(dtype: DType, number: f64) -> Tensor {
    let bytes = match dtype {
        DType::F64 => number.to_le_bytes().to_vec(),
        DType::I64 => (number as i64).to_le_bytes().to_vec(),
        DType::U64 => (number as u64).to_le_bytes().to_vec(),
        DType::I32 => (number as i32).to_le_bytes().to_vec(),
        DType::U32 => (number as u32).to_le_bytes().to_vec(),
        DType::I16 => (number as i16).to_le_bytes().to_vec(),
        DType::U16 => (number as u16).to_le_bytes().to_vec(),
        DType::I8 => (number as i8).to_le_bytes().to_vec(),
        DType::U8 => vec![number as u8],
        DType::Bool => vec![u8::from(number != 0.0)],
        _ => return tensor_of(&[], &[number as f32]),
    };
    Tensor::new(dtype, Shape::new(&[]), bytes.into()).expect("one element fills a shape without axes")
}
