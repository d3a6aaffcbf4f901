//! The codec of calls that carry tensors: their parts are counted before they are decoded.
//!
//! An empty input is two bytes on the wire and hundreds in memory, and a typed value of one byte becomes eight, so that a
//! message within its limit could take many times that limit. Counting allocates nothing and looks at no raw tensor.

use std::marker::PhantomData;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tokio::time::Instant;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use super::incoming::Incoming;
use crate::error::ErrorCode;
use crate::frontend::{LimitsConfig, Refusal};
use crate::proto::inference::ModelInferRequest;

/// Encodes answers of type `T`, decodes requests of type `M`.
pub(super) struct Bounded<T, M = ModelInferRequest> {
    limits: Arc<ArcSwap<LimitsConfig>>,
    incoming: Arc<Incoming>,
    messages: PhantomData<fn(M) -> T>,
}

pub(super) struct BoundedDecoder<M> {
    limits: Arc<ArcSwap<LimitsConfig>>,
    incoming: Arc<Incoming>,
    messages: PhantomData<fn() -> M>,
}

/// A message that is counted before it is decoded.
pub(super) trait Counted: Message + Default + 'static {
    /// The bytes that typed values will take, once decoded.
    ///
    /// # Errors
    /// When a part stands there more often than it may, or typed values take more than a message may have.
    fn count(message: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal>;
}

/// A message, and when it was whole: decoding it is time of ours.
#[derive(Debug)]
pub(super) struct Decoded<M = ModelInferRequest> {
    pub(super) message: M,
    pub(super) at: Instant,
}

impl<M> From<M> for Decoded<M> {
    fn from(message: M) -> Self {
        Self { message, at: Instant::now() }
    }
}

impl<T, M> Bounded<T, M> {
    pub(super) fn new(limits: &Arc<ArcSwap<LimitsConfig>>, incoming: Arc<Incoming>) -> Self {
        Self { limits: Arc::clone(limits), incoming, messages: PhantomData }
    }
}

impl<T: Message + 'static, M: Counted> Codec for Bounded<T, M> {
    type Encode = T;
    type Decode = Decoded<M>;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<M>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::new(buffers())
    }

    fn decoder(&mut self) -> BoundedDecoder<M> {
        BoundedDecoder { limits: Arc::clone(&self.limits), incoming: Arc::clone(&self.incoming), messages: PhantomData }
    }
}

/// Buffers grow to what a message needs; the allocator is quickest up to about a kilobyte.
fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

impl<M: Counted> Decoder for BoundedDecoder<M> {
    type Item = Decoded<M>;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Decoded<M>>, Status> {
        // Before anything is done with it.
        let at = Instant::now();
        // Shares the memory that the message arrived in.
        Ok(Some(self.decode_whole(at, source.copy_to_bytes(source.remaining()))?))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

impl<M: Counted> BoundedDecoder<M> {
    fn decode_whole(&self, at: Instant, message: Bytes) -> Result<Decoded<M>, Refusal> {
        let limits = self.limits.load();
        self.incoming.whole();
        let typed = M::count(&message, &limits)?;
        self.incoming.decoding(message.len() as u64 + typed)?;
        let malformed = |error| Refusal::invalid(format!("malformed message: {error}"));
        let message = M::decode(message).map_err(malformed)?;
        Ok(Decoded { message, at })
    }
}

impl Counted for ModelInferRequest {
    fn count(message: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal> {
        check(message, limits)
    }
}

/// The bytes that typed values will take.
fn check(message: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal> {
    let mut typed = 0;
    let mut parameters = Counter::new("parameters", limits.parameters_max);
    let mut inputs = Counter::new("inputs", limits.tensors_max);
    let mut outputs = Counter::new("requested outputs", limits.tensors_max);
    let mut raw = Counter::new("raw_input_contents", limits.tensors_max);
    for (number, content) in Fields(message) {
        match number {
            4 => parameters.count()?,
            5 => {
                inputs.count()?;
                typed += check_input(content, limits)?;
                check_typed(typed, limits)?;
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
    Ok(typed)
}

fn check_input(input: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal> {
    let mut typed = 0;
    let mut axes = Counter::new("axes", limits.rank_max);
    let mut parameters = Counter::new("parameters of an input", limits.parameters_max);
    for (number, content) in Fields(input) {
        match number {
            // An axis by itself has no length and so no content; packed ones end in a byte below 128 each.
            3 if content.is_empty() => axes.count()?,
            3 => content.iter().filter(|byte| **byte < 0x80).try_for_each(|_| axes.count())?,
            4 => parameters.count()?,
            5 => typed += Fields(content).map(|(number, values)| typed_bytes(number, values)).sum::<u64>(),
            _ => {}
        }
    }
    Ok(typed)
}

/// Bytes that one field of typed contents takes in memory.
fn typed_bytes(number: u32, values: &[u8]) -> u64 {
    match number {
        1 => whole_numbers(values, 1),
        2 | 4 => whole_numbers(values, 4),
        3 | 5 => whole_numbers(values, 8),
        6 => floats(values, 4),
        7 => floats(values, 8),
        8 => element(values),
        _ => 0,
    }
}

/// Bytes in memory of numbers of this width that are varints on the wire. They are packed, or one stands alone and then
/// has no length.
pub(super) fn whole_numbers(values: &[u8], width: u64) -> u64 {
    values.iter().filter(|byte| **byte < 0x80).count().max(1) as u64 * width
}

/// As `whole_numbers`, of numbers that have their width on the wire too.
pub(super) fn floats(values: &[u8], width: u64) -> u64 {
    (values.len() as u64).max(width)
}

/// Bytes in memory of one element that has its own length.
pub(super) fn element(bytes: &[u8]) -> u64 {
    (size_of::<Bytes>() + bytes.len()) as u64
}

/// As for raw tensors, whose bytes are the message's: what could not be sent raw cannot be sent in fewer bytes either.
pub(super) fn check_typed(bytes: u64, limits: &LimitsConfig) -> Result<(), Refusal> {
    let max = limits.body_bytes_max;
    if bytes > max.0 {
        let message = format!("the values in contents take more than the {max} allowed");
        return Err(Refusal::new(ErrorCode::PayloadTooLarge, message));
    }
    Ok(())
}

/// So many parts of one kind are allowed.
pub(super) struct Counter {
    what: &'static str,
    limit: usize,
    left: usize,
}

impl Counter {
    pub(super) fn new(what: &'static str, limit: usize) -> Self {
        Self { what, limit, left: limit }
    }

    pub(super) fn count(&mut self) -> Result<(), Refusal> {
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
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

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
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::admission::Admission;
    use crate::config::Config;
    use crate::frontend::grpc::convert::tests::{limits, request};
    use crate::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use crate::proto::inference::{InferParameter, InferTensorContents, ModelInferResponse};
    use crate::units::ByteSize;

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

    /// Bytes of an input's typed values.
    fn in_memory(input: &InferInputTensor) -> u64 {
        let Some(contents) = &input.contents else { return 0 };
        let texts = contents.bytes_contents.iter().map(|text| size_of::<Bytes>() + text.len());
        let numbers = contents.bool_contents.len()
            + 4 * (contents.int_contents.len() + contents.uint_contents.len() + contents.fp32_contents.len())
            + 8 * (contents.int64_contents.len() + contents.uint64_contents.len() + contents.fp64_contents.len());
        (numbers + texts.sum::<usize>()) as u64
    }

    #[test]
    fn typed_values_are_held_to_what_raw_ones_are() {
        let limits = LimitsConfig { body_bytes_max: ByteSize(800), ..limits() };
        let refused = Err("the values in contents take more than the 800B allowed".to_owned());
        let check = |contents: InferTensorContents, expected: Result<u64, String>| {
            let mut message = request();
            message.inputs[0].contents = Some(contents);
            assert_eq!(check(&message.encode_to_vec(), &limits).map_err(|refusal| refusal.message), expected);
        };
        let none = InferTensorContents::default;
        check(InferTensorContents { int64_contents: vec![1; 100], ..none() }, Ok(800));
        check(InferTensorContents { int64_contents: vec![1; 101], ..none() }, refused.clone());
        check(InferTensorContents { int_contents: vec![-1; 201], ..none() }, refused.clone());
        check(InferTensorContents { bool_contents: vec![true; 800], ..none() }, Ok(800));
        check(InferTensorContents { bytes_contents: vec![Bytes::new(); 25], ..none() }, Ok(800));
        check(InferTensorContents { bytes_contents: vec![Bytes::new(); 26], ..none() }, refused.clone());
        let both = InferTensorContents { int64_contents: vec![1; 60], uint64_contents: vec![1; 60], ..none() };
        check(both, refused);
    }

    #[test]
    fn typed_values_that_are_not_packed_count_too() {
        // Field 5 with field 5, in which field 3 stands three times as a varint.
        let message = [0x2a, 8, 0x2a, 6, 0x18, 1, 0x18, 1, 0x18, 1];
        let decoded = ModelInferRequest::decode(&message[..]).unwrap();
        assert_eq!(in_memory(&decoded.inputs[0]), 24);
        assert_eq!(check(&message, &limits()).unwrap(), 24);
    }

    #[test]
    fn axes_that_are_not_packed_count_too() {
        // Field 5 with four times field 3 as a varint.
        let message = [0x2a, 8, 0x18, 1, 0x18, 1, 0x18, 1, 0x18, 1];
        assert_eq!(ModelInferRequest::decode(&message[..]).unwrap().inputs[0].shape, [1; 4]);
        assert!(check(&message, &limits()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn decoding_is_time_of_ours() {
        let limits = Arc::new(ArcSwap::from_pointee(Config::default().limits));
        let admission = Admission::new(Config::default().admission, Arc::default());
        let incoming = Arc::new(Incoming::unary(admission.receive()));
        let decoder = Bounded::<ModelInferResponse>::new(&limits, incoming).decoder();
        let whole_at = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        let decoded = decoder.decode_whole(whole_at, request().encode_to_vec().into()).unwrap();
        assert_eq!(decoded.at.elapsed(), Duration::from_secs(1), "counted from when the message was whole");
    }

    proptest! {
        #[test]
        fn what_passes_decodes_to_no_more_than_allowed(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let limits = limits();
            if let (Ok(typed), Ok(decoded)) = (check(&message, &limits), ModelInferRequest::decode(&message[..])) {
                prop_assert!(decoded.inputs.len() <= limits.tensors_max);
                prop_assert!(decoded.raw_input_contents.len() <= limits.tensors_max);
                prop_assert!(decoded.inputs.iter().all(|input| input.shape.len() <= limits.rank_max));
                prop_assert!(decoded.inputs.iter().map(in_memory).sum::<u64>() <= typed);
            }
        }

        #[test]
        fn typed_values_are_foreseen(
            numbers in prop::collection::vec(any::<i64>(), 0..20),
            small in prop::collection::vec(any::<i32>(), 0..20),
            bools in prop::collection::vec(any::<bool>(), 0..20),
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20),
        ) {
            let contents = InferTensorContents {
                bool_contents: bools,
                fp32_contents: small.iter().map(|_| 0.0).collect(),
                fp64_contents: numbers.iter().map(|_| 0.0).collect(),
                uint_contents: small.iter().map(|number| number.cast_unsigned()).collect(),
                int_contents: small,
                uint64_contents: numbers.iter().map(|number| number.cast_unsigned()).collect(),
                int64_contents: numbers,
                bytes_contents: texts.into_iter().map(Bytes::from).collect(),
            };
            let mut message = request();
            message.inputs[0].contents = Some(contents);
            let wide = LimitsConfig { body_bytes_max: ByteSize(1 << 20), ..limits() };
            prop_assert_eq!(check(&message.encode_to_vec(), &wide).unwrap(), in_memory(&message.inputs[0]));
        }
    }
}
