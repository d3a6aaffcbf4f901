//! Reads an ONNX file and everything it refers to into memory, or a native model file, so that no engine ever opens a path.
//!
//! The file is untrusted: its size and that of its external data are capped together, every tensor's bytes are checked
//! against its shape and type, and all tensors leave here with their elements as raw little-endian bytes. Operators
//! are not looked at, but for those that only give names to columns.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use kinglet_sys::mapped::Mapped;
use prost::{DecodeError, Message};

use super::beneath::{Folder, Opened};
use super::file_bytes::FileBytes;
use super::sealed::Within;
use super::{EngineError, LoadOptions, ModelFile, artifact, zip_map};
use crate::proto::onnx::tensor_proto::{DataLocation, DataType};
use crate::proto::onnx::{AttributeProto, GraphProto, ModelProto, TensorProto};

/// Whether a file of this name is a model of either format.
pub fn is_named(file: &str) -> bool {
    artifact::is_named(file) || Path::new(file).extension().is_some_and(|extension| extension == "onnx")
}

/// Reads a model and its external data.
pub(super) fn read(model: &ModelFile, options: &LoadOptions) -> Result<ModelProto, EngineError> {
    let shown = model.folder.join(&model.file);
    let broken = |error: io::Error| EngineError::InvalidModel(format!("cannot open {}: {error}", shown.display()));
    let unread = |error: io::Error| EngineError::InvalidModel(format!("cannot read {}: {error}", shown.display()));
    let folder = Folder::open(&model.folder).map_err(broken)?;
    let within = Within { folder: &model.folder, sealed: options.sealed.as_deref() };
    let contents = match within.find(&model.file).map_err(broken)? {
        Some(sealed) => Contents::Sealed(sealed),
        None => Contents::File(folder.open_configured(&model.file).map_err(broken)?),
    };
    let mut budget = Budget { used: 0, limit: options.model_bytes_max };
    budget.take(contents.size())?;
    if artifact::is_named(&model.file) {
        let whole = contents.whole(options.mapped).map_err(unread)?;
        return artifact::read(&whole, options.cores_max, &mut |bytes| budget.take(bytes));
    }
    let decoded = contents.decode().map_err(unread)?;
    let mut proto = decoded.map_err(|error| EngineError::InvalidModel(format!("not an onnx file: {error}")))?;
    let mut external = External { folder, within, files: HashMap::new(), budget };
    let fetch = &mut |tensor: &TensorProto, expected| external.fetch(tensor, expected).map(Bytes::from);
    each_tensor(&mut proto, &mut |tensor| inline(tensor, fetch))?;
    if let Some(graph) = &mut proto.graph {
        zip_map::strip(graph);
    }
    Ok(proto)
}

/// What stands in a file: on disk, or as it was read before.
#[derive(Debug)]
enum Contents {
    File(Opened),
    Sealed(Bytes),
}

impl Contents {
    fn size(&self) -> u64 {
        match self {
            Self::File(opened) => opened.size,
            Self::Sealed(bytes) => bytes.len() as u64,
        }
    }

    fn whole(self, mapped: bool) -> io::Result<Bytes> {
        match self {
            Self::Sealed(bytes) => Ok(bytes),
            Self::File(opened) if mapped => Ok(Bytes::from_owner(Mapped::of(&opened.file)?)),
            Self::File(mut opened) => {
                let mut bytes = Vec::new();
                opened.file.read_to_end(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// What is wrong with the message, within what is wrong with the file.
    fn decode(self) -> io::Result<Result<ModelProto, DecodeError>> {
        match self {
            // Copied piece by piece: a slice that is kept would keep all of the file.
            Self::Sealed(bytes) => Ok(ModelProto::decode(&bytes[..])),
            Self::File(opened) => {
                let size = usize::try_from(opened.size).map_err(io::Error::other)?;
                let mut bytes = FileBytes::new(opened.file, size);
                let decoded = ModelProto::decode(&mut bytes);
                bytes.end()?;
                Ok(decoded)
            }
        }
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(opened) => opened.file.read_exact_at(bytes, offset),
            Self::Sealed(sealed) => {
                let from = usize::try_from(offset).ok().and_then(|offset| sealed.get(offset..)?.get(..bytes.len()));
                bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// Calls `visit` for every tensor of a model, those in attributes, subgraphs and functions included. The depth is bounded by
/// the decoder, which gives up at a hundred nested messages.
pub(super) fn each_tensor(
    model: &mut ModelProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let graph = model.graph.as_mut().ok_or_else(|| EngineError::InvalidModel("the file has no graph".into()))?;
    each_of(graph, visit)?;
    for function in &mut model.functions {
        let attributes = function.node.iter_mut().flat_map(|node| &mut node.attribute);
        attributes.chain(&mut function.attribute_proto).try_for_each(|attribute| each_in(attribute, visit))?;
    }
    Ok(())
}

/// Calls `visit` for every tensor of a graph.
fn each_of(
    graph: &mut GraphProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    for tensor in &mut graph.initializer {
        visit(tensor)?;
    }
    for sparse in &mut graph.sparse_initializer {
        sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(&mut *visit)?;
    }
    graph.node.iter_mut().flat_map(|node| &mut node.attribute).try_for_each(|attribute| each_in(attribute, visit))
}

fn each_in(
    attribute: &mut AttributeProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *visit)?;
    for sparse in attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors) {
        sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(&mut *visit)?;
    }
    attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|graph| each_of(graph, visit))
}

/// Bytes a model may use, and what it has used.
struct Budget {
    used: u64,
    limit: u64,
}

impl Budget {
    fn take(&mut self, bytes: u64) -> Result<(), EngineError> {
        let needed = self.used.saturating_add(bytes);
        if needed > self.limit {
            return Err(EngineError::TooLarge { needed, limit: self.limit });
        }
        self.used = needed;
        Ok(())
    }
}

struct External<'a> {
    folder: Folder,
    within: Within<'a>,
    /// Open files by the location that the model gave.
    files: HashMap<String, Contents>,
    budget: Budget,
}

/// Brings a tensor's elements into `raw_data`, wherever they were; `fetch` has those that stand outside of the message, of
/// which so many bytes are expected.
pub(super) fn inline(
    tensor: &mut TensorProto,
    fetch: &mut impl FnMut(&TensorProto, u64) -> Result<Bytes, EngineError>,
) -> Result<(), EngineError> {
    let wrong = |name: &str, what: String| EngineError::InvalidModel(format!("tensor {name:?}: {what}"));
    if tensor.data_type == DataType::String as i32 {
        return check_strings(tensor).map_err(|what| wrong(&tensor.name, what));
    }
    let expected = expected_bytes(tensor).map_err(|what| wrong(&tensor.name, what))?;
    if tensor.data_location == DataLocation::External as i32 {
        tensor.raw_data = fetch(tensor, expected)?;
    } else if tensor.raw_data.is_empty() {
        tensor.raw_data = typed_elements(tensor).into();
    }
    if tensor.raw_data.len() as u64 != expected {
        let got = tensor.raw_data.len();
        return Err(wrong(&tensor.name, format!("shape {:?} needs {expected} bytes, got {got}", tensor.dims)));
    }
    tensor.data_location = DataLocation::Default as i32;
    tensor.external_data.clear();
    Ok(())
}

impl External<'_> {
    fn fetch(&mut self, tensor: &TensorProto, expected: u64) -> Result<Vec<u8>, EngineError> {
        let wrong =
            |what: &str| EngineError::InvalidModel(format!("external data of tensor {:?}: {what}", tensor.name));
        let value = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|e| e.value.as_str());
        let number = |key: &str| {
            let parsed = value(key).map(str::parse::<u64>).transpose();
            parsed.map_err(|_| wrong(&format!("{key} is not a number of bytes")))
        };
        let location = value("location").ok_or_else(|| wrong("it has no location"))?;
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(expected);
        if length != expected {
            return Err(wrong(&format!("shape {:?} needs {expected} bytes, length says {length}", tensor.dims)));
        }
        let end = offset.checked_add(length).ok_or_else(|| wrong("offset and length overflow"))?;
        self.budget.take(length)?;
        let opened = self.open(location).map_err(|error| wrong(&format!("cannot open {location:?}: {error}")))?;
        if end > opened.size() {
            return Err(wrong(&format!("it ends at byte {end}, {location:?} has {} bytes", opened.size())));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| wrong("it cannot be addressed"))?];
        let read = opened.read_exact_at(&mut bytes, offset);
        read.map_err(|error| wrong(&format!("cannot read {location:?}: {error}")))?;
        Ok(bytes)
    }

    fn open(&mut self, location: &str) -> io::Result<&Contents> {
        if !self.files.contains_key(location) {
            if self.files.len() >= EXTERNAL_FILES_MAX {
                return Err(io::Error::other(format!("more than {EXTERNAL_FILES_MAX} files")));
            }
            let contents = match self.within.find(location)? {
                Some(sealed) => Contents::Sealed(sealed),
                None => Contents::File(self.folder.open_untrusted(location)?),
            };
            self.files.insert(location.to_owned(), contents);
        }
        Ok(&self.files[location])
    }
}

/// Bytes that a tensor's shape and type ask for.
fn expected_bytes(tensor: &TensorProto) -> Result<u64, String> {
    let count = element_count(tensor)?;
    let bits = element_bits(tensor.data_type)?;
    count.checked_mul(bits).map(|bits| bits.div_ceil(8)).ok_or_else(|| format!("shape {:?} is too large", tensor.dims))
}

fn element_count(tensor: &TensorProto) -> Result<u64, String> {
    let mut count = 1u64;
    for &dim in &tensor.dims {
        let extent = u64::try_from(dim).map_err(|_| format!("extent {dim} is negative"))?;
        count = count.checked_mul(extent).ok_or_else(|| format!("shape {:?} is too large", tensor.dims))?;
    }
    Ok(count)
}

fn element_bits(data_type: i32) -> Result<u64, String> {
    let known = DataType::try_from(data_type).map_err(|_| format!("type {data_type} is not known"))?;
    match known {
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => Ok(4),
        DataType::Bool | DataType::Uint8 | DataType::Int8 => Ok(8),
        DataType::Float8e4m3fn | DataType::Float8e4m3fnuz | DataType::Float8e5m2 | DataType::Float8e5m2fnuz => Ok(8),
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => Ok(16),
        DataType::Float | DataType::Uint32 | DataType::Int32 => Ok(32),
        DataType::Double | DataType::Uint64 | DataType::Int64 | DataType::Complex64 => Ok(64),
        DataType::Complex128 => Ok(128),
        DataType::Undefined | DataType::String => Err(format!("type {} has no size", known.as_str_name())),
    }
}

fn check_strings(tensor: &TensorProto) -> Result<(), String> {
    let count = element_count(tensor)?;
    if tensor.data_location == DataLocation::External as i32 {
        return Err("strings cannot be external".into());
    }
    if tensor.string_data.len() as u64 != count {
        return Err(format!("shape {:?} needs {count} strings, got {}", tensor.dims, tensor.string_data.len()));
    }
    Ok(())
}

/// The elements of the typed fields as raw bytes. Narrow integers and half floats stand in `int32_data`, and both
/// unsigned long types in `uint64_data`.
#[expect(clippy::cast_possible_truncation, reason = "narrow types are stored widened")]
#[expect(clippy::cast_sign_loss, reason = "bit patterns are kept")]
fn typed_elements(tensor: &mut TensorProto) -> Vec<u8> {
    let int32 = std::mem::take(&mut tensor.int32_data);
    let uint64 = std::mem::take(&mut tensor.uint64_data);
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float | DataType::Complex64) => {
            std::mem::take(&mut tensor.float_data).iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        Ok(DataType::Double | DataType::Complex128) => {
            std::mem::take(&mut tensor.double_data).iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        Ok(DataType::Int64) => std::mem::take(&mut tensor.int64_data).iter().flat_map(|v| v.to_le_bytes()).collect(),
        Ok(DataType::Uint64) => uint64.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Ok(DataType::Uint32) => uint64.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect(),
        Ok(DataType::Int32) => int32.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Ok(DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16) => {
            int32.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect()
        }
        _ => int32.iter().map(|&v| v as u8).collect(),
    }
}

/// Files of external data one model may have; real exports have one, or one per large tensor.
const EXTERNAL_FILES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::proto::onnx::StringStringEntryProto;

    fn external(entries: &[(&str, &str)]) -> TensorProto {
        TensorProto {
            name: "w".into(),
            dims: vec![2, 2],
            data_type: DataType::Float as i32,
            data_location: DataLocation::External as i32,
            external_data: entries
                .iter()
                .map(|(key, value)| StringStringEntryProto { key: (*key).into(), value: (*value).into() })
                .collect(),
            ..TensorProto::default()
        }
    }

    fn written(tensors: Vec<TensorProto>) -> (TempDir, ModelFile) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("1");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("weights"), (0u8..40).collect::<Vec<_>>()).unwrap();
        fs::write(root.path().join("secret"), [0; 64]).unwrap();
        let graph = GraphProto { initializer: tensors, ..GraphProto::default() };
        let proto = ModelProto { graph: Some(graph), ..ModelProto::default() };
        fs::write(folder.join("model.onnx"), proto.encode_to_vec()).unwrap();
        (root, ModelFile { folder, file: "model.onnx".into() })
    }

    fn limited(model_bytes_max: u64) -> LoadOptions {
        LoadOptions { model_bytes_max, ..LoadOptions::default() }
    }

    fn refusal(entries: &[(&str, &str)]) -> String {
        let (_root, model) = written(vec![external(entries)]);
        read(&model, &limited(4096)).unwrap_err().to_string()
    }

    #[test]
    fn external_data_becomes_raw_bytes() {
        let both = vec![
            external(&[("location", "weights"), ("offset", "8"), ("length", "16")]),
            external(&[("location", "weights"), ("offset", "24")]),
        ];
        let (_root, model) = written(both);
        let read = read(&model, &limited(4096)).unwrap();
        let tensors = read.graph.unwrap().initializer;
        assert_eq!(tensors[0].raw_data, (8u8..24).collect::<Bytes>());
        assert_eq!(tensors[1].raw_data, (24u8..40).collect::<Bytes>());
        assert!(tensors.iter().all(|t| t.data_location == 0 && t.external_data.is_empty()));
    }

    #[test]
    fn hostile_external_data_is_refused() {
        for (entries, why) in [
            (&[("location", "../secret")][..], "leads out of the model's folder"),
            (&[("location", "/etc/passwd")], "leads out of the model's folder"),
            (&[("location", "missing")], "No such file"),
            (&[("offset", "0")], "it has no location"),
            (&[("location", "weights"), ("offset", "25")], "it ends at byte 41, \"weights\" has 40 bytes"),
            (&[("location", "weights"), ("offset", "18446744073709551615")], "offset and length overflow"),
            (&[("location", "weights"), ("offset", "-1")], "offset is not a number of bytes"),
            (&[("location", "weights"), ("length", "8")], "needs 16 bytes, length says 8"),
            (&[("location", "weights"), ("length", "99999999999")], "needs 16 bytes, length says 99999999999"),
        ] {
            let refusal = refusal(entries);
            assert!(refusal.contains(why), "{refusal}");
        }
    }

    #[test]
    fn all_bytes_count_against_the_limit() {
        let tensor = external(&[("location", "weights")]);
        let (_root, model) = written(vec![tensor; 50]);
        let size = fs::metadata(model.folder.join("model.onnx")).unwrap().len();
        let needed = |limit| match read(&model, &limited(limit)) {
            Err(EngineError::TooLarge { needed, .. }) => needed,
            other => other.map(|_| 0).unwrap(),
        };
        assert_eq!([size - 1, size + 799, size + 800].map(needed), [size, size + 800, 0]);
    }

    #[test]
    fn tensors_are_checked_against_their_shape() {
        let tensor = |dims: &[i64], data_type: i32| TensorProto {
            dims: dims.to_vec(),
            data_type,
            int32_data: vec![1, 2],
            ..TensorProto::default()
        };
        let refusal =
            |tensor| read(&written(vec![tensor]).1, &limited(4096)).err().map(|e| e.to_string()).unwrap_or_default();
        let uint8 = DataType::Uint8 as i32;
        assert!(refusal(tensor(&[3], uint8)).contains("shape [3] needs 3 bytes, got 2"));
        assert!(refusal(tensor(&[-1], uint8)).contains("extent -1 is negative"));
        assert!(refusal(tensor(&[i64::MAX, i64::MAX], uint8)).contains("is too large"));
        assert!(refusal(tensor(&[2], 99)).contains("type 99 is not known"));
        assert!(refusal(tensor(&[2], DataType::String as i32)).contains("needs 2 strings, got 0"));
    }

    #[test]
    fn typed_fields_become_raw_bytes() {
        let wide = TensorProto {
            dims: vec![2],
            data_type: DataType::Uint32 as i32,
            uint64_data: vec![1, 0xffff_ffff],
            ..TensorProto::default()
        };
        let half = TensorProto {
            dims: vec![1],
            data_type: DataType::Float16 as i32,
            int32_data: vec![0x3c00],
            ..TensorProto::default()
        };
        let (_root, model) = written(vec![wide, half]);
        let tensors = read(&model, &limited(4096)).unwrap().graph.unwrap().initializer;
        assert_eq!(tensors[0].raw_data[..], [1, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(tensors[1].raw_data[..], [0, 0x3c]);
    }

    #[test]
    fn broken_files_are_refused() {
        let (_root, model) = written(vec![]);
        let path = model.folder.join("model.onnx");
        for bytes in [&b"\xff\xff\xff"[..], b"", b"not protobuf at all"] {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(read(&model, &limited(4096)), Err(EngineError::InvalidModel(_))), "{bytes:?}");
        }
        let whole = ModelProto {
            graph: Some(GraphProto { name: "x".repeat(100), ..GraphProto::default() }),
            ..ModelProto::default()
        };
        let whole = whole.encode_to_vec();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(read(&model, &limited(4096)), Err(EngineError::InvalidModel(_))));
    }
}
