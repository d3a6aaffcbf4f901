//! Bounds and deadlines: each is kept, says so by its code, and leaves the next client served.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kinglet::frontend::Address;
use kinglet::proto::inference::InferTensorContents;
use kinglet::proto::inference::model_infer_request::InferInputTensor;
use kinglet::units::ByteSize;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

use crate::fixture::{Server, add, identity, sums};
use crate::serving;

#[tokio::test]
async fn a_deadline_that_has_passed_is_told() {
    let server = Server::start().await;
    // DEADLINE_EXCEEDED, and INVALID_ARGUMENT for what is no time.
    for (path, message) in [
        ("inference.GRPCInferenceService/ModelInfer", add(1.0, "").encode_to_vec()),
        ("tensorflow.serving.PredictionService/Predict", serving::add().encode_to_vec()),
    ] {
        for (timeout, status) in [("1n", Some("4")), ("soon", Some("3")), ("30S", None)] {
            let got = status_in_headers(&server, path, &message, timeout).await;
            assert_eq!(got.as_deref(), status, "{path} {timeout}");
        }
    }
    let mut request = Request::new(add(1.0, ""));
    request.set_timeout(Duration::from_secs(30));
    assert_eq!(sums(server.client().model_infer(request).await.unwrap().get_ref()), [2.0; 16]);
}

/// Asks without the client library, which would give up by itself and hide what the server says. A status in the
/// headers is a failure's; a success has its own behind the message.
async fn status_in_headers(server: &Server, path: &str, message: &[u8], timeout: &'static str) -> Option<String> {
    let mut sender = connect(server).await;
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let request = http::Request::post(format!("http://kinglet/{path}"))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", timeout)
        .body(Full::<Bytes>::from([&[0], &length[..], message].concat()).boxed())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    header(&response, "grpc-status")
}

pub(crate) async fn connect(server: &Server) -> SendRequest<BoxBody<Bytes, Infallible>> {
    let stream = TcpStream::connect(server.running.address("grpc").and_then(Address::tcp).unwrap()).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn header(response: &http::Response<Incoming>, name: &str) -> Option<String> {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

/// A call that sends this many bytes of a message of 10,000 and then nothing, for as long as the sender lives.
async fn half_sent(server: &Server, call: &str, bytes: usize) -> (Answering, mpsc::Sender<Bytes>) {
    let mut connection = connect(server).await;
    let (sender, pieces) = mpsc::channel(1);
    let pieces = ReceiverStream::new(pieces).map(|piece| Ok(Frame::data(piece)));
    let request = http::Request::post(format!("http://kinglet/inference.GRPCInferenceService/{call}"))
        .header("content-type", "application/grpc")
        .body(BodyExt::boxed(StreamBody::new(pieces)))
        .unwrap();
    let answering = tokio::spawn(async move { connection.send_request(request).await.unwrap() });
    let message = [&[0], &10_000u32.to_be_bytes()[..], &vec![0; bytes]].concat();
    sender.send(message.into()).await.unwrap();
    (answering, sender)
}

/// Time is real here, and none is waited for: what has been sent arrives as soon as the machine has done its work.
async fn until_receiving(server: &Server, bytes: u64) {
    let begun = Instant::now();
    while server.running.receiving_bytes() != bytes {
        let got = server.running.receiving_bytes();
        assert!(begun.elapsed() < PATIENCE, "expected {bytes} bytes being received, got {got}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_being_received_is_bounded_together() {
    for call in ["ModelInfer", "ModelStreamInfer"] {
        let server = Server::with(|config| {
            config.limits.body_bytes_max = ByteSize(10_000);
            config.admission.receiving_bytes_max = ByteSize(15_000);
        })
        .await;
        let (first, first_sender) = half_sent(&server, call, 9_000).await;
        until_receiving(&server, 9_005).await;
        let (second, _second_sender) = half_sent(&server, call, 9_000).await;
        assert_eq!(status(second.await.unwrap()).await, Some(8), "{call}");
        until_receiving(&server, 9_005).await;
        assert!(server.client().model_infer(add(1.0, "")).await.is_ok(), "{call}: what fits is answered");
        until_receiving(&server, 9_005).await;
        first.abort();
        drop(first_sender);
        until_receiving(&server, 0).await;
    }
}

/// The number of the status, wherever it stands.
async fn status(response: http::Response<Incoming>) -> Option<u32> {
    let told = match header(&response, "grpc-status") {
        Some(status) => status,
        None => {
            let trailers = response.into_body().collect().await.unwrap().trailers().cloned()?;
            trailers.get("grpc-status")?.to_str().unwrap().to_owned()
        }
    };
    Some(told.parse().unwrap())
}

#[tokio::test]
async fn a_message_once_begun_must_arrive_in_time() {
    let server = Server::with(|config| config.limits.body_timeout.0 = Duration::from_millis(300)).await;
    for call in ["ModelInfer", "ModelStreamInfer"] {
        let (answering, _sender) = half_sent(&server, call, 5_000).await;
        assert_eq!(status(answering.await.unwrap()).await, Some(4), "{call}");
    }
    until_receiving(&server, 0).await;
}

#[tokio::test]
async fn compressed_messages_are_held_to_a_ratio() {
    let server = Server::start().await;
    let bomb = || identity("UINT8", &[4 << 20, 2], vec![0; 8 << 20].into());
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = server.client().send_compressed(encoding);
        let status = client.model_infer(bomb()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("inflates"), "{status}");
        let mut stream = client.model_stream_infer(tokio_stream::once(bomb())).await.unwrap().into_inner();
        let status = stream.message().await.unwrap_err();
        assert!(status.message().contains("inflates"), "{status}");
        assert!(client.model_infer(add(1.0, "")).await.is_ok());
    }
    // The same without compression is as large as it says, and refused for its rows only.
    let status = server.client().model_infer(bomb()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[tokio::test]
async fn typed_values_are_bounded_as_raw_ones_are() {
    let server = Server::with(|config| config.limits.body_bytes_max = ByteSize(10_000)).await;
    let typed = |rows: i64| {
        let mut request = identity("INT64", &[rows, 2], Bytes::new());
        let int64_contents = vec![1; usize::try_from(rows * 2).unwrap()];
        request.inputs[0].contents = Some(InferTensorContents { int64_contents, ..Default::default() });
        request.raw_input_contents.clear();
        request
    };
    assert!(server.client().model_infer(typed(32)).await.is_ok());
    // 2,000 bytes on the wire.
    let status = server.client().model_infer(typed(1000)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("contents take more"), "{status}");
}

type Answering = JoinHandle<http::Response<Incoming>>;

#[tokio::test]
async fn overload_is_refused_with_a_time_to_wait() {
    let server = Server::with(|config| config.admission.bytes_max = ByteSize(200)).await;
    let mut client = server.client();
    let status = client.model_infer(identity("UINT8", &[200, 2], vec![0; 400].into())).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    assert_eq!(sums(client.model_infer(add(1.0, "")).await.unwrap().get_ref()), [2.0; 16]);
}

#[tokio::test]
async fn messages_are_bounded() {
    let server = Server::with(|config| config.limits.body_bytes_max = ByteSize(10_000)).await;
    let mut client = server.client();
    let large = || identity("UINT8", &[10_000, 2], vec![0; 20_000].into());
    let status = client.model_infer(large()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    // Compressed it is small enough, but not what it inflates to.
    let mut compressing = server.client().send_compressed(CompressionEncoding::Gzip);
    let status = compressing.model_infer(large()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(client.model_infer(add(1.0, "")).await.is_ok());
}

#[tokio::test]
async fn large_messages_pass_where_they_may() {
    let server = Server::with(|config| config.batching.batch_size_max = 1 << 20).await;
    let mut client = server.client().max_decoding_message_size(usize::MAX);
    let raw = Bytes::from(vec![7; 8 << 20]);
    let answer = client.model_infer(identity("UINT8", &[4 << 20, 2], raw.clone())).await;
    // Rows beyond the batch are refused after decoding; what counts here is that 8 MiB were taken.
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let answer = client.model_infer(identity("UINT8", &[1 << 19, 2], raw.slice(..1 << 20))).await.unwrap();
    assert_eq!(answer.into_inner().raw_output_contents, [raw.slice(..1 << 20)]);
}

#[tokio::test]
async fn answers_are_compressed_as_requests_are() {
    let server = Server::start().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut reading = server.client().accept_compressed(encoding);
        let plain = reading.model_infer(add(1.0, "")).await.unwrap();
        assert!(plain.metadata().get("grpc-encoding").is_none(), "who only could read it gets it plain");
        let mut both = server.client().accept_compressed(encoding).send_compressed(encoding);
        let packed = both.model_infer(add(1.0, "")).await.unwrap();
        assert_eq!(sums(packed.get_ref()), [2.0; 16]);
        assert!(packed.metadata().get("grpc-encoding").is_some(), "{encoding}");
    }
}

#[tokio::test]
async fn parts_are_counted_before_they_take_memory() {
    let server = Server::start().await;
    let mut request = add(1.0, "");
    request.inputs = vec![InferInputTensor::default(); 100_000];
    let status = server.client().model_infer(request.clone()).await.unwrap_err();
    // By these words the codec refuses; the conversion, which comes later, would tell the number.
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "expected at most 64 inputs, got more"));
    let mut stream = server.client().model_stream_infer(tokio_stream::once(request)).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap_err().message(), "expected at most 64 inputs, got more");
}

const PATIENCE: Duration = Duration::from_secs(20);
