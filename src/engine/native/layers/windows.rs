//! Windows over any number of axes, in plain code: what there is no kernel for.

use std::ops::Range;

use super::arithmetic::Number;
use super::types::numbers;
use super::{Io, Layer};
use crate::engine::graph::op::{Binary, SpatialAxis, WindowAxis, WindowKind, Windows};
use crate::engine::pool::Team;
use crate::tensor::DType;

#[derive(Debug)]
pub(super) struct Windowed(pub(super) Windows);

/// Windows along one axis, and the image's extent.
struct Axis {
    window: WindowAxis,
    place: SpatialAxis,
    size: usize,
}

impl Axis {
    /// The taps of a window that see the image, and how many see it or the padding.
    fn taps(&self, at: usize) -> (Range<usize>, usize) {
        let inside = |before: usize, size: usize| {
            let first = before.saturating_sub(at * self.window.stride).div_ceil(self.window.dilation);
            let behind = (before + size).saturating_sub(at * self.window.stride).div_ceil(self.window.dilation);
            first.min(self.window.kernel)..behind.min(self.window.kernel)
        };
        let padded = inside(0, self.place.before + self.size + self.place.after);
        (inside(self.place.before, self.size), padded.len())
    }

    /// Where a tap that sees the image does.
    fn seen(&self, at: usize, tap: usize) -> usize {
        at * self.window.stride + tap * self.window.dilation - self.place.before
    }
}

impl Layer for Windowed {
    fn run(&self, io: &mut Io<'_>, _team: &mut Team) {
        let size = io.operands[0].shape()[2..].to_vec();
        let axes = self
            .0
            .axes
            .iter()
            .zip(size)
            .map(|(window, size)| Some(Axis { window: *window, place: window.output(size, self.0.ceil)?, size }));
        let Some(axes) = axes.collect::<Option<Vec<_>>>() else { return };
        match (self.0.kind, io.operands[0].fact.dtype) {
            (WindowKind::Max, dtype) => numbers!(dtype, T => each::<T, T>(io, &axes, |image, window, _| {
                let max = T::function(Binary::Max);
                window.iter().fold(T::BOUNDS[0], |greatest, &at| max(image.elements[at], greatest))
            })),
            (WindowKind::Place { by_columns }, dtype) => numbers!(dtype, T => {
                let turned = Turned::new(&axes, by_columns);
                each::<T, i64>(io, &axes, |image, window, _| place(image, window, &turned));
            }),
            (kind, DType::F64) => each::<f64, f64>(io, &axes, |image, window, counted| {
                combined(kind, window.iter().map(|&at| image.elements[at]), counted)
            }),
            (kind, _) => each::<f32, f32>(io, &axes, |image, window, counted| {
                let elements = window.iter().map(|&at| f64::from(image.elements[at]));
                #[expect(clippy::cast_possible_truncation, reason = "the type of the image")]
                let narrowed = combined(kind, elements, counted) as f32;
                narrowed
            }),
        }
    }
}

/// An average, or the root of a sum of powers.
fn combined(kind: WindowKind, elements: impl ExactSizeIterator<Item = f64>, counted: usize) -> f64 {
    let seen = elements.len();
    match kind {
        WindowKind::Length { p } => elements.map(|x| x.abs().powi(p.into())).sum::<f64>().powf(1.0 / f64::from(p)),
        WindowKind::Average { count_padding: true } => elements.sum::<f64>() / counted as f64,
        _ => elements.sum::<f64>() / seen as f64,
    }
}

/// One image and channel, and where it begins among all.
struct Image<'a, T> {
    elements: &'a [T],
    first: usize,
}

/// Computes every output from the places that its window sees, and how many it would see with the padding.
fn each<T: bytemuck::Pod, U: bytemuck::Pod>(
    io: &mut Io<'_>,
    axes: &[Axis],
    f: impl Fn(&Image<'_, T>, &[usize], usize) -> U,
) {
    let x = io.operands[0].elements::<T>();
    let (size, out) = axes.iter().fold((1, 1), |(size, out), axis| (size * axis.size, out * axis.place.out));
    let mut window = Vec::new();
    let planes =
        x.chunks_exact(size.max(1)).zip(bytemuck::cast_slice_mut(io.output.bytes).chunks_exact_mut(out.max(1)));
    for (plane, (elements, to)) in planes.enumerate() {
        let image = Image { elements, first: plane * size };
        for (at, to) in to.iter_mut().enumerate() {
            window.clear();
            window.push(0);
            let (mut counted, mut behind) = (1, out);
            for axis in axes {
                behind /= axis.place.out;
                let at = at / behind % axis.place.out;
                let (taps, padded) = axis.taps(at);
                counted *= padded;
                let before = std::mem::take(&mut window);
                window.extend(
                    before.iter().flat_map(|place| taps.clone().map(move |tap| place * axis.size + axis.seen(at, tap))),
                );
            }
            *to = f(&image, &window, counted);
        }
    }
}

/// Places counted with the first axis next to each other, where they are.
struct Turned(Option<Vec<usize>>);

impl Turned {
    fn new(axes: &[Axis], by_columns: bool) -> Self {
        Self(by_columns.then(|| axes.iter().map(|axis| axis.size).collect()))
    }

    fn place(&self, at: usize) -> usize {
        let Some(size) = &self.0 else { return at };
        let (mut rest, mut place) = (at, 0);
        for (axis, extent) in size.iter().enumerate().rev() {
            place += rest % extent * size[..axis].iter().product::<usize>();
            rest /= extent;
        }
        place
    }
}

/// Of equal elements the first one's.
fn place<T: Number>(image: &Image<'_, T>, window: &[usize], turned: &Turned) -> i64 {
    let mut best = None;
    for &at in window {
        let element = image.elements[at];
        if best.is_none_or(|(_, greatest)| element > greatest) {
            best = Some((at, element));
        }
    }
    let at = best.map_or(0, |(at, _)| turned.place(at));
    i64::try_from(image.first + at).unwrap_or(i64::MAX)
}
