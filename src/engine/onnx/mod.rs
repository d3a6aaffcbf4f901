//! ONNX graphs into the engine's own: one importer per operator, one row of [`table`] per operator and range of
//! versions. What has no row is run by another engine, or refused by name.

mod arrangement;
mod attention;
mod bytes;
mod classes;
mod composed;
mod constant;
mod control;
mod einsum;
mod elementwise;
mod extents;
mod foreign;
mod forest;
mod formula;
mod functions;
mod fused;
mod image;
mod integer;
mod loss;
mod low_bit;
mod movement;
mod node;
mod normalization;
mod product;
mod quantization;
mod recurrent;
mod resize;
mod selection;
mod signal;
mod sparse;
mod table;
mod tabular;
mod trees;
mod types;
mod volume;
mod wide;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::graph::{Graph, Op, ValueId};
use super::{EngineChoice, EngineError, LoadOptions, TensorSpec, tract};
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::type_proto::Value as TypeValue;
use crate::proto::onnx::{GraphProto, ModelProto, TensorProto, ValueInfoProto};
use crate::tensor::{DType, Shape, Tensor};
use extents::Extents;
use functions::Calls;
use node::Source;
use table::Import;

/// The graph of a model whose inputs were read before, in their order.
pub(super) fn import(proto: &ModelProto, inputs: &[TensorSpec], options: &LoadOptions) -> Result<Graph, EngineError> {
    let no_graph = || EngineError::InvalidModel("the file has no graph".into());
    let source = proto.graph.as_ref().ok_or_else(no_graph)?;
    let versions = proto.opset_import.iter().map(|opset| (standard(&opset.domain).to_owned(), opset.version));
    let foreign = (options.engine == EngineChoice::Auto).then(|| tract::Settings::of(options));
    let dense_bytes_left = Rc::new(Cell::new(options.model_bytes_max));
    let calls = Calls::of(&proto.functions)?;
    let mut importer =
        Importer { versions: versions.collect(), calls, foreign, dense_bytes_left, ..Importer::default() };
    importer.constants(source)?;
    for input in inputs {
        let value = importer.input(input);
        importer.name(&input.name, value)?;
    }
    importer.nodes(source)?;
    for output in &source.output {
        let value = importer.value(&output.name)?;
        importer.graph.decode(value);
        let value = importer.output(value, &output.name, declared(output));
        importer.graph.outputs.push(value);
    }
    Ok(importer.graph)
}

/// Passes look at every pair of some nodes.
const NODES_MAX: usize = 20_000;

/// The type that a graph output is declared with, if it is one that is computed with.
fn declared(output: &ValueInfoProto) -> Option<DType> {
    let TypeValue::TensorType(tensor) = output.r#type.as_ref()?.value.as_ref()? else { return None };
    dtype(tensor.elem_type)
}

/// What importers add to.
#[derive(Default)]
pub(super) struct Importer {
    pub(super) graph: Graph,
    values: HashMap<String, ValueId>,
    /// Of operator sets, by domain.
    versions: HashMap<String, i64>,
    /// By value, of inputs and of what the first nodes make.
    dtypes: Vec<Option<DType>>,
    /// How many nodes those are.
    typed: usize,
    /// Extents of graph inputs that are fixed, and those that follow.
    declared: HashMap<ValueId, Extents>,
    /// How many nodes' extents those are.
    learnt: usize,
    /// Names that a node or the graph's outputs ask for.
    taken: HashSet<String>,
    calls: Calls,
    /// For operators that another engine runs, where that is allowed.
    foreign: Option<tract::Settings>,
    /// What sparse constants of the model may yet take when they are dense, and calls of functions, graphs within nodes
    /// included.
    dense_bytes_left: Rc<Cell<u64>>,
}

impl Importer {
    fn constants(&mut self, source: &GraphProto) -> Result<(), EngineError> {
        for sparse in &source.sparse_initializer {
            let name = sparse.values.as_ref().map(|values| values.name.clone()).unwrap_or_default();
            let value = self.graph.add_constant(&name, self.dense(sparse)?);
            self.name(&name, value)?;
        }
        for proto in &source.initializer {
            let value = self.graph.add_constant(&proto.name, tensor(proto)?);
            self.name(&proto.name, value)?;
        }
        Ok(())
    }

    fn nodes(&mut self, source: &GraphProto) -> Result<(), EngineError> {
        if source.node.len() > NODES_MAX {
            return Err(unsupported(
                "the graph".into(),
                &format!("it has {} nodes, at most {NODES_MAX} are read", source.node.len()),
            ));
        }
        let taken = source.node.iter().flat_map(|node| &node.input);
        let taken = taken.chain(source.output.iter().map(|output| &output.name)).filter(|name| !name.is_empty());
        self.taken = taken.cloned().collect();
        source.node.iter().try_for_each(|node| self.node(&Source { proto: node }))
    }

    fn node(&mut self, node: &Source<'_>) -> Result<(), EngineError> {
        self.decode_operands(node);
        let values = match self.calls.function(node.proto) {
            Some(function) => functions::call(self, node, &function)?,
            None => self.operator(node)?,
        };
        self.learn();
        let outputs = &node.proto.output;
        if outputs.iter().skip(values.len()).any(|name| !name.is_empty()) {
            return Err(node.refuse(&format!("it has {} outputs, {} are served", outputs.len(), values.len())));
        }
        let named = outputs.iter().zip(values).filter(|(name, _)| !name.is_empty());
        named.into_iter().try_for_each(|(name, value)| self.name(name, value))
    }

    /// The values of an operator.
    fn operator(&mut self, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
        let domain = standard(&node.proto.domain);
        let version = self.versions.get(domain).copied();
        let version = version.ok_or_else(|| {
            EngineError::InvalidModel(format!(
                "{} is of domain {domain:?}, which the model does not import",
                node.shown()
            ))
        })?;
        match table::find(domain, &node.proto.op_type, version).map(|row| row.import) {
            Some(Import::One(import)) => Ok(vec![import(self, node)?]),
            Some(Import::Several(import)) => import(self, node),
            None => {
                let reason = format!("there is no row for it at opset {version}");
                foreign::run(self, node, unsupported(node.shown(), &reason))
            }
        }
    }

    /// Whether anything takes a value of this name.
    fn is_taken(&self, name: &str) -> bool {
        self.taken.contains(name)
    }

    fn cast(&mut self, node: &Source<'_>, value: ValueId, to: DType) -> ValueId {
        self.graph.add(&node.shown(), Op::Cast { to }, &[value])
    }

    fn name(&mut self, name: &str, value: ValueId) -> Result<(), EngineError> {
        match self.values.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(EngineError::InvalidModel(format!("two values are named {name:?}"))),
        }
    }

    fn value(&self, name: &str) -> Result<ValueId, EngineError> {
        let known = self.values.get(name).copied();
        known.ok_or_else(|| EngineError::InvalidModel(format!("value {name:?} is used before anything makes it")))
    }
}

/// The standard domain by its one name.
fn standard(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn unsupported(operator: String, reason: &str) -> EngineError {
    EngineError::UnsupportedOperator { operator, reason: reason.to_owned() }
}

/// A constant whose elements were brought into raw form when the file was read.
fn tensor(proto: &TensorProto) -> Result<Tensor, EngineError> {
    let wrong = |what: String| EngineError::InvalidModel(format!("tensor {:?}: {what}", proto.name));
    let shape: Option<Shape> = proto.dims.iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let shape = shape.ok_or_else(|| wrong(format!("shape {:?} is none", proto.dims)))?;
    if let Some(tensor) = types::unpacked(proto, &shape) {
        return Ok(tensor);
    }
    let dtype = dtype(proto.data_type).ok_or_else(|| {
        unsupported(
            format!("constant {}", proto.name),
            &format!("its type {} is none that is computed with", proto.data_type),
        )
    })?;
    let tensor = Tensor::new(dtype, shape, proto.raw_data.clone());
    tensor.map(types::widened).map_err(|error| wrong(error.to_string()))
}

/// Element types that layers know.
fn dtype(data_type: i32) -> Option<DType> {
    Some(match DataType::try_from(data_type).ok()? {
        DataType::Bool => DType::Bool,
        DataType::Uint8 => DType::U8,
        DataType::Int8 => DType::I8,
        DataType::Uint16 => DType::U16,
        DataType::Int16 => DType::I16,
        DataType::Uint32 => DType::U32,
        DataType::Uint64 => DType::U64,
        DataType::Int32 => DType::I32,
        DataType::Int64 => DType::I64,
        DataType::Float16 => DType::F16,
        DataType::Float => DType::F32,
        DataType::Double => DType::F64,
        _ => return None,
    })
}
