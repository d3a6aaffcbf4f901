//! Constants of FP32 whose elements are places in a short table, with scales besides: a byte each while a model loads, four
//! bits or fewer when they are packed. What takes one, other than products and convolutions, sees its elements.

use bytes::Bytes;

use super::{Grain, Graph, ValueId, tensor_holding};
use crate::tensor::{Shape, Tensor};

#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Coded {
    pub(in crate::engine) shape: Shape,
    /// The place of each element in the table.
    pub(in crate::engine) codes: Bytes,
    /// At most [`NUMBERS_MAX`].
    pub(in crate::engine) table: Vec<f32>,
    pub(in crate::engine) scales: Option<Scales>,
}

/// What numbers are multiplied with.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Scales {
    pub(in crate::engine) along: Along,
    pub(in crate::engine) of: Vec<f32>,
    /// What is taken off numbers before that: one for each scale, or nothing.
    pub(in crate::engine) zeros: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Along {
    /// A scale for each place along an axis.
    Axis(usize),
    /// A scale for so many places along an axis, for each place along the others.
    Blocks { axis: usize, size: usize },
}

impl Along {
    /// How many scales there are.
    pub(in crate::engine) fn count(self, shape: &Shape) -> Option<usize> {
        match self {
            Self::Axis(axis) => shape.get(axis).copied(),
            Self::Blocks { axis, size } => {
                let extent = *shape.get(axis)?;
                let others = shape.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, extent)| extent);
                Some(others.product::<usize>() * extent.div_ceil(size))
            }
        }
    }

    /// The scale of an element.
    fn place(self, shape: &Shape, at: usize) -> usize {
        let (Self::Axis(axis) | Self::Blocks { axis, .. }) = self;
        let inner = shape[axis + 1..].iter().product::<usize>().max(1);
        let (outer, along) = (at / inner / shape[axis], at / inner % shape[axis]);
        match self {
            Self::Axis(_) => along,
            Self::Blocks { size, .. } => (outer * shape[axis].div_ceil(size) + along / size) * inner + at % inner,
        }
    }
}

impl Coded {
    /// All elements.
    pub(in crate::engine) fn decoded(&self) -> Tensor {
        let number = |(at, &code): (usize, &u8)| {
            let number = self.table[usize::from(code)];
            self.scales.as_ref().map_or(number, |scales| {
                let place = scales.along.place(&self.shape, at);
                (number - scales.zeros.get(place).copied().unwrap_or(0.0)) * scales.of[place]
            })
        };
        tensor_holding(&self.shape, self.codes.iter().enumerate().map(number).collect())
    }

    /// What elements are integer multiples of, where a table of integers has no zeros besides.
    pub(in crate::engine) fn grain(&self) -> Option<Grain> {
        let (_, unit) = integers(&self.table)?;
        match &self.scales {
            None => Some(Grain { axis: 0, scales: vec![unit] }),
            Some(Scales { along: Along::Axis(axis), of, zeros }) if zeros.is_empty() => {
                Some(Grain { axis: *axis, scales: of.iter().map(|scale| unit * scale).collect() })
            }
            Some(_) => None,
        }
    }

    /// A matrix the other way round.
    pub(in crate::engine) fn turned(&self) -> Option<Self> {
        let &[rows, columns] = &self.shape[..] else { return None };
        let scales = self.scales.clone().map(|scales| match scales.along {
            Along::Axis(axis) => Scales { along: Along::Axis(1 - axis), ..scales },
            Along::Blocks { axis, size } => {
                let across = if axis == 0 { columns } else { columns.div_ceil(size) };
                let turn = |of: &[f32]| turned(of, across);
                let along = Along::Blocks { axis: 1 - axis, size };
                Scales { along, of: turn(&scales.of), zeros: turn(&scales.zeros) }
            }
        });
        let (shape, codes) = (Shape::new(&[columns, rows]), turned(&self.codes, columns).into());
        Some(Self { shape, codes, table: self.table.clone(), scales })
    }

    /// A matrix whose rows stand at other places, if no row has scales of its own.
    pub(in crate::engine) fn with_rows_at(&self, places: &[usize]) -> Option<Self> {
        let &[rows, width] = &self.shape[..] else { return None };
        let is_free = self.scales.as_ref().is_none_or(|scales| scales.along == Along::Axis(1));
        if !is_free || rows != places.len() {
            return None;
        }
        let mut codes = vec![0; self.codes.len()];
        for (from, &to) in self.codes.chunks_exact(width.max(1)).zip(places) {
            codes[to * width..][..width].copy_from_slice(from);
        }
        Some(Self { codes: codes.into(), ..self.clone() })
    }

    /// With what stands at each place along an axis scaled, if scales lie along it.
    pub(in crate::engine) fn scaled(&self, axis: usize, by: &[f32]) -> Option<Self> {
        let scales = match &self.scales {
            None => Scales { along: Along::Axis(axis), of: by.to_vec(), zeros: Vec::new() },
            Some(scales) if scales.along == Along::Axis(axis) => {
                let of = scales.of.iter().zip(by).map(|(scale, by)| scale * by).collect();
                Scales { of, ..scales.clone() }
            }
            // Every row of scales has one for each column.
            Some(scales) if axis == 1 && matches!(scales.along, Along::Blocks { axis: 0, .. }) => {
                let of = scales.of.iter().zip(by.iter().cycle()).map(|(scale, by)| scale * by).collect();
                Scales { of, ..scales.clone() }
            }
            Some(_) => return None,
        };
        Some(Self { scales: Some(scales), ..self.clone() })
    }
}

impl Graph {
    /// Gives a value its elements, if they were kept as codes.
    pub(in crate::engine) fn decode(&mut self, value: ValueId) {
        if let (None, Some(coded)) = (self.constant(value), self.coded(value).cloned()) {
            self.fix(value, coded.decoded());
            self.set_grain(value, coded.grain());
        }
    }
}

/// The integers, of eight bits, that all numbers of a table are the same multiple of, and that multiple.
pub(in crate::engine) fn integers(table: &[f32]) -> Option<(Vec<i8>, f32)> {
    let greatest = table.iter().fold(0.0f32, |greatest, number| greatest.max(number.abs()));
    if !table.iter().all(|number| number.is_finite()) {
        return None;
    }
    if greatest == 0.0 {
        return Some((vec![0; table.len()], 1.0));
    }
    (1..=i8::MAX).find_map(|most| {
        let unit = greatest / f32::from(most);
        let integer = |number: &f32| {
            let near = (number / unit).round();
            // A table was rounded once, and the unit once.
            let is_near = (number / unit - near).abs() <= near.abs() * 4.0 * f32::EPSILON;
            #[expect(clippy::cast_possible_truncation, reason = "at most the greatest, which fits")]
            is_near.then_some(near as i8)
        };
        Some((table.iter().map(integer).collect::<Option<_>>()?, unit))
    })
}

fn turned<T: Copy>(of: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| of.iter().skip(column).step_by(columns.max(1)).copied()).collect()
}

/// Numbers of a table: as many as four bits tell apart.
pub(in crate::engine) const NUMBERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::floats;

    fn coded(along: Option<Along>) -> Coded {
        let shape = Shape::new(&[4, 3]);
        let scales = along.map(|along| {
            let count = along.count(&shape).unwrap();
            let of = (0..count).map(|at| at as f32 + 1.0).collect();
            Scales { along, of, zeros: (0..count).map(|at| at as f32 * 0.5).collect() }
        });
        let codes = vec![0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1].into();
        Coded { shape, codes, table: vec![-1.0, 0.0, 1.0, 4.0], scales }
    }

    fn elements(of: &Coded) -> Vec<f32> {
        floats(&of.decoded()).unwrap()
    }

    #[test]
    fn scales_are_found_along_their_axis() {
        assert_eq!(elements(&coded(None))[..4], [-1.0, 0.0, 1.0, 4.0]);
        assert_eq!(elements(&coded(Some(Along::Axis(1))))[3..6], [4.0, 1.0, -3.0]);
        assert_eq!(elements(&coded(Some(Along::Axis(0))))[3..6], [7.0, 1.0, -1.0]);
        let blocks = coded(Some(Along::Blocks { axis: 0, size: 3 }));
        assert_eq!(elements(&blocks)[8..], [0.0, 10.0, -5.0, -15.0]);
    }

    #[test]
    fn matrices_are_turned_with_their_scales() {
        let blocks = |axis, size| Some(Along::Blocks { axis, size });
        for along in [None, Some(Along::Axis(0)), Some(Along::Axis(1)), blocks(0, 3), blocks(1, 2), blocks(0, 2)] {
            let straight = elements(&coded(along));
            let expected: Vec<f32> = (0..12).map(|at| straight[at % 4 * 3 + at / 4]).collect();
            assert_eq!(elements(&coded(along).turned().unwrap()), expected, "{along:?}");
        }
    }

    #[test]
    fn columns_are_scaled_and_rows_moved_where_scales_allow_it() {
        let by = [2.0, 3.0, 5.0];
        for along in [None, Some(Along::Axis(1)), Some(Along::Blocks { axis: 0, size: 3 })] {
            let expected: Vec<f32> =
                elements(&coded(along)).iter().zip(by.iter().cycle()).map(|(x, by)| x * by).collect();
            assert_eq!(elements(&coded(along).scaled(1, &by).unwrap()), expected, "{along:?}");
        }
        assert_eq!(coded(Some(Along::Axis(0))).scaled(1, &by), None);
        let straight = elements(&coded(Some(Along::Axis(1))));
        let moved = elements(&coded(Some(Along::Axis(1))).with_rows_at(&[1, 0, 3, 2]).unwrap());
        assert_eq!((&moved[..3], &moved[3..6]), (&straight[3..6], &straight[..3]));
        assert_eq!(coded(Some(Along::Axis(0))).with_rows_at(&[1, 0, 3, 2]), None);
    }

    #[test]
    fn integers_are_found_in_tables() {
        assert_eq!(integers(&[-0.3, 0.0, 0.3]), Some((vec![-1, 0, 1], 0.3)));
        assert_eq!(integers(&[-8.0, 7.0, 3.0]), Some((vec![-8, 7, 3], 1.0)));
        let unit = 0.012_345_678;
        let of = |integers: &[i8]| integers.iter().map(|&integer| f32::from(integer) * unit).collect::<Vec<_>>();
        assert_eq!(integers(&of(&[-127, 5, 90])).map(|(found, _)| found), Some(vec![-127, 5, 90]));
        assert_eq!(integers(&[1.0, 0.1234]), None);
        assert_eq!(integers(&[0.0, f32::NAN]), None);
    }
}
