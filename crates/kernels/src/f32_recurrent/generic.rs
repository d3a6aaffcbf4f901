//! The cells, for any vector.

use super::{Cell, GateFunction};
use crate::f32_functions::generic::{exp, sigmoid, tanh};
use crate::vector::Vector;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) step: unsafe fn(Cell, &Job, *mut f32, *mut f32),
    pub(super) reset: unsafe fn(Cell, &Job, *const f32, *mut f32),
}

/// Operands of one row. Pointers are valid for `width` elements of every gate.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) input: *const f32,
    pub(super) product: *const f32,
    pub(super) peepholes: Option<*const f32>,
    pub(super) clip: f32,
    pub(super) width: usize,
}

/// # Panics
/// When the job is not of these states.
pub(super) fn call_step(table: &Table, cell: Cell, job: &Job, hidden: &mut [f32], state: &mut [f32]) {
    assert_eq!(hidden.len(), job.width, "the job is of this state");
    // SAFETY: the table was found by its level, which proves its instructions; the job was made of slices that have the
    // elements of all gates, and a cell with a state of its own has one of this width, which callers have checked.
    unsafe { (table.step)(cell, job, hidden.as_mut_ptr(), state.as_mut_ptr()) }
}

/// # Panics
/// When the job is not of these states.
pub(super) fn call_reset(table: &Table, cell: Cell, job: &Job, hidden: &[f32], reset: &mut [f32]) {
    assert!([hidden.len(), reset.len()] == [job.width; 2], "the job is of these states");
    // SAFETY: the table was found by its level, which proves its instructions; the job was made of slices that have the
    // elements of all gates, and both states have its width.
    unsafe { (table.reset)(cell, job, hidden.as_ptr(), reset.as_mut_ptr()) }
}

/// Some elements of a row: `count` from `at` on, no more than a vector has lanes.
#[derive(Clone, Copy)]
struct Piece {
    at: usize,
    count: usize,
}

impl Piece {
    /// # Safety
    /// The processor has the instructions of `V`, and `from` is valid for the piece.
    #[inline(always)]
    unsafe fn load<V: Vector>(self, from: *const f32) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let from = from.add(self.at);
            if self.count < V::LANES { V::load_first(from, self.count) } else { V::load(from) }
        }
    }

    /// # Safety
    /// As `load`.
    #[inline(always)]
    unsafe fn store<V: Vector>(self, values: V, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let to = to.add(self.at);
            if self.count < V::LANES { values.store_first(to, self.count) } else { values.store(to) }
        }
    }
}

/// # Safety
/// The processor has the instructions of `V`; the job's pointers and `hidden` are valid for its width, and so is `state`
/// for a cell that has one.
#[inline(always)]
pub(super) unsafe fn step<V: Vector>(cell: Cell, job: &Job, hidden: *mut f32, state: *mut f32) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        for at in (0..job.width).step_by(V::LANES) {
            let piece = Piece { at, count: V::LANES.min(job.width - at) };
            match cell {
                Cell::Lstm { functions, coupled } => lstm::<V>(job, functions, coupled, piece, [hidden, state]),
                Cell::Gru { functions, resets_product } => gru::<V>(job, functions, resets_product, piece, hidden),
                Cell::Simple(function) => {
                    let made = apply(clipped::<V>(job, job.sum(0, piece)), function);
                    piece.store(made, hidden);
                }
            }
        }
    }
}

/// # Safety
/// As `step`; `reset` is valid for the job's width.
#[inline(always)]
pub(super) unsafe fn reset<V: Vector>(cell: Cell, job: &Job, hidden: *const f32, reset: *mut f32) {
    let Cell::Gru { functions: [function, _], .. } = cell else { return };
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        for at in (0..job.width).step_by(V::LANES) {
            let piece = Piece { at, count: V::LANES.min(job.width - at) };
            let gate = apply(clipped::<V>(job, job.sum(1, piece)), function);
            piece.store(gate.mul(piece.load(hidden)), reset);
        }
    }
}

impl Job {
    /// The sum of both products, for a gate.
    ///
    /// # Safety
    /// As `step`, for a gate of the cell and a piece of the row.
    #[inline(always)]
    unsafe fn sum<V: Vector>(&self, gate: usize, piece: Piece) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let first = gate * self.width;
            piece.load::<V>(self.input.add(first)).add(piece.load(self.product.add(first)))
        }
    }

    /// With what the cell's state adds through its peephole.
    ///
    /// # Safety
    /// As `sum`, for one of the first three gates of an LSTM.
    #[inline(always)]
    unsafe fn seen<V: Vector>(&self, gate: usize, piece: Piece, state: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let sum = self.sum::<V>(gate, piece);
            match self.peepholes {
                Some(peepholes) => piece.load::<V>(peepholes.add(gate * self.width)).mul_add(state, sum),
                None => sum,
            }
        }
    }
}

/// # Safety
/// As `step`, for a piece of the row.
#[inline(always)]
unsafe fn lstm<V: Vector>(
    job: &Job,
    [f, g, h]: [GateFunction; 3],
    coupled: bool,
    piece: Piece,
    [hidden, state]: [*mut f32; 2],
) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let before = piece.load::<V>(state);
        let input = apply(clipped(job, job.seen(0, piece, before)), f);
        let forget = match coupled {
            true => V::splat(1.0).sub(input),
            false => apply(clipped(job, job.seen(2, piece, before)), f),
        };
        let cell = apply(clipped::<V>(job, job.sum(3, piece)), g);
        let after = forget.mul_add(before, input.mul(cell));
        let output = apply(clipped(job, job.seen(1, piece, after)), f);
        piece.store(after, state);
        piece.store(output.mul(apply(after, h)), hidden);
    }
}

/// # Safety
/// As `step`, for a piece of the row.
#[inline(always)]
unsafe fn gru<V: Vector>(job: &Job, [f, g]: [GateFunction; 2], resets_product: bool, piece: Piece, hidden: *mut f32) {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let last = 2 * job.width;
        let (input, product) = (piece.load::<V>(job.input.add(last)), piece.load::<V>(job.product.add(last)));
        let sum = match resets_product {
            true => apply(clipped(job, job.sum::<V>(1, piece)), f).mul_add(product, input),
            false => input.add(product),
        };
        let new = apply(clipped(job, sum), g);
        let update = apply(clipped::<V>(job, job.sum(0, piece)), f);
        let kept = update.mul(piece.load(hidden));
        piece.store(V::splat(1.0).sub(update).mul_add(new, kept), hidden);
    }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn clipped<V: Vector>(job: &Job, x: V) -> V {
    // SAFETY: the caller's promise.
    unsafe { V::splat(job.clip).min(V::splat(-job.clip).max(x)) }
}

/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn apply<V: Vector>(x: V, function: GateFunction) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let zero = V::splat(0.0);
        match function {
            GateFunction::Sigmoid => sigmoid(x),
            GateFunction::Tanh => tanh(x),
            GateFunction::ScaledTanh { alpha, beta } => tanh(x.mul(V::splat(beta))).mul(V::splat(alpha)),
            GateFunction::Affine { alpha, beta } => x.mul(V::splat(alpha)).add(V::splat(beta)),
            GateFunction::Relu => zero.max(x),
            GateFunction::LeakyRelu { alpha } => x.where_negative(x.mul(V::splat(alpha)), x),
            GateFunction::ThresholdedRelu { alpha } => V::splat(alpha).sub(x).where_negative(x, zero),
            GateFunction::HardSigmoid { alpha, beta } => {
                V::splat(1.0).min(zero.max(x.mul(V::splat(alpha)).add(V::splat(beta))))
            }
            GateFunction::Elu { alpha } => x.where_negative(exp(x).sub(V::splat(1.0)).mul(V::splat(alpha)), x),
            GateFunction::Softsign => x.div(zero.sub(x).max(x).add(V::splat(1.0))),
            GateFunction::Softplus => softplus(x),
        }
    }
}

/// The greater of `x` and zero, plus `log(1 + u)` where `u` is the exponential of what is below zero: twice the series of
/// the inverse hyperbolic tangent of `u / (2 + u)`, which is a third at most.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
unsafe fn softplus<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise is that of these calls.
    unsafe {
        let power = exp(V::splat(0.0).sub(x).min(x));
        let part = power.div(power.add(V::splat(2.0)));
        let square = part.mul(part);
        let mut sum = V::splat(2.0 / 13.0);
        for factor in [2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0] {
            sum = sum.mul_add(square, V::splat(factor));
        }
        sum.mul_add(part, V::splat(0.0).max(x))
    }
}
