//! Rooms 1 and 8: bytes to requests and answers to bytes. The only rooms that know a wire.
//!
//! `rest`, `grpc` and `admin` each know one; what they share stands here: parameters, wishes for outputs,
//! classification, health, and the listener that drives connections.

pub mod address;
pub mod admin;
pub mod browsers;
pub mod classification;
pub mod config;
pub mod cors;
pub mod grpc;
pub mod guard;
pub mod health;
mod inflate;
mod large;
mod leaving;
pub mod listener;
pub mod load_report;
pub mod pace;
mod page_file;
pub mod parameters;
pub mod refusal;
pub mod report;
pub mod rest;
pub mod shared_memory;
pub mod tls;
pub mod trace;
pub mod trace_settings;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub use address::Address;
use arc_swap::ArcSwap;
pub use browsers::Browsers;
pub use config::{DialectsConfig, LimitsConfig};
pub use cors::Cors;
pub use guard::Guard;
pub use health::Health;
use http::{HeaderMap, header};
pub use load_report::CpuShare;
pub use refusal::Refusal;
pub use report::Report;
pub use shared_memory::{Placed, Placement, SharedMemory, Slot};
pub use tls::Tls;

use tokio::time::Instant;

use crate::access::{Access, Caller};
use crate::engine::Pool;
use crate::infer::{InferRequest, ModelName, VariantName, VersionId};
use crate::pipeline::{InferError, Pipeline};
use crate::repository::catalog::Version;
use crate::repository::{Catalog, Repository, Variant};
use crate::telemetry::logs::Logs;
use crate::telemetry::{Metrics, Tracer};

/// What every front end works with. Every request clones it, so it is one pointer.
#[derive(Clone, Debug)]
pub struct Frontend(Arc<Parts>);

/// The rooms and settings behind the front ends.
#[derive(Debug)]
pub struct Parts {
    pub pipeline: Arc<Pipeline>,
    pub repository: Arc<Repository>,
    pub health: Arc<Health>,
    pub limits: Arc<ArcSwap<LimitsConfig>>,
    pub dialects: DialectsConfig,
    pub browsers: Browsers,
    pub metrics: Arc<Metrics>,
    pub logs: Logs,
    pub pool: Pool,
    pub tracer: Tracer,
    pub memory: SharedMemory,
    pub access: Access,
    pub cpu_share: CpuShare,
}

/// A decoded call: the request for the rooms, and what only its encoder needs.
#[derive(Debug)]
pub struct Call {
    pub request: InferRequest,
    /// Inputs that the request still lacks: they lie in shared memory.
    pub placed: Vec<Placed>,
    /// In the order given; empty where the client named no output.
    pub wishes: Vec<OutputWish>,
    /// Binary form of outputs whose wish does not say.
    pub binary_default: bool,
    /// What is wanted in the response parameters.
    pub report: Report,
}

/// How a client wants one output.
#[derive(Clone, Debug, Default)]
pub struct OutputWish {
    pub name: String,
    pub binary: Option<bool>,
    /// The number of classes wanted instead of the tensor.
    pub classes: Option<usize>,
    /// Where it is to be written instead of into the answer.
    pub slot: Option<Slot>,
}

impl OutputWish {
    /// Takes the slot that its parameters name.
    ///
    /// # Errors
    /// When there is none, or classes are wanted too: how long they are is known by their reader alone.
    fn place(&mut self, placement: Placement, memory: &SharedMemory) -> Result<(), Refusal> {
        self.slot = placement.find(memory, "output", &self.name)?;
        if self.slot.is_some() && self.classes.is_some() {
            let why = format!("output {:?}: classes are not written to shared memory, ask for one of both", self.name);
            return Err(Refusal::invalid(why));
        }
        Ok(())
    }
}

impl Frontend {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Who makes a call, by its request's extensions.
    fn caller(&self, extensions: &http::Extensions) -> Caller {
        guard::caller_of(&self.access, extensions)
    }

    /// The wait that refusals without one of their own suggest.
    pub fn retry_after(&self) -> Duration {
        self.pipeline.admission().retry_after()
    }

    /// The extensions that are served as the server is set up.
    fn extensions(&self) -> impl Iterator<Item = &'static str> {
        let memory = self.memory.is_on().then_some(shared_memory::EXTENSION);
        let trace = self.tracer.is_on().then_some(trace_settings::EXTENSION);
        EXTENSIONS.iter().copied().chain(memory).chain(trace)
    }

    /// What a client is told of an error of the pipeline.
    fn refusal(&self, error: &InferError) -> Refusal {
        Refusal::infer(error, self.retry_after())
    }

    /// A refusal that says when to come back, where that helps.
    fn told_to_wait(&self, refusal: impl Into<Refusal>) -> Refusal {
        refusal.into().or_wait(self.retry_after())
    }

    /// The build that answers for a model, or for one version of it.
    ///
    /// # Errors
    /// When the name cannot be a model's, or nothing of it answers.
    async fn find(&self, model: &str, version: Option<&str>) -> Result<Arc<Variant>, Refusal> {
        self.own_build(&model.parse()?, version.map(str::parse).transpose()?, None).await
    }

    /// As `find`, for names that are read already.
    ///
    /// # Errors
    /// When nothing of it answers.
    async fn own_build(
        &self,
        model: &ModelName,
        version: Option<VersionId>,
        deadline: Option<Instant>,
    ) -> Result<Arc<Variant>, Refusal> {
        let catalog = self.present(model, deadline).await?;
        Ok(Arc::clone(catalog.find(model, version)?))
    }

    /// As `find`, or the build of that version which a variant's name asks for.
    ///
    /// # Errors
    /// As `find`, and when the version has no such variant.
    async fn find_variant(
        &self,
        model: &str,
        version: Option<&str>,
        variant: Option<&str>,
    ) -> Result<Arc<Variant>, Refusal> {
        let (model, version): (ModelName, _) = (model.parse()?, version.map(str::parse::<VersionId>).transpose()?);
        let variant = variant.map(str::parse::<VariantName>).transpose()?;
        let catalog = self.present(&model, None).await?;
        Ok(Arc::clone(catalog.find_variant(&model, version, variant.as_ref())?))
    }

    /// What is loaded, once this model is: waits where models load on demand.
    ///
    /// # Errors
    /// When it cannot be loaded now.
    async fn present(&self, model: &ModelName, deadline: Option<Instant>) -> Result<Arc<Catalog>, Refusal> {
        let catalog = self.repository.demand(model, deadline).await.map_err(|error| self.told_to_wait(error))?;
        Ok(arc_swap::Guard::into_inner(catalog))
    }

    /// Whether requests to a model, or to one version of it, would be answered: loads nothing for that.
    ///
    /// # Errors
    /// When they would not.
    fn check_ready(&self, model: &str, version: Option<&str>) -> Result<(), Refusal> {
        let (model, version): (ModelName, _) = (model.parse()?, version.map(str::parse::<VersionId>).transpose()?);
        if !self.repository.would_load(&model) {
            self.repository.catalog().find(&model, version)?;
        }
        Ok(())
    }

    /// Names of the variants that answer beside a version's own build.
    fn variants(&self, own: &Variant) -> Vec<String> {
        let catalog = self.repository.catalog();
        let version = catalog.version_of(own).into_iter();
        version.flat_map(Version::ready_variants).map(ToString::to_string).collect()
    }
}

impl Deref for Frontend {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Whether a request is a gRPC call, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    has_type(headers, GRPC) && !is_grpc_web(headers)
}

/// Whether it is one in the form that browsers can send.
pub fn is_grpc_web(headers: &HeaderMap) -> bool {
    has_type(headers, GRPC_WEB)
}

fn has_type(headers: &HeaderMap, beginning: &[u8]) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(beginning))
}

const GRPC: &[u8] = b"application/grpc";
const GRPC_WEB: &[u8] = b"application/grpc-web";

/// The name and extensions that server metadata tells. Only what works stands here, and whatever the settings are.
pub const SERVER_NAME: &str = "kinglet";
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");
pub const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "statistics",
    "schedule_policy",
    "parameters",
    "logging",
];
