//! Two products in a row as one, where that is faster: a layer that was factorized is not slower than it was whole.
//!
//! The first makes values that only the second takes, with no function between, so that the product of both weights answers
//! as they do, but for rounding. Where it has more of them, but not many times more, loads measure which is faster, on weights
//! that are made up: what they are is computed when they are to be used.

use kinglet_kernels::{Activation, Aligned};

use super::layers::{self, Io, Layer, Lowering, View, ViewMut};
use crate::engine::graph::infer::{Facts, infer};
use crate::engine::graph::op::{Conv, Linear, Padding};
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Fact, Graph, Node, Op, floats, floats_in, tensor_holding};
use crate::engine::pool::Team;
use crate::tensor::{DType, Shape, Tensor};

/// Makes one node of every two that are faster so.
pub(super) fn settle(graph: &mut Graph, samples: &Samples, lowering: Lowering<'_>) {
    for at in 0..graph.nodes.len() {
        if let Some(two) = Two::of(graph, at)
            && two.is_faster_as_one(graph, samples, lowering)
            && let Some((weights, bias)) = two.product(graph, lowering)
        {
            two.put(graph, weights, bias);
        }
    }
    graph.drop_dead();
}

/// Nodes of a graph, the second taking what the first makes.
#[derive(Clone, Copy, Debug)]
struct Two {
    first: usize,
    second: usize,
    /// Weights of both that are not zero, and of their product: multiply-adds of a pixel or row.
    weights: [usize; 2],
}

impl Two {
    fn of(graph: &Graph, second: usize) -> Option<Self> {
        if !matches!(graph.nodes[second].op, Op::Linear(_) | Op::Conv(_)) {
            return None;
        }
        let first = graph.sole_maker(*graph.nodes[second].inputs.first()?, second)?;
        let nodes = [&graph.nodes[first], &graph.nodes[second]];
        let goes_on = |residual: bool, activation: Activation| !residual && activation == Activation::None;
        let fits = match (&nodes[0].op, &nodes[1].op) {
            (Op::Linear(first), Op::Linear(_)) => goes_on(first.residual, first.activation),
            (Op::Conv(first), Op::Conv(second)) => {
                let is_exact = first.exact || second.exact;
                goes_on(first.residual, first.activation) && sees_a_pixel(second) && !is_exact
            }
            _ => false,
        };
        if !fits || graph.is_assumed(nodes[0].output) {
            return None;
        }
        let nonzero = |node: &Node| {
            let are_known = own(node).all(|at| graph.constant(node.inputs[at]).is_some());
            let weights = graph.constant(node.inputs[1]).filter(|_| are_known && graph.grain(node.inputs[1]).is_none());
            Some(floats_in(weights?)?.iter().filter(|weight| **weight != 0.0).count())
        };
        let two = nonzero(nodes[0])? + nonzero(nodes[1])?;
        // Between groups stand zeros: a few weights of many channels may be a large matrix.
        let weights = |node: &Node| graph.constant(node.inputs[1]).map_or(0, Tensor::element_count);
        if nodes
            .iter()
            .any(|node| weights(node).saturating_mul(groups(node)) > WITH_ZEROS_MAX * weights(node).max(SMALL))
        {
            return None;
        }
        let one = shape(graph, nodes).iter().product();
        (two > 0 && one > 0).then_some(Self { first, second, weights: [two, one] })
    }

    fn nodes(self, graph: &Graph) -> [&Node; 2] {
        [&graph.nodes[self.first], &graph.nodes[self.second]]
    }

    fn is_faster_as_one(self, graph: &Graph, samples: &Samples, lowering: Lowering<'_>) -> bool {
        let [two, one] = self.weights;
        let Some(tuning) = lowering.tuning.filter(|_| two < one && one < TRIED_MAX * two) else { return one <= two };
        let nodes = self.nodes(graph);
        let Some(x) = tried_on(nodes[0], samples) else { return false };
        let [first, second] = nodes
            .map(|node| graph.constant(node.inputs[1]).map_or_else(String::new, |weights| weights.shape().to_string()));
        let window = match &nodes[0].op {
            Op::Conv(conv) => format!(" {:?} by {:?}", conv.window.stride, conv.window.dilation),
            _ => String::new(),
        };
        let precision = lowering.precision;
        let name = format!("{precision:?} {first}{window} then {second} of {two} weights over {}", x.shape);
        let chosen = tuning.choose(&name, &(1..=2), &|candidate| candidate, || {
            // Within a measurement nothing is chosen by another.
            let plain = Lowering { tuning: None, ..lowering };
            let two = Trial::of_two(graph, nodes, samples, plain, &x);
            let mut ways = two.zip(Trial::of_one(graph, nodes, samples, plain, &x));
            // Extents that none can be tried on are such for both.
            move |candidate: &usize| {
                if let Some((two, one)) = &mut ways {
                    (if *candidate == 1 { two } else { one }).run();
                }
            }
        });
        chosen == Some(2)
    }

    /// The weights of one node that does what both do, and its bias.
    fn product(self, graph: &Graph, lowering: Lowering<'_>) -> Option<(Tensor, Option<Vec<f32>>)> {
        let nodes = self.nodes(graph);
        let multiplied = |a: &Tensor, b: &Tensor| {
            let mut graph = Graph::default();
            let operands = [graph.add_value("a"), graph.add_value("b")];
            graph.add("", Op::MatMul, &operands);
            layers::evaluate(&graph, &graph.nodes[0], &[a, b], lowering.level)
        };
        // A line for each output.
        let [first, second] = nodes.map(|node| matrix(graph, node));
        let ((first, second), extents) = (first.zip(second)?, shape(graph, nodes));
        let product = floats(&multiplied(&second, &first)?)?;
        let bias = nodes.map(|node| {
            own(node).nth(1).filter(|_| has_bias(node)).and_then(|at| floats(graph.constant(node.inputs[at])?))
        });
        let through = match &bias[0] {
            Some(bias) => Some(floats(&multiplied(&second, &tensor_holding(&[bias.len(), 1], bias.clone()))?)?),
            None => None,
        };
        let [_, own] = bias;
        let bias = match (through, own) {
            (Some(through), Some(own)) => Some(through.iter().zip(own).map(|(a, b)| a + b).collect()),
            (through, own) => through.or(own),
        };
        let numbers = product.iter().chain(bias.iter().flatten());
        let are_finite = numbers.into_iter().all(|number| number.is_finite());
        let product = match &nodes[0].op {
            Op::Conv(_) => tensor_holding(&extents, product),
            _ => tensor_holding(&extents, transposed(&product, extents[0])),
        };
        are_finite.then_some((product, bias))
    }

    /// Puts one node where the second is, and leaves the first to nobody.
    fn put(self, graph: &mut Graph, weights: Tensor, bias: Option<Vec<f32>>) {
        let [first, second] = self.nodes(graph).map(Node::clone);
        let name = format!("{} * {}", first.name, second.name);
        let op = together([&first, &second], bias.is_some(), has_residual(&second));
        let weights = graph.add_constant(format!("{name} weights"), weights);
        let bias = bias.map(|bias| graph.add_constant(format!("{name} bias"), tensor_holding(&[bias.len()], bias)));
        let residual = second.inputs.last().copied().filter(|_| has_residual(&second));
        let inputs = [first.inputs[0], weights].into_iter().chain(bias).chain(residual).collect();
        graph.nodes[self.second] = Node { name, op, inputs, output: second.output };
        graph.nodes[self.first].inputs.clear();
    }
}

/// Whether a convolution makes each pixel of the one that stands there.
fn sees_a_pixel(conv: &Conv) -> bool {
    let window = &conv.window;
    let is_bare = window.padding == (Padding::Given { before: [0; 2], after: [0; 2] });
    window.kernel == [1, 1] && window.stride == [1, 1] && is_bare
}

/// Where the constants of a layer stand among its operands: weights, a bias, a scale.
fn own(node: &Node) -> impl Iterator<Item = usize> {
    let others = match &node.op {
        Op::Conv(conv) => usize::from(conv.bias) + usize::from(conv.scale),
        _ => usize::from(has_bias(node)),
    };
    1..2 + others
}

fn has_bias(node: &Node) -> bool {
    match &node.op {
        Op::Conv(conv) => conv.bias,
        Op::Linear(linear) => linear.bias,
        _ => false,
    }
}

fn has_residual(node: &Node) -> bool {
    match &node.op {
        Op::Conv(conv) => conv.residual,
        Op::Linear(linear) => linear.residual,
        _ => false,
    }
}

/// The operator of one node in place of two.
fn together([first, second]: [&Node; 2], bias: bool, residual: bool) -> Op {
    match (&first.op, &second.op) {
        (Op::Conv(first), Op::Conv(second)) => {
            let (window, activation) = (first.window.clone(), second.activation);
            Op::Conv(Conv { window, groups: 1, bias, scale: false, residual, activation, exact: false })
        }
        (_, Op::Linear(second)) => Op::Linear(Linear { bias, residual, activation: second.activation }),
        (_, other) => other.clone(),
    }
}

/// The extents of its weights.
fn shape(graph: &Graph, [first, second]: [&Node; 2]) -> Vec<usize> {
    let extents =
        |node: &Node| graph.constant(node.inputs[1]).map_or_else(Vec::new, |weights| weights.shape().to_vec());
    match (&first.op, &extents(first)[..], &extents(second)[..]) {
        (Op::Conv(conv), [_, depth, taps @ ..], [outputs, ..]) => [&[*outputs, depth * conv.groups], taps].concat(),
        (_, [depth, _], [_, outputs]) => vec![*depth, *outputs],
        _ => vec![0],
    }
}

fn groups(node: &Node) -> usize {
    if let Op::Conv(conv) = &node.op { conv.groups } else { 1 }
}

/// Weights with a line for each output, zeros between groups.
fn matrix(graph: &Graph, node: &Node) -> Option<Tensor> {
    let weights = graph.constant(node.inputs[1])?;
    let elements = floats_in(weights)?;
    let Op::Conv(conv) = &node.op else {
        let &[depth, outputs] = &weights.shape()[..] else { return None };
        return Some(tensor_holding(&[outputs, depth], transposed(&elements, outputs)));
    };
    let scale = if conv.scale { Some(floats(graph.constant(node.inputs[conv.scale_at()])?)?) } else { None };
    let (outputs, each) = (weights.shape()[0], elements.len() / weights.shape()[0].max(1));
    let mut lines = vec![0.0; outputs * each * conv.groups];
    for (at, (line, own)) in lines.chunks_mut(each * conv.groups).zip(elements.chunks(each)).enumerate() {
        let scale = scale.as_ref().map_or(1.0, |scale| scale[at]);
        let group = at / (outputs / conv.groups);
        line[group * each..][..each].iter_mut().zip(own).for_each(|(to, from)| *to = from * scale);
    }
    Some(tensor_holding(&[outputs, each * conv.groups], lines))
}

/// Of lines of so many columns.
fn transposed(elements: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| elements.iter().skip(column).step_by(columns).copied()).collect()
}

/// A few lines of an image, or rows, as the first of two nodes takes them.
fn tried_on(node: &Node, samples: &Samples) -> Option<Fact> {
    let [x, made] = [node.inputs[0], node.output].map(|value| samples.0[0].get(value));
    let (x, made) = (&x?.shape, &made?.shape);
    let (&depth, before) = x.split_last()?;
    let shape = match &node.op {
        Op::Conv(conv) if conv.window.axes == 2 => {
            let window = &conv.window;
            let lines = PIXELS.div_ceil(made[2].max(1)).next_multiple_of(TILE).min(made[1]).max(1);
            let seen = (lines - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1;
            vec![1, seen.min(x[1]), x[2], depth]
        }
        Op::Conv(_) => vec![1, x[1], depth],
        _ => vec![before.iter().product::<usize>().min(ROWS), depth],
    };
    Some(Fact::new(DType::F32, Shape::new(&shape)))
}

/// Layers that run one after the other over a made-up image.
struct Trial {
    x: Fact,
    image: Aligned,
    steps: Vec<Step>,
}

struct Step {
    layer: Box<dyn Layer>,
    made: Fact,
    room: Aligned,
    scratch: Aligned,
}

impl Trial {
    fn of_two(graph: &Graph, nodes: [&Node; 2], samples: &Samples, lowering: Lowering<'_>, x: &Fact) -> Option<Self> {
        let mut trial = Self::over(x);
        for node in nodes {
            trial.add(graph, node, samples.0[0].get(node.output), lowering)?;
        }
        Some(trial)
    }

    /// With weights of the right extents.
    fn of_one(graph: &Graph, nodes: [&Node; 2], samples: &Samples, lowering: Lowering<'_>, x: &Fact) -> Option<Self> {
        let shape = shape(graph, nodes);
        let mut graph = Graph::default();
        let weights = tensor_holding(&shape, vec![0.5; shape.iter().product()]);
        let inputs = vec![graph.add_value(""), graph.add_constant("", weights)];
        let node = Node { name: String::new(), op: together(nodes, false, false), output: inputs[0], inputs };
        let mut trial = Self::over(x);
        trial.add(&graph, &node, samples.0[0].get(nodes[1].output), lowering)?;
        Some(trial)
    }

    fn over(x: &Fact) -> Self {
        let mut image = Aligned::zeroed(x.bytes().unwrap_or(0));
        // Zeros would be left out.
        image.elements_mut::<f32>().fill(0.5);
        Self { x: x.clone(), image, steps: Vec::new() }
    }

    /// A layer, without what is added to it from elsewhere. `sample` is what it makes of a whole image.
    fn add(&mut self, graph: &Graph, node: &Node, sample: Option<&Fact>, lowering: Lowering<'_>) -> Option<()> {
        let mut node = node.clone();
        match &mut node.op {
            Op::Conv(conv) => conv.residual = false,
            Op::Linear(linear) => linear.residual = false,
            _ => {}
        }
        node.inputs.truncate(1 + own(&node).count());
        let layer = layers::lower(graph, &node, sample, lowering).ok()?.layer;
        let x = self.steps.last().map_or(&self.x, |step| &step.made).clone();
        let constants: Vec<Fact> =
            node.inputs[1..].iter().filter_map(|&value| Some(Fact::of(graph.constant(value)?.clone()))).collect();
        let facts: Facts<'_> = std::iter::once(&x).chain(&constants).collect();
        let made = infer(&node.op, &facts).ok()?;
        let (room, scratch) = (Aligned::zeroed(made.bytes()?), Aligned::zeroed(layer.scratch(&facts, 1)));
        self.steps.push(Step { layer, made, room, scratch });
        Some(())
    }

    fn run(&mut self) {
        let (mut fact, mut image) = (&self.x, &self.image);
        for Step { layer, made, room, scratch } in &mut self.steps {
            let operands = [View { fact, bytes: &image.elements()[..fact.bytes().unwrap_or(0)] }].into_iter().collect();
            let bytes = made.bytes().unwrap_or(0);
            let output = ViewMut { fact: made, bytes: &mut room.elements_mut()[..bytes] };
            layer.run(&mut Io { operands, output, scratch: scratch.elements_mut() }, &mut Team::alone());
            (fact, image) = (made, room);
        }
    }
}

/// How many times its weights a matrix may be that has zeros between groups, of so many weights at least.
const WITH_ZEROS_MAX: usize = 16;
const SMALL: usize = 1 << 16;

/// How many times the products of two layers their one may do, to be worth a trial.
const TRIED_MAX: usize = 3;

/// What is tried: pixels, in whole tiles of lines, and rows.
const PIXELS: usize = 256;
const TILE: usize = 4;
const ROWS: usize = 64;
