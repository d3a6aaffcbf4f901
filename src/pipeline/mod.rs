//! The whole request path in one function, and the one place where a cause becomes a code.

mod outcome;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::access::{Caller, Denied};
use crate::admission::{Admission, Admitted, Overloaded, Reserved};
use crate::batching::{BatchError, Batcher, Executed};
use crate::cache::{Cache, CacheError, Found, Kept, Lead};
use crate::engine::{EngineError, Share};
use crate::error::ErrorCode;
use crate::infer::{
    CacheOutcome, ComputeTimes, InferRequest, InferResponse, ModelName, Usage, VariantReason, VersionId,
};
use crate::metering::statistics::RequestTimes;
use crate::metering::{Estimate, Meter};
use crate::repository::catalog::LookupError;
use crate::repository::{Repository, RepositoryError, Variant};
use crate::routing::{Choice, Conditions, RouteError, Routed, Router};
use crate::telemetry::Metrics;
use crate::telemetry::spans::{StepRun, Traced};
use crate::tensor::NamedTensor;

pub use outcome::Outcome;

#[derive(Debug)]
pub struct Pipeline {
    admission: Admission,
    repository: Arc<Repository>,
    router: Router,
    cache: Cache,
    batcher: Batcher,
    meter: Meter,
    metrics: Arc<Metrics>,
}

/// A response with what encoding it needs. Holds the request's place until it is dropped.
#[derive(Debug)]
pub struct Answer {
    pub response: InferResponse,
    pub variant: Arc<Variant>,
    /// What it took, where that can be told.
    pub energy: Option<Estimate>,
    admitted: Admitted,
    answered_at: Instant,
}

/// What is known of a request before its body is decoded.
#[derive(Debug)]
pub struct Undecoded<'a> {
    pub model: &'a ModelName,
    pub version: Option<VersionId>,
    /// Of the body.
    pub bytes: u64,
    pub deadline: Option<Instant>,
}

/// A computed answer, and how its steps ran where it has some and is recorded.
#[derive(Debug)]
struct Computed {
    executed: Executed,
    runs: Vec<StepRun>,
}

#[derive(Debug, thiserror::Error)]
pub enum InferError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Admission(#[from] Overloaded),
    #[error(transparent)]
    Load(#[from] RepositoryError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("step {step:?}: {error}")]
    Step { step: String, error: Box<Self> },
}

impl Pipeline {
    pub fn new(
        admission: Admission,
        repository: Arc<Repository>,
        router: Router,
        cache: Cache,
        batcher: Batcher,
        meter: Meter,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { admission, repository, router, cache, batcher, meter, metrics }
    }

    /// To be called when the head of an inference call has come: whatever becomes of it is counted.
    pub fn begin(&self, caller: Caller) -> Outcome {
        Outcome::new(Arc::clone(&self.metrics), caller)
    }

    /// A place for a request that takes long to decode, so that what load or a name refuses is not decoded first.
    ///
    /// # Errors
    /// As `infer`.
    pub async fn reserve(&self, request: &Undecoded<'_>, outcome: &mut Outcome) -> Result<Reserved, InferError> {
        outcome.take(request.model)?;
        let reserved = self.admission.reserve(request.bytes)?;
        let catalog = self.repository.demand(request.model, request.deadline).await?;
        let (variant, version) = catalog.find_version(request.model, request.version).map_err(RouteError::from)?;
        outcome.found(variant);
        self.router.check_power()?;
        // Which of several variants it asks for stands in what is not decoded yet.
        if version.variants.is_empty() {
            self.batcher.check_room(variant)?;
        }
        Ok(reserved)
    }

    /// One request from decoded tensors to the answer's tensors.
    ///
    /// # Errors
    /// When a room refuses it or the run fails; `InferError::code` says how clients see that.
    pub async fn infer(
        &self,
        request: InferRequest,
        reserved: Option<Reserved>,
        outcome: &mut Outcome,
    ) -> Result<Answer, InferError> {
        outcome.received(request.received_at);
        outcome.decoded(&request);
        outcome.take(&request.model)?;
        let admitted = match reserved {
            None => self.admission.admit(request)?,
            Some(reserved) => self.admission.admit_reserved(reserved, request)?,
        };
        let (model, version) = (&admitted.request.model, admitted.request.version);
        let catalog = self.repository.demand(model, admitted.request.schedule.deadline).await?;
        let choice = self.router.choose(&catalog, &admitted, || self.conditions()).inspect_err(|_| {
            catalog.find(model, version).iter().for_each(|own| outcome.found(own));
        });
        drop(catalog);
        let choice = choice?;
        outcome.found(&choice.variant);
        let mut routed = self.router.bind(admitted, Arc::clone(&choice.variant))?;
        self.admission.outflow().foresee(|| routed.answer_bytes_min())?;
        outcome.take_rows(routed.rows)?;
        let found = self.cache.look_up(&routed).await?;
        let cache = found.as_ref().map(Found::outcome);
        outcome.looked_up(&routed, cache);
        let lead = match found {
            Some(Found::Answer(kept)) => return Ok(self.answer_kept(routed, kept, &choice, outcome)),
            Some(Found::Nothing(lead)) => Some(lead),
            None => None,
        };
        self.take_power(&mut routed, &choice)?;
        outcome.chosen(&choice);
        let traced = outcome.traced();
        let computed = self.compute(routed, lead, traced).await?;
        let energy = self.meter.estimate(computed.executed.usage.cpu);
        outcome.executed(&computed, energy);
        let Executed { routed, share, usage, .. } = computed.executed;
        observe_run(&routed.variant, &usage, routed.rows);
        Ok(Answer::settle(routed, share, usage, energy, (choice.reason, cache)))
    }

    /// What choices among builds go by now.
    fn conditions(&self) -> Conditions {
        Conditions { wait: self.batcher.wait_expected(), per_cpu_second: self.meter.per_cpu_second() }
    }

    /// Takes what a run will. Steps of an ensemble take their own: of the whole it is only asked whether anything is left.
    fn take_power(&self, routed: &mut Routed, choice: &Choice) -> Result<(), RouteError> {
        match routed.variant.ensemble {
            None => routed.grant = self.router.take_power(choice)?,
            Some(_) => self.router.check_power()?,
        }
        Ok(())
    }

    /// Computes an answer, for all who wait for it.
    async fn compute(
        &self,
        routed: Routed,
        lead: Option<Lead>,
        traced: Option<Traced>,
    ) -> Result<Computed, InferError> {
        let computed = match routed.variant.ensemble.clone() {
            None => {
                let executed = self.batcher.submit(routed, traced).await;
                executed.map(|executed| Computed { executed, runs: Vec::new() }).map_err(InferError::from)
            }
            // An ensemble may be a step of another.
            Some(ensemble) => Box::pin(self.run_steps(routed, &ensemble, traced)).await,
        };
        landed(lead, computed).await
    }

    /// A request whose answer was there already, or has come for an equal one. It takes no power, and of energy what looking it
    /// up took.
    fn answer_kept(&self, routed: Routed, kept: Kept, choice: &Choice, outcome: &mut Outcome) -> Answer {
        let Kept { share, outcome: cache, lookup } = kept;
        outcome.chosen(choice);
        let usage = note_kept(&routed, lookup);
        let energy = self.meter.estimate(lookup);
        outcome.kept(energy);
        Answer::settle(routed, share, usage, energy, (choice.reason, Some(cache)))
    }

    /// How long a request that comes now is expected to wait until it runs.
    pub fn wait_expected(&self) -> Duration {
        self.batcher.wait_expected()
    }

    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    pub fn router(&self) -> &Router {
        &self.router
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

/// Ends the wait of those who follow a request, with its answer or without.
async fn landed(lead: Option<Lead>, computed: Result<Computed, InferError>) -> Result<Computed, InferError> {
    let Some(lead) = lead else { return computed };
    match &computed {
        Ok(computed) => lead.answer(&computed.executed.share).await,
        Err(error) if error.is_of_the_run() => lead.fail(),
        // Its own time was over, or a queue had no place: that says nothing of others.
        Err(_) => drop(lead),
    }
    computed
}

/// Notes a request whose answer was there, and says what that took.
fn note_kept(routed: &Routed, lookup: Duration) -> Usage {
    let queue = routed.arrived.elapsed().saturating_sub(lookup);
    let total = routed.admitted.request.received_at.elapsed();
    routed.variant.statistics.record_cache_hit(RequestTimes { queue, total }, lookup);
    Usage { queue, compute: ComputeTimes::default(), batch: None, cpu: lookup }
}

/// Notes what a run took in the metrics of its build.
fn observe_run(variant: &Variant, usage: &Usage, rows: usize) {
    let metrics = &variant.metrics;
    metrics.stages.queue.observe(usage.queue.as_secs_f64());
    metrics.stages.gather.observe(usage.compute.gather.as_secs_f64());
    metrics.stages.compute.observe(usage.compute.infer.as_secs_f64());
    metrics.rows.inc_by(rows as u64);
}

impl Answer {
    /// Notes what the request cost and brings its outputs into the order and shapes the client asked for.
    fn settle(
        routed: Routed,
        share: Share,
        usage: Usage,
        energy: Option<Estimate>,
        (variant_reason, cache): (Option<VariantReason>, Option<CacheOutcome>),
    ) -> Self {
        let variant = routed.variant;
        let metrics = &variant.metrics;
        metrics.stages.decode.observe(routed.admitted.request.decode.as_secs_f64());
        if let Some(estimate) = energy {
            variant.account.observe(estimate.energy);
        }
        let request = &routed.admitted.request;
        let outputs = outputs(&variant, &request.outputs, share);
        let response = InferResponse {
            model: variant.model.clone(),
            version: variant.version,
            variant: variant.name.clone(),
            variant_reason,
            cache,
            id: request.id.clone(),
            outputs,
            usage,
        };
        Self { response, variant, energy, admitted: routed.admitted, answered_at: Instant::now() }
    }

    /// To be called when the answer's bytes are ready.
    pub fn encoded(&self) {
        let now = Instant::now();
        let metrics = &self.variant.metrics;
        metrics.stages.encode.observe(now.saturating_duration_since(self.answered_at).as_secs_f64());
        let total = now.saturating_duration_since(self.admitted.request.received_at);
        metrics.request_duration.observe(total.as_secs_f64());
    }
}

/// The outputs asked for, in that order; all of them where none was named.
fn outputs(variant: &Variant, wanted: &[String], share: Share) -> Vec<NamedTensor> {
    let specs = &variant.signature.outputs;
    if wanted.is_empty() {
        return client_side(variant, share).collect();
    }
    let mut named: Vec<Option<NamedTensor>> = client_side(variant, share).map(Some).collect();
    // Names were checked by routing; one asked for twice is given once.
    wanted.iter().filter_map(|name| named[specs.iter().position(|spec| spec.name == *name)?].take()).collect()
}

/// A plan's outputs with their names, in the shapes that clients see.
fn client_side(variant: &Variant, share: Share) -> impl Iterator<Item = NamedTensor> {
    let merges = variant.merges();
    variant.signature.outputs.iter().zip(share).map(move |(spec, tensor)| {
        let tensor = variant.settings.to_client_shape(&spec.name, tensor, merges);
        NamedTensor { name: spec.name.clone(), tensor }
    })
}

impl InferError {
    /// How clients see the cause.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::Admission(_) => ErrorCode::Overloaded,
            Self::Load(error) => error.code(),
            Self::Route(RouteError::Lookup(LookupError::NotReady(..) | LookupError::VariantNotReady { .. })) => {
                ErrorCode::Unavailable
            }
            Self::Route(RouteError::Lookup(_)) => ErrorCode::NotFound,
            Self::Route(RouteError::BudgetUnmet(_)) => ErrorCode::BudgetUnmet,
            Self::Route(RouteError::PowerSpent { .. }) => ErrorCode::Overloaded,
            Self::Route(_) => ErrorCode::InvalidArgument,
            Self::Batch(BatchError::QueueFull { .. }) => ErrorCode::Overloaded,
            Self::Cache(CacheError::Expired { .. }) | Self::Batch(BatchError::Expired { .. }) => {
                ErrorCode::DeadlineExceeded
            }
            Self::Batch(BatchError::Engine(error)) => engine_code(error),
            Self::Batch(BatchError::Panicked) => ErrorCode::Internal,
            Self::Step { error, .. } => error.code(),
        }
    }

    /// Whether the run itself has failed, as it would for an equal request.
    fn is_of_the_run(&self) -> bool {
        match self {
            Self::Batch(error) => matches!(error, BatchError::Engine(_) | BatchError::Panicked),
            Self::Step { error, .. } => error.is_of_the_run(),
            _ => false,
        }
    }

    /// What a refused client is told to wait, where waiting helps.
    pub fn retry_after(&self, default: Duration) -> Option<Duration> {
        match self {
            Self::Denied(denied) => denied.retry_after(),
            Self::Admission(overloaded) => Some(overloaded.retry_after),
            Self::Route(RouteError::PowerSpent { retry_after, .. }) => Some(*retry_after),
            Self::Step { error, .. } => error.retry_after(default),
            other => other.code().is_transient().then_some(default),
        }
    }
}

fn engine_code(error: &EngineError) -> ErrorCode {
    match error {
        EngineError::InvalidShape(_) | EngineError::InvalidContents(_) => ErrorCode::InvalidArgument,
        EngineError::UnsupportedOperator { .. } | EngineError::UnsupportedType { .. } => ErrorCode::Unsupported,
        EngineError::InvalidModel(_)
        | EngineError::InvalidStep(_)
        | EngineError::Failed(_)
        | EngineError::TooLarge { .. } => ErrorCode::Internal,
    }
}
