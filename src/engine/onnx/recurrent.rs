//! Recurrent layers: LSTM, GRU and RNN.

use kinglet_kernels::f32_recurrent::{Cell, GateFunction};

use super::Importer;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Direction, Recurrent, Role};
use crate::engine::graph::{Op, ValueId, tensor_of_integers};

/// The states after all steps, and the last ones.
pub(super) fn recurrent(importer: &mut Importer, node: &Source<'_>) -> Result<Vec<ValueId>, EngineError> {
    let rows_first = match node.int("layout", 0)? {
        0 => false,
        1 => true,
        other => return Err(node.invalid(&format!("layout {other} is neither 0 nor 1"))),
    };
    let swapped = |importer: &mut Importer, value: ValueId, axes: &[usize]| match rows_first {
        true => importer.graph.add(&node.shown(), Op::Transpose { axes: axes.to_vec() }, &[value]),
        false => value,
    };
    let x = importer.operand(node, 0)?;
    let mut operands = vec![swapped(importer, x, &[1, 0, 2]), importer.operand(node, 1)?, importer.operand(node, 2)?];
    expect_hidden(importer, node, operands[2])?;
    let mut more = Vec::new();
    for (at, role) in roles(node) {
        let Some(value) = importer.optional(node, at)? else { continue };
        let of_rows = matches!(role, Role::Hidden | Role::Cell);
        operands.push(if of_rows { swapped(importer, value, &[1, 0, 2]) } else { value });
        more.push(role);
    }
    let op = Recurrent { directions: directions(node)?, clip: clip(node)?, more };
    let states = i64::try_from(op.states()).unwrap_or(i64::MAX);
    let all = importer.graph.add(&node.shown(), Op::Recurrent(op), &operands);
    let bounds = [0, -states, 0].map(|bound| importer.list_of(&node.shown(), &[bound]));
    let steps = importer.graph.add(&node.shown(), Op::Slice, &[all, bounds[0], bounds[1], bounds[2]]);
    let mut outputs = vec![swapped(importer, steps, &[2, 0, 1, 3])];
    for state in 0..states {
        let place = tensor_of_integers(&[], &[state - states]);
        let place = importer.graph.add_constant(format!("{} state", node.shown()), place);
        let last = importer.graph.add(&node.shown(), Op::Gather { axis: 0 }, &[all, place]);
        outputs.push(swapped(importer, last, &[1, 0, 2]));
    }
    Ok(outputs)
}

/// Operands that may be missing, by place.
fn roles(node: &Source<'_>) -> impl Iterator<Item = (usize, Role)> + use<> {
    let roles = [Role::Bias, Role::Lengths, Role::Hidden, Role::Cell, Role::Peepholes];
    let count = if node.proto.op_type == "LSTM" { 5 } else { 3 };
    roles.into_iter().take(count).enumerate().map(|(at, role)| (at + 3, role))
}

/// What the node says of its width is what its weights have.
fn expect_hidden(importer: &Importer, node: &Source<'_>, weights: ValueId) -> Result<(), EngineError> {
    let given = node.int("hidden_size", 0)?;
    let Some(weights) = importer.graph.constant(weights) else { return Ok(()) };
    let width = weights.shape().last().copied();
    match given == 0 || usize::try_from(given).ok() == width {
        true => Ok(()),
        false => Err(node.invalid(&format!("hidden_size {given} is not that of weights {}", weights.shape()))),
    }
}

fn clip(node: &Source<'_>) -> Result<f32, EngineError> {
    let clip = node.float("clip", f32::INFINITY)?;
    if clip >= 0.0 { Ok(clip) } else { Err(node.invalid(&format!("clip {clip} is less than zero"))) }
}

fn directions(node: &Source<'_>) -> Result<Vec<Direction>, EngineError> {
    let reverse: &[bool] = match node.text("direction")?.as_deref().unwrap_or("forward") {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(node.invalid(&format!("direction {other:?} is none"))),
    };
    let defaults: &[&str] = match node.proto.op_type.as_str() {
        "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
        "GRU" => &["Sigmoid", "Tanh"],
        _ => &["Tanh"],
    };
    let functions = functions(node, defaults, reverse.len())?;
    let cells = functions.chunks(defaults.len()).map(|functions| cell(node, functions));
    reverse.iter().zip(cells).map(|(&reverse, cell)| Ok(Direction { cell: cell?, reverse })).collect()
}

fn cell(node: &Source<'_>, functions: &[GateFunction]) -> Result<Cell, EngineError> {
    match *functions {
        [function] => Ok(Cell::Simple(function)),
        [f, g] => {
            let resets_product = node.int("linear_before_reset", 0)? != 0;
            Ok(Cell::Gru { functions: [f, g], resets_product })
        }
        [f, g, h] => Ok(Cell::Lstm { functions: [f, g, h], coupled: node.int("input_forget", 0)? != 0 }),
        _ => Err(node.invalid("it has too many activations")),
    }
}

/// The functions of all directions. Numbers are taken in their order by those functions that have some.
fn functions(node: &Source<'_>, defaults: &[&str], directions: usize) -> Result<Vec<GateFunction>, EngineError> {
    let given = node.texts("activations")?.filter(|names| !names.is_empty());
    let names = given.unwrap_or_else(|| defaults.repeat(directions).into_iter().map(str::to_owned).collect());
    if names.len() != defaults.len() * directions {
        return Err(node.invalid(&format!("it has {} activations, not {}", names.len(), defaults.len() * directions)));
    }
    let mut alphas = node.floats("activation_alpha")?.unwrap_or_default().into_iter();
    let mut betas = node.floats("activation_beta")?.unwrap_or_default().into_iter();
    let mut alpha = || alphas.next();
    let mut beta = || betas.next();
    let function = |name: &String| match name.to_ascii_lowercase().as_str() {
        // The functions whose numbers have no defaults.
        "affine" => match (alpha(), beta()) {
            (Some(alpha), Some(beta)) => Ok(GateFunction::Affine { alpha, beta }),
            _ => Err(node.invalid("its Affine has no alpha or no beta")),
        },
        "relu" => Ok(GateFunction::Relu),
        "leakyrelu" => Ok(GateFunction::LeakyRelu { alpha: alpha().unwrap_or(0.01) }),
        "thresholdedrelu" => Ok(GateFunction::ThresholdedRelu { alpha: alpha().unwrap_or(1.0) }),
        "tanh" => Ok(GateFunction::Tanh),
        "scaledtanh" => match (alpha(), beta()) {
            (Some(alpha), Some(beta)) => Ok(GateFunction::ScaledTanh { alpha, beta }),
            _ => Err(node.invalid("its ScaledTanh has no alpha or no beta")),
        },
        "sigmoid" => Ok(GateFunction::Sigmoid),
        "hardsigmoid" => Ok(GateFunction::HardSigmoid { alpha: alpha().unwrap_or(0.2), beta: beta().unwrap_or(0.5) }),
        "elu" => Ok(GateFunction::Elu { alpha: alpha().unwrap_or(1.0) }),
        "softsign" => Ok(GateFunction::Softsign),
        "softplus" => Ok(GateFunction::Softplus),
        _ => Err(node.invalid(&format!("activation {name:?} is none"))),
    };
    names.iter().map(function).collect()
}
