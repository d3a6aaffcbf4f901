//! Elements around a tensor: given ones, or those at its edge.

use std::ops::Range;

use bytemuck::Pod;

use super::types::sized;
use super::{Io, Layer};
use crate::engine::graph::infer::{self, Facts};
use crate::engine::graph::op::PadKind;
use crate::engine::pool::Team;
use crate::tensor::PerAxis;

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
        // What lies behind the last axis that changes stays together.
        let changed = pads.iter().rposition(|pads| *pads != [0, 0]).map_or(0, |last| last + 1);
        let block = x.shape()[changed..].iter().product();
        let axes = x.shape().iter().zip(io.output.fact.shape.iter()).zip(&pads).take(changed);
        let axes: PerAxis<Axis> = axes.map(|((&extent, &out), &[before, _])| Axis { extent, out, before }).collect();
        let fill = io.operands.get(2).map_or(T::zeroed(), |value| value.elements::<T>()[0]);
        let to: &mut [T] = bytemuck::cast_slice_mut(io.output.bytes);
        self.copy(x.elements(), &axes, block, fill, to);
    }

    /// Writes what lies behind some axes; `block` elements lie behind the last.
    fn copy<T: Pod>(&self, from: &[T], axes: &[Axis], block: usize, fill: T, to: &mut [T]) {
        let Some((axis, inner)) = axes.split_first() else { return to.copy_from_slice(from) };
        if to.is_empty() {
            return;
        }
        let (length, written) = (from.len().checked_div(axis.extent).unwrap_or(0), to.len() / axis.out);
        if let (true, PadKind::Constant) = (inner.is_empty(), self.0) {
            let seen = axis.seen();
            let (before, rest) = to.split_at_mut(seen.start * block);
            let (middle, after) = rest.split_at_mut(seen.len() * block);
            let first = seen.start.saturating_add_signed(-axis.before) * block;
            before.fill(fill);
            middle.copy_from_slice(&from[first.min(from.len())..][..middle.len()]);
            after.fill(fill);
            return;
        }
        for (at, to) in to.chunks_exact_mut(written).enumerate() {
            match self.source(at, axis) {
                Some(place) => self.copy(&from[place * length..][..length], inner, block, fill, to),
                None => to.fill(fill),
            }
        }
    }

    /// Where along an axis an output element comes from; none where it is a given one.
    fn source(&self, at: usize, axis: &Axis) -> Option<usize> {
        let (at, extent) = (isize::try_from(at).ok()? - axis.before, isize::try_from(axis.extent).ok()?);
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

/// An axis before and after, and how many elements come before its first; a negative number of them is cut off.
struct Axis {
    extent: usize,
    out: usize,
    before: isize,
}

impl Axis {
    /// The places of the output that have an element of the operand.
    fn seen(&self) -> Range<usize> {
        let first = usize::try_from(self.before).unwrap_or(0).min(self.out);
        first..self.extent.saturating_add_signed(self.before).clamp(first, self.out)
    }
}
