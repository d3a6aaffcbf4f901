//! Sums of products over named axes, in plain code.

use super::arithmetic::Number;
use super::types::numbers;
use super::{Io, Layer};
use crate::engine::graph::infer::{self, Contracted, Facts};
use crate::engine::graph::op::{Binary, Contraction};
use crate::engine::pool::Team;

#[derive(Debug)]
pub(super) struct Contract(pub(super) Contraction);

impl Layer for Contract {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let facts: Facts<'_> = io.operands.iter().map(|operand| operand.fact).collect();
        // Inference has laid out the same axes.
        let Ok(contracted) = infer::contracted(&self.0, &facts) else { return };
        numbers!(io.output.fact.dtype, T => contract::<T>(io, &contracted));
    }
}

fn contract<T: Number>(io: &mut Io<'_>, contracted: &Contracted) {
    let (out, summed) = contracted.extents.split_at(contracted.rank);
    let count: usize = summed.iter().product();
    let operands: Vec<&[T]> = io.operands.iter().map(|operand| operand.elements::<T>()).collect();
    let (add, times) = (T::function(Binary::Add), T::function(Binary::Mul));
    let to: &mut [T] = bytemuck::cast_slice_mut(io.output.bytes);
    let place = |at: usize, extents: &[usize], strides: &[usize]| {
        let (mut rest, mut place) = (at, 0);
        for (extent, stride) in extents.iter().zip(strides).rev() {
            place += rest % extent * stride;
            rest /= extent;
        }
        place
    };
    let mut firsts = vec![0; operands.len()];
    for (at, to) in to.iter_mut().enumerate() {
        for (first, strides) in firsts.iter_mut().zip(&contracted.strides) {
            *first = place(at, out, &strides[..contracted.rank]);
        }
        let product = |at: usize| {
            let element =
                |of: usize| operands[of][firsts[of] + place(at, summed, &contracted.strides[of][contracted.rank..])];
            (1..operands.len()).fold(element(0), |product, of| times(product, element(of)))
        };
        *to = (0..count).fold(T::zeroed(), |sum, at| add(sum, product(at)));
    }
}
