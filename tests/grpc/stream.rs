//! ModelStreamInfer: many requests on one stream.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use kinglet::proto::inference::infer_parameter::ParameterChoice;
use kinglet::proto::inference::{ModelInferRequest, ModelStreamInferResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};

use crate::fixture::{Server, add, identity, sums};

fn unknown(id: &str) -> ModelInferRequest {
    ModelInferRequest { model_name: "nope".into(), ..add(1.0, id) }
}

async fn open(server: &Server) -> (mpsc::Sender<ModelInferRequest>, Streaming<ModelStreamInferResponse>) {
    let (sender, requests) = mpsc::channel(4);
    let answers = server.client().model_stream_infer(ReceiverStream::new(requests)).await.unwrap();
    (sender, answers.into_inner())
}

#[tokio::test]
async fn many_requests_are_answered_each_by_its_id() {
    let server = Server::with(|config| config.limits.stream_in_flight_max = 3).await;
    let requests: Vec<_> = (0..40u8).map(|number| add(f32::from(number), &number.to_string())).collect();
    let answers = server.client().model_stream_infer(stream::iter(requests)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    let mut seen = BTreeSet::new();
    for answer in &answers {
        let response = answer.infer_response.as_ref().unwrap();
        let number: u8 = response.id.parse().unwrap();
        assert_eq!(sums(response), [f32::from(number) + 1.0; 16]);
        let last = &response.parameters["triton_final_response"];
        assert_eq!(last.parameter_choice, Some(ParameterChoice::BoolParam(true)));
        seen.insert(number);
    }
    assert_eq!((answers.len(), seen.len()), (40, 40));
}

#[tokio::test]
async fn a_failure_is_a_message_and_the_stream_goes_on() {
    let server = Server::start().await;
    let (sender, mut answers) = open(&server).await;
    sender.send(unknown("the bad one")).await.unwrap();
    let failed = answers.next().await.unwrap().unwrap();
    assert!(failed.error_message.starts_with("[request id: the bad one] "), "{}", failed.error_message);
    assert_eq!(failed.infer_response.unwrap().id, "the bad one");
    sender.send(unknown("")).await.unwrap();
    let failed = answers.next().await.unwrap().unwrap();
    assert!(failed.error_message.contains("nope") && !failed.error_message.contains("request id"));
    sender.send(identity("UINT8", &[1, 2], vec![4, 5].into())).await.unwrap();
    let answer = answers.next().await.unwrap().unwrap();
    assert_eq!(answer.error_message, "");
    assert_eq!(answer.infer_response.unwrap().model_name, "identity_uint8");
    drop(sender);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_failure_is_the_streams_status_where_asked() {
    let server = Server::start().await;
    let mut request = Request::new(stream::iter([unknown("x"), add(1.0, "y")]));
    request.metadata_mut().insert("triton_grpc_error", "true".parse().unwrap());
    let mut answers = server.client().model_stream_infer(request).await.unwrap().into_inner();
    let mut last = answers.next().await.unwrap();
    // Which of the two is answered first is not said.
    if last.is_ok() {
        last = answers.next().await.unwrap();
    }
    assert_eq!(last.unwrap_err().code(), Code::NotFound);
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_leaves_disturbs_nobody() {
    let server = Server::start().await;
    for _ in 0..3 {
        let (sender, answers) = open(&server).await;
        for number in 0..4u8 {
            sender.send(add(f32::from(number), "")).await.unwrap();
        }
        drop((sender, answers));
    }
    assert_eq!(sums(server.client().model_infer(add(1.0, "")).await.unwrap().get_ref()), [2.0; 16]);
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_the_end() {
    let server = Server::start().await;
    let (sender, mut answers) = open(&server).await;
    sender.send(add(1.0, "x")).await.unwrap();
    assert!(answers.next().await.unwrap().is_ok());
    let drained = tokio::time::timeout(Duration::from_secs(10), server.running.drain());
    let (drained, last) = tokio::join!(drained, answers.next());
    assert_eq!(last.unwrap().unwrap_err().code(), Code::Unavailable);
    drop(sender);
    assert!(drained.unwrap(), "nothing had to be cut off");
}
