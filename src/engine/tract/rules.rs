//! How each of tract's operators carries the batch axis: one rule per operator family, and nothing is assumed of an
//! operator without one.
//!
//! tract's own `axes_mapping` is not enough: it says where an axis goes, not whether its elements stay apart (that of
//! softmax calls the axis it sums over elementwise).

use tract_onnx::tract_core::ops::array::{
    CumSum, Gather, GatherElements, GatherNd, MultiBroadcastTo, OneHot, Pad, ScatterElements, Slice, StridedSlice,
    Tile, Topk, Trilu, TypedConcat,
};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv, MaxPool, SumPool};
use tract_onnx::tract_core::ops::downsample::Downsample;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::gru_seq::GruSeq;
use tract_onnx::tract_core::ops::identity::Identity;
use tract_onnx::tract_core::ops::logic::Iff;
use tract_onnx::tract_core::ops::nn::{DataFormat, NearestUpsample, Reduce, RmsNorm, Softmax};
use tract_onnx::tract_core::ops::quant::DequantizeLinearF32;
use tract_onnx::tract_hir::internal::{AxisOp, InOut, TDim, TypedNode};

use super::merging::{BATCHES, COUNT, Carry, Extent, Input};

type Inputs<'a> = &'a [Input];

/// Carries of a node's outputs from those of its inputs, or why it may mix rows.
pub(super) fn carry(nodes: [&TypedNode; 2], inputs: Inputs<'_>, outputs: &[Vec<Extent>]) -> Result<Vec<Carry>, String> {
    let node = nodes[0];
    let out = outputs.first().ok_or("it has no outputs")?;
    if let Some(op) = node.op_as::<StridedSlice>() {
        return Ok(vec![strided(op, inputs)?]);
    }
    if inputs.iter().any(|input| input.carry == Carry::Count) {
        return Err(COUNT.into());
    }
    // These two hold extents; all others must be the same operator at both batch sizes.
    if let Some(op) = node.op_as::<AxisOp>() {
        return Ok(vec![moved(op, inputs, out)?]);
    }
    if node.op_is::<MultiBroadcastTo>() {
        return Ok(vec![broadcast(inputs, out)?]);
    }
    if node.op != nodes[1].op {
        return Err("it depends on the number of rows".into());
    }
    if inputs.iter().all(|input| input.carry == Carry::Fixed) {
        return fixed(node, outputs);
    }
    let carried = elementwise(node, inputs)
        .or_else(|| along_axes(node, inputs))
        .or_else(|| spatial(node, inputs))
        .or_else(|| indexed(node, inputs))
        .or_else(|| named(node, inputs, out));
    let unknown = || Err(format!("{} is not known to keep rows apart", node.op.name()));
    let carried = carried.unwrap_or_else(unknown)?;
    Ok(vec![carried; outputs.len()])
}

/// An operator on values that do not depend on the batch; random ones have no reason to be here.
fn fixed(node: &TypedNode, outputs: &[Vec<Extent>]) -> Result<Vec<Carry>, String> {
    let random = RANDOM.contains(&&*node.op.name());
    let follows = outputs.iter().flatten().any(|extent| !matches!(extent, Extent::Same(_)));
    match random || follows {
        true => Err("it makes values that depend on the number of rows, or on chance".into()),
        false => Ok(vec![Carry::Fixed; outputs.len()]),
    }
}

fn elementwise(node: &TypedNode, inputs: Inputs<'_>) -> Option<Result<Carry, String>> {
    let by_type = node.op_is::<ElementWiseOp>()
        || node.op_is::<TypedBinOp>()
        || node.op_is::<Iff>()
        || node.op_is::<Cast>()
        || node.op_is::<Identity>()
        || node.op_is::<DequantizeLinearF32>();
    (by_type || LOOKUPS.contains(&&*node.op.name())).then(|| common_axis(inputs))
}

/// The axis that all inputs with rows have them on. Others may only be broadcast along it.
fn common_axis(inputs: Inputs<'_>) -> Result<Carry, String> {
    let axis = rows(inputs).ok_or("it has no rows")?;
    for input in inputs {
        let fits = match input.carry {
            Carry::Rows(other) => other == axis,
            _ => input.extents.get(axis).is_none_or(|extent| *extent == Extent::Same(TDim::from(1))),
        };
        if !fits {
            return Err("it combines different rows".into());
        }
    }
    Ok(Carry::Rows(axis))
}

/// Operators that work along some axes and leave the others alone.
fn along_axes(node: &TypedNode, inputs: Inputs<'_>) -> Option<Result<Carry, String>> {
    let worked_on: Vec<usize> = if let Some(op) = node.op_as::<Reduce>() {
        op.axes.to_vec()
    } else if let Some(op) = node.op_as::<Softmax>() {
        op.axes.to_vec()
    } else if let Some(op) = node.op_as::<RmsNorm>() {
        vec![op.axis]
    } else if let Some(op) = node.op_as::<CumSum>() {
        vec![op.axis]
    } else if let Some(op) = node.op_as::<Slice>() {
        vec![op.axis]
    } else if let Some(op) = node.op_as::<Topk>() {
        vec![op.axis]
    } else if let Some(op) = node.op_as::<TypedConcat>() {
        return Some(concat(op.axis, inputs));
    } else if let Some(op) = node.op_as::<Downsample>() {
        vec![op.axis]
    } else if let Some(op) = node.op_as::<Pad>() {
        op.pads.iter().enumerate().filter(|(_, pads)| **pads != (0, 0)).map(|(axis, _)| axis).collect()
    } else if let Some(op) = node.op_as::<Tile>() {
        op.multipliers.iter().enumerate().filter(|(_, times)| **times != TDim::from(1)).map(|(axis, _)| axis).collect()
    } else if let Some(op) = node.op_as::<NearestUpsample>() {
        op.scales.iter().enumerate().filter(|(_, scale)| **scale != 1).map(|(axis, _)| axis).collect()
    } else if node.op_is::<Trilu>() {
        let rank = inputs[0].extents.len();
        vec![rank.saturating_sub(2), rank.saturating_sub(1)]
    } else {
        return None;
    };
    Some(only_first(inputs).and_then(|axis| match worked_on.contains(&axis) {
        true => Err(format!("it works along axis {axis}, which is the rows'")),
        false => Ok(Carry::Rows(axis)),
    }))
}

fn concat(along: usize, inputs: Inputs<'_>) -> Result<Carry, String> {
    let axis = rows(inputs).ok_or("it has no rows")?;
    if axis == along {
        return Err(format!("it works along axis {axis}, which is the rows'"));
    }
    match inputs.iter().all(|input| input.carry == Carry::Rows(axis)) {
        true => Ok(Carry::Rows(axis)),
        false => Err("it combines different rows".into()),
    }
}

/// Convolutions, pools and matrix products.
fn spatial(node: &TypedNode, inputs: Inputs<'_>) -> Option<Result<Carry, String>> {
    let format = if let Some(op) = node.op_as::<Conv>() {
        op.pool_spec.data_format
    } else if let Some(op) = node.op_as::<Deconv>() {
        op.pool_spec.data_format
    } else if let Some(op) = node.op_as::<SumPool>() {
        op.pool_spec.data_format
    } else if let Some(op) = node.op_as::<MaxPool>() {
        if op.with_index_outputs.is_some() {
            return Some(Err("its indices count through all rows".into()));
        }
        op.pool_spec.data_format
    } else {
        return node.op_as::<EinSum>().map(|op| product(op, inputs));
    };
    let has_rows = matches!(format, DataFormat::NCHW | DataFormat::NHWC);
    Some(only_first(inputs).and_then(|axis| match has_rows && axis == 0 {
        true => Ok(Carry::Rows(0)),
        false => Err(format!("it works along axis {axis}, which is the rows'")),
    }))
}

/// A sum of products keeps rows apart when the batch is one of its free axes.
fn product(op: &EinSum, inputs: Inputs<'_>) -> Result<Carry, String> {
    let mut batch = None;
    for (slot, input) in inputs.iter().enumerate() {
        let Carry::Rows(position) = input.carry else { continue };
        let axis = op.axes.axis((InOut::In(slot), position)).map_err(|error| error.to_string())?;
        if batch.is_some_and(|repr| repr != axis.repr) {
            return Err("it combines different rows".into());
        }
        batch = Some(axis.repr);
    }
    let axis = op.axes.axis(batch.ok_or("it has no rows")?).map_err(|error| error.to_string())?;
    let alone = inputs.iter().enumerate().all(|(slot, input)| match input.carry {
        Carry::Rows(_) => axis.inputs[slot].len() == 1,
        _ => axis.inputs[slot].iter().all(|at| input.extents[*at] == Extent::Same(TDim::from(1))),
    });
    match axis.outputs[0].as_slice() {
        [position] if alone => Ok(Carry::Rows(*position)),
        _ => Err("it sums over the rows".into()),
    }
}

/// Operators that look elements up.
fn indexed(node: &TypedNode, inputs: Inputs<'_>) -> Option<Result<Carry, String>> {
    let mixing = || Err("it looks elements up across rows".into());
    if let Some(op) = node.op_as::<Gather>() {
        let indices_rank = inputs[1].extents.len();
        return Some(match (inputs[0].carry, inputs[1].carry) {
            (Carry::Fixed, Carry::Rows(axis)) => Ok(Carry::Rows(op.axis + axis)),
            (Carry::Rows(axis), Carry::Fixed) if axis < op.axis => Ok(Carry::Rows(axis)),
            (Carry::Rows(axis), Carry::Fixed) if axis > op.axis => Ok(Carry::Rows(axis + indices_rank - 1)),
            _ => mixing(),
        });
    }
    if let Some(op) = node.op_as::<OneHot>() {
        return Some(only_first(inputs).map(|axis| Carry::Rows(axis + usize::from(axis >= op.axis))));
    }
    let all_rows = |worked_on: usize| match rows(inputs) {
        Some(axis) if axis != worked_on && inputs.iter().all(|input| input.carry == Carry::Rows(axis)) => {
            Ok(Carry::Rows(axis))
        }
        _ => mixing(),
    };
    if let Some(op) = node.op_as::<GatherElements>() {
        return Some(all_rows(op.axis));
    }
    if let Some(op) = node.op_as::<ScatterElements>() {
        return Some(all_rows(op.axis));
    }
    let op = node.op_as::<GatherNd>()?;
    let tuple = inputs[1].extents.len().saturating_sub(1);
    Some(match (inputs[0].carry, inputs[1].carry) {
        (Carry::Rows(a), Carry::Rows(b)) if a == b && a < op.batch_dims => Ok(Carry::Rows(a)),
        (Carry::Fixed, Carry::Rows(axis)) if op.batch_dims == 0 && axis < tuple => Ok(Carry::Rows(axis)),
        _ => mixing(),
    })
}

/// Operators whose types cannot be named here, and recurrent ones.
fn named(node: &TypedNode, inputs: Inputs<'_>, out: &[Extent]) -> Option<Result<Carry, String>> {
    let first_axis = |what: &str| match only_first(inputs) {
        Ok(0) => Ok(Carry::Rows(0)),
        Ok(axis) => Err(format!("{what} axis {axis}, which is the rows'")),
        Err(reason) => Err(reason),
    };
    match &*node.op.name() {
        // One step of a loop: every row of the gates meets the same row of the state.
        "LstmEpilogue" | "GruEpilogue" => Some(match inputs.iter().all(|input| input.carry == Carry::Rows(0)) {
            true => Ok(Carry::Rows(0)),
            false => Err("it combines different rows".into()),
        }),
        "TreeEnsembleClassifier" => Some(first_axis("it works along")),
        "Lrn" => Some(first_axis("it works along")),
        // Resizing by 1 leaves an axis alone, and then its extent is still the batch's.
        "Resize" => Some(only_first(inputs).and_then(|axis| match out.get(axis) {
            Some(extent) if *extent == inputs[0].extents[axis] => Ok(Carry::Rows(axis)),
            _ => Err(format!("it works along axis {axis}, which is the rows'")),
        })),
        _ => node.op_is::<GruSeq>().then(|| {
            let expected = |(slot, input): (usize, &Input)| match input.carry {
                Carry::Rows(0) => slot == 0 || slot + 1 == inputs.len(),
                carry => carry == Carry::Fixed && slot > 0,
            };
            match inputs.iter().enumerate().all(expected) {
                true => Ok(Carry::Rows(0)),
                false => Err("it combines different rows".into()),
            }
        }),
    }
}

/// Where an operator that only moves axes puts the batch.
fn moved(op: &AxisOp, inputs: Inputs<'_>, out: &[Extent]) -> Result<Carry, String> {
    let input = inputs.first().ok_or("it has no inputs")?;
    let Carry::Rows(axis) = input.carry else { return Ok(input.carry) };
    match op {
        AxisOp::Reshape(..) => reshaped(axis, &input.extents, out).map(Carry::Rows),
        moving => moving.transform_axis(axis).map(Carry::Rows).ok_or_else(|| "it removes the rows' axis".into()),
    }
}

/// A reshape keeps rows whole when as many elements stand before the rows' axis as before: behind it are then exactly
/// the elements of the rows, one row after the other.
fn reshaped(axis: usize, extents: &[Extent], out: &[Extent]) -> Result<usize, String> {
    let folded = || "it folds the rows into another axis".to_owned();
    let before = |extents: &[Extent]| {
        extents.iter().try_fold(TDim::from(1), |product, extent| match extent {
            Extent::Same(extent) => Some(product * extent),
            _ => None,
        })
    };
    let to = out.iter().position(|extent| matches!(extent, Extent::Rows(_))).ok_or_else(folded)?;
    match (before(&extents[..axis]), before(&out[..to])) {
        (Some(a), Some(b)) if a == b => Ok(to),
        _ => Err(folded()),
    }
}

fn broadcast(inputs: Inputs<'_>, out: &[Extent]) -> Result<Carry, String> {
    let Input { carry, extents, .. } = inputs.first().ok_or("it has no inputs")?;
    let offset = out.len().checked_sub(extents.len()).ok_or("it drops axes")?;
    let batch = out.iter().position(|extent| matches!(extent, Extent::Rows(_)));
    match (carry, batch) {
        (Carry::Rows(axis), Some(to)) if axis + offset == to && extents[*axis] == out[to] => Ok(Carry::Rows(to)),
        (Carry::Fixed, None) => Ok(Carry::Fixed),
        // A value repeated for every row.
        (Carry::Fixed, Some(to)) if to < offset || extents[to - offset] == Extent::Same(TDim::from(1)) => {
            Ok(Carry::Rows(to))
        }
        _ => Err("it combines different rows".into()),
    }
}

/// A slice whose bounds are inputs may name the rows' axis, if it then takes all of it.
fn strided(op: &StridedSlice, inputs: Inputs<'_>) -> Result<Carry, String> {
    let Carry::Rows(rows) = inputs[0].carry else { return Err("its bounds depend on the number of rows".into()) };
    let unknown = || "its bounds are no constants".to_owned();
    if (op.shrink_axis_mask, op.begin_mask, op.end_mask) != (0, 0, 0) {
        return Err("its bounds are masked".into());
    }
    for (twin, batch) in BATCHES.into_iter().enumerate() {
        let list = |position: usize| {
            let constant = inputs.get(position)?.constant.as_ref()?;
            let list = constant[twin].cast_to::<i64>().ok()?;
            list.try_as_plain_ram().ok()?.as_slice::<i64>().ok().map(<[i64]>::to_vec)
        };
        let (begin, end) = (list(1).ok_or_else(unknown)?, list(2).ok_or_else(unknown)?);
        let axes = match op.optional_axes_input {
            Some(position) => list(position).ok_or_else(unknown)?,
            None => (0..begin.len()).filter_map(|axis| i64::try_from(axis).ok()).collect(),
        };
        let steps = match op.optional_steps_input {
            Some(position) => list(position).ok_or_else(unknown)?,
            None => vec![1; axes.len()],
        };
        let rank = i64::try_from(inputs[0].extents.len()).unwrap_or(i64::MAX);
        let batch = i64::try_from(batch).unwrap_or(i64::MAX);
        for (position, axis) in axes.iter().enumerate() {
            let is_rows = usize::try_from(if *axis < 0 { axis + rank } else { *axis }) == Ok(rows);
            let bounds = (begin.get(position), end.get(position), steps.get(position));
            let takes_all = matches!(bounds, (Some(0), Some(end), Some(1)) if *end >= batch);
            if is_rows && !(takes_all && inputs[0].extents[rows] == Extent::Rows(1)) {
                return Err(format!("it works along axis {rows}, which is the rows'"));
            }
        }
    }
    Ok(Carry::Rows(rows))
}

fn rows(inputs: Inputs<'_>) -> Option<usize> {
    inputs.iter().find_map(|input| match input.carry {
        Carry::Rows(axis) => Some(axis),
        _ => None,
    })
}

/// The batch axis of the first input, where no other input has rows.
fn only_first(inputs: Inputs<'_>) -> Result<usize, String> {
    let others = inputs.iter().skip(1).all(|input| input.carry == Carry::Fixed);
    match inputs.first().map(|input| input.carry) {
        Some(Carry::Rows(axis)) if others => Ok(axis),
        _ => Err("an input besides the first depends on the rows".into()),
    }
}

/// Operators that map every element through a table.
const LOOKUPS: [&str; 2] = ["DirectLookup", "ReverseLookup"];

const RANDOM: [&str; 2] = ["Random", "Multinomial"];
