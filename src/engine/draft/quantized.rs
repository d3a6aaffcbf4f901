//! Bytes in place of floats in a draft: conversions around values, and weights that are integers with scales.

use half::bf16;

use super::{Draft, WeightLayer, constant};
use crate::engine::proto::node;
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{AttributeProto, NodeProto, OperatorSetIdProto, TensorProto};

/// What unsigned bytes mean: `(byte - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    pub scale: f32,
    pub zero: u8,
}

/// A layer's weights as integers, a line for each output channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Integers {
    pub elements: Vec<i8>,
    /// Eight, or four.
    pub bits: usize,
    /// A line for each output channel: of one, or one for each block of so many inputs at each tap.
    pub scales: Vec<f32>,
    pub block: Option<usize>,
    /// In units of the input's scale times the channel's, where the input is bytes.
    pub bias: Option<Vec<i32>>,
}

impl Draft {
    /// The value behind one that only moves its elements: what is to become bytes, so that these are what is moved.
    pub fn moved_from(&self, value: &str) -> String {
        let mut from = value;
        while let Some(maker) = self.maker(from).filter(|maker| MOVERS.contains(&maker.op_type.as_str())) {
            from = &maker.input[0];
        }
        from.to_owned()
    }

    /// The operands of the sum that a value is, but for a function between; none where it is no sum of two.
    pub fn summands(&self, value: &str) -> Vec<String> {
        let passed = |value: &str| {
            let maker = self.maker(value)?;
            if ACTIVATIONS.contains(&maker.op_type.as_str()) { self.maker(&maker.input[0]) } else { Some(maker) }
        };
        let is_computed = |value: &String| self.constant(value).is_none();
        match passed(value) {
            Some(sum) if sum.op_type == "Add" && sum.input.iter().all(is_computed) => {
                sum.input.iter().map(|operand| self.moved_from(operand)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What bytes a value is made of, if it is made of any.
    pub fn scale_of(&self, value: &str) -> Option<Scale> {
        let maker = self.maker(&self.moved_from(value)).filter(|maker| maker.op_type == DEQUANTIZE)?;
        let scale = super::floats(self.constant(&maker.input[1])?);
        let zero = self.constant(&maker.input[2])?.raw_data.first().copied();
        Some(Scale { scale: *scale.first()?, zero: zero? })
    }

    /// Has a value pass through bytes on its way to all that take it. Outputs of the graph stay what they are.
    pub fn quantize_value(&mut self, value: &str, to: Scale) {
        let name = |what: &str| self.unused(&format!("{value} {what}"));
        let (scale, zero, bytes, floats) = (name("scale"), name("zero point"), name("bytes"), name("rounded"));
        let made_by = self.graph().node.iter().position(|node| node.output.iter().any(|output| output == value));
        let graph = self.graph_mut();
        for taker in &mut graph.node {
            taker.input.iter_mut().filter(|input| *input == value).for_each(|input| input.clone_from(&floats));
        }
        graph.initializer.push(constant(&scale, DataType::Float, &[], to.scale.to_le_bytes().to_vec()));
        graph.initializer.push(constant(&zero, DataType::Uint8, &[], vec![to.zero]));
        let at = made_by.map_or(0, |at| at + 1);
        graph.node.insert(at, node(QUANTIZE, &[value, &scale, &zero], &[&bytes], vec![]));
        graph.node.insert(at + 1, node(DEQUANTIZE, &[&bytes, &scale, &zero], &[&floats], vec![]));
    }

    /// Stores a layer's weights as integers. The conversion takes the name that they had as floats.
    ///
    /// # Panics
    /// When the layer is another draft's, or was quantized before.
    pub fn quantize_weights(&mut self, layer: &WeightLayer, integers: &Integers, input: Option<Scale>) {
        let elements = layer.as_stored(&integers.elements);
        let (data_type, bytes) = match integers.bits {
            4 => (DataType::Int4, nibbles(&elements)),
            _ => (DataType::Int8, elements.iter().map(|element| element.to_le_bytes()[0]).collect()),
        };
        self.remove_constant(&layer.weights);
        let weights = constant(&layer.weights, data_type, &layer.shape, bytes);
        let (shape, scales) = layer.scales(&integers.scales, integers.block);
        self.dequantized(weights, constant("", DataType::Float, &shape, floats_as_bytes(&scales)), |node| {
            let axis = if integers.block.is_some() { layer.input_axis() } else { layer.output_axis() };
            node.attribute.push(int("axis", axis));
            node.attribute.extend(integers.block.map(|block| int("block_size", block)));
        });
        if integers.bits == 4 {
            self.raise_opset(NIBBLES_OPSET);
        }
        if let (Some(name), Some(bias), Some(input)) = (&layer.bias, &integers.bias, input) {
            let dims = self.remove_constant(name).dims;
            let axis = dims.len() - 1;
            let bytes = bias.iter().flat_map(|element| element.to_le_bytes()).collect();
            let bias = TensorProto { dims, ..constant(name, DataType::Int32, &[], bytes) };
            let units: Vec<f32> = integers.scales.iter().map(|scale| scale * input.scale).collect();
            let units = constant("", DataType::Float, &[units.len()], floats_as_bytes(&units));
            self.dequantized(bias, units, |node| node.attribute.push(int("axis", axis)));
        }
    }

    /// Adds integers, their scales, and a node that makes floats of them, which have the integers' name. Zero points are
    /// left out: they are zero.
    fn dequantized(&mut self, integers: TensorProto, scales: TensorProto, with: impl FnOnce(&mut NodeProto)) {
        let made = integers.name.clone();
        let [of, scale] = ["integers", "scales"].map(|what| self.unused(&format!("{made} {what}")));
        let mut conversion = node(DEQUANTIZE, &[&of, &scale], &[&made], vec![]);
        with(&mut conversion);
        let graph = self.graph_mut();
        graph.initializer.push(TensorProto { name: of, ..integers });
        graph.initializer.push(TensorProto { name: scale, ..scales });
        graph.node.insert(0, conversion);
    }

    /// Stores a layer's weights as the upper half of their bits.
    ///
    /// # Panics
    /// As `quantize_weights`.
    pub fn store_halves(&mut self, layer: &WeightLayer) {
        let floats = super::floats(&self.remove_constant(&layer.weights));
        let bytes = floats.iter().flat_map(|weight| bf16::from_f32(*weight).to_le_bytes()).collect();
        let halves = self.unused(&format!("{} halves", layer.weights));
        let cast = node("Cast", &[&halves], &[&layer.weights], vec![int("to", DataType::Float as usize)]);
        let graph = self.graph_mut();
        graph.initializer.push(constant(&halves, DataType::Bfloat16, &layer.shape, bytes));
        graph.node.insert(0, cast);
    }

    /// Stores a layer's weights as places in a table that has all of them.
    ///
    /// # Panics
    /// As `quantize_weights`, and when the table has more than 256 entries.
    pub fn store_table(&mut self, layer: &WeightLayer, table: &[f32]) {
        let floats = super::floats(&self.remove_constant(&layer.weights));
        let place = |weight: &f32| table.iter().position(|entry| entry == weight).unwrap_or_default();
        let places =
            floats.iter().map(|weight| u8::try_from(place(weight)).expect("a byte names each entry")).collect();
        let name = |what: &str| self.unused(&format!("{} {what}", layer.weights));
        let [entries, bytes, wide] = ["table", "places", "wide places"].map(name);
        // A table is gathered from by places of 32 bits.
        let cast = node("Cast", &[&bytes], &[&wide], vec![int("to", DataType::Int32 as usize)]);
        let gather = node("Gather", &[&entries, &wide], &[&layer.weights], vec![]);
        let graph = self.graph_mut();
        graph.initializer.push(constant(&entries, DataType::Float, &[table.len()], floats_as_bytes(table)));
        graph.initializer.push(constant(&bytes, DataType::Uint8, &layer.shape, places));
        graph.node.splice(0..0, [cast, gather]);
    }

    /// The latest version of the standard operators that the model may be said in without another meaning.
    pub fn opset_within_reach(&self) -> i64 {
        let is_standard = |node: &NodeProto| matches!(node.domain.as_str(), "" | "ai.onnx");
        let lasts = |node: &NodeProto| !is_standard(node) || LASTING.contains(&node.op_type.as_str());
        let opset = self.opset();
        if opset >= 13 && self.graph().node.iter().all(lasts) { opset.max(NIBBLES_OPSET) } else { opset }
    }

    fn raise_opset(&mut self, needed: i64) {
        let standard = |opset: &&mut OperatorSetIdProto| matches!(opset.domain.as_str(), "" | "ai.onnx");
        if let Some(opset) = self.model.opset_import.iter_mut().find(standard) {
            opset.version = opset.version.max(needed);
            self.model.ir_version = self.model.ir_version.max(NIBBLES_IR);
        }
    }

    /// Whether a value already passes through bytes.
    pub fn is_quantized(&self, value: &str) -> bool {
        let takers = self.graph().node.iter().filter(|node| node.input.iter().any(|input| input == value));
        takers.into_iter().any(|taker| taker.op_type == QUANTIZE) || self.scale_of(value).is_some()
    }
}

/// Two integers a byte, the first in the lower half.
fn nibbles(elements: &[i8]) -> Vec<u8> {
    let nibble = |element: i8| element.to_le_bytes()[0] & 0xf;
    elements.chunks(2).map(|pair| nibble(pair[0]) | nibble(pair.get(1).copied().unwrap_or(0)) << 4).collect()
}

pub(super) fn floats_as_bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|element| element.to_le_bytes()).collect()
}

pub(super) fn int(name: &str, value: usize) -> AttributeProto {
    let i = value.cast_signed() as i64;
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
}

const QUANTIZE: &str = "QuantizeLinear";
const DEQUANTIZE: &str = "DequantizeLinear";

/// Operators whose output has elements of their first operand and no others, in whatever order.
const MOVERS: [&str; 7] = ["MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity"];

/// Functions that bytes have for bounds.
const ACTIVATIONS: [&str; 2] = ["Relu", "Clip"];

/// The versions that have integers of four bits, of operators and of the file.
const NIBBLES_OPSET: i64 = 21;
const NIBBLES_IR: i64 = 10;

/// Operators that mean at opset 21 what they mean at 13, with the same attributes and operands.
const LASTING: [&str; 44] = [
    "Abs",
    "Add",
    "ArgMax",
    "AveragePool",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Erf",
    "Exp",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "Identity",
    "LeakyRelu",
    "Log",
    "MatMul",
    "MaxPool",
    "Mul",
    "Neg",
    "PRelu",
    "Pow",
    "QuantizeLinear",
    "Reciprocal",
    "Relu",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];
