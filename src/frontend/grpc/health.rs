//! grpc.health.v1: whether the server, or one model of it, should be sent requests; whether it has started, and lives.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::select;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::error::ErrorCode;
use crate::frontend::health::Phase;
use crate::frontend::{Frontend, Refusal};
use crate::infer::ModelName;
use crate::proto::inference::grpc_inference_service_server::SERVICE_NAME;

#[derive(Debug)]
pub(super) struct Probes {
    pub(super) frontend: Arc<Frontend>,
    /// Ends watches, which would otherwise outlast every request.
    pub(super) closing: CancellationToken,
}

#[tonic::async_trait]
impl Health for Probes {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match status(&self.frontend, &service) {
            ServingStatus::ServiceUnknown => {
                let message = format!(
                    "expected no service, {SERVICE_NAME:?}, {STARTUP:?}, {LIVE:?} or a model's name, got {service:?}"
                );
                Err(Refusal::new(ErrorCode::NotFound, message).into())
            }
            status => Ok(Response::new(told(status))),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = Watcher {
            frontend: Arc::clone(&self.frontend),
            service: request.into_inner().service,
            phases: self.frontend.health.watch(),
            catalogs: self.frontend.repository.changes(),
            closing: self.closing.clone(),
            last: None,
        };
        Ok(Response::new(stream::unfold(watcher, Watcher::next).boxed()))
    }
}

struct Watcher {
    frontend: Arc<Frontend>,
    service: String,
    phases: watch::Receiver<Phase>,
    catalogs: watch::Receiver<u64>,
    closing: CancellationToken,
    last: Option<ServingStatus>,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let now = status(&self.frontend, &self.service);
            if self.last != Some(now) {
                self.last = Some(now);
                return Some((Ok(told(now)), self));
            }
            select! {
                () = self.closing.cancelled() => return None,
                changed = self.phases.changed() => changed.ok()?,
                changed = self.catalogs.changed() => changed.ok()?,
            }
        }
    }
}

fn status(frontend: &Frontend, service: &str) -> ServingStatus {
    let serving = |yes| if yes { ServingStatus::Serving } else { ServingStatus::NotServing };
    if is_server(service) {
        return serving(frontend.health.is_ready());
    }
    if service == STARTUP || service == LIVE {
        return serving(service == LIVE || frontend.health.is_started());
    }
    let known = service.parse::<ModelName>().is_ok_and(|name| frontend.repository.catalog().models.contains_key(&name));
    if !known {
        return ServingStatus::ServiceUnknown;
    }
    // One model may be ready while others are still loading; none is when the server ends.
    serving(frontend.health.phase() != Phase::Draining && frontend.check_ready(service, None).is_ok())
}

fn is_server(service: &str) -> bool {
    service.is_empty() || service == SERVICE_NAME
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Services that only probes ask for. No model can have such a name.
const STARTUP: &str = "kinglet/startup";
const LIVE: &str = "kinglet/live";
