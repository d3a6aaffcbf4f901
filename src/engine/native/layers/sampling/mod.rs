//! Operators that read images between their pixels, or put pieces of images together, in plain code.

mod determinant;
mod fold;
mod grid;
mod regions;
mod resample;

use super::{Io, Layer, Unfit, View, movement};
use crate::engine::graph::op::Sampling;
use crate::engine::pool::Team;

#[derive(Debug)]
pub(super) struct Sample(pub(super) Sampling);

impl Layer for Sample {
    fn check(&self, operands: &[View<'_>]) -> Result<(), Unfit> {
        match &self.0 {
            Sampling::Regions(_) => movement::check_indices(&operands[2], movement::along(0, &operands[0])),
            _ => Ok(()),
        }
    }

    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        match &self.0 {
            Sampling::Resample(resample) => resample::run(resample, io),
            Sampling::Grid(grid) => grid::sample(*grid, io),
            Sampling::AffineGrid { align_corners } => grid::affine(*align_corners, io),
            Sampling::Fold(fold) => fold::run(fold, io),
            Sampling::Regions(regions) => regions::run(regions, io),
            Sampling::Determinant => determinant::run(io),
        }
    }
}
