//! Drafts of tiny models: which layers they have, and what changes do to answers.

use super::*;
use crate::engine::proto::{floats, int, ints, node, text, value_free};
use crate::engine::testing::{answer, model, options, tensor, values};
use crate::proto::onnx::AttributeProto;
use crate::tensor::Tensor;

fn draft(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> Draft {
    draft_of(&["n", "4"], nodes, constants)
}

/// With an input and an output of such axes.
fn draft_of(axes: &[&str], nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> Draft {
    let free = |name: &str| value_free(name, DataType::Float, axes);
    Draft { model: model(vec![free("x")], nodes, vec![free("y")], constants), source: "made.onnx".into() }
}

/// Two products, the second a Gemm of which the file has a line for each output.
fn two_layers() -> Draft {
    let nodes = vec![
        node("MatMul", &["x", "a"], &["p"], vec![]),
        node("Add", &["p", "ab"], &["q"], vec![]),
        node("Relu", &["q"], &["r"], vec![]),
        node("Gemm", &["r", "b", "bb"], &["y"], vec![int("transB", 1)]),
    ];
    let constants = vec![
        floats("a", &[4, 3], &numbers(12)),
        floats("ab", &[3], &[0.5, -0.5, 0.25]),
        floats("b", &[4, 3], &numbers(12)),
        floats("bb", &[4], &[1.0, 2.0, 3.0, 4.0]),
    ];
    draft(nodes, constants)
}

/// Numbers that are told apart.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at * 7 % 11) as f32 / 4.0 - 1.0).collect()
}

fn rows() -> Vec<Tensor> {
    vec![tensor(&[2, 4], &[0.1, 0.2, 0.3, 0.4, -0.5, 0.9, 0.0, 1.0])]
}

fn answer_of(draft: &Draft) -> Vec<f32> {
    values(&answer(draft.plan(&options()).unwrap(), rows()).unwrap()[0])
}

#[test]
fn layers_are_found_with_their_biases() {
    let layers = two_layers().layers();
    let told: Vec<_> = layers.iter().map(|layer| (layer.name.as_str(), layer.outputs, layer.depth)).collect();
    assert_eq!(told, [("p", 3, 4), ("y", 4, 3)]);
    assert_eq!([&layers[0].input, &layers[0].output, &layers[1].input], ["x", "q", "r"]);
    assert!(layers.iter().all(WeightLayer::has_bias));
}

#[test]
fn what_is_no_plain_product_of_own_weights_is_no_layer() {
    let weights = || floats("w", &[4, 4], &[1.0; 16]);
    let found = |op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>| {
        draft(vec![node(op_type, inputs, &["y"], attributes)], vec![weights()]).layers().len()
    };
    assert_eq!(found("MatMul", &["x", "w"], vec![]), 1);
    assert_eq!(found("MatMul", &["w", "x"], vec![]), 0);
    assert_eq!(found("Gemm", &["x", "w"], vec![int("transA", 1)]), 0);
    assert_eq!(found("Gemm", &["x", "w"], vec![proto::float("alpha", 2.0)]), 0);
    assert_eq!(found("Mul", &["x", "w"], vec![]), 0);
    let twice = vec![node("MatMul", &["x", "w"], &["p"], vec![]), node("MatMul", &["p", "w"], &["y"], vec![])];
    assert!(draft(twice, vec![weights()]).layers().is_empty());
}

#[test]
fn weights_have_a_line_for_each_output() {
    let mut draft = two_layers();
    let [first, second] = &draft.layers()[..] else { panic!("two layers") };
    let before = answer_of(&draft);
    let weights = draft.weights(first);
    let stored = super::floats(draft.constant("a").unwrap());
    assert_eq!(weights.elements[..4], [stored[0], stored[3], stored[6], stored[9]]);
    draft.set_weights(first, &weights);
    assert_eq!(answer_of(&draft), before);
    let mut zeros = draft.weights(second);
    zeros.elements.fill(0.0);
    draft.set_weights(second, &zeros);
    assert_eq!(answer_of(&draft), [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(draft.weights(second).zeros(), 12);
}

#[test]
fn inner_values_can_be_watched() {
    let draft = two_layers();
    let seen = values(&answer(draft.watch("q", &options()).unwrap(), rows()).unwrap()[0]);
    assert_eq!(seen.len(), 6);
    let refused = draft.watch("nothing", &options()).unwrap_err().to_string();
    assert!(refused.contains("nothing"), "{refused}");
}

#[test]
fn bytes_in_place_of_floats_answer_nearly_the_same() {
    let mut draft = two_layers();
    let before = answer_of(&draft);
    for (name, scale) in [("x", 0.01), ("r", 0.02)] {
        assert!(!draft.is_quantized(name));
        draft.quantize_value(name, Scale { scale, zero: if name == "x" { 100 } else { 0 } });
        assert!(draft.is_quantized(name));
    }
    for name in ["p", "y"] {
        let layer = draft.layers().into_iter().find(|layer| layer.name == name).unwrap();
        let input = draft.scale_of(&layer.input).unwrap();
        let Weights { elements, bias } = draft.weights(&layer);
        #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
        let integers = Integers {
            elements: elements.iter().map(|weight| (weight * 64.0).round() as i8).collect(),
            bits: 8,
            scales: vec![1.0 / 64.0; layer.outputs],
            block: None,
            bias: bias.map(|bias| bias.iter().map(|bias| (bias * 64.0 / input.scale).round() as i32).collect()),
        };
        draft.quantize_weights(&layer, &integers, Some(input));
    }
    assert!(draft.layers().is_empty());
    let plan = draft.plan(&options()).unwrap();
    let layers = plan.layers(&crate::engine::Batch::merge(&[rows()], vec![2]), 1).unwrap();
    let products: Vec<_> = layers.iter().filter(|layer| layer.macs > 0).map(|layer| layer.operator).collect();
    assert_eq!(products, ["QuantizedLinear"; 2], "{layers:?}");
    let after = answer_of(&draft);
    assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 0.06), "{before:?} {after:?}");
}

#[test]
fn bytes_are_what_is_moved_and_summed() {
    let nodes = vec![
        node("Relu", &["x"], &["a"], vec![]),
        node("Neg", &["x"], &["b"], vec![]),
        node("Add", &["a", "b"], &["s"], vec![]),
        node("Relu", &["s"], &["t"], vec![]),
        node("Flatten", &["t"], &["u"], vec![]),
        node("MatMul", &["u", "w"], &["y"], vec![]),
    ];
    let draft = draft(nodes, vec![floats("w", &[4, 4], &[1.0; 16])]);
    assert_eq!(draft.moved_from("u"), "t");
    assert_eq!(draft.summands("t"), ["a", "b"]);
    assert!(draft.summands("a").is_empty());
}

#[test]
fn convolutions_say_how_they_slide() {
    let windows = |attributes| {
        let nodes = vec![node("Conv", &["x", "w"], &["y"], attributes)];
        draft(nodes, vec![floats("w", &[4, 1, 3], &[1.0; 12])]).layers().remove(0).windows.unwrap()
    };
    let given = windows(vec![ints("pads", &[1, 2]), ints("strides", &[2]), int("group", 2)]);
    assert_eq!((given.groups, given.before(0, 8, 5), given.strides[0]), (2, 1, 2));
    // Of four outputs, two apart, three inputs each: nine of seven are spanned, one zero on each side.
    let same = |said: &str, extent| windows(vec![text("auto_pad", said), ints("strides", &[2])]).before(0, extent, 4);
    assert_eq!([same("SAME_UPPER", 7), same("SAME_UPPER", 8), same("SAME_LOWER", 8)], [1, 0, 1]);
    assert_eq!(same("VALID", 9), 0);
}

#[test]
fn weights_in_few_bits_answer_as_those_that_they_mean() {
    let stored = |store: &dyn Fn(&mut Draft, &WeightLayer)| {
        let mut draft = two_layers();
        for layer in draft.layers() {
            store(&mut draft, &layer);
        }
        assert!(draft.layers().is_empty());
        (answer_of(&draft), draft.opset())
    };
    // All weights are among these.
    let table: Vec<f32> = (0..11).map(|at| at as f32 / 4.0 - 1.0).collect();
    let expected = (answer_of(&two_layers()), 17);
    assert_eq!(stored(&|draft, layer| draft.store_table(layer, &table)), expected);
    assert_eq!(stored(&Draft::store_halves), expected);
    let of_bits = |bits: usize, block: Option<usize>| {
        stored(&|draft, layer| {
            let elements = draft.weights(layer).elements;
            #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
            let integers = Integers {
                elements: elements.iter().map(|weight| (weight * 4.0).round() as i8).collect(),
                bits,
                scales: vec![0.25; layer.outputs * block.map_or(1, |block| layer.depth.div_ceil(block))],
                block,
                bias: None,
            };
            draft.quantize_weights(layer, &integers, None);
        })
    };
    assert_eq!(of_bits(8, None), expected);
    assert_eq!(of_bits(4, Some(2)), (expected.0.clone(), 21));
    assert_eq!(of_bits(4, Some(32)), (expected.0, 21));
}

#[test]
fn later_operators_are_said_only_where_nothing_changes() {
    assert_eq!(two_layers().opset_within_reach(), 21);
    let nodes = vec![node("ReduceMean", &["x"], &["y"], vec![ints("axes", &[1])])];
    assert_eq!(draft(nodes, vec![]).opset_within_reach(), 17);
}

#[test]
fn a_layer_in_two_answers_as_in_one() {
    let mut draft = two_layers();
    let before = answer_of(&draft);
    for layer in draft.layers() {
        // The identity behind it, or before it.
        let weights = draft.weights(&layer);
        let rank = layer.outputs;
        let ones = (0..rank * rank).map(|at| f32::from(u8::from(at % (rank + 1) == 0))).collect();
        draft.split(&layer, &weights.elements, &Weights { elements: ones, bias: weights.bias.clone() }, [1, 1]);
    }
    assert_eq!(answer_of(&draft), before);
    let told: Vec<_> = draft.layers().iter().map(|layer| (layer.name.clone(), layer.outputs, layer.depth)).collect();
    let expected = [("p first", 3, 4), ("p", 3, 3), ("y first", 4, 3), ("y", 4, 4)];
    assert_eq!(told, expected.map(|(name, outputs, depth)| (name.to_owned(), outputs, depth)));
}

#[test]
fn a_convolution_in_two_of_groups_answers_as_in_one() {
    let attributes = vec![int("group", 1), ints("pads", &[1, 0]), ints("strides", &[2])];
    let nodes = vec![node("Conv", &["x", "w", "b"], &["y"], attributes)];
    let constants = vec![floats("w", &[4, 4, 3], &numbers(48)), floats("b", &[4], &[0.5, -0.5, 0.25, 1.0])];
    let given = || vec![tensor(&[2, 4, 7], &numbers(56))];
    let whole = draft_of(&["n", "4", "t"], nodes, constants);
    let expected = values(&answer(whole.plan(&options()).unwrap(), given()).unwrap()[0]);
    let layer = &whole.layers()[0];
    let Weights { elements, bias } = whole.weights(layer);
    let ones = |lines: usize, columns: usize| {
        (0..lines * columns).map(move |at| f32::from(u8::from(at % columns == at / columns % columns)))
    };
    // The weights as they are, and the identity behind each half of the outputs; and the weights of each half of the inputs.
    let halves = [0, 1].map(|half| elements.chunks(6).skip(half).step_by(2).flatten().copied());
    let of_outputs = (elements.clone(), ones(4, 2).collect(), [1, 2]);
    let both = ones(4, 4).collect::<Vec<_>>().chunks(4).flat_map(|line| [line, line].concat()).collect();
    let of_inputs = (halves.into_iter().flatten().collect(), both, [2, 1]);
    for (first, second, groups) in [of_outputs, of_inputs] {
        let mut draft = whole.clone();
        draft.split(layer, &first, &Weights { elements: second, bias: bias.clone() }, groups);
        let told: Vec<_> = draft.layers().iter().map(WeightLayer::groups).collect();
        assert_eq!(told, groups);
        let got = values(&answer(draft.plan(&options()).unwrap(), given()).unwrap()[0]);
        assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{groups:?}: {got:?} {expected:?}");
    }
}

#[test]
fn channels_go_on_both_sides() {
    let mut draft = two_layers();
    let [first, second] = &draft.layers()[..] else { panic!("two layers") };
    let [channels] = &draft.channels()[..] else { panic!("channels between two layers") };
    assert_eq!((&channels.makers, &channels.takers), (&vec![first.clone()], &vec![second.clone()]));
    // A channel that nothing comes of.
    let mut silent = draft.weights(second);
    (0..4).for_each(|line| silent.elements[line * 3 + 1] = 0.0);
    draft.set_weights(second, &silent);
    let before = answer_of(&draft);
    for quantized in [false, true] {
        let mut draft = draft.clone();
        if quantized {
            let elements = draft.weights(first).elements;
            #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
            let elements = elements.iter().map(|weight| (weight * 4.0).round() as i8).collect();
            let integers = Integers { elements, bits: 8, scales: vec![0.25; 3], block: None, bias: None };
            draft.quantize_weights(first, &integers, None);
        }
        draft.keep_channels(channels, &[0, 2]);
        assert_eq!(answer_of(&draft), before, "{quantized}");
        let told: Vec<_> = draft.layers().iter().map(|layer| (layer.outputs, layer.depth)).collect();
        assert_eq!(told.last(), Some(&(4, 2)));
    }
}

/// Two residual blocks, the second with a layer of single channels; behind them a product of what is left of images.
fn residual() -> Draft {
    let conv = |x: &str, w: &str, y: &str, attributes| node("Conv", &[x, w], &[y], attributes);
    let normalized = |x: &str, y: &str| {
        node(
            "BatchNormalization",
            &[x, &format!("{y}s"), &format!("{y}b"), &format!("{y}m"), &format!("{y}v")],
            &[y],
            vec![],
        )
    };
    let nodes = vec![
        conv("x", "stem", "a", vec![]),
        normalized("a", "b"),
        node("Relu", &["b"], &["c"], vec![]),
        conv("c", "narrow", "d", vec![]),
        node("Relu", &["d"], &["e"], vec![]),
        conv("e", "wide", "f", vec![]),
        node("Add", &["f", "c"], &["g"], vec![]),
        conv("g", "spread", "h", vec![]),
        conv("h", "alone", "i", vec![int("group", 4), ints("pads", &[1, 1])]),
        node("Clip", &["i"], &["j"], vec![]),
        node("Conv", &["j", "back", "back bias"], &["k"], vec![]),
        node("Add", &["g", "k"], &["l"], vec![]),
        node("Mul", &["l", "scales"], &["m"], vec![]),
        node("MaxPool", &["m"], &["o"], vec![ints("kernel_shape", &[2]), ints("strides", &[2])]),
        node("Flatten", &["o"], &["p"], vec![]),
        node("Gemm", &["p", "last"], &["y"], vec![]),
    ];
    let some = |name: &str, dims: &[i64]| {
        floats(name, dims, &numbers(dims.iter().map(|&dim| usize::try_from(dim).unwrap()).product()))
    };
    let constants = vec![
        some("stem", &[6, 2, 1]),
        some("bs", &[6]),
        some("bb", &[6]),
        some("bm", &[6]),
        floats("bv", &[6], &[1.0; 6]),
        some("narrow", &[3, 6, 1]),
        some("wide", &[6, 3, 1]),
        some("spread", &[4, 6, 1]),
        some("alone", &[4, 1, 3]),
        some("back", &[6, 4, 1]),
        some("back bias", &[6]),
        some("scales", &[6, 1]),
        some("last", &[18, 5]),
    ];
    let free = |name: &str, axes| value_free(name, DataType::Float, axes);
    let (x, y) = (free("x", &["n", "2", "6"][..]), free("y", &["n", "5"]));
    Draft { model: model(vec![x], nodes, vec![y], constants), source: "made.onnx".into() }
}

#[test]
fn channels_of_a_sum_go_together() {
    let draft = residual();
    let told: Vec<_> = draft
        .channels()
        .iter()
        .map(|channels| {
            let names =
                |layers: &[WeightLayer]| layers.iter().map(|layer| layer.name.clone()).collect::<Vec<_>>().join(" ");
            (names(&channels.makers), names(&channels.takers))
        })
        .collect();
    let expected = [("f a k", "d h y"), ("d", "f"), ("h i", "k")];
    assert_eq!(told, expected.map(|(makers, takers)| (makers.to_owned(), takers.to_owned())));
    let given = || vec![tensor(&[3, 2, 6], &numbers(36))];
    let answer_of = |draft: &Draft| values(&answer(draft.plan(&options()).unwrap(), given()).unwrap()[0]);
    for (channels, kept) in draft.channels().iter().zip([&[0, 3, 4][..], &[2], &[0, 1, 3]]) {
        let mut silent = draft.clone();
        for layer in &channels.takers {
            let mut weights = silent.weights(layer);
            let each = layer.depth / channels.count;
            let at = |place: usize| place % layer.depth / each;
            weights
                .elements
                .iter_mut()
                .enumerate()
                .filter(|(place, _)| !kept.contains(&at(*place)))
                .for_each(|(_, w)| *w = 0.0);
            silent.set_weights(layer, &weights);
        }
        let expected = answer_of(&silent);
        assert_ne!(answer_of(&draft), expected);
        silent.keep_channels(channels, kept);
        let (got, all) = (answer_of(&silent), silent.channels());
        assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{kept:?}: {got:?} {expected:?}");
        assert!(
            all.iter().any(|left| left.makers.len() == channels.makers.len() && left.count == kept.len()),
            "{all:?}"
        );
    }
}

#[test]
fn channels_that_others_see_stay() {
    let weights = || {
        vec![
            floats("a", &[4, 4], &[1.0; 16]),
            floats("b", &[4, 4], &[1.0; 16]),
            floats("c", &[4], &[2.0; 4]),
            floats("c2", &[4, 4], &[1.0; 16]),
        ]
    };
    let can_go = |between: Vec<NodeProto>| {
        let mut nodes = vec![node("MatMul", &["x", "a"], &["p"], vec![])];
        nodes.extend(between);
        nodes.push(node("MatMul", &["q", "b"], &["y"], vec![]));
        !draft(nodes, weights()).channels().is_empty()
    };
    let one = |operator: &str, inputs: &[&str]| can_go(vec![node(operator, inputs, &["q"], vec![])]);
    assert!(one("Relu", &["p"]) && one("Add", &["p", "c"]) && one("Mul", &["p", "p"]));
    assert!(
        !one("Softmax", &["p"]) && !one("Add", &["p", "x"]) && !one("Flatten", &["p"]) && !one("Transpose", &["p"])
    );
    let relu = |then: NodeProto| can_go(vec![node("Relu", &["p"], &["q"], vec![]), then]);
    assert!(relu(node("Identity", &["q"], &["unused"], vec![])));
    assert!(!relu(node("Softmax", &["p"], &["unused"], vec![])));
    // What is added to a product from elsewhere.
    let gemm = |inputs: &[&str]| relu(node("Gemm", inputs, &["unused"], vec![]));
    assert!(gemm(&["x", "c2"]) && !gemm(&["x", "c2", "q"]));
    // A constant that is there twice cannot be cut for one of them.
    let twice = vec![node("Add", &["p", "c"], &["q"], vec![]), node("Add", &["x", "c"], &["unused"], vec![])];
    assert!(!can_go(twice));
}

#[test]
fn takers_stand_in_the_order_that_they_run() {
    let product = |x: &str, w: &str, y: &str| node("MatMul", &[x, w], &[y], vec![]);
    let add = |a: &str, b: &str, y: &str| node("Add", &[a, b], &[y], vec![]);
    let nodes = vec![
        product("x", "a", "p"),
        product("p", "b", "early"),
        product("x", "c", "q"),
        product("q", "d", "late"),
        add("q", "p", "s"),
        product("s", "e", "last"),
        add("early", "late", "t"),
        add("t", "last", "y"),
    ];
    let constants = ["a", "b", "c", "d", "e"].map(|name| floats(name, &[4, 4], &numbers(16))).to_vec();
    let [channels] = &draft(nodes, constants).channels()[..] else { panic!("what is summed is one") };
    let names: Vec<_> = channels.takers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["early", "late", "last"]);
}
