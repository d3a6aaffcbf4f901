//! Elements around a tensor: given ones, or those at its edge.

use bytemuck::Pod;

use super::movement::strides;
use super::types::sized;
use super::{Io, Layer};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::PadKind;
use crate::engine::pool::Team;

#[derive(Debug)]
pub(super) struct Padding(pub(super) PadKind);

impl Layer for Padding {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        sized!(io.output.fact.dtype, T => self.pad::<T>(io));
    }
}

impl Padding {
    fn pad<T: Pod>(&self, io: &mut Io<'_>) {
        let facts: Facts<'_> = io.operands.iter().map(|operand| operand.fact).collect();
        // Inference has read the same padding.
        let Ok(pads) = infer::padded(&facts) else { return };
        let x = io.operands[0];
        let strides = strides(x.shape());
        let axis = |axis: usize| -> Vec<Option<usize>> {
            let (extent, stride) = (x.shape()[axis], strides[axis].unsigned_abs());
            let from = |at: usize| Some(self.source(at.checked_add_signed(0)?, pads[axis][0], extent)? * stride);
            (0..io.output.fact.shape[axis]).map(from).collect()
        };
        let axes: Vec<Vec<Option<usize>>> = (0..x.shape().len()).map(axis).collect();
        let fill = io.operands.get(2).map_or(T::zeroed(), |value| value.elements::<T>()[0]);
        let to: &mut [T] = bytemuck::cast_slice_mut(io.output.bytes);
        copy(x.elements(), Some(0), &axes, fill, to);
    }

    /// Where along an axis an output element comes from; none where it is a given one.
    fn source(&self, at: usize, before: isize, extent: usize) -> Option<usize> {
        let (at, extent) = (isize::try_from(at).ok()? - before, isize::try_from(extent).ok()?);
        let place = match self.0 {
            PadKind::Constant => at,
            PadKind::Edge => at.clamp(0, (extent - 1).max(0)),
            PadKind::Wrap => at.rem_euclid(extent.max(1)),
            PadKind::Reflect if extent < 2 => 0,
            PadKind::Reflect => {
                let folded = at.rem_euclid(2 * (extent - 1));
                folded.min(2 * (extent - 1) - folded)
            }
        };
        usize::try_from(place).ok().filter(|_| place < extent)
    }
}

fn copy<T: Pod>(from: &[T], offset: Option<usize>, axes: &[Vec<Option<usize>>], fill: T, to: &mut [T]) {
    match (axes, offset) {
        (_, None) => to.fill(fill),
        ([], Some(offset)) => to.iter_mut().for_each(|to| *to = from[offset]),
        ([axis], Some(offset)) => {
            for (to, place) in to.iter_mut().zip(axis) {
                *to = place.map_or(fill, |place| from[offset + place]);
            }
        }
        ([axis, inner @ ..], Some(offset)) => {
            if axis.is_empty() || to.is_empty() {
                return;
            }
            let length = to.len() / axis.len();
            for (place, to) in axis.iter().zip(to.chunks_exact_mut(length)) {
                copy(from, place.map(|place| offset + place), inner, fill, to);
            }
        }
    }
}
