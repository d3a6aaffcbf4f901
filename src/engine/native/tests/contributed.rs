//! Operators of ONNX Runtime's own: what they are made of, and that the answers are those of ONNX Runtime 1.32.

use super::classical::float_list;
use super::fused::own;
use super::typed::{Graph, constant, near, of, some};
use super::*;
use crate::engine::proto::{float, int, ints, node, text};
use crate::proto::onnx::AttributeProto;
use crate::tensor::DType;

fn numbers(seed: usize, shape: &[usize]) -> Tensor {
    tensor(shape, &made_up(shape.iter().product(), seed))
}

fn bytes(dtype: DType, seed: usize, shape: &[usize]) -> Tensor {
    let byte = |at: usize| (at * 37 + seed * 11).to_le_bytes()[0];
    bytes_of(dtype, shape, (0..shape.iter().product()).map(byte).collect())
}

fn number(number: f64) -> Tensor {
    some(DType::F32, &[], &[number])
}

fn byte(byte: f64) -> Tensor {
    some(DType::U8, &[], &[byte])
}

fn integers(shape: &[usize], integers: &[f64]) -> Tensor {
    some(DType::I32, shape, integers)
}

/// An operator with its attributes, whose first operands are inputs and the others constants, none where one is left out.
struct Call<'a> {
    node: (&'a str, Vec<AttributeProto>),
    inputs: Vec<Tensor>,
    constants: Vec<Option<Tensor>>,
}

impl Call<'_> {
    /// What runs, where it answers this.
    fn answers(self, dtype: DType, shape: &[usize], expected: &[f64]) -> Vec<&'static str> {
        let outputs = [("y", dtype, shape.len())];
        let (node, constants) = self.parts();
        let graph = Graph { version: 17, nodes: vec![node], constants, inputs: &self.inputs, outputs: &outputs };
        let answer = graph.answers().remove(0);
        assert_eq!((answer.dtype(), &answer.shape()[..]), (dtype, shape), "{}", self.node.0);
        near(&of(&answer), expected);
        graph.layers().0
    }

    fn refused(self) -> String {
        let (node, constants) = self.parts();
        let outputs = [("y", DType::F32, 3)];
        Graph { version: 17, nodes: vec![node], constants, inputs: &self.inputs, outputs: &outputs }.refused()
    }

    fn parts(&self) -> (NodeProto, Vec<TensorProto>) {
        let names = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
        let constants: Vec<(&str, &Option<Tensor>)> = names.into_iter().zip(&self.constants).collect();
        let others = constants.iter().map(|(name, given)| if given.is_some() { *name } else { "" });
        let operands: Vec<&str> = ["x", "x1", "x2"].into_iter().take(self.inputs.len()).chain(others).collect();
        let node = NodeProto { attribute: self.node.1.clone(), ..own(self.node.0, &operands, &["y"]) };
        (node, constants.iter().filter_map(|(name, given)| Some(constant(name, given.as_ref()?))).collect())
    }
}

fn given<const N: usize>(constants: [Tensor; N]) -> Vec<Option<Tensor>> {
    constants.map(Some).to_vec()
}

#[test]
fn products() {
    let half = || float("alpha", 0.5);
    let turned = vec![int("transA", 1), int("transB", 1), half()];
    let inputs = vec![numbers(1, &[2, 3, 2]), numbers(2, &[2, 2, 3])];
    let answer = [-0.030_533, 0.225_913, -0.037_772, 0.257_516, -0.199_413, -0.267_631, -0.541_76, -0.849_996];
    let call = Call { node: ("FusedMatMul", turned), inputs, constants: vec![] };
    call.answers(DType::F32, &[2, 2, 2], &answer);
    let inputs = vec![numbers(1, &[2, 2, 3]), numbers(2, &[2, 3, 2])];
    let answer = [0.098_482, 0.243_551, -0.368_753, -0.440_127, 1.469_256, 1.692_01, -1.122_223, -1.301_819];
    let call = Call { node: ("FusedMatMul", vec![int("transBatchA", 1)]), inputs, constants: vec![] };
    call.answers(DType::F32, &[2, 2, 2], &answer);
    let constants = given([numbers(3, &[2, 3])]);
    let answer = [-0.478_83, -0.261_227, -0.739_87, -0.405_739, 0.155_511, 0.048_45, 0.612_112, 0.342_718];
    let inputs = vec![numbers(1, &[2, 2, 3])];
    let call = Call { node: ("FusedMatMul", vec![int("transB", 1), half()]), inputs, constants };
    assert_eq!(call.answers(DType::F32, &[2, 2, 2], &answer), ["Linear"]);
    let attributes = vec![int("transB", 1), half(), text("activation", "LeakyRelu"), float("activation_alpha", 0.25)];
    let constants = given([numbers(3, &[2, 3]), numbers(4, &[2])]);
    let call = Call { node: ("FusedGemm", attributes), inputs: vec![numbers(1, &[2, 3])], constants };
    assert_eq!(call.answers(DType::F32, &[2, 2], &[-0.297_53, -0.266_356, -0.362_79, -0.302_484]), ["Linear"]);
}

#[test]
fn convolutions() {
    let call = |activation: &str| {
        let attributes = vec![text("activation", activation), float_list("activation_params", &[0.25])];
        let constants = given([numbers(3, &[2, 1, 2, 2]), numbers(4, &[2]), numbers(2, &[1, 2, 1, 2])]);
        Call { node: ("FusedConv", attributes), inputs: vec![numbers(1, &[1, 1, 2, 3])], constants }
    };
    let ran = call("LeakyRelu").answers(DType::F32, &[1, 2, 1, 2], &[-0.480_993, -0.557_912, -0.322_721, -0.365_114]);
    assert!(ran.contains(&"Conv"), "{ran:?}");
    let refused = call("Loop").refused();
    assert!(refused.contains("activation must be one of") && refused.contains("got \"Loop\""), "{refused}");
}

#[test]
fn products_of_bytes() {
    let scales = || tensor(&[4], &made_up(4, 4).iter().map(|scale| scale * 0.01).collect::<Vec<_>>());
    let weights = || bytes(DType::I8, 3, &[3, 4]);
    let constants = vec![Some(weights()), Some(scales()), None, Some(numbers(5, &[4]))];
    let call = Call { node: ("DynamicQuantizeMatMul", vec![]), inputs: vec![numbers(1, &[2, 3])], constants };
    let answer = [0.001_137, 0.390_792, -0.518_32, -1.141_457, 0.064_716, 0.711_469, -0.525_821, -1.552_783];
    assert_eq!(call.answers(DType::F32, &[2, 4], &answer).last(), Some(&"DynamicLinear"));
    let constants =
        vec![Some(weights()), Some(number(0.5)), Some(scales()), Some(byte(100.0)), None, Some(numbers(5, &[4]))];
    let call = Call { node: ("MatMulIntegerToFloat", vec![]), inputs: vec![bytes(DType::U8, 1, &[2, 3])], constants };
    let answer = [0.330_589, 23.508_093, 34.823_814, -45.839_241, -11.907_132, -39.870_583, 36.317_49, 35.480_179];
    assert_eq!(call.answers(DType::F32, &[2, 4], &answer), ["DynamicLinear"]);
}

#[test]
fn what_bytes_become() {
    let check = |op_type: &str, attributes: Vec<AttributeProto>, inputs: Vec<Tensor>, constants, expected: &[f64]| {
        Call { node: (op_type, attributes), inputs, constants }.answers(DType::U8, &[1, 6], expected)
    };
    let x = || vec![bytes(DType::U8, 1, &[1, 6])];
    let (scale, zero) = (|| number(0.05), || byte(120.0));
    let other = || [scale(), zero(), bytes(DType::U8, 2, &[1, 6]), number(0.03), byte(99.0)];
    let to = |constants: Vec<Tensor>, scale, zero| {
        let all = constants.into_iter().chain([number(scale), byte(zero)]).map(Some);
        all.collect::<Vec<_>>()
    };
    check("QLinearAdd", vec![], x(), to(other().to_vec(), 0.07, 128.0), &[17., 59., 102., 144., 186., 229.]);
    check("QLinearMul", vec![], x(), to(other().to_vec(), 0.25, 128.0), &[178., 145., 129., 128., 145., 177.]);
    let condition = some(DType::Bool, &[1, 6], &[1., 0., 1., 0., 1., 0.]);
    let operands = [x().remove(0)].into_iter().chain(other()).collect();
    check("QLinearWhere", vec![], vec![condition], to(operands, 0.04, 110.0), &[0., 80., 66., 136., 159., 191.]);
    let own = || vec![scale(), zero()];
    let table = check("QLinearSigmoid", vec![], x(), to(own(), 1.0 / 256.0, 0.0), &[1., 7., 38., 134., 224., 250.]);
    assert_eq!(table, ["LookUp"]);
    let slope = vec![float("alpha", 0.25)];
    let table = check("QLinearLeakyRelu", slope, x(), to(own(), 0.04, 30.0), &[0., 7., 19., 32., 79., 125.]);
    assert_eq!(table, ["LookUp"]);
    // Without a zero point it is zero.
    let without =
        |constants: Vec<Tensor>, scale| [constants, vec![number(scale)]].concat().into_iter().map(Some).collect();
    check("QLinearAdd", vec![], x(), without(other().to_vec(), 0.07), &[0., 0., 0., 16., 58., 101.]);
    check("QLinearMul", vec![], x(), without(other().to_vec(), 0.25), &[50., 17., 1., 0., 17., 49.]);
    check("QLinearSigmoid", vec![], x(), without(own(), 1.0 / 256.0), &[1., 7., 38., 134., 224., 250.]);
    let slope = vec![float("alpha", 0.25)];
    check("QLinearLeakyRelu", slope, x(), without(own(), 0.07), &[0., 0., 0., 1., 28., 54.]);
    let softmax = |version| vec![int("opset", version)];
    check("QLinearSoftmax", softmax(13), x(), to(own(), 1.0 / 256.0, 0.0), &[0., 0., 1., 5., 34., 216.]);
    check("QLinearSoftmax", softmax(12), x(), to(own(), 1.0 / 256.0, 0.0), &[0., 0., 1., 5., 34., 216.]);
    let refused = Call { node: ("QLinearSoftmax", vec![]), inputs: x(), constants: to(own(), 1.0, 0.0) }.refused();
    assert!(refused.contains("opset must be positive, got 0"), "{refused}");
}

#[test]
fn bytes_are_put_beside_each_other() {
    // The output's scale is the first operand.
    let node = own("QLinearConcat", &["c0", "c1", "x", "c2", "c3", "x1", "c4", "c5"], &["y"]);
    let node = NodeProto { attribute: vec![int("axis", 1)], ..node };
    let constants = [number(0.04), byte(110.0), number(0.05), byte(120.0), number(0.03), byte(99.0)];
    let constants = ["c0", "c1", "c2", "c3", "c4", "c5"].iter().zip(&constants).map(|(name, of)| constant(name, of));
    let inputs = [bytes(DType::U8, 1, &[1, 3]), bytes(DType::U8, 2, &[1, 3])];
    let outputs = [("y", DType::U8, 2)];
    let graph =
        Graph { version: 17, nodes: vec![node], constants: constants.collect(), inputs: &inputs, outputs: &outputs };
    assert_eq!(graph.answer(), [0., 20., 66., 52., 80., 108.]);
}

#[test]
fn windows_of_bytes() {
    let check =
        |op_type: &str, attributes: Vec<AttributeProto>, of: &[usize], constants, shape: &[usize], expected: &[f64]| {
            let inputs = vec![bytes(DType::U8, 1, of)];
            Call { node: (op_type, attributes), inputs, constants }.answers(DType::U8, shape, expected)
        };
    let scales = || given([number(0.05), byte(120.0), number(0.03), byte(110.0)]);
    let kernel = || ints("kernel_shape", &[2, 2]);
    let (pool, global, last) = ("QLinearAveragePool", "QLinearGlobalAveragePool", || int("channels_last", 1));
    check(pool, vec![kernel()], &[1, 1, 2, 3], scales(), &[1, 1, 1, 2], &[52., 113.]);
    check(pool, vec![kernel(), last()], &[1, 2, 3, 2], scales(), &[1, 1, 2, 2], &[68., 23., 85., 147.]);
    let without = given([number(0.05), byte(120.0), number(0.03)]);
    check(pool, vec![kernel()], &[1, 1, 2, 3], without, &[1, 1, 1, 2], &[0., 3.]);
    check(global, vec![], &[1, 2, 2, 3], scales(), &[1, 2, 1, 1], &[82., 97.]);
    check(global, vec![last()], &[1, 3, 2, 1], scales(), &[1, 1, 1, 1], &[82.]);
    check("NhwcMaxPool", vec![kernel()], &[1, 2, 3, 2], vec![], &[1, 1, 2, 2], &[233., 122., 159., 196.]);
}

#[test]
fn attention() {
    let call = |op_type, attributes: Vec<AttributeProto>, mask: Option<Tensor>| {
        let attributes = [attributes, vec![int("num_heads", 2)]].concat();
        let constants = vec![Some(numbers(3, &[4, 12])), Some(numbers(4, &[12])), mask];
        Call { node: (op_type, attributes), inputs: vec![numbers(1, &[2, 2, 4])], constants }
    };
    let check = |attributes, mask, expected: &[f64]| {
        let ran = call("Attention", attributes, mask).answers(DType::F32, &[2, 2, 4], expected);
        assert_eq!(ran.iter().filter(|ran| **ran == "Linear").count(), 3, "{ran:?}");
        assert_eq!(ran.last(), Some(&"Attention"), "{ran:?}");
    };
    let forward = [
        -0.179_8, -0.062_019, 0.055_762, 0.173_544, 0.190_255, 0.286_291, 0.082_697, 0.198_685, 1.343_06, 0.993_429,
        0.643_798, 0.294_166, 1.130_728, 0.846_268, 0.537_152, 0.272_29,
    ];
    check(vec![int("unidirectional", 1)], None, &forward);
    let lengths = [
        -0.179_8, -0.062_019, 0.055_762, 0.173_544, -0.179_8, -0.062_019, 0.055_762, 0.173_544, 1.127_453, 0.843_998,
        0.531_421, 0.271_115, 1.130_728, 0.846_268, 0.537_152, 0.272_29,
    ];
    check(vec![], Some(integers(&[2], &[1., 2.])), &lengths);
    let masked = [
        0.044_962, 0.149_535, 0.187_441, 0.296_454, 0.019_135, 0.125_226, 0.081_438, 0.197_51, 1.019_397, 0.769_108,
        0.503_661, 0.265_42, 1.021_28, 0.770_413, 0.506_46, 0.265_994,
    ];
    let mask = || integers(&[2, 2], &[1., 0., 0., 1.]);
    check(vec![float("scale", 0.5), float("mask_filter_value", -1.0)], Some(mask()), &masked);
    for (attribute, told) in [
        (int("do_rotary", 1), "do_rotary must be 0, got 1"),
        (int("num_heads", 3), "got [4, 4, 4]"),
        (
            ints("qkv_hidden_sizes", &[4, 4]),
            "its 12 columns must be those of queries, keys and values of 2 heads, got [4, 4]",
        ),
    ] {
        let refused = call("Attention", vec![attribute], None).refused();
        assert!(refused.contains(told), "{refused}");
    }
    let refused = call("Attention", vec![], Some(integers(&[2, 1, 2, 2], &[1.; 8]))).refused();
    assert!(refused.contains("its mask must have 1 to 3 axes, got 4"), "{refused}");
}

#[test]
fn attention_with_a_bias_of_the_request() {
    let node = own("Attention", &["x", "weights", "x1"], &["y"]);
    let nodes = vec![NodeProto { attribute: vec![int("num_heads", 2)], ..node }];
    let (inputs, outputs) = ([numbers(1, &[2, 2, 4]), numbers(4, &[12])], [("y", DType::F32, 3)]);
    let constants = vec![constant("weights", &numbers(3, &[4, 12]))];
    let expected = [
        0.237_604, 0.330_857, 0.294_345, 0.396_239, 0.190_255, 0.286_29, 0.082_697, 0.198_685, 1.127_453, 0.843_998,
        0.531_421, 0.271_115, 1.130_728, 0.846_268, 0.537_152, 0.272_29,
    ];
    near(&Graph { version: 17, nodes, constants, inputs: &inputs, outputs: &outputs }.answer(), &expected);
}

#[test]
fn attention_of_bytes() {
    let constants = given([
        bytes(DType::I8, 3, &[4, 12]),
        numbers(4, &[12]),
        number(0.01),
        number(0.01),
        integers(&[2], &[1., 2.]),
        byte(120.0),
        some(DType::I8, &[], &[0.0]),
    ]);
    let inputs = vec![bytes(DType::U8, 1, &[2, 2, 4])];
    let call = Call { node: ("QAttention", vec![int("num_heads", 2)]), inputs, constants };
    let expected = [
        -0.039_746, -0.975_653, 0.930_039, 0.045_332, -0.039_746, -0.975_653, 0.930_039, 0.045_332, 0.930_429,
        2.152_181, 0.678_158, 0.677_63, 0.845_235, 1.529_107, 0.629_035, 0.353_121,
    ];
    let ran = call.answers(DType::F32, &[2, 2, 4], &expected);
    assert!(ran.contains(&"DynamicLinear") && ran.contains(&"Attention"), "{ran:?}");
}

#[test]
fn attention_of_planes() {
    let inputs = [1, 2, 5].map(|seed| numbers(seed, &[2, 2, 4])).to_vec();
    let mask = integers(&[2, 2], &[1., 0., 0., 1.]);
    let constants = given([numbers(4, &[12]), mask, numbers(6, &[1, 1, 2, 2])]);
    let attributes = vec![int("num_heads", 2), float("mask_filter_value", -1.0)];
    let call = Call { node: ("MultiHeadAttention", attributes), inputs, constants };
    let expected = [
        0.262_5, 0.076_686, -0.126_723, -0.312_537, 0.244_905, 0.059_091, -0.097_363, -0.283_177, 0.788_119, 0.602_305,
        1.097_626, 0.911_812, 0.666_34, 0.480_525, 1.174_134, 0.988_319,
    ];
    assert_eq!(call.answers(DType::F32, &[2, 2, 4], &expected).last(), Some(&"Attention"));
}

#[test]
fn attention_of_values_that_are_wider() {
    let inputs = vec![numbers(1, &[1, 2, 8]), numbers(2, &[1, 2, 8]), numbers(5, &[1, 2, 16])];
    let call = |bias| {
        let node = ("MultiHeadAttention", vec![int("num_heads", 2)]);
        Call { node, inputs: inputs.clone(), constants: given([numbers(4, &[bias])]) }
    };
    let expected = [
        0.123_054, -0.062_76, -0.248_574, -0.434_388, -0.620_202, -0.806_017, -0.991_831, -1.177_645, -1.474_171,
        0.341_014, 0.802_689, 0.616_874, 0.431_06, 0.245_246, 0.059_432, 1.227_128, -0.048_004, -0.233_818, -0.419_632,
        -0.605_446, -0.791_26, -0.977_075, -1.162_889, -1.348_703, -1.410_742, 0.404_443, 0.619_421, 0.433_607,
        0.247_793, 0.061_979, -0.123_836, 1.290_557,
    ];
    assert_eq!(call(32).answers(DType::F32, &[1, 2, 16], &expected).last(), Some(&"Attention"));
    let refused = call(24).refused();
    assert!(refused.contains("its 24 columns must be") && refused.contains("got [8, 8, 16]"), "{refused}");
}

#[test]
fn attention_in_pieces_of_its_own() {
    // As ONNX Runtime saves what it has optimised: keys are transposed, and scores scaled, by the product.
    let scores = own("FusedMatMul", &["x", "x1"], &["s"]);
    let nodes = vec![
        NodeProto { attribute: vec![int("transB", 1), float("alpha", 0.5)], ..scores },
        node("Softmax", &["s"], &["p"], vec![]),
        node("MatMul", &["p", "x2"], &["y"], vec![]),
    ];
    let inputs = [1, 2, 5].map(|seed| numbers(seed, &[2, 3, 4, 5]));
    let outputs = [("y", DType::F32, 4)];
    let (ran, _) = Graph { version: 17, nodes, constants: vec![], inputs: &inputs, outputs: &outputs }.layers();
    assert_eq!(ran, ["Attention"]);
}

/// Of words, places and segments, with a mask; the constants behind the operands that both forms have are `more`.
fn embedded(op_type: &str, tables: [Tensor; 5], more: &[Tensor], expected: &[f64]) {
    let names = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "c10", "c11", "c12", "c13", "c14"];
    let constants = names.iter().zip(tables.iter().chain(more)).map(|(name, table)| constant(name, table)).collect();
    let operands = [&["x", "x1"], &names[..5], &["x2"], &names[5..5 + more.len()]].concat();
    let node = own(op_type, &operands, &["y", "count"]);
    let node = NodeProto { attribute: vec![float("epsilon", 1e-5)], ..node };
    let inputs = [&[2., 0., 1., 3.], &[0., 1., 1., 0.], &[1., 1., 1., 0.]].map(|list| integers(&[2, 2], list));
    let outputs = [("y", DType::F32, 3), ("count", DType::I32, 1)];
    let answers = Graph { version: 17, nodes: vec![node], constants, inputs: &inputs, outputs: &outputs }.answers();
    near(&of(&answers[0]), expected);
    assert_eq!(of(&answers[1]), [2., 1.]);
}

#[test]
fn embeddings() {
    let shapes: [&[usize]; 5] = [&[4, 3], &[5, 3], &[2, 3], &[3], &[3]];
    let floats = [0, 1, 2, 3, 4].map(|at| numbers(at + 1, shapes[at]));
    let expected = [
        0.855_549, -0.942_393, -0.786_14, -1.009_924, -0.231_768, 0.773_941, -1.009_924, -0.231_768, 0.773_941,
        -1.009_924, -0.231_768, 0.773_941,
    ];
    embedded("EmbedLayerNormalization", floats, &[], &expected);
    let tables = [0, 1, 2, 3, 4].map(|at| bytes(DType::I8, at + 1, shapes[at]));
    let scales = [0.01, 0.02, 0.015, 0.01, 0.012].map(number);
    let zeros = [3., -2., 1., 5., -7.].map(|zero| some(DType::I8, &[], &[zero]));
    let expected = [
        0.266_351, 1.188, -0.056_042, 0.266_351, 1.188, -0.056_042, 0.767_884, 0.234_806, -0.091_952, 0.278_745,
        2.141_194, -1.509_202,
    ];
    embedded("QEmbedLayerNormalization", tables, &[scales, zeros].concat(), &expected);
}

#[test]
fn texts_that_are_longer_than_the_table_of_places() {
    let tables = |rows: usize| {
        let tables = [numbers(1, &[4, 3]), numbers(2, &[rows, 3]), numbers(4, &[3]), numbers(5, &[3])];
        ["c0", "c1", "c2", "c3"].iter().zip(&tables).map(|(name, table)| constant(name, table)).collect()
    };
    let node = own("EmbedLayerNormalization", &["x", "", "c0", "c1", "", "c2", "c3"], &["y"]);
    let nodes = vec![NodeProto { attribute: vec![float("epsilon", 1e-5)], ..node }];
    let (inputs, outputs) = ([integers(&[2, 2], &[2., 0., 1., 3.])], [("y", DType::F32, 3)]);
    let graph =
        |rows| Graph { version: 17, nodes: nodes.clone(), constants: tables(rows), inputs: &inputs, outputs: &outputs };
    let expected = [
        0.862_683, -0.889_577, -0.854_055, -1.009_819, -0.231_768, 0.773_808, -1.009_819, -0.231_769, 0.773_808,
        -1.009_819, -0.231_768, 0.773_808,
    ];
    near(&graph(5).answer(), &expected);
    assert_eq!(graph(1).unfit(), "y: index 1 is outside an axis of 1");
}

#[test]
fn axes_of_a_normalization() {
    let call = |axis: i64| {
        let node = node("SimplifiedLayerNormalization", &["x", "scale"], &["y"], vec![int("axis", axis)]);
        let constants = vec![constant("scale", &numbers(2, &[2, 3]))];
        (vec![node], constants)
    };
    let (inputs, outputs) = ([numbers(1, &[2, 3])], [("y", DType::F32, 2)]);
    let graph = |axis| {
        let (nodes, constants) = call(axis);
        Graph { version: 17, nodes, constants, inputs: &inputs, outputs: &outputs }
    };
    let expected = [-0.091_263, -0.039_84, 0.037_02, 0.139_318, 0.267_053, 0.420_226];
    near(&graph(-2).answer(), &expected);
    for axis in [-65, -100_000_000_000, i64::MIN] {
        let refused = graph(axis).refused();
        assert!(refused.contains(&format!("axis must be at least -64, got {axis}")), "{refused}");
    }
}

#[test]
fn biases_before_softmax() {
    let constants = given([numbers(2, &[2, 1, 1, 3])]);
    let inputs = vec![numbers(1, &[2, 2, 2, 3])];
    let sum = of(&inputs[0]).into_iter().enumerate().map(|(at, x)| x + of(&numbers(2, &[6]))[at / 12 * 3 + at % 3]);
    let powers: Vec<f64> = sum.map(f64::exp).collect();
    let check = |axis: i64, behind: usize| {
        let expected: Vec<f64> =
            powers.chunks(behind).flat_map(|line| line.iter().map(|x| x / line.iter().sum::<f64>())).collect();
        let node = ("BiasSoftmax", vec![int("axis", axis), int("is_inner_broadcast", 1)]);
        let call = Call { node, inputs: inputs.clone(), constants: constants.clone() };
        call.answers(DType::F32, &[2, 2, 2, 3], &expected);
    };
    check(3, 3);
    check(2, 6);
}
