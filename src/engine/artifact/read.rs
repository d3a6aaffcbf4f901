//! From the bytes of a native model file to its graph, whose weights are slices of them.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use prost_reflect::DynamicMessage;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;

use super::{
    DIGESTS, FORMAT, GRAPH, LENGTH_BYTES, PLACES, TENSOR, VERSION, descriptor, digest, shape_in_file, sparse, stored_as,
};
use crate::engine::EngineError;
use crate::engine::beside::beside_each_other;
use crate::engine::model_file::{each_tensor, inline};
use crate::proto::onnx::tensor_proto::DataType;
use crate::proto::onnx::{ModelProto, TensorProto};

/// The model in a file's bytes. Every tensor is compared with its digest, on so many threads.
///
/// `budget` is asked for the memory of elements that the file has not as they are.
pub(in crate::engine) fn read(
    bytes: &Bytes,
    threads: usize,
    budget: &mut dyn FnMut(u64) -> Result<(), EngineError>,
) -> Result<ModelProto, EngineError> {
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|error| invalid(format!("not a safetensors file: {error}")))?;
    let word = |key: &str| metadata.metadata().as_ref()?.get(key).map(String::as_str);
    match word(FORMAT) {
        Some(VERSION) => {}
        Some(other) => return Err(invalid(format!("{FORMAT} is {other:?}, expected {VERSION:?}"))),
        None => return Err(invalid(format!("its metadata has no {FORMAT}: it holds weights and no model"))),
    }
    let needed = |key: &str| word(key).ok_or_else(|| invalid(format!("its metadata has no {key}")));
    let digests: HashMap<String, String> =
        serde_json::from_str(needed(DIGESTS)?).map_err(|error| invalid(format!("{DIGESTS}: {error}")))?;
    let mut model = graph(needed(GRAPH)?).map_err(|error| invalid(format!("{GRAPH}: {error}")))?;
    // The header was found to end within the file.
    let mut stored = Stored { bytes: bytes.slice(LENGTH_BYTES + header..), metadata, digests, taken: Vec::new() };
    each_tensor(&mut model, &mut |tensor| {
        inline(tensor, &mut |tensor, expected| stored.fetch(tensor, expected, budget))
    })?;
    let size = |at: usize| stored.taken[at].bytes.len();
    let compared = beside_each_other(threads, 0..stored.taken.len(), size, |at| stored.compare(&stored.taken[at]));
    compared.into_iter().collect::<Result<(), _>>()?;
    Ok(model)
}

/// The digest of a file's header.
pub(in crate::engine) fn header_digest(file: &File, size: u64) -> Option<String> {
    let mut length = [0; LENGTH_BYTES];
    file.read_exact_at(&mut length, 0).ok()?;
    let length = u64::from_le_bytes(length);
    if length > size.min(HEADER_BYTES_MAX) {
        return None;
    }
    let mut header = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut header, LENGTH_BYTES as u64).ok()?;
    Some(digest(&header))
}

fn graph(text: &str) -> Result<ModelProto, String> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(descriptor().clone(), &mut parser).map_err(|error| error.to_string())?;
    parser.end().map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// What stands behind the header.
struct Stored {
    bytes: Bytes,
    metadata: Metadata,
    digests: HashMap<String, String>,
    taken: Vec<Taken>,
}

/// What a tensor of the graph got.
struct Taken {
    /// Of the tensor, and of what is stored.
    names: [String; 2],
    bytes: Bytes,
}

impl Stored {
    /// The elements of a tensor that names another, or two: those that are not zero, and their places.
    fn fetch(
        &mut self,
        tensor: &TensorProto,
        expected: u64,
        budget: &mut dyn FnMut(u64) -> Result<(), EngineError>,
    ) -> Result<Bytes, EngineError> {
        let wrong = |what: String| invalid(format!("tensor {:?}: {what}", tensor.name));
        let named = |key| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let name = named(TENSOR).ok_or_else(|| wrong(format!("its elements are elsewhere, and it has no {TENSOR}")))?;
        let dtype = DataType::try_from(tensor.data_type).ok().and_then(stored_as);
        let dtype = dtype.ok_or_else(|| wrong("it has no type that can be stored".into()))?;
        let length = usize::try_from(expected).map_err(|_| wrong("it cannot be addressed".into()))?;
        let shape = shape_in_file(tensor.data_type, &tensor.dims, length);
        if let Some(places) = named(PLACES) {
            let count = shape.iter().try_fold(1usize, |all, &extent| all.checked_mul(usize::try_from(extent).ok()?));
            let count = count.filter(|count| *count > 0 && length.is_multiple_of(*count));
            let count = count.ok_or_else(|| wrong(format!("shape {shape:?} has no whole elements")))?;
            let values = self.stored(tensor, name, dtype, None)?;
            let places = self.stored(tensor, places, "U8", None)?;
            budget(expected)?;
            return sparse::together(&places, &values, count, length / count).map(Bytes::from).map_err(wrong);
        }
        let bytes = self.stored(tensor, name, dtype, Some(&shape))?;
        if bytes.len() != length {
            return Err(wrong(format!("{name:?} has {} bytes, expected {expected}", bytes.len())));
        }
        // Small ones are kept when all others are packed and gone: they shall not hold on to the whole file.
        Ok(if bytes.len() <= COPIED_BYTES_MAX { Bytes::copy_from_slice(&bytes) } else { bytes })
    }

    /// What the file has under a name for a tensor, of a type and, where that is known, of a shape.
    fn stored(
        &mut self,
        tensor: &TensorProto,
        name: &str,
        dtype: &str,
        shape: Option<&[i64]>,
    ) -> Result<Bytes, EngineError> {
        let wrong = |what: String| invalid(format!("tensor {:?}: {what}", tensor.name));
        let stored = self.metadata.info(name).ok_or_else(|| wrong(format!("the file has no tensor {name:?}")))?;
        if stored.dtype.to_string() != dtype {
            return Err(wrong(format!("{name:?} has type {}, expected {dtype}", stored.dtype)));
        }
        let extents = stored.shape.iter().map(|&extent| i64::try_from(extent).ok());
        if let Some(shape) = shape.filter(|shape| !extents.eq(shape.iter().copied().map(Some))) {
            return Err(wrong(format!("{name:?} has shape {:?}, expected {shape:?}", stored.shape)));
        }
        let (start, end) = stored.data_offsets;
        let bytes = self.bytes.slice(start..end);
        self.taken.push(Taken { names: [tensor.name.clone(), name.to_owned()], bytes: bytes.clone() });
        Ok(bytes)
    }

    fn compare(&self, Taken { names: [tensor, name], bytes }: &Taken) -> Result<(), EngineError> {
        let wrong = |what: String| Err(invalid(format!("tensor {tensor:?}: {name:?} has {what}")));
        match self.digests.get(name) {
            Some(expected) => match digest(bytes) {
                digest if digest == *expected => Ok(()),
                digest => wrong(format!("the digest {digest}, expected {expected}")),
            },
            None => wrong("no digest".into()),
        }
    }
}

fn invalid(what: String) -> EngineError {
    EngineError::InvalidModel(what)
}

/// As readers of safetensors have it.
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// As many elements of eight bytes as a graph keeps of constants that were packed.
const COPIED_BYTES_MAX: usize = 4096 * size_of::<u64>();
