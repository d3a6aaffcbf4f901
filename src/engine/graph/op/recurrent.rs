//! Layers with a state that goes from step to step.

use kinglet_kernels::f32_recurrent::Cell;

/// Of `x` (`[step, batch, element]`), weights of the input (`[direction, gate * hidden, element]`) and of the
/// hidden state (`[direction, gate * hidden, hidden]`), and more operands. The output is `[step, direction, batch,
/// hidden]`: the hidden state after every step, then the last one of every row, then that of the cell where it has one.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Recurrent {
    pub(in crate::engine) directions: Vec<Direction>,
    /// What inputs of gates are kept within, both ways.
    pub(in crate::engine) clip: f32,
    /// What the operands behind the weights are, each once at most.
    pub(in crate::engine) more: Vec<Role>,
}

/// One walk over all steps. The cells of a layer are of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Direction {
    pub(in crate::engine) cell: Cell,
    /// From each row's last step to the first.
    pub(in crate::engine) reverse: bool,
}

/// An operand that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Role {
    /// `[direction, gate * hidden]` of the input's weights, then of the hidden state's.
    Bias,
    /// Steps of every row (INT32), at most all.
    Lengths,
    /// The hidden state before the first step: `[direction, batch, hidden]`.
    Hidden,
    /// The cell's.
    Cell,
    /// `[direction, 3 * hidden]`.
    Peepholes,
}

impl Recurrent {
    /// Which operand has a role.
    pub(in crate::engine) fn operand(&self, role: Role) -> Option<usize> {
        self.more.iter().position(|given| *given == role).map(|at| at + 3)
    }

    pub(in crate::engine) fn gates(&self) -> usize {
        self.directions.first().map_or(0, |direction| direction.cell.gates())
    }

    /// States that go from step to step.
    pub(in crate::engine) fn states(&self) -> usize {
        let has_cell = |direction: &Direction| matches!(direction.cell, Cell::Lstm { .. });
        if self.directions.iter().any(has_cell) { 2 } else { 1 }
    }
}
