//! Functions that a model brings along: a node that calls one becomes the function's nodes.
//!
//! Names within a function are its own, and so are its versions of operator sets. A function of the name of an operator
//! takes its place.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::mem::replace;
use std::rc::Rc;

use prost::Message;

use super::node::Source;
use super::{Importer, NODES_MAX, standard};
use crate::engine::EngineError;
use crate::engine::graph::ValueId;
use crate::proto::onnx::{AttributeProto, FunctionProto, GraphProto, NodeProto};

/// Domain, name and overload.
type Key = (String, String, String);

/// The functions of a model, and how far their calls have gone.
#[derive(Clone, Default)]
pub(super) struct Calls {
    functions: Rc<HashMap<Key, Rc<Function>>>,
    /// Nodes that calls may yet become, graphs within nodes included.
    nodes_left: Rc<Cell<usize>>,
    /// From the outermost on.
    under_way: Vec<Key>,
}

pub(super) struct Function {
    proto: FunctionProto,
    /// Graphs within nodes included.
    nodes: usize,
    bytes: u64,
}

impl Calls {
    pub(super) fn of(functions: &[FunctionProto]) -> Result<Self, EngineError> {
        let mut known = HashMap::new();
        for proto in functions {
            let key = (standard(&proto.domain).to_owned(), proto.name.clone(), proto.overload.clone());
            let function = Function {
                proto: proto.clone(),
                nodes: proto.node.iter().map(nodes_of).sum(),
                bytes: proto.encoded_len() as u64,
            };
            if known.insert(key, Rc::new(function)).is_some() {
                return Err(EngineError::InvalidModel(format!("two functions are named {:?}", proto.name)));
            }
        }
        Ok(Self { functions: Rc::new(known), nodes_left: Rc::new(Cell::new(NODES_MAX)), under_way: Vec::new() })
    }

    /// What a node calls, if that is a function.
    pub(super) fn function(&self, node: &NodeProto) -> Option<Rc<Function>> {
        if self.functions.is_empty() {
            return None;
        }
        self.functions.get(&key(node)).map(Rc::clone)
    }

    fn enter(&mut self, node: &Source<'_>, function: &Function) -> Result<(), EngineError> {
        let key = key(node.proto);
        if self.under_way.contains(&key) {
            return Err(node.invalid("its function calls itself"));
        }
        if self.under_way.len() >= DEPTH_MAX {
            return Err(node.refuse(&format!("functions call each other more than {DEPTH_MAX} deep")));
        }
        let left = self.nodes_left.get().checked_sub(function.nodes);
        let left = left.ok_or_else(|| node.refuse(&format!("functions become more than {NODES_MAX} nodes")))?;
        self.nodes_left.set(left);
        self.under_way.push(key);
        Ok(())
    }
}

fn key(node: &NodeProto) -> Key {
    (standard(&node.domain).to_owned(), node.op_type.clone(), node.overload.clone())
}

/// The values that a call makes.
pub(super) fn call(
    importer: &mut Importer,
    node: &Source<'_>,
    function: &Function,
) -> Result<Vec<ValueId>, EngineError> {
    let proto = &function.proto;
    if node.proto.input.len() > proto.input.len() {
        let (given, taken) = (node.proto.input.len(), proto.input.len());
        return Err(node.invalid(&format!("its function takes {taken} operands, it has {given}")));
    }
    importer.calls.enter(node, function)?;
    importer.take_bytes(node, function.bytes)?;
    let (mut values, mut missing) = (HashMap::new(), HashSet::new());
    for (at, name) in proto.input.iter().enumerate() {
        match importer.optional(node, at)? {
            Some(value) => {
                values.insert(name.clone(), value);
            }
            None => {
                missing.insert(name.as_str());
            }
        }
    }
    let mut versions = importer.versions.clone();
    versions.extend(proto.opset_import.iter().map(|opset| (standard(&opset.domain).to_owned(), opset.version)));
    let asked = proto.output.iter().enumerate().filter(|(at, _)| node.has_output(*at)).map(|(_, name)| name);
    let taken = proto.node.iter().flat_map(|node| &node.input).chain(asked).cloned().collect();
    let around = (
        replace(&mut importer.values, values),
        replace(&mut importer.versions, versions),
        replace(&mut importer.taken, taken),
    );
    let given = Given { attributes: attributes(node.proto, proto), missing };
    let made = body(importer, node, proto, &given);
    (importer.values, importer.versions, importer.taken) = around;
    importer.calls.under_way.pop();
    made
}

fn body(
    importer: &mut Importer,
    node: &Source<'_>,
    function: &FunctionProto,
    given: &Given<'_>,
) -> Result<Vec<ValueId>, EngineError> {
    for own in &function.node {
        if given.fits(own) {
            importer.node(&Source { proto: own })?;
            continue;
        }
        let own = given.filled_in(own);
        importer.take_bytes(node, own.encoded_len() as u64)?;
        importer.node(&Source { proto: &own })?;
    }
    let outputs = function.output.iter().enumerate();
    // Nothing stands in for an output that the caller leaves out.
    let last = outputs.clone().filter(|(at, _)| node.has_output(*at)).map(|(at, _)| at + 1).max().unwrap_or(0);
    outputs.take(last).map(|(_, name)| importer.value(name)).collect()
}

/// Attributes by name: those of the call, else those that the function has by default.
fn attributes<'a>(call: &'a NodeProto, function: &'a FunctionProto) -> HashMap<&'a str, &'a AttributeProto> {
    let all = function.attribute_proto.iter().chain(&call.attribute);
    all.map(|attribute| (attribute.name.as_str(), attribute)).collect()
}

/// What a call gives to the nodes of its function.
struct Given<'a> {
    attributes: HashMap<&'a str, &'a AttributeProto>,
    /// Operands of the function that the call leaves out.
    missing: HashSet<&'a str>,
}

impl Given<'_> {
    /// Whether a node is the same in every call.
    fn fits(&self, node: &NodeProto) -> bool {
        let graph = |graph: &GraphProto| graph.node.iter().all(|node| self.fits(node));
        let fixed = |attribute: &AttributeProto| {
            attribute.ref_attr_name.is_empty() && attribute.g.iter().chain(&attribute.graphs).all(graph)
        };
        let is_there = |name: &String| !self.missing.contains(name.as_str());
        node.input.iter().all(is_there) && node.attribute.iter().all(fixed)
    }

    /// A node with the attributes that it takes from the call, and without operands that are missing.
    fn filled_in(&self, node: &NodeProto) -> NodeProto {
        let mut own = node.clone();
        for input in own.input.iter_mut().filter(|input| self.missing.contains(input.as_str())) {
            input.clear();
        }
        own.attribute = node.attribute.iter().filter_map(|attribute| self.attribute(attribute)).collect();
        own
    }

    fn attribute(&self, attribute: &AttributeProto) -> Option<AttributeProto> {
        if !attribute.ref_attr_name.is_empty() {
            let given = *self.attributes.get(attribute.ref_attr_name.as_str())?;
            return Some(AttributeProto { name: attribute.name.clone(), ..given.clone() });
        }
        let mut own = attribute.clone();
        for graph in own.g.iter_mut().chain(&mut own.graphs) {
            graph.node = graph.node.iter().map(|node| self.filled_in(node)).collect();
        }
        Some(own)
    }
}

impl Importer {
    /// Counts what is made from the file more than once.
    fn take_bytes(&self, node: &Source<'_>, bytes: u64) -> Result<(), EngineError> {
        let left = self.dense_bytes_left.get().checked_sub(bytes);
        let left = left.ok_or_else(|| node.refuse("calls of functions make the model too large"))?;
        self.dense_bytes_left.set(left);
        Ok(())
    }
}

/// A node and those in the graphs within it.
fn nodes_of(node: &NodeProto) -> usize {
    let graphs = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    1 + graphs.flat_map(|graph| &graph.node).map(nodes_of).sum::<usize>()
}

/// Calls within calls. Every one takes some of the loader's stack.
const DEPTH_MAX: usize = 32;
