//! What an operator is written as where it is written with others: operators that all have its name.

use kinglet_kernels::Activation;
use kinglet_kernels::f32_functions::Function;

use super::Importer;
use super::node::{Along, Source};
use crate::engine::EngineError;
use crate::engine::graph::op::{Binary, Compare, FillValue, Reduce, ReduceKind, Unary};
use crate::engine::graph::{Op, ValueId, tensor_of_integers, tensor_of_number};
use crate::tensor::{DType, Tensor};

pub(super) struct Formula<'a> {
    pub(super) importer: &'a mut Importer,
    pub(super) name: String,
    /// Of numbers that it makes.
    pub(super) dtype: DType,
}

impl<'a> Formula<'a> {
    /// A formula of the node's first operand, in numbers of its type.
    pub(super) fn of(importer: &'a mut Importer, node: &Source<'_>) -> Result<(Self, ValueId), EngineError> {
        let x = importer.operand(node, 0)?;
        let dtype = importer.dtype(x);
        Ok((Self { importer, name: node.shown(), dtype }, x))
    }

    /// A formula whose operands are known already, in numbers of FP32.
    pub(super) fn with_name(importer: &'a mut Importer, node: &Source<'_>) -> Self {
        Self { importer, name: node.shown(), dtype: DType::F32 }
    }

    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.importer.graph.add_constant(format!("{} constant", self.name), tensor)
    }

    /// A number of the type of another value.
    pub(super) fn number_like(&mut self, other: ValueId, number: f64) -> ValueId {
        let dtype = self.importer.dtype(other);
        self.number_of(dtype, number)
    }

    pub(super) fn number(&mut self, number: impl Into<f64>) -> ValueId {
        self.number_of(self.dtype, number.into())
    }

    pub(super) fn number_of(&mut self, dtype: DType, number: f64) -> ValueId {
        self.importer.graph.add_constant(format!("{} constant", self.name), tensor_of_number(dtype, number))
    }

    /// Integers as a list.
    pub(super) fn list(&mut self, ints: &[i64]) -> ValueId {
        self.importer.list_of(&self.name, ints)
    }

    /// An integer without axes.
    pub(super) fn integer(&mut self, integer: i64) -> ValueId {
        self.importer.graph.add_constant(format!("{} integer", self.name), tensor_of_integers(&[], &[integer]))
    }

    pub(super) fn op(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        self.importer.graph.add(&self.name, op, operands)
    }

    pub(super) fn unary(&mut self, unary: Unary, x: ValueId) -> ValueId {
        self.op(Op::Unary(unary), &[x])
    }

    pub(super) fn function(&mut self, function: Function, x: ValueId) -> ValueId {
        self.op(Op::Activation(Activation::Function(function)), &[x])
    }

    pub(super) fn binary(&mut self, binary: Binary, a: ValueId, b: ValueId) -> ValueId {
        self.op(Op::Binary(binary), &[a, b])
    }

    /// With a number on the right.
    pub(super) fn with(&mut self, binary: Binary, x: ValueId, number: impl Into<f64>) -> ValueId {
        let number = self.number(number);
        self.binary(binary, x, number)
    }

    pub(super) fn compare(&mut self, compare: Compare, a: ValueId, b: ValueId) -> ValueId {
        self.op(Op::Compare(compare), &[a, b])
    }

    pub(super) fn reduce(&mut self, kind: ReduceKind, along: &Along, keep: bool, x: ValueId) -> ValueId {
        let operands: Vec<ValueId> = [x].into_iter().chain(along.operand).collect();
        self.op(Op::Reduce(Reduce { kind, axes: along.axes.clone(), keep }), &operands)
    }

    /// `then` where `x` compares so with a number, `otherwise` elsewhere.
    pub(super) fn choose(
        &mut self,
        x: ValueId,
        compare: Compare,
        number: impl Into<f64>,
        [then, otherwise]: [ValueId; 2],
    ) -> ValueId {
        let number = self.number(number);
        let condition = self.compare(compare, x, number);
        self.op(Op::Where, &[condition, then, otherwise])
    }

    /// `scale * (exp(x) - 1)`.
    pub(super) fn exponential_less_one(&mut self, x: ValueId, scale: impl Into<f64>) -> ValueId {
        let power = self.function(Function::Exp, x);
        let less = self.with(Binary::Sub, power, 1.0);
        self.with(Binary::Mul, less, scale)
    }

    /// The mean over axes, `x` less it, and the mean of the squares of that.
    pub(super) fn centred(&mut self, x: ValueId, along: &Along) -> [ValueId; 3] {
        let mean = self.reduce(ReduceKind::Mean, along, true, x);
        let difference = self.binary(Binary::Sub, x, mean);
        let square = self.binary(Binary::Mul, difference, difference);
        [mean, difference, self.reduce(ReduceKind::Mean, along, true, square)]
    }

    /// Elements as another type.
    pub(super) fn cast(&mut self, x: ValueId, to: DType) -> ValueId {
        if self.importer.dtype(x) == to { x } else { self.op(Op::Cast { to }, &[x]) }
    }

    /// Extents of some axes, or of all from one on, as a list.
    pub(super) fn extents(&mut self, x: ValueId, from: isize, to: Option<isize>) -> ValueId {
        self.op(Op::Shape { from, to }, &[x])
    }

    pub(super) fn concat(&mut self, axis: isize, operands: &[ValueId]) -> ValueId {
        self.op(Op::Concat { axis }, operands)
    }

    /// Under a shape that may depend on others; `0` copies an extent.
    pub(super) fn reshape(&mut self, x: ValueId, shape: ValueId) -> ValueId {
        self.op(Op::Reshape { allow_zero: false }, &[x, shape])
    }

    /// Under a shape that has each extent as it is.
    pub(super) fn reshape_exactly(&mut self, x: ValueId, shape: ValueId) -> ValueId {
        self.op(Op::Reshape { allow_zero: true }, &[x, shape])
    }

    /// Each matrix of the last two axes transposed.
    pub(super) fn turned(&mut self, x: ValueId) -> ValueId {
        if let Some(rank) = self.importer.extents(x).map(|extents| extents.len()) {
            let mut axes: Vec<usize> = (0..rank).collect();
            axes[rank.saturating_sub(2)..].reverse();
            return self.op(Op::Transpose { axes }, &[x]);
        }
        let [before, lines, columns] =
            [(0, Some(-2)), (-2, Some(-1)), (-1, None)].map(|(from, to)| self.extents(x, from, to));
        let any = self.list(&[-1]);
        let matrices = self.concat(0, &[any, lines, columns]);
        let matrices = self.reshape_exactly(x, matrices);
        let turned = self.op(Op::Transpose { axes: vec![0, 2, 1] }, &[matrices]);
        let shape = self.concat(0, &[before, columns, lines]);
        self.reshape_exactly(turned, shape)
    }

    pub(super) fn unsqueeze(&mut self, x: ValueId, axes: &[i64]) -> ValueId {
        let axes = self.list(axes);
        self.op(Op::Unsqueeze, &[x, axes])
    }

    pub(super) fn squeeze(&mut self, x: ValueId, axes: &[i64]) -> ValueId {
        let axes = self.list(axes);
        self.op(Op::Squeeze, &[x, axes])
    }

    /// Elements of one axis from a place on, up to another.
    pub(super) fn slice(&mut self, x: ValueId, axis: i64, from: i64, to: i64) -> ValueId {
        let [from, to, axis] = [from, to, axis].map(|int| self.list(&[int]));
        self.op(Op::Slice, &[x, from, to, axis])
    }

    /// A shape filled with a number.
    pub(super) fn filled(&mut self, shape: ValueId, dtype: DType, number: f64) -> ValueId {
        let bytes = tensor_of_number(dtype, number).bytes().to_vec();
        self.op(Op::Fill { value: FillValue { dtype, bytes } }, &[shape])
    }
}
