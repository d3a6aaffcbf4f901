//! Changes of a draft's shape: a layer that becomes two, channels that go.

use super::layer::transposed;
use super::quantized::{floats_as_bytes, int};
use super::{Channels, Draft, WeightLayer, Weights, constant};
use crate::engine::proto::node;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{NodeProto, TensorProto};

impl Draft {
    /// Has a layer of one group computed by two, of some groups each: `first` has a line for each value between them, `second`
    /// one for each output, with the bias. The first has the layer's windows. Only convolutions have more than one group.
    ///
    /// # Panics
    /// When the layer is another draft's, or the extents do not fit.
    pub fn split(&mut self, layer: &WeightLayer, first: &[f32], second: &Weights, groups: [usize; 2]) {
        let rank = first.len() * groups[0] / layer.depth;
        let fits =
            first.len() * groups[0] == rank * layer.depth && second.elements.len() * groups[1] == layer.outputs * rank;
        assert!(fits && (layer.windows.is_some() || groups == [1, 1]), "two layers fit");
        let name = |what: &str| self.unused(&format!("{} {what}", layer.weights));
        let [between, narrow] = ["between", "first"].map(name);
        let slides = layer.windows.is_some();
        let (first_shape, first) = match slides {
            true => ([&[rank, layer.shape[1] / groups[0]], &layer.shape[2..]].concat(), first.to_vec()),
            false => (vec![layer.depth, rank], transposed(first, rank, layer.depth)),
        };
        let (second_shape, elements) = match layer.by_inputs {
            true => (vec![rank, layer.outputs], transposed(&second.elements, layer.outputs, rank)),
            false => {
                let taps = vec![1; layer.shape.len() - 2];
                ([&[layer.outputs, rank / groups[1]][..], &taps].concat(), second.elements.clone())
            }
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
        if slides {
            set_groups(&mut before, groups[0]);
            set_groups(&mut graph.node[at], groups[1]);
        }
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

    /// Leaves the graph with some of the channels that some layers share. Of layers that make them it does not matter what
    /// their weights are stored as, if each has a byte of its own.
    ///
    /// # Panics
    /// When the channels are another draft's, or a layer that takes them was quantized before.
    pub fn keep_channels(&mut self, channels: &Channels, kept: &[usize]) {
        for layer in &channels.takers {
            let each = layer.depth / channels.count;
            let columns: Vec<usize> = kept.iter().flat_map(|channel| channel * each..(channel + 1) * each).collect();
            // A convolution has its taps behind its channels.
            let taps = layer.windows.as_ref().map_or(1, |windows| windows.kernel.iter().product());
            let inputs: Vec<usize> = columns.iter().step_by(taps).map(|column| column / taps).collect();
            self.keep_along(&layer.weights, layer.input_axis(), layer.depth / taps, &inputs);
        }
        for layer in &channels.makers {
            self.keep_along(&layer.weights, layer.output_axis(), layer.outputs, kept);
            let of_weights = |node: &&mut NodeProto| node.input.get(1) == Some(&layer.weights);
            if let Some(node) = self.graph_mut().node.iter_mut().find(of_weights).filter(|_| layer.groups() > 1) {
                set_groups(node, kept.len());
            }
        }
        channels.along.iter().for_each(|(name, axis)| self.keep_along(name, *axis, channels.count, kept));
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

/// Has a convolution work in so many groups.
fn set_groups(node: &mut NodeProto, groups: usize) {
    node.attribute.retain(|attribute| attribute.name != GROUPS);
    if groups > 1 {
        node.attribute.push(int(GROUPS, groups));
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

/// The attribute that says how many groups a convolution has.
const GROUPS: &str = "group";
