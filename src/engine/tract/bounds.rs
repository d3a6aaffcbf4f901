//! How large the tensors are that a graph's constants ask for. tract folds constants while it loads, and a few bytes of
//! a hostile file can ask for terabytes.
//!
//! Extents are followed through the graph as far as they are known: free axes count as one, operators without a rule
//! have a result of unknown shape. What is followed is never larger than what tract would make.

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::extents;
use super::rewrite::constants;
use crate::engine::proto;

/// Numbers and extents. Sizes are compared with a limit far below 2^53, up to which these are exact.
pub(super) type List = Vec<f64>;

/// What is known of the values that a graph's nodes read, its outer graphs' included.
pub(super) struct Scope<'a> {
    outer: Option<&'a Self>,
    values: HashMap<&'a str, Value>,
    /// Elements of constants that operators have made, beyond those they were made of.
    grown: f64,
}

/// A value as far as it is known before anything runs.
#[derive(Clone, Debug, Default)]
struct Value {
    shape: Option<List>,
    /// The elements of a short list of numbers.
    numbers: Option<List>,
    is_constant: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn new(graph: &'a GraphProto, outer: Option<&'a Self>) -> Self {
        let mut values: HashMap<&str, Value> =
            graph.input.iter().map(|input| (input.name.as_str(), declared(input))).collect();
        values.extend(constants(graph).into_iter().map(|(name, tensor)| (name, Value::of_tensor(tensor))));
        Self { outer, values, grown: 0.0 }
    }

    /// Notes what a node makes. An error says how much, where that is more than `elements_max`.
    pub(super) fn follow(&mut self, node: &'a NodeProto, elements_max: u64) -> Result<(), String> {
        let Some(output) = node.output.first() else { return Ok(()) };
        if node.op_type == "Constant" {
            let value = self.values.remove(output.as_str()).unwrap_or_else(|| Value::of_constant(node));
            self.values.insert(output, value);
            return Ok(());
        }
        let inputs = Inputs { scope: self, node };
        let shape = extents::made(&inputs);
        let is_constant = inputs.are_constant();
        let numbers = extents::numbers(&inputs).filter(|numbers| numbers.len() <= NUMBERS_MAX);
        if let Some(elements) = shape.as_deref().map(elements) {
            let limit = precise(elements_max);
            if elements > limit {
                return Err(format!("it would make {elements:.0} elements, the limit is {elements_max}"));
            }
            if is_constant {
                self.grown += (elements - inputs.elements()).max(0.0);
            }
            if self.grown > limit {
                let grown = self.grown;
                return Err(format!(
                    "with it constants would grow to {grown:.0} elements, the limit is {elements_max}"
                ));
            }
        }
        for name in &node.output[1..] {
            self.values.insert(name, Value::default());
        }
        self.values.insert(output, Value { shape, numbers, is_constant });
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Value> {
        self.values.get(name).or_else(|| self.outer?.find(name))
    }
}

/// A node and what is known of its inputs.
pub(super) struct Inputs<'a> {
    scope: &'a Scope<'a>,
    pub(super) node: &'a NodeProto,
}

impl Inputs<'_> {
    pub(super) fn shape(&self, position: usize) -> Option<&[f64]> {
        self.value(position)?.shape.as_deref()
    }

    pub(super) fn numbers(&self, position: usize) -> Option<&[f64]> {
        self.value(position)?.numbers.as_deref()
    }

    /// An integer attribute that is a list.
    pub(super) fn attribute(&self, name: &str) -> Option<List> {
        Some(proto::attribute(self.node, name)?.ints.iter().map(|&int| float(int)).collect())
    }

    fn are_constant(&self) -> bool {
        let named = |&position: &usize| !self.node.input[position].is_empty();
        let constant = |position| self.value(position).is_some_and(|value| value.is_constant);
        (0..self.node.input.len()).filter(named).all(constant)
    }

    fn elements(&self) -> f64 {
        (0..self.node.input.len()).filter_map(|position| self.shape(position)).map(elements).sum()
    }

    fn value(&self, position: usize) -> Option<&Value> {
        self.scope.find(self.node.input.get(position).filter(|name| !name.is_empty())?)
    }
}

impl Value {
    fn of_tensor(tensor: &TensorProto) -> Self {
        let shape = Some(tensor.dims.iter().map(|&dim| float(dim)).collect());
        Self { shape, numbers: short_list(tensor), is_constant: true }
    }

    /// A constant that is given as a number or a list of numbers.
    fn of_constant(node: &NodeProto) -> Self {
        let Some(attribute) = node.attribute.first() else { return Self::default() };
        let (numbers, is_list): (List, bool) = match attribute.name.as_str() {
            "value_int" => (vec![float(attribute.i)], false),
            "value_float" => (vec![attribute.f.into()], false),
            "value_ints" => (attribute.ints.iter().map(|&int| float(int)).collect(), true),
            "value_floats" => (attribute.floats.iter().map(|&number| number.into()).collect(), true),
            _ => return Self::default(),
        };
        let shape = Some(if is_list { vec![length(&numbers)] } else { Vec::new() });
        Self { shape, numbers: Some(numbers).filter(|numbers| numbers.len() <= NUMBERS_MAX), is_constant: true }
    }
}

/// What a graph's input declares; a free axis has one element at least, or nothing is made of it.
fn declared(input: &ValueInfoProto) -> Value {
    let Some(TypeValue::TensorType(tensor)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return Value::default();
    };
    let extent = |value: &Option<DimValue>| match value {
        Some(DimValue::DimValue(extent)) => float(*extent).max(0.0),
        _ => 1.0,
    };
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(|dim| extent(&dim.value)).collect());
    Value { shape, numbers: None, is_constant: false }
}

/// The elements of a tensor that can be extents, scales or bounds.
fn short_list(tensor: &TensorProto) -> Option<List> {
    fn read<const N: usize>(raw: &[u8], number: impl Fn([u8; N]) -> f64) -> List {
        raw.as_chunks().0.iter().map(|bytes| number(*bytes)).collect()
    }
    let raw = &tensor.raw_data;
    if raw.len() > NUMBERS_MAX * size_of::<f64>() {
        return None;
    }
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int64) => Some(read(raw, |bytes| float(i64::from_le_bytes(bytes)))),
        Ok(DataType::Int32) => Some(read(raw, |bytes| i32::from_le_bytes(bytes).into())),
        Ok(DataType::Int16) => Some(read(raw, |bytes| i16::from_le_bytes(bytes).into())),
        Ok(DataType::Uint8) => Some(read(raw, |[byte]| byte.into())),
        Ok(DataType::Int8) => Some(read(raw, |bytes| i8::from_le_bytes(bytes).into())),
        Ok(DataType::Float) => Some(read(raw, |bytes| f32::from_le_bytes(bytes).into())),
        Ok(DataType::Double) => Some(read(raw, f64::from_le_bytes)),
        _ => None,
    }
}

pub(super) fn elements(shape: &[f64]) -> f64 {
    shape.iter().product()
}

pub(super) fn length(list: &[f64]) -> f64 {
    precise(list.len() as u64)
}

#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 every limit is passed")]
fn float(int: i64) -> f64 {
    int as f64
}

#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 every limit is passed")]
fn precise(count: u64) -> f64 {
    count as f64
}

/// Longer lists are no extents: a tensor has few axes.
const NUMBERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;
    use tract_onnx::pb::attribute_proto::AttributeType;

    use super::super::refuse;
    use super::*;
    use crate::engine::proto::{floats, int, ints, longs, node, value};

    fn graph(nodes: Vec<NodeProto>) -> GraphProto {
        let initializer = vec![
            longs("huge", &[2], &[1 << 40, 1 << 40]),
            longs("long", &[1], &[1 << 20]),
            longs("wide", &[2], &[1 << 20, 1 << 20]),
            longs("zero", &[], &[0]),
            longs("one", &[], &[1]),
            longs("billions", &[], &[5_000_000_000]),
            longs("axis", &[1], &[1]),
            longs("pads", &[4], &[0, 1 << 40, 0, 0]),
            longs("indices", &[1024], &[0; 1024]),
            floats("scales", &[2], &[1e6, 1e6]),
            floats("row", &[1, 1024], &[0.; 1024]),
            floats("column", &[1024, 1], &[0.; 1024]),
            floats("kernel", &[1, 1, 1, 1], &[0.]),
        ];
        let input = vec![value("x", DataType::Float, &[1, 1024])];
        GraphProto { node: nodes, initializer, input, ..GraphProto::default() }
    }

    fn refusal(nodes: Vec<NodeProto>, elements_max: u64) -> Option<String> {
        let refused = refuse::check(&graph(nodes), &tract_onnx::onnx(), elements_max).err();
        refused.map(|error| error.to_string())
    }

    fn check(nodes: Vec<NodeProto>, says: Option<&str>) {
        let operators: Vec<String> = nodes.iter().map(|node| node.op_type.clone()).collect();
        let refused = refusal(nodes, LIMIT);
        assert_eq!(refused.is_some(), says.is_some(), "{operators:?}: {refused:?}");
        assert!(
            refused.as_deref().unwrap_or_default().contains(says.unwrap_or_default()),
            "{operators:?}: {refused:?}"
        );
    }

    fn one(op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
        node(op_type, inputs, &["y"], attributes)
    }

    #[test]
    fn operators_that_expand_constants_are_bounded() {
        let range = "operator Range y is not served: it would make 5000000000 elements, the limit is 1073741824";
        check(vec![one("Range", &["zero", "billions", "one"], vec![])], Some(range));
        check(vec![one("Range", &["zero", "billions", "zero"], vec![])], Some("inf elements"));
        check(vec![one("Range", &["one", "zero", "one"], vec![])], None);
        for (op_type, inputs) in [
            ("ConstantOfShape", &["huge"][..]),
            ("Expand", &["kernel", "huge"]),
            ("Tile", &["row", "wide"]),
            ("Tile", &["unknown", "huge"]),
            ("Pad", &["x", "pads"]),
            ("Resize", &["x", "", "scales"]),
            ("Resize", &["x", "", "", "huge"]),
            ("OneHot", &["indices", "billions", "zero"]),
            ("HannWindow", &["billions"]),
        ] {
            let refused = format!("operator {op_type} y is not served: it would make ");
            check(vec![one(op_type, inputs, vec![])], Some(&refused));
        }
        for (op_type, inputs) in [
            ("ConstantOfShape", &["long"][..]),
            ("Expand", &["kernel", "long"]),
            ("Tile", &["row", "axis"]),
            ("Resize", &["x", "", "", "axis"]),
            ("OneHot", &["indices", "axis", "zero"]),
        ] {
            check(vec![one(op_type, inputs, vec![])], None);
        }
        check(vec![one("RandomNormal", &[], vec![ints("shape", &[1 << 40])])], Some("RandomNormal"));
        check(vec![one("Pad", &["x"], vec![ints("pads", &[0, 0, 0, 1 << 40])])], Some("Pad"));
        let stride = one("ConvTranspose", &["u", "kernel"], vec![ints("output_padding", &[1 << 40, 0])]);
        check(vec![stride], Some("ConvTranspose"));
        check(vec![one("ConvTranspose", &["u", "kernel"], vec![ints("strides", &[2, 2])])], None);
        check(vec![one("Conv", &["u", "kernel"], vec![ints("pads", &[1 << 40, 0, 0, 0])])], Some("Conv"));
    }

    #[test]
    fn a_tile_counts_what_it_repeats() {
        let many = node("ConstantOfShape", &["long"], &["many"], vec![]);
        let repeat = |times: i64| node("Constant", &[], &["times"], vec![ints("value_ints", &[times])]);
        let tile = || one("Tile", &["many", "times"], vec![]);
        check(vec![many.clone(), repeat(1 << 9), tile()], None);
        check(vec![many, repeat(1 << 11), tile()], Some("operator Tile y is not served: it would make 2147483648"));
    }

    #[test]
    fn extents_are_followed_to_where_they_are_used() {
        let tensor = |name: &str, tensor: TensorProto| {
            let r#type = AttributeType::Tensor as i32;
            AttributeProto { name: name.into(), r#type, t: Some(tensor), ..AttributeProto::default() }
        };
        let constant = node("Constant", &[], &["e"], vec![tensor("value", longs("", &[1], &[1 << 40]))]);
        let fill = || one("ConstantOfShape", &["e"], vec![]);
        check(vec![constant, fill()], Some("it would make 1099511627776 elements"));
        check(vec![node("Constant", &[], &["e"], vec![int("value_int", 1 << 40)]), fill()], Some("1099511627776"));
        check(vec![node("Mul", &["long", "long"], &["e"], vec![]), fill()], Some("1099511627776"));
        check(vec![node("Concat", &["long", "long"], &["e"], vec![int("axis", 0)]), fill()], Some("1099511627776"));
        check(vec![node("Identity", &["huge"], &["e"], vec![]), fill()], Some("it would make"));
        let sum = |name: &str, inputs: &[&str]| node("Add", inputs, &[name], vec![]);
        check(vec![sum("a", &["row", "column"]), sum("b", &["a", "column"])], None);
        let outer = vec![
            node("ConstantOfShape", &["long"], &["c"], vec![]),
            node("Reshape", &["c", "across"], &["r"], vec![]),
            sum("y", &["r", "c"]),
        ];
        let mut graph = graph(outer);
        graph.initializer.push(longs("across", &[2], &[-1, 1]));
        let refused = refuse::check(&graph, &tract_onnx::onnx(), LIMIT).unwrap_err().to_string();
        assert!(refused.contains("operator Add y is not served: it would make 1099511627776"), "{refused}");
    }

    #[test]
    fn subgraphs_see_the_constants_around_them() {
        let body = GraphProto { node: vec![one("ConstantOfShape", &["huge"], vec![])], ..GraphProto::default() };
        let branch = |body: &GraphProto| {
            let r#type = AttributeType::Graph as i32;
            AttributeProto { name: "then_branch".into(), r#type, g: Some(body.clone()), ..AttributeProto::default() }
        };
        check(vec![node("If", &["c"], &["z"], vec![branch(&body)])], Some("operator ConstantOfShape y"));
        let hidden = GraphProto { input: vec![value("huge", DataType::Int64, &[1])], ..body };
        check(vec![node("If", &["c"], &["z"], vec![branch(&hidden)])], None);
    }

    #[test]
    fn constants_may_not_grow_beyond_the_limit_together() {
        let fill = |name: &str| node("ConstantOfShape", &["long"], &[name], vec![]);
        assert_eq!(refusal(vec![fill("a")], 1 << 20), None);
        let refused = refusal(vec![fill("a"), fill("b")], 1 << 20).unwrap();
        assert!(refused.contains("operator ConstantOfShape b"), "{refused}");
        assert!(
            refused.contains("with it constants would grow to 2097150 elements, the limit is 1048576"),
            "{refused}"
        );
    }

    const LIMIT: u64 = 1 << 30;
}
