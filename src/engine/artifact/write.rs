//! From a model to a native model file.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use kinglet_kernels::LINE;
use prost_reflect::DynamicMessage;
use serde_json::{Map, Value, json};

use super::sparse::Sparse;
use super::{
    DIGESTS, FORMAT, GRAPH, LENGTH_BYTES, PLACES, PRODUCER, SOURCE, TENSOR, VERSION, descriptor, digest, shape_in_file,
    sparse, stored_as,
};
use crate::engine::EngineError;
use crate::engine::model_file::each_tensor;
use crate::engine::replaced::replace;
use crate::proto::onnx::tensor_proto::{DataLocation, DataType};
use crate::proto::onnx::{ModelProto, StringStringEntryProto, TensorProto};

/// What a file came to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Tensors that stand beside the graph, and their bytes.
    pub tensors: usize,
    pub weight_bytes: u64,
    /// Of the whole file.
    pub bytes: u64,
}

/// Writes a model that was read from `source`. The file takes its name when it is whole.
pub(in crate::engine) fn write(mut model: ModelProto, source: &str, path: &Path) -> Result<Written, EngineError> {
    let mut taken = Taken::default();
    each_tensor(&mut model, &mut |tensor| {
        taken.take(tensor);
        Ok(())
    })?;
    let header = taken.header(&model, source)?;
    replace(path, |file| fill(&header, &taken, file))
        .map_err(|error| EngineError::Failed(format!("cannot write {}: {error}", path.display())))
}

/// Tensors in the order they stand in the file, what fills the gaps between them included.
#[derive(Default)]
struct Taken {
    names: HashSet<String>,
    tensors: Vec<Tensor>,
    end: usize,
}

struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<i64>,
    bytes: Bytes,
    is_filler: bool,
}

impl Taken {
    /// Takes the elements of a tensor out of the graph, if they are worth a place of their own.
    fn take(&mut self, tensor: &mut TensorProto) {
        let dtype = DataType::try_from(tensor.data_type).ok().and_then(stored_as);
        let Some(dtype) = dtype.filter(|_| tensor.raw_data.len() >= STORED_BYTES_MIN) else { return };
        let bytes = std::mem::take(&mut tensor.raw_data);
        let name = if tensor.name.is_empty() { UNNAMED } else { &tensor.name };
        let shape = shape_in_file(tensor.data_type, &tensor.dims, bytes.len());
        let entry = |key: &str, value| StringStringEntryProto { key: key.into(), value };
        let count = shape.iter().product::<i64>();
        let size = usize::try_from(count).ok().and_then(|count| bytes.len().checked_div(count)).unwrap_or(0);
        tensor.external_data = match (size > 0).then(|| sparse::apart(&bytes, size)).flatten() {
            Some(Sparse { places, values }) => {
                let shape = vec![(values.len() / size).cast_signed() as i64];
                let values = entry(TENSOR, self.put(name, dtype, shape, values));
                let shape = vec![places.len().cast_signed() as i64];
                vec![values, entry(PLACES, self.put(&format!("{name}.{PLACES}"), "U8", shape, places))]
            }
            None => vec![entry(TENSOR, self.put(name, dtype, shape, bytes))],
        };
        tensor.data_location = DataLocation::External as i32;
    }

    /// Puts a tensor on the next cache line; returns the name that it got.
    fn put(&mut self, name: &str, dtype: &'static str, shape: Vec<i64>, bytes: Bytes) -> String {
        let filler = self.end.next_multiple_of(LINE) - self.end;
        if filler > 0 {
            let name = self.unused(FILLER);
            let bytes = Bytes::from(vec![0; filler]);
            self.push(Tensor { name, dtype: "U8", shape: vec![filler.cast_signed() as i64], bytes, is_filler: true });
        }
        let name = self.unused(name);
        self.push(Tensor { name: name.clone(), dtype, shape, bytes, is_filler: false });
        name
    }

    fn push(&mut self, tensor: Tensor) {
        self.end += tensor.bytes.len();
        self.tensors.push(tensor);
    }

    /// The name, or the first that nothing else has with a number behind it.
    fn unused(&mut self, name: &str) -> String {
        let names = std::iter::once(name.to_owned()).chain((2..).map(|nth: u64| format!("{name}#{nth}")));
        let free = names.into_iter().find(|name| name != METADATA && !self.names.contains(name));
        let name = free.expect("numbers do not end");
        self.names.insert(name.clone());
        name
    }

    /// The header, as long as lets tensors begin on a line.
    fn header(&self, model: &ModelProto, source: &str) -> Result<Vec<u8>, EngineError> {
        let broken = |error: String| EngineError::Failed(format!("the graph has no form in JSON: {error}"));
        let mut message = DynamicMessage::new(descriptor().clone());
        message.transcode_from(model).map_err(|error| broken(error.to_string()))?;
        let graph = serde_json::to_string(&message).map_err(|error| broken(error.to_string()))?;
        let digests: BTreeMap<&str, String> =
            self.weights().map(|tensor| (tensor.name.as_str(), digest(&tensor.bytes))).collect();
        let mut header = Map::new();
        header.insert(
            METADATA.into(),
            json!({
                FORMAT: VERSION,
                PRODUCER: concat!("kinglet ", env!("CARGO_PKG_VERSION")),
                SOURCE: source,
                GRAPH: graph,
                DIGESTS: serde_json::to_string(&digests).map_err(|error| broken(error.to_string()))?,
            }),
        );
        let mut start = 0;
        for tensor in &self.tensors {
            let end = start + tensor.bytes.len();
            let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] });
            header.insert(tensor.name.clone(), entry);
            start = end;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize((LENGTH_BYTES + text.len()).next_multiple_of(LINE) - LENGTH_BYTES, b' ');
        Ok(text)
    }

    fn weights(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter().filter(|tensor| !tensor.is_filler)
    }
}

fn fill(header: &[u8], taken: &Taken, file: &mut File) -> io::Result<Written> {
    let mut to = BufWriter::new(&mut *file);
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(header)?;
    taken.tensors.iter().try_for_each(|tensor| to.write_all(&tensor.bytes))?;
    to.flush()?;
    drop(to);
    file.sync_all()?;
    Ok(Written {
        tensors: taken.weights().count(),
        weight_bytes: taken.weights().map(|tensor| tensor.bytes.len() as u64).sum(),
        bytes: (LENGTH_BYTES + header.len() + taken.end) as u64,
    })
}

/// The key of the header that is no tensor.
const METADATA: &str = "__metadata__";

/// What stands between two tensors, which must not have anything else between them.
const FILLER: &str = "__filler__";

/// Tensors that have no name, as in attributes.
const UNNAMED: &str = "tensor";

/// What is smaller stands in the graph.
const STORED_BYTES_MIN: usize = 256;
