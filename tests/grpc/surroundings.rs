//! What clients use beside the inference service: health, reflection, logging, a port shared with REST.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use http::uri::PathAndQuery;
use kinglet::frontend::Address;
use kinglet::proto::inference::log_settings_request::SettingValue;
use kinglet::proto::inference::log_settings_request::setting_value::ParameterChoice;
use kinglet::proto::inference::{
    LogSettingsRequest, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, log_settings_response,
};
use kinglet::repository::Control;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::client::Grpc;
use tonic::{Code, Request, Response};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
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
        asked(MessageRequest::FileContainingSymbol("tensorflow.serving.PredictRequest".into())),
        asked(MessageRequest::FileContainingSymbol("tensorflow.TensorProto".into())),
    ]);
    let mut client = ServerReflectionClient::new(server.channel.clone());
    let answers: Vec<_> = client.server_reflection_info(requests).await.unwrap().into_inner().collect().await;
    let mut answers = answers.into_iter().map(|answer| answer.unwrap().message_response.unwrap());
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next() else { panic!("expected a list") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in [
        "inference.GRPCInferenceService",
        "inference.model_repository.ModelRepositoryService",
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert_eq!(answers.filter(|answer| matches!(answer, MessageResponse::FileDescriptorResponse(_))).count(), 5);
}

/// Loads and unloads are told to KServe's clients with the model's name, which Triton's do not look for; MLServer's ask
/// another service.
#[tokio::test]
async fn a_repository_is_asked_in_three_dialects() {
    let server = Server::with(|config| {
        config.repository.control = Control::Explicit;
        config.repository.load_at_start = vec!["add".to_owned()];
    })
    .await;
    // KServe's request has the model's name where Triton's has the repository's.
    let load = RepositoryModelLoadRequest { repository_name: "pick".into(), ..Default::default() };
    let loaded = server.client().repository_model_load(load).await.unwrap().into_inner();
    assert_eq!(loaded, RepositoryModelLoadResponse { model_name: "pick".into(), is_loaded: true });
    let mut grpc = Grpc::new(server.channel.clone());
    grpc.ready().await.unwrap();
    let unload = RepositoryModelUnloadRequest { model_name: "pick".into(), ..Default::default() };
    let path = PathAndQuery::from_static("/inference.model_repository.ModelRepositoryService/RepositoryModelUnload");
    let unloaded: Response<RepositoryModelUnloadResponse> =
        grpc.unary(Request::new(unload), path, ProstCodec::default()).await.unwrap();
    assert_eq!(unloaded.into_inner(), RepositoryModelUnloadResponse { model_name: "pick".into(), is_unloaded: true });
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/inference.model_repository.ModelRepositoryService/RepositoryIndex");
    let ready = RepositoryIndexRequest { ready: true, ..Default::default() };
    let index: Response<RepositoryIndexResponse> =
        grpc.unary(Request::new(ready), path, ProstCodec::default()).await.unwrap();
    let names: Vec<_> = index.get_ref().models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["add"]);
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
    let server = Server::with(|config| {
        (config.http.listen, config.grpc.listen) = (Address::Tcp(free), Address::Tcp(free));
    })
    .await;
    assert_eq!(sums(server.client().model_infer(add(1.0, "")).await.unwrap().get_ref()), [2.0; 16]);
    let mut rest = TcpStream::connect(free).await.unwrap();
    rest.write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    rest.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn one_file_serves_both_protocols_and_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("both.socket");
    let listen = Address::Unix(path.clone());
    let server = Server::with(|config| (config.http.listen, config.grpc.listen) = (listen.clone(), listen)).await;
    assert_eq!(sums(server.client().model_infer(add(1.0, "")).await.unwrap().get_ref()), [2.0; 16]);
    let rest = server.ask("http", "GET /v2/health/ready", &[], "").await;
    assert!(rest.starts_with("HTTP/1.1 200"), "{rest}");
    assert!(server.running.drain().await);
    assert!(!path.exists());
}

/// A call as a browser makes it over HTTP/1.1: its answer ends in a frame with the trailers.
#[tokio::test]
async fn browsers_are_answered_over_grpc_web_where_that_is_wanted() {
    let post = "POST /inference.GRPCInferenceService/ServerLive";
    // An empty message; its answer is one with field 1 true, then the trailers.
    for (kind, message, answered) in [
        ("application/grpc-web+proto", "\0\0\0\0\0", "\0\0\0\0\u{2}\u{8}\u{1}"),
        ("application/grpc-web-text", "AAAAAAA=", "AAAAAAIIAQ=="),
    ] {
        let headers = [("content-type", kind), ("accept", kind)];
        let server = Server::with(|config| config.grpc.web = true).await;
        let answer = server.ask_bytes("grpc", post, &headers, message).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(answered), "{answer:?}");
        assert!(answer.contains("grpc-status:0") || answer.contains("cnBjLXN0YXR1czow"), "{answer:?}");
        assert_eq!(sums(server.client().model_infer(add(1.0, "")).await.unwrap().get_ref()), [2.0; 16]);
        let without = Server::start().await;
        let refused = without.ask("grpc", post, &headers, message).await;
        assert!(refused.starts_with("HTTP/1.1 415") && refused.contains("grpc.web"), "{refused}");
    }
}

#[tokio::test]
async fn pages_of_named_sites_may_read_answers_and_control_nothing() {
    let server = Server::with(|config| {
        config.cors.origins = vec!["https://a.example".parse().unwrap()];
        config.grpc.web = true;
    });
    let server = server.await;
    let asks = [("access-control-request-method", "POST"), ("access-control-request-headers", "content-type")];
    for listener in ["http", "grpc"] {
        let named = [&[("origin", "https://a.example")], &asks[..]].concat();
        let answer = server.ask(listener, "OPTIONS /v2/models/add/infer", &named, "").await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        assert!(answer.contains("access-control-allow-origin: https://a.example\r\n"), "{answer}");
        assert!(answer.contains("access-control-allow-headers: content-type\r\n"), "{answer}");
        let other = [&[("origin", "https://b.example")], &asks[..]].concat();
        let refused = server.ask(listener, "OPTIONS /v2/models/add/infer", &other, "").await;
        assert!(!refused.starts_with("HTTP/1.1 2") && !refused.contains("access-control-"), "{refused}");
    }
    let origin = [("origin", "https://a.example")];
    let read = server.ask("http", "GET /v2", &origin, "").await;
    assert!(read.contains("access-control-allow-origin: https://a.example\r\n"), "{read}");
    assert!(read.contains("access-control-expose-headers: kinglet-energy-joules"), "{read}");
    assert!(!read.contains("credentials"), "{read}");
    let control = server.ask("http", "POST /v2/repository/models/add/unload", &origin, "{}").await;
    assert!(control.starts_with("HTTP/1.1 403"), "{control}");
    for call in ["inference.GRPCInferenceService/ServerLive", "tensorflow.serving.ModelService/GetModelStatus"] {
        let answer = over_web(&server, call).await;
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("grpc-status: 7"), "{call}: {answer}");
    }
    for call in [
        "inference.GRPCInferenceService/RepositoryIndex",
        "inference.GRPCInferenceService/RepositoryModelLoad",
        "inference.GRPCInferenceService/RepositoryModelUnload",
        "inference.GRPCInferenceService/LogSettings",
        "inference.GRPCInferenceService/TraceSetting",
        "inference.GRPCInferenceService/SystemSharedMemoryStatus",
        "inference.model_repository.ModelRepositoryService/RepositoryModelUnload",
    ] {
        let refused = over_web(&server, call).await;
        assert!(refused.contains("grpc-status: 7") && refused.contains("a.example"), "{call}: {refused}");
    }
    let admin = server.ask("admin", "GET /v2", &origin, "").await;
    assert!(!admin.contains("access-control-"), "{admin}");
    let silent = Server::start().await.ask("http", "GET /v2", &origin, "").await;
    assert!(!silent.contains("access-control-") && !silent.contains("vary"), "{silent}");
}

/// An empty message from a page of the named site.
async fn over_web(server: &Server, call: &str) -> String {
    let headers = [("content-type", "application/grpc-web+proto"), ("origin", "https://a.example")];
    let answer = server.ask_bytes("grpc", &format!("POST /{call}"), &headers, "\0\0\0\0\0").await;
    String::from_utf8_lossy(&answer).into_owned()
}
