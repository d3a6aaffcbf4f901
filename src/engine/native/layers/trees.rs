//! Ensembles of decision trees.

use std::sync::Arc;

use bytemuck::Pod;
use kinglet_kernels::trees::{Element, Ensemble};

use super::{Io, Layer};
use crate::engine::graph::trees::Trees;
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) struct Walk(pub(super) Arc<Trees>);

impl Layer for Walk {
    fn run(&self, io: &mut Io<'_>, team: &mut Team) {
        match &*self.0 {
            Trees::F32(ensemble) => walk(ensemble, io, team),
            Trees::F64(ensemble) => walk(ensemble, io, team),
        }
    }

    fn bytes(&self) -> usize {
        match &*self.0 {
            Trees::F32(ensemble) => ensemble.bytes(),
            Trees::F64(ensemble) => ensemble.bytes(),
        }
    }

    fn kernel(&self, _made: DType) -> String {
        "trees".into()
    }
}

fn walk<T: Element + Pod>(ensemble: &Ensemble<T>, io: &mut Io<'_>, team: &mut Team) {
    let x = io.operands[0];
    let &[rows, width] = &x.shape()[..] else { return };
    let grid = ensemble.grid(io.output.elements(), rows);
    team.share(&|| ensemble.run(x.elements(), width, &grid));
}
