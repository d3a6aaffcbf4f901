//! Determinants by elimination, rows with the greatest pivot first.

use bytemuck::Pod;

use super::super::Io;
use crate::tensor::DType;

pub(super) fn run(io: &mut Io<'_>) {
    match io.output.fact.dtype {
        #[expect(clippy::cast_possible_truncation, reason = "the type of the matrix")]
        DType::F32 => each(io, |x: f32| f64::from(x), |x| x as f32),
        _ => each(io, |x: f64| x, |x| x),
    }
}

fn each<T: Pod>(io: &mut Io<'_>, widen: impl Fn(T) -> f64, narrow: impl Fn(f64) -> T) {
    let x = io.operands[0];
    let size = x.shape().last().copied().unwrap_or(0);
    let elements = x.elements::<T>();
    for (at, to) in io.output.elements::<T>().iter_mut().enumerate() {
        let mut rows: Vec<Vec<f64>> = elements[at * size * size..][..size * size]
            .chunks_exact(size.max(1))
            .map(|row| row.iter().map(|&x| widen(x)).collect())
            .collect();
        *to = narrow(determinant(&mut rows));
    }
}

fn determinant(rows: &mut [Vec<f64>]) -> f64 {
    let mut product = 1.0;
    for at in 0..rows.len() {
        let size = |row: usize| rows[row][at].abs();
        let pivot = (at..rows.len()).max_by(|&a, &b| size(a).total_cmp(&size(b))).unwrap_or(at);
        if pivot != at {
            rows.swap(pivot, at);
            product = -product;
        }
        let (above, below) = rows.split_at_mut(at + 1);
        let first = &above[at];
        product *= first[at];
        if first[at] == 0.0 {
            return product;
        }
        for row in below {
            let factor = row[at] / first[at];
            row[at..].iter_mut().zip(&first[at..]).for_each(|(x, first)| *x -= factor * first);
        }
    }
    product
}
