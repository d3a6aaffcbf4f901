//! Small graphs against tract, at every instruction set: each operator, and each pass that changes what runs.
#![cfg(feature = "tract")]

mod allocations;
mod arrangements;
mod chains;
mod classical;
mod composed;
mod contributed;
mod control;
mod factors;
mod functions;
mod fused;
mod hostile;
mod images;
mod low_bit;
mod numbers;
mod operators;
mod precision;
mod quantized;
mod recovered;
mod recurrent;
mod selection;
mod signals;
mod sparse;
mod tuned;
mod typed;
mod wide;

use kinglet_kernels::Level;

use crate::engine::proto::{floats, longs, value_free};
use crate::engine::testing::{answer, bytes_of, model, options, tensor, values};
use crate::engine::{EngineError, LayerReport, LoadOptions, Plan};
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::tensor::Tensor;

fn plan(model: &ModelProto, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
    super::plan(model.clone(), options)
}

/// A graph with input `x` and output `y`, both of FP32.
struct Case {
    x: Vec<&'static str>,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    /// The rank of the output.
    rank: usize,
}

impl Case {
    fn load(&self, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        plan(&self.model(), options)
    }

    fn model(&self) -> ModelProto {
        let names = ["a", "b", "c", "d", "e", "f"];
        let output: ValueInfoProto = value_free("y", DataType::Float, &names[..self.rank]);
        let input = value_free("x", DataType::Float, &self.x);
        model(vec![input], self.nodes.clone(), vec![output], self.constants.clone())
    }

    /// Natively at every level as tract answers, for an input of this shape; returns what ran.
    fn check(&self, shape: &[usize]) -> Vec<LayerReport> {
        self.check_within(shape, 1e-4)
    }

    fn check_within(&self, shape: &[usize], tolerance: f32) -> Vec<LayerReport> {
        let given = tensor(shape, &made_up(shape.iter().product(), 1));
        let expected = crate::engine::tract::answers(&self.model(), std::slice::from_ref(&given)).remove(0);
        allocations::steps_take_none(&self.model(), std::slice::from_ref(&given));
        let mut layers = Vec::new();
        for level in Level::all() {
            let plan = self.load(&LoadOptions { isa_max: level.set(), ..options() }).unwrap();
            layers = layers_of(&*plan, &given);
            let got = answer(plan, vec![given.clone()]).unwrap().remove(0);
            assert_eq!(got.shape(), expected.shape(), "{level}");
            for (got, expected) in values(&got).iter().zip(values(&expected)) {
                assert!((got - expected).abs() <= tolerance + 1e-4 * expected.abs(), "{level}: {got} {expected}");
            }
        }
        layers
    }
}

fn layers_of(plan: &dyn Plan, given: &Tensor) -> Vec<LayerReport> {
    let rows = given.shape().rows();
    plan.layers(&crate::engine::Batch::merge(&[vec![given.clone()]], vec![rows]), 1).unwrap()
}

/// The operators of layers, in the order they ran.
fn operators(layers: &[LayerReport]) -> Vec<&'static str> {
    layers.iter().map(|layer| layer.operator).collect()
}

fn made_up(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn weights(name: &str, dims: &[i64]) -> TensorProto {
    let count = dims.iter().map(|&dim| usize::try_from(dim).unwrap()).product();
    floats(name, dims, &made_up(count, name.len() + count))
}

fn list(name: &str, ints: &[i64]) -> TensorProto {
    longs(name, &[i64::try_from(ints.len()).unwrap()], ints)
}
