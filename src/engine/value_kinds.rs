//! Says what a graph's inputs and outputs are when they are no tensors: sequences, maps, optionals.
//!
//! The decoder of the whole model knows tensors only and drops the rest; this is a second, tiny view of the same bytes
//! so that a refusal can name the type.

use std::collections::HashMap;

use prost::Message;

/// Names of values that are no tensors, each with its kind.
pub(super) type ValueKinds = HashMap<String, &'static str>;

/// Reads the kinds from an encoded model that was decoded before; what is unreadable here is left out.
pub(super) fn read(model: &[u8]) -> ValueKinds {
    let graph = Model::decode(model).ok().and_then(|model| model.graph).unwrap_or_default();
    graph.input.into_iter().chain(graph.output).filter_map(|value| Some((value.name, value.kind?.name()?))).collect()
}

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "11")]
    input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Kind>,
}

/// The alternatives of onnx's `TypeProto`; only their presence matters.
#[derive(Clone, PartialEq, Message)]
struct Kind {
    #[prost(message, optional, tag = "4")]
    sequence: Option<Anything>,
    #[prost(message, optional, tag = "5")]
    map: Option<Anything>,
    #[prost(message, optional, tag = "7")]
    opaque: Option<Anything>,
    #[prost(message, optional, tag = "8")]
    sparse_tensor: Option<Anything>,
    #[prost(message, optional, tag = "9")]
    optional: Option<Anything>,
}

#[derive(Clone, PartialEq, Message)]
struct Anything {}

impl Kind {
    fn name(&self) -> Option<&'static str> {
        let kinds = [
            (&self.sequence, "sequence"),
            (&self.map, "map"),
            (&self.opaque, "opaque"),
            (&self.sparse_tensor, "sparse tensor"),
            (&self.optional, "optional"),
        ];
        kinds.into_iter().find_map(|(present, name)| present.as_ref().map(|_| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named() {
        let value = |name: &str, kind: Kind| Value { name: name.into(), kind: Some(kind) };
        let graph = Graph {
            input: vec![value("x", Kind::default())],
            output: vec![value("y", Kind { sequence: Some(Anything {}), ..Kind::default() })],
        };
        let bytes = Model { graph: Some(graph) }.encode_to_vec();
        assert_eq!(read(&bytes), ValueKinds::from([("y".to_owned(), "sequence")]));
        assert!(read(b"\xff\xff").is_empty());
    }
}
