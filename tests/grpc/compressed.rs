//! Compressed messages: however they are cut they are answered, and however they inflate they are bounded.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kinglet::proto::inference::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse, ServerLiveRequest};
use prost::Message;

use crate::fixture::{Server, add, identity, sums};
use crate::limits::{connect, header};
use crate::serving;

/// A message with its head, compressed by the coding, or as it is where there is none.
fn framed(coding: Option<&str>, message: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    match coding {
        None => packed.extend_from_slice(message),
        Some("gzip") => GzEncoder::new(&mut packed, Compression::best()).write_all(message).unwrap(),
        Some(_) => ZlibEncoder::new(&mut packed, Compression::best()).write_all(message).unwrap(),
    }
    with_head(coding.is_some(), &packed)
}

fn with_head(is_packed: bool, bytes: &[u8]) -> Vec<u8> {
    [&[u8::from(is_packed)], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// What a call of these pieces is told: its status and message where it failed, else the bytes of its answer.
async fn told(server: &Server, path: &str, coding: &str, pieces: Vec<Vec<u8>>) -> Result<Bytes, (String, String)> {
    let mut sender = connect(server).await;
    let pieces = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from(piece))));
    let request = http::Request::post(format!("http://kinglet/{path}"))
        .header("content-type", "application/grpc")
        .header("grpc-encoding", coding)
        .body(BodyExt::boxed(StreamBody::new(tokio_stream::iter(pieces))))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    if let Some(status) = header(&response, "grpc-status") {
        return Err((status, header(&response, "grpc-message").unwrap_or_default()));
    }
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap();
    let text = |name: &str| trailers.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned());
    match text("grpc-status").as_str() {
        "0" => Ok(body.to_bytes()),
        status => Err((status.to_owned(), text("grpc-message"))),
    }
}

fn answer(body: Result<Bytes, (String, String)>) -> ModelInferResponse {
    ModelInferResponse::decode(&body.unwrap()[5..]).unwrap()
}

#[tokio::test]
async fn messages_may_be_cut_anywhere() {
    let server = Server::start().await;
    let message = add(1.0, "").encode_to_vec();
    for (coding, of_message) in [("gzip", Some("gzip")), ("deflate", Some("deflate")), ("gzip", None)] {
        let whole = framed(of_message, &message);
        for size in [1, 3, 7, whole.len() - 1, whole.len()] {
            let pieces = whole.chunks(size).map(<[u8]>::to_vec).collect();
            let body = told(&server, INFER, coding, pieces).await;
            assert_eq!(sums(&answer(body)), [2.0; 16], "{of_message:?} in pieces of {size}");
        }
    }
}

#[tokio::test]
async fn messages_of_a_stream_may_come_together_and_apart() {
    let server = Server::start().await;
    let message = |number: f32| add(number, "").encode_to_vec();
    // Compressed and plain ones by turns, as the protocol allows.
    let codings = [Some("gzip"), None, Some("gzip"), Some("gzip"), None];
    let whole: Vec<u8> = (1u8..).zip(codings).flat_map(|(n, coding)| framed(coding, &message(n.into()))).collect();
    for size in [whole.len(), 64, 2] {
        let pieces = whole.chunks(size).map(<[u8]>::to_vec).collect();
        let mut body = told(&server, STREAM, "gzip", pieces).await.unwrap();
        let mut got = Vec::new();
        while !body.is_empty() {
            let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
            let answer = ModelStreamInferResponse::decode(&body.split_to(5 + length)[5..]).unwrap();
            got.push(sums(&answer.infer_response.unwrap())[0]);
        }
        got.sort_by(f32::total_cmp);
        assert_eq!(got, [2.0, 3.0, 4.0, 5.0, 6.0], "in pieces of {size}");
    }
}

#[tokio::test]
async fn large_messages_are_inflated_to_the_last_byte() {
    let server = Server::with(|config| config.batching.batch_size_max = 1 << 20).await;
    // Beyond what is inflated where it arrives, and beyond one piece of what is handed over.
    for rows in [100, 20_000, 262_144, 900_001] {
        // Half of it noise, so that it keeps to the ratio.
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        };
        let raw: Bytes = (0..rows).flat_map(|_| [0, noise()]).collect();
        let message = identity("UINT8", &[i64::from(rows), 2], raw.clone()).encode_to_vec();
        for coding in ["gzip", "deflate"] {
            let body = told(&server, INFER, coding, vec![framed(Some(coding), &message)]).await;
            assert!(answer(body).raw_output_contents == [raw.clone()], "{rows} rows, {coding}");
        }
    }
    assert_eq!(server.running.receiving_bytes(), 0);
}

#[tokio::test]
async fn bombs_are_refused_wherever_they_come() {
    let server = Server::with(|config| config.limits.control_bytes_max.0 = 2000).await;
    let infer = identity("UINT8", &[4 << 20, 2], vec![0; 8 << 20].into()).encode_to_vec();
    // A name of zeros, which a control call has no room for.
    let control = ModelInferRequest { model_name: "\0".repeat(100_000), ..ModelInferRequest::default() };
    let control = control.encode_to_vec();
    let allowed = "more than the 2000 bytes allowed";
    for (path, message, why) in [
        (INFER, &infer, "20 times what came"),
        (STREAM, &infer, "20 times what came"),
        ("inference.GRPCInferenceService/RepositoryModelLoad", &infer, "20 times what came"),
        ("tensorflow.serving.PredictionService/Predict", &infer, "20 times what came"),
        ("tensorflow.serving.PredictionService/Classify", &infer, "20 times what came"),
        ("inference.model_repository.ModelRepositoryService/RepositoryModelLoad", &infer, "20 times what came"),
        ("inference.GRPCInferenceService/ModelMetadata", &control, allowed),
        ("inference.GRPCInferenceService/RepositoryIndex", &control, allowed),
        ("tensorflow.serving.ModelService/GetModelStatus", &control, allowed),
        ("tensorflow.serving.PredictionService/GetModelMetadata", &control, allowed),
    ] {
        for coding in ["gzip", "deflate"] {
            let refused = told(&server, path, coding, vec![framed(Some(coding), message)]).await;
            let (status, said) = refused.unwrap_err();
            assert_eq!(status, "8", "{path} {coding}: {said}");
            assert!(said.replace("%20", " ").contains(why), "{path} {coding}: {said}");
        }
    }
    assert_eq!(server.running.receiving_bytes(), 0);
    assert!(server.client().model_infer(add(1.0, "")).await.is_ok());
}

#[tokio::test]
async fn a_bomb_of_a_browser_is_refused_too() {
    let server = Server::with(|config| config.grpc.web = true).await;
    let bomb = framed(Some("gzip"), &identity("UINT8", &[4 << 20, 2], vec![0; 8 << 20].into()).encode_to_vec());
    let mut sender = connect(&server).await;
    let request = http::Request::post(format!("http://kinglet/{INFER}"))
        .header("content-type", "application/grpc-web+proto")
        .header("grpc-encoding", "gzip")
        .body(http_body_util::Full::new(Bytes::from(bomb)).boxed())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = header(&response, "grpc-status");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(status.as_deref() == Some("8") || String::from_utf8_lossy(&body).contains("grpc-status:8"), "{body:?}");
}

#[tokio::test]
async fn what_cannot_be_inflated_is_told() {
    let server = Server::start().await;
    let message = add(1.0, "").encode_to_vec();
    let whole = framed(Some("gzip"), &message);
    let cut = whole[..whole.len() - 4].to_vec();
    for (coding, pieces, status) in [
        ("gzip", vec![with_head(true, b"nothing of the kind")], "3"),
        ("deflate", vec![with_head(true, b"nothing of the kind")], "3"),
        ("gzip", vec![with_head(true, b"")], "3"),
        // What the gzip stream says of its own length does not fit.
        ("gzip", vec![with_head(true, &cut[5..])], "3"),
        // Messages that end early.
        ("gzip", vec![cut], "3"),
        ("gzip", vec![vec![1, 0]], "3"),
        // These are the library's to refuse: a flag without a coding, one that means nothing.
        ("identity", vec![whole.clone()], "13"),
        ("br", vec![whole], "12"),
        ("gzip", vec![[&[7, 0, 0, 0, 1], &b"x"[..]].concat()], "13"),
    ] {
        let got = told(&server, INFER, coding, pieces.clone()).await;
        assert_eq!(got.clone().map_err(|(status, _)| status), Err(status.to_owned()), "{coding} {pieces:?}: {got:?}");
    }
    let live = framed(Some("gzip"), &ServerLiveRequest {}.encode_to_vec());
    assert!(told(&server, "inference.GRPCInferenceService/ServerLive", "gzip", vec![live]).await.is_ok());
    let predict = framed(Some("gzip"), &serving::add().encode_to_vec());
    assert!(told(&server, "tensorflow.serving.PredictionService/Predict", "gzip", vec![predict]).await.is_ok());
    assert_eq!(server.running.receiving_bytes(), 0);
}

const INFER: &str = "inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "inference.GRPCInferenceService/ModelStreamInfer";
