//! Requests as clients send them, well-formed and not, without a server.

use std::time::Duration;

use super::*;
use crate::error::ErrorCode;
use crate::frontend::shared_memory;
use crate::proto::inference::InferTensorContents;

pub(in crate::frontend::grpc) fn limits() -> LimitsConfig {
    LimitsConfig { tensors_max: 2, rank_max: 3, parameters_max: 2, ..crate::config::Config::default().limits }
}

fn input(name: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: "FP32".into(), shape: shape.into(), ..Default::default() }
}

pub(in crate::frontend::grpc) fn request() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "add".into(),
        inputs: vec![input("x", &[1, 2])],
        raw_input_contents: vec![Bytes::from_static(&[7; 8])],
        ..ModelInferRequest::default()
    }
}

fn converted(request: ModelInferRequest) -> Result<Call, Refusal> {
    call(request, Arrival { at: Instant::now(), deadline: None }, &limits(), &SharedMemory::Off)
}

fn refused(change: impl FnOnce(&mut ModelInferRequest), message: &str) {
    let mut request = request();
    change(&mut request);
    assert_eq!(converted(request).unwrap_err().message, message);
}

fn int64(value: i64) -> InferParameter {
    InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) }
}

#[test]
fn a_request_becomes_a_call() {
    let mut sent = request();
    sent.model_version = "3".into();
    sent.id = "my id".into();
    sent.parameters.insert("timeout".into(), int64(5));
    sent.parameters.insert("colour".into(), InferParameter::default());
    let wanted = HashMap::from([("classification".to_owned(), int64(2)), ("binary_data".to_owned(), int64(9))]);
    sent.outputs.push(InferRequestedOutputTensor { name: "y".into(), parameters: wanted });
    let place = sent.raw_input_contents[0].as_ptr();
    let deadline = Instant::now() + Duration::from_secs(1);
    let arrival = Arrival { at: Instant::now(), deadline: Some(deadline) };
    let call = call(sent, arrival, &limits(), &SharedMemory::Off).unwrap();
    assert_eq!(call.request.model.as_str(), "add");
    assert_eq!(call.request.version.unwrap().0, 3);
    assert_eq!(call.request.id.as_deref(), Some("my id"));
    assert_eq!(call.request.schedule.queue_timeout, Some(Duration::from_micros(5)));
    assert_eq!(call.request.schedule.deadline, Some(deadline));
    assert_eq!(call.request.inputs[0].tensor.bytes().as_ptr(), place, "raw tensors are not copied");
    assert_eq!(call.request.outputs, ["y"]);
    let [OutputWish { name, binary: None, classes: Some(2), slot: None }] = &call.wishes[..] else {
        panic!("{:?}", call.wishes);
    };
    assert_eq!(name, "y");
}

#[test]
fn absent_texts_are_absent() {
    let call = converted(request()).unwrap();
    assert_eq!((call.request.id, call.request.version), (None, None));
    assert!(call.request.outputs.is_empty());
}

#[test]
fn typed_and_raw_tensors_agree() {
    let mut typed = request();
    typed.raw_input_contents.clear();
    let values = vec![1.5, -2.0];
    typed.inputs[0].contents = Some(InferTensorContents { fp32_contents: values, ..Default::default() });
    let mut raw = request();
    raw.raw_input_contents = vec![[1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat().into()];
    assert_eq!(converted(typed).unwrap().request.inputs, converted(raw).unwrap().request.inputs);
}

#[test]
fn zero_extents_and_scalars_pass() {
    let mut sent = request();
    sent.inputs = vec![input("none", &[0, 5]), input("one", &[])];
    sent.raw_input_contents = vec![Bytes::new(), Bytes::from_static(&[0; 4])];
    let call = converted(sent).unwrap();
    assert_eq!(call.request.inputs[0].tensor.element_count(), 0);
    assert_eq!(call.request.inputs[1].tensor.element_count(), 1);
}

#[test]
fn malformed_requests_are_explained() {
    refused(
        |r| r.inputs[0].contents = Some(InferTensorContents::default()),
        "contents field must not be specified when using raw_input_contents for input \"x\"",
    );
    refused(
        |r| r.raw_input_contents.push(Bytes::new()),
        "expected raw_input_contents for all 1 inputs or for none, got 2",
    );
    refused(
        |r| r.raw_input_contents[0] = Bytes::from_static(&[0; 4]),
        "input \"x\": shape [1,2] of FP32 needs 8 bytes, got 4",
    );
    refused(
        |r| r.raw_input_contents.clear(),
        "input \"x\": shape [1,2] of FP32 needs 2 elements in fp32_contents, got 0, and 0 in other fields",
    );
    refused(|r| r.inputs[0].shape = vec![-1, 2], "input \"x\": expected extents of at least 0, got -1");
    refused(|r| r.inputs[0].shape = vec![1; 4], "input \"x\": expected at most 3 axes, got 4");
    refused(
        |r| r.inputs[0].shape = vec![1 << 62, 16],
        "input \"x\": shape [4611686018427387904,16] has more elements than can be addressed",
    );
    refused(|r| r.inputs = vec![input("x", &[0]); 3], "expected at most 2 inputs, got 3");
    refused(
        |r| r.outputs = vec![InferRequestedOutputTensor::default(); 3],
        "expected at most 2 requested outputs, got 3",
    );
    refused(
        |r| r.parameters = (0..3).map(|key| (key.to_string(), int64(0))).collect(),
        "expected at most 2 parameters, got 3",
    );
    refused(|r| r.model_version = "../1".into(), "version \"../1\" is not a number");
    refused(
        |r| r.parameters = HashMap::from([("timeout".into(), int64(-1))]),
        "parameter \"timeout\" expects a whole number of at least 0, got -1",
    );
    let mut unknown = request();
    unknown.inputs[0].datatype = "FP33".into();
    assert!(
        converted(unknown).unwrap_err().message.starts_with("input \"x\": unknown datatype \"FP33\", expected one of")
    );
}

#[test]
fn shared_memory_is_named_before_anything_it_leaves_out() {
    let mut sent = request();
    sent.inputs[0].parameters = in_region("r", 8);
    sent.inputs.push(input("y", &[1]));
    let refusal = converted(sent).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Unsupported);
    let why = "the system_shared_memory extension is not served, shared_memory.enabled turns it on";
    assert_eq!(refusal.message, format!("input \"x\": {why}"));
}

fn in_region(name: &str, byte_size: i64) -> HashMap<String, InferParameter> {
    let region = InferParameter { parameter_choice: Some(ParameterChoice::StringParam(name.into())) };
    HashMap::from([(REGION.to_owned(), region), ("shared_memory_byte_size".to_owned(), int64(byte_size))])
}

#[test]
fn raw_tensors_belong_to_the_inputs_that_are_not_in_shared_memory() {
    let (_folder, memory) = shared_memory::testing::with_region("r", 16);
    let converted = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut sent = request();
        sent.inputs.insert(0, input("first", &[2, 2]));
        sent.inputs[0].parameters = in_region("r", 16);
        change(&mut sent);
        call(sent, Arrival { at: Instant::now(), deadline: None }, &limits(), &memory)
    };
    let call = converted(&|_| {}).unwrap();
    assert_eq!((call.request.inputs.len(), call.request.inputs[0].name.as_str()), (1, "x"));
    assert_eq!((call.placed.len(), call.placed[0].at, call.placed[0].name.as_str()), (1, 0, "first"));
    let refused = |change: &dyn Fn(&mut ModelInferRequest), why: &str| {
        assert_eq!(converted(change).unwrap_err().message, why);
    };
    refused(
        &|sent| sent.raw_input_contents.push(Bytes::new()),
        "expected raw_input_contents for all 1 inputs or for none, got 2",
    );
    refused(
        &|sent| sent.inputs[0].contents = Some(InferTensorContents::default()),
        "input \"first\" has both contents and \"shared_memory_region\"",
    );
    refused(&|sent| sent.inputs[0].shape = vec![1; 4], "input \"first\": expected at most 3 axes, got 4");
}
