//! Weights of few bits in every form that files have them, against the same numbers in FP32.

use super::*;
use crate::engine::proto::{int, ints, node};

/// Integers of this type, which take four bits or eight.
fn codes(name: &str, data_type: DataType, dims: &[i64], of: &[i8]) -> TensorProto {
    let byte = |at: usize| of.get(at).copied().unwrap_or(0).cast_unsigned();
    let raw_data: Vec<u8> = match data_type {
        DataType::Int4 | DataType::Uint4 => {
            (0..of.len()).step_by(2).map(|at| byte(at) & 15 | byte(at + 1) << 4).collect()
        }
        _ => (0..of.len()).map(byte).collect(),
    };
    TensorProto {
        name: name.into(),
        data_type: data_type as i32,
        dims: dims.to_vec(),
        raw_data: raw_data.into(),
        ..TensorProto::default()
    }
}

/// So many integers from `low` on.
fn integers(count: usize, low: i8, values: usize) -> Vec<i8> {
    (0..count).map(|at| low + i8::try_from((at * 7919 + at / 5) % 1009 % values).unwrap()).collect()
}

/// `integer - zero` times its scale, `place` being where both are.
fn meant(integers: &[i8], scales: &[f32], zeros: &[i8], place: impl Fn(usize) -> usize) -> Vec<f32> {
    let zero = |at: usize| f32::from(zeros.get(at).copied().unwrap_or(0));
    let of = |(at, integer): (usize, &i8)| (f32::from(*integer) - zero(place(at))) * scales[place(at)];
    integers.iter().enumerate().map(of).collect()
}

fn scales(count: usize) -> Vec<f32> {
    (0..count).map(|at| 0.01 + (at % 7) as f32 * 0.003).collect()
}

/// A graph whose node `node` takes weights `w` that nodes make of constants, and those weights.
struct Weights {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    w: (Vec<i64>, Vec<f32>),
}

impl Weights {
    fn dequantized(data_type: DataType, dims: &[i64], of: &[i8], per: (i64, i64), zeros: Option<&[i8]>) -> Self {
        let extent = |at: usize| usize::try_from(dims[at]).unwrap();
        let (axis, block) = (usize::try_from(per.0).unwrap(), usize::try_from(per.1).unwrap());
        let inner: usize = (axis + 1..dims.len()).map(extent).product();
        let along = extent(axis).div_ceil(block.max(1));
        let mut of_scales = dims.to_vec();
        of_scales[axis] = i64::try_from(along).unwrap();
        let of_scales = if block == 0 { vec![dims[axis]] } else { of_scales };
        let count = of_scales.iter().map(|&extent| usize::try_from(extent).unwrap()).product();
        let scales = scales(count);
        let place = |at: usize| match block {
            0 => at / inner % extent(axis),
            _ => (at / inner / extent(axis) * along + at / inner % extent(axis) / block) * inner + at % inner,
        };
        let numbers = meant(of, &scales, zeros.unwrap_or_default(), place);
        let mut constants = vec![codes("c", data_type, dims, of), floats("s", &of_scales, &scales)];
        constants.extend(zeros.map(|zeros| codes("z", data_type, &of_scales, zeros)));
        let operands = if zeros.is_some() { vec!["c", "s", "z"] } else { vec!["c", "s"] };
        let attributes = vec![int("axis", per.0), int("block_size", per.1)];
        Self {
            nodes: vec![node("DequantizeLinear", &operands, &["w"], attributes)],
            constants,
            w: (dims.to_vec(), numbers),
        }
    }

    /// At every level as near what the numbers in FP32 answer as rounding a row to sixteen bits leaves it; returns what ran.
    fn check(self, x: &[&'static str], shape: &[usize], nodes: &[NodeProto], more: &[TensorProto]) -> Vec<LayerReport> {
        let rank = if nodes.iter().any(|node| node.op_type == "Conv") && nodes.len() == 1 { 4 } else { 2 };
        let with = |first: Vec<NodeProto>, constants: Vec<TensorProto>| {
            let (nodes, constants) = ([first, nodes.to_vec()].concat(), [constants, more.to_vec()].concat());
            let mut model = Case { x: x.to_vec(), nodes, constants, rank }.model();
            model.opset_import[0].version = 21;
            model
        };
        let plain = with(vec![], vec![floats("w", &self.w.0, &self.w.1)]);
        let coded = with(self.nodes, self.constants);
        let given = tensor(shape, &made_up(shape.iter().product(), 1));
        allocations::steps_take_none(&coded, std::slice::from_ref(&given));
        let mut layers = Vec::new();
        for level in Level::all() {
            let options = LoadOptions { isa_max: level.set(), ..options() };
            let [got, expected] = [&coded, &plain]
                .map(|model| values(&answer(plan(model, &options).unwrap(), vec![given.clone()]).unwrap().remove(0)));
            assert_eq!(got.len(), expected.len());
            let size = expected.iter().fold(0.1f32, |most, x| most.max(x.abs()));
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() <= 1e-4 * size, "{level}: {got} {expected} of {size}");
            }
            layers = layers_of(&*plan(&coded, &options).unwrap(), &given);
        }
        layers
    }
}

fn kernels(layers: &[LayerReport]) -> Vec<String> {
    layers.iter().map(|layer| layer.kernel.split('_').next().unwrap().to_owned()).collect()
}

fn matmul() -> Vec<NodeProto> {
    vec![node("MatMul", &["x", "w"], &["y"], vec![])]
}

#[test]
fn integers_with_scales_of_columns_and_blocks() {
    let four = integers(100 * 40, -8, 16);
    let signed = |per, zeros| Weights::dequantized(DataType::Int4, &[100, 40], &four, per, zeros);
    let zeros = integers(4 * 40, -2, 5);
    for (per, zeros, expected) in [
        ((1, 0), None, "s16u4"),
        ((1, 0), Some(&zeros[..40]), "s16u4"),
        ((0, 32), None, "s16u4"),
        ((0, 32), Some(&zeros[..]), "s16u4"),
        // Scales along rows, or in pieces of them, are no kernel's.
        ((0, 0), None, "f32"),
        ((1, 8), None, "f32"),
    ] {
        for rows in [1, 5] {
            let layers = signed(per, zeros).check(&["N", "100"], &[rows, 100], &matmul(), &[]);
            assert_eq!(kernels(&layers), [expected], "{per:?}");
        }
    }
}

#[test]
fn fewer_values_are_fewer_bits() {
    for (data_type, low, values, expected) in [
        (DataType::Int4, -1, 3, "s16u2"),
        (DataType::Int8, -1, 3, "s16u2"),
        (DataType::Uint8, 0, 2, "s16u1"),
        (DataType::Uint4, 3, 11, "s16u4"),
        (DataType::Int8, -30, 17, "f32"),
    ] {
        let of = Weights::dequantized(data_type, &[64, 20], &integers(64 * 20, low, values), (1, 0), None);
        assert_eq!(kernels(&of.check(&["N", "64"], &[3, 64], &matmul(), &[])), [expected], "{data_type:?}");
    }
}

#[test]
fn matrices_the_other_way_round() {
    let four = integers(30 * 96, -8, 16);
    let turned = |per| Weights::dequantized(DataType::Int4, &[30, 96], &four, per, None);
    let gemm = vec![node("Gemm", &["x", "w", "b"], &["y"], vec![int("transB", 1)])];
    let transposed = vec![node("Transpose", &["w"], &["t"], vec![]), node("MatMul", &["x", "t"], &["y"], vec![])];
    for (per, nodes) in [((0, 0), &gemm), ((1, 32), &gemm), ((0, 0), &transposed), ((1, 16), &transposed)] {
        let layers = turned(per).check(&["N", "96"], &[2, 96], nodes, &[weights("b", &[30])]);
        assert_eq!(kernels(&layers), ["s16u4"], "{per:?}");
    }
}

/// A table and the places in it, which the standard wants wider than they are.
fn codebook(table: &[f32], data_type: DataType) -> Weights {
    let places: Vec<i8> = integers(80 * 24, 0, table.len());
    let numbers = places.iter().map(|&place| table[usize::try_from(place).unwrap()]).collect();
    let nodes = vec![
        node("Cast", &["c"], &["i"], vec![int("to", 7)]),
        node("Gather", &["t", "i"], &["w"], vec![int("axis", 0)]),
    ];
    let length = i64::try_from(table.len()).unwrap();
    let constants = vec![codes("c", data_type, &[80, 24], &places), floats("t", &[length], table)];
    Weights { nodes, constants, w: (vec![80, 24], numbers) }
}

#[test]
fn places_in_tables() {
    let (any, whole) = (made_up(16, 3), (-8i8..8).map(|integer| f32::from(integer * 9) * 0.013).collect::<Vec<_>>());
    for (table, expected) in [(&any[..], "f32u4"), (&whole, "s16u4"), (&any[..5], "f32u3"), (&whole[..2], "s16u1")] {
        for data_type in [DataType::Uint4, DataType::Uint8] {
            let layers = codebook(table, data_type).check(&["N", "80"], &[4, 80], &matmul(), &[]);
            assert_eq!(kernels(&layers), [expected], "{} numbers", table.len());
        }
    }
    // Places may be wide in the file, and counted from the end.
    let mut wide = codebook(&any, DataType::Uint8);
    let back: Vec<i64> = integers(80 * 24, 0, 16).into_iter().map(|place| i64::from(place) - 16).collect();
    wide.nodes.remove(0);
    wide.constants[0] = longs("i", &[80, 24], &back);
    assert_eq!(kernels(&wide.check(&["N", "80"], &[1, 80], &matmul(), &[])), ["f32u4"]);
}

#[test]
fn convolutions_and_what_follows_them() {
    let ternary = |dims: &[i64], axis| {
        let count = dims.iter().map(|&extent| usize::try_from(extent).unwrap()).product();
        Weights::dequantized(DataType::Int8, dims, &integers(count, -1, 3), (axis, 0), None)
    };
    let conv = |attributes| vec![node("Conv", &["x", "w"], &["y"], attributes)];
    let x = ["N", "32", "9", "7"];
    for (kernel, attributes) in
        [(1, vec![]), (3, vec![ints("strides", &[2, 2])]), (3, vec![ints("pads", &[1, 1, 1, 1])])]
    {
        let layers = ternary(&[40, 32, kernel, kernel], 0).check(&x, &[2, 32, 9, 7], &conv(attributes), &[]);
        assert!(kernels(&layers).contains(&"f32u2".to_owned()), "{layers:?}");
    }
    // Groups, and as many pixels as are transformed, take numbers.
    let grouped = ternary(&[64, 16, 3, 3], 0).check(&x, &[1, 32, 9, 7], &conv(vec![int("group", 2)]), &[]);
    let transformed = ternary(&[40, 32, 3, 3], 0).check(&["N", "32", "20", "20"], &[1, 32, 20, 20], &conv(vec![]), &[]);
    assert!(!kernels(&grouped).contains(&"f32u2".to_owned()) && kernels(&transformed).iter().any(|k| k == "f32"));
    // A scale of channels goes into the scales, and images are not turned before a product.
    let nodes = vec![
        node("Conv", &["x", "v"], &["a"], vec![]),
        node("Relu", &["a"], &["b"], vec![]),
        node("Flatten", &["b"], &["f"], vec![int("axis", 1)]),
        node("MatMul", &["f", "w"], &["m"], vec![]),
        node("Mul", &["m", "k"], &["n"], vec![]),
        node("Add", &["n", "l"], &["o"], vec![]),
        node("Relu", &["o"], &["y"], vec![]),
    ];
    let more = [weights("v", &[6, 3, 3, 3]), weights("k", &[50]), weights("l", &[50])];
    let layers = ternary(&[6 * 25, 50], 1).check(&["N", "3", "7", "7"], &[2, 3, 7, 7], &nodes, &more);
    assert_eq!(operators(&layers)[layers.len() - 2..], ["Conv", "Linear"], "{layers:?}");
    assert_eq!(kernels(&layers).last().unwrap(), "s16u2");
}

#[test]
fn products_of_onnx_runtime() {
    let (depth, columns, size) = (70usize, 33usize, 32usize);
    let blocks = depth.div_ceil(size);
    let four = integers(columns * blocks * size, 0, 16);
    let scales = scales(columns * blocks);
    let zeros: Vec<i8> = integers(columns * blocks, 5, 6);
    for is_zeroed in [false, true] {
        let place = |column: usize, k: usize| column * blocks + k / size;
        let number = |k: usize, column: usize| {
            let zero = if is_zeroed { zeros[place(column, k)] } else { 8 };
            f32::from(four[(column * blocks) * size + k] - zero) * scales[place(column, k)]
        };
        let numbers = (0..depth).flat_map(|k| (0..columns).map(move |column| number(k, column))).collect();
        let mut packed = codes("c", DataType::Uint4, &[0], &four);
        (packed.data_type, packed.dims) = (DataType::Uint8 as i32, vec![33, 3, 16]);
        // Each column's begin with a byte.
        let mut padded = Vec::new();
        zeros.chunks(blocks).for_each(|zeros| padded.extend(zeros.iter().copied().chain([0])));
        let mut of_zeros = codes("z", DataType::Uint4, &[0], &padded);
        (of_zeros.data_type, of_zeros.dims) = (DataType::Uint8 as i32, vec![66]);
        let bits = |name: &str, number: usize| int(name, i64::try_from(number).unwrap());
        let attributes = vec![bits("K", depth), bits("N", columns), bits("bits", 4), bits("block_size", size)];
        let operands = if is_zeroed { vec!["x", "c", "s", "z"] } else { vec!["x", "c", "s"] };
        let mut product = node("MatMulNBits", &operands, &["y"], attributes);
        product.domain = "com.microsoft".into();
        let constants = vec![packed, floats("s", &[99], &scales), of_zeros];
        let mut of = Weights { nodes: vec![product], constants, w: (vec![70, 33], numbers) };
        // The same, by the numbers.
        let coded = std::mem::take(&mut of.nodes);
        let case = |nodes, constants| Case { x: vec!["N", "70"], nodes, constants, rank: 2 };
        let given = tensor(&[3, 70], &made_up(210, 1));
        let plain = case(matmul(), vec![floats("w", &of.w.0, &of.w.1)]);
        let coded = case(coded, of.constants);
        let [got, expected] = [&coded, &plain]
            .map(|case| values(&answer(case.load(&options()).unwrap(), vec![given.clone()]).unwrap().remove(0)));
        assert!(got.iter().zip(&expected).all(|(got, expected)| (got - expected).abs() < 1e-3), "{got:?} {expected:?}");
        let layers = layers_of(&*coded.load(&options()).unwrap(), &given);
        assert_eq!(kernels(&layers), ["s16u4"]);
    }
}

#[test]
fn whatever_else_takes_codes_sees_numbers() {
    let of = Weights::dequantized(DataType::Int4, &[40, 40], &integers(1600, -8, 16), (1, 0), None);
    let nodes = [
        node("Mul", &["w", "w"], &["v"], vec![]),
        node("MatMul", &["x", "w"], &["a"], vec![]),
        node("MatMul", &["a", "v"], &["b"], vec![]),
        node("Relu", &["b"], &["y"], vec![]),
    ];
    let layers = of.check(&["N", "40"], &[3, 40], &nodes, &[]);
    assert_eq!(kernels(&layers), ["s16u4", "f32"], "{layers:?}");
}

#[test]
fn bytes_meet_codes_as_bytes() {
    let of = Weights::dequantized(DataType::Int4, &[64, 20], &integers(64 * 20, -8, 16), (1, 0), None);
    let (scale, zero) = (floats("xs", &[], &[0.0078125]), codes("xz", DataType::Uint8, &[], &[127]));
    let nodes = [
        node("QuantizeLinear", &["x", "xs", "xz"], &["q"], vec![]),
        node("DequantizeLinear", &["q", "xs", "xz"], &["d"], vec![]),
        node("MatMul", &["d", "w"], &["y"], vec![]),
    ];
    let layers = of.check(&["N", "64"], &[3, 64], &nodes, &[scale, zero]);
    assert_eq!(operators(&layers), ["Quantize", "QuantizedLinear"]);
}

#[test]
fn packed_weights_take_the_bits_they_have() {
    let bytes = |data_type, low, values| {
        let of = Weights::dequantized(data_type, &[512, 512], &integers(512 * 512, low, values), (1, 0), None);
        let case = Case { x: vec!["N", "512"], nodes: [of.nodes, matmul()].concat(), constants: of.constants, rank: 2 };
        case.load(&options()).unwrap().memory_bytes()
    };
    let floats = bytes(DataType::Int8, -60, 120);
    let [four, two, one] = [(-8, 16), (-1, 3), (0, 2)].map(|(low, values)| bytes(DataType::Int8, low, values));
    assert!(four < floats / 7 && two < floats / 14 && one < floats / 26, "{floats} {four} {two} {one}");
}

/// One row goes without the zeros of weights, with the bits that it has in company.
#[test]
fn a_row_without_zeros_is_the_same_as_in_company() {
    let sparse: Vec<f32> = made_up(300 * 150, 3).into_iter().map(|x| if x.abs() > 0.9 { x } else { 0.0 }).collect();
    let nodes = vec![
        node("Gemm", &["x", "w", "b"], &["h"], vec![]),
        node("Relu", &["h"], &["r"], vec![]),
        node("Add", &["r", "r"], &["y"], vec![]),
    ];
    let constants = vec![floats("w", &[300, 150], &sparse), weights("b", &[150])];
    let case = Case { x: vec!["N", "300"], nodes, constants, rank: 2 };
    let given = made_up(3 * 300, 1);
    case.check(&[1, 300]);
    for level in Level::all() {
        let load = || case.load(&LoadOptions { isa_max: level.set(), ..options() }).unwrap();
        let kernel = &layers_of(&*load(), &tensor(&[1, 300], &given[..300]))[0].kernel;
        assert!(kernel.contains("f32_sparse_row"), "{level}: {kernel}");
        let together = values(&answer(load(), vec![tensor(&[3, 300], &given)]).unwrap().remove(0));
        for (row, together) in given.chunks(300).zip(together.chunks(150)) {
            let alone = values(&answer(load(), vec![tensor(&[1, 300], row)]).unwrap().remove(0));
            assert!(alone.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits()), "{level}");
        }
        // Zeros times what is no number are none either.
        let mut none = given[..300].to_vec();
        none[0] = f32::INFINITY;
        let answer = values(&answer(load(), vec![tensor(&[1, 300], &none)]).unwrap().remove(0));
        assert!(answer.iter().any(|x| x.is_nan()), "{level}");
    }
}

/// LeNet with weights of two or three values, a scale for each filter: as the same weights in FP32 answer.
#[test]
fn lenet_in_ternary_and_binary() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/lenet_mnist_pruned90.onnx");
    let lenet = <ModelProto as prost::Message>::decode(&*std::fs::read(file).unwrap()).unwrap();
    let images = tensor(&[6, 1, 32, 32], &made_up(6 * 1024, 1).iter().map(|x| x.abs()).collect::<Vec<_>>());
    for (values_of, expected) in [(3i8, "u2"), (2, "u1")] {
        let (mut coded, mut plain) = (lenet.clone(), lenet.clone());
        let graph = coded.graph.as_mut().unwrap();
        for at in 0..graph.initializer.len() {
            let given = graph.initializer[at].clone();
            if given.dims.len() < 2 {
                continue;
            }
            let w: Vec<f32> = given.raw_data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let out = usize::try_from(given.dims[0]).unwrap();
            let inner = w.len() / out;
            let scales: Vec<f32> =
                w.chunks(inner).map(|w| w.iter().map(|w| w.abs()).sum::<f32>() / inner as f32 + 1e-3).collect();
            let sign = |(at, w): (usize, &f32)| match values_of {
                3 if w.abs() < 0.7 * scales[at / inner] => 0,
                _ if *w < 0.0 => -1,
                _ => 1,
            };
            let integers: Vec<i8> = w.iter().enumerate().map(sign).collect();
            let numbers = meant(&integers, &scales, &[], |at| at / inner);
            plain.graph.as_mut().unwrap().initializer[at] = floats(&given.name, &given.dims, &numbers);
            let [c, s] = ["codes", "scales"].map(|of| format!("{} {of}", given.name));
            graph.initializer[at] = codes(&c, DataType::Int8, &given.dims, &integers);
            graph.initializer.push(floats(&s, &[given.dims[0]], &scales));
            let of = node("DequantizeLinear", &[&c, &s], &[&given.name], vec![int("axis", 0)]);
            graph.node.insert(0, of);
        }
        for level in Level::all() {
            let options = LoadOptions { isa_max: level.set(), ..options() };
            let [got, expected] = [&coded, &plain]
                .map(|model| values(&answer(plan(model, &options).unwrap(), vec![images.clone()]).unwrap().remove(0)));
            let size = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let is_near = |(got, expected): (&f32, &f32)| (got - expected).abs() <= 1e-4 * size;
            assert!(got.iter().zip(&expected).all(is_near), "{level}: {got:?} {expected:?}");
        }
        let layers = kernels(&layers_of(&*plan(&coded, &options()).unwrap(), &images));
        for kernel in [format!("f32{expected}"), format!("s16{expected}")] {
            assert!(layers.contains(&kernel), "{layers:?}");
        }
    }
}
