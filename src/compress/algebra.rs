//! Symmetric positive matrices in FP64: their factor, and what they are multiplied by to give another matrix.
//!
//! In blocks, so that nearly all of the work is products of matrices (Golub and Van Loan, Matrix Computations, 4.2.9).

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayBase, ArrayView1, ArrayView2, ArrayViewMut2, Axis, Data, Ix2, RawData, Zip};

/// A matrix as the product of a lower triangle and its transpose.
#[derive(Debug)]
pub(super) struct Factor(Array2<f64>);

impl Factor {
    /// Of a symmetric matrix, of which the lower triangle is read; none where it is not positive.
    pub(super) fn of(mut matrix: Array2<f64>) -> Option<Self> {
        let order = matrix.nrows();
        for from in (0..order).step_by(BLOCK) {
            let to = (from + BLOCK).min(order);
            factor_small(part(matrix.view_mut(), from..to, from..to))?;
            let (upper, mut below) = matrix.view_mut().split_at(Axis(0), to);
            divide_by_transposed(part(below.view_mut(), 0..order - to, from..to), &part(upper, from..to, from..to));
            let panel = part(below.view(), 0..order - to, from..to).to_owned();
            for column in (to..order).step_by(BLOCK) {
                let end = (column + BLOCK).min(order);
                let lines = column - to..order - to;
                let left = part(panel.view(), lines.clone(), 0..to - from);
                let right = part(panel.view(), column - to..end - to, 0..to - from).reversed_axes();
                general_mat_mul(-1.0, &left, &right, 1.0, &mut part(below.view_mut(), lines, column..end));
            }
        }
        Some(Self(matrix))
    }

    /// What the matrix is to be multiplied by to give `right`.
    pub(super) fn solve(&self, right: &ArrayView2<'_, f64>) -> Array2<f64> {
        let (order, columns) = right.dim();
        // Elements of a line lie side by side, whichever way those of the right side do.
        let mut x = Array2::zeros((order, columns));
        x.assign(right);
        let starts: Vec<usize> = (0..order).step_by(BLOCK).collect();
        for &from in &starts {
            let to = (from + BLOCK).min(order);
            let (done, rest) = x.view_mut().split_at(Axis(0), from);
            let mut lines = part(rest, 0..to - from, 0..columns);
            general_mat_mul(-1.0, &part(self.0.view(), from..to, 0..from), &done, 1.0, &mut lines);
            for line in 0..to - from {
                let (above, below) = lines.view_mut().split_at(Axis(0), line);
                let factors = self.0.row(from + line);
                eliminate(
                    below.split_at(Axis(0), 1).0,
                    &above,
                    |earlier| factors[from + earlier],
                    factors[from + line],
                );
            }
        }
        for &from in starts.iter().rev() {
            let to = (from + BLOCK).min(order);
            let (lines, done) = x.view_mut().split_at(Axis(0), to);
            let mut lines = part(lines, from..to, 0..columns);
            let factors = part(self.0.view(), to..order, from..to).reversed_axes();
            general_mat_mul(-1.0, &factors, &done, 1.0, &mut lines);
            for line in (0..to - from).rev() {
                let (above, below) = lines.view_mut().split_at(Axis(0), line + 1);
                let factors = self.0.column(from + line);
                let first = from + line + 1;
                eliminate(
                    above.split_at(Axis(0), line).1,
                    &below,
                    |later| factors[first + later],
                    factors[from + line],
                );
            }
        }
        x
    }

    /// The lower triangle, zeros above it.
    pub(super) fn triangle(&self) -> Array2<f64> {
        Array2::from_shape_fn(self.0.dim(), |(line, column)| if column <= line { self.0[[line, column]] } else { 0.0 })
    }

    pub(super) fn inverse(&self) -> Array2<f64> {
        self.solve(&Array2::eye(self.0.nrows()).view())
    }
}

/// Eigenvalues of a symmetric matrix, the greatest first, and their vectors as columns: reflections make it three diagonals,
/// which turns of neighbouring axes then make one (Golub and Van Loan, 8.3).
pub(super) fn eigen(matrix: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let Tridiagonal { mut diagonal, mut beside, mut vectors } = Tridiagonal::of(matrix);
    let whole = diagonal.iter().chain(&beside).fold(0.0, |most: f64, element| most.max(element.abs()));
    let mut last = diagonal.len().saturating_sub(1);
    for _ in 0..TURNS_MAX * diagonal.len() {
        let is_zero = |at: &usize| beside[at - 1].abs() <= f64::EPSILON * whole;
        last = (1..=last).rev().find(|at| !is_zero(at)).unwrap_or(0);
        if last == 0 {
            break;
        }
        let first = (1..=last).rev().find(is_zero).unwrap_or(0);
        chase(&mut diagonal, &mut beside, &mut vectors, first..last);
    }
    let mut places: Vec<usize> = (0..diagonal.len()).collect();
    places.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    let values = places.iter().map(|&at| diagonal[at]).collect();
    (values, vectors.select(Axis(0), &places).reversed_axes())
}

/// What is left of a symmetric matrix in axes of its own.
struct Tridiagonal {
    diagonal: Vec<f64>,
    beside: Vec<f64>,
    /// A line for each axis.
    vectors: Array2<f64>,
}

impl Tridiagonal {
    fn of(mut matrix: Array2<f64>) -> Self {
        let order = matrix.nrows();
        let (mut beside, mut mirrors) = (Vec::new(), Vec::new());
        for at in 0..order.saturating_sub(1) {
            let column = matrix.column(at).iter().skip(at + 1).copied().collect::<Array1<f64>>();
            let length = column.dot(&column).sqrt();
            let made = if column[0] > 0.0 { -length } else { length };
            let mut mirror = column;
            mirror[0] -= made;
            let factor = if length > 0.0 { 2.0 / mirror.dot(&mirror) } else { 0.0 };
            let mut rest = part(matrix.view_mut(), at + 1..order, at + 1..order);
            let seen = rest.dot(&mirror) * factor;
            let turned = &seen - &(&mirror * (0.5 * factor * seen.dot(&mirror)));
            for (line, mut elements) in rest.rows_mut().into_iter().enumerate() {
                elements.scaled_add(-mirror[line], &turned);
                elements.scaled_add(-turned[line], &mirror);
            }
            beside.push(made);
            mirrors.push((mirror, factor));
        }
        let mut vectors = Array2::eye(order);
        for (at, (mirror, factor)) in mirrors.iter().enumerate().rev() {
            for mut line in part(vectors.view_mut(), at + 1..order, at + 1..order).rows_mut() {
                let seen = line.dot(mirror);
                line.scaled_add(-factor * seen, mirror);
            }
        }
        Self { diagonal: matrix.diag().to_vec(), beside, vectors }
    }
}

/// One round of turns down a block of three diagonals, shifted by the eigenvalue that is nearest to its last element.
fn chase(diagonal: &mut [f64], beside: &mut [f64], vectors: &mut Array2<f64>, block: Range<usize>) {
    let Range { start: first, end: last } = block;
    let (half, entry) = ((diagonal[last - 1] - diagonal[last]) / 2.0, beside[last - 1]);
    let shift = diagonal[last] - entry * entry / (half + half.hypot(entry).copysign(half));
    let (mut kept, mut bulge) = (diagonal[first] - shift, beside[first]);
    for at in first..last {
        let length = kept.hypot(bulge);
        let (cosine, sine) = if length > 0.0 { (kept / length, bulge / length) } else { (1.0, 0.0) };
        if at > first {
            beside[at - 1] = length;
        }
        let (a, b, entry) = (diagonal[at], diagonal[at + 1], beside[at]);
        let both = 2.0 * cosine * sine * entry;
        diagonal[at] = cosine * cosine * a + both + sine * sine * b;
        diagonal[at + 1] = sine * sine * a - both + cosine * cosine * b;
        beside[at] = (cosine * cosine - sine * sine) * entry + cosine * sine * (b - a);
        if at + 1 < last {
            (kept, bulge) = (beside[at], sine * beside[at + 1]);
            beside[at + 1] *= cosine;
        }
        let (mut above, mut below) = vectors.view_mut().split_at(Axis(0), at + 1);
        Zip::from(above.row_mut(at)).and(below.row_mut(0)).for_each(|x, y| {
            (*x, *y) = (cosine * *x + sine * *y, cosine * *y - sine * *x);
        });
    }
}

/// Takes known lines times their factors from one, and divides it.
fn eliminate(
    mut line: ArrayViewMut2<'_, f64>,
    known: &ArrayViewMut2<'_, f64>,
    factor: impl Fn(usize) -> f64,
    pivot: f64,
) {
    for (at, other) in known.rows().into_iter().enumerate() {
        line.row_mut(0).scaled_add(-factor(at), &other);
    }
    line.mapv_inplace(|element| element / pivot);
}

fn factor_small(mut block: ArrayViewMut2<'_, f64>) -> Option<()> {
    for at in 0..block.nrows() {
        for column in 0..=at {
            let rest = block[[at, column]] - product(block.row(at), block.row(column), column);
            block[[at, column]] = if column < at { rest / block[[column, column]] } else { rest.sqrt() };
        }
        if !(block[[at, at]].is_finite() && block[[at, at]] > 0.0) {
            return None;
        }
    }
    Some(())
}

/// Each line becomes what the triangle's transpose multiplies it from.
fn divide_by_transposed<S: Data<Elem = f64>>(mut lines: ArrayViewMut2<'_, f64>, triangle: &ArrayBase<S, Ix2>) {
    for mut line in lines.rows_mut() {
        for column in 0..triangle.nrows() {
            let done = product(line.view(), triangle.row(column), column);
            line[column] = (line[column] - done) / triangle[[column, column]];
        }
    }
}

/// Of the first so many elements.
fn product(a: ArrayView1<'_, f64>, b: ArrayView1<'_, f64>, count: usize) -> f64 {
    a.iter().zip(b).take(count).map(|(a, b)| a * b).sum()
}

/// A number as files have it.
#[expect(clippy::cast_possible_truncation, reason = "weights and scales are stored in FP32")]
pub(super) fn narrow(x: f64) -> f32 {
    x as f32
}

/// Some lines and columns of a matrix.
pub(super) fn part<S: RawData<Elem = f64>>(
    of: ArrayBase<S, Ix2>,
    lines: Range<usize>,
    columns: Range<usize>,
) -> ArrayBase<S, Ix2> {
    let mut part = of;
    part.slice_axis_inplace(Axis(0), lines.into());
    part.slice_axis_inplace(Axis(1), columns.into());
    part
}

/// Lines of a block: three of them lie in the nearest cache.
const BLOCK: usize = 48;

/// Rounds of turns for each eigenvalue: two are what most take.
const TURNS_MAX: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, the same each time.
    fn made_up(lines: usize, columns: usize) -> Array2<f64> {
        let number = |(line, column)| ((line * 7919 + column * 104_729 + 1) % 1009) as f64 / 504.5 - 1.0;
        Array2::from_shape_fn((lines, columns), number)
    }

    fn positive(order: usize) -> Array2<f64> {
        let root = made_up(order, order);
        root.t().dot(&root) + Array2::<f64>::eye(order)
    }

    #[test]
    fn solutions_fit() {
        for order in [1, 2, 47, 48, 49, 97, 150] {
            let matrix = positive(order);
            let right = made_up(order, 5);
            let factor = Factor::of(matrix.clone()).unwrap();
            let rest = matrix.dot(&factor.solve(&right.view())) - &right;
            assert!(rest.iter().all(|rest| rest.abs() < 1e-8), "{order}");
            let rest = factor.triangle().dot(&factor.triangle().t()) - &matrix;
            assert!(rest.iter().all(|rest| rest.abs() < 1e-8), "{order}");
            let rest = matrix.dot(&factor.inverse()) - Array2::<f64>::eye(order);
            assert!(rest.iter().all(|rest| rest.abs() < 1e-8), "{order}");
        }
    }

    #[test]
    fn what_is_not_positive_has_no_factor() {
        let mut matrix = positive(60);
        matrix[[55, 55]] = -1.0;
        assert!(Factor::of(matrix.clone()).is_none());
        matrix[[55, 55]] = f64::NAN;
        assert!(Factor::of(matrix).is_none());
    }

    #[test]
    fn eigenvectors_make_the_matrix() {
        for order in [1, 2, 7, 40] {
            let matrix = positive(order);
            let (values, vectors) = eigen(matrix.clone());
            assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
            let rest = vectors.dot(&Array2::from_diag(&Array1::from(values))).dot(&vectors.t()) - &matrix;
            assert!(rest.iter().all(|rest| rest.abs() < 1e-9), "{order}");
            let rest = vectors.t().dot(&vectors) - Array2::<f64>::eye(order);
            assert!(rest.iter().all(|rest| rest.abs() < 1e-12), "{order}");
        }
    }
}
