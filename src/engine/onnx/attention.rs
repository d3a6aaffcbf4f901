//! Attention of ONNX Runtime's own operators: what makes queries, keys and values, masks in all their forms, and the
//! operator that the pass makes of attention that is written in pieces.

use std::array;

use kinglet_kernels::Activation;

use super::formula::Formula;
use super::node::Source;
use super::quantization::{self, Bytes};
use super::{Importer, foreign, product};
use crate::engine::EngineError;
use crate::engine::graph::op::{self, Arrangement, Binary, Compare, Linear};
use crate::engine::graph::{Op, ValueId};
use crate::tensor::DType;

/// Attention: queries, keys and values are columns of one product.
pub(super) fn attention(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    expect_no_cache(importer, node, &[4, 6])?;
    let (x, weights) = (importer.operand(node, 0)?, importer.operand(node, 1)?);
    let (bias, masks) = (importer.optional(node, 2)?, [importer.optional(node, 3)?, importer.optional(node, 5)?]);
    let is_constant = |bias: ValueId| importer.graph.constant(bias).is_some();
    let is_linear = product::is_weights(importer, weights) && bias.is_none_or(is_constant);
    let parts = Parts::of(importer, node, weights)?;
    let mut formula = Formula::with_name(importer, node);
    // Slices of constants are constants before anything looks at the layer.
    let planes = parts.0.map(|[from, to]| {
        let weights = formula.slice(weights, 1, from, to);
        let bias = bias.map(|bias| formula.slice(bias, 0, from, to));
        if is_linear {
            let linear = Linear { bias: bias.is_some(), residual: false, activation: Activation::None };
            let operands: Vec<ValueId> = [x, weights].into_iter().chain(bias).collect();
            return formula.op(Op::Linear(linear), &operands);
        }
        let product = formula.product(x, weights);
        bias.map_or(product, |bias| formula.binary(Binary::Add, product, bias))
    });
    Ok(vec![attend(importer, node, planes, Some(parts.width()), masks)?])
}

/// QAttention: that product is one of bytes.
pub(super) fn of_bytes(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    expect_no_cache(importer, node, &[8])?;
    let [x, weights] = [[0, 3, 6], [1, 4, 7]].map(|places| Bytes::at(importer, node, places));
    let (x, weights) = (x?, weights?);
    let (bias, mask) = (importer.optional(node, 2)?, importer.optional(node, 5)?);
    let parts = Parts::of(importer, node, weights.x)?;
    let all = quantization::product(importer, node, [x, weights], bias);
    let mut formula = Formula::with_name(importer, node);
    let planes = parts.0.map(|[from, to]| formula.slice(all, 2, from, to));
    Ok(vec![attend(importer, node, planes, Some(parts.width()), [mask, None])?])
}

/// MultiHeadAttention: queries, keys and values are given; a bias is added to each. Another engine may have other forms.
pub(super) fn multi_head(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    if let Err(refused) = expect_no_cache(importer, node, &[6, 7, 8, 9]) {
        return foreign::run(importer, node, refused);
    }
    let given = [importer.optional(node, 0)?, importer.optional(node, 1)?, importer.optional(node, 2)?];
    let is_flat = |plane: &ValueId| importer.extents(*plane).is_none_or(|extents| extents.len() == 3);
    let planes: Vec<ValueId> = given.into_iter().flatten().filter(is_flat).collect();
    let Ok(mut planes) = <[ValueId; 3]>::try_from(planes) else {
        let refused = node.refuse("its queries, keys and values are not three operands of three axes each");
        return foreign::run(importer, node, refused);
    };
    let masks = [importer.optional(node, 4)?, importer.optional(node, 5)?];
    let widths = planes.map(|plane| last_extent(importer, plane));
    let width = widths[0].or(widths[1]);
    if let Some(bias) = importer.optional(node, 3)? {
        let Some(parts) = Parts::of_planes(importer, node, bias, [width, widths[2]])? else {
            let refused = node.refuse("the extents of its bias, or of its queries, keys and values, are not known");
            return foreign::run(importer, node, refused);
        };
        let mut formula = Formula::with_name(importer, node);
        planes = array::from_fn(|at| {
            let [from, to] = parts.0[at];
            let bias = formula.slice(bias, 0, from, to);
            formula.binary(Binary::Add, planes[at], bias)
        });
    }
    Ok(vec![attend(importer, node, planes, width, masks)?])
}

fn expect_no_cache(importer: &Importer, node: &Source<'_>, places: &[usize]) -> Result<(), EngineError> {
    for &at in places {
        if importer.optional(node, at)?.is_some() {
            return Err(node.refuse(&format!("operand {at} is given: keys and values of earlier calls are not served")));
        }
    }
    if node.has_output(1) {
        return Err(node.refuse("it is asked for its keys and values"));
    }
    match node.int("do_rotary", 0)? {
        0 => Ok(()),
        given => Err(node.refuse(&format!("do_rotary must be 0, got {given}"))),
    }
}

/// Which columns of a product are queries, keys and values: from each number up to the other.
struct Parts([[i64; 2]; 3]);

impl Parts {
    fn of(importer: &Importer, node: &Source<'_>, weights: ValueId) -> Result<Self, EngineError> {
        let all = last_extent(importer, weights);
        let all = all.ok_or_else(|| node.refuse("the extents of its weights are not known"))?;
        let widths = node.ints("qkv_hidden_sizes")?.unwrap_or_else(|| vec![all / 3; 3]);
        Self::cut(node, all, &widths)
    }

    /// Of a bias, for planes of which queries and keys have one width and values may have another; nothing where neither
    /// is known.
    fn of_planes(
        importer: &Importer,
        node: &Source<'_>,
        bias: ValueId,
        [width, of_values]: [Option<i64>; 2],
    ) -> Result<Option<Self>, EngineError> {
        let Some(all) = last_extent(importer, bias) else { return Ok(None) };
        let width = width.or_else(|| Some(all.checked_sub(of_values?)? / 2));
        let Some(width) = width else { return Ok(None) };
        let of_values = of_values.unwrap_or_else(|| all.saturating_sub(width.saturating_mul(2)));
        Self::cut(node, all, &[width, width, of_values]).map(Some)
    }

    /// Columns into parts of these widths.
    fn cut(node: &Source<'_>, all: i64, widths: &[i64]) -> Result<Self, EngineError> {
        let heads = heads(node)?;
        let sum = widths.iter().try_fold(0i64, |sum, width| sum.checked_add(*width));
        let fits = |width: &i64| *width > 0 && width % heads == 0;
        match *widths {
            [q, k, _] if sum == Some(all) && widths.iter().all(fits) => Ok(Self([[0, q], [q, q + k], [q + k, all]])),
            _ => Err(node.invalid(&format!(
                "its {all} columns must be those of queries, keys and values of {heads} heads, got {widths:?}"
            ))),
        }
    }

    /// Of the queries of all heads.
    fn width(&self) -> i64 {
        self.0[0][1]
    }
}

/// How wide a value's lines are, where that is known.
fn last_extent(importer: &Importer, value: ValueId) -> Option<i64> {
    importer.extents(value).and_then(|extents| i64::try_from((*extents.last()?)?).ok())
}

fn heads(node: &Source<'_>) -> Result<i64, EngineError> {
    let heads = node.int("num_heads", 0)?;
    if heads > 0 { Ok(heads) } else { Err(node.invalid(&format!("num_heads must be positive, got {heads}"))) }
}

/// Of planes `[batch][token][head and element]`. Where nothing else is said scores are divided by the root of a head's
/// elements, whose number may follow from a shape alone.
fn attend(
    importer: &mut Importer,
    node: &Source<'_>,
    planes: [ValueId; 3],
    width: Option<i64>,
    masks: [Option<ValueId>; 2],
) -> Result<ValueId, EngineError> {
    let (heads, given) = (heads(node)?, node.float("scale", 0.0)?);
    let mask = mask(importer, node, planes, masks)?;
    let mut formula = Formula::with_name(importer, node);
    let [mut queries, keys, values] = planes;
    let scale = match (given, width) {
        (0.0, Some(width)) => (heads as f32 / width as f32).sqrt(),
        (0.0, None) => {
            let width = formula.extents(queries, 2, Some(3));
            let width = formula.cast(width, DType::F32);
            let elements = formula.with(Binary::Div, width, heads as f64);
            let scale = formula.with(Binary::Pow, elements, -0.5);
            queries = formula.binary(Binary::Mul, queries, scale);
            1.0
        }
        (given, _) => given,
    };
    let apart = formula.list(&[0, 0, heads, -1]);
    let planes = [queries, keys, values].map(|plane| formula.reshape(plane, apart));
    let operands: Vec<ValueId> = planes.into_iter().chain(mask).collect();
    let attended = formula.op(Op::Attention(op::Attention { scale, heads_inside: [true; 4] }), &operands);
    let together = formula.list(&[0, 0, -1]);
    Ok(formula.reshape(attended, together))
}

/// What is added to scores: for keys that count and keys that do not, for those behind their query, and what is given.
fn mask(
    importer: &mut Importer,
    node: &Source<'_>,
    [queries, keys, _]: [ValueId; 3],
    [mask, given]: [Option<ValueId>; 2],
) -> Result<Option<ValueId>, EngineError> {
    let outside = node.float("mask_filter_value", -10_000.0)?;
    let rank = mask.map(|mask| importer.extents(mask).map(|extents| extents.len()));
    let mut formula = Formula::with_name(importer, node);
    let chosen = |formula: &mut Formula<'_>, kept: ValueId, otherwise: f32, then: Option<ValueId>| {
        let then = then.unwrap_or_else(|| formula.number(0.0));
        let otherwise = formula.number(otherwise);
        formula.op(Op::Where, &[kept, then, otherwise])
    };
    let mut sum = None;
    if let (Some(mask), Some(rank)) = (mask, rank) {
        let zero = formula.number_like(mask, 0.0);
        let kept = match rank {
            Some(1) => {
                let places = places(&mut formula, keys);
                let lengths = formula.cast(mask, DType::I64);
                let lengths = formula.unsqueeze(lengths, &[1, 2, 3]);
                formula.compare(Compare::Less, places, lengths)
            }
            Some(2 | 3) => {
                let kept = formula.compare(Compare::Greater, mask, zero);
                formula.unsqueeze(kept, if rank == Some(2) { &[1, 2] } else { &[1] })
            }
            Some(rank) => return Err(node.refuse(&format!("its mask must have 1 to 3 axes, got {rank}"))),
            None => return Err(node.refuse("its mask must have 1 to 3 axes, how many it has is not known")),
        };
        sum = Some(chosen(&mut formula, kept, outside, None));
    }
    if node.int("unidirectional", 0)? != 0 {
        let [lines, columns] = [queries, keys].map(|of| places(&mut formula, of));
        let lines = formula.unsqueeze(lines, &[1]);
        let kept = formula.compare(Compare::LessOrEqual, columns, lines);
        sum = Some(chosen(&mut formula, kept, f32::MIN, sum));
    }
    Ok(match (sum, given) {
        (Some(sum), Some(given)) => Some(formula.binary(Binary::Add, sum, given)),
        (sum, given) => sum.or(given),
    })
}

/// The places of tokens.
pub(super) fn places(formula: &mut Formula<'_>, plane: ValueId) -> ValueId {
    let extent = formula.extents(plane, 1, Some(2));
    let extent = formula.squeeze(extent, &[0]);
    let [first, step] = [0, 1].map(|integer| formula.integer(integer));
    formula.op(Op::Arrange(Arrangement::Range), &[first, extent, step])
}
