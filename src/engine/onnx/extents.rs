//! What is known of extents while a file is read: ranks, and extents that no request changes.

use super::Importer;
use crate::engine::graph::op::{Axes, Reduce};
use crate::engine::graph::{Node, Op, ValueId, integers};

/// An extent for each axis, where it is known.
pub(super) type Extents = Vec<Option<usize>>;

impl Importer {
    /// The extents of a value, if at least its rank is known.
    pub(super) fn extents(&self, value: ValueId) -> Option<Extents> {
        if let Some(constant) = self.graph.constant(value) {
            return Some(constant.shape().iter().map(|extent| Some(*extent)).collect());
        }
        if let Some(declared) = self.declared.get(&value) {
            return Some(declared.clone());
        }
        // What earlier nodes made has been learnt.
        let maker = self.graph.nodes[self.learnt..].iter().find(|node| node.output == value)?;
        self.made(maker)
    }

    /// Keeps the extents of what nodes make that were added since.
    pub(super) fn learn(&mut self) {
        while let Some(node) = self.graph.nodes.get(self.learnt) {
            if let Some(made) = self.made(node) {
                self.declared.insert(node.output, made);
            }
            self.learnt += 1;
        }
    }

    /// Operators that ranks are asked for behind; of others nothing is known.
    fn made(&self, node: &Node) -> Option<Extents> {
        let of = |at: usize| self.extents(*node.inputs.get(at)?);
        let listed = |at: usize| integers(self.graph.constant(*node.inputs.get(at)?)?);
        match &node.op {
            Op::Cast { .. }
            | Op::Quantize { .. }
            | Op::Dequantize { .. }
            | Op::Unary(_)
            | Op::Activation(_)
            | Op::Affine { .. }
            | Op::Normalize { .. }
            | Op::Softmax { .. }
            | Op::Not => of(0),
            Op::Binary(_) | Op::Compare(_) => Some(broadcast(&of(0)?, &of(1)?)),
            Op::Transpose { axes } => {
                let x = of(0)?;
                axes.iter().map(|&axis| x.get(axis).copied()).collect()
            }
            Op::Reshape { .. } => match listed(1) {
                Some(shape) => {
                    let extent = |&extent: &i64| usize::try_from(extent).ok().filter(|extent| *extent > 0);
                    Some(shape.iter().map(extent).collect())
                }
                None => {
                    let maker = self.graph.maker(*node.inputs.get(1)?, self.graph.nodes.len())?;
                    let Node { op: Op::Shape { from: 0, to: None }, inputs, .. } = &self.graph.nodes[maker] else {
                        return None;
                    };
                    self.extents(inputs[0])
                }
            },
            Op::Linear(_) => replaced(of(0)?, of(1)?.last().copied()?),
            Op::MatMul => {
                let (a, b) = (of(0)?, of(1)?);
                let (batch, lines) = a.split_at(a.len().checked_sub(2)?);
                let (other, columns) = b.split_at(b.len().checked_sub(2)?);
                Some([broadcast(batch, other), vec![lines[0], columns[1]]].concat())
            }
            Op::Gather { axis } => {
                let (mut x, indices) = (of(0)?, of(1)?);
                let axis = if *axis < 0 { x.len().checked_add_signed(*axis)? } else { axis.unsigned_abs() };
                (axis < x.len()).then(|| x.splice(axis..=axis, indices).count())?;
                Some(x)
            }
            Op::Slice | Op::Concat { .. } => Some(vec![None; of(0)?.len()]),
            Op::Unsqueeze => Some(vec![None; of(0)?.len() + listed(1)?.len()]),
            Op::Squeeze => Some(vec![None; of(0)?.len().checked_sub(listed(1)?.len())?]),
            Op::Reduce(Reduce { keep: true, .. }) => Some(vec![None; of(0)?.len()]),
            Op::Reduce(Reduce { axes: Axes::Given(axes), .. }) => {
                Some(vec![None; of(0)?.len().checked_sub(axes.len())?])
            }
            _ => None,
        }
    }
}

/// With another last extent.
fn replaced(mut extents: Extents, last: Option<usize>) -> Option<Extents> {
    *extents.last_mut()? = last;
    Some(extents)
}

/// Of two operands that are broadcast.
fn broadcast(a: &[Option<usize>], b: &[Option<usize>]) -> Extents {
    let rank = a.len().max(b.len());
    let at = |of: &[Option<usize>], axis: usize| match axis.checked_sub(rank - of.len()) {
        Some(axis) => of[axis],
        None => Some(1),
    };
    let extent = |axis| match (at(a, axis), at(b, axis)) {
        (Some(1), other) | (other, Some(1)) => other,
        (known, other) => known.or(other),
    };
    (0..rank).map(extent).collect()
}

#[cfg(test)]
mod tests {
    use crate::tensor::DType;

    use super::*;

    /// What an operator makes of operands of these extents, each 0 where it is not known.
    fn check(op: Op, operands: &[&[usize]], expected: Option<&[usize]>) {
        let known = |extents: &[usize]| extents.iter().map(|extent| Some(*extent).filter(|it| *it > 0)).collect();
        let mut importer = Importer::default();
        let inputs: Vec<ValueId> = operands.iter().map(|_| importer.graph.add_value("x")).collect();
        let declared = inputs.iter().zip(operands).map(|(input, extents)| (*input, known(extents)));
        importer.declared = declared.collect();
        let made = importer.graph.add("y", op, &inputs);
        assert_eq!(importer.extents(made), expected.map(known), "{operands:?}");
    }

    #[test]
    fn what_operators_make() {
        for (operands, expected) in [
            ([&[1, 2, 3][..], &[5, 3, 4][..]], Some(&[5, 2, 4][..])),
            ([&[5, 2, 3], &[1, 3, 4]], Some(&[5, 2, 4])),
            ([&[7, 1, 2, 3], &[5, 3, 4]], Some(&[7, 5, 2, 4])),
            ([&[2, 3], &[7, 5, 3, 4]], Some(&[7, 5, 2, 4])),
            ([&[0, 2, 3], &[1, 3, 4]], Some(&[0, 2, 4])),
            ([&[0, 2, 3], &[0, 3, 0]], Some(&[0, 2, 0])),
            ([&[5, 2, 3], &[3]], None),
            ([&[3], &[5, 3, 4]], None),
        ] {
            check(Op::MatMul, &operands, expected);
        }
        check(Op::Transpose { axes: vec![2, 0, 1] }, &[&[2, 0, 4]], Some(&[4, 2, 0]));
        check(Op::Cast { to: DType::I64 }, &[&[2, 0]], Some(&[2, 0]));
        check(Op::Gather { axis: -1 }, &[&[2, 3], &[4, 5]], Some(&[2, 4, 5]));
        check(Op::Gather { axis: 2 }, &[&[2, 3], &[4, 5]], None);
        check(Op::Concat { axis: 0 }, &[&[2, 3], &[4, 3]], Some(&[0, 0]));
    }
}
