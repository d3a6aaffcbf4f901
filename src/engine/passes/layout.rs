//! Pushes transpositions towards the outputs until they meet their inverse, and carries out what is left where
//! something needs it.
//!
//! Nodes are visited in order. A transposition is not carried out but remembered with its output; an operator that can
//! work on the value before it does, and remembers the same transposition with its own output.

use std::collections::HashMap;

use crate::engine::graph::infer::axis;
use crate::engine::graph::op::{Axes, Reduce};
use crate::engine::graph::samples::Samples;
use crate::engine::graph::{Graph, Node, Op, ValueId, floats_in, tensor_holding, tensor_of_integers};
use crate::tensor::Shape;

pub(super) fn push_transpositions(graph: &mut Graph, samples: &Samples) {
    let nodes = std::mem::take(&mut graph.nodes);
    let mut pass = Pass { graph, samples, owed: HashMap::new(), permuted: HashMap::new(), carried_out: HashMap::new() };
    for node in nodes {
        pass.visit(node);
    }
    pass.graph.outputs = pass.graph.outputs.clone().into_iter().map(|output| pass.carry_out(output)).collect();
}

/// A value that is `base` with axis `i` being its axis `axes[i]`.
#[derive(Clone, Debug)]
struct Owed {
    base: ValueId,
    axes: Vec<usize>,
    name: String,
}

/// A flattened value whose columns are those of `base` in another order: column `i` is its column `columns[i]`.
struct Permuted {
    base: ValueId,
    columns: Vec<usize>,
    /// The flattening, to be done where something else needs the value.
    original: Node,
}

struct Pass<'a> {
    graph: &'a mut Graph,
    samples: &'a Samples,
    owed: HashMap<ValueId, Owed>,
    permuted: HashMap<ValueId, Permuted>,
    /// Transpositions that were carried out, by what they are of.
    carried_out: HashMap<(ValueId, Vec<usize>), ValueId>,
}

impl Pass<'_> {
    fn visit(&mut self, mut node: Node) {
        let done = match &node.op {
            Op::Transpose { axes } => self.remember(&node, axes),
            Op::Activation(_) | Op::Unary(_) | Op::Cast { .. } | Op::Not => {
                self.before(&node, |_| Some(node.op.clone()))
            }
            Op::Affine { axis } => self.before(&node, |axes| Some(Op::Affine { axis: axes[*axis] })),
            Op::Softmax { axis, log } => self.before(&node, |axes| {
                Some(Op::Softmax { axis: isize::try_from(axes[place(*axis, axes.len())?]).ok()?, log: *log })
            }),
            Op::Reduce(reduce) if reduce.keep => self.before(&node, |axes| reduced(reduce, axes).map(Op::Reduce)),
            Op::Quantize { axis } => self.scaled(&node, *axis, |axis| Op::Quantize { axis }),
            Op::Dequantize { axis } => self.scaled(&node, *axis, |axis| Op::Dequantize { axis }),
            Op::Binary(_) | Op::Compare(_) => self.binary(&node),
            Op::Concat { axis } => self.concat(&node, *axis),
            Op::Flatten { axis: 1 } => self.flatten(&node),
            Op::Linear(_) => self.linear(&node),
            _ => None,
        };
        if done.is_none() {
            node.inputs = node.inputs.iter().map(|&input| self.carry_out(input)).collect();
            self.graph.nodes.push(node);
        }
    }

    fn remember(&mut self, node: &Node, axes: &[usize]) -> Option<()> {
        let input = node.inputs[0];
        let before = self.owed.get(&input).cloned();
        let (base, axes) = match before {
            Some(owed) => (owed.base, axes.iter().map(|&axis| owed.axes[axis]).collect()),
            None => (input, axes.to_vec()),
        };
        self.owe(node.output, base, axes, &node.name);
        Some(())
    }

    /// Has an operator of one varying operand work before that operand's transposition.
    fn before(&mut self, node: &Node, moved: impl FnOnce(&[usize]) -> Option<Op>) -> Option<()> {
        let owed = self.owed.get(&node.inputs[0])?.clone();
        let op = moved(&owed.axes)?;
        let mut inputs = node.inputs.clone();
        inputs[0] = owed.base;
        self.emit(node, op, inputs, owed.axes);
        Some(())
    }

    /// An operator with one scale for all elements, or for each place along an axis.
    fn scaled(&mut self, node: &Node, axis: isize, op: impl Fn(isize) -> Op) -> Option<()> {
        if self.graph.constant(node.inputs[1])?.element_count() > 1 {
            return self.before(node, |axes| Some(op(isize::try_from(axes[place(axis, axes.len())?]).ok()?)));
        }
        if let Some(Permuted { base, columns, .. }) = self.permuted.get(&node.inputs[0]) {
            let columns = columns.clone();
            let output = self.graph.add_value(self.graph.name(node.output).to_owned());
            let inputs = [*base].into_iter().chain(node.inputs[1..].iter().copied()).collect();
            self.graph.nodes.push(Node { inputs, output, ..node.clone() });
            self.permuted.insert(node.output, Permuted { base: output, columns, original: node.clone() });
            return Some(());
        }
        self.before(node, |_| Some(op(axis)))
    }

    /// Two operands with the same transposition, or one that has it and another that is given it.
    fn binary(&mut self, node: &Node) -> Option<()> {
        let owed: Vec<Option<Owed>> = node.inputs.iter().map(|input| self.owed.get(input).cloned()).collect();
        let axes = owed.iter().flatten().next()?.axes.clone();
        let inputs = node.inputs.iter().zip(owed).map(|(&input, owed)| match owed {
            Some(owed) => (owed.axes == axes).then_some(owed.base),
            None => self.moved_constant(input, &axes).or_else(|| self.transposed(input, &axes)),
        });
        let inputs: Vec<ValueId> = inputs.collect::<Option<_>>()?;
        self.emit(node, node.op.clone(), inputs, axes);
        Some(())
    }

    fn concat(&mut self, node: &Node, axis: isize) -> Option<()> {
        let owed: Vec<Owed> = node.inputs.iter().map(|input| self.owed.get(input).cloned()).collect::<Option<_>>()?;
        let axes = owed.first()?.axes.clone();
        if owed.iter().any(|other| other.axes != axes) {
            return None;
        }
        let axis = isize::try_from(axes[place(axis, axes.len())?]).ok()?;
        let inputs = owed.iter().map(|owed| owed.base).collect();
        self.emit(node, Op::Concat { axis }, inputs, axes);
        Some(())
    }

    /// A computed value as it is seen before a transposition to its own axes.
    fn transposed(&mut self, value: ValueId, axes: &[usize]) -> Option<ValueId> {
        if self.graph.constant(value).is_some() || self.samples.rank(value) != Some(axes.len()) {
            return None;
        }
        let mut inverse = vec![0; axes.len()];
        axes.iter().enumerate().for_each(|(at, &axis)| inverse[axis] = at);
        let name = self.graph.name(value).to_owned();
        Some(self.carry(Owed { base: value, axes: inverse, name }, None))
    }

    /// A constant as it is seen before a transposition to its own axes.
    fn moved_constant(&mut self, value: ValueId, axes: &[usize]) -> Option<ValueId> {
        let constant = self.graph.constant(value)?;
        let elements = constant.element_count();
        let missing = axes.len().checked_sub(constant.shape().len())?;
        let extents: Vec<usize> = std::iter::repeat_n(1, missing).chain(constant.shape().iter().copied()).collect();
        let inner = extents.iter().filter(|extent| **extent != 1).count();
        let mut before = vec![1; axes.len()];
        axes.iter().zip(&extents).for_each(|(&axis, &extent)| before[axis] = extent);
        let shape = Shape::new(&before);
        let moved = if inner <= 1 {
            constant.clone().reshaped(shape).ok()?
        } else {
            let source = floats_in(constant)?;
            let strides = dense_strides(&extents);
            let mut own = vec![0; axes.len()];
            axes.iter().zip(&strides).for_each(|(&axis, &stride)| own[axis] = stride);
            let picked: Vec<f32> = (0..elements).map(|index| source[seen(index, &before, &own)]).collect();
            tensor_holding(&before, picked)
        };
        Some(self.graph.add_constant(self.graph.name(value).to_owned(), moved))
    }

    /// Rows stay rows: the columns of what is flattened are permuted, and so may be the weights that meet them.
    fn flatten(&mut self, node: &Node) -> Option<()> {
        let owed = self.owed.get(&node.inputs[0])?.clone();
        if owed.axes.first() != Some(&0) {
            return None;
        }
        let inner: Vec<usize> = self.samples.fixed(node.inputs[0])?.into_iter().skip(1).collect::<Option<_>>()?;
        let mut before = vec![0; inner.len()];
        owed.axes[1..].iter().zip(&inner).for_each(|(&axis, &extent)| before[axis - 1] = extent);
        let strides = dense_strides(&before);
        let own: Vec<usize> = owed.axes[1..].iter().map(|&axis| strides[axis - 1]).collect();
        let columns: Vec<usize> = (0..inner.iter().product()).map(|index| seen(index, &inner, &own)).collect();
        self.graph.assume(owed.base, before.iter().enumerate().map(|(axis, &extent)| (axis + 1, extent)));
        let base = self.graph.add_value(self.graph.name(node.output).to_owned());
        let flat = Node { inputs: vec![owed.base], output: base, ..node.clone() };
        self.graph.nodes.push(flat);
        self.permuted.insert(node.output, Permuted { base, columns, original: node.clone() });
        Some(())
    }

    fn linear(&mut self, node: &Node) -> Option<()> {
        let permuted = self.permuted.get(&node.inputs[0])?;
        let (base, name) = (permuted.base, self.graph.name(node.inputs[1]).to_owned());
        if let Some(coded) = self.graph.coded(node.inputs[1]) {
            let moved = coded.with_rows_at(&permuted.columns)?;
            let weights = self.graph.add_coded(name, moved);
            self.moved_linear(node, base, weights);
            return Some(());
        }
        let weights = self.graph.constant(node.inputs[1])?;
        let (elements, &[depth, width]) = (floats_in(weights)?, &weights.shape()[..]) else { return None };
        if permuted.columns.len() != depth {
            return None;
        }
        // Of one pixel, channels lie in order whether they are first or last.
        if permuted.columns.iter().enumerate().all(|(at, &column)| at == column) {
            self.moved_linear(node, base, node.inputs[1]);
            return Some(());
        }
        let mut rows = vec![0.0; elements.len()];
        for (from, &to) in elements.chunks_exact(width.max(1)).zip(&permuted.columns) {
            rows[to * width..][..width].copy_from_slice(from);
        }
        let grain = self.graph.grain(node.inputs[1]).filter(|grain| grain.axis == 1).cloned();
        let weights = self.graph.add_grained(name, tensor_holding(&[depth, width], rows), grain);
        self.moved_linear(node, base, weights);
        Some(())
    }

    /// A product of an operand in another order with weights in that.
    fn moved_linear(&mut self, node: &Node, base: ValueId, weights: ValueId) {
        let mut moved = node.clone();
        (moved.inputs[0], moved.inputs[1]) = (base, weights);
        for input in moved.inputs.iter_mut().skip(2) {
            *input = self.carry_out(*input);
        }
        self.graph.nodes.push(moved);
    }

    fn emit(&mut self, node: &Node, op: Op, inputs: Vec<ValueId>, axes: Vec<usize>) {
        let output = self.graph.add_value(self.graph.name(node.output).to_owned());
        self.graph.nodes.push(Node { name: node.name.clone(), op, inputs, output });
        self.owe(node.output, output, axes, &node.name);
    }

    fn owe(&mut self, value: ValueId, base: ValueId, axes: Vec<usize>, name: &str) {
        self.owed.insert(value, Owed { base, axes, name: name.to_owned() });
    }

    /// The value itself, made now if it is only remembered so far.
    fn carry_out(&mut self, value: ValueId) -> ValueId {
        if let Some(Permuted { mut original, .. }) = self.permuted.remove(&value) {
            original.inputs[0] = self.carry_out(original.inputs[0]);
            self.graph.nodes.push(original);
        }
        match self.owed.get(&value).cloned() {
            Some(owed) => self.carry(owed, self.reshaping(value)),
            None => value,
        }
    }

    /// Carries a transposition out: once, whoever needs it. `extents` are those of its output where they are known and
    /// it moves nothing but axes of one element.
    fn carry(&mut self, owed: Owed, extents: Option<Vec<Option<usize>>>) -> ValueId {
        let Owed { base, axes, name } = owed;
        if axes.iter().copied().eq(0..axes.len()) {
            return base;
        }
        if let Some(&made) = self.carried_out.get(&(base, axes.clone())) {
            return made;
        }
        let (op, inputs) = match extents {
            None => (Op::Transpose { axes: axes.clone() }, vec![base]),
            // A reshape is no step: its output is its operand's place.
            Some(extents) => {
                let fixed = axes.iter().zip(&extents).filter_map(|(&axis, extent)| Some((axis, (*extent)?)));
                self.graph.assume(base, fixed);
                let shape: Vec<i64> =
                    extents.iter().map(|e| e.and_then(|e| i64::try_from(e).ok()).unwrap_or(-1)).collect();
                let shape = tensor_of_integers(&[shape.len()], &shape);
                let shape = self.graph.add_constant(format!("{name} shape"), shape);
                (Op::Reshape { allow_zero: false }, vec![base, shape])
            }
        };
        let output = self.graph.add_value(name.clone());
        self.graph.nodes.push(Node { name, op, inputs, output });
        self.carried_out.insert((base, axes), output);
        output
    }

    /// The extents of a value whose transposition moves nothing but axes of one element, one of them unknown at most.
    fn reshaping(&self, value: ValueId) -> Option<Vec<Option<usize>>> {
        let axes = &self.owed.get(&value)?.axes;
        let extents = self.samples.fixed(value)?;
        let moved = axes.iter().zip(&extents).filter(|(_, extent)| **extent != Some(1)).map(|(axis, _)| axis);
        let unknown = extents.iter().filter(|extent| extent.is_none()).count();
        (moved.is_sorted() && unknown <= 1 && !extents.contains(&Some(0))).then_some(extents)
    }
}

fn place(given: isize, rank: usize) -> Option<usize> {
    axis(given, &std::iter::repeat_n(1, rank).collect()).ok()
}

fn reduced(reduce: &Reduce, axes: &[usize]) -> Option<Reduce> {
    let places: Vec<usize> = match &reduce.axes {
        Axes::From(first) => (*first..axes.len()).collect(),
        Axes::Operand { .. } => return None,
        Axes::Given(given) => given.iter().map(|&given| place(given, axes.len())).collect::<Option<_>>()?,
    };
    let given = places.into_iter().map(|place| isize::try_from(axes[place]).ok()).collect::<Option<_>>()?;
    Some(Reduce { axes: Axes::Given(given), ..reduce.clone() })
}

fn dense_strides(extents: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; extents.len()];
    for axis in (1..extents.len()).rev() {
        strides[axis - 1] = strides[axis] * extents[axis];
    }
    strides
}

/// Where the element at `index` of a dense tensor lies, each axis having its own stride there.
fn seen(index: usize, extents: &[usize], strides: &[usize]) -> usize {
    let mut rest = index;
    let mut place = 0;
    for (&extent, &stride) in extents.iter().zip(strides).rev() {
        place += rest % extent * stride;
        rest /= extent;
    }
    place
}
