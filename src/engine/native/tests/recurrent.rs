//! Recurrent layers against the equations of ONNX in `f64`: every direction, layout and operand that may be missing.

use super::*;
use crate::engine::proto::{int, node, text, value};
use crate::proto::onnx::AttributeProto;
use crate::proto::onnx::attribute_proto::AttributeType;
use crate::tensor::DType;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Lstm,
    Gru,
    Rnn,
}

/// A node of one layer. What it varies in is bits of `with`.
#[derive(Clone, Debug)]
struct Layer {
    kind: Kind,
    direction: &'static str,
    layout: usize,
    /// Bits: bias, lengths, states, clip, and what a kind has of its own: peepholes and an input gate that is the forget
    /// gate's counterpart, or a product that is reset.
    with: usize,
    extents: Extents,
}

#[derive(Clone, Copy, Debug)]
struct Extents {
    steps: usize,
    batch: usize,
    depth: usize,
    hidden: usize,
}

const BIAS: usize = 1;
const LENGTHS: usize = 2;
const STATES: usize = 4;
const CLIP: usize = 8;
const PEEPHOLES: usize = 16;
const COUPLED: usize = 32;
const RESETS_PRODUCT: usize = 64;

const EXTENTS: Extents = Extents { steps: 5, batch: 3, depth: 4, hidden: 11 };
const BOUND: f32 = 0.4;

impl Layer {
    fn has(&self, bit: usize) -> bool {
        self.with & bit != 0
    }

    fn gates(&self) -> usize {
        match self.kind {
            Kind::Lstm => 4,
            Kind::Gru => 3,
            Kind::Rnn => 1,
        }
    }

    fn reverse(&self) -> &'static [bool] {
        match self.direction {
            "forward" => &[false],
            "reverse" => &[true],
            _ => &[false, true],
        }
    }

    fn constant(&self, name: &str, dims: &[usize]) -> Vec<f32> {
        let count = dims.iter().product::<usize>() * self.reverse().len();
        // Steps do not amplify what was rounded before them.
        let scale = 1.5 / (self.extents.hidden as f32).sqrt();
        made_up(count, name.len() + count).iter().map(|x| x * scale).collect()
    }

    /// A name and the extents behind those of the directions.
    fn constants(&self) -> Vec<(&'static str, Vec<usize>)> {
        let Extents { depth, hidden, .. } = self.extents;
        let rows = self.gates() * hidden;
        let all = [("w", vec![rows, depth], 0), ("rec", vec![rows, hidden], 0), ("bias", vec![2 * rows], BIAS)];
        let all = all.into_iter().chain([("peep", vec![3 * hidden], PEEPHOLES)]);
        all.filter(|(_, _, bit)| *bit == 0 || self.has(*bit)).map(|(name, dims, _)| (name, dims)).collect()
    }

    fn node(&self) -> NodeProto {
        let given = |name: &'static str, bit: usize| if self.has(bit) { name } else { "" };
        let mut inputs = vec!["x", "w", "rec", given("bias", BIAS), given("lengths", LENGTHS), given("h", STATES)];
        let mut outputs = vec!["y", "y_h"];
        let hidden = i64::try_from(self.extents.hidden).unwrap();
        let mut attributes = vec![text("direction", self.direction), int("hidden_size", hidden)];
        attributes.push(int("layout", i64::try_from(self.layout).unwrap()));
        if self.has(CLIP) {
            attributes.push(AttributeProto { r#type: AttributeType::Float as i32, f: BOUND, ..int("clip", 0) });
        }
        let op_type = match self.kind {
            Kind::Lstm => {
                inputs.extend([given("c", STATES), given("peep", PEEPHOLES)]);
                outputs.push("y_c");
                attributes.push(int("input_forget", i64::from(self.has(COUPLED))));
                "LSTM"
            }
            Kind::Gru => {
                attributes.push(int("linear_before_reset", i64::from(self.has(RESETS_PRODUCT))));
                "GRU"
            }
            Kind::Rnn => "RNN",
        };
        node(op_type, &inputs, &outputs, attributes)
    }

    /// Extents in the node's layout: the batch stands first, or behind the first axis.
    fn laid_out(&self, first: usize, rest: &[usize]) -> Vec<usize> {
        let head = if self.layout == 0 { [first, self.extents.batch] } else { [self.extents.batch, first] };
        [&head[..], rest].concat()
    }

    /// Names and shapes of what a request brings.
    fn inputs(&self) -> Vec<(&'static str, Vec<usize>)> {
        let Extents { steps, batch, depth, hidden } = self.extents;
        let states = || self.laid_out(self.reverse().len(), &[hidden]);
        let mut inputs = vec![("x", self.laid_out(steps, &[depth]))];
        if self.has(LENGTHS) {
            inputs.push(("lengths", vec![batch]));
        }
        if self.has(STATES) {
            inputs.push(("h", states()));
            if self.kind == Kind::Lstm {
                inputs.push(("c", states()));
            }
        }
        inputs
    }

    fn lengths(&self) -> Vec<i32> {
        let steps = i32::try_from(self.extents.steps).unwrap();
        // One row with all steps, one with two, one with none, and so on.
        let length = |row: usize| [steps, 2, 0][row % 3];
        (0..self.extents.batch).map(|row| if self.has(LENGTHS) { length(row) } else { steps }).collect()
    }

    fn given(&self) -> Vec<Tensor> {
        let lengths = self.lengths().iter().flat_map(|length| length.to_le_bytes()).collect::<Vec<u8>>();
        let tensor_of = |(name, shape): &(&str, Vec<usize>)| match *name {
            "lengths" => bytes_of(DType::I32, shape, lengths.clone()),
            _ => tensor(shape, &made_up(shape.iter().product(), name.len() + shape.len() + usize::from(*name == "c"))),
        };
        self.inputs().iter().map(tensor_of).collect()
    }

    fn model(&self) -> ModelProto {
        let signed = |dims: &[usize]| dims.iter().map(|&dim| i64::try_from(dim).unwrap()).collect::<Vec<i64>>();
        let directions = self.reverse().len();
        let constants = self.constants().into_iter().map(|(name, dims)| {
            floats(name, &signed(&[&[directions], &dims[..]].concat()), &self.constant(name, &dims))
        });
        let input = |(name, shape): &(&str, Vec<usize>)| {
            value(name, if *name == "lengths" { DataType::Int32 } else { DataType::Float }, &signed(shape))
        };
        let ranks: &[_] =
            if self.kind == Kind::Lstm { &[("y", 4), ("y_h", 3), ("y_c", 3)] } else { &[("y", 4), ("y_h", 3)] };
        let names = ["a", "b", "c", "d"];
        let outputs = ranks.iter().map(|(name, rank)| value_free(name, DataType::Float, &names[..*rank]));
        let inputs = self.inputs();
        model(inputs.iter().map(input).collect(), vec![self.node()], outputs.collect(), constants.collect())
    }

    fn answers(&self, level: Level) -> Vec<Tensor> {
        let plan = plan(&self.model(), &LoadOptions { isa_max: level.set(), ..options() }).unwrap();
        answer(plan, self.given()).unwrap()
    }

    fn check(&self) {
        let expected = Oracle { layer: self, given: self.given() }.answers();
        for level in Level::all() {
            let got = self.answers(level);
            assert_eq!(got.len(), expected.len());
            for (got, (shape, expected)) in got.iter().zip(&expected) {
                assert_eq!(got.shape()[..], shape[..], "{level} {self:?}");
                for (got, expected) in values(got).iter().zip(expected) {
                    assert!((f64::from(*got) - expected).abs() <= 1e-5, "{level} {self:?}: {got} for {expected}");
                }
            }
        }
    }
}

/// The equations, one row and one element at a time.
struct Oracle<'a> {
    layer: &'a Layer,
    given: Vec<Tensor>,
}

/// States of one row in one direction.
struct States {
    hidden: Vec<f64>,
    cell: Vec<f64>,
}

/// Weights of one direction.
struct Weights {
    input: Vec<f32>,
    hidden: Vec<f32>,
    bias: Vec<f32>,
    peepholes: Vec<f32>,
}

impl Oracle<'_> {
    fn input(&self, name: &str) -> Option<Vec<f32>> {
        let at = self.layer.inputs().iter().position(|(given, _)| *given == name)?;
        Some(values(&self.given[at]))
    }

    /// Where the element of a batch row is, of values whose first axis has so many places.
    fn place(&self, first: usize, [at, row]: [usize; 2], width: usize) -> usize {
        let batch = self.layer.extents.batch;
        (if self.layer.layout == 0 { at * batch + row } else { row * first + at }) * width
    }

    /// Shapes and elements of the outputs.
    fn answers(&self) -> Vec<(Vec<usize>, Vec<f64>)> {
        let Extents { steps, batch, hidden, .. } = self.layer.extents;
        let directions = self.layer.reverse().len();
        let mut all = vec![0.0; steps * directions * batch * hidden];
        let [mut last, mut cells] = [(); 2].map(|()| vec![0.0; directions * batch * hidden]);
        for (direction, &reverse) in self.layer.reverse().iter().enumerate() {
            let weights = self.weights(direction);
            for row in 0..batch {
                let length = usize::try_from(self.layer.lengths()[row]).unwrap();
                let state = self.place(directions, [direction, row], hidden);
                let mut states = States { hidden: self.start("h", state), cell: self.start("c", state) };
                for walked in 0..length {
                    let step = if reverse { length - 1 - walked } else { walked };
                    self.step(&weights, [step, row], &mut states);
                    let at = match self.layer.layout {
                        0 => (step * directions + direction) * batch + row,
                        _ => (row * steps + step) * directions + direction,
                    };
                    all[at * hidden..][..hidden].copy_from_slice(&states.hidden);
                }
                if length > 0 {
                    last[state..][..hidden].copy_from_slice(&states.hidden);
                    cells[state..][..hidden].copy_from_slice(&states.cell);
                }
            }
        }
        let shape = match self.layer.layout {
            0 => vec![steps, directions, batch, hidden],
            _ => vec![batch, steps, directions, hidden],
        };
        let states = self.layer.laid_out(directions, &[hidden]);
        let mut answers = vec![(shape, all), (states.clone(), last)];
        if self.layer.kind == Kind::Lstm {
            answers.push((states, cells));
        }
        answers
    }

    fn start(&self, name: &str, at: usize) -> Vec<f64> {
        let hidden = self.layer.extents.hidden;
        let given = self.input(name).filter(|_| self.layer.has(STATES));
        given.map_or_else(|| vec![0.0; hidden], |all| all[at..][..hidden].iter().map(|&x| x.into()).collect())
    }

    fn weights(&self, direction: usize) -> Weights {
        let own = |name: &str| {
            let found = self.layer.constants().into_iter().find(|(given, _)| *given == name);
            let all = found.map(|(name, dims)| self.layer.constant(name, &dims)).unwrap_or_default();
            let each = all.len() / self.layer.reverse().len();
            all[direction * each..][..each].to_vec()
        };
        Weights { input: own("w"), hidden: own("rec"), bias: own("bias"), peepholes: own("peep") }
    }

    fn step(&self, weights: &Weights, [step, row]: [usize; 2], states: &mut States) {
        let Extents { steps, depth, hidden, .. } = self.layer.extents;
        let x = self.input("x").unwrap()[self.place(steps, [step, row], depth)..][..depth].to_vec();
        let (rows, of_gates) = (self.layer.gates() * hidden, |gate: usize, at: usize| gate * hidden + at);
        let bias = |at: usize| weights.bias.get(at).map_or(0.0, |&bias| f64::from(bias));
        let sum = |matrix: &[f32], place: usize, with: &[f64]| -> f64 {
            matrix[place * with.len()..].iter().zip(with).map(|(w, x)| f64::from(*w) * x).sum()
        };
        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
        let of_input = |gate, at| sum(&weights.input, of_gates(gate, at), &x) + bias(of_gates(gate, at));
        let of =
            |gate, at, with: &[f64]| sum(&weights.hidden, of_gates(gate, at), with) + bias(rows + of_gates(gate, at));
        let before = &states.hidden;
        let clipped = |x: f64| if self.layer.has(CLIP) { x.clamp(-f64::from(BOUND), BOUND.into()) } else { x };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-clipped(x)).exp());
        let tanh = |x: f64| clipped(x).tanh();
        let seen = |gate: usize, at: usize, cell: f64| {
            weights.peepholes.get(gate * hidden + at).map_or(0.0, |&factor| f64::from(factor) * cell)
        };
        let both = |gate, at| of_input(gate, at) + of(gate, at, before);
        let made: Vec<[f64; 2]> = match self.layer.kind {
            Kind::Rnn => (0..hidden).map(|at| [tanh(both(0, at)), 0.0]).collect(),
            Kind::Gru => {
                let reset: Vec<f64> = (0..hidden).map(|at| sigmoid(both(1, at))).collect();
                let let_through: Vec<f64> = reset.iter().zip(before).map(|(reset, before)| reset * before).collect();
                let new = |at: usize| match self.layer.has(RESETS_PRODUCT) {
                    true => tanh(of_input(2, at) + reset[at] * of(2, at, before)),
                    false => tanh(of_input(2, at) + of(2, at, &let_through)),
                };
                let mixed = |at: usize| {
                    let update = sigmoid(both(0, at));
                    (1.0 - update) * new(at) + update * before[at]
                };
                (0..hidden).map(|at| [mixed(at), 0.0]).collect()
            }
            Kind::Lstm => {
                let mixed = |at: usize| {
                    let cell = states.cell[at];
                    let input = sigmoid(both(0, at) + seen(0, at, cell));
                    let forget = sigmoid(both(2, at) + seen(2, at, cell));
                    let forget = if self.layer.has(COUPLED) { 1.0 - input } else { forget };
                    let after = forget * cell + input * tanh(both(3, at));
                    [sigmoid(both(1, at) + seen(1, at, after)) * after.tanh(), after]
                };
                (0..hidden).map(mixed).collect()
            }
        };
        (states.hidden, states.cell) = made.into_iter().map(|[hidden, cell]| (hidden, cell)).unzip();
    }
}

fn every(kind: Kind, own: &[usize]) {
    for direction in ["forward", "reverse", "bidirectional"] {
        for layout in 0..2 {
            for common in 0..16 {
                for own in own {
                    Layer { kind, direction, layout, with: common | own, extents: EXTENTS }.check();
                }
            }
        }
    }
}

#[test]
fn long_short_term_memory() {
    every(Kind::Lstm, &[0, PEEPHOLES, COUPLED, PEEPHOLES | COUPLED]);
}

#[test]
fn gated_units() {
    every(Kind::Gru, &[0, RESETS_PRODUCT]);
}

#[test]
fn simple_units() {
    every(Kind::Rnn, &[0]);
}

#[test]
fn more_steps_than_a_block_and_more_units_than_a_tile() {
    for (kind, direction) in [(Kind::Lstm, "bidirectional"), (Kind::Gru, "reverse"), (Kind::Rnn, "forward")] {
        for extents in [
            Extents { steps: 230, batch: 1, depth: 3, hidden: 5 },
            Extents { steps: 70, batch: 4, depth: 20, hidden: 70 },
        ] {
            let layer = Layer { kind, direction, layout: 0, with: BIAS | CLIP | LENGTHS, extents };
            layer.check();
        }
    }
}

#[test]
fn nothing_to_walk() {
    for extents in [Extents { steps: 0, ..EXTENTS }, Extents { batch: 0, ..EXTENTS }] {
        Layer { kind: Kind::Lstm, direction: "bidirectional", layout: 0, with: STATES, extents }.check();
    }
}
