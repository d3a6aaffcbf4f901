//! TensorFlow Serving's services against the same models: predictions, examples, metadata, states, and what they refuse.

use std::collections::HashMap;

use bytes::Bytes;
use kinglet::proto::tensorflow::feature::Kind;
use kinglet::proto::tensorflow::serving::model_spec::VersionChoice;
use kinglet::proto::tensorflow::serving::model_version_status::State;
use kinglet::proto::tensorflow::serving::*;
use kinglet::proto::tensorflow::tensor_shape_proto::Dim;
use kinglet::proto::tensorflow::{
    DataType, Example, Feature, Features, FloatList, TensorProto, TensorShapeProto, error,
};
use prost::Message;
use tonic::client::Grpc;
use tonic::{Code, IntoRequest, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::fixture::{Server, floats};
use crate::outcomes;

/// A call of either service, as a generated client makes it.
async fn call<M, T>(server: &Server, path: &'static str, request: Request<M>) -> Result<Response<T>, Status>
where
    M: Message + 'static,
    T: Message + Default + 'static,
{
    let mut grpc = Grpc::new(server.channel.clone());
    grpc.ready().await.unwrap();
    grpc.unary(request, http::uri::PathAndQuery::from_static(path), ProstCodec::default()).await
}

async fn predict(server: &Server, request: impl IntoRequest<PredictRequest>) -> Result<PredictResponse, Status> {
    call(server, "/tensorflow.serving.PredictionService/Predict", request.into_request())
        .await
        .map(Response::into_inner)
}

fn spec(name: &str) -> Option<ModelSpec> {
    Some(ModelSpec { name: name.into(), version_choice: None, signature_name: String::new() })
}

fn tensor(dims: &[i64]) -> TensorProto {
    let dim = dims.iter().map(|&size| Dim { size, name: String::new() }).collect();
    let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
    TensorProto { dtype: DataType::DtFloat.into(), tensor_shape, ..TensorProto::default() }
}

/// One as bytes, one as a list whose only value stands for sixteen.
pub(crate) fn add() -> PredictRequest {
    let left = TensorProto { tensor_content: floats(&[2.0; 16]), ..tensor(&[1, 16]) };
    let right = TensorProto { float_val: vec![1.0], ..tensor(&[1, 16]) };
    PredictRequest {
        model_spec: spec("add"),
        inputs: [("left".to_owned(), left), ("right".to_owned(), right)].into(),
        output_filter: Vec::new(),
    }
}

/// Of `identity_uint8`.
pub(crate) fn predict_identity(rows: i64, bytes: Vec<u8>) -> PredictRequest {
    let x = TensorProto { dtype: 4, tensor_content: bytes.into(), ..tensor(&[rows, 2]) };
    PredictRequest { model_spec: spec("identity_uint8"), inputs: [("x".to_owned(), x)].into(), ..add() }
}

#[tokio::test]
async fn a_prediction_takes_both_forms_and_answers_in_lists() {
    let server = Server::start().await;
    let answer = predict(&server, add()).await.unwrap();
    assert_eq!(answer.outputs["sum"], TensorProto { float_val: vec![3.0; 16], ..tensor(&[1, 16]) });
    let spec = answer.model_spec.unwrap();
    assert_eq!((&spec.name[..], &spec.signature_name[..]), ("add", "serving_default"));
    assert_eq!(spec.version_choice, Some(VersionChoice::Version(1)));
    let named =
        ModelSpec { version_choice: Some(VersionChoice::Version(1)), signature_name: "serving_default".into(), ..spec };
    let request = PredictRequest { model_spec: Some(named), output_filter: vec!["sum".into()], ..add() };
    assert_eq!(predict(&server, request).await.unwrap().outputs.len(), 1);
    outcomes::check(&server, &[("add", "ok", 2)]).await;
}

#[tokio::test]
async fn strings_and_halves_come_back_as_they_went() {
    let server = Server::start().await;
    for (model, kind, sent) in [
        (
            "identity_bytes",
            DataType::DtString,
            TensorProto { string_val: vec![Bytes::from_static(b"a\0"), Bytes::new()], ..tensor(&[1, 2]) },
        ),
        ("identity_fp16", DataType::DtHalf, TensorProto { half_val: vec![0x3c00, 0xfbff], ..tensor(&[1, 2]) }),
        ("identity_bf16", DataType::DtBfloat16, TensorProto { half_val: vec![0x3f80, 1], ..tensor(&[1, 2]) }),
        ("identity_int8", DataType::DtInt8, TensorProto { int_val: vec![-1, 127], ..tensor(&[1, 2]) }),
        ("identity_uint64", DataType::DtUint64, TensorProto { uint64_val: vec![0, u64::MAX], ..tensor(&[1, 2]) }),
    ] {
        let sent = TensorProto { dtype: kind.into(), ..sent };
        let inputs = [("x".to_owned(), sent.clone())].into();
        let request = PredictRequest { model_spec: spec(model), inputs, output_filter: Vec::new() };
        assert_eq!(predict(&server, request).await.unwrap().outputs["y"], sent, "{model}");
    }
}

#[tokio::test]
async fn refusals_have_the_codes_of_tensorflow_serving() {
    let server = Server::start().await;
    let check = async |change: &dyn Fn(&mut PredictRequest), code: Code, words: &str| {
        let mut request = add();
        change(&mut request);
        let status = predict(&server, request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{status}");
    };
    let choose = |choice| move |r: &mut PredictRequest| r.model_spec.as_mut().unwrap().version_choice = Some(choice);
    check(&|r| r.model_spec = None, Code::InvalidArgument, "expected a model_spec, got none").await;
    check(&|r| r.model_spec = spec("nope"), Code::NotFound, "\"nope\"").await;
    check(&|r| choose(VersionChoice::Version(9))(r), Code::NotFound, "version 9").await;
    check(&|r| choose(VersionChoice::VersionLabel("stable".into()))(r), Code::NotFound, "\"stable\"").await;
    let signature = |r: &mut PredictRequest| r.model_spec.as_mut().unwrap().signature_name = "other".into();
    check(&signature, Code::FailedPrecondition, "expected it or none, got \"other\"").await;
    check(&|r| r.output_filter = vec!["nope".into()], Code::InvalidArgument, "nope").await;
    check(&|r| r.output_filter = vec!["sum".into(), "sum".into()], Code::InvalidArgument, "twice").await;
    check(&|r| drop(r.inputs.remove("left")), Code::InvalidArgument, "left").await;
    check(
        &|r| drop(r.inputs.insert("left".into(), tensor(&[1, 1 << 40]))),
        Code::ResourceExhausted,
        "[1,1099511627776]",
    )
    .await;
    let counted = [
        ("_unknown", "invalid_argument", 3),
        ("_unknown", "not_found", 3),
        ("_unknown", "payload_too_large", 1),
        ("add", "invalid_argument", 2),
    ];
    outcomes::check(&server, &counted).await;
}

#[tokio::test]
async fn budgets_of_the_call_hold() {
    let server = Server::start().await;
    for (value, code) in [("0.000001", Code::FailedPrecondition), ("much", Code::InvalidArgument)] {
        let mut request = Request::new(add());
        request.metadata_mut().insert("kinglet-max-energy-mj", value.parse().unwrap());
        assert_eq!(predict(&server, request).await.unwrap_err().code(), code, "{value}");
    }
}

fn examples(rows: &[&[f32]]) -> Option<Input> {
    let example = |row: &&[f32]| {
        let kind = Some(Kind::FloatList(FloatList { value: row.to_vec() }));
        Example { features: Some(Features { feature: HashMap::from([("x".to_owned(), Feature { kind })]) }) }
    };
    let list = ExampleList { examples: rows.iter().map(example).collect() };
    Some(Input { kind: Some(input::Kind::ExampleList(list)) })
}

#[tokio::test]
async fn examples_are_classified_and_not_taken_for_regressions() {
    let server = Server::start().await;
    let request =
        ClassificationRequest { model_spec: spec("identity_fp32"), input: examples(&[&[0.5, 2.0], &[3.0, 1.0]]) };
    let path = "/tensorflow.serving.PredictionService/Classify";
    let answer: ClassificationResponse = call(&server, path, Request::new(request.clone())).await.unwrap().into_inner();
    let scores = |row: &Classifications| row.classes.iter().map(|class| class.score).collect::<Vec<_>>();
    let rows: Vec<_> = answer.result.unwrap().classifications.iter().map(scores).collect();
    assert_eq!(rows, [[0.5, 2.0], [3.0, 1.0]]);
    let request = RegressionRequest { model_spec: request.model_spec, input: request.input };
    let path = "/tensorflow.serving.PredictionService/Regress";
    let refused = call::<_, RegressionResponse>(&server, path, Request::new(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("one number for each row, got shape [2,2]"), "{refused}");
}

#[tokio::test]
async fn metadata_and_states_are_told() {
    let server = Server::start().await;
    let path = "/tensorflow.serving.PredictionService/GetModelMetadata";
    let ask = |fields: &[&str]| GetModelMetadataRequest {
        model_spec: spec("add"),
        metadata_field: fields.iter().map(ToString::to_string).collect(),
    };
    let answer: GetModelMetadataResponse =
        call(&server, path, Request::new(ask(&["signature_def"]))).await.unwrap().into_inner();
    let packed = &answer.metadata["signature_def"];
    assert_eq!(packed.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap");
    let map = SignatureDefMap::decode(&packed.value[..]).unwrap();
    let signature = &map.signature_def["serving_default"];
    assert_eq!((signature.inputs.len(), signature.outputs["sum"].dtype), (2, DataType::DtFloat.into()));
    for fields in [&[][..], &["weights"]] {
        let refused = call::<_, GetModelMetadataResponse>(&server, path, Request::new(ask(fields))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let path = "/tensorflow.serving.ModelService/GetModelStatus";
    let ask = |name| Request::new(GetModelStatusRequest { model_spec: spec(name) });
    let answer: GetModelStatusResponse = call(&server, path, ask("add")).await.unwrap().into_inner();
    let [only] = &answer.model_version_status[..] else { panic!("expected one version, got {answer:?}") };
    assert_eq!((only.version, only.state()), (1, State::Available));
    assert_eq!(only.status.as_ref().unwrap().error_code(), error::Code::Ok);
    let refused = call::<_, GetModelStatusResponse>(&server, path, ask("nope")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "model \"nope\" has no version"));
}

#[tokio::test]
async fn what_is_not_served_says_what_is() {
    let server = Server::start().await;
    let path = "/tensorflow.serving.PredictionService/MultiInference";
    let request = Request::new(MultiInferenceRequest {});
    let refused = call::<_, MultiInferenceResponse>(&server, path, request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("Classify or Regress"), "{refused}");
    let path = "/tensorflow.serving.ModelService/HandleReloadConfigRequest";
    let refused =
        call::<_, ReloadConfigResponse>(&server, path, Request::new(ReloadConfigRequest {})).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("RepositoryModelLoad"), "{refused}");
    let path = "/tensorflow.serving.PredictionService/Nope";
    let refused =
        call::<_, ReloadConfigResponse>(&server, path, Request::new(ReloadConfigRequest {})).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_message_may_have_so_many_bytes() {
    let server = Server::with(|config| config.limits.body_bytes_max.0 = 4096).await;
    let mut request = add();
    request.inputs.get_mut("left").unwrap().tensor_content = Bytes::from(vec![0; 5000]);
    assert_eq!(predict(&server, request).await.unwrap_err().code(), Code::ResourceExhausted);
    assert!(predict(&server, add()).await.is_ok());
}
