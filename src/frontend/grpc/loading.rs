//! The codec of load requests, which may carry files: their parameters are counted before they are decoded.
//!
//! A parameter without content is two bytes on the wire and over a hundred in memory. Files are slices of the message.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Buf;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use super::bounded::Fields;
use crate::frontend::{LimitsConfig, Refusal};
use crate::proto::inference::{RepositoryModelLoadRequest, RepositoryModelLoadResponse};

/// Also its own decoder.
#[derive(Clone)]
pub(super) struct Loading {
    limits: Arc<ArcSwap<LimitsConfig>>,
}

impl Loading {
    pub(super) fn new(limits: &Arc<ArcSwap<LimitsConfig>>) -> Self {
        Self { limits: Arc::clone(limits) }
    }
}

impl Codec for Loading {
    type Encode = RepositoryModelLoadResponse;
    type Decode = RepositoryModelLoadRequest;
    type Encoder = ProstEncoder<RepositoryModelLoadResponse>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Decoder for Loading {
    type Item = RepositoryModelLoadRequest;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<RepositoryModelLoadRequest>, Status> {
        // Shares the memory that the message arrived in.
        let message = source.copy_to_bytes(source.remaining());
        let limit = self.limits.load().parameters_max;
        if parameters(&message) > limit {
            return Err(Refusal::invalid(format!("expected at most {limit} parameters, got more")).into());
        }
        let malformed = |error| Refusal::invalid(format!("malformed message: {error}"));
        Ok(Some(RepositoryModelLoadRequest::decode(message).map_err(malformed)?))
    }
}

fn parameters(message: &[u8]) -> usize {
    Fields(message).filter(|(number, _)| *number == PARAMETERS).count()
}

/// The number of the field.
const PARAMETERS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::inference::ModelRepositoryParameter;

    #[test]
    fn parameters_are_counted() {
        let entry = |n: usize| (n.to_string(), ModelRepositoryParameter::default());
        for count in [0, 1, 70] {
            let request = RepositoryModelLoadRequest {
                repository_name: "r".into(),
                model_name: "m".into(),
                parameters: (0..count).map(entry).collect(),
            };
            assert_eq!(parameters(&request.encode_to_vec()), count);
        }
        // Entries without content, of which the decoder would keep one.
        assert_eq!(parameters(&[0x1a, 0].repeat(1000)), 1000);
        assert_eq!(parameters(&[0x1a, 0, 0x1a, 200]), 1);
    }
}
