//! Windows and convolutions over any axes, and images read between their pixels: against their definitions, and figures
//! of the standard's own examples.

use super::typed::{Graph, constant, counted, near, of, some};
use super::*;
use crate::engine::proto::{int, ints, node, text};
use crate::tensor::DType;

const FLOATS: DType = DType::F32;
type Attributes = Vec<crate::proto::onnx::AttributeProto>;

fn answers(
    operator: &str,
    version: i64,
    attributes: Attributes,
    inputs: &[Tensor],
    more: &[(&str, Tensor)],
    outputs: &[(&'static str, DType, usize)],
) -> Vec<Tensor> {
    let names = ["x", "x1", "x2"];
    let operands: Vec<&str> = names[..inputs.len()].iter().copied().chain(more.iter().map(|(name, _)| *name)).collect();
    let results: Vec<&str> = outputs.iter().map(|(name, ..)| *name).collect();
    let constants =
        more.iter().filter(|(name, _)| !name.is_empty()).map(|(name, tensor)| constant(name, tensor)).collect();
    let nodes = vec![node(operator, &operands, &results, attributes)];
    Graph { version, nodes, constants, inputs, outputs }.answers()
}

fn random(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product();
    let numbers: Vec<f64> = made_up(count, seed).into_iter().map(f64::from).collect();
    some(FLOATS, shape, &numbers)
}

/// Steps, zeros before and behind, and distances of taps: the same along all three axes.
#[derive(Clone, Copy)]
struct Steps {
    stride: usize,
    before: usize,
    after: usize,
    dilation: usize,
}

impl Steps {
    fn attributes(self) -> Attributes {
        let number = |of: usize| i64::try_from(of).unwrap();
        let pads = [[number(self.before); 3], [number(self.after); 3]].concat();
        vec![
            ints("strides", &[number(self.stride); 3]),
            ints("dilations", &[number(self.dilation); 3]),
            ints("pads", &pads),
        ]
    }

    /// Pairs of an output place and what each tap sees of an axis.
    fn out(self, extent: usize, kernel: usize) -> usize {
        (extent + self.before + self.after - (kernel - 1) * self.dilation - 1) / self.stride + 1
    }

    fn seen(self, at: usize, tap: usize, extent: usize) -> Option<usize> {
        (at * self.stride + tap * self.dilation).checked_sub(self.before).filter(|place| *place < extent)
    }
}

/// Places of a cube of this edge.
fn cube(edge: usize) -> impl Iterator<Item = [usize; 3]> {
    (0..edge * edge * edge).map(move |at| [at / edge / edge, at / edge % edge, at % edge])
}

fn place(of: [usize; 3], edge: usize) -> usize {
    (of[0] * edge + of[1]) * edge + of[2]
}

fn all<const N: usize>(found: [Option<usize>; N]) -> Option<[usize; N]> {
    found.iter().all(Option::is_some).then(|| found.map(Option::unwrap))
}

#[test]
fn convolutions_over_three_axes() {
    let (edge, kernel, channels, out) = (5, 2, 4, 6);
    for (groups, stride, before, after, dilation) in
        [(1, 1, 0, 0, 1), (1, 2, 1, 0, 1), (2, 1, 1, 2, 2), (4, 3, 2, 2, 1)]
    {
        if out % groups != 0 {
            continue;
        }
        let steps = Steps { stride, before, after, dilation };
        let x = random(&[2, channels, edge, edge, edge], 1);
        let depth = channels / groups;
        let w = random(&[out, depth, kernel, kernel, kernel], 2);
        let b = random(&[out], 3);
        let attributes = [steps.attributes(), vec![int("group", i64::try_from(groups).unwrap())]].concat();
        let outputs = [("y", FLOATS, 5)];
        let more = [("w", w.clone()), ("b", b.clone())];
        let given = of(&answers("Conv", 11, attributes.clone(), std::slice::from_ref(&x), &more, &outputs)[0]);
        let computed = of(&answers("Conv", 11, attributes, &[x.clone(), w.clone(), b.clone()], &[], &outputs)[0]);
        let (x, w, b) = (of(&x), of(&w), of(&b));
        let made = steps.out(edge, kernel);
        let mut expected = Vec::new();
        for (image, filter) in (0..2).flat_map(|image| (0..out).map(move |filter| (image, filter))) {
            for at in cube(made) {
                let mut sum = b[filter];
                for (k, tap) in (0..depth).flat_map(|k| cube(kernel).map(move |tap| (k, tap))) {
                    let channel = filter / (out / groups) * depth + k;
                    if let Some(seen) = all([0, 1, 2].map(|axis| steps.seen(at[axis], tap[axis], edge))) {
                        let pixel = (image * channels + channel) * edge * edge * edge + place(seen, edge);
                        sum += x[pixel] * w[(filter * depth + k) * 8 + place(tap, kernel)];
                    }
                }
                expected.push(sum);
            }
        }
        near(&given, &expected);
        near(&computed, &expected);
    }
}

#[test]
fn transposed_convolutions_over_three_axes_and_in_groups() {
    let (edge, kernel, channels) = (3, 2, 4);
    for (groups, stride, before, dilation) in [(1, 1, 0, 1), (1, 3, 1, 1), (2, 2, 1, 2)] {
        let steps = Steps { stride, before, after: 0, dilation };
        let (depth, out) = (channels / groups, 2);
        let (x, w) = (random(&[1, channels, edge, edge, edge], 1), random(&[channels, out, kernel, kernel, kernel], 2));
        let attributes = [steps.attributes(), vec![int("group", i64::try_from(groups).unwrap())]].concat();
        let made = (edge - 1) * stride + (kernel - 1) * dilation + 1 - before;
        let outputs = [("y", FLOATS, 5)];
        let got = of(&answers(
            "ConvTranspose",
            11,
            attributes.clone(),
            std::slice::from_ref(&x),
            &[("w", w.clone())],
            &outputs,
        )[0]);
        let computed = of(&answers("ConvTranspose", 11, attributes, &[x.clone(), w.clone()], &[], &outputs)[0]);
        let (x, w) = (of(&x), of(&w));
        let mut expected = vec![0.0; groups * out * made * made * made];
        for (channel, at) in (0..channels).flat_map(|channel| cube(edge).map(move |at| (channel, at))) {
            for (k, tap) in (0..out).flat_map(|k| cube(kernel).map(move |tap| (k, tap))) {
                // A transposed one puts where the other sees.
                if let Some(to) = all([0, 1, 2].map(|axis| steps.seen(at[axis], tap[axis], made))) {
                    let filter = channel / depth * out + k;
                    expected[filter * made * made * made + place(to, made)] +=
                        x[channel * 27 + place(at, edge)] * w[(channel * out + k) * 8 + place(tap, kernel)];
                }
            }
        }
        near(&got, &expected);
        near(&computed, &expected);
    }
}

#[test]
fn transposed_convolutions_of_given_extents() {
    let x = [some(FLOATS, &[1, 1, 3], &[1., 2., 3.])];
    let w = [("w", some(FLOATS, &[1, 1, 3], &[1., 1., 1.]))];
    let spread = |attributes: Attributes| of(&answers("ConvTranspose", 11, attributes, &x, &w, &[("y", FLOATS, 3)])[0]);
    let stride = || ints("strides", &[2]);
    assert_eq!(spread(vec![stride()]), [1., 1., 3., 2., 5., 3., 3.]);
    assert_eq!(spread(vec![stride(), ints("output_padding", &[1])]), [1., 1., 3., 2., 5., 3., 3., 0.]);
    // Two are taken off: one at each end; of one the end in front has it but where the upper end is to be the same.
    assert_eq!(spread(vec![stride(), ints("output_shape", &[5])]), [1., 3., 2., 5., 3.]);
    assert_eq!(spread(vec![stride(), ints("output_shape", &[6])]), [1., 3., 2., 5., 3., 3.]);
    let same = |end| spread(vec![stride(), text("auto_pad", end)]);
    assert_eq!(same("SAME_UPPER"), [1., 1., 3., 2., 5., 3.]);
    assert_eq!(same("SAME_LOWER"), [1., 3., 2., 5., 3., 3.]);
}

#[test]
fn pools_over_three_axes() {
    let (edge, kernel) = (5, 3);
    for (stride, before, after, dilation) in [(1, 0, 0, 1), (2, 1, 1, 1), (1, 2, 1, 2)] {
        let steps = Steps { stride, before, after, dilation };
        let x = random(&[2, 3, edge, edge, edge], 1);
        let made = steps.out(edge, kernel);
        let attributes = |more: Attributes| [steps.attributes(), vec![ints("kernel_shape", &[3, 3, 3])], more].concat();
        let pooled = |operator: &str, more: Attributes| {
            let input = std::slice::from_ref(&x);
            of(&answers(operator, 19, attributes(more), input, &[], &[("y", FLOATS, 5)])[0])
        };
        let elements = of(&x);
        let expected = |f: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
            let planes = elements.chunks(edge * edge * edge);
            let of_plane = |plane: &[f64]| -> Vec<f64> {
                let window = |at: [usize; 3]| -> Vec<f64> {
                    let seen = |tap: [usize; 3]| all([0, 1, 2].map(|axis| steps.seen(at[axis], tap[axis], edge)));
                    cube(kernel).filter_map(|tap| Some(plane[place(seen(tap)?, edge)])).collect()
                };
                cube(made).map(|at| f(&window(at))).collect()
            };
            planes.flat_map(of_plane).collect()
        };
        near(&pooled("MaxPool", vec![]), &expected(&|window| window.iter().copied().fold(f64::MIN, f64::max)));
        let mean = |window: &[f64]| window.iter().sum::<f64>() / window.len() as f64;
        near(&pooled("AveragePool", vec![]), &expected(&mean));
        let with_zeros = pooled("AveragePool", vec![int("count_include_pad", 1)]);
        near(&with_zeros, &expected(&|window| window.iter().sum::<f64>() / 27.0));
        let length = |window: &[f64]| window.iter().map(|x| x.abs().powi(3)).sum::<f64>().cbrt();
        near(&pooled("LpPool", vec![int("p", 3)]), &expected(&length));
    }
}

#[test]
fn greatest_elements_and_where_they_are() {
    let x = [some(FLOATS, &[1, 1, 3, 3], &[1., 5., 2., 5., 0., 3., 4., 1., 9.])];
    let kernel = || ints("kernel_shape", &[2, 2]);
    let outputs = [("y", FLOATS, 4), ("i", DType::I64, 4)];
    let by_lines = answers("MaxPool", 12, vec![kernel()], &x, &[], &outputs);
    assert_eq!((of(&by_lines[0]), of(&by_lines[1])), (vec![5., 5., 5., 9.], vec![1., 1., 3., 8.]));
    let by_columns = answers("MaxPool", 12, vec![kernel(), int("storage_order", 1)], &x, &[], &outputs);
    assert_eq!(of(&by_columns[1]), [3., 3., 1., 8.]);
    let bytes = [some(DType::I8, &[1, 1, 2, 2], &[-3., -4., -1., -2.])];
    let outputs = [("y", DType::I8, 4), ("i", DType::I64, 4)];
    let of_bytes = answers("MaxPool", 12, vec![kernel()], &bytes, &[], &outputs);
    assert_eq!((of(&of_bytes[0]), of(&of_bytes[1])), (vec![-1.], vec![2.]));
    // And back to where they were.
    let x = [some(FLOATS, &[1, 1, 1, 2], &[7., 8.]), some(DType::I64, &[1, 1, 1, 2], &[3., 4.])];
    let attributes = || vec![kernel(), ints("strides", &[2, 2])];
    let back = answers("MaxUnpool", 11, attributes(), &x, &[], &[("y", FLOATS, 4)]);
    assert_eq!(of(&back[0]), [0., 0., 0., 7., 8., 0., 0., 0.]);
    let shape = [("s", some(DType::I64, &[4], &[1., 1., 3., 4.]))];
    let larger = answers("MaxUnpool", 11, attributes(), &x, &shape, &[("y", FLOATS, 4)]);
    assert_eq!(of(&larger[0]), [0., 0., 0., 7., 8., 0., 0., 0., 0., 0., 0., 0.]);
}

#[test]
fn images_are_resized_by_every_filter() {
    let x = [some(FLOATS, &[1, 1, 4, 4], &counted(17)[1..])];
    let resized = |attributes: Attributes, more: &[(&str, Tensor)]| {
        of(&answers("Resize", 19, attributes, &x, more, &[("y", FLOATS, 4)])[0])
    };
    let none = || ("", some(FLOATS, &[0], &[]));
    let scales = |scale: f64| [none(), ("scales", some(FLOATS, &[4], &[1., 1., scale, scale]))];
    let cubic = resized(vec![text("mode", "cubic")], &scales(2.0));
    let row = [0.472_656_25, 0.769_531_25, 1.246_093_75, 1.875, 2.281_25, 2.910_156_25, 3.386_718_75, 3.683_593_75];
    near(&cubic[..8], &row);
    let inside = vec![text("mode", "cubic"), int("exclude_outside", 1), float("cubic_coeff_a", -0.5)];
    near(&resized(inside, &scales(0.8))[..3], &[1.368_126_75, 2.669_501_4, 4.013_336_7]);
    let wide = vec![text("mode", "linear"), int("antialias", 1)];
    near(&resized(wide, &scales(0.6)), &[2.875, 4.5, 9.375, 11.]);
    let sizes = |all: &[f64]| ("sizes", some(DType::I64, &[all.len()], all));
    let roi = ("roi", some(FLOATS, &[8], &[0., 0., 0.4, 0.6, 1., 1., 0.6, 0.8]));
    let crop = || text("coordinate_transformation_mode", "tf_crop_and_resize");
    let part = [roi, none(), sizes(&[1., 1., 3., 3.])];
    let cut = resized(vec![text("mode", "linear"), crop()], &part);
    near(&cut, &[7.6, 7.9, 8.2, 8.8, 9.1, 9.4, 10., 10.3, 10.6]);
    let roi = ("roi", some(FLOATS, &[8], &[0., 0., 0., 0., 1., 1., 2., 1.]));
    let beyond = vec![text("mode", "nearest"), crop(), float("extrapolation_value", 99.0)];
    near(&resized(beyond, &[roi, none(), sizes(&[1., 1., 3., 1.])]), &[2., 14., 99.]);
    let named = vec![ints("axes", &[3, 2]), text("nearest_mode", "floor")];
    let by_axes = resized(named, &[none(), none(), sizes(&[2., 4.])]);
    assert_eq!(by_axes[..4], [1., 3., 5., 7.]);
    let kept = |policy| {
        let attributes = vec![ints("axes", &[2, 3]), text("keep_aspect_ratio_policy", policy)];
        resized(attributes, &[none(), none(), sizes(&[8., 6.])]).len()
    };
    assert_eq!((kept("not_larger"), kept("not_smaller")), (36, 64));
    // The corners lie where the scale puts them, not where the rounded extent does.
    let corners = vec![text("mode", "linear"), text("coordinate_transformation_mode", "align_corners")];
    near(&resized(corners, &scales(0.6))[..2], &[1., 1. + 3.0 / 1.4]);
}

fn float(name: &str, f: f32) -> crate::proto::onnx::AttributeProto {
    let r#type = crate::proto::onnx::attribute_proto::AttributeType::Float as i32;
    crate::proto::onnx::AttributeProto { name: name.into(), r#type, f, ..Default::default() }
}

#[test]
fn other_ranks_and_types_are_resized() {
    let x = [some(DType::U8, &[1, 1, 2, 1, 2], &[1., 2., 3., 4.])];
    let more = [("", some(FLOATS, &[0], &[])), ("scales", some(FLOATS, &[5], &[1., 1., 1., 2., 2.]))];
    let got = answers("Resize", 13, vec![], &x, &more, &[("y", DType::U8, 5)]);
    assert_eq!(of(&got[0]), [1., 1., 2., 2., 1., 1., 2., 2., 3., 3., 4., 4., 3., 3., 4., 4.]);
    let x = [some(FLOATS, &[1, 1, 2], &[1., 3.])];
    let scales = [("scales", some(FLOATS, &[3], &[1., 1., 2.]))];
    let linear = answers("Upsample", 9, vec![text("mode", "linear")], &x, &scales, &[("y", FLOATS, 3)]);
    assert_eq!(of(&linear[0]), [1., 2., 3., 3.]);
}

#[test]
fn images_are_read_where_a_grid_says() {
    let x = some(FLOATS, &[1, 1, 2, 2], &[4., 1., 2., 3.]);
    let read = |mode: &str, padding: &str, corners: i64, places: &[f64]| {
        let grid = some(FLOATS, &[1, 1, places.len() / 2, 2], places);
        let attributes = vec![text("mode", mode), text("padding_mode", padding), int("align_corners", corners)];
        of(&answers("GridSample", 20, attributes, &[x.clone(), grid], &[], &[("y", FLOATS, 4)])[0])
    };
    // The middle, a corner's edge, and the middle of the right edge, which lies last in the line.
    let places = [0., 0., -1., -1., 1., 0.];
    near(&read("linear", "zeros", 0, &places), &[2.5, 1., 1.]);
    near(&read("linear", "border", 0, &places), &[2.5, 4., 2.]);
    near(&read("linear", "reflection", 0, &places), &[2.5, 4., 2.]);
    near(&read("linear", "zeros", 1, &places), &[2.5, 4., 2.]);
    near(&read("nearest", "zeros", 0, &[-0.5, 0.5, 3., 0.]), &[2., 0.]);
    near(&read("nearest", "border", 0, &[3., -0.5]), &[1.]);
    // Twice as far beyond the edge as the image is wide: back at the edge.
    near(&read("nearest", "reflection", 1, &[-3., -1., -5., -1.]), &[1., 4.]);
    near(&read("cubic", "border", 1, &[-1., 1., 0., 0.]), &[2., 2.5]);
    let body = some(FLOATS, &[1, 1, 2, 2, 2], &counted(8));
    let grid = some(FLOATS, &[1, 1, 1, 2, 3], &[0., 0., 0., -1., 1., 1.]);
    let attributes = vec![int("align_corners", 1)];
    near(&of(&answers("GridSample", 20, attributes, &[body, grid], &[], &[("y", FLOATS, 5)])[0]), &[3.5, 6.]);
}

#[test]
fn grids_blocks_and_determinants() {
    let maps = [some(FLOATS, &[1, 2, 3], &[2., 0., 0.5, 0., 1., 0.])];
    let size = [("s", some(DType::I64, &[4], &[1., 1., 1., 2.]))];
    let placed = |corners| {
        of(&answers("AffineGrid", 20, vec![int("align_corners", corners)], &maps, &size, &[("y", FLOATS, 4)])[0])
    };
    near(&placed(0), &[-0.5, 0., 1.5, 0.]);
    near(&placed(1), &[-1.5, 0., 2.5, 0.]);
    // Two columns of two by one, one step apart: the middle is met twice.
    let columns = [some(FLOATS, &[1, 2, 2], &[1., 2., 10., 20.])];
    let more = [("size", some(DType::I64, &[2], &[3., 1.])), ("block", some(DType::I64, &[2], &[2., 1.]))];
    assert_eq!(of(&answers("Col2Im", 18, vec![], &columns, &more, &[("y", FLOATS, 4)])[0]), [1., 12., 20.]);
    let matrices = [some(FLOATS, &[2, 2, 2], &[0., 2., 3., 4., 1., 2., 2., 4.])];
    assert_eq!(of(&answers("Det", 11, vec![], &matrices, &[], &[("y", FLOATS, 1)])[0]), [-6., 0.]);
}

#[test]
fn regions_of_images() {
    let x = some(FLOATS, &[1, 1, 4, 4], &counted(16));
    let read = |version, attributes: Attributes, corners: &[f64]| {
        let inputs = [x.clone(), some(FLOATS, &[1, 4], corners), some(DType::I64, &[1], &[0.])];
        of(&answers("RoiAlign", version, attributes, &inputs, &[], &[("y", FLOATS, 4)])[0])
    };
    let two = || vec![int("output_height", 2), int("output_width", 2), int("sampling_ratio", 1)];
    // Bins of one pixel each, in whose middles the pixels lie from opset 16 on.
    near(&read(16, two(), &[1., 1., 3., 3.]), &[5., 6., 9., 10.]);
    near(&read(10, two(), &[1., 1., 3., 3.]), &[7.5, 8.5, 11.5, 12.5]);
    // As many places as a bin has pixels, and half as large.
    near(&read(16, vec![], &[0., 0., 4., 2.]), &[3.5]);
    near(&read(16, vec![float("spatial_scale", 0.5)], &[0., 0., 8., 4.]), &[3.5]);
    near(&read(16, vec![text("mode", "max")], &[0., 0., 4., 2.]), &[7.]);
    near(&read(16, two(), &[10., 10., 12., 12.]), &[0.; 4]);
}
