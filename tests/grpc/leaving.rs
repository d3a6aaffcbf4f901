//! Answers that their clients do not take: bounded together, over every wire, and given back.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kinglet::frontend::Address;
use kinglet::units::ByteSize;
use prost::Message;
use tokio::net::TcpStream;
use tonic::Code;

use crate::fixture::{Server, add, identity, sums};
use crate::limits::header;
use crate::serving;

/// Of `identity_uint8`: a mebibyte in, a mebibyte out.
const ROWS: i64 = 1 << 19;
const BYTES: usize = 1 << 20;

async fn server(leaving_bytes_max: usize) -> Server {
    Server::with(|config| {
        config.batching.batch_size_max = 1 << 20;
        config.admission.leaving_bytes_max = ByteSize(leaving_bytes_max as u64);
    })
    .await
}

fn large() -> kinglet::proto::inference::ModelInferRequest {
    identity("UINT8", &[ROWS, 2], vec![7; BYTES].into())
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// A connection whose windows never open: what does not fit into the first stays with the server.
async fn shut(server: &Server, listener: &str) -> SendRequest<BoxBody<Bytes, Infallible>> {
    let stream = TcpStream::connect(server.running.address(listener).and_then(Address::tcp).unwrap()).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1000);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A call whose answer is not read. Its head has come.
async fn untaken(server: &Server, call: &str, body: Vec<u8>) -> http::Response<Incoming> {
    let mut sender = shut(server, "grpc").await;
    let request = http::Request::post(format!("http://kinglet/{call}"))
        .header("content-type", "application/grpc")
        .body(Full::<Bytes>::from(body).boxed())
        .unwrap();
    sender.send_request(request).await.unwrap()
}

/// The same over REST, binary in and out.
async fn untaken_over_rest(server: &Server) -> http::Response<Incoming> {
    let mut sender = shut(server, "http").await;
    let parameters = format!(r#"{{"binary_data_size":{BYTES}}}"#);
    let input = format!(r#"{{"name":"x","shape":[{ROWS},2],"datatype":"UINT8","parameters":{parameters}}}"#);
    let json = format!(r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{input}]}}"#);
    let body = [json.as_bytes(), &vec![7; BYTES]].concat();
    let request = http::Request::post("http://kinglet/v2/models/identity_uint8/infer")
        .header("content-type", "application/octet-stream")
        .header("inference-header-content-length", json.len())
        .body(Full::<Bytes>::from(body).boxed())
        .unwrap();
    sender.send_request(request).await.unwrap()
}

/// Time is real here: what happens takes as long as the machine does.
async fn until(what: &str, server: &Server, holds: impl Fn(usize) -> bool) {
    let begun = Instant::now();
    let leaving = || usize::try_from(server.running.leaving_bytes()).unwrap();
    while !holds(leaving()) {
        let got = leaving();
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {got} bytes leave");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn refused_of(server: &Server) -> f64 {
    let page = server.metrics().await;
    let line = page.lines().find_map(|line| line.strip_prefix("kinglet_admission_refused_total{reason=\"leaving\"} "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn answers_that_nobody_takes_are_bounded_together() {
    let server = server(4 * BYTES).await;
    let predict = serving::predict_identity(ROWS, vec![7; BYTES]);
    // Up to seven eighths of the budget, and one answer more.
    let held = [
        untaken(&server, INFER, framed(&large().encode_to_vec())).await,
        untaken_over_rest(&server).await,
        untaken(&server, "tensorflow.serving.PredictionService/Predict", framed(&predict.encode_to_vec())).await,
        untaken(&server, INFER, framed(&large().encode_to_vec())).await,
    ];
    assert!(held.iter().all(|response| response.status() == 200 && header(response, "grpc-status").is_none()));
    until("all leave", &server, |bytes| (4 * BYTES..4 * BYTES + 10_000).contains(&bytes)).await;
    // Nothing runs for an answer that could not leave.
    let before = executions(&server).await;
    let status = server.client().model_infer(large()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let why = "too much work in flight: bytes of answers that are leaving would pass the limit of 4194304";
    assert_eq!((status.message(), status.metadata().get("retry-after").unwrap().to_str().unwrap()), (why, "1"));
    let response = untaken_over_rest(&server).await;
    assert_eq!((response.status().as_u16(), header(&response, "retry-after").as_deref()), (429, Some("1")));
    assert_eq!(executions(&server).await, before);
    assert!(refused_of(&server).await >= 2.0);
    let told = r#"kinglet_requests_total{code="overloaded",model="identity_uint8",version="1"} 2"#;
    let page = server.metrics().await;
    let lines: Vec<_> =
        page.lines().filter(|line| line.contains("identity_uint8") && line.contains("requests_total")).collect();
    assert!(page.contains(told), "{lines:#?}");
    drop(held);
    until("all is given back", &server, |bytes| bytes == 0).await;
    assert!(server.client().model_infer(large()).await.is_ok());
    until("that too", &server, |bytes| bytes == 0).await;
}

async fn executions(server: &Server) -> f64 {
    let page = server.metrics().await;
    let lines =
        page.lines().filter(|line| line.starts_with("kinglet_batches_total{") && line.contains("identity_uint8"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn small_answers_leave_beside_large_ones_that_are_stuck() {
    let server = server(2 * BYTES).await;
    let first = untaken(&server, INFER, framed(&large().encode_to_vec())).await;
    until("one leaves", &server, |bytes| bytes > BYTES / 2).await;
    // With this one most of the budget is taken, but not the part for small ones.
    let three_quarters = identity("UINT8", &[ROWS * 13 / 16, 2], vec![7; BYTES * 13 / 16].into());
    let second = untaken(&server, INFER, framed(&three_quarters.encode_to_vec())).await;
    until("both leave", &server, |bytes| bytes > BYTES * 7 / 4).await;
    assert!(server.client().model_infer(large()).await.is_err());
    assert_eq!(sums(server.client().model_infer(add(1.0, "")).await.unwrap().get_ref()), [2.0; 16]);
    let small = server.post("/v2/models/identity_uint8/infer", &[("content-type", "application/json")], SMALL).await;
    assert!(small.starts_with("HTTP/1.1 200"), "{small}");
    // A page of the server's own is no inference, and large.
    let page = server.ask("http", "GET /openapi.json", &[], "").await;
    assert!(page.starts_with("HTTP/1.1 429") && page.contains("retry-after: 1"), "{page}");
    assert!(server.metrics().await.contains("kinglet_leaving_bytes"), "who operates the server sees it");
    drop((first, second));
    until("all is given back", &server, |bytes| bytes == 0).await;
    let page = server.ask("http", "GET /openapi.json", &[], "").await;
    assert!(page.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn one_answer_may_be_larger_than_the_budget() {
    let server = server(BYTES).await;
    let two = identity("UINT8", &[2 * ROWS, 2], vec![7; 2 * BYTES].into());
    for _ in 0..3 {
        assert!(server.client().model_infer(two.clone()).await.is_ok());
        until("it is given back", &server, |bytes| bytes == 0).await;
    }
}

#[tokio::test]
async fn answers_of_a_stream_count_until_their_time_is_over() {
    let server = Server::with(|config| {
        config.batching.batch_size_max = 1 << 20;
        config.admission.leaving_bytes_max = ByteSize(BYTES as u64);
        config.limits.write_timeout.0 = Duration::from_secs(2);
    })
    .await;
    let mut sender = shut(&server, "grpc").await;
    let message = Bytes::from(framed(&large().encode_to_vec()));
    // The stream stays open: its end is no part of this.
    let (pieces, body) = tokio::sync::mpsc::channel(8);
    for _ in 0..6 {
        pieces.send(Ok(http_body::Frame::data(message.clone()))).await.unwrap();
    }
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(body));
    let request = http::Request::post(format!("http://kinglet/{STREAM}"))
        .header("content-type", "application/grpc")
        .body(BodyExt::boxed(body))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    until("the budget is spent", &server, |bytes| bytes >= BYTES).await;
    let status = server.client().model_infer(large()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    // The client does not leave: its connection is ended.
    until("all is given back", &server, |bytes| bytes == 0).await;
}

const INFER: &str = "inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "inference.GRPCInferenceService/ModelStreamInfer";
const SMALL: &str = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"UINT8","data":[1,2]}]}"#;
