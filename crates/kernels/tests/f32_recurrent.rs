//! Cells of recurrent layers against their meaning in `f64`, at every level this processor has.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use kinglet_kernels::Level;
use kinglet_kernels::f32_recurrent::{Cell, GateFunction, Step};
use support::{assert_close, values};

const FUNCTIONS: [GateFunction; 11] = [
    GateFunction::Affine { alpha: 0.5, beta: 0.25 },
    GateFunction::Relu,
    GateFunction::LeakyRelu { alpha: 0.125 },
    GateFunction::ThresholdedRelu { alpha: 0.5 },
    GateFunction::Tanh,
    GateFunction::ScaledTanh { alpha: 0.75, beta: 1.5 },
    GateFunction::Sigmoid,
    GateFunction::HardSigmoid { alpha: 0.25, beta: 0.5 },
    GateFunction::Elu { alpha: 0.75 },
    GateFunction::Softsign,
    GateFunction::Softplus,
];

fn meaning(function: GateFunction, x: f64) -> f64 {
    let positive = |x: f64| if x > 0.0 { x } else { 0.0 };
    match function {
        GateFunction::Affine { alpha, beta } => f64::from(alpha) * x + f64::from(beta),
        GateFunction::Relu => positive(x),
        GateFunction::LeakyRelu { alpha } => positive(x) - f64::from(alpha) * positive(-x),
        GateFunction::ThresholdedRelu { alpha } => {
            if x > f64::from(alpha) {
                x
            } else {
                0.0
            }
        }
        GateFunction::Tanh => x.tanh(),
        GateFunction::ScaledTanh { alpha, beta } => f64::from(alpha) * (f64::from(beta) * x).tanh(),
        GateFunction::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        GateFunction::HardSigmoid { alpha, beta } => (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0),
        GateFunction::Elu { alpha } => positive(x) + f64::from(alpha) * x.min(0.0).exp_m1(),
        GateFunction::Softsign => x / (1.0 + x.abs()),
        GateFunction::Softplus => positive(x) + (-x.abs()).exp().ln_1p(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
fn near(got: f32, expected: f64, told: &str) {
    assert_close(&[got], &[expected as f32], 1, told);
}

/// Operands of one row, and states before it.
struct Row {
    input: Vec<f32>,
    product: Vec<f32>,
    peepholes: Vec<f32>,
    hidden: Vec<f32>,
    cell: Vec<f32>,
    clip: f32,
}

impl Row {
    fn of(cell: Cell, width: usize, clip: f32) -> Self {
        let made = |count: usize, seed| -> Vec<f32> { values(count, seed).iter().map(|x| 2.0 * x).collect() };
        let gates = cell.gates() * width;
        Self {
            input: made(gates, 1),
            product: made(gates, 2),
            peepholes: made(3 * width, 3),
            hidden: made(width, 4),
            cell: made(width, 5),
            clip,
        }
    }

    fn step(&self) -> Step<'_> {
        Step { input: &self.input, product: &self.product, peepholes: Some(&self.peepholes), clip: self.clip }
    }

    fn clipped(&self, x: f64) -> f64 {
        x.clamp(-f64::from(self.clip), f64::from(self.clip))
    }

    fn at(&self, gate: usize, at: usize) -> [f64; 2] {
        let place = gate * self.hidden.len() + at;
        [f64::from(self.input[place]), f64::from(self.product[place])]
    }

    fn gate(&self, function: GateFunction, gate: usize, at: usize, seen: f64) -> f64 {
        let [input, product] = self.at(gate, at);
        meaning(function, self.clipped(input + product + seen))
    }

    /// The next hidden state and that of the cell, by the equations of ONNX.
    fn expected(&self, cell: Cell, at: usize) -> [f64; 2] {
        let width = self.hidden.len();
        let (hidden, state) = (f64::from(self.hidden[at]), f64::from(self.cell[at]));
        match cell {
            Cell::Simple(f) => [self.gate(f, 0, at, 0.0), state],
            Cell::Gru { functions: [f, g], resets_product } => {
                let (update, reset) = (self.gate(f, 0, at, 0.0), self.gate(f, 1, at, 0.0));
                let [input, product] = self.at(2, at);
                let sum = if resets_product { input + reset * product } else { input + product };
                [(1.0 - update) * meaning(g, self.clipped(sum)) + update * hidden, state]
            }
            Cell::Lstm { functions: [f, g, h], coupled } => {
                let seen = |gate: usize, state: f64| f64::from(self.peepholes[gate * width + at]) * state;
                let input = self.gate(f, 0, at, seen(0, state));
                let forget = if coupled { 1.0 - input } else { self.gate(f, 2, at, seen(2, state)) };
                let after = forget * state + input * self.gate(g, 3, at, 0.0);
                [self.gate(f, 1, at, seen(1, after)) * meaning(h, after), after]
            }
        }
    }

    fn check(&self, cell: Cell, level: Level) {
        let width = self.hidden.len();
        let padded = |states: &[f32]| [states, &[7.0; 3]].concat();
        let (mut hidden, mut state) = (padded(&self.hidden), padded(&self.cell));
        cell.step(level, &self.step(), &mut hidden[..width], &mut state[..width]);
        let told = format!("{level} {cell:?} {width}");
        for at in 0..width {
            let [expected, after] = self.expected(cell, at);
            near(hidden[at], expected, &told);
            near(state[at], after, &told);
        }
        assert!(hidden[width..].iter().chain(&state[width..]).all(|&x| x == 7.0), "{told}");
        if let Cell::Gru { functions: [f, _], .. } = cell {
            cell.reset(level, &self.step(), &self.hidden, &mut state[..width]);
            for (at, (&got, &hidden)) in state.iter().zip(&self.hidden).enumerate() {
                near(got, self.gate(f, 1, at, 0.0) * f64::from(hidden), &told);
            }
            assert!(state[width..].iter().all(|&x| x == 7.0), "{told}");
        }
    }
}

#[test]
fn cells_of_every_function_are_close_on_every_tail() {
    for (at, &f) in FUNCTIONS.iter().enumerate() {
        let [g, h] = [1, 2].map(|next| FUNCTIONS[(at + next) % FUNCTIONS.len()]);
        let cells = [
            Cell::Lstm { functions: [f, g, h], coupled: false },
            Cell::Lstm { functions: [h, f, g], coupled: true },
            Cell::Gru { functions: [f, g], resets_product: false },
            Cell::Gru { functions: [g, f], resets_product: true },
            Cell::Simple(f),
        ];
        for (cell, width) in cells.into_iter().flat_map(|cell| (0..35).map(move |width| (cell, width))) {
            let row = Row::of(cell, width, if width % 2 == 0 { f32::INFINITY } else { 0.75 });
            Level::all().for_each(|level| row.check(cell, level));
        }
    }
}

#[test]
fn large_sums_stay_numbers() {
    for level in Level::all() {
        for function in FUNCTIONS {
            for x in [-1e4f32, -200.0, 0.0, 200.0, 1e4] {
                let step = Step { input: &[x], product: &[0.0], peepholes: None, clip: f32::INFINITY };
                let mut hidden = [0.0];
                Cell::Simple(function).step(level, &step, &mut hidden, &mut []);
                near(hidden[0], meaning(function, f64::from(x)), &format!("{level} {function:?} {x}"));
            }
        }
    }
}
