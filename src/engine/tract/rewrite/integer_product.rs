//! `QGemm` (com.microsoft) and `QLinearMatMul` as integer matrix product, bias and requantisation: the same integers as
//! the originals. tract lacks the first and answers the second wrongly for signed integers.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::Replacement;
use crate::engine::proto;

/// Inputs: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero.
pub(super) fn matrix_product(node: &NodeProto) -> Option<Replacement> {
    if node.op_type != "QLinearMatMul" || !matches!(node.domain.as_str(), "" | "ai.onnx") || node.input.len() < 8 {
        return None;
    }
    let mut inputs = node.input.clone();
    inputs.insert(6, String::new());
    integer_product(node, &inputs)
}

/// Inputs: a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero; without y_scale the answer is in floats.
pub(super) fn qgemm(node: &NodeProto) -> Option<Replacement> {
    if node.op_type != "QGemm" || node.domain != "com.microsoft" || node.input.len() < 6 {
        return None;
    }
    integer_product(node, &node.input)
}

fn integer_product(node: &NodeProto, inputs: &[String]) -> Option<Replacement> {
    let output = node.output.first()?;
    let input = |position: usize| inputs.get(position).map(String::as_str).filter(|name| !name.is_empty());
    let mut steps = Steps { output, nodes: vec![] };
    let a = steps.transposed("a", input(0)?, proto::int_or(node, "transA", 0));
    let b = steps.transposed("b", input(3)?, proto::int_or(node, "transB", 0));
    let mut sum = steps.add("product", "MatMulInteger", &[&a, &b, input(2)?, input(5)?]);
    if let Some(c) = input(6) {
        sum = steps.add("sum", "Add", &[&sum, c]);
    }
    let float = steps.name("float");
    let to_float = vec![proto::int("to", DataType::Float as i64)];
    steps.nodes.push(proto::node("Cast", &[&sum], &[&float], to_float));
    let mut scale = steps.add("scale", "Mul", &[input(1)?, input(4)?]);
    let mut constants = vec![];
    let alpha = proto::attribute(node, "alpha").map_or(1.0, |alpha| alpha.f);
    if alpha.to_bits() != 1f32.to_bits() {
        constants.push(proto::floats(&steps.name("alpha"), &[], &[alpha]));
        scale = steps.add("scaled", "Mul", &[&scale, &steps.name("alpha")]);
    }
    let Some(y_scale) = input(7) else {
        steps.nodes.push(proto::node("Mul", &[&float, &scale], &[output], vec![]));
        return Some(Replacement { nodes: steps.nodes, constants });
    };
    let real = steps.add("real", "Mul", &[&float, &scale]);
    let quantize: Vec<&str> = [Some(real.as_str()), Some(y_scale), input(8)].into_iter().flatten().collect();
    steps.nodes.push(proto::node("QuantizeLinear", &quantize, &[output], vec![]));
    Some(Replacement { nodes: steps.nodes, constants })
}

/// Nodes whose names begin with the output's.
struct Steps<'a> {
    output: &'a str,
    nodes: Vec<NodeProto>,
}

impl Steps<'_> {
    fn name(&self, step: &str) -> String {
        format!("{}.{step}", self.output)
    }

    fn add(&mut self, step: &str, op_type: &str, inputs: &[&str]) -> String {
        let name = self.name(step);
        self.nodes.push(proto::node(op_type, inputs, &[&name], vec![]));
        name
    }

    fn transposed(&mut self, step: &str, value: &str, transpose: i64) -> String {
        if transpose == 0 {
            return value.to_owned();
        }
        let name = self.name(step);
        self.nodes.push(proto::node("Transpose", &[value], &[&name], vec![proto::ints("perm", &[1, 0])]));
        name
    }
}
