//! The gRPC protocols as Rust: messages, the services' traits and servers, and their descriptors; the messages of ONNX
//! files; and those of OTLP, by which traces are sent. All made from `proto/`. Edited by nobody: `tests/bootstrap.rs`
//! writes the files and holds them to their source. Knows nothing of what a message means; that is `convert`'s matter.

// Outside rustfmt's reach, so that the committed text stays what the generator emits.
#[rustfmt::skip]
#[allow(
    clippy::all,
    clippy::nursery,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code keeps its generator's style"
)]
pub mod inference;

#[rustfmt::skip]
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    unreachable_pub,
    reason = "generated code keeps its generator's style"
)]
pub mod onnx;

#[rustfmt::skip]
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    unreachable_pub,
    reason = "generated code keeps its generator's style"
)]
pub mod otlp;

#[rustfmt::skip]
#[allow(
    clippy::all,
    clippy::nursery,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code keeps its generator's style"
)]
pub mod tensorflow;

/// All files of the Open Inference Protocol as an encoded `FileDescriptorSet`, comments left out: what reflection
/// answers with, and what reads and prints model configurations.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("descriptor.bin");

/// Those of TensorFlow Serving's likewise.
pub const SERVING_DESCRIPTOR_SET: &[u8] = include_bytes!("serving_descriptor.bin");

/// The messages of ONNX files likewise: what writes and reads a graph as JSON.
pub mod onnx_descriptors {
    pub const DESCRIPTOR_SET: &[u8] = include_bytes!("onnx_descriptor.bin");
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use prost::Message;
    use prost_reflect::DescriptorPool;

    use super::DESCRIPTOR_SET;
    use super::inference::infer_parameter::ParameterChoice;
    use super::inference::{InferParameter, ModelInferRequest};

    #[test]
    fn raw_tensors_are_slices_of_the_message() {
        let sent = ModelInferRequest {
            model_name: "m".to_owned(),
            raw_input_contents: vec![Bytes::from_static(&[7; 4096]), Bytes::from_static(b"x")],
            ..Default::default()
        };
        let mut wire = BytesMut::from(&sent.encode_to_vec()[..]);
        let place = wire.as_ptr_range();

        let received = ModelInferRequest::decode(&mut wire).unwrap();

        assert_eq!(received, sent);
        for raw in &received.raw_input_contents {
            let raw = raw.as_ptr_range();
            assert!(place.start <= raw.start && raw.end <= place.end, "copied");
        }
    }

    #[test]
    fn a_parameter_travels_under_its_number() {
        let parameter = |choice| InferParameter { parameter_choice: Some(choice) }.encode_to_vec();
        for (choice, wire) in [
            (ParameterChoice::BoolParam(true), vec![0x08, 1]),
            (ParameterChoice::Int64Param(3), vec![0x10, 3]),
            (ParameterChoice::StringParam("a".to_owned()), vec![0x1a, 1, b'a']),
            (ParameterChoice::DoubleParam(1.0), vec![0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
            (ParameterChoice::Uint64Param(5), vec![0x28, 5]),
        ] {
            assert_eq!(parameter(choice), wire);
        }
    }

    #[test]
    fn the_descriptors_name_every_call_and_carry_no_comments() {
        let pool = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
        let service = pool.get_service_by_name("inference.GRPCInferenceService").unwrap();
        assert_eq!(service.methods().len(), 20);
        assert!(pool.get_message_by_name("inference.ModelConfig").is_some());
        for file in pool.files() {
            assert!(file.file_descriptor_proto().source_code_info.is_none());
        }
    }
}
