//! What follows the products of one step of a recurrent layer, for one row, in `f32`: the gates, and the states they
//! make. Operands lie gate after gate in the order of ONNX. Nothing of a row depends on another.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
mod portable;

use crate::isa::{Level, choose};
use generic::{Job, Table};

/// The function of a gate, or of the states that gates let through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GateFunction {
    /// `alpha * x + beta`.
    Affine {
        alpha: f32,
        beta: f32,
    },
    Relu,
    /// `x` where it is not negative, `alpha * x` elsewhere.
    LeakyRelu {
        alpha: f32,
    },
    /// `x` where it is greater than `alpha`, zero elsewhere.
    ThresholdedRelu {
        alpha: f32,
    },
    Tanh,
    /// `alpha * tanh(beta * x)`.
    ScaledTanh {
        alpha: f32,
        beta: f32,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `min(max(alpha * x + beta, 0), 1)`.
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    /// `x` where it is not negative, `alpha * (exp(x) - 1)` elsewhere.
    Elu {
        alpha: f32,
    },
    /// `x / (1 + |x|)`.
    Softsign,
    /// `log(1 + exp(x))`.
    Softplus,
}

/// How a cell makes its states from its gates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// Gates input, output, forget and cell.
    Lstm {
        /// Of the first three gates, of the cell gate, and of the cell's state.
        functions: [GateFunction; 3],
        /// Whether the cell forgets what the input gate lets in, and has no forget gate.
        coupled: bool,
    },
    /// Gates update, reset and hidden.
    Gru {
        /// Of the first two gates and of the hidden gate.
        functions: [GateFunction; 2],
        /// Whether the product of the hidden gate is reset, rather than the state before the product.
        resets_product: bool,
    },
    /// One gate.
    Simple(GateFunction),
}

/// What one row of a step is made of.
#[derive(Debug)]
pub struct Step<'a> {
    /// Products of the input, biases added: all gates.
    pub input: &'a [f32],
    /// Products of the hidden state before: all gates.
    pub product: &'a [f32],
    /// Of a cell that has them: factors of its state for the gates input, output and forget.
    pub peepholes: Option<&'a [f32]>,
    /// What inputs of gates are kept within, both ways.
    pub clip: f32,
}

impl Cell {
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm { .. } => 4,
            Self::Gru { .. } => 3,
            Self::Simple(_) => 1,
        }
    }

    /// The next states in place of those before; only the cell of an LSTM has a state of its own.
    ///
    /// # Panics
    /// When operands have not the elements of all gates, or states differ in width.
    pub fn step(self, level: Level, step: &Step<'_>, hidden: &mut [f32], cell: &mut [f32]) {
        let has_state = matches!(self, Self::Lstm { .. });
        assert!(!has_state || cell.len() == hidden.len(), "both states have one width");
        generic::call_step(table(level), self, &job(self, step, hidden), hidden, cell);
    }

    /// The hidden state as the reset gate lets it through, for a cell that does not reset the product: this comes before
    /// the product of the hidden gate. Of `product` all gates but the last are read.
    ///
    /// # Panics
    /// When operands have not the elements of all gates, or the states differ in width.
    pub fn reset(self, level: Level, step: &Step<'_>, hidden: &[f32], reset: &mut [f32]) {
        assert_eq!(reset.len(), hidden.len(), "both states have one width");
        generic::call_reset(table(level), self, &job(self, step, hidden), hidden, reset);
    }
}

fn job(cell: Cell, step: &Step<'_>, hidden: &[f32]) -> Job {
    let width = hidden.len();
    let all = cell.gates() * width;
    assert!(step.input.len() == all && step.product.len() == all, "operands are of all gates");
    assert!(step.peepholes.is_none_or(|peepholes| peepholes.len() == 3 * width), "peepholes are of three gates");
    Job {
        input: step.input.as_ptr(),
        product: step.product.as_ptr(),
        peepholes: step.peepholes.map(<[f32]>::as_ptr),
        clip: step.clip,
        width,
    }
}

fn table(level: Level) -> &'static Table {
    choose!(level, &TABLE)
}
