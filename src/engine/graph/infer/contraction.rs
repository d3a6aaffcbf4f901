//! How the axes of several operands lie over each other in a sum of products.

use super::{Facts, InferError, is_number};
use crate::engine::graph::op::{Contraction, Label};
use crate::tensor::Shape;

/// The axes of the output, then those that are summed, with elements from one place to the next in every operand.
pub(in crate::engine) struct Contracted {
    pub(in crate::engine) extents: Vec<usize>,
    pub(in crate::engine) strides: Vec<Vec<usize>>,
    /// How many axes the output has.
    pub(in crate::engine) rank: usize,
}

impl Contracted {
    pub(in crate::engine) fn shape(&self) -> Shape {
        Shape::new(&self.extents[..self.rank])
    }
}

/// An axis by its name, or by its place from the last of those without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    Named(char),
    Other(usize),
}

pub(in crate::engine) fn contracted(of: &Contraction, inputs: &Facts<'_>) -> Result<Contracted, InferError> {
    if inputs.len() != of.terms.len() {
        return Err(InferError::Operands { expected: of.terms.len(), got: inputs.len() });
    }
    if let Some(other) = inputs.iter().find(|fact| !is_number(fact.dtype) || fact.dtype != inputs[0].dtype) {
        return Err(InferError::Type { expected: "numbers of one type", got: other.dtype });
    }
    let ranks: Vec<usize> = inputs.iter().map(|fact| fact.shape.len()).collect();
    let terms: Vec<Vec<Axis>> =
        of.terms.iter().zip(&ranks).map(|(term, rank)| axes(term, *rank)).collect::<Option<_>>().ok_or_else(|| {
            InferError::Rank { expected: "the axes that the equation names", got: inputs[0].shape.to_string() }
        })?;
    let others = terms.iter().flatten().filter(|axis| matches!(axis, Axis::Other(_)));
    let others = others.map(|axis| if let Axis::Other(at) = axis { at + 1 } else { 0 }).max().unwrap_or(0);
    let mut order: Vec<Axis> = Vec::new();
    for label in &of.out {
        match label {
            Label::Axis(name) => order.push(Axis::Named(*name)),
            Label::Others => order.extend((0..others).rev().map(Axis::Other)),
        }
    }
    let rank = order.len();
    for axis in terms.iter().flatten() {
        if !order.contains(axis) {
            order.push(*axis);
        }
    }
    let mut extents = vec![1; order.len()];
    let mut strides = Vec::new();
    for (term, fact) in terms.iter().zip(inputs) {
        let mut own = vec![0; order.len()];
        let mut pitch = 1;
        for (axis, &extent) in term.iter().zip(fact.shape.iter()).rev() {
            let at = order.iter().position(|other| other == axis).ok_or(InferError::Overflow)?;
            if extent != 1 {
                if extents[at] != 1 && extents[at] != extent {
                    return Err(InferError::Mismatch(inputs[0].shape.to_string(), fact.shape.to_string()));
                }
                extents[at] = extent;
                // An axis that is named twice runs along the diagonal.
                own[at] += pitch;
            }
            pitch *= extent;
        }
        strides.push(own);
    }
    Ok(Contracted { extents, strides, rank })
}

fn axes(term: &[Label], rank: usize) -> Option<Vec<Axis>> {
    let named = term.iter().filter(|label| **label != Label::Others).count();
    let others = rank.checked_sub(named)?;
    if others > 0 && !term.contains(&Label::Others) {
        return None;
    }
    let axes = term.iter().flat_map(|label| match label {
        Label::Axis(name) => vec![Axis::Named(*name)],
        Label::Others => (0..others).rev().map(Axis::Other).collect(),
    });
    Some(axes.collect())
}
