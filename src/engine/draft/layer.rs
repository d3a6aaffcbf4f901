//! Layers of constant weights in a graph: which nodes are such, and how their elements lie.

use std::collections::HashMap;

use crate::engine::proto::attribute;
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{GraphProto, NodeProto, TensorProto};

/// A convolution, or a product with a constant matrix, with the sum of a bias that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightLayer {
    /// The node's; its output's where it has none.
    pub name: String,
    pub operator: String,
    /// Of the weights, as the file has them.
    pub shape: Vec<usize>,
    /// The values that enter and leave, the latter with the bias.
    pub input: String,
    pub output: String,
    pub outputs: usize,
    /// Weights of each output.
    pub depth: usize,
    /// Where it slides over axes.
    pub windows: Option<Windows>,
    pub(super) weights: String,
    pub(super) bias: Option<String>,
    /// Whether the file has a line for each input, not for each output.
    pub(super) by_inputs: bool,
}

/// How a convolution slides, an element for each of its axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    pub groups: usize,
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub padding: Padding,
}

/// Zeros around an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Padding {
    /// So many before each axis; what is behind follows from the output's extents.
    Before(Vec<usize>),
    /// As many as let the output have an element for each stride; the odd one behind, or before.
    Same { odd_before: bool },
}

/// The layers of a graph, in its order.
pub(super) fn find(graph: &GraphProto) -> Vec<WeightLayer> {
    let search = Search { graph, takers: takers(graph) };
    graph.node.iter().filter_map(|node| search.layer(node)).collect()
}

impl WeightLayer {
    pub fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    pub fn groups(&self) -> usize {
        self.windows.as_ref().map_or(1, |windows| windows.groups)
    }

    /// The axis of the weights, as the file has them, that the outputs are along.
    pub(super) fn output_axis(&self) -> usize {
        usize::from(self.by_inputs)
    }

    /// The axis of the weights, as the file has them, that the inputs are along.
    pub(super) fn input_axis(&self) -> usize {
        usize::from(!self.by_inputs)
    }

    /// Scales with a line for each output as the file has them, with their extents.
    pub(super) fn scales(&self, scales: &[f32], block: Option<usize>) -> (Vec<usize>, Vec<f32>) {
        let Some(block) = block else { return (vec![self.outputs], scales.to_vec()) };
        let mut shape = self.shape.clone();
        shape[self.input_axis()] = shape[self.input_axis()].div_ceil(block);
        let per_line = scales.len() / self.outputs;
        let stored = if self.by_inputs { transposed(scales, self.outputs, per_line) } else { scales.to_vec() };
        (shape, stored)
    }

    pub(super) fn by_outputs<T: Copy>(&self, stored: &[T]) -> Vec<T> {
        if self.by_inputs { transposed(stored, self.depth, self.outputs) } else { stored.to_vec() }
    }

    pub(super) fn as_stored<T: Copy>(&self, elements: &[T]) -> Vec<T> {
        if self.by_inputs { transposed(elements, self.outputs, self.depth) } else { elements.to_vec() }
    }
}

impl Windows {
    /// Zeros before an axis of some extent, of which so many outputs are made.
    pub fn before(&self, axis: usize, extent: usize, outputs: usize) -> usize {
        match &self.padding {
            Padding::Before(before) => before[axis],
            Padding::Same { odd_before } => {
                let spanned = outputs.saturating_sub(1) * self.strides[axis];
                let needed = spanned + (self.kernel[axis] - 1) * self.dilations[axis] + 1;
                let padded = needed.saturating_sub(extent);
                if *odd_before { padded.div_ceil(2) } else { padded / 2 }
            }
        }
    }
}

pub(super) fn transposed<T: Copy>(elements: &[T], lines: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| (0..lines).map(move |line| elements[line * columns + column])).collect()
}

/// How often each value is named as an operand, by nodes of inner graphs too, or as an output.
pub(super) fn takers(graph: &GraphProto) -> HashMap<&str, usize> {
    let mut takers = HashMap::new();
    count_takers(graph, &mut takers);
    takers
}

fn count_takers<'a>(graph: &'a GraphProto, takers: &mut HashMap<&'a str, usize>) {
    for node in &graph.node {
        node.input.iter().for_each(|input| *takers.entry(input).or_default() += 1);
        let bodies = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        bodies.into_iter().for_each(|body| count_takers(body, takers));
    }
    graph.output.iter().for_each(|output| *takers.entry(&output.name).or_default() += 1);
}

struct Search<'a> {
    graph: &'a GraphProto,
    takers: HashMap<&'a str, usize>,
}

impl Search<'_> {
    fn layer(&self, node: &NodeProto) -> Option<WeightLayer> {
        let (input, output) = (node.input.first()?, node.output.first()?);
        let weights = self.own(node.input.get(1)?)?;
        let shape: Vec<usize> =
            weights.dims.iter().map(|&extent| usize::try_from(extent).ok()).collect::<Option<_>>()?;
        let is_empty = shape.contains(&0);
        let by_inputs = match (node.op_type.as_str(), shape.len()) {
            ("Conv", 3..) => false,
            ("Gemm", 2) if is_plain(node) => int(node, "transB", 0) == 0,
            ("MatMul", 2) => true,
            _ => return None,
        };
        let (outputs, depth) = match by_inputs {
            true => (shape[1], shape[0]),
            false => (shape[0], shape[1..].iter().product()),
        };
        let windows = if node.op_type == "Conv" { Some(windows(node, &shape)?) } else { None };
        let (bias, output) = match node.op_type.as_str() {
            "MatMul" => self.added(output, outputs).map_or((None, output), |(bias, sum)| (Some(bias), sum)),
            _ => (node.input.get(2).filter(|name| self.is_bias(name, outputs)), output),
        };
        let name = if node.name.is_empty() { output } else { &node.name };
        let of_graphs = !matches!(node.domain.as_str(), "" | "ai.onnx");
        (!is_empty && !of_graphs && input != &weights.name).then(|| WeightLayer {
            name: name.clone(),
            operator: node.op_type.clone(),
            input: input.clone(),
            output: output.clone(),
            outputs,
            depth,
            windows,
            weights: weights.name.clone(),
            bias: bias.cloned(),
            by_inputs,
            shape,
        })
    }

    /// A constant of FP32 that one node takes.
    fn own(&self, name: &str) -> Option<&TensorProto> {
        let tensor = self.graph.initializer.iter().find(|tensor| tensor.name == name)?;
        (tensor.data_type == DataType::Float as i32 && self.takers.get(name) == Some(&1)).then_some(tensor)
    }

    fn is_bias(&self, name: &str, outputs: usize) -> bool {
        self.own(name).is_some_and(|bias| {
            bias.dims.last() == Some(&(outputs.cast_signed() as i64)) && {
                bias.dims.iter().product::<i64>() == outputs.cast_signed() as i64
            }
        })
    }

    /// The bias that is all that is added to a value, and the sum.
    fn added(&self, value: &str, outputs: usize) -> Option<(&String, &String)> {
        if self.takers.get(value) != Some(&1) {
            return None;
        }
        let sum = self.graph.node.iter().find(|node| node.input.iter().any(|input| input == value))?;
        let [a, b] = sum.input.as_slice() else { return None };
        let bias = if a == value { b } else { a };
        (sum.op_type == "Add" && self.is_bias(bias, outputs)).then_some((bias, sum.output.first()?))
    }
}

/// Whether a Gemm is a product and a sum and nothing more.
fn is_plain(node: &NodeProto) -> bool {
    let factor = |name: &str| attribute(node, name).is_none_or(|attribute| (attribute.f - 1.0).abs() < f32::EPSILON);
    int(node, "transA", 0) == 0 && factor("alpha") && factor("beta")
}

fn windows(node: &NodeProto, shape: &[usize]) -> Option<Windows> {
    let axes = shape.len() - 2;
    let ints = |name: &str, default: usize| match attribute(node, name) {
        None => Some(vec![default; axes]),
        Some(attribute) => attribute.ints.iter().map(|&int| usize::try_from(int).ok()).collect::<Option<Vec<_>>>(),
    };
    let said = attribute(node, "auto_pad").map_or(&b"NOTSET"[..], |attribute| &attribute.s);
    let padding = match said {
        b"SAME_UPPER" => Padding::Same { odd_before: false },
        b"SAME_LOWER" => Padding::Same { odd_before: true },
        b"VALID" => Padding::Before(vec![0; axes]),
        _ => Padding::Before(ints("pads", 0)?.get(..axes)?.to_vec()),
    };
    let groups = usize::try_from(int(node, "group", 1)).ok().filter(|groups| *groups > 0)?;
    let (strides, dilations) = (ints("strides", 1)?, ints("dilations", 1)?);
    let fits = strides.len() == axes && dilations.len() == axes && shape[0].is_multiple_of(groups);
    fits.then(|| Windows { groups, kernel: shape[2..].to_vec(), strides, dilations, padding })
}

fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}
