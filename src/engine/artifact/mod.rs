//! Native model files: a graph and its weights in one safetensors file, that is mapped and not decoded. docs/formats.md
//! gives every byte.
//!
//! The graph is that of the ONNX model it was made from, in the metadata; tensors of some size stand beside each other
//! behind it, each on a cache line, with a digest. Any reader of safetensors opens the file, and nothing in it can run.

mod read;
mod sparse;
mod write;

use std::path::Path;
use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};
use twox_hash::XxHash3_128;

use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx_descriptors::DESCRIPTOR_SET;

pub(super) use read::{header_digest, read};
pub use sparse::stored_bytes;
pub use write::Written;
pub(super) use write::write;

/// Whether a file of this name is one.
pub(super) fn is_named(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == EXTENSION)
}

/// What the file's tensors of a type are called. Others stand in the graph.
fn stored_as(data_type: DataType) -> Option<&'static str> {
    STORED.iter().find(|(of, _)| *of == data_type).map(|(_, name)| *name)
}

/// The shape of a tensor in the file: bytes, where two elements share one.
fn shape_in_file(data_type: i32, dims: &[i64], bytes: usize) -> Vec<i64> {
    match DataType::try_from(data_type) {
        Ok(DataType::Int4 | DataType::Uint4) => vec![i64::try_from(bytes).unwrap_or(i64::MAX)],
        _ => dims.to_vec(),
    }
}

/// What tells one tensor's bytes from others, in 32 digits.
pub fn digest(bytes: &[u8]) -> String {
    format!("{:032x}", XxHash3_128::oneshot(bytes))
}

fn descriptor() -> &'static MessageDescriptor {
    static DESCRIPTOR: OnceLock<MessageDescriptor> = OnceLock::new();
    DESCRIPTOR.get_or_init(|| {
        let pool = DescriptorPool::decode(DESCRIPTOR_SET).expect("the committed descriptors are valid");
        pool.get_message_by_name("onnx.ModelProto").expect("the protocol has it")
    })
}

/// What a file begins with: the length of its header.
const LENGTH_BYTES: usize = size_of::<u64>();

const EXTENSION: &str = "safetensors";

/// Metadata: the format's version, the graph, the digests by tensor, who made the file, and of what.
const FORMAT: &str = "kinglet.format";
const GRAPH: &str = "kinglet.graph";
const DIGESTS: &str = "kinglet.digests";
const PRODUCER: &str = "kinglet.producer";
const SOURCE: &str = "kinglet.source";

/// The version that this writes, and the only one that it reads.
const VERSION: &str = "1";

/// The key under which a tensor of the graph names the one that holds its elements.
const TENSOR: &str = "tensor";

/// That under which it names the places of the elements, where the others are zero.
const PLACES: &str = "places";

const STORED: [(DataType, &str); 15] = [
    (DataType::Bool, "BOOL"),
    (DataType::Uint8, "U8"),
    (DataType::Int8, "I8"),
    // The format has no integers of four bits.
    (DataType::Uint4, "U8"),
    (DataType::Int4, "U8"),
    (DataType::Uint16, "U16"),
    (DataType::Int16, "I16"),
    (DataType::Float16, "F16"),
    (DataType::Bfloat16, "BF16"),
    (DataType::Uint32, "U32"),
    (DataType::Int32, "I32"),
    (DataType::Float, "F32"),
    (DataType::Uint64, "U64"),
    (DataType::Int64, "I64"),
    (DataType::Double, "F64"),
];

#[cfg(test)]
mod tests;
