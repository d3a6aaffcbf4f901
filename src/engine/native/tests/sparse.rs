//! Weights of which most are zero: answers are those of dense products, and zeros are left out where that is believed to be
//! faster.

use super::*;
use crate::engine::proto::{int, ints, node};

/// Weights of which so many in a hundred are zero, for as many outputs in a row alike.
pub(super) fn thinned(name: &str, dims: &[i64], zeros: usize, alike: usize) -> TensorProto {
    let mut elements = made_up(dims.iter().map(|&dim| usize::try_from(dim).unwrap()).product(), name.len());
    let each = elements.len() / usize::try_from(dims[0]).unwrap();
    for (at, element) in elements.iter_mut().enumerate() {
        if ((at / each / alike * 7919 + at % each * 104_729) / 13) % 100 < zeros {
            *element = 0.0;
        }
    }
    floats(name, dims, &elements)
}

fn kernels(layers: &[LayerReport]) -> Vec<&str> {
    layers.iter().map(|layer| layer.kernel.as_str()).filter(|kernel| *kernel != "plain").collect()
}

#[test]
fn layers_of_every_kind_leave_zeros_out() {
    let case = |alike| Case {
        x: vec!["N", "16", "H", "W"],
        nodes: vec![
            node("Conv", &["x", "window", "bias"], &["a"], vec![ints("pads", &[1, 1, 1, 1])]),
            node("Relu", &["a"], &["b"], vec![]),
            node("Conv", &["b", "across"], &["c"], vec![ints("strides", &[2, 2])]),
            node("Conv", &["c", "grouped"], &["d"], vec![int("group", 2), ints("dilations", &[2, 2])]),
            node("Add", &["d", "d"], &["e"], vec![]),
            node("Flatten", &["e"], &["f"], vec![int("axis", 1)]),
            node("ReduceSum", &["f", "axes"], &["g"], vec![int("keepdims", 1)]),
            node("Gemm", &["g", "last"], &["y"], vec![int("transB", 1)]),
        ],
        constants: vec![
            thinned("window", &[24, 16, 3, 3], 90, alike),
            weights("bias", &[24]),
            thinned("across", &[40, 24, 1, 1], 90, alike),
            thinned("grouped", &[32, 20, 3, 3], 90, alike),
            thinned("last", &[8, 1], 0, alike),
            list("axes", &[1]),
        ],
        rank: 2,
    };
    for (alike, expected) in [(1, "f32_sparse_"), (4, "f32_sparse_4x")] {
        let layers = case(alike).check(&[2, 16, 21, 19]);
        let left_out = kernels(&layers).iter().filter(|kernel| kernel.starts_with(expected)).count();
        assert_eq!(left_out, 3, "{:?}", kernels(&layers));
    }
}

#[test]
fn few_rows_meet_dense_products() {
    let case = Case {
        x: vec!["N", "64"],
        nodes: vec![node("Gemm", &["x", "w", "b"], &["y"], vec![int("transB", 1)])],
        constants: vec![thinned("w", &[40, 64], 90, 1), weights("b", &[40])],
        rank: 2,
    };
    for rows in [1, 2, 3, 5, 16, 17, 100] {
        case.check(&[rows, 64]);
    }
    // Answers do not depend on company, though other kernels make them.
    for level in Level::all() {
        let plan = || case.load(&LoadOptions { isa_max: level.set(), ..options() }).unwrap();
        let rows = tensor(&[40, 64], &made_up(40 * 64, 1));
        let together = values(&answer(plan(), vec![rows.clone()]).unwrap()[0]);
        for row in [0, 39] {
            let one = tensor(&[1, 64], &values(&rows)[row * 64..][..64]);
            assert_eq!(values(&answer(plan(), vec![one]).unwrap()[0]), together[row * 40..][..40], "{level}");
        }
    }
}

#[test]
fn nothing_but_zeros_and_rows_without_weights() {
    for zeros in [99, 100] {
        let case = Case {
            x: vec!["N", "8", "H", "W"],
            nodes: vec![node("Conv", &["x", "w", "b"], &["y"], vec![])],
            constants: vec![thinned("w", &[12, 8, 1, 1], zeros, 1), weights("b", &[12])],
            rank: 4,
        };
        case.check(&[1, 8, 9, 9]);
    }
}

#[test]
fn weights_with_few_zeros_stay_dense() {
    let case = Case {
        x: vec!["N", "16", "H", "W"],
        nodes: vec![node("Conv", &["x", "w"], &["y"], vec![])],
        constants: vec![thinned("w", &[16, 16, 1, 1], 35, 1)],
        rank: 4,
    };
    let layers = case.check(&[1, 16, 9, 9]);
    assert!(kernels(&layers).iter().all(|kernel| kernel.starts_with("f32_gemm")), "{layers:?}");
}

fn raw(name: &str, data_type: DataType, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
    let (name, dims) = (name.into(), dims.to_vec());
    TensorProto { name, data_type: data_type as i32, dims, raw_data: raw_data.into(), ..Default::default() }
}

/// Bytes times signed ones, cast, scaled and with a bias, as some exporters write quantized layers.
fn integer_layers(zeros: i64, scales: TensorProto) -> Case {
    let bytes = |name: &str, dims: &[i64]| {
        let count: i64 = dims.iter().product();
        let byte = |at: i64| if (at * 7919 / 13) % 100 < zeros { 0 } else { (at * 37 + 11).to_le_bytes()[0] };
        raw(name, DataType::Int8, dims, (0..count).map(byte).collect())
    };
    let byte = |name: &str, data_type: DataType, byte: u8| raw(name, data_type, &[], vec![byte]);
    let cast = |from, to| node("Cast", &[from], &[to], vec![int("to", DataType::Float as i64)]);
    Case {
        x: vec!["N", "8", "H", "W"],
        nodes: vec![
            node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![]),
            node("ConvInteger", &["q", "w", "z", "wz"], &["i"], vec![ints("pads", &[1, 1, 1, 1])]),
            cast("i", "f"),
            node("Mul", &["f", "scales"], &["m"], vec![]),
            node("Add", &["m", "bias"], &["a"], vec![]),
            node("Relu", &["a"], &["r"], vec![]),
            node("QuantizeLinear", &["r", "t", "z"], &["q2"], vec![]),
            node("ConvInteger", &["q2", "v", "z", "wz"], &["i2"], vec![]),
            cast("i2", "f2"),
            node("Mul", &["u", "f2"], &["m2"], vec![]),
            node("ReduceMean", &["m2"], &["mean"], vec![ints("axes", &[2, 3]), int("keepdims", 0)]),
            node("QuantizeLinear", &["mean", "t", "z"], &["q3"], vec![]),
            node("MatMulInteger", &["q3", "p", "z", "wz"], &["i3"], vec![]),
            cast("i3", "f3"),
            node("Mul", &["f3", "u"], &["y"], vec![]),
        ],
        constants: vec![
            floats("s", &[], &[0.0625]),
            floats("t", &[], &[0.5]),
            floats("u", &[], &[0.015_625]),
            byte("z", DataType::Uint8, 3),
            byte("wz", DataType::Int8, 0),
            bytes("w", &[16, 8, 3, 3]),
            bytes("v", &[16, 16, 1, 1]),
            bytes("p", &[16, 5]),
            scales,
            floats("bias", &[1, 16, 1, 1], &(0..16).map(|at| at as f32 * 0.25 - 2.0).collect::<Vec<_>>()),
        ],
        rank: 2,
    }
}

#[test]
fn products_of_integers_are_layers_of_bytes() {
    let one = floats("scales", &[], &[0.007_812_5]);
    let each = floats("scales", &[1, 16, 1, 1], &[0.007_812_5, 0.015_625].repeat(8));
    for (zeros, scales, expected) in [(0, one, "u8s8_gemm"), (90, each, "u8s8_sparse_")] {
        let layers = integer_layers(zeros, scales).check(&[2, 8, 12, 11]);
        let ran = operators(&layers);
        let last = if zeros == 0 { "DynamicLinear" } else { "QuantizedLinear" };
        assert_eq!(ran.iter().filter(|operator| **operator == "QuantizedConv").count(), 2, "{layers:?}");
        assert!(ran.ends_with(&[last]), "{layers:?}");
        let convolutions = kernels(&layers).into_iter().filter(|kernel| kernel.starts_with(expected)).count();
        assert!(convolutions >= 2, "{:?}", kernels(&layers));
    }
}

/// Attention between products of bytes: of integers that are scaled, or of what the bytes mean.
fn attention_of_bytes(in_integers: bool) -> Case {
    let Case { x, nodes, mut constants, rank } = recovered::attention();
    let byte = |at: usize| if at.is_multiple_of(5) { (at % 7).to_le_bytes()[0] } else { 0 };
    let is_weights = |name: &str| ["a", "b", "c"].contains(&name);
    for constant in constants.iter_mut().filter(|constant| is_weights(&constant.name)) {
        *constant = if in_integers {
            raw(&constant.name, DataType::Int8, &[12, 12], (0..144).map(byte).collect())
        } else {
            floats(&constant.name, &[12, 12], &(0..144).map(|at| f32::from(byte(at)) / 4.0).collect::<Vec<_>>())
        };
    }
    constants.extend([
        floats("step", &[], &[0.031_25]),
        floats("scale", &[], &[0.007_812_5]),
        raw("zero", DataType::Uint8, &[], vec![128]),
        raw("weights zero", DataType::Int8, &[], vec![0]),
    ]);
    let product = |made: &NodeProto| {
        let [from, weights, to] = [&made.input[0], &made.input[1], &made.output[0]];
        let [bytes, between, cast] = ["bytes", "between", "cast"].map(|part| format!("{to} {part}"));
        let begin = node("QuantizeLinear", &[from, "step", "zero"], &[&bytes], vec![]);
        let rest = if in_integers {
            vec![
                node("MatMulInteger", &[&bytes, weights, "zero", "weights zero"], &[&between], vec![]),
                node("Cast", &[&between], &[&cast], vec![int("to", DataType::Float as i64)]),
                node("Mul", &[&cast, "scale"], &[to], vec![]),
            ]
        } else {
            vec![
                node("DequantizeLinear", &[&bytes, "step", "zero"], &[&between], vec![]),
                node("MatMul", &[&between, weights], &[to], vec![]),
            ]
        };
        [vec![begin], rest].concat()
    };
    let nodes = nodes.into_iter().flat_map(|node| match node.input.get(1) {
        Some(weights) if is_weights(weights) => product(&node),
        _ => vec![node],
    });
    Case { x, nodes: nodes.collect(), constants, rank }
}

#[test]
fn attention_between_products_of_integers() {
    let shape = [3, 7, 12];
    attention_of_bytes(false).check(&shape);
    let given = tensor(&shape, &made_up(shape.iter().product(), 1));
    let [meant, integers] = [false, true].map(|in_integers| {
        let plan = attention_of_bytes(in_integers).load(&options()).unwrap();
        (operators(&layers_of(&*plan, &given)), answer(plan, vec![given.clone()]).unwrap().remove(0))
    });
    for (got, expected) in values(&integers.1).iter().zip(values(&meant.1)) {
        assert!((got - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{got} {expected}");
    }
    let count = |operator: &str| integers.0.iter().filter(|ran| **ran == operator).count();
    assert_eq!(["QuantizedLinear", "Attention", "MatMul", "Softmax"].map(count), [4, 1, 0, 0], "{:?}", integers.0);
}

/// Layers of bytes with a ReLU between, whose weights are zero but for so many in a hundred blocks of such sides.
fn bytes_behind_relu(kept: i64, [high, wide]: [i64; 2]) -> Case {
    let weights = |name: &str, [depth, columns]: [i64; 2]| {
        let byte = |at: i64| {
            let block = at / columns / high * 7919 + at % columns / wide * 104_729;
            if block / 13 % 100 < kept { (at * 37 + 11).to_le_bytes()[0] } else { 0 }
        };
        raw(name, DataType::Int8, &[depth, columns], (0..depth * columns).map(byte).collect())
    };
    let zero = |name: &str, byte: u8| raw(name, DataType::Uint8, &[], vec![byte]);
    let between = |from, scale, zero, bytes, to| {
        let quantize = node("QuantizeLinear", &[from, scale, zero], &[bytes], vec![]);
        [quantize, node("DequantizeLinear", &[bytes, scale, zero], &[to], vec![])]
    };
    let nodes = [
        vec![node("DequantizeLinear", &["w", "u"], &["wf"], vec![])],
        vec![node("DequantizeLinear", &["v", "u"], &["vf"], vec![])],
        between("x", "s", "z", "xq", "xf").to_vec(),
        vec![node("MatMul", &["xf", "wf"], &["a"], vec![]), node("Relu", &["a"], &["r"], vec![])],
        between("r", "t", "z0", "rq", "rf").to_vec(),
        vec![node("MatMul", &["rf", "vf"], &["y"], vec![])],
    ];
    Case {
        x: vec!["N", "96"],
        nodes: nodes.concat(),
        constants: vec![
            floats("s", &[], &[0.0625]),
            floats("t", &[], &[0.25]),
            floats("u", &[], &[0.015_625]),
            zero("z", 100),
            zero("z0", 0),
            weights("w", [96, 128]),
            weights("v", [128, 150]),
        ],
        rank: 2,
    }
}

#[test]
fn one_row_of_bytes_goes_by_what_is_not_zero() {
    for (kept, sides, expected) in [
        (100, [1, 1], ["u8s8_gemm_", "u8s8_lines__"]),
        (10, [4, 16], ["u8s8_sparse_row_", "u8s8_sparse_row_"]),
        (5, [1, 1], ["u8s8_sparse_row__avx512vbmi", "u8s8_sparse_row__avx512vbmi"]),
    ] {
        let case = bytes_behind_relu(kept, sides);
        for level in Level::all() {
            if expected[0].ends_with("vbmi") && level.set() < kinglet_kernels::isa::Set::Avx512Bf16 {
                continue;
            }
            let load = || case.load(&LoadOptions { isa_max: level.set(), ..options() }).unwrap();
            let given = made_up(3 * 96, 1);
            let layers = layers_of(&*load(), &tensor(&[1, 96], &given[..96]));
            let products = layers.iter().filter(|layer| layer.operator == "QuantizedLinear");
            let kernels: Vec<&str> = products.map(|layer| layer.kernel.as_str()).collect();
            assert!(kernels.len() == 2, "{level} {layers:?}");
            for (kernel, expected) in kernels.iter().zip(expected) {
                assert!(kernel.contains(expected), "{level} {kernels:?}");
                // Bytes whose zero point is another are not looked at for zeros.
                assert!(expected != "u8s8_gemm_" || !kernel.contains("u8s8_lines"), "{level} {kernels:?}");
            }
            let together = values(&answer(load(), vec![tensor(&[3, 96], &given)]).unwrap()[0]);
            for (row, together) in given.chunks(96).zip(together.chunks(150)) {
                let alone = values(&answer(load(), vec![tensor(&[1, 96], row)]).unwrap()[0]);
                assert_eq!(alone, together, "{level} {kernels:?}");
            }
        }
    }
}

#[test]
fn channels_that_are_always_zero_or_that_nobody_looks_at_go() {
    let mut window = made_up(24 * 6 * 9, 1);
    let mut across = made_up(10 * 24, 2);
    let mut bias = made_up(24, 3);
    for channel in [0, 7, 8, 23] {
        window[channel * 54..(channel + 1) * 54].fill(0.0);
        // Nothing is left of it behind the ReLU, but for one.
        bias[channel] = if channel == 8 { 0.5 } else { -0.25 };
    }
    for out in 0..10 {
        across[out * 24 + 3] = 0.0;
    }
    let case = Case {
        x: vec!["N", "6", "H", "W"],
        nodes: vec![
            node("Conv", &["x", "window", "bias"], &["a"], vec![ints("pads", &[1, 1, 1, 1])]),
            node("Relu", &["a"], &["b"], vec![]),
            node("MaxPool", &["b"], &["c"], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]),
            node("Conv", &["c", "across"], &["d"], vec![]),
            node("GlobalAveragePool", &["d"], &["e"], vec![]),
            node("Flatten", &["e"], &["f"], vec![int("axis", 1)]),
            node("Gemm", &["f", "first", "first_bias"], &["g"], vec![]),
            node("Relu", &["g"], &["h"], vec![]),
            node("Gemm", &["h", "second"], &["y"], vec![]),
        ],
        constants: vec![
            floats("window", &[24, 6, 3, 3], &window),
            floats("bias", &[24], &bias),
            floats("across", &[10, 24, 1, 1], &across),
            weights("first", &[10, 12]),
            weights("first_bias", &[12]),
            floats("second", &[12, 4], &(0..48).map(|at| if at / 4 % 2 == 0 { 0.0 } else { 0.5 }).collect::<Vec<_>>()),
        ],
        rank: 2,
    };
    let layers = case.check(&[2, 6, 12, 10]);
    let channels: Vec<usize> = layers.iter().map(|layer| layer.shape[layer.shape.len() - 1]).collect();
    // Four were zero of which one is not behind its bias, and one was not looked at; of the hidden ones half were not.
    assert!(channels.contains(&20) && channels.contains(&6), "{channels:?}");
    assert!(!channels.contains(&24) && !channels.contains(&12), "{channels:?}");
}

#[test]
fn a_layer_of_nothing_but_zeros_keeps_a_channel() {
    let case = Case {
        x: vec!["N", "6"],
        nodes: vec![node("Gemm", &["x", "w"], &["a"], vec![]), node("Gemm", &["a", "v", "b"], &["y"], vec![])],
        constants: vec![floats("w", &[6, 8], &[0.0; 48]), weights("v", &[8, 3]), weights("b", &[3])],
        rank: 2,
    };
    case.check(&[3, 6]);
}
