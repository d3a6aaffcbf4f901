//! TensorFlow Serving's PredictionService and ModelService, over the same models and the same pipeline.
//!
//! `predict` answers tensors with tensors; `scores` answers examples, which `examples` makes tensors of, with classes and
//! regressions. All three are counted by `counting` before they are decoded and walk by `walk`. `models` tells about
//! models. A model has one signature here, whose name is the one that clients leave out.

mod counting;
mod examples;
mod models;
mod predict;
mod scores;
mod tensor_proto;
mod walk;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::{Request as Call, Response as Answered, Status};
use tower::Service;

use super::bounded::{Counted, Decoded};
use super::edge::{self, Carries, arriving, control_bytes_max, recoded, traced};
use super::incoming::Incoming;
use super::strangers;
use crate::frontend::{Frontend, Refusal, is_grpc, trace};
use crate::pipeline::Outcome;
use crate::proto::tensorflow::serving::model_service_server::{ModelService, ModelServiceServer};
use crate::proto::tensorflow::serving::prediction_service_server::{PredictionService, PredictionServiceServer};
use crate::proto::tensorflow::serving::{
    ClassificationRequest, ClassificationResponse, GetModelMetadataRequest, GetModelMetadataResponse,
    GetModelStatusRequest, GetModelStatusResponse, MultiInferenceRequest, MultiInferenceResponse, PredictRequest,
    PredictResponse, RegressionRequest, RegressionResponse, ReloadConfigRequest, ReloadConfigResponse,
};

pub(super) fn router(frontend: Arc<Frontend>) -> Router {
    Router::new()
        .route(PREDICT, any(async |calls, request| counted(calls, request, PREDICT, predict::predict).await))
        .route(CLASSIFY, any(async |calls, request| counted(calls, request, CLASSIFY, scores::classify).await))
        .route(REGRESS, any(async |calls, request| counted(calls, request, REGRESS, scores::regress).await))
        .route("/tensorflow.serving.PredictionService/{call}", any(other_predictions))
        .route("/tensorflow.serving.ModelService/{call}", any(model_states))
        .with_state(Calls { frontend })
}

#[derive(Clone, Debug)]
struct Calls {
    frontend: Arc<Frontend>,
}

impl Calls {
    fn begin<M>(&self, request: &Call<M>) -> Outcome {
        self.frontend.pipeline.begin(self.frontend.caller(request.extensions()))
    }
}

/// A call that carries tensors.
async fn counted<M, T, A>(
    State(Calls { frontend }): State<Calls>,
    request: Request,
    path: &'static str,
    answer: fn(Arc<Frontend>, Call<Decoded<M>>, Outcome) -> A,
) -> Response
where
    M: Counted,
    T: Message + 'static,
    A: Future<Output = Reply<T>>,
{
    if !is_grpc(request.headers()) {
        return strangers::refusal(request.headers());
    }
    let request = request.map(Body::new);
    let (traced, recording) = traced(&frontend, &request, path);
    let arrived = arriving(&frontend, request, Incoming::unary, Carries::Much);
    let answer = |request, outcome| answer(Arc::clone(&frontend), request, outcome);
    let answered = trace::around(traced, edge::unary(&frontend, arrived, recording, answer)).await;
    answered.map(axum::body::Body::new)
}

async fn other_predictions(State(calls): State<Calls>, request: Request) -> Response {
    let frontend = Arc::clone(&calls.frontend);
    let served = PredictionServiceServer::new(calls)
        .max_decoding_message_size(control_bytes_max(&frontend))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .send_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Deflate);
    small(&frontend, request, served).await
}

async fn model_states(State(calls): State<Calls>, request: Request) -> Response {
    let frontend = Arc::clone(&calls.frontend);
    let served = ModelServiceServer::new(calls)
        .max_decoding_message_size(control_bytes_max(&frontend))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .send_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Deflate);
    small(&frontend, request, served).await
}

/// A call whose message is small.
async fn small<S>(frontend: &Frontend, request: Request, mut generated: S) -> Response
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = std::convert::Infallible>,
{
    if !is_grpc(request.headers()) {
        return strangers::refusal(request.headers());
    }
    let (_, request) = arriving(frontend, request.map(Body::new), Incoming::small, Carries::Control);
    let answer = match generated.call(request).await {
        Ok(answer) => recoded(answer),
        Err(never) => match never {},
    };
    answer.map(axum::body::Body::new)
}

#[tonic::async_trait]
impl PredictionService for Calls {
    async fn predict(&self, request: Call<PredictRequest>) -> Reply<PredictResponse> {
        let outcome = self.begin(&request);
        predict::predict(Arc::clone(&self.frontend), request.map(Decoded::from), outcome).await
    }

    async fn classify(&self, request: Call<ClassificationRequest>) -> Reply<ClassificationResponse> {
        let outcome = self.begin(&request);
        scores::classify(Arc::clone(&self.frontend), request.map(Decoded::from), outcome).await
    }

    async fn regress(&self, request: Call<RegressionRequest>) -> Reply<RegressionResponse> {
        let outcome = self.begin(&request);
        scores::regress(Arc::clone(&self.frontend), request.map(Decoded::from), outcome).await
    }

    async fn multi_inference(&self, _: Call<MultiInferenceRequest>) -> Reply<MultiInferenceResponse> {
        Err(Refusal::unsupported("MultiInference is not served, send each task as Classify or Regress").into())
    }

    async fn get_model_metadata(&self, request: Call<GetModelMetadataRequest>) -> Reply<GetModelMetadataResponse> {
        let caller = self.frontend.caller(request.extensions());
        Ok(Answered::new(models::metadata(&self.frontend, &caller, request.into_inner()).await?))
    }
}

#[tonic::async_trait]
impl ModelService for Calls {
    async fn get_model_status(&self, request: Call<GetModelStatusRequest>) -> Reply<GetModelStatusResponse> {
        let caller = self.frontend.caller(request.extensions());
        Ok(Answered::new(models::status(&self.frontend, &caller, request.into_inner()).await?))
    }

    async fn handle_reload_config_request(&self, _: Call<ReloadConfigRequest>) -> Reply<ReloadConfigResponse> {
        Err(Refusal::unsupported(RELOAD).into())
    }
}

type Reply<T> = Result<Answered<T>, Status>;

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
const CLASSIFY: &str = "/tensorflow.serving.PredictionService/Classify";
const REGRESS: &str = "/tensorflow.serving.PredictionService/Regress";
const RELOAD: &str = "HandleReloadConfigRequest is not served: models are loaded and unloaded by \
    inference.GRPCInferenceService/RepositoryModelLoad and RepositoryModelUnload, or with repository.control = \"poll\" by \
    what stands in the repository";
