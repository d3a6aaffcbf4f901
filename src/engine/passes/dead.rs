//! Removes channels that are always zero, and those that nobody looks at: filters that were pruned as a whole leave both
//! behind. What makes and what takes such a channel goes with it.

use crate::engine::graph::{Grain, Graph, Op, ValueId, floats_in};
use crate::tensor::{Shape, Tensor};

pub(super) fn remove(graph: &mut Graph) {
    // The last layers first: what they do not look at, those before them need not make.
    for at in (0..graph.nodes.len()).rev() {
        if let Some(maker) = maker(graph, at)
            && let Some(kept) = kept(graph, maker, at)
        {
            cut(graph, maker, true, &kept);
            cut(graph, at, false, &kept);
        }
    }
}

/// The layer whose channels reach the one at `taker` and nobody else, whatever is done to each by itself between.
fn maker(graph: &Graph, taker: usize) -> Option<usize> {
    axes(graph, taker)?;
    let mut at = taker;
    loop {
        at = graph.sole_maker(graph.nodes[at].inputs[0], at)?;
        if graph.is_assumed(graph.nodes[at].output) {
            return None;
        }
        match &graph.nodes[at].op {
            Op::Activation(_) | Op::Pool(_) => {}
            _ => return axes(graph, at).map(|_| at),
        }
    }
}

/// The axes of channels that a layer makes and takes, among those of its constant weights.
fn axes(graph: &Graph, at: usize) -> Option<[usize; 2]> {
    let node = &graph.nodes[at];
    let axes = match &node.op {
        Op::Conv(conv) if conv.groups == 1 && !conv.residual => [0, 1],
        Op::Linear(linear) if !linear.residual => [1, 0],
        _ => return None,
    };
    node.inputs[1..].iter().all(|&input| graph.constant(input).is_some()).then_some(axes)
}

/// Which channels between two layers are left; nothing if all are.
fn kept(graph: &Graph, maker: usize, taker: usize) -> Option<Vec<bool>> {
    let [makes, _] = axes(graph, maker)?;
    let [_, takes] = axes(graph, taker)?;
    let made = used(graph.constant(graph.nodes[maker].inputs[1])?, makes)?;
    let taken = used(graph.constant(graph.nodes[taker].inputs[1])?, takes)?;
    let at_rest = at_rest(graph, maker, taker, made.len())?;
    if made.len() != taken.len() {
        return None;
    }
    let mut kept: Vec<bool> =
        (0..made.len()).map(|channel| taken[channel] && (made[channel] || at_rest[channel] != 0.0)).collect();
    // A layer without channels is none.
    if !kept.contains(&true) {
        *kept.first_mut()? = true;
    }
    kept.contains(&false).then_some(kept)
}

/// What each channel of the first layer is for the second where its weights are all zero.
fn at_rest(graph: &Graph, maker: usize, taker: usize, channels: usize) -> Option<Vec<f32>> {
    let node = &graph.nodes[maker];
    let (bias, activation) = match &node.op {
        Op::Conv(conv) => (conv.bias, conv.activation),
        Op::Linear(linear) => (linear.bias, linear.activation),
        _ => return None,
    };
    let bias = if bias { floats_in(graph.constant(node.inputs[2])?)?.into_owned() } else { vec![0.0; channels] };
    let mut values: Vec<f32> = bias.into_iter().map(|x| activation.apply(x)).collect();
    let mut between = Vec::new();
    let mut at = taker;
    while at != maker {
        at = graph.sole_maker(graph.nodes[at].inputs[0], at)?;
        between.push(at);
    }
    for at in between.into_iter().rev() {
        if let Op::Activation(activation) = graph.nodes[at].op {
            values.iter_mut().for_each(|x| *x = activation.apply(*x));
        }
    }
    (values.len() == channels).then_some(values)
}

/// Whether there is anything but zeros at each place along an axis.
fn used(weights: &Tensor, axis: usize) -> Option<Vec<bool>> {
    let elements = floats_in(weights)?;
    let (extent, inner) = (*weights.shape().get(axis)?, inner(weights.shape(), axis));
    let mut used = vec![false; extent];
    // Places that nothing was found at yet: mostly none are left after the first elements.
    let mut left: Vec<usize> = (0..extent).collect();
    for all in elements.chunks_exact((extent * inner).max(1)) {
        if left.is_empty() {
            break;
        }
        left.retain(|&place| {
            used[place] = all[place * inner..][..inner].iter().any(|&element| element != 0.0);
            !used[place]
        });
    }
    Some(used)
}

/// Leaves a layer the channels that are kept, of those that it makes or takes.
fn cut(graph: &mut Graph, at: usize, makes: bool, kept: &[bool]) {
    let Some([made, taken]) = axes(graph, at) else { return };
    let weights = graph.nodes[at].inputs[1];
    graph.nodes[at].inputs[1] = sliced(graph, weights, if makes { made } else { taken }, kept);
    if makes {
        // One number for each channel: a bias, a scale.
        for operand in 2..graph.nodes[at].inputs.len() {
            let each = graph.nodes[at].inputs[operand];
            graph.nodes[at].inputs[operand] = sliced(graph, each, 0, kept);
        }
    }
}

/// A constant without the places along an axis that are not kept.
fn sliced(graph: &mut Graph, value: ValueId, axis: usize, kept: &[bool]) -> ValueId {
    let Some(tensor) = graph.constant(value) else { return value };
    let mut extents = tensor.shape().to_vec();
    let run = inner(tensor.shape(), axis) * tensor.dtype().size().unwrap_or(0);
    let runs = tensor.bytes().chunks_exact(run.max(1)).enumerate();
    let bytes: Vec<u8> =
        runs.filter(|(at, _)| kept[at % kept.len()]).flat_map(|(_, run)| run.iter().copied()).collect();
    extents[axis] = kept.iter().filter(|kept| **kept).count();
    let Ok(tensor) = Tensor::new(tensor.dtype(), Shape::new(&extents), bytes.into()) else { return value };
    let grain = graph.grain(value).cloned().map(|grain| {
        let mut each = kept.iter();
        let along = grain.axis == axis && grain.scales.len() == kept.len();
        let left = grain.scales.iter().copied().filter(|_| !along || each.next().is_some_and(|kept| *kept));
        Grain { scales: left.collect(), ..grain }
    });
    graph.add_grained(graph.name(value).to_owned(), tensor, grain)
}

/// Elements from one place along an axis to the next.
fn inner(shape: &Shape, axis: usize) -> usize {
    shape[axis + 1..].iter().product()
}
