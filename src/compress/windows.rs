//! Which elements of a layer's input meet its weights, and which response they give together.

use ndarray::Array2;

use super::CompressError;
use crate::engine::{WeightLayer, Windows};
use crate::tensor::{DType, Shape, Tensor};

/// Chooses positions of responses, evenly spread over all rows, and no more than are of use.
#[derive(Clone, Debug)]
pub(super) struct Picks {
    rows: usize,
    /// Positions to go before the next one.
    skip: usize,
}

impl Picks {
    pub(super) fn of(rows: usize) -> Self {
        Self { rows, skip: 0 }
    }

    /// Positions in a response of some rows.
    pub(super) fn next(&mut self, layer: &WeightLayer, response: &Tensor) -> Vec<usize> {
        let count = response.element_count() / layer.outputs;
        let per_row = count / response.shape().rows().max(1);
        let mut step = (per_row * self.rows).div_ceil(POSITIONS_MAX).max(1);
        // A step that divides an image would meet some columns of it and never others.
        while step > 1 && per_row > 1 && common_divisor(step, per_row) > 1 {
            step += 1;
        }
        let picked: Vec<usize> = (self.skip..count).step_by(step).collect();
        self.skip = picked.last().map_or(self.skip, |last| last + step).max(count) - count;
        picked
    }
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// The elements that meet a group's weights at some positions, a line for each.
pub(super) fn columns(
    layer: &WeightLayer,
    input: &Tensor,
    response: &Tensor,
    group: usize,
    positions: &[usize],
) -> Result<Array2<f64>, CompressError> {
    let elements = input.bytes().as_chunks().0;
    let number = |at: usize| f64::from(f32::from_le_bytes(elements[at]));
    let mut lines = Array2::zeros((positions.len(), layer.depth));
    let Some(windows) = &layer.windows else {
        let fits = input.shape().last() == Some(&layer.depth);
        let count = response.element_count() / layer.outputs;
        if !fits || input.element_count() != count * layer.depth {
            return Err(unfit(layer, input, response));
        }
        for (mut line, &position) in lines.rows_mut().into_iter().zip(positions) {
            line.iter_mut().enumerate().for_each(|(at, element)| *element = number(position * layer.depth + at));
        }
        return Ok(lines);
    };
    let image = Image::of(layer, windows, input, response).ok_or_else(|| unfit(layer, input, response))?;
    for (mut line, &position) in lines.rows_mut().into_iter().zip(positions) {
        for (tap, place) in image.places(position).into_iter().enumerate() {
            let Some(place) = place else { continue };
            for channel in 0..image.channels {
                let plane = image.row(position) * image.channels * windows.groups + group * image.channels + channel;
                line[channel * image.taps + tap] = number(plane * image.area + place);
            }
        }
    }
    Ok(lines)
}

/// What a group's outputs are at some positions, a line for each.
pub(super) fn responses(layer: &WeightLayer, response: &Tensor, group: usize, positions: &[usize]) -> Array2<f64> {
    let elements = response.bytes().as_chunks().0;
    let outputs = layer.outputs / layer.groups();
    // Channels stand first in images, last everywhere else.
    let area: usize = if layer.windows.is_some() { response.shape()[2..].iter().product() } else { 1 };
    Array2::from_shape_fn((positions.len(), outputs), |(line, output)| {
        let (row, place) = (positions[line] / area, positions[line] % area);
        let at = (row * layer.outputs + group * outputs + output) * area + place;
        f64::from(f32::from_le_bytes(elements[at]))
    })
}

/// A response of which some outputs are left.
pub(super) fn left(layer: &WeightLayer, response: &Tensor, outputs: &[usize]) -> Tensor {
    let axis = if layer.windows.is_some() { 1 } else { response.shape().len().saturating_sub(1) };
    let mut extents = response.shape().to_vec();
    let each = extents[axis + 1..].iter().product::<usize>() * size_of::<f32>();
    let lines = response.bytes().chunks(extents[axis] * each);
    let bytes: Vec<u8> =
        lines.flat_map(|line| outputs.iter().flat_map(move |at| &line[at * each..(at + 1) * each])).copied().collect();
    extents[axis] = outputs.len();
    Tensor::new(DType::F32, Shape::new(&extents), bytes.into()).expect("what is left fills its shape")
}

/// How windows lie over an input.
struct Image<'a> {
    windows: &'a Windows,
    extents: &'a [usize],
    outputs: &'a [usize],
    before: Vec<usize>,
    /// Of a group.
    channels: usize,
    taps: usize,
    /// Elements of a channel of one row.
    area: usize,
}

impl<'a> Image<'a> {
    fn of(layer: &WeightLayer, windows: &'a Windows, input: &'a Tensor, response: &'a Tensor) -> Option<Self> {
        let taps: usize = windows.kernel.iter().product();
        let channels = layer.depth / taps;
        let (extents, outputs) = (input.shape().get(2..)?, response.shape().get(2..)?);
        let axes = windows.kernel.len();
        let fits = extents.len() == axes && outputs.len() == axes && input.shape()[1] == channels * windows.groups;
        let before = (0..axes).map(|axis| windows.before(axis, extents[axis], outputs[axis]));
        fits.then(|| Self {
            windows,
            extents,
            outputs,
            before: before.collect(),
            channels,
            taps,
            area: extents.iter().product(),
        })
    }

    fn row(&self, position: usize) -> usize {
        position / self.outputs.iter().product::<usize>()
    }

    /// For each tap the element of a channel that it meets; none where it meets what was padded.
    fn places(&self, position: usize) -> Vec<Option<usize>> {
        let axes = self.extents.len();
        let mut corner = vec![0; axes];
        let mut rest = position;
        for axis in (0..axes).rev() {
            corner[axis] = rest % self.outputs[axis] * self.windows.strides[axis];
            rest /= self.outputs[axis];
        }
        let place = |tap: usize| {
            let (mut rest, mut place, mut unit) = (tap, 0, 1);
            for axis in (0..axes).rev() {
                let kernel = self.windows.kernel[axis];
                let at = corner[axis] + rest % kernel * self.windows.dilations[axis];
                let at = at.checked_sub(self.before[axis]).filter(|at| *at < self.extents[axis])?;
                place += at * unit;
                unit *= self.extents[axis];
                rest /= kernel;
            }
            Some(place)
        };
        (0..self.taps).map(place).collect()
    }
}

fn unfit(layer: &WeightLayer, input: &Tensor, response: &Tensor) -> CompressError {
    CompressError::Unfit {
        layer: layer.name.clone(),
        weights: layer.shape.clone(),
        got: format!("{} and {}", input.shape(), response.shape()),
    }
}

/// Positions that tell all about a layer: many times the weights that one output has.
const POSITIONS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Padding;

    #[test]
    fn taps_meet_what_the_window_covers() {
        let windows = Windows {
            groups: 1,
            kernel: vec![2, 3],
            strides: vec![1, 2],
            dilations: vec![1, 2],
            padding: Padding::Before(vec![0, 1]),
        };
        // 3 lines of 5; of 7 with the padding, windows of 5 fit twice.
        let image = Image {
            windows: &windows,
            extents: &[3, 5],
            outputs: &[2, 2],
            before: vec![0, 1],
            channels: 1,
            taps: 6,
            area: 15,
        };
        assert_eq!(image.places(0), [None, Some(1), Some(3), None, Some(6), Some(8)]);
        assert_eq!(image.places(3), [Some(6), Some(8), None, Some(11), Some(13), None]);
        // The second row's first.
        assert_eq!((image.row(4), image.places(4)), (1, image.places(0)));
    }

    #[test]
    fn steps_meet_every_column_of_an_image() {
        for (a, b, expected) in [(12, 8, 4), (7, 9, 1), (5, 0, 5)] {
            assert_eq!(common_divisor(a, b), expected);
        }
    }
}
