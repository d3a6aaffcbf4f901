//! Triton's model configuration: read from `config.pbtxt` or from the JSON of a load request, and written for clients.
//!
//! Both forms are parsed with the protocol's own descriptors, so that every field such a file may have is known:
//! `fields` says what becomes of each, `read` turns the honoured ones into this server's words, `describe` goes back.

mod describe;
mod fields;
mod read;
mod text;

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::declared::Declared;
use super::error::{ConfigError, line_at};
use super::layout::CONFIG;
use crate::infer::ModelName;
use crate::proto::DESCRIPTOR_SET;
use crate::proto::inference::{DataType, ModelConfig};
use crate::tensor::DType;

pub use describe::{model_config, platform, to_json};

/// Reads a `config.pbtxt`.
///
/// # Errors
/// When the text is malformed, has an unknown field, or asks for something that is not served.
pub(super) fn read_text(model: &ModelName, text: &str) -> Result<Declared, ConfigError> {
    let text = text::with_colons(text);
    let message = DynamicMessage::parse_text_format(descriptor().clone(), &text).map_err(|error| {
        let line = Some(offset_of(&error).map_or_else(|| text.lines().count(), |offset| line_at(&text, offset)));
        ConfigError { file: CONFIG.into(), line, field: String::new(), problem: error.to_string() }
    })?;
    declare(model, &message, CONFIG)
}

/// Reads the `config` parameter of a load request.
///
/// # Errors
/// As `read_text`.
pub(super) fn read_json(model: &ModelName, json: &str) -> Result<Declared, ConfigError> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let parsed = DynamicMessage::deserialize(descriptor().clone(), &mut parser)
        .and_then(|message| parser.end().map(|()| message))
        .map_err(|error| ConfigError {
            file: PARAMETER.into(),
            line: Some(error.line()),
            field: String::new(),
            problem: error.to_string(),
        })?;
    declare(model, &parsed, PARAMETER)
}

fn declare(model: &ModelName, message: &DynamicMessage, file: &'static str) -> Result<Declared, ConfigError> {
    let wrong = |(field, problem): (String, String)| ConfigError::field(file, field, problem);
    let warnings = fields::check(message).map_err(wrong)?;
    let config: ModelConfig = message.transcode_to().map_err(|error| wrong((String::new(), error.to_string())))?;
    let mut declared = read::declare(model, config).map_err(wrong)?;
    declared.origin = Some(file);
    declared.warnings.splice(0..0, warnings);
    declared.warnings.iter_mut().for_each(|warning| warning.insert_str(0, &format!("{file}: ")));
    Ok(declared)
}

/// Where in the text a parser's complaint points to. The error shows its place in its debug form only.
fn offset_of(error: &impl std::fmt::Debug) -> Option<usize> {
    let shown = format!("{error:?}");
    let (_, span) = shown.rsplit_once("span: ")?;
    span.split_once("..")?.0.parse().ok()
}

fn descriptor() -> &'static MessageDescriptor {
    static DESCRIPTOR: OnceLock<MessageDescriptor> = OnceLock::new();
    DESCRIPTOR.get_or_init(|| {
        let pool = DescriptorPool::decode(DESCRIPTOR_SET).expect("the protocol's descriptors were checked when made");
        pool.get_message_by_name("inference.ModelConfig").expect("the protocol has a model configuration")
    })
}

/// The datatype of a configuration's enum value; `None` for unknown values and `TYPE_INVALID`.
fn dtype_of(data_type: i32) -> Option<DType> {
    DTYPES.iter().find(|(known, _)| *known as i32 == data_type).map(|(_, dtype)| *dtype)
}

fn data_type_of(dtype: DType) -> i32 {
    DTYPES.iter().find(|(_, known)| *known == dtype).map_or(0, |(data_type, _)| *data_type as i32)
}

const DTYPES: [(DataType, DType); 14] = [
    (DataType::TypeBool, DType::Bool),
    (DataType::TypeUint8, DType::U8),
    (DataType::TypeUint16, DType::U16),
    (DataType::TypeUint32, DType::U32),
    (DataType::TypeUint64, DType::U64),
    (DataType::TypeInt8, DType::I8),
    (DataType::TypeInt16, DType::I16),
    (DataType::TypeInt32, DType::I32),
    (DataType::TypeInt64, DType::I64),
    (DataType::TypeFp16, DType::F16),
    (DataType::TypeBf16, DType::Bf16),
    (DataType::TypeFp32, DType::F32),
    (DataType::TypeFp64, DType::F64),
    (DataType::TypeString, DType::Bytes),
];

/// What errors call the configuration of a load request.
const PARAMETER: &str = "config";

#[cfg(test)]
mod tests;
