//! A model that is being changed: its layers of constant weights, their elements, and what runs of it leave at inner
//! values.
//!
//! It stays the graph that ONNX has, so that what comes out is a model for any engine. Which weights are good ones is not
//! known here.

mod channels;
mod layer;
mod quantized;
mod surgery;

use std::collections::HashSet;
use std::path::Path;

use prost::Message;

use super::artifact::{self, Written};
use super::{EngineError, LoadOptions, ModelFile, Plan, choice, model_file, proto};
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};

pub use channels::Channels;
pub use layer::{Padding, WeightLayer, Windows};
pub use quantized::{Integers, Scale};

/// A model in memory, that can be changed, run, and written.
#[derive(Clone, Debug)]
pub struct Draft {
    model: ModelProto,
    /// The name of the file that it was.
    source: String,
}

/// A layer's weights as a matrix, a line for each output channel, and its bias where it has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    pub elements: Vec<f32>,
    pub bias: Option<Vec<f32>>,
}

impl Weights {
    /// Weights that are zero.
    pub fn zeros(&self) -> usize {
        self.elements.iter().filter(|element| **element == 0.0).count()
    }
}

impl Draft {
    /// # Errors
    /// When the file cannot be read, or is no model.
    pub fn read(file: &ModelFile, options: &LoadOptions) -> Result<Self, EngineError> {
        let model = model_file::read(file, options)?;
        match model.graph {
            Some(_) => Ok(Self { model, source: file.file.clone() }),
            None => Err(EngineError::InvalidModel("the file has no graph".into())),
        }
    }

    /// Layers whose weights are FP32 constants that nothing else takes, in the order that they run.
    pub fn layers(&self) -> Vec<WeightLayer> {
        layer::find(self.graph())
    }

    /// Channels that can go, in the order that layers take them.
    pub fn channels(&self) -> Vec<Channels> {
        channels::find(self)
    }

    /// # Panics
    /// When the layer is another draft's, or was quantized.
    pub fn weights(&self, layer: &WeightLayer) -> Weights {
        let read = |name: &str| floats(self.constant(name).expect("a layer's weights are constants"));
        let elements = layer.by_outputs(&read(&layer.weights));
        Weights { elements, bias: layer.bias.as_deref().map(read) }
    }

    /// Gives a layer other weights of the same extents.
    ///
    /// # Panics
    /// As `weights`, and when the extents are others.
    pub fn set_weights(&mut self, layer: &WeightLayer, weights: &Weights) {
        let elements = layer.as_stored(&weights.elements);
        self.set_floats(&layer.weights, &elements);
        if let (Some(name), Some(bias)) = (&layer.bias, &weights.bias) {
            self.set_floats(name, bias);
        }
    }

    /// The model as a plan.
    ///
    /// # Errors
    /// As `Engine::load`.
    pub fn plan(&self, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        choice::choose(self.model.clone(), options)
    }

    /// The model as a plan whose only output is an inner value of FP32.
    ///
    /// # Errors
    /// As `Engine::load`.
    pub fn watch(&self, value: &str, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        let mut model = self.model.clone();
        let graph = model.graph.as_mut().expect("a draft has a graph");
        graph.output = vec![proto::untold(value, DataType::Float)];
        choice::choose(model, options)
    }

    /// Writes the model as a native model file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, to: &Path) -> Result<Written, EngineError> {
        artifact::write(self.model.clone(), &self.source, to)
    }

    /// What tells this model from others, in 32 digits.
    pub fn digest(&self) -> String {
        artifact::digest(&self.model.encode_to_vec())
    }

    /// The version of the standard operators.
    pub fn opset(&self) -> i64 {
        let standard = self.model.opset_import.iter().find(|opset| matches!(opset.domain.as_str(), "" | "ai.onnx"));
        standard.map_or(0, |opset| opset.version)
    }

    fn graph(&self) -> &GraphProto {
        self.model.graph.as_ref().expect("a draft has a graph")
    }

    fn graph_mut(&mut self) -> &mut GraphProto {
        self.model.graph.as_mut().expect("a draft has a graph")
    }

    fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.graph().initializer.iter().find(|tensor| tensor.name == name)
    }

    fn set_floats(&mut self, name: &str, elements: &[f32]) {
        let constants = &mut self.graph_mut().initializer;
        let tensor = constants.iter_mut().find(|tensor| tensor.name == name).expect("a layer's weights are constants");
        let bytes: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
        assert_eq!(bytes.len(), tensor.raw_data.len(), "weights keep their extents");
        tensor.raw_data = bytes.into();
    }

    /// Takes a constant out of the graph, and out of its inputs, which old models list it among.
    fn remove_constant(&mut self, name: &str) -> TensorProto {
        let graph = self.graph_mut();
        graph.input.retain(|input| input.name != name);
        let at = graph.initializer.iter().position(|tensor| tensor.name == name);
        graph.initializer.remove(at.expect("a layer's weights are constants"))
    }

    /// The name, or one like it that no value has yet.
    fn unused(&self, name: &str) -> String {
        let graph = self.graph();
        let inputs = graph.input.iter().map(|input| &input.name);
        let constants = graph.initializer.iter().map(|tensor| &tensor.name);
        let taken: HashSet<&String> =
            graph.node.iter().flat_map(|node| &node.output).chain(inputs).chain(constants).collect();
        let names = std::iter::once(name.to_owned()).chain((2..).map(|nth: u64| format!("{name} {nth}")));
        names.into_iter().find(|name| !taken.contains(name)).expect("numbers do not end")
    }

    /// The node that makes a value; none makes graph inputs and constants.
    fn maker(&self, value: &str) -> Option<&NodeProto> {
        self.graph().node.iter().find(|node| node.output.iter().any(|output| output == value))
    }
}

/// Elements of a tensor of FP32 that was read.
fn floats(tensor: &TensorProto) -> Vec<f32> {
    tensor.raw_data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A constant of some type.
fn constant(name: &str, data_type: DataType, dims: &[usize], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|&extent| extent.cast_signed() as i64).collect(),
        data_type: data_type as i32,
        raw_data: bytes.into(),
        ..TensorProto::default()
    }
}

#[cfg(test)]
mod tests;
