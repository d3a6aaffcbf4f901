//! Ensembles of decision trees as an operator has them: laid out once, shared by the graph and the layer that runs them.

use kinglet_kernels::trees::Ensemble;

use crate::tensor::DType;

/// An ensemble for features of either type of floats; its scores have the same.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) enum Trees {
    F32(Ensemble<f32>),
    F64(Ensemble<f64>),
}

impl Trees {
    pub(in crate::engine) fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
        }
    }

    /// Features that a row must have, and scores that it gets.
    pub(in crate::engine) fn extents(&self) -> [usize; 2] {
        match self {
            Self::F32(ensemble) => [ensemble.width(), ensemble.targets()],
            Self::F64(ensemble) => [ensemble.width(), ensemble.targets()],
        }
    }

    /// Whether some row may get no score for some target.
    pub(in crate::engine) fn is_scattered(&self) -> bool {
        match self {
            Self::F32(ensemble) => ensemble.is_scattered(),
            Self::F64(ensemble) => ensemble.is_scattered(),
        }
    }
}
