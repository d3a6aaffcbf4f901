//! Layers that compute with FP32 alone, and what they are made of for other numbers.

use kinglet_kernels::f32_functions::Function;

use super::formula::Formula;
use super::node::Along;
use crate::engine::graph::op::{Binary, Contraction, ReduceKind, Unary};
use crate::engine::graph::{Op, ValueId};
use crate::tensor::DType;

impl Formula<'_> {
    /// A product of matrices; a vector is one of one line, or of one column.
    pub(super) fn product(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let [is_line, is_column] = [a, b].map(|of| self.importer.extents(of).is_some_and(|extents| extents.len() == 1));
        let equation = match (is_line, is_column) {
            (false, false) => "...ij,...jk->...ik",
            (true, false) => "j,...jk->...k",
            (false, true) => "...ij,j->...i",
            (true, true) => "j,j->",
        };
        match Contraction::read(equation) {
            Some(contraction) if self.importer.dtype(a) != DType::F32 => self.op(Op::Contract(contraction), &[a, b]),
            _ => self.op(Op::MatMul, &[a, b]),
        }
    }

    pub(super) fn softmax(&mut self, x: ValueId, axis: isize, log: bool) -> ValueId {
        if self.importer.dtype(x) == DType::F32 {
            return self.op(Op::Softmax { axis, log }, &[x]);
        }
        let along = Along::given(&[i64::try_from(axis).unwrap_or(i64::MAX)]);
        let greatest = self.reduce(ReduceKind::Max, &along, true, x);
        let below = self.binary(Binary::Sub, x, greatest);
        let power = self.function(Function::Exp, below);
        let sum = self.reduce(ReduceKind::Sum, &along, true, power);
        if !log {
            return self.binary(Binary::Div, power, sum);
        }
        let sum = self.unary(Unary::Log, sum);
        self.binary(Binary::Sub, below, sum)
    }

    /// Rows of the last axis with a mean of zero and a variance of one, scaled and shifted.
    pub(super) fn normalized(&mut self, [x, scale, shift]: [ValueId; 3], epsilon: f32) -> ValueId {
        if self.importer.dtype(x) == DType::F32 {
            return self.op(Op::Normalize { epsilon }, &[x, scale, shift]);
        }
        let [_, difference, variance] = self.centred(x, &Along::given(&[-1]));
        let raised = self.with(Binary::Add, variance, epsilon);
        let deviation = self.unary(Unary::Sqrt, raised);
        let normal = self.binary(Binary::Div, difference, deviation);
        let scaled = self.binary(Binary::Mul, normal, scale);
        self.binary(Binary::Add, scaled, shift)
    }

    /// Each channel of axis 1 scaled and shifted. Where the rank is not known, only FP32 is.
    pub(super) fn scaled(&mut self, [x, scale, shift]: [ValueId; 3]) -> ValueId {
        match self.importer.extents(x).map(|extents| extents.len()) {
            Some(rank @ 2..) if self.importer.dtype(x) != DType::F32 => {
                let behind: Vec<i64> = (1..).take(rank - 2).collect();
                let [scale, shift] = [scale, shift].map(|of| self.unsqueeze(of, &behind));
                let scaled = self.binary(Binary::Mul, x, scale);
                self.binary(Binary::Add, scaled, shift)
            }
            _ => self.op(Op::Affine { axis: 1 }, &[x, scale, shift]),
        }
    }
}
