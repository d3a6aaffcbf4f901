//! Proves that a model keeps rows apart, or names the operator that may mix them.
//!
//! The model is typed twice, with two different batch sizes, and both are walked together: an axis is the batch's where
//! its extent is the one batch size here and the other there (or a multiple of it, where
//! the rows were folded into another axis), and nothing else may differ. Each operator must carry the
//! batch axis from its inputs to its outputs ([`rules`](super::rules)); what is not known to do so mixes rows.

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::scan::{InputMapping, Scan};
use tract_onnx::tract_hir::internal::{OutletId, TDim, Tensor, TypedFact, TypedModel, TypedNode};

use super::rules;

/// What an operator does to rows that must not be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// The name of tract's node.
    pub(super) node: String,
    /// The name of tract's operator.
    pub(super) operator: String,
    pub(super) reason: String,
}

/// How a value depends on the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carry {
    /// Not at all.
    Fixed,
    /// This axis is the batch's, and each row comes from the same row of the model's inputs.
    Rows(usize),
    /// Its contents depend on the number of rows.
    Count,
}

/// One extent, seen at both batch sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// So many elements for each row, those of a row beside each other.
    Rows(usize),
    Same(TDim),
    /// Depends on the batch size otherwise.
    Odd,
}

/// An input of a node: how it depends on the batch, its extents, and its value at both batch sizes if it is constant.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) carry: Carry,
    pub(super) extents: Vec<Extent>,
    pub(super) constant: Option<[Arc<Tensor>; 2]>,
}

/// The batch sizes a model is typed with: primes, so that no product of other extents is taken for them.
pub(super) const BATCHES: [usize; 2] = [53, 59];

/// Walks a model typed with both batch sizes. All its inputs have the batch on axis 0, and so must all outputs.
pub(super) fn analyse(first: &TypedModel, second: &TypedModel) -> Result<(), Obstacle> {
    let inputs = vec![Carry::Rows(0); first.inputs.len()];
    let outputs = walk([first, second], &inputs)?;
    for (carry, outlet) in outputs.iter().zip(&first.outputs) {
        let node = &first.nodes[outlet.node];
        if *carry != Carry::Rows(0) {
            return Err(obstacle(node, format!("its output {}", described(*carry))));
        }
        let facts = [first, second].map(|model| model.outlet_fact(*outlet));
        if let [Ok(one), Ok(other)] = facts
            && extents(one, other).first() != Some(&Extent::Rows(1))
        {
            return Err(obstacle(node, "its output has several elements for each row on axis 0".into()));
        }
    }
    Ok(())
}

/// Carries the batch through a model, or a body of one, from its inputs to its outputs.
fn walk(models: [&TypedModel; 2], inputs: &[Carry]) -> Result<Vec<Carry>, Obstacle> {
    let [first, second] = models;
    let mut carries: HashMap<OutletId, Carry> = first.inputs.iter().copied().zip(inputs.iter().copied()).collect();
    let order = first.eval_order().map_err(|error| structure(&error.to_string()))?;
    for id in order {
        let node = &first.nodes[id];
        let twin = second.nodes.get(id).filter(|twin| twin.name == node.name && twin.inputs == node.inputs);
        let twin = twin.ok_or_else(|| obstacle(node, "the graph depends on the number of rows".into()))?;
        if first.inputs.iter().any(|input| input.node == id) {
            continue;
        }
        for (slot, carry) in node_carries(models, [node, twin], &carries)?.into_iter().enumerate() {
            carries.insert(OutletId::new(id, slot), carry);
        }
    }
    first
        .outputs
        .iter()
        .map(|outlet| carries.get(outlet).copied().ok_or_else(|| structure("an output has no source")))
        .collect()
}

fn node_carries(
    models: [&TypedModel; 2],
    nodes: [&TypedNode; 2],
    carries: &HashMap<OutletId, Carry>,
) -> Result<Vec<Carry>, Obstacle> {
    let node = nodes[0];
    let outputs: Vec<Vec<Extent>> =
        (0..node.outputs.len()).map(|slot| extents(&node.outputs[slot].fact, &nodes[1].outputs[slot].fact)).collect();
    if let Some(constants) = constants(nodes, &outputs) {
        return Ok(constants);
    }
    let mut inputs = Vec::new();
    for input in &node.inputs {
        let carry = *carries.get(input).ok_or_else(|| obstacle(node, "an input has no source".into()))?;
        let sources = models.map(|model| &model.nodes[input.node]);
        let facts = sources.map(|source| &source.outputs[input.slot].fact);
        let constant = match sources.map(|source| constant(source, input.slot)) {
            [Some(first), Some(second)] => Some([first, second]),
            _ => None,
        };
        inputs.push(Input { carry, extents: extents(facts[0], facts[1]), constant });
    }
    let carried = match (node.op_as::<Scan>(), nodes[1].op_as::<Scan>()) {
        (Some(scan), Some(twin)) => return scan_carries(node, [scan, twin], &inputs),
        _ => rules::carry(nodes, &inputs, &outputs).map_err(|reason| obstacle(node, reason))?,
    };
    for (carry, extents) in carried.iter().zip(&outputs) {
        check(*carry, extents).map_err(|reason| obstacle(node, reason))?;
    }
    Ok(carried)
}

/// The carried axis must be the batch's in truth, and no other extent may depend on the batch.
fn check(carry: Carry, extents: &[Extent]) -> Result<(), String> {
    for (axis, extent) in extents.iter().enumerate() {
        let expected = carry == Carry::Rows(axis);
        if expected != matches!(extent, Extent::Rows(_)) || *extent == Extent::Odd {
            return Err(format!("axis {axis} of its output does not follow the rows"));
        }
    }
    match carry {
        Carry::Rows(axis) if axis >= extents.len() => Err("its output has no axis for the rows".into()),
        _ => Ok(()),
    }
}

/// Carries of a node whose outputs are known constants.
fn constants(nodes: [&TypedNode; 2], outputs: &[Vec<Extent>]) -> Option<Vec<Carry>> {
    let mut carries = Vec::new();
    for (slot, extents) in outputs.iter().enumerate() {
        let (first, second) = (constant(nodes[0], slot)?, constant(nodes[1], slot)?);
        let same = Arc::ptr_eq(&first, &second) || first == second;
        carries.push(if same { Carry::Fixed } else { repeated(&first, &second, extents) });
    }
    Some(carries)
}

fn constant(node: &TypedNode, slot: usize) -> Option<Arc<Tensor>> {
    let folded = node.outputs[slot].fact.konst.clone();
    folded.or_else(|| node.op_as::<Const>().map(|constant| constant.val().clone()))
}

/// A constant whose rows are all the same, such as zeros for every row, is as good as one row of it.
fn repeated(first: &Tensor, second: &Tensor, extents: &[Extent]) -> Carry {
    let Some(axis) = extents.iter().position(|extent| *extent == Extent::Rows(1)) else { return Carry::Count };
    let row = |tensor: &Tensor, at: usize| tensor.slice(axis, at, at + 1).ok();
    let Some(pattern) = row(first, 0) else { return Carry::Count };
    let all = |tensor: &Tensor| (0..tensor.shape()[axis]).all(|at| row(tensor, at).as_ref() == Some(&pattern));
    if all(first) && all(second) { Carry::Rows(axis) } else { Carry::Count }
}

fn extents(first: &TypedFact, second: &TypedFact) -> Vec<Extent> {
    if first.rank() != second.rank() {
        return vec![Extent::Odd];
    }
    let times = |extent: &TDim, batch: usize| {
        let extent = extent.as_i64().and_then(|extent| usize::try_from(extent).ok())?;
        extent.is_multiple_of(batch).then_some(extent / batch)
    };
    let extent = |(a, b): (&TDim, &TDim)| match (times(a, BATCHES[0]), times(b, BATCHES[1])) {
        _ if a == b => Extent::Same(a.clone()),
        (Some(here), Some(there)) if here == there => Extent::Rows(here),
        _ => Extent::Odd,
    };
    first.shape.iter().zip(second.shape.iter()).map(extent).collect()
}

/// A loop keeps rows apart when its body does, for carries of its state that are the same before and after a round.
fn scan_carries(node: &TypedNode, scans: [&Scan; 2], inputs: &[Input]) -> Result<Vec<Carry>, Obstacle> {
    let scan = scans[0];
    let mut body_inputs: Vec<Carry> = inputs.iter().map(|input| input.carry).collect();
    if body_inputs.contains(&Carry::Count) {
        return Err(obstacle(node, COUNT.into()));
    }
    for (carry, mapping) in body_inputs.iter().zip(&scan.input_mapping) {
        if let (Carry::Rows(axis), InputMapping::Scan(over)) = (carry, mapping)
            && *axis == over.axis
        {
            return Err(obstacle(node, "it loops over the rows".into()));
        }
    }
    let states: Vec<usize> =
        (0..body_inputs.len()).filter(|&input| matches!(scan.input_mapping[input], InputMapping::State)).collect();
    let bodies = [&scan.body, &scans[1].body];
    // A state that begins fixed may come to hold rows; each round can only turn fixed ones into rows.
    let mut body_outputs = walk(bodies, &body_inputs)?;
    for _ in 0..=states.len() {
        let kept = body_outputs.iter().zip(&scan.output_mapping).filter(|(_, mapping)| mapping.state);
        let kept: Vec<Carry> = kept.map(|(carry, _)| *carry).collect();
        if states.iter().zip(&kept).all(|(&state, carry)| body_inputs[state] == *carry) {
            break;
        }
        for (&state, carry) in states.iter().zip(kept) {
            if body_inputs[state] != Carry::Fixed && body_inputs[state] != carry {
                return Err(obstacle(node, "its state moves the rows to another axis".into()));
            }
            body_inputs[state] = carry;
        }
        body_outputs = walk(bodies, &body_inputs)?;
    }
    let mut outputs: Vec<(usize, Carry)> = Vec::new();
    for (carry, mapping) in body_outputs.iter().zip(&scan.output_mapping) {
        if let Some((slot, over)) = mapping.scan {
            if *carry == Carry::Rows(over.axis) {
                return Err(obstacle(node, "it collects its rounds along the rows".into()));
            }
            outputs.push((slot, *carry));
        }
        outputs.extend(mapping.last_value_slot.map(|slot| (slot, *carry)));
    }
    outputs.sort_by_key(|(slot, _)| *slot);
    Ok(outputs.into_iter().map(|(_, carry)| carry).collect())
}

fn described(carry: Carry) -> String {
    match carry {
        Carry::Fixed => "does not depend on the rows".into(),
        Carry::Rows(axis) => format!("has the rows on axis {axis}, expected 0"),
        Carry::Count => "depends on the number of rows".into(),
    }
}

fn obstacle(node: &TypedNode, reason: String) -> Obstacle {
    Obstacle { node: node.name.clone(), operator: node.op.name().to_string(), reason }
}

pub(super) const COUNT: &str = "it reads a value that depends on the number of rows";

fn structure(reason: &str) -> Obstacle {
    Obstacle { node: String::new(), operator: "the graph".into(), reason: reason.to_owned() }
}
