//! What is refused before tract is asked: operators it lacks, operators of another domain than it means, and those it
//! is known to answer wrongly.

use tract_onnx::Onnx;
use tract_onnx::pb::{GraphProto, NodeProto};

use super::bounds::Scope;
use crate::engine::{EngineError, proto};

/// Checks every node of a graph and its subgraphs. `elements_max` bounds what an operator may make of constants.
pub(super) fn check(graph: &GraphProto, onnx: &Onnx, elements_max: u64) -> Result<(), EngineError> {
    check_within(graph, onnx, elements_max, None)
}

fn check_within(
    graph: &GraphProto,
    onnx: &Onnx,
    elements_max: u64,
    outer: Option<&Scope<'_>>,
) -> Result<(), EngineError> {
    let mut scope = Scope::new(graph, outer);
    for node in &graph.node {
        let refused = |reason: String| EngineError::UnsupportedOperator { operator: proto::shown(node), reason };
        known(node, onnx).map_err(refused)?;
        answered_right(node).map_err(refused)?;
        scope.follow(node, elements_max).map_err(refused)?;
        for body in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
            check_within(body, onnx, elements_max, Some(&scope))?;
        }
    }
    Ok(())
}

/// tract looks operators up by name alone, whatever their domain.
fn known(node: &NodeProto, onnx: &Onnx) -> Result<(), String> {
    let op_type = node.op_type.as_str();
    let (classical, contributed) = (CLASSICAL.contains(&op_type), CONTRIBUTED.contains(&op_type));
    let in_domain = match node.domain.as_str() {
        "" | "ai.onnx" => !classical && (!contributed || BOTH.contains(&op_type)),
        "ai.onnx.ml" => classical,
        "com.microsoft" => contributed,
        domain => return Err(format!("domain {domain:?} is not known")),
    };
    match in_domain && onnx.op_register.0.contains_key(op_type) {
        true => Ok(()),
        false => Err("this engine does not have it".into()),
    }
}

/// Known wrong answers: attributes that tract ignores.
fn answered_right(node: &NodeProto) -> Result<(), String> {
    let text = |name: &str| proto::attribute(node, name).map(|a| String::from_utf8_lossy(&a.s).to_lowercase());
    match node.op_type.as_str() {
        "RNN" | "LSTM" | "GRU" => {
            if let Some(direction) = text("direction").filter(|direction| direction != "forward") {
                return Err(format!("direction {direction:?} would be answered wrongly"));
            }
            let usual: &[&str] = match node.op_type.as_str() {
                "RNN" => &["tanh"],
                "GRU" => &["sigmoid", "tanh"],
                _ => &["sigmoid", "tanh", "tanh"],
            };
            let given = proto::attribute(node, "activations")
                .map(|a| a.strings.iter().map(|s| String::from_utf8_lossy(s).to_lowercase()).collect::<Vec<_>>());
            if given.is_some_and(|given| given != usual) {
                return Err(format!("only the activations {usual:?} are served"));
            }
            if proto::attribute(node, "clip").is_some() || proto::int_or(node, "input_forget", 0) != 0 {
                return Err("clip and input_forget are not served".into());
            }
            Ok(())
        }
        "Scan" => {
            let reversed = ["scan_input_directions", "scan_output_directions"]
                .iter()
                .filter_map(|name| proto::attribute(node, name))
                .any(|directions| directions.ints.contains(&1));
            if reversed { Err("reverse directions would be answered wrongly".into()) } else { Ok(()) }
        }
        "AveragePool" => {
            match proto::int_or(node, "ceil_mode", 0) == 1 && proto::int_or(node, "count_include_pad", 0) == 1 {
                true => Err("ceil_mode with count_include_pad would be answered wrongly".into()),
                false => Ok(()),
            }
        }
        "TreeEnsembleClassifier" => {
            // With two classes and weights for one of them, the label would be taken before the other is computed.
            let labels =
                ["classlabels_int64s", "classlabels_strings"].iter().filter_map(|name| proto::attribute(node, name));
            let classes = labels.map(|labels| labels.ints.len() + labels.strings.len()).max().unwrap_or(0);
            let weighted = proto::attribute(node, "class_ids").map(|ids| ids.ints.as_slice()).unwrap_or_default();
            match classes < 3 && weighted.iter().all(|id| *id == 0) {
                true => Err("two classes with weights for one would be labelled wrongly".into()),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Operators of domain ai.onnx.ml.
const CLASSICAL: [&str; 6] = [
    "ArrayFeatureExtractor",
    "CategoryMapper",
    "LinearClassifier",
    "LinearRegressor",
    "Normalizer",
    "TreeEnsembleClassifier",
];

/// Operators of domain com.microsoft.
const CONTRIBUTED: [&str; 13] = [
    "BiasGelu",
    "FastGelu",
    "GatherBlockQuantized",
    "Gelu",
    "GroupQueryAttention",
    "MatMulNBits",
    "MultiHeadAttention",
    "QuickGelu",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Trilu",
];

/// Those that the standard domain has too, or that exporters write there.
const BOTH: [&str; 4] = ["Gelu", "RotaryEmbedding", "SimplifiedLayerNormalization", "Trilu"];

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;
    use tract_onnx::pb::attribute_proto::AttributeType;

    use super::*;
    use crate::engine::proto::{int, ints, longs, node};

    fn refusal(node: NodeProto) -> Option<String> {
        let constants = vec![longs("huge", &[2], &[1 << 40, 1 << 40])];
        let graph = GraphProto { node: vec![node], initializer: constants, ..GraphProto::default() };
        check(&graph, &tract_onnx::onnx(), 1 << 30).err().map(|error| error.to_string())
    }

    fn text(name: &str, value: &str) -> AttributeProto {
        let r#type = AttributeType::String as i32;
        AttributeProto { name: name.into(), r#type, s: value.into(), ..AttributeProto::default() }
    }

    #[test]
    fn operators_are_looked_up_in_their_domain() {
        let check = |domain: &str, op_type: &str, refused: Option<&str>| {
            let mut node = node(op_type, &["x"], &["y"], vec![]);
            node.domain = domain.into();
            assert_eq!(refusal(node).as_deref(), refused, "{domain}:{op_type}");
        };
        check("", "Relu", None);
        check("ai.onnx", "Relu", None);
        check("com.microsoft", "BiasGelu", None);
        check("ai.onnx.ml", "LinearClassifier", None);
        check("", "Loop", Some("operator Loop y is not served: this engine does not have it"));
        check("", "BiasGelu", Some("operator BiasGelu y is not served: this engine does not have it"));
        let other = "operator com.example:Relu y is not served: domain \"com.example\" is not known";
        check("com.example", "Relu", Some(other));
        let contributed = "operator com.microsoft:Relu y is not served: this engine does not have it";
        check("com.microsoft", "Relu", Some(contributed));
    }

    #[test]
    fn known_wrong_answers_are_refused() {
        let check = |op_type: &str, attribute: AttributeProto, why: Option<&str>| {
            let refused = refusal(node(op_type, &["x", "w", "r"], &["y"], vec![attribute]));
            assert_eq!(refused.is_some(), why.is_some(), "{op_type} {refused:?}");
            assert!(refused.unwrap_or_default().contains(why.unwrap_or_default()));
        };
        for op_type in ["RNN", "LSTM", "GRU"] {
            check(op_type, text("direction", "forward"), None);
            check(op_type, text("direction", "reverse"), Some("direction \"reverse\" would be answered wrongly"));
            check(op_type, text("direction", "bidirectional"), Some("would be answered wrongly"));
            let relu =
                AttributeProto { name: "activations".into(), strings: vec![b"Relu".to_vec()], ..Default::default() };
            check(op_type, relu, Some("only the activations"));
            check(op_type, int("clip", 1), Some("clip"));
        }
        check("AveragePool", int("ceil_mode", 1), None);
        let one_class = AttributeProto { name: "classlabels_int64s".into(), ints: vec![0, 1], ..Default::default() };
        let mut forest = node("TreeEnsembleClassifier", &["x"], &["l", "p"], vec![one_class]);
        forest.domain = "ai.onnx.ml".into();
        assert!(refusal(forest).unwrap_or_default().contains("labelled wrongly"));
        let pool = node("AveragePool", &["x"], &["y"], vec![int("ceil_mode", 1), int("count_include_pad", 1)]);
        assert!(refusal(pool).unwrap_or_default().contains("count_include_pad"));
        check("Scan", ints("scan_input_directions", &[0, 1]), Some("reverse directions"));
    }

    #[test]
    fn subgraphs_are_checked() {
        let body = GraphProto { node: vec![node("Loop", &[], &["z"], vec![])], ..GraphProto::default() };
        let branch = AttributeProto { name: "then_branch".into(), g: Some(body), ..AttributeProto::default() };
        assert!(refusal(node("If", &["c"], &["y"], vec![branch])).unwrap().contains("operator Loop z"));
    }
}
