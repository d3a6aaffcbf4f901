//! The built-in plan for graphs that only hand inputs to outputs: any datatype, any shape, no copy.
//!
//! It serves what no numeric engine can (strings, BF16), and it is the echo that overhead is measured with.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::model_file;
use super::{
    Batch, Cores, Engine, EngineError, Executed, LoadOptions, Merging, ModelFile, Part, Plan, Share, Signature,
    TensorSpec, onnx_signature,
};
use crate::infer::ComputeTimes;
use crate::proto::onnx::{GraphProto, ModelProto};

/// Serves graphs made of `Identity` alone.
#[derive(Clone, Copy, Debug)]
pub struct Identity;

impl Engine for Identity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn load(&self, model: &ModelFile, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        plan(&model_file::read(model, options)?)
    }
}

/// A plan for the model, or an error that names the operator which is no identity.
pub(super) fn plan(model: &ModelProto) -> Result<Box<dyn Plan>, EngineError> {
    let graph = model.graph.as_ref().ok_or_else(|| EngineError::InvalidModel("the file has no graph".into()))?;
    if let Some(other) = graph.node.iter().find(|node| node.op_type != "Identity" || !is_standard(&node.domain)) {
        return Err(EngineError::UnsupportedOperator {
            operator: format!("{} {}", other.op_type, other.name),
            reason: "the identity engine serves graphs of Identity alone".into(),
        });
    }
    let declared = onnx_signature::declared(graph)?;
    let mut sources = Vec::new();
    let mut outputs = Vec::new();
    for (name, dtype, dims) in declared.outputs {
        let source = source_of(graph, &name, &declared.inputs)?;
        let input = &declared.inputs[source];
        if input.dtype != dtype {
            let reason = format!("output {name:?} declares {dtype}, input {:?} is {}", input.name, input.dtype);
            return Err(EngineError::InvalidModel(reason));
        }
        outputs.push(TensorSpec { name, dtype, dims: dims.unwrap_or_else(|| input.dims.clone()) });
        sources.push(source);
    }
    let mut signature = Signature { inputs: declared.inputs, outputs };
    let merging = onnx_signature::batch_obstacle(&signature).unwrap_or(Merging::Rows);
    if merging == Merging::Rows {
        onnx_signature::name_batch(&mut signature);
    }
    let part = Part {
        engine: NAME,
        operators: vec![("Identity".into(), graph.node.len())],
        parameters: 0,
        macs: Some(0),
        reason: "the graph hands inputs to outputs unchanged".into(),
    };
    Ok(Box::new(IdentityPlan { signature, merging, parts: [part], sources }))
}

/// The input that an output comes from, through any chain of nodes.
fn source_of(graph: &GraphProto, output: &str, inputs: &[TensorSpec]) -> Result<usize, EngineError> {
    let producers: HashMap<&str, &str> = graph
        .node
        .iter()
        .filter_map(|node| Some((node.output.first()?.as_str(), node.input.first()?.as_str())))
        .collect();
    let mut name = output;
    // A cycle would go round at most once per node.
    for _ in 0..=graph.node.len() {
        match producers.get(name) {
            Some(before) => name = before,
            None => break,
        }
    }
    let found = inputs.iter().position(|input| input.name == name);
    found.ok_or_else(|| EngineError::UnsupportedOperator {
        operator: format!("output {output}"),
        reason: "it does not come from an input".into(),
    })
}

fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

#[derive(Debug)]
struct IdentityPlan {
    signature: Signature,
    merging: Merging,
    parts: [Part; 1],
    /// The input of each output.
    sources: Vec<usize>,
}

impl Plan for IdentityPlan {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn merging(&self) -> &Merging {
        &self.merging
    }

    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    fn run(&self, batch: &Batch, _cores: &Cores) -> Result<Executed, EngineError> {
        let started = Instant::now();
        let share = |position: usize| -> Share {
            let entry = batch.entry(position);
            self.sources.iter().map(|&source| entry.inputs[source].to_tensor()).collect()
        };
        let shares = (0..batch.rows.len()).map(share).collect();
        let times = ComputeTimes { scatter: started.elapsed(), ..ComputeTimes::default() };
        Ok(Executed { shares, times, helper_cpu: Duration::ZERO })
    }

    fn warm_up(&self, _batch_size_max: usize, _cores: &Cores) -> Result<(), EngineError> {
        Ok(())
    }
}

const NAME: &str = "identity";

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::proto::{node, value_free};
    use crate::engine::testing::{model, on_a_core};
    use crate::proto::onnx::tensor_proto::DataType;
    use crate::tensor::{DType, Shape, Tensor};

    fn echo(data_type: DataType, dims: &[&str]) -> Box<dyn Plan> {
        let nodes = vec![node("Identity", &["x"], &["m"], vec![]), node("Identity", &["m"], &["y"], vec![])];
        let (input, output) = (value_free("x", data_type, dims), value_free("y", data_type, dims));
        plan(&model(vec![input], nodes, vec![output], vec![])).unwrap()
    }

    #[test]
    fn every_datatype_is_echoed() {
        let sized = [
            (DataType::Bool, DType::Bool),
            (DataType::Uint8, DType::U8),
            (DataType::Int16, DType::I16),
            (DataType::Float16, DType::F16),
            (DataType::Bfloat16, DType::Bf16),
            (DataType::Double, DType::F64),
        ];
        for (data_type, dtype) in sized {
            let plan = echo(data_type, &["n", "2"]);
            assert_eq!(plan.merging(), &Merging::Rows);
            let entry = |rows: usize| {
                let length = rows * 2 * dtype.size().unwrap();
                vec![Tensor::new(dtype, Shape::new(&[rows, 2]), Bytes::from(vec![7; length])).unwrap()]
            };
            let entries = [entry(1), entry(0), entry(3)];
            let batch = Batch::merge(&entries, entries.iter().map(|entry| entry[0].shape().rows()).collect());
            let executed = on_a_core(move |cores| plan.run(&batch, cores)).unwrap();
            assert_eq!(executed.shares, entries, "{dtype}");
        }
    }

    #[test]
    fn strings_and_scalars_are_echoed_without_a_copy() {
        let plan = echo(DataType::String, &[]);
        let operator = "input x".to_owned();
        assert_eq!(plan.merging(), &Merging::Alone { operator, reason: "it is a scalar".into() });
        let text = Tensor::from_elements(Shape::new(&[]), [&b"abc"[..]]).unwrap();
        let batch = Batch::merge(&[vec![text.clone()]], vec![1]);
        let executed = on_a_core(move |cores| plan.run(&batch, cores)).unwrap();
        assert_eq!(executed.shares[0][0], text);
        assert_eq!(executed.shares[0][0].bytes().as_ptr(), text.bytes().as_ptr());
    }

    #[test]
    fn other_graphs_are_refused() {
        let x = || value_free("x", DataType::Float, &["n"]);
        let y = || value_free("y", DataType::Float, &["n"]);
        let refused = |model: &ModelProto| plan(model).err().map(|error| error.to_string()).unwrap_or_default();
        let relu = model(vec![x()], vec![node("Relu", &["x"], &["y"], vec![])], vec![y()], vec![]);
        assert!(refused(&relu).contains("operator Relu y is not served"));
        let mut foreign = node("Identity", &["x"], &["y"], vec![]);
        foreign.domain = "com.example".into();
        assert!(refused(&model(vec![x()], vec![foreign], vec![y()], vec![])).contains("not served"));
        let cycle = vec![node("Identity", &["b"], &["y"], vec![]), node("Identity", &["y"], &["b"], vec![])];
        assert!(refused(&model(vec![x()], cycle, vec![y()], vec![])).contains("does not come from an input"));
        let double = value_free("y", DataType::Double, &["n"]);
        let lie = model(vec![x()], vec![node("Identity", &["x"], &["y"], vec![])], vec![double], vec![]);
        assert!(refused(&lie).contains("declares FP64"));
    }
}
