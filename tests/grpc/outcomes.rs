//! What became of inference calls, over both protocols: each is counted once, by what its client was told.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use kinglet::proto::inference::ModelInferRequest;
use kinglet::proto::inference::model_infer_request::InferInputTensor;
use kinglet::units::ByteSize;
use tonic::{Code, Request};

use crate::fixture::{Server, add, identity};

const FP32: &str = "/v2/models/identity_fp32/infer";

/// A request to an identity model with one row of JSON.
fn json(elements: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"FP32","data":[{elements}]}}]}}"#)
}

/// What the server counts above zero, by model and code.
async fn counted(server: &Server) -> BTreeMap<(String, String), u64> {
    let page = server.metrics().await;
    let lines = page.lines().filter_map(|line| line.strip_prefix("kinglet_requests_total{"));
    let label = |line: &str, name: &str| {
        line.split_once(&format!("{name}=\"")).unwrap().1.split_once('"').unwrap().0.to_owned()
    };
    lines
        .map(|line| ((label(line, "model"), label(line, "code")), line.rsplit_once(' ').unwrap().1.parse().unwrap()))
        .filter(|(_, count)| *count > 0)
        .collect()
}

pub(crate) async fn check(server: &Server, expected: &[(&str, &str, u64)]) {
    let expected =
        expected.iter().map(|(model, code, count)| ((model.to_string(), code.to_string()), *count)).collect();
    assert_eq!(counted(server).await, expected);
}

#[tokio::test]
async fn calls_over_rest_are_counted_by_their_outcome() {
    let server = Server::with(|config| config.limits.body_bytes_max = ByteSize(10_000)).await;
    let large = " ".repeat(10_001);
    for (path, kind, body, status) in [
        (FP32, "application/json", json("1,2"), 200),
        (FP32, "application/json", "{".to_owned(), 400),
        (FP32, "application/json", json("1"), 400),
        // It runs, but its answer is none in JSON.
        (FP32, "application/json", json("NaN,1"), 400),
        (FP32, "application/json", json("1,2").replace("\"x\"", "\"z\""), 400),
        (FP32, "image/png", json("1,2"), 415),
        (FP32, "application/json", large, 413),
        ("/v2/models/nope/infer", "application/json", json("1,2"), 404),
        ("/v2/models/%FF/infer", "application/json", json("1,2"), 400),
        ("/v2/models/identity%5Ffp32/infer", "application/json", json("1,2"), 200),
    ] {
        let answer = server.post(path, &[("content-type", kind)], &body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains("content-type: application/json"), "{path}: {answer}");
    }
    let expected = [
        ("identity_fp32", "ok", 2),
        ("identity_fp32", "invalid_argument", 2),
        ("_unknown", "invalid_argument", 4),
        ("_unknown", "payload_too_large", 1),
        ("_unknown", "not_found", 1),
    ];
    check(&server, &expected).await;
}

#[tokio::test]
async fn calls_over_grpc_are_counted_by_their_outcome() {
    let server = Server::with(|config| config.limits.body_bytes_max = ByteSize(10_000)).await;
    let mut client = server.client();
    client.model_infer(add(1.0, "")).await.unwrap();
    let unknown = ModelInferRequest { model_name: "nope".into(), ..add(1.0, "") };
    assert_eq!(client.model_infer(unknown).await.unwrap_err().code(), Code::NotFound);
    let mut wrong = add(1.0, "");
    wrong.inputs[0].shape = vec![1, 15];
    assert_eq!(client.model_infer(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    // The codec refuses these two, and the call's metadata the third.
    let mut many = add(1.0, "");
    many.inputs = vec![InferInputTensor::default(); 65];
    assert_eq!(client.model_infer(many).await.unwrap_err().code(), Code::InvalidArgument);
    let large = identity("UINT8", &[10_000, 2], Bytes::from(vec![0; 20_000]));
    assert_eq!(client.model_infer(large).await.unwrap_err().code(), Code::ResourceExhausted);
    let mut hasty = Request::new(add(1.0, ""));
    hasty.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    assert_eq!(client.model_infer(hasty).await.unwrap_err().code(), Code::InvalidArgument);
    let expected = [
        ("add", "ok", 1),
        ("_unknown", "not_found", 1),
        ("_unknown", "invalid_argument", 3),
        ("_unknown", "payload_too_large", 1),
    ];
    check(&server, &expected).await;
}

/// Large enough to be decoded on the pool, and no JSON: who decodes it finds that out.
async fn post_large(server: &Server, model: &str) -> String {
    server.post(&format!("/v2/models/{model}/infer"), &[], &"x".repeat(100_000)).await
}

#[tokio::test]
async fn what_load_refuses_is_not_decoded_first() {
    let server = Server::with(|config| config.admission.requests_max = 0).await;
    let answer = post_large(&server, "identity_fp32").await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 1"), "{answer}");
    check(&server, &[("_unknown", "overloaded", 1)]).await;
    assert!(server.metrics().await.contains("kinglet_admission_refused_total{reason=\"requests\"} 1"));

    let server = Server::with(|config| config.batching.queue_requests_max = 0).await;
    let answer = post_large(&server, "identity_fp32").await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("queue of the model is full"), "{answer}");
    check(&server, &[("identity_fp32", "overloaded", 1)]).await;
    assert!(server.metrics().await.contains("kinglet_refusal_duration_seconds_count 1"));
    assert!(post_large(&server, "nope").await.starts_with("HTTP/1.1 404"));

    let server = Server::start().await;
    assert!(post_large(&server, "identity_fp32").await.starts_with("HTTP/1.1 400"), "with room for it, it is decoded");
    let large = json("1,2").replace("[1,2]", &format!("{}[1,2]", " ".repeat(100_000)));
    let answer = server.post(FP32, &[], &large).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(server.metrics().await.contains("kinglet_in_flight_bytes 0"));
}

#[tokio::test]
async fn each_message_of_a_stream_is_counted() {
    let server = Server::start().await;
    let unknown = ModelInferRequest { model_name: "nope".into(), ..add(1.0, "") };
    let mut many = add(1.0, "");
    many.inputs = vec![InferInputTensor::default(); 65];
    let requests = stream::iter([add(1.0, ""), unknown, add(2.0, ""), many]);
    let answers = server.client().model_stream_infer(requests).await.unwrap().into_inner();
    let answers: Vec<_> = answers.collect().await;
    assert_eq!(answers.last().unwrap().as_ref().unwrap_err().code(), Code::InvalidArgument);
    check(&server, &[("add", "ok", 2), ("_unknown", "not_found", 1), ("_unknown", "invalid_argument", 1)]).await;
}

#[tokio::test]
async fn whatever_the_answer_is_it_names_the_trace() {
    let server = Server::start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = |message| {
        let mut request = Request::new(message);
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        request
    };
    let told = |metadata: &tonic::metadata::MetadataMap| {
        let told = metadata.get("traceparent").expect("the trace is told").to_str().unwrap();
        assert_eq!(told[..36], parent[..36]);
        assert_ne!(told, parent);
    };
    let mut client = server.client();
    told(client.model_infer(traced(add(1.0, ""))).await.unwrap().metadata());
    let unknown = ModelInferRequest { model_name: "nope".into(), ..add(1.0, "") };
    told(client.model_infer(traced(unknown)).await.unwrap_err().metadata());
    let mut many = add(1.0, "");
    many.inputs = vec![InferInputTensor::default(); 65];
    told(client.model_infer(traced(many)).await.unwrap_err().metadata());
    let mut stream = Request::new(stream::iter([add(1.0, "")]));
    stream.metadata_mut().insert("traceparent", parent.parse().unwrap());
    told(client.model_stream_infer(stream).await.unwrap().metadata());
    for body in [json("1,2"), "{".to_owned()] {
        let answer = server.post(FP32, &[("traceparent", parent)], &body).await;
        assert!(answer.contains(&format!("traceparent: {}", &parent[..36])), "{answer}");
    }
}
