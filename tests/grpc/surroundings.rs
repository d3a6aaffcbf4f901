//! What clients use beside the inference service: health, reflection, logging, a port shared with REST.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use kinglet::proto::inference::log_settings_request::SettingValue;
use kinglet::proto::inference::log_settings_request::setting_value::ParameterChoice;
use kinglet::proto::inference::{LogSettingsRequest, log_settings_response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::fixture::{Server, add, sums};

fn service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.into() }
}

#[tokio::test]
async fn health_is_told_for_the_server_and_its_models() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel.clone());
    for name in ["", "inference.GRPCInferenceService", "kinglet/startup", "kinglet/live", "add"] {
        let status = health.check(service(name)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{name}");
    }
    assert_eq!(health.check(service("nope")).await.unwrap_err().code(), Code::NotFound);
    let mut unknown = health.watch(service("nope")).await.unwrap().into_inner();
    assert_eq!(unknown.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
}

#[tokio::test]
async fn a_watch_sees_the_end_and_does_not_hold_it_up() {
    let server = Server::with(|config| config.drain.delay.0 = Duration::from_millis(500)).await;
    let mut health = HealthClient::new(server.channel.clone());
    let mut watch = health.watch(service("")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut client = server.client();
    let drained = tokio::spawn(server.running.drain());
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let during = client.model_infer(add(1.0, "")).await.expect("requests are answered until the listeners close");
    assert_eq!(sums(during.get_ref()), [2.0; 16]);
    for (name, status) in [("kinglet/startup", ServingStatus::Serving), ("kinglet/live", ServingStatus::Serving)] {
        let told = health.check(service(name)).await.unwrap().into_inner().status();
        assert_eq!(told, status, "{name} while draining");
    }
    assert!(watch.next().await.is_none());
    assert!(tokio::time::timeout(Duration::from_secs(10), drained).await.unwrap().unwrap());
}

#[tokio::test]
async fn reflection_knows_all_services() {
    let server = Server::start().await;
    let asked = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let requests = stream::iter([
        asked(MessageRequest::ListServices(String::new())),
        asked(MessageRequest::FileContainingSymbol("inference.GRPCInferenceService".into())),
        asked(MessageRequest::FileContainingSymbol("inference.ModelConfig".into())),
        asked(MessageRequest::FileContainingSymbol("grpc.health.v1.Health".into())),
    ]);
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let answers: Vec<_> = client.server_reflection_info(requests).await.unwrap().into_inner().collect().await;
    let mut answers = answers.into_iter().map(|answer| answer.unwrap().message_response.unwrap());
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next() else { panic!("expected a list") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(answers.filter(|answer| matches!(answer, MessageResponse::FileDescriptorResponse(_))).count(), 3);
}

#[tokio::test]
async fn log_settings_are_read_and_changed() {
    let server = Server::start().await;
    let level = SettingValue { parameter_choice: Some(ParameterChoice::Uint32Param(1)) };
    let changed = LogSettingsRequest { settings: [("log_verbose_level".to_owned(), level)].into() };
    server.client().log_settings(changed).await.unwrap();
    let now = server.client().log_settings(LogSettingsRequest::default()).await.unwrap().into_inner();
    let expected = log_settings_response::setting_value::ParameterChoice::Uint32Param(1);
    assert_eq!(now.settings["log_verbose_level"].parameter_choice, Some(expected));
    let file = SettingValue { parameter_choice: Some(ParameterChoice::StringParam("/tmp/stolen".into())) };
    let refused = LogSettingsRequest { settings: [("log_file".to_owned(), file)].into() };
    assert_eq!(server.client().log_settings(refused).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn rest_and_grpc_share_a_port() {
    // Free a moment ago, and nobody else's so far.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = Server::with(|config| (config.http.listen, config.grpc.listen) = (free, free)).await;
    assert_eq!(sums(server.client().model_infer(add(1.0, "")).await.unwrap().get_ref()), [2.0; 16]);
    let mut rest = TcpStream::connect(free).await.unwrap();
    rest.write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    rest.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
