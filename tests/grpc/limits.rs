//! Bounds and deadlines: each is kept, says so by its code, and leaves the next client served.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kinglet::proto::inference::model_infer_request::InferInputTensor;
use kinglet::units::ByteSize;
use prost::Message;
use tokio::net::TcpStream;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

use crate::fixture::{Server, add, identity, sums};

#[tokio::test]
async fn a_deadline_that_has_passed_is_told() {
    let server = Server::start().await;
    // DEADLINE_EXCEEDED, and INVALID_ARGUMENT for what is no time.
    for (timeout, status) in [("1n", Some("4")), ("soon", Some("3")), ("30S", None)] {
        assert_eq!(status_in_headers(&server, timeout).await.as_deref(), status, "{timeout}");
    }
    let mut request = Request::new(add(1.0, ""));
    request.set_timeout(Duration::from_secs(30));
    assert_eq!(sums(server.client().model_infer(request).await.unwrap().get_ref()), [2.0; 16]);
}

/// Asks without the client library, which would give up by itself and hide what the server says. A status in the
/// headers is a failure's; a success has its own behind the message.
async fn status_in_headers(server: &Server, timeout: &'static str) -> Option<String> {
    let stream = TcpStream::connect(server.running.address("grpc").unwrap()).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let message = add(1.0, "").encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let request = http::Request::post("http://kinglet/inference.GRPCInferenceService/ModelInfer")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", timeout)
        .body(Full::<Bytes>::from([&[0], &length[..], &message].concat()))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
}

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
