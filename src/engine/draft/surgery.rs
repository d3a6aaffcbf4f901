//! Changes of a draft's shape: a layer that becomes two, channels that go.

use super::layer::transposed;
use super::quantized::floats_as_bytes;
use super::{Draft, WeightLayer, Weights, constant};
use crate::engine::proto::{attribute, node};
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{NodeProto, TensorProto};

impl Draft {
    /// Has a layer of one group computed by two: `first` has a line for each of `rank` values between them, `second` one for
    /// each output, with the bias. The first has the layer's windows.
    ///
    /// # Panics
    /// When the layer is another draft's, or the extents do not fit.
    pub fn split(&mut self, layer: &WeightLayer, first: &[f32], second: &Weights, rank: usize) {
        assert_eq!((first.len(), second.elements.len()), (rank * layer.depth, layer.outputs * rank), "two layers fit");
        let name = |what: &str| self.unused(&format!("{} {what}", layer.weights));
        let [between, narrow] = ["between", "first"].map(name);
        let slides = layer.windows.is_some();
        let (first_shape, first) = match slides {
            true => ([&[rank], &layer.shape[1..]].concat(), first.to_vec()),
            false => (vec![layer.depth, rank], transposed(first, rank, layer.depth)),
        };
        let (second_shape, elements) = match layer.by_inputs {
            true => (vec![rank, layer.outputs], transposed(&second.elements, layer.outputs, rank)),
            false => ([&[layer.outputs, rank][..], &vec![1; layer.shape.len() - 2]].concat(), second.elements.clone()),
        };
        self.remove_constant(&layer.weights);
        let graph = self.graph_mut();
        let of_weights = |node: &NodeProto| node.input.get(1) == Some(&layer.weights);
        let at = graph.node.iter().position(of_weights).expect("a layer's weights are taken by its node");
        let attributes = if slides { std::mem::take(&mut graph.node[at].attribute) } else { Vec::new() };
        let operator = if slides { "Conv" } else { "MatMul" };
        let mut before = node(operator, &[&layer.input, &narrow], &[&between], attributes);
        before.name = format!("{} first", layer.name);
        graph.node[at].input[0] = between;
        graph.node.insert(at, before);
        let floats = |name: &str, shape: &[usize], elements: &[f32]| {
            constant(name, DataType::Float, shape, floats_as_bytes(elements))
        };
        graph.initializer.push(floats(&narrow, &first_shape, &first));
        graph.initializer.push(floats(&layer.weights, &second_shape, &elements));
        if let (Some(name), Some(bias)) = (&layer.bias, &second.bias) {
            self.set_floats(name, bias);
        }
    }

    /// The layer whose output channels are a layer's inputs and go nowhere else, if what is between works on each channel
    /// by itself.
    pub fn source(&self, layer: &WeightLayer) -> Option<WeightLayer> {
        let takers = super::layer::takers(self.graph());
        let layers = self.layers();
        let mut value = layer.input.as_str();
        loop {
            if takers.get(value) != Some(&1) {
                return None;
            }
            if let Some(source) = layers.iter().find(|source| source.output == value) {
                let fits = layer.groups() == 1 && source.groups() == 1 && layer.depth.is_multiple_of(source.outputs);
                return fits.then(|| source.clone());
            }
            let maker = self.maker(value)?;
            let flattens = maker.op_type == "Flatten" && attribute(maker, "axis").is_none_or(|axis| axis.i == 1);
            if !flattens && !CHANNELWISE.contains(&maker.op_type.as_str()) {
                return None;
            }
            value = &maker.input[0];
        }
    }

    /// Leaves a source with some of its channels, and the layer behind it with the weights that meet these. Of the source
    /// it does not matter what its weights are stored as, if each has a byte of its own.
    ///
    /// # Panics
    /// When the layers are another draft's, or the second was quantized before.
    pub fn keep_channels(&mut self, source: &WeightLayer, layer: &WeightLayer, kept: &[usize]) {
        let each = layer.depth / source.outputs;
        let columns: Vec<usize> = kept.iter().flat_map(|channel| channel * each..(channel + 1) * each).collect();
        // A convolution has its taps behind its channels.
        let taps = layer.windows.as_ref().map_or(1, |windows| windows.kernel.iter().product());
        let inputs: Vec<usize> = columns.iter().step_by(taps).map(|column| column / taps).collect();
        self.keep_along(&layer.weights, layer.input_axis(), layer.depth / taps, &inputs);
        self.keep_along(&source.weights, source.output_axis(), source.outputs, kept);
        if let Some(bias) = &source.bias {
            // Of a matrix product it may have an axis of one element before its own.
            let axis = self.constant(bias).map_or(0, |bias| bias.dims.len() - 1);
            self.keep_along(bias, axis, source.outputs, kept);
        }
    }

    /// Cuts a constant, or those that a value is made of, along an axis of some extent; those of one axis along that.
    fn keep_along(&mut self, value: &str, axis: usize, extent: usize, kept: &[usize]) {
        if let Some(at) = self.graph().initializer.iter().position(|tensor| tensor.name == value) {
            let tensor = &mut self.graph_mut().initializer[at];
            let axis = if tensor.dims.len() == 1 { 0 } else { axis };
            if tensor.dims.get(axis) == Some(&(extent.cast_signed() as i64)) {
                cut(tensor, axis, kept);
            }
            return;
        }
        let Some(maker) = self.maker(value).cloned() else { return };
        // A table is not of channels.
        let of_channels = if maker.op_type == "Gather" { &maker.input[1..] } else { &maker.input[..] };
        of_channels.iter().for_each(|input| self.keep_along(input, axis, extent, kept));
    }
}

/// Some of a tensor's places along an axis.
fn cut(tensor: &mut TensorProto, axis: usize, kept: &[usize]) {
    let extents: Vec<usize> = tensor.dims.iter().map(|&extent| usize::try_from(extent).unwrap_or(0)).collect();
    let count: usize = extents.iter().product();
    let inner = extents[axis + 1..].iter().product::<usize>() * (tensor.raw_data.len() / count.max(1));
    let bytes = tensor.raw_data.chunks(extents[axis] * inner);
    let bytes: Vec<u8> =
        bytes.flat_map(|outer| kept.iter().flat_map(move |at| &outer[at * inner..(at + 1) * inner])).copied().collect();
    tensor.raw_data = bytes.into();
    tensor.dims[axis] = kept.len().cast_signed() as i64;
}

/// Operators that make each channel of the same channel before them.
const CHANNELWISE: [&str; 14] = [
    "Relu",
    "Clip",
    "LeakyRelu",
    "Sigmoid",
    "Tanh",
    "HardSigmoid",
    "HardSwish",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "Dropout",
    "Erf",
];
