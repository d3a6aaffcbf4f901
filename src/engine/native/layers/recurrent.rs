//! Layers with a state that goes from step to step. Products of the input are made for a block of steps at once, those
//! of the hidden state for all rows of a step; the directions are independent of each other.

use kinglet_kernels::f32_gemm::{Gemm, Weights};
use kinglet_kernels::f32_recurrent::{Cell, Step};
use kinglet_kernels::{Activation, Grid, LINE, Level, Tile, Window};

use super::{Io, Layer, LowerError, Lowered, View, ViewMut, constant};
use crate::engine::graph::infer::{Facts, Sequence, sequence};
use crate::engine::graph::op::{Direction, Recurrent, Role};
use crate::engine::graph::{Graph, Node};
use crate::engine::pool::Team;
use crate::tensor::DType;

pub(super) fn lower(op: &Recurrent, graph: &Graph, node: &Node, level: Level) -> Result<Lowered, LowerError> {
    let places = [Some(1), Some(2), op.operand(Role::Bias), op.operand(Role::Peepholes)];
    if places.iter().flatten().any(|&at| graph.constant(node.inputs[at]).is_none()) {
        return Ok(Lowered { layer: Box::new(Computed { op: op.clone(), level }), operands: node.inputs.clone() });
    }
    let (input, shape) = constant(graph, node, 1, "the weights")?;
    let (hidden, hidden_shape) = constant(graph, node, 2, "the recurrent weights")?;
    let (&[_, _, depth], &[_, _, width]) = (&shape[..], &hidden_shape[..]) else {
        return Err(LowerError::Weights(shape));
    };
    let more = |role, what| op.operand(role).map(|at| constant(graph, node, at, what)).transpose();
    let (bias, peepholes) = (more(Role::Bias, "the bias")?, more(Role::Peepholes, "the peepholes")?);
    let (bias, peepholes) = (bias.map(|(bias, _)| bias), peepholes.map(|(peepholes, _)| peepholes));
    let weights = Sources {
        input: &input,
        hidden: &hidden,
        bias: bias.as_deref(),
        peepholes: peepholes.as_deref(),
        extents: [depth, width],
    };
    let walks = weights.walks(op, level);
    let operands = at_run_time(op).map(|at| node.inputs[at]).collect();
    Ok(Lowered { layer: Box::new(Recurrence { op: op.clone(), walks }), operands })
}

/// Places of the operands that are not packed.
fn at_run_time(op: &Recurrent) -> impl Iterator<Item = usize> + use<> {
    [Some(0), op.operand(Role::Lengths), op.operand(Role::Hidden), op.operand(Role::Cell)].into_iter().flatten()
}

/// The weights of all directions.
struct Sources<'a> {
    input: &'a [f32],
    hidden: &'a [f32],
    bias: Option<&'a [f32]>,
    peepholes: Option<&'a [f32]>,
    /// Elements of the input, and of the hidden state.
    extents: [usize; 2],
}

impl Sources<'_> {
    fn walks(&self, op: &Recurrent, level: Level) -> Vec<Walk> {
        let count = op.directions.len();
        let walk = |(at, direction): (usize, &Direction)| {
            let own = |all: &[f32]| all[all.len() / count * at..][..all.len() / count].to_vec();
            let bias = self.bias.map_or_else(|| vec![0.0; 2 * op.gates() * self.extents[1]], own);
            let matrices = Matrices { input: own(self.input), hidden: own(self.hidden), bias, extents: self.extents };
            Walk {
                peepholes: self.peepholes.map(own),
                cell: direction.cell,
                reverse: direction.reverse,
                products: Products::pack(direction.cell, &matrices, level),
                clip: op.clip,
                level,
            }
        };
        op.directions.iter().enumerate().map(walk).collect()
    }
}

/// A layer whose weights are packed when they are there.
#[derive(Debug)]
struct Computed {
    op: Recurrent,
    level: Level,
}

impl Layer for Computed {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let op = &self.op;
        let floats = |role| op.operand(role).map(|at| io.operands[at].elements());
        let (input, hidden) = (io.operands[1], io.operands[2]);
        let (&[_, _, depth], &[_, _, width]) = (&input.shape()[..], &hidden.shape()[..]) else { return };
        let weights = Sources {
            input: input.elements(),
            hidden: hidden.elements(),
            bias: floats(Role::Bias),
            peepholes: floats(Role::Peepholes),
            extents: [depth, width],
        };
        let packed = Recurrence { op: op.clone(), walks: weights.walks(op, self.level) };
        let operands = at_run_time(op).map(|at| io.operands[at]).collect();
        let output = ViewMut { fact: io.output.fact, bytes: io.output.bytes };
        packed.run(&mut Io { operands, output, scratch: io.scratch }, team);
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        scratch(&self.op, operands)
    }

    fn kernel(&self, _made: DType) -> String {
        format!("f32_gemm_packed__{}", self.level)
    }
}

fn scratch(op: &Recurrent, operands: &Facts<'_>) -> usize {
    let Ok(sequence) = sequence(op, operands) else { return 0 };
    op.directions.len() * Room::elements(&sequence, op.gates()) * size_of::<f32>()
}

/// The weights of one direction as the file has them, rows being columns of products.
struct Matrices {
    input: Vec<f32>,
    hidden: Vec<f32>,
    /// Of both, one behind the other.
    bias: Vec<f32>,
    /// Elements of the input, and of the hidden state.
    extents: [usize; 2],
}

/// The packed products of one direction.
#[derive(Debug)]
struct Products {
    /// Of the input, for all gates.
    input: Gemm,
    /// Of the hidden state: for all gates, or for all but the last.
    hidden: Gemm,
    /// Of the hidden state after its reset, for the last gate.
    reset: Option<Gemm>,
}

impl Products {
    fn pack(cell: Cell, Matrices { input, hidden, bias, extents: [depth, width] }: &Matrices, level: Level) -> Self {
        let (depth, width, columns) = (*depth, *width, cell.gates() * *width);
        let pack = |rows: &[f32], depth: usize, bias: Option<&[f32]>| {
            let columns = rows.len() / depth;
            let weights = Weights::of_filters(rows, [1, depth, columns]);
            Gemm::pack(level, &weights, bias, Activation::None, None)
        };
        let (of_input, of_hidden) = bias.split_at(columns);
        // What is added after the reset of a product stays with the input, what is added before it with the product.
        let apart = if matches!(cell, Cell::Gru { resets_product: true, .. }) { columns - width } else { columns };
        let together = |at: usize| if at < apart { of_input[at] + of_hidden[at] } else { of_input[at] };
        let sums: Vec<f32> = (0..columns).map(together).collect();
        let rest: Vec<f32> = (0..columns).map(|at| if at < apart { 0.0 } else { of_hidden[at] }).collect();
        let input = pack(input, depth, Some(&sums));
        match cell {
            Cell::Gru { resets_product: false, .. } => {
                let (first, last) = hidden.split_at((columns - width) * width);
                Self { input, hidden: pack(first, width, None), reset: Some(pack(last, width, None)) }
            }
            _ => Self { input, hidden: pack(hidden, width, Some(&rest)), reset: None },
        }
    }

    fn bytes(&self) -> usize {
        self.input.bytes() + self.hidden.bytes() + self.reset.as_ref().map_or(0, Gemm::bytes)
    }
}

/// One walk over all steps.
#[derive(Debug)]
struct Walk {
    products: Products,
    peepholes: Option<Vec<f32>>,
    cell: Cell,
    reverse: bool,
    clip: f32,
    level: Level,
}

#[derive(Debug)]
struct Recurrence {
    op: Recurrent,
    walks: Vec<Walk>,
}

/// What a walk reads.
struct Given<'a> {
    sequence: Sequence,
    x: &'a [f32],
    /// Of every row, where they are not all steps.
    lengths: Option<&'a [i32]>,
    /// States before the first step, of all directions.
    hidden: Option<&'a [f32]>,
    cell: Option<&'a [f32]>,
}

impl Layer for Recurrence {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        let (x, output, directions) = (io.operands[0], io.output.fact.shape.clone(), self.walks.len());
        let (&[steps, batch, depth], &[slots, _, _, hidden]) = (&x.shape()[..], &output[..]) else { return };
        let sequence = Sequence { steps, batch, depth, hidden };
        if batch == 0 {
            return;
        }
        let mut others = io.operands[1..].iter();
        let mut next = |role| self.op.operand(role).and_then(|_| others.next());
        let given = Given {
            sequence,
            x: x.elements(),
            lengths: next(Role::Lengths).map(View::elements),
            hidden: next(Role::Hidden).map(View::elements),
            cell: next(Role::Cell).map(View::elements),
        };
        let (states, all) = (batch * hidden, directions * batch * hidden);
        let each = Room::elements(&sequence, self.op.gates());
        let scratch: &mut [f32] = bytemuck::cast_slice_mut(io.scratch);
        let rooms = Grid::new(scratch, each, [directions, each], [1, each]);
        let grid = Grid::new(io.output.elements(), all, [slots, all], [slots, states]);
        let walk = || {
            // A room only for who has a tile: there are as many.
            while let Some(mut tile) = grid.take() {
                let Some(mut room) = rooms.take() else { return };
                let direction = tile.first()[1] / states;
                let room = Room::of(room.row(0), &sequence, self.op.gates());
                self.walks[direction].run(&given, direction, room, &mut tile);
            }
        };
        if directions > 1 { team.share(&walk) } else { walk() }
    }

    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        scratch(&self.op, operands)
    }

    fn bytes(&self) -> usize {
        self.walks.iter().map(|walk| walk.products.bytes()).sum()
    }

    fn kernel(&self, _made: DType) -> String {
        self.walks.first().map(|walk| walk.products.hidden.kernel()).unwrap_or_default()
    }
}

/// Scratch of one walk.
struct Room<'a> {
    /// Products of the input, for a block of steps.
    input: &'a mut [f32],
    /// Products of the hidden state.
    product: &'a mut [f32],
    hidden: &'a mut [f32],
    /// The cell's state, or the hidden state after its reset.
    other: &'a mut [f32],
}

impl<'a> Room<'a> {
    fn parts(sequence: &Sequence, gates: usize) -> [usize; 4] {
        let states = sequence.batch * sequence.hidden;
        let parts = [block(sequence) * gates * states, gates * states, states, states];
        parts.map(|elements| elements.next_multiple_of(LINE / size_of::<f32>()))
    }

    fn elements(sequence: &Sequence, gates: usize) -> usize {
        Self::parts(sequence, gates).iter().sum()
    }

    fn of(memory: &'a mut [f32], sequence: &Sequence, gates: usize) -> Self {
        let states = sequence.batch * sequence.hidden;
        let [input, product, hidden, _] = Self::parts(sequence, gates);
        let (input, rest) = memory.split_at_mut(input);
        let (product, rest) = rest.split_at_mut(product);
        let (hidden, other) = rest.split_at_mut(hidden);
        let (hidden, other) = (&mut hidden[..states], &mut other[..states]);
        Room { input, product: &mut product[..gates * states], hidden, other }
    }
}

/// Steps whose products of the input are made at once: as many as fill the tiles of that product.
fn block(sequence: &Sequence) -> usize {
    (BLOCK_ROWS / sequence.batch.max(1)).clamp(1, sequence.steps.max(1))
}

/// Rows of a product that read its weights once.
const BLOCK_ROWS: usize = 96;

impl Walk {
    /// All steps of a direction, whose column of the output is `tile`: a row for every step and for every last state.
    fn run(&self, given: &Given<'_>, direction: usize, mut room: Room<'_>, tile: &mut Tile<'_>) {
        let Sequence { steps, batch, depth, .. } = given.sequence;
        start(given.hidden, direction, room.hidden);
        start(given.cell, direction, room.other);
        let longest = (0..batch).map(|row| given.length(row)).max().unwrap_or(0);
        (longest..steps).for_each(|step| tile.row(step).fill(0.0));
        let block = block(&given.sequence);
        for walked in (0..longest).step_by(block) {
            let count = block.min(longest - walked);
            let first = if self.reverse { longest - walked - count } else { walked };
            let rows = count * batch;
            let x = &given.x[first * batch * depth..][..rows * depth];
            let product = &self.products.input;
            let columns = product.columns();
            multiply(product, x, rows, room.input, columns);
            for at in 0..count {
                let at = if self.reverse { count - 1 - at } else { at };
                self.step(given, first + at, at * batch * columns, &mut room, tile.row(first + at));
            }
        }
        // A row without steps leaves no states, as ONNX Runtime has it.
        let width = given.sequence.hidden;
        for row in (0..batch).filter(|row| given.length(*row) == 0) {
            [&mut *room.hidden, &mut *room.other]
                .into_iter()
                .for_each(|states| states[row * width..][..width].fill(0.0));
        }
        tile.row(steps).copy_from_slice(room.hidden);
        if tile.size()[0] > steps + 1 {
            tile.row(steps + 1).copy_from_slice(room.other);
        }
    }

    /// One step of all rows that have it; `input` is where its products of the input begin.
    fn step(&self, given: &Given<'_>, step: usize, input: usize, room: &mut Room<'_>, out: &mut [f32]) {
        let Sequence { batch, hidden: width, .. } = given.sequence;
        let columns = self.products.input.columns();
        multiply(&self.products.hidden, room.hidden, batch, room.product, columns);
        let rows = |row: usize| (row * columns..(row + 1) * columns, row * width..(row + 1) * width);
        if let Some(reset) = &self.products.reset {
            for row in 0..batch {
                let (gates, state) = rows(row);
                let step = self.operands(&room.input[input..][gates.clone()], &room.product[gates]);
                self.cell.reset(self.level, &step, &room.hidden[state.clone()], &mut room.other[state]);
            }
            // The last gate's columns.
            multiply(reset, room.other, batch, &mut room.product[columns - width..], columns);
        }
        for row in 0..batch {
            let (gates, state) = rows(row);
            if step >= given.length(row) {
                out[state].fill(0.0);
                continue;
            }
            let step = self.operands(&room.input[input..][gates.clone()], &room.product[gates]);
            let hidden = &mut room.hidden[state.clone()];
            self.cell.step(self.level, &step, hidden, &mut room.other[state.clone()]);
            out[state].copy_from_slice(hidden);
        }
    }

    fn operands<'a>(&'a self, input: &'a [f32], product: &'a [f32]) -> Step<'a> {
        Step { input, product, peepholes: self.peepholes.as_deref(), clip: self.clip }
    }
}

/// A product of dense rows, written to rows `pitch` elements apart.
fn multiply(product: &Gemm, from: &[f32], rows: usize, to: &mut [f32], pitch: usize) {
    let depth = from.len() / rows;
    product.run(from, &Window::rows(rows, depth), None, &product.grid(to, pitch, rows));
}

/// States before the first step: given ones, or zeros.
fn start(given: Option<&[f32]>, direction: usize, states: &mut [f32]) {
    match given {
        Some(given) => states.copy_from_slice(&given[direction * states.len()..][..states.len()]),
        None => states.fill(0.0),
    }
}

impl Given<'_> {
    /// Steps of a row; a number that cannot be one is taken for the nearest that can.
    fn length(&self, row: usize) -> usize {
        let steps = self.sequence.steps;
        self.lengths.map_or(steps, |lengths| usize::try_from(lengths[row]).unwrap_or(0).min(steps))
    }
}
