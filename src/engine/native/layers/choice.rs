//! Truth values: one of two elements, and the opposite.

use bytemuck::Pod;

use super::movement::{broadcast_strides, joined};
use super::types::sized;
use super::{Io, Layer};
use crate::engine::pool::Team;

#[derive(Debug)]
pub(super) struct Turn;

impl Layer for Turn {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        io.output.bytes.iter_mut().zip(io.operands[0].bytes).for_each(|(to, from)| *to = u8::from(*from == 0));
    }
}

#[derive(Debug)]
pub(super) struct Choose;

impl Layer for Choose {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        sized!(io.output.fact.dtype, T => choose::<T>(io));
    }
}

fn choose<T: Pod>(io: &mut Io<'_>) {
    let [condition, a, b] = [io.operands[0], io.operands[1], io.operands[2]];
    let shape = &io.output.fact.shape;
    let strides = [condition, a, b].map(|operand| broadcast_strides(operand.shape(), shape));
    let axes = joined(shape, [&strides[0], &strides[1], &strides[2]]);
    let to: &mut [T] = bytemuck::cast_slice_mut(io.output.bytes);
    each(condition.bytes, [a.elements(), b.elements()], &axes, to);
}

/// Chooses elements, `axes` being extents and strides of all operands from the outermost on.
fn each<T: Pod>(condition: &[u8], [a, b]: [&[T]; 2], axes: &[(usize, [isize; 3])], to: &mut [T]) {
    match *axes {
        _ if to.is_empty() => {}
        [] => to[0] = if condition[0] != 0 { a[0] } else { b[0] },
        [(extent, strides), ref inner @ ..] => {
            let [c, x, y] = strides.map(isize::unsigned_abs);
            let length = to.len() / extent;
            for (at, to) in to.chunks_exact_mut(length).enumerate() {
                each(&condition[at * c..], [&a[at * x..], &b[at * y..]], inner, to);
            }
        }
    }
}
