//! Elements chosen by their values, or by indices along an axis, and running sums.

use std::cmp::Ordering;

use bytemuck::Pod;

use super::arithmetic::Number;
use super::types::{numbers, sized};
use super::{Io, Layer, Unfit, View, movement};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::{Arg, Binary, Top};
use crate::engine::pool::Team;
use crate::tensor::Shape;

/// A tensor as lines along an axis: how many elements a line has, and how many lines lie between its elements.
#[derive(Clone, Copy)]
struct Lines {
    count: usize,
    inner: usize,
}

impl Lines {
    fn along(axis: isize, shape: &Shape) -> Option<Self> {
        let axis = infer::axis(axis, shape).ok()?;
        Some(Self { count: shape[axis], inner: shape[axis + 1..].iter().product() })
    }

    /// Where an element of a line is.
    fn place(&self, line: usize, at: usize) -> usize {
        (line / self.inner * self.count + at) * self.inner + line % self.inner
    }

    fn lines(&self, elements: usize) -> usize {
        elements.checked_div(self.count).unwrap_or(0)
    }
}

#[derive(Debug)]
pub(super) struct Extreme(pub(super) Arg);

impl Layer for Extreme {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        numbers!(io.operands[0].fact.dtype, T => self.run_as::<T>(io));
    }
}

impl Extreme {
    fn run_as<T: Number>(&self, io: &mut Io<'_>) {
        let x = io.operands[0];
        let Some(lines) = Lines::along(self.0.axis, x.shape()) else { return };
        let x = x.elements::<T>();
        for (line, to) in io.output.elements::<i64>().iter_mut().enumerate() {
            let mut best = 0;
            for at in 1..lines.count {
                let (other, held) = (x[lines.place(line, at)], x[lines.place(line, best)]);
                let better = if self.0.greatest { other > held } else { other < held };
                if better || self.0.last && other == held {
                    best = at;
                }
            }
            *to = index(best);
        }
    }
}

/// An order of all elements: what is no number is greater than any.
#[expect(clippy::eq_op, reason = "what is no number is not itself")]
fn compared<T: Number>(a: T, b: T) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| (a != a).cmp(&(b != b)))
}

/// Where the first elements of lines put in order are; of equal ones the first comes first.
#[derive(Debug)]
pub(super) struct Order(pub(super) Top);

impl Layer for Order {
    fn scratch(&self, operands: &Facts<'_>, _threads: usize) -> usize {
        let lines = operands.first().and_then(|x| Lines::along(self.0.axis, &x.shape));
        lines.map_or(0, |lines| lines.count * size_of::<usize>())
    }

    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        numbers!(io.operands[0].fact.dtype, T => self.run_as::<T>(io));
    }
}

impl Order {
    fn run_as<T: Number>(&self, io: &mut Io<'_>) {
        let x = io.operands[0];
        let (from, to) = (Lines::along(self.0.axis, x.shape()), Lines::along(self.0.axis, &io.output.fact.shape));
        let (Some(from), Some(to)) = (from, to) else { return };
        let elements = x.elements::<T>();
        let order: &mut [usize] = &mut bytemuck::cast_slice_mut(io.scratch)[..from.count];
        for line in 0..to.lines(io.output.fact.elements()) {
            order.iter_mut().enumerate().for_each(|(at, place)| *place = at);
            let before = |&a: &usize, &b: &usize| {
                let [x, y] = [a, b].map(|at| elements[from.place(line, at)]);
                let order = compared(x, y);
                (if self.0.greatest { order.reverse() } else { order }).then(a.cmp(&b))
            };
            // Few of many are taken out first.
            let taken = to.count.min(order.len());
            if taken > 0 && taken < order.len() {
                order.select_nth_unstable_by(taken - 1, before);
            }
            order[..taken].sort_unstable_by(before);
            for (at, &chosen) in order[..taken].iter().enumerate() {
                io.output.elements::<i64>()[to.place(line, at)] = index(chosen);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct RunningSum {
    pub(super) exclusive: bool,
    pub(super) reverse: bool,
}

impl Layer for RunningSum {
    fn check(&self, operands: &[View<'_>]) -> Result<(), Unfit> {
        Self::lines(operands).map(|_| ())
    }

    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        numbers!(io.operands[0].fact.dtype, T => self.run_as::<T>(io));
    }
}

impl RunningSum {
    fn lines(operands: &[View<'_>]) -> Result<Lines, Unfit> {
        let (axis, shape) = (movement::integer(&operands[1], 0), operands[0].shape());
        let lines = isize::try_from(axis).ok().and_then(|axis| Lines::along(axis, shape));
        lines.ok_or_else(|| Unfit::Axis { axis, shape: shape.clone() })
    }

    fn run_as<T: Number>(&self, io: &mut Io<'_>) {
        let Ok(lines) = Self::lines(&io.operands) else { return };
        let (elements, add) = (io.operands[0].elements::<T>(), T::function(Binary::Add));
        let to = io.output.elements::<T>();
        for line in 0..lines.lines(elements.len()) {
            let mut sum = T::zeroed();
            for at in 0..lines.count {
                let place = lines.place(line, if self.reverse { lines.count - 1 - at } else { at });
                let with = add(sum, elements[place]);
                to[place] = if self.exclusive { sum } else { with };
                sum = with;
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct GatherElements(pub(super) isize);

impl Layer for GatherElements {
    fn check(&self, operands: &[View<'_>]) -> Result<(), Unfit> {
        movement::check_indices(&operands[1], movement::along(self.0, &operands[0]))
    }

    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        sized!(io.output.fact.dtype, T => self.run_as::<T>(io));
    }
}

impl GatherElements {
    fn run_as<T: Pod>(&self, io: &mut Io<'_>) {
        let [x, indices] = [io.operands[0], io.operands[1]];
        let elements = x.elements::<T>();
        for (at, to) in io.output.elements::<T>().iter_mut().enumerate() {
            *to = elements[met(self.0, x.shape(), &indices, at)];
        }
    }
}

#[derive(Debug)]
pub(super) struct ScatterElements {
    pub(super) axis: isize,
    pub(super) with: Option<Binary>,
}

impl Layer for ScatterElements {
    fn check(&self, operands: &[View<'_>]) -> Result<(), Unfit> {
        movement::check_indices(&operands[1], movement::along(self.axis, &operands[0]))
    }

    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let [x, indices, updates] = [io.operands[0], io.operands[1], io.operands[2]];
        io.output.bytes.copy_from_slice(x.bytes);
        let Some(with) = self.with else {
            let size = x.fact.dtype.size().unwrap_or(1);
            for (at, update) in updates.bytes.chunks_exact(size).enumerate() {
                let place = met(self.axis, x.shape(), &indices, at);
                io.output.bytes[place * size..][..size].copy_from_slice(update);
            }
            return;
        };
        numbers!(x.fact.dtype, T => {
            let (to, with) = (io.output.elements::<T>(), T::function(with));
            for (at, &update) in updates.elements::<T>().iter().enumerate() {
                let place = met(self.axis, x.shape(), &indices, at);
                to[place] = with(to[place], update);
            }
        });
    }
}

/// The element of a tensor that an index, by its position among all, means along an axis.
fn met(axis: isize, shape: &Shape, indices: &View<'_>, at: usize) -> usize {
    let Ok(axis) = infer::axis(axis, shape) else { return 0 };
    let along = movement::place(indices, at, shape[axis]);
    let (mut rest, mut place, mut stride) = (at, 0, 1);
    for other in (0..shape.len()).rev() {
        let own = rest % indices.shape()[other];
        rest /= indices.shape()[other];
        place += stride * if other == axis { along } else { own };
        stride *= shape[other];
    }
    place
}

fn index(place: usize) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}
