//! The calls of GRPCInferenceService, each handed to the file that knows it.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::bounded::Decoded;
use super::stream::{Answers, Requests};
use super::{arrival, infer, logging, models, repository, shared_memory, trace_settings};
use crate::access::Caller;
use crate::frontend::{Frontend, Refusal, SERVER_NAME, SERVER_VERSION, SharedMemory};
use crate::pipeline::Outcome;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::inference::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    LogSettingsRequest, LogSettingsResponse, ModelConfigRequest, ModelConfigResponse, ModelInferRequest,
    ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStatisticsRequest, ModelStatisticsResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse, TraceSettingRequest,
    TraceSettingResponse,
};
use crate::telemetry::spans::Recording;

#[derive(Debug)]
pub(super) struct Calls {
    pub(super) frontend: Arc<Frontend>,
    /// Ends streams, which would otherwise outlast every other request.
    pub(super) closing: CancellationToken,
}

/// The calls that carry tensors, for whoever decodes them.
impl Calls {
    pub(super) async fn answer_once(&self, request: Request<Decoded>, outcome: Outcome) -> Reply<ModelInferResponse> {
        infer::unary(&self.frontend, request, outcome).await
    }

    fn caller<T>(&self, request: &Request<T>) -> Caller {
        self.frontend.caller(request.extensions())
    }

    /// What a call has of shared memory.
    fn memory<T>(&self, request: &Request<T>) -> SharedMemory {
        self.frontend.memory.for_call(request.metadata().as_ref(), &self.caller(request))
    }

    pub(super) fn open_stream(&self, request: Request<Requests>, recording: Option<Recording>) -> Reply<Answers> {
        let caller = self.caller(&request);
        let (metadata, _, requests) = request.into_parts();
        let deadline = match arrival::deadline(&metadata, Instant::now()) {
            Ok(deadline) => deadline,
            Err(refusal) => {
                if let Some(recording) = recording {
                    recording.finish(Some(refusal.code));
                }
                return Err(refusal.into());
            }
        };
        let frontend = Arc::clone(&self.frontend);
        let answers = Answers::new(frontend, (caller, &metadata), deadline, requests, self.closing.clone());
        Ok(Response::new(answers.recorded(recording)))
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Calls {
    type ModelStreamInferStream = Answers;

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Reply<ModelInferResponse> {
        let outcome = self.frontend.pipeline.begin(self.caller(&request));
        self.answer_once(request.map(Decoded::from), outcome).await
    }

    async fn model_stream_infer(&self, request: Request<Streaming<ModelInferRequest>>) -> Reply<Answers> {
        self.open_stream(request.map(|requests| requests.map_ok(Decoded::from).boxed()), None)
    }

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Reply<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Reply<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.frontend.health.is_ready() }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Reply<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: SERVER_NAME.to_owned(),
            version: SERVER_VERSION.to_owned(),
            extensions: self.frontend.extensions().map(str::to_owned).collect(),
        }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Reply<ModelReadyResponse> {
        Ok(Response::new(models::ready(&self.frontend, &self.caller(&request), &request.into_inner())?))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Reply<ModelMetadataResponse> {
        Ok(Response::new(models::metadata(&self.frontend, &self.caller(&request), &request.into_inner()).await?))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Reply<ModelConfigResponse> {
        Ok(Response::new(models::config(&self.frontend, &self.caller(&request), &request.into_inner()).await?))
    }

    async fn model_statistics(&self, request: Request<ModelStatisticsRequest>) -> Reply<ModelStatisticsResponse> {
        Ok(Response::new(models::statistics(&self.frontend, &self.caller(&request), &request.into_inner()).await?))
    }

    async fn repository_index(&self, request: Request<RepositoryIndexRequest>) -> Reply<RepositoryIndexResponse> {
        Ok(Response::new(repository::index(&self.frontend, &self.caller(&request), &request.into_inner())))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Reply<RepositoryModelLoadResponse> {
        let loaded = repository::load(&self.frontend, &self.caller(&request), request.into_inner()).await?;
        Ok(Response::new(RepositoryModelLoadResponse { model_name: loaded.to_string(), is_loaded: true }))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Reply<RepositoryModelUnloadResponse> {
        let unloaded = repository::unload(&self.frontend, &self.caller(&request), request.into_inner()).await?;
        Ok(Response::new(RepositoryModelUnloadResponse { model_name: unloaded.to_string(), is_unloaded: true }))
    }

    async fn log_settings(&self, request: Request<LogSettingsRequest>) -> Reply<LogSettingsResponse> {
        Ok(Response::new(logging::settings(&self.frontend.logs, request.into_inner())?))
    }

    async fn trace_setting(&self, request: Request<TraceSettingRequest>) -> Reply<TraceSettingResponse> {
        Ok(Response::new(trace_settings::settings(&self.frontend, request.into_inner())?))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Reply<SystemSharedMemoryStatusResponse> {
        let memory = self.memory(&request);
        Ok(Response::new(shared_memory::status(&memory, &request.into_inner())?))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Reply<SystemSharedMemoryRegisterResponse> {
        let memory = self.memory(&request);
        Ok(Response::new(shared_memory::register(&memory, request.into_inner())?))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Reply<SystemSharedMemoryUnregisterResponse> {
        let memory = self.memory(&request);
        Ok(Response::new(shared_memory::unregister(&memory, &request.into_inner())?))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<CudaSharedMemoryStatusRequest>,
    ) -> Reply<CudaSharedMemoryStatusResponse> {
        unserved(CUDA_MEMORY)
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Reply<CudaSharedMemoryRegisterResponse> {
        unserved(CUDA_MEMORY)
    }

    /// Load generators unregister before they start, with or without a device.
    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Reply<CudaSharedMemoryUnregisterResponse> {
        Ok(Response::new(CudaSharedMemoryUnregisterResponse {}))
    }
}

type Reply<T> = Result<Response<T>, Status>;

fn unserved<T>(extension: &str) -> Reply<T> {
    Err(Refusal::extension(extension).into())
}

const CUDA_MEMORY: &str = "cuda_shared_memory";
