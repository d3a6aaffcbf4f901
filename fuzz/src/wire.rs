//! Requests to a server that has a few models of a handful of nodes. The first byte says to which one a request goes.

use std::cell::OnceCell;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt;
use kinglet::app;
use kinglet::config::Config;
use kinglet::frontend::listener::Routes;
use kinglet::telemetry::logs::Logs;
use tokio::runtime::{Builder, Runtime};

struct House {
    runtime: Runtime,
    rest: Routes,
    grpc: Routes,
}

thread_local! {
    static HOUSE: OnceCell<House> = const { OnceCell::new() };
}

impl House {
    fn open() -> Self {
        let mut config = Config::load(None, &[]).expect("the defaults are valid");
        config.repository.paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("models")];
        config.repository.start_with_failures = false;
        config.engine.cores = 1;
        config.dialects.v1 = true;
        let runtime = Builder::new_current_thread().enable_time().build().expect("the system starts a runtime");
        let logs = Logs::new(config.telemetry.log_level);
        let [rest, grpc] = runtime.block_on(app::routes(&config, logs)).expect("the models of this folder load");
        Self { runtime, rest, grpc }
    }

    fn ask(&self, routes: &Routes, request: Request<Bytes>) {
        self.runtime.block_on(async {
            // Whatever it says: it must come to an end.
            let _ = routes.answer(request).await.into_body().collect().await;
        });
    }
}

pub fn json(bytes: &[u8]) {
    rest(bytes, |model| format!("/v2/models/{model}/infer"), None);
}

/// Behind the model's byte stand two that say how long the JSON is.
pub fn binary(bytes: &[u8]) {
    let Some((&[model, low, high], rest_of)) = bytes.split_first_chunk::<3>() else { return };
    let body = [&[model][..], rest_of].concat();
    rest(&body, |model| format!("/v2/models/{model}/infer"), Some(u16::from_le_bytes([low, high])));
}

pub fn v1(bytes: &[u8]) {
    rest(bytes, |model| format!("/v1/models/{model}:predict"), None);
}

pub fn grpc(message: &[u8]) {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("inputs are short"));
    frame.put_slice(message);
    let request = Request::post("/inference.GRPCInferenceService/ModelInfer").version(http::Version::HTTP_2);
    let request = request.header("content-type", "application/grpc").header("te", "trailers").body(frame.freeze());
    with(|house| house.ask(&house.grpc, request.expect("the head is valid")));
}

fn rest(bytes: &[u8], path: impl FnOnce(&str) -> String, header_length: Option<u16>) {
    let Some((which, body)) = bytes.split_first() else { return };
    let mut request = Request::post(path(MODELS[usize::from(*which) % MODELS.len()]));
    request = match header_length {
        Some(length) => request.header("inference-header-content-length", length),
        None => request.header("content-type", "application/json"),
    };
    let request = request.body(Bytes::copy_from_slice(body)).expect("the head is valid");
    with(|house| house.ask(&house.rest, request));
}

fn with(ask: impl FnOnce(&House)) {
    HOUSE.with(|house| ask(house.get_or_init(House::open)));
}

/// Those of `fuzz/models`, all but the last of which give back what they get.
const MODELS: [&str; 5] = ["fp32", "int64", "bool", "bytes", "sum"];
