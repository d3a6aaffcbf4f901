//! Element types of values, and half floats, which are computed with as FP32 and stand at the edges alone.

use half::{bf16, f16};

use super::Importer;
use crate::engine::graph::{Op, ValueId, infer, tensor_holding};
use crate::engine::{Dim, TensorSpec};
use crate::proto::onnx::TensorProto;
use crate::proto::onnx::tensor_proto::DataType;
use crate::tensor::{DType, Shape, Tensor};

impl Importer {
    /// The element type of a value.
    pub(super) fn dtype(&mut self, value: ValueId) -> DType {
        self.dtypes.resize(self.graph.value_count(), None);
        for node in &self.graph.nodes[self.typed..] {
            let of = |value: &ValueId| self.graph.constant(*value).map(Tensor::dtype).or(self.dtypes[value.index()]);
            let operands: Vec<DType> = node.inputs.iter().map(|input| of(input).unwrap_or(DType::F32)).collect();
            self.dtypes[node.output.index()].get_or_insert_with(|| infer::dtype(&node.op, &operands));
        }
        self.typed = self.graph.nodes.len();
        let constant = self.graph.constant(value).map(Tensor::dtype);
        constant.or(self.dtypes[value.index()]).unwrap_or(DType::F32)
    }

    /// A graph input, as it is computed with.
    pub(super) fn input(&mut self, spec: &TensorSpec) -> ValueId {
        let input = self.graph.add_value(&spec.name);
        self.graph.inputs.push(input);
        self.dtypes.resize(self.graph.value_count(), None);
        self.dtypes[input.index()] = Some(spec.dtype);
        let fixed = |dim: &Dim| if let Dim::Fixed(extent) = dim { Some(*extent) } else { None };
        self.declared.insert(input, spec.dims.iter().map(fixed).collect());
        if is_half(spec.dtype) { self.graph.add(&spec.name, Op::Cast { to: DType::F32 }, &[input]) } else { input }
    }

    /// A value whose element type its operator does not tell.
    pub(super) fn declare(&mut self, value: ValueId, dtype: DType) {
        self.dtypes.resize(self.graph.value_count(), None);
        self.dtypes[value.index()] = Some(dtype);
    }

    /// A graph output, in the type that it is declared with.
    pub(super) fn output(&mut self, value: ValueId, name: &str, declared: Option<DType>) -> ValueId {
        let narrowed = declared.filter(|declared| is_half(*declared) && self.dtype(value) == DType::F32);
        narrowed.map_or(value, |to| self.graph.add(name, Op::Cast { to }, &[value]))
    }

    /// Another type; a half float is as precise as one from here on.
    pub(super) fn converted(&mut self, name: &str, x: ValueId, to: DType) -> ValueId {
        let converted = self.graph.add(name, Op::Cast { to }, &[x]);
        if is_half(to) { self.graph.add(name, Op::Cast { to: DType::F32 }, &[converted]) } else { converted }
    }
}

pub(super) fn is_half(dtype: DType) -> bool {
    dtype == DType::F16
}

/// A constant of a type that nothing else is of, as one that is computed with: nibbles as bytes, the lower half of a byte
/// first, BF16 as FP32. The file's bytes were counted before.
pub(super) fn unpacked(proto: &TensorProto, shape: &Shape) -> Option<Tensor> {
    let count = shape.element_count()?;
    let bytes = &proto.raw_data;
    let nibbles = || bytes.iter().flat_map(|byte| [byte & 0xf, byte >> 4]).take(count);
    let integers = |dtype, bytes: Vec<u8>| Tensor::new(dtype, shape.clone(), bytes.into()).ok();
    match DataType::try_from(proto.data_type).ok()? {
        DataType::Uint4 => integers(DType::U8, nibbles().collect()),
        // The highest bit of four is the sign.
        DataType::Int4 => integers(DType::I8, nibbles().map(|nibble| (nibble ^ 8).wrapping_sub(8)).collect()),
        DataType::Bfloat16 => {
            let halves = bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32());
            Some(tensor_holding(shape, halves.collect()))
        }
        _ => None,
    }
}

/// A constant as it is computed with.
pub(super) fn widened(tensor: Tensor) -> Tensor {
    let halves = tensor.bytes().as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
    if !is_half(tensor.dtype()) {
        return tensor;
    }
    let elements: Vec<f32> = halves.map(|bits| f16::from_bits(bits).to_f32()).collect();
    tensor_holding(tensor.shape(), elements)
}
