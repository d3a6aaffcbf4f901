//! Weights of few bits: integers with scales, places in a table, and products with either. They stay codes where a product
//! or a convolution takes them, and become numbers for everything else.

use super::node::Source;
use super::product::plain;
use super::{Importer, foreign};
use crate::engine::EngineError;
use crate::engine::graph::coded::{Along, Coded, NUMBERS_MAX, Scales};
use crate::engine::graph::op::Binary;
use crate::engine::graph::{Op, ValueId, floats, integers};
use crate::tensor::{DType, Shape, Tensor};

impl Importer {
    pub(super) fn coded(&mut self, name: &str, coded: Coded) -> ValueId {
        let extents = coded.shape.iter().map(|extent| Some(*extent)).collect();
        let value = self.graph.add_coded(name, coded);
        self.declare(value, DType::F32);
        self.declared.insert(value, extents);
        value
    }

    /// Gives operands their elements where a node cannot take codes.
    pub(super) fn decode_operands(&mut self, node: &Source<'_>) {
        let takes = |at: usize| match node.proto.op_type.as_str() {
            "MatMul" | "Gemm" | "Conv" | "FusedMatMul" | "FusedGemm" | "FusedConv" => at == 1,
            "Transpose" => true,
            _ => false,
        };
        for (at, name) in node.proto.input.iter().enumerate() {
            if let Some(&value) = self.values.get(name).filter(|_| !takes(at)) {
                self.graph.decode(value);
            }
        }
        // Graphs within a node may take anything.
        if node.proto.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty()) {
            self.graph.values().for_each(|value| self.graph.decode(value));
        }
    }
}

/// DequantizeLinear of constants that have few values; none where they have more, or are too few to matter.
pub(super) fn dequantized(
    importer: &mut Importer,
    node: &Source<'_>,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
) -> Result<Option<ValueId>, EngineError> {
    let block = usize::try_from(node.int("block_size", 0)?).unwrap_or(0);
    let axis = node.axis(1)?;
    let constant = |value: ValueId| importer.graph.constant(value);
    let Some((tensor, scales)) = constant(x).zip(constant(scale).and_then(floats)) else { return Ok(None) };
    let zeros: Vec<f32> = match zero.map(|zero| constant(zero).and_then(of_bytes)) {
        None => Vec::new(),
        Some(Some(zeros)) => zeros.map(f32::from).collect(),
        Some(None) => return Ok(None),
    };
    if !zeros.is_empty() && zeros.len() != scales.len() {
        return Ok(None);
    }
    let shape = tensor.shape().clone();
    let axis = if axis < 0 { shape.len().checked_add_signed(axis) } else { Some(axis.unsigned_abs()) };
    let (Some(axis), Some((codes, table))) = (axis, few(tensor)) else { return Ok(None) };
    let along = if block > 0 { Along::Blocks { axis, size: block } } else { Along::Axis(axis) };
    let coded = if let ([scale], true) = (&scales[..], block == 0) {
        let zero = zeros.first().copied().unwrap_or(0.0);
        let table = table.iter().map(|number| (number - zero) * scale).collect();
        Coded { shape, codes: codes.into(), table, scales: None }
    } else if along.count(&shape) == Some(scales.len()) {
        let zeros = if zeros.iter().all(|zero| *zero == 0.0) { Vec::new() } else { zeros };
        Coded { shape, codes: codes.into(), table, scales: Some(Scales { along, of: scales, zeros }) }
    } else {
        return Ok(None);
    };
    Ok(Some(importer.coded(&node.shown(), coded)))
}

/// Gather of constant places in a short table.
pub(super) fn looked_up(
    importer: &mut Importer,
    node: &Source<'_>,
    [table, places]: [ValueId; 2],
) -> Result<Option<ValueId>, EngineError> {
    let graph = &importer.graph;
    let is_row = |table: &&Tensor| table.shape().len() == 1 && table.element_count() <= NUMBERS_MAX;
    let Some(table) = graph.constant(table).filter(is_row).and_then(floats) else { return Ok(None) };
    // Places of fewer bits are converted first, because the standard asks for wider ones.
    let cast = graph.nodes.iter().find(|node| node.output == places && matches!(node.op, Op::Cast { .. }));
    let Some(places) = graph.constant(cast.map_or(places, |cast| cast.inputs[0])) else { return Ok(None) };
    if places.element_count() < ELEMENTS_MIN || !matches!(node.axis(0), Ok(0 | -1)) {
        return Ok(None);
    }
    let length = i64::try_from(table.len()).unwrap_or(0);
    let code = |place: i64| {
        let place = if place < 0 { place + length } else { place };
        u8::try_from(place).ok().filter(|_| place < length)
    };
    let codes: Option<Vec<u8>> = match of_bytes(places) {
        Some(bytes) => bytes.map(|place| code(place.into())).collect(),
        None => integers(places).and_then(|all| all.iter().map(|&place| code(place)).collect()),
    };
    let Some(codes) = codes else { return Ok(None) };
    let coded = Coded { shape: places.shape().clone(), codes: codes.into(), table, scales: None };
    Ok(Some(importer.coded(&node.shown(), coded)))
}

/// Transpose of a matrix of codes.
pub(super) fn turned(importer: &mut Importer, node: &Source<'_>) -> Result<Option<ValueId>, EngineError> {
    let x = importer.operand(node, 0)?;
    let axes = node.extents("perm")?.unwrap_or_else(|| vec![1, 0]);
    let turned = importer.graph.coded(x).filter(|_| axes == [1, 0]).and_then(Coded::turned);
    let Some(turned) = turned else {
        importer.graph.decode(x);
        return Ok(None);
    };
    Ok(Some(importer.coded(&node.shown(), turned)))
}

/// MatMulNBits of ONNX Runtime's own operators: weights of four bits, `[column][block][bytes of a block]`, and a scale for
/// each block. Zero points are bytes of two, or floats; where there are none, all are eight. Of other bits, or in an order of
/// their own (`g_idx`), it is another engine's.
pub(super) fn matmul_n_bits(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let extent = |name: &str| -> Result<usize, EngineError> {
        let given = usize::try_from(node.int(name, 0)?).ok().filter(|extent| *extent > 0);
        given.ok_or_else(|| node.invalid(&format!("{name} must be positive")))
    };
    let [depth, columns, bits, size] = [extent("K")?, extent("N")?, extent("bits")?, extent("block_size")?];
    if bits != 4 || !size.is_multiple_of(2) || importer.optional(node, 4)?.is_some() {
        let refused =
            node.refuse(&format!("{bits} bits in blocks of {size}, or with g_idx, have no layer, 4 bits have"));
        return foreign::run(importer, node, refused);
    }
    let blocks = depth.div_ceil(size);
    let constant = |at: usize| -> Result<Option<&Tensor>, EngineError> {
        let Some(value) = importer.optional(node, at)? else { return Ok(None) };
        importer.graph.constant(value).map(Some).ok_or_else(|| node.refuse(&format!("operand {at} is no constant")))
    };
    let (weights, scales, zeros) = (constant(1)?, constant(2)?.and_then(floats), constant(3)?);
    let (Some(weights), Some(scales)) = (weights, scales) else {
        return Err(node.refuse("its weights are not bytes with scales of FP32"));
    };
    let packed = columns.checked_mul(blocks).and_then(|count| count.checked_mul(size / 2));
    if packed != Some(weights.bytes().len()) || scales.len() != columns * blocks {
        let (bytes, given) = (weights.bytes().len(), scales.len());
        return Err(node.invalid(&format!(
            "{columns} columns of {blocks} blocks of {size} need a scale each, got {bytes} bytes and {given} scales"
        )));
    }
    let halves = |bytes: &[u8], of_row: usize, count: usize| -> Vec<u8> {
        let rows = bytes.chunks_exact(of_row.max(1));
        rows.flat_map(|row| row.iter().flat_map(|byte| [byte & 15, byte >> 4]).take(count)).collect()
    };
    let zeros = match zeros {
        None => vec![8.0; columns * blocks],
        Some(zeros) if zeros.dtype() == DType::U8 => {
            halves(zeros.bytes(), blocks.div_ceil(2), blocks).into_iter().map(f32::from).collect()
        }
        Some(zeros) => floats(zeros).unwrap_or_default(),
    };
    if zeros.len() != scales.len() {
        return Err(node.invalid(&format!("{} zero points do not fit {} scales", zeros.len(), scales.len())));
    }
    let coded = Coded {
        shape: Shape::new(&[columns, depth]),
        codes: halves(weights.bytes(), blocks * size / 2, depth).into(),
        table: (0u8..16).map(f32::from).collect(),
        scales: Some(Scales { along: Along::Blocks { axis: 1, size }, of: scales, zeros }),
    };
    let coded = coded.turned().unwrap_or(coded);
    let (x, bias) = (importer.operand(node, 0)?, importer.optional(node, 5)?);
    let weights = importer.coded(&node.shown(), coded);
    let product = importer.graph.add(&node.shown(), Op::Linear(plain(false)), &[x, weights]);
    Ok(vec![match bias {
        Some(bias) => importer.graph.add(&node.shown(), Op::Binary(Binary::Add), &[product, bias]),
        None => product,
    }])
}

/// Bytes as places in a table of the values that they have, if these are few and they are many.
fn few(tensor: &Tensor) -> Option<(Vec<u8>, Vec<f32>)> {
    let all = of_bytes(tensor).filter(|_| tensor.element_count() >= ELEMENTS_MIN)?;
    let mut places = [None; 256];
    let mut table: Vec<f32> = Vec::new();
    let mut codes = Vec::with_capacity(tensor.element_count());
    for (byte, number) in tensor.bytes().iter().zip(all) {
        let place = &mut places[usize::from(*byte)];
        if place.is_none() {
            if table.len() == NUMBERS_MAX {
                return None;
            }
            *place = u8::try_from(table.len()).ok();
            table.push(number.into());
        }
        codes.push((*place)?);
    }
    Some((codes, table))
}

/// Elements that are bytes, signed or not.
fn of_bytes(tensor: &Tensor) -> Option<impl Iterator<Item = i16>> {
    let is_signed = match tensor.dtype() {
        DType::U8 => false,
        DType::I8 => true,
        _ => return None,
    };
    let number = move |&byte: &u8| if is_signed { byte.cast_signed().into() } else { byte.into() };
    Some(tensor.bytes().iter().map(number))
}

/// What has fewer elements is small whatever it is.
const ELEMENTS_MIN: usize = 1024;
