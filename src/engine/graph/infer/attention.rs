//! Shapes of attention.

use kinglet_kernels::f32_attention::Extents;

use super::{Facts, InferError, broadcast};
use crate::engine::graph::op::Attention;
use crate::tensor::Shape;

pub(super) fn attention(attention: &Attention, inputs: &Facts<'_>) -> Result<Shape, InferError> {
    let Extents { batch, heads, queries, width, .. } = heads(attention, inputs)?;
    Ok(match attention.heads_inside[3] {
        true => Shape::new(&[batch, queries, heads, width]),
        false => Shape::new(&[batch, heads, queries, width]),
    })
}

/// What attends to what. A mask is broadcast to the scores, and has an element for each key.
pub(in crate::engine) fn heads(attention: &Attention, inputs: &Facts<'_>) -> Result<Extents, InferError> {
    let &[q, k, v, ref mask @ ..] = inputs.as_slice() else {
        return Err(InferError::Operands { expected: 3, got: inputs.len() });
    };
    let rank = |shape: &Shape| InferError::Rank { expected: "four axes", got: shape.to_string() };
    let plane = |at: usize, shape: &Shape| match (attention.heads_inside[at], &shape[..]) {
        (false, &[batch, heads, tokens, elements]) | (true, &[batch, tokens, heads, elements]) => {
            Ok([batch, heads, tokens, elements])
        }
        _ => Err(rank(shape)),
    };
    let mismatch = |a: &Shape, b: &Shape| InferError::Mismatch(a.to_string(), b.to_string());
    let [batch, heads, queries, depth] = plane(0, &q.shape)?;
    let [k_batch, k_heads, keys, k_depth] = plane(1, &k.shape)?;
    let [v_batch, v_heads, v_keys, width] = plane(2, &v.shape)?;
    if [batch, heads, depth] != [k_batch, k_heads, k_depth] {
        return Err(mismatch(&q.shape, &k.shape));
    }
    if [batch, heads, keys] != [v_batch, v_heads, v_keys] {
        return Err(mismatch(&k.shape, &v.shape));
    }
    if let Some(mask) = mask.first() {
        let scores = Shape::new(&[batch, heads, queries, keys]);
        if mask.shape.last() != Some(&keys) || broadcast(&mask.shape, &scores)? != scores {
            return Err(mismatch(&mask.shape, &scores));
        }
    }
    Ok(Extents { batch, heads, queries, keys, depth, width })
}
