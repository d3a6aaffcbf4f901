//! The codec of inference requests: their parts are counted before they are decoded.
//!
//! An empty input is two bytes on the wire and hundreds in memory, so that a message within its limit could take a
//! hundred times that limit. Counting allocates nothing and looks at no tensor.

use std::marker::PhantomData;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Buf;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::frontend::{LimitsConfig, Refusal};
use crate::proto::inference::ModelInferRequest;

/// Encodes answers of type `T`.
pub(super) struct Bounded<T> {
    limits: Arc<ArcSwap<LimitsConfig>>,
    answers: PhantomData<fn(T)>,
}

pub(super) struct BoundedDecoder {
    limits: Arc<ArcSwap<LimitsConfig>>,
}

impl<T> Bounded<T> {
    pub(super) fn new(limits: &Arc<ArcSwap<LimitsConfig>>) -> Self {
        Self { limits: Arc::clone(limits), answers: PhantomData }
    }
}

impl<T: Message + 'static> Codec for Bounded<T> {
    type Encode = T;
    type Decode = ModelInferRequest;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> BoundedDecoder {
        BoundedDecoder { limits: Arc::clone(&self.limits) }
    }
}

/// Buffers grow to what a message needs; the allocator is quickest up to about a kilobyte.
fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

impl Decoder for BoundedDecoder {
    type Item = ModelInferRequest;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<ModelInferRequest>, Status> {
        // Shares the memory that the message arrived in.
        let message = source.copy_to_bytes(source.remaining());
        check(&message, &self.limits.load())?;
        let malformed = |error| Refusal::invalid(format!("malformed message: {error}"));
        Ok(Some(ModelInferRequest::decode(message).map_err(malformed)?))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

fn check(message: &[u8], limits: &LimitsConfig) -> Result<(), Refusal> {
    let mut parameters = Counter::new("parameters", limits.parameters_max);
    let mut inputs = Counter::new("inputs", limits.tensors_max);
    let mut outputs = Counter::new("requested outputs", limits.tensors_max);
    let mut raw = Counter::new("raw_input_contents", limits.tensors_max);
    for (number, content) in Fields(message) {
        match number {
            4 => parameters.count()?,
            5 => {
                inputs.count()?;
                check_input(content, limits)?;
            }
            6 => {
                outputs.count()?;
                let mut parameters = Counter::new("parameters of an output", limits.parameters_max);
                Fields(content).filter(|(number, _)| *number == 2).try_for_each(|_| parameters.count())?;
            }
            7 => raw.count()?,
            _ => {}
        }
    }
    Ok(())
}

fn check_input(input: &[u8], limits: &LimitsConfig) -> Result<(), Refusal> {
    let mut axes = Counter::new("axes", limits.rank_max);
    let mut parameters = Counter::new("parameters of an input", limits.parameters_max);
    for (number, content) in Fields(input) {
        match number {
            // An axis by itself has no length and so no content; packed ones end in a byte below 128 each.
            3 if content.is_empty() => axes.count()?,
            3 => content.iter().filter(|byte| **byte < 0x80).try_for_each(|_| axes.count())?,
            4 => parameters.count()?,
            _ => {}
        }
    }
    Ok(())
}

struct Counter {
    what: &'static str,
    limit: usize,
    left: usize,
}

impl Counter {
    fn new(what: &'static str, limit: usize) -> Self {
        Self { what, limit, left: limit }
    }

    fn count(&mut self) -> Result<(), Refusal> {
        let Self { what, limit, .. } = self;
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| Refusal::invalid(format!("expected at most {limit} {what}, got more")))?;
        Ok(())
    }
}

/// The numbers of a message's fields, with their content where they have a length. Ends where the message is malformed,
/// which the decoder finds too.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let (number, kind) = decode_key(&mut self.0).ok()?;
        if kind != WireType::LengthDelimited {
            skip_field(kind, number, &mut self.0, DecodeContext::default()).ok()?;
            return Some((number, &[]));
        }
        let length = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
        let (content, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((number, content))
    }
}

const BUFFER_BYTES: usize = 1000;
/// Answers of a stream go out together up to this much.
const YIELD_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::frontend::grpc::convert::tests::{limits, request};
    use crate::proto::inference::InferParameter;
    use crate::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

    fn check_message(change: impl FnOnce(&mut ModelInferRequest), refused: Option<&str>) {
        let mut message = request();
        change(&mut message);
        let got = check(&message.encode_to_vec(), &limits()).map_err(|refusal| refusal.message);
        assert_eq!(got.err().as_deref(), refused);
    }

    #[test]
    fn parts_are_counted() {
        let parameters = |count: usize| (0..count).map(|n| (n.to_string(), InferParameter::default())).collect();
        check_message(|_| {}, None);
        check_message(|m| m.parameters = parameters(2), None);
        check_message(|m| m.parameters = parameters(3), Some("expected at most 2 parameters, got more"));
        check_message(|m| m.inputs = vec![InferInputTensor::default(); 2], None);
        check_message(|m| m.inputs = vec![InferInputTensor::default(); 3], Some("expected at most 2 inputs, got more"));
        let outputs = vec![InferRequestedOutputTensor::default(); 3];
        check_message(|m| m.outputs = outputs, Some("expected at most 2 requested outputs, got more"));
        let output = InferRequestedOutputTensor { name: "y".into(), parameters: parameters(3) };
        check_message(|m| m.outputs = vec![output], Some("expected at most 2 parameters of an output, got more"));
        let raw = vec![Bytes::new(); 3];
        check_message(|m| m.raw_input_contents = raw, Some("expected at most 2 raw_input_contents, got more"));
        check_message(|m| m.inputs[0].shape = vec![1 << 40, -1, 300], None);
        check_message(|m| m.inputs[0].shape = vec![1 << 40, -1, 300, 0], Some("expected at most 3 axes, got more"));
        let parameters = parameters(3);
        check_message(
            |m| m.inputs[0].parameters = parameters,
            Some("expected at most 2 parameters of an input, got more"),
        );
    }

    #[test]
    fn axes_that_are_not_packed_count_too() {
        // Field 5 with four times field 3 as a varint.
        let message = [0x2a, 8, 0x18, 1, 0x18, 1, 0x18, 1, 0x18, 1];
        assert_eq!(ModelInferRequest::decode(&message[..]).unwrap().inputs[0].shape, [1; 4]);
        assert!(check(&message, &limits()).is_err());
    }

    proptest! {
        #[test]
        fn what_passes_decodes_to_no_more_than_allowed(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let limits = limits();
            if let (Ok(()), Ok(decoded)) = (check(&message, &limits), ModelInferRequest::decode(&message[..])) {
                prop_assert!(decoded.inputs.len() <= limits.tensors_max);
                prop_assert!(decoded.raw_input_contents.len() <= limits.tensors_max);
                prop_assert!(decoded.inputs.iter().all(|input| input.shape.len() <= limits.rank_max));
            }
        }
    }
}
