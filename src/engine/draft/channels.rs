//! Channels that layers share: what one makes, others take, and sums, scales and layers of single channels tie together,
//! so that a channel is there for all of them or for none.

use std::collections::HashMap;
use std::iter;

use super::layer::takers;
use super::{Draft, WeightLayer};
use crate::engine::proto::attribute;
use crate::proto::onnx::{GraphProto, NodeProto};

/// Channels that only layers take, so that any of them can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    pub count: usize,
    /// Layers that make them, and those that work on each by itself.
    pub makers: Vec<WeightLayer>,
    /// Layers of which each output sees all of them, in the order that they run.
    pub takers: Vec<WeightLayer>,
    /// Other constants that have a place for each, and the axis of these places.
    pub(super) along: Vec<(String, usize)>,
}

/// All channels of a draft that can go, in the order of their first takers.
pub(super) fn find(draft: &Draft) -> Vec<Channels> {
    let (graph, layers) = (draft.graph(), draft.layers());
    let by_weights = layers.iter().map(|layer| (layer.weights.as_str(), layer)).collect();
    let mut ties = Ties { graph, layers: by_weights, taken: takers(graph), spaces: Vec::new(), places: HashMap::new() };
    graph.node.iter().for_each(|node| ties.walk(node));
    graph.output.iter().for_each(|output| ties.fix(&output.name));
    let is_free = |space: &Space| !space.fixed && space.joined.is_none() && !space.channels.takers.is_empty();
    let mut free: Vec<Channels> = ties.spaces.into_iter().filter(is_free).map(|space| space.channels).collect();
    let place = |of: &WeightLayer| layers.iter().position(|layer| layer.weights == of.weights);
    free.iter_mut().for_each(|channels| channels.takers.sort_by_key(place));
    free.sort_by_key(|channels| place(&channels.takers[0]));
    free
}

/// What is known of channels before the whole graph was seen.
struct Space {
    channels: Channels,
    /// Whether something takes them that is no layer.
    fixed: bool,
    /// The space that this one turned out to be.
    joined: Option<usize>,
}

/// Where a value has channels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    /// Before so many axes of an image.
    Image(usize),
    /// Along the last axis, maybe several places in a row for each.
    Row,
}

struct Ties<'a> {
    graph: &'a GraphProto,
    layers: HashMap<&'a str, &'a WeightLayer>,
    taken: HashMap<&'a str, usize>,
    spaces: Vec<Space>,
    places: HashMap<&'a str, (usize, Axis)>,
}

impl<'a> Ties<'a> {
    fn walk(&mut self, node: &'a NodeProto) {
        let layer = node.input.get(1).and_then(|weights| self.layers.get(weights.as_str()).copied());
        let operator = if matches!(node.domain.as_str(), "" | "ai.onnx") { node.op_type.as_str() } else { "" };
        // Others may be places of channels, or masks of them.
        let is_said_once = node.output.iter().skip(1).all(|other| !self.taken.contains_key(other.as_str()));
        let axis = node.input.first().and_then(|input| self.place(input)).map(|(_, axis)| axis);
        let is_image = matches!(axis, Some(Axis::Image(_)));
        let flattens = || attribute(node, "axis").is_none_or(|axis| axis.i == 1);
        match (layer, operator) {
            (Some(layer), _) => self.layer(node, layer),
            (_, operator) if JOINING.contains(&operator) => self.join(node),
            (_, "BatchNormalization") if is_said_once => self.normalize(node),
            (_, "Flatten") if is_image && flattens() => self.pass(node, Some(Axis::Row)),
            (_, operator) if POOLS.contains(&operator) && is_image && is_said_once => self.pass(node, axis),
            (_, operator) if CHANNELWISE.contains(&operator) && is_said_once => self.pass(node, axis),
            _ => named(node).into_iter().for_each(|value| self.fix(value)),
        }
    }

    fn layer(&mut self, node: &'a NodeProto, layer: &WeightLayer) {
        let (input, taps) =
            (&node.input[0], layer.windows.as_ref().map_or(1, |windows| windows.kernel.iter().product()));
        let axis = layer.windows.as_ref().map_or(Axis::Row, |windows| Axis::Image(windows.kernel.len()));
        let found = self.place(input).filter(|&(_, met)| met == axis);
        let count = |space: usize| self.spaces[space].channels.count;
        let each_alone = layer.groups() == layer.outputs && layer.depth == taps;
        let space = match found {
            Some((space, _)) if layer.groups() > 1 && each_alone && count(space) == layer.outputs => {
                self.spaces[space].channels.makers.push(layer.clone());
                space
            }
            _ => {
                let fits = |space| match axis {
                    Axis::Image(_) => layer.depth == count(space) * taps,
                    Axis::Row => layer.depth.is_multiple_of(count(space)),
                };
                match found.filter(|&(space, _)| layer.groups() == 1 && fits(space)) {
                    Some((space, _)) => self.spaces[space].channels.takers.push(layer.clone()),
                    None => self.fix(input),
                }
                if layer.groups() > 1 {
                    return;
                }
                let channels =
                    Channels { count: layer.outputs, makers: vec![layer.clone()], takers: vec![], along: vec![] };
                self.spaces.push(Space { channels, fixed: false, joined: None });
                self.spaces.len() - 1
            }
        };
        for bias in node.input.iter().skip(2).filter(|bias| !bias.is_empty()) {
            self.constant(bias, space, Axis::Row);
        }
        self.places.insert(&node.output[0], (space, axis));
    }

    fn normalize(&mut self, node: &'a NodeProto) {
        if let Some((space, axis)) = self.place(&node.input[0]) {
            node.input[1..].iter().for_each(|each| self.constant(each, space, Axis::Row));
            self.places.insert(&node.output[0], (space, axis));
        } else {
            node.input.iter().for_each(|input| self.fix(input));
        }
    }

    /// A function of elements that stand at one place.
    fn join(&mut self, node: &'a NodeProto) {
        let Some((first, axis)) = node.input.iter().find_map(|input| self.place(input)) else { return };
        let mut space = first;
        for input in &node.input {
            match self.place(input) {
                Some((other, met)) if met == axis => space = self.tie(space, other),
                Some(_) => {
                    self.fix(input);
                    self.spaces[space].fixed = true;
                }
                None => self.constant(input, space, axis),
            }
        }
        self.places.insert(&node.output[0], (space, axis));
    }

    fn pass(&mut self, node: &'a NodeProto, axis: Option<Axis>) {
        node.input.iter().skip(1).for_each(|other| self.fix(other));
        if let Some(((space, _), axis)) = self.place(&node.input[0]).zip(axis) {
            self.places.insert(&node.output[0], (space, axis));
        }
    }

    /// Has what else is done to channels go with them, if it is a constant of one element, or of one for each.
    fn constant(&mut self, name: &str, space: usize, axis: Axis) {
        let count = self.spaces[space].channels.count;
        let behind = if let Axis::Image(axes) = axis { axes } else { 0 };
        let found = self.graph.initializer.iter().find(|constant| constant.name == name);
        let dims: Option<Vec<usize>> =
            found.map(|found| found.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect());
        let place = |dims: &Vec<usize>| dims.len().checked_sub(1 + behind).filter(|&at| dims[at] == count);
        match dims.as_ref().map(|dims| (dims.iter().product::<usize>(), place(dims))) {
            Some((1, _)) => {}
            Some((elements, Some(at))) if elements == count && self.taken.get(name) == Some(&1) => {
                self.spaces[space].channels.along.push((name.to_owned(), at));
            }
            _ => {
                self.fix(name);
                self.spaces[space].fixed = true;
            }
        }
    }

    /// Makes one space of two, if they have as many channels.
    fn tie(&mut self, a: usize, b: usize) -> usize {
        if a == b {
            return a;
        }
        let fixed = self.spaces[b].fixed || self.spaces[a].channels.count != self.spaces[b].channels.count;
        self.spaces[b].joined = Some(a);
        let Channels { makers, takers, along, .. } = self.spaces[b].channels.clone();
        let joined = &mut self.spaces[a];
        joined.fixed |= fixed;
        joined.channels.makers.extend(makers);
        joined.channels.takers.extend(takers);
        joined.channels.along.extend(along);
        a
    }

    fn place(&self, value: &str) -> Option<(usize, Axis)> {
        let &(first, axis) = self.places.get(value)?;
        let spaces = iter::successors(Some(first), |&space| self.spaces[space].joined);
        spaces.last().map(|space| (space, axis))
    }

    /// Says that something takes a value of which no channel can go.
    fn fix(&mut self, value: &str) {
        if let Some((space, _)) = self.place(value) {
            self.spaces[space].fixed = true;
        }
    }
}

/// All values that a node takes, by graphs within it too.
fn named(node: &NodeProto) -> Vec<&str> {
    let bodies = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    let within = bodies
        .flat_map(|body| body.node.iter().flat_map(named).chain(body.output.iter().map(|output| output.name.as_str())));
    node.input.iter().map(String::as_str).chain(within).collect()
}

/// Functions of single elements.
const CHANNELWISE: [&str; 10] =
    ["Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Identity", "Dropout", "Erf"];

/// Operators that make each channel of an image of the same channel before them.
const POOLS: [&str; 4] = ["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"];

/// Operators that make each element of those of several operands that stand where it does.
const JOINING: [&str; 6] = ["Add", "Sub", "Mul", "Div", "Sum", "PRelu"];
