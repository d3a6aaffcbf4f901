//! Operators with graphs in them: If, Loop and Scan.
//!
//! A graph within a node sees the values around it. Those that it takes become inputs of its own behind the ones it
//! declares, constants are copied.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use super::node::Source;
use super::{Importer, dtype};
use crate::engine::graph::control::{Body, Branch, Repeat, Several};
use crate::engine::graph::op::listed;
use crate::engine::graph::{Op, ValueId, tensor_of_integers};
use crate::engine::{EngineError, proto};
use crate::proto::onnx::type_proto::Value as TypeValue;
use crate::proto::onnx::{GraphProto, ValueInfoProto};
use crate::tensor::{DType, Shape, Tensor};

pub(super) fn branch(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let condition = importer.operand(node, 0)?;
    let known = importer.graph.constant(condition).and_then(|constant| constant.bytes().first().copied());
    let sources = match known {
        // What is never taken need not be known.
        Some(0) => vec![node.graph("else_branch")?],
        Some(_) => vec![node.graph("then_branch")?],
        None => vec![node.graph("then_branch")?, node.graph("else_branch")?],
    };
    let around = importer.around(&sources);
    let mut bodies = Vec::new();
    for source in &sources {
        bodies.push(importer.body(source, &around, |_| Ok(()))?);
    }
    let (Some((first, dtypes)), Some((second, others))) = (bodies.first(), bodies.last()) else {
        return Ok(Vec::new());
    };
    if dtypes.len() != others.len() {
        return Err(node.invalid(&format!("its branches make {} and {} values", dtypes.len(), others.len())));
    }
    let op = Several::Branch(Branch { bodies: [first.clone(), second.clone()] });
    let given: Vec<ValueId> = [condition].into_iter().chain(importer.given(&around)).collect();
    Ok(importer.parts(node, op, &given, dtypes))
}

pub(super) fn repeat(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let source = node.graph("body")?;
    let carried = node.proto.input.len().saturating_sub(2);
    if source.input.len() != 2 + carried || source.output.len() <= carried {
        return Err(node.invalid(&format!(
            "its body takes {} and makes {} values for {carried} that are carried",
            source.input.len(),
            source.output.len()
        )));
    }
    let around = importer.around(&[source]);
    let mut dtypes = vec![DType::I64, DType::Bool];
    for at in 2..node.proto.input.len() {
        let operand = importer.operand(node, at)?;
        dtypes.push(importer.dtype(operand));
    }
    let (body, made) = importer.body(source, &around, |body| {
        let mut inputs = source.input.iter().zip(dtypes);
        inputs.try_for_each(|(input, dtype)| body.takes(&input.name, dtype).map(|_| ()))
    })?;
    let trips = match importer.optional(node, 0)? {
        Some(trips) => trips,
        None => importer.graph.add_constant("any number of rounds", tensor_of_integers(&[], &[i64::MAX])),
    };
    let condition = match importer.optional(node, 1)? {
        Some(condition) => condition,
        None => importer.graph.add_constant("at any rate", truth()),
    };
    let mut given = vec![trips, condition];
    for at in 2..node.proto.input.len() {
        given.push(importer.operand(node, at)?);
    }
    given.extend(importer.given(&around));
    let empty = source.output[1 + carried..].iter().map(declared).collect();
    Ok(importer.parts(node, Several::Repeat(Repeat { body, carried, empty }), &given, &made[1..]))
}

/// A loop over the elements of some operands along an axis of each.
pub(super) fn scan(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let source = node.graph("body")?;
    let scanned = usize::try_from(node.int("num_scan_inputs", 0)?).unwrap_or(0);
    let operands = importer.operands(node)?;
    let Some(carried) = operands.len().checked_sub(scanned).filter(|_| scanned > 0) else {
        return Err(node.invalid(&format!("num_scan_inputs is {scanned} of {} operands", operands.len())));
    };
    if source.input.len() != operands.len() || source.output.len() < carried {
        return Err(node.invalid("its body takes or makes other values than it is given"));
    }
    let collected = source.output.len() - carried;
    let along = Along {
        axes: node.listed("scan_input_axes", scanned)?,
        backwards: node.listed("scan_input_directions", scanned)?,
    };
    let around = importer.around(&[source]);
    let dtypes: Vec<DType> = operands.iter().map(|&operand| importer.dtype(operand)).collect();
    let (body, made) = importer.body(source, &around, |body| along.take_elements(body, source, (carried, &dtypes)))?;
    let mut given = Vec::new();
    for (&operand, (&axis, &backwards)) in operands[carried..].iter().zip(along.axes.iter().zip(&along.backwards)) {
        given.push(if backwards == 0 { operand } else { importer.reversed(node, operand, axis) });
    }
    let from = isize::try_from(along.axes[0]).map_err(|_| node.invalid("its axis is none"))?;
    let trips = importer.graph.add(&node.shown(), Op::Shape { from, to: None }, &[given[0]]);
    let always = importer.graph.add_constant("at any rate", truth());
    let states = operands[..carried].iter().copied();
    let given: Vec<ValueId> =
        [trips, always].into_iter().chain(states).chain(given).chain(importer.given(&around)).collect();
    let empty = source.output[carried..].iter().map(declared).collect();
    let op = Several::Repeat(Repeat { body, carried, empty });
    let mut parts = importer.parts(node, op, &given, &made[1..]);
    let axes = node.listed("scan_output_axes", collected)?;
    let backwards = node.listed("scan_output_directions", collected)?;
    for (at, part) in parts[carried..].iter_mut().enumerate() {
        if backwards[at] != 0 {
            *part = importer.reversed(node, *part, 0);
        }
        let rank = declared(&source.output[carried + at]).1.len() + 1;
        *part = importer.first_axis_to(node, *part, axes[at], rank)?;
    }
    Ok(parts)
}

/// How a scan goes along its operands.
struct Along {
    axes: Vec<i64>,
    backwards: Vec<i64>,
}

impl Along {
    /// Inputs of a body: the number of the round, whether to go on, what is carried, and what elements are taken from.
    fn take_elements(
        &self,
        body: &mut Importer,
        source: &GraphProto,
        (carried, dtypes): (usize, &[DType]),
    ) -> Result<(), EngineError> {
        let round = body.takes("the number of the round", DType::I64)?;
        body.takes("whether to go on", DType::Bool)?;
        let (states, elements) = (source.input.iter().zip(dtypes).take(carried), source.input.iter().zip(dtypes));
        for (input, &dtype) in states {
            body.takes(&input.name, dtype)?;
        }
        for ((input, &dtype), &axis) in elements.skip(carried).zip(&self.axes) {
            let whole = body.takes(&format!("all of {}", input.name), dtype)?;
            let axis = listed(axis);
            let element = body.graph.add(&input.name, Op::Gather { axis }, &[whole, round]);
            body.name(&input.name, element)?;
        }
        let on = body.graph.add_constant("going on", truth());
        body.graph.outputs.push(on);
        Ok(())
    }
}

impl Importer {
    /// The names that graphs take from around them, in the order they are met.
    fn around(&self, sources: &[&GraphProto]) -> Vec<String> {
        let mut free = Vec::new();
        let mut seen = HashSet::new();
        for source in sources {
            free_names(source, &mut |name| {
                if self.values.contains_key(name) && seen.insert(name.to_owned()) {
                    free.push(name.to_owned());
                }
            });
        }
        free
    }

    /// The values that a body is given from around it.
    fn given(&self, around: &[String]) -> Vec<ValueId> {
        let values = around.iter().filter_map(|name| self.values.get(name).copied());
        values.filter(|&value| self.graph.constant(value).is_none()).collect()
    }

    /// A graph within a node, and the types of what it makes. `begin` makes its own inputs.
    fn body(
        &mut self,
        source: &GraphProto,
        around: &[String],
        begin: impl FnOnce(&mut Self) -> Result<(), EngineError>,
    ) -> Result<(Body, Vec<DType>), EngineError> {
        let mut body = Self {
            versions: self.versions.clone(),
            calls: self.calls.clone(),
            foreign: self.foreign.clone(),
            dense_bytes_left: Rc::clone(&self.dense_bytes_left),
            ..Self::default()
        };
        body.constants(source)?;
        begin(&mut body)?;
        for name in around {
            let value = self.value(name)?;
            match self.graph.constant(value) {
                Some(constant) => {
                    let grain = self.graph.grain(value).cloned();
                    let constant = body.graph.add_grained(name, constant.clone(), grain);
                    body.name(name, constant)?;
                }
                None => {
                    body.takes(name, self.dtype(value))?;
                }
            }
        }
        body.nodes(source)?;
        for output in &source.output {
            let value = body.value(&output.name)?;
            body.graph.decode(value);
            body.graph.outputs.push(value);
        }
        let outputs = body.graph.outputs.clone();
        let dtypes = outputs.into_iter().map(|output| body.dtype(output)).collect();
        Ok((Body(Arc::new(body.graph)), dtypes))
    }

    /// An input of a graph within a node.
    fn takes(&mut self, name: &str, dtype: DType) -> Result<ValueId, EngineError> {
        let value = self.graph.add_value(name);
        self.graph.inputs.push(value);
        self.declare(value, dtype);
        self.name(name, value)?;
        Ok(value)
    }

    pub(super) fn parts(
        &mut self,
        node: &Source<'_>,
        several: Several,
        given: &[ValueId],
        dtypes: &[DType],
    ) -> Vec<ValueId> {
        let all = self.graph.add(&node.shown(), Op::Several(several), given);
        let part = |(part, &dtype): (usize, &DType)| {
            let part = self.graph.add(&node.shown(), Op::Part(part), &[all]);
            self.declare(part, dtype);
            part
        };
        dtypes.iter().enumerate().map(part).collect()
    }

    /// With the elements along an axis in the opposite order.
    fn reversed(&mut self, node: &Source<'_>, value: ValueId, axis: i64) -> ValueId {
        let [from, to, axis, step] = [-1, i64::MIN, axis, -1].map(|number| self.list_of(&node.shown(), &[number]));
        self.graph.add(&node.shown(), Op::Slice, &[value, from, to, axis, step])
    }

    fn first_axis_to(
        &mut self,
        node: &Source<'_>,
        value: ValueId,
        axis: i64,
        rank: usize,
    ) -> Result<ValueId, EngineError> {
        let at = if axis < 0 { axis + i64::try_from(rank).unwrap_or(0) } else { axis };
        let at = usize::try_from(at).ok().filter(|at| *at < rank);
        let at = at.ok_or_else(|| node.invalid(&format!("axis {axis} is none of {rank}")))?;
        if at == 0 {
            return Ok(value);
        }
        let mut axes: Vec<usize> = (1..rank).collect();
        axes.insert(at, 0);
        Ok(self.graph.add(&node.shown(), Op::Transpose { axes }, &[value]))
    }
}

impl Source<'_> {
    /// Numbers for each of so many values, zeros where they are missing.
    fn listed(&self, name: &str, count: usize) -> Result<Vec<i64>, EngineError> {
        let listed = self.ints(name)?.unwrap_or_else(|| vec![0; count]);
        match listed.len() == count {
            true => Ok(listed),
            false => Err(self.invalid(&format!("{name} has {} numbers for {count} values", listed.len()))),
        }
    }

    fn graph(&self, name: &str) -> Result<&GraphProto, EngineError> {
        let graph = proto::attribute(self.proto, name).and_then(|attribute| attribute.g.as_ref());
        graph.ok_or_else(|| self.invalid(&format!("its graph {name} is missing")))
    }
}

/// Names that a graph takes and does not make, those of graphs within it included.
fn free_names(source: &GraphProto, found: &mut dyn FnMut(&str)) {
    let constants = source.initializer.iter().map(|constant| constant.name.as_str());
    let inputs = source.input.iter().map(|input| input.name.as_str());
    let made = source.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let own: HashSet<&str> = constants.chain(inputs).chain(made).collect();
    let mut free = |name: &str| {
        if !own.contains(name) {
            found(name);
        }
    };
    for node in &source.node {
        node.input.iter().filter(|name| !name.is_empty()).for_each(|name| free(name));
        let graphs = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        graphs.for_each(|graph| free_names(graph, &mut free));
    }
    source.output.iter().for_each(|output| free(&output.name));
}

/// What a graph says of a value that is collected; extents that it leaves open are zero.
fn declared(value: &ValueInfoProto) -> (DType, Shape) {
    let Some(TypeValue::TensorType(tensor)) = value.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return (DType::F32, Shape::new(&[]));
    };
    let extent = |dim: &crate::proto::onnx::tensor_shape_proto::Dimension| match dim.value {
        Some(crate::proto::onnx::tensor_shape_proto::dimension::Value::DimValue(extent)) => {
            usize::try_from(extent).unwrap_or(0)
        }
        _ => 0,
    };
    let shape = tensor.shape.iter().flat_map(|shape| &shape.dim).map(extent).collect();
    (dtype(tensor.elem_type).unwrap_or(DType::F32), shape)
}

fn truth() -> Tensor {
    Tensor::new(DType::Bool, Shape::new(&[]), vec![1].into()).expect("one byte is one truth value")
}
