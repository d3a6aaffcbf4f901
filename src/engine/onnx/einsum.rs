//! Sums of products over named axes: products of matrices where two operands are given, each axis once in each.

use super::Importer;
use super::formula::Formula;
use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::op::{Contraction, Label};
use crate::engine::graph::{Op, ValueId};
use crate::tensor::DType;

pub(super) fn einsum(importer: &mut Importer, node: &Source<'_>) -> Result<ValueId, EngineError> {
    let equation = node.text("equation")?.ok_or_else(|| node.invalid("it has no equation"))?;
    let contraction =
        Contraction::read(&equation).ok_or_else(|| node.invalid(&format!("equation {equation:?} cannot be read")))?;
    let operands = importer.operands(node)?;
    let (mut formula, _) = Formula::of(importer, node)?;
    if let (&[a, b], DType::F32, Some(roles)) = (operands.as_slice(), formula.dtype, Roles::of(&contraction)) {
        return Ok(roles.product(&mut formula, [a, b]));
    }
    Ok(formula.op(Op::Contract(contraction), &operands))
}

/// What axes are to a product of matrices.
struct Roles {
    left: Vec<char>,
    right: Vec<char>,
    out: Vec<char>,
    /// In both and in the output.
    batch: Vec<char>,
    /// In both alone.
    depth: Vec<char>,
    rows: Vec<char>,
    columns: Vec<char>,
}

impl Roles {
    /// Where every axis has a name, stands once in an operand, and is in the other or in the output.
    fn of(contraction: &Contraction) -> Option<Self> {
        let named = |labels: &[Label]| -> Option<Vec<char>> {
            labels.iter().map(|label| if let Label::Axis(name) = label { Some(*name) } else { None }).collect()
        };
        let [left, right] = contraction.terms.as_slice() else { return None };
        let (left, right, out) = (named(left)?, named(right)?, named(&contraction.out)?);
        let once = |term: &[char]| term.iter().enumerate().all(|(at, name)| !term[..at].contains(name));
        let is_used = |name: &char, other: &[char]| other.contains(name) || out.contains(name);
        let used = left.iter().all(|name| is_used(name, &right)) && right.iter().all(|name| is_used(name, &left));
        if !once(&left) || !once(&right) || !used {
            return None;
        }
        let chosen = |term: &[char], in_right: bool, in_out: bool, other: &[char]| -> Vec<char> {
            term.iter()
                .copied()
                .filter(|name| other.contains(name) == in_right && out.contains(name) == in_out)
                .collect()
        };
        let batch = chosen(&left, true, true, &right);
        let depth = chosen(&left, true, false, &right);
        let (rows, columns) = (chosen(&left, false, true, &right), chosen(&right, false, true, &left));
        Some(Self { left, right, out, batch, depth, rows, columns })
    }

    /// `[batch.., rows, depth]` times `[batch.., depth, columns]`, put in the order of the output.
    fn product(&self, formula: &mut Formula<'_>, [a, b]: [ValueId; 2]) -> ValueId {
        let left = turned(formula, a, &self.left, &[&self.batch, &self.rows, &self.depth]);
        let right = turned(formula, b, &self.right, &[&self.batch, &self.depth, &self.columns]);
        let extents = |formula: &mut Formula<'_>, of: ValueId, names: &[char], of_names: &[char]| -> Vec<ValueId> {
            let place =
                |name: &char| of_names.iter().position(|other| other == name).and_then(|at| isize::try_from(at).ok());
            names.iter().filter_map(place).map(|at| formula.extents(of, at, Some(at + 1))).collect()
        };
        let batch = extents(formula, a, &self.batch, &self.left);
        let rows = extents(formula, a, &self.rows, &self.left);
        let columns = extents(formula, b, &self.columns, &self.right);
        let one = formula.list(&[1]);
        let all = formula.list(&[-1]);
        // One extent of a matrix is left open; the others are products.
        let joined = |formula: &mut Formula<'_>, list: &[ValueId]| {
            list.iter()
                .fold(one, |product, extent| formula.binary(crate::engine::graph::op::Binary::Mul, product, *extent))
        };
        let (rows_joined, columns_joined) = (joined(formula, &rows), joined(formula, &columns));
        let shape = |formula: &mut Formula<'_>, last: [ValueId; 2]| {
            let list: Vec<ValueId> = batch.iter().copied().chain(last).collect();
            formula.concat(0, &list)
        };
        let left_shape = shape(formula, [rows_joined, all]);
        let right_shape = shape(formula, [all, columns_joined]);
        let left = formula.reshape_exactly(left, left_shape);
        let right = formula.reshape_exactly(right, right_shape);
        let product = formula.op(Op::MatMul, &[left, right]);
        let list: Vec<ValueId> = batch.into_iter().chain(rows).chain(columns).collect();
        let made: Vec<char> = [&self.batch, &self.rows, &self.columns].into_iter().flatten().copied().collect();
        let shape = if list.is_empty() { formula.list(&[]) } else { formula.concat(0, &list) };
        let product = formula.reshape_exactly(product, shape);
        turned(formula, product, &made, &[&self.out])
    }
}

/// Axes put in another order.
fn turned(formula: &mut Formula<'_>, x: ValueId, from: &[char], to: &[&Vec<char>]) -> ValueId {
    let to = to.iter().copied().flatten();
    let axes: Vec<usize> = to.filter_map(|name| from.iter().position(|other| other == name)).collect();
    if axes.is_sorted() { x } else { formula.op(Op::Transpose { axes }, &[x]) }
}
