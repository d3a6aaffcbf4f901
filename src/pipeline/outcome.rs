//! What becomes of an inference call: counted once by what its client was told, taken once from what its caller may.

use std::sync::Arc;

use tokio::time::Instant;

use super::Computed;
use crate::access::{Caller, Denied, Taken, Target, Verb};
use crate::error::ErrorCode;
use crate::infer::{CacheOutcome, InferRequest, ModelName};
use crate::metering::Estimate;
use crate::repository::Variant;
use crate::routing::{Choice, Routed};
use crate::telemetry::Metrics;
use crate::telemetry::spans::{Recording, Traced};

/// An inference call on its way to its outcome, which is counted exactly once: as it is settled, or as cancelled where the
/// caller went away before.
#[derive(Debug)]
pub struct Outcome {
    /// Who makes it.
    caller: Caller,
    /// Whether it has been taken from what its caller may.
    is_taken: bool,
    /// As many as were taken from its caller's.
    rows: Option<Taken>,
    metrics: Arc<Metrics>,
    began: Instant,
    received_at: Option<Instant>,
    variant: Option<Arc<Variant>>,
    /// Whether its batch has run, which the statistics have noted then.
    answered: bool,
    settled: bool,
    /// Of its spans, where it is sampled.
    recording: Option<Recording>,
}

impl Outcome {
    pub(super) fn new(metrics: Arc<Metrics>, caller: Caller) -> Self {
        Self {
            metrics,
            caller,
            is_taken: false,
            rows: None,
            began: Instant::now(),
            received_at: None,
            variant: None,
            answered: false,
            settled: false,
            recording: None,
        }
    }

    /// The same with its spans.
    pub fn recorded(mut self, recording: Option<Recording>) -> Self {
        self.recording = recording;
        self
    }

    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// When the call's head came.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// To be called when the body is whole: what it takes from here on is time of ours.
    pub fn received(&mut self, at: Instant) {
        self.received_at = Some(at);
    }

    /// From here on the call counts for this build.
    pub fn found(&mut self, variant: &Arc<Variant>) {
        self.variant = Some(Arc::clone(variant));
        if let Some(recording) = self.recording.take() {
            self.recording = recording.of_model(&variant.model);
        }
    }

    /// To be called where the client is told by a status of HTTP that is not the code's.
    pub fn told(&mut self, http_status: u16) {
        if let Some(recording) = &mut self.recording {
            recording.told(http_status);
        }
    }

    /// To be called with what the client is told: the code of the failure, or nothing where it gets its answer.
    pub fn settle(mut self, failed: Option<ErrorCode>) {
        self.settled = true;
        self.finish_rows();
        self.finish_recording(failed);
        match (failed, &self.variant) {
            (None, Some(variant)) => variant.metrics.count_ok(),
            (None, None) => debug_assert!(false, "an answer comes from a variant"),
            (Some(code), _) => self.failed(code),
        }
    }

    pub(super) fn decoded(&mut self, request: &InferRequest) {
        if let Some(recording) = &mut self.recording {
            recording.decoded(request.received_at, request.decode);
        }
    }

    pub(super) fn chosen(&mut self, choice: &Choice) {
        let Some(reason) = choice.reason else { return };
        choice.variant.metrics.choices.count(reason);
        if let Some(recording) = &mut self.recording {
            recording.chosen(reason);
        }
    }

    pub(super) fn looked_up(&mut self, routed: &Routed, found: Option<CacheOutcome>) {
        if let (Some(recording), Some(outcome)) = (&mut self.recording, found) {
            recording.looked_up(routed.arrived, routed.arrived.elapsed(), outcome);
        }
    }

    pub(super) fn executed(&mut self, computed: &Computed, energy: Option<Estimate>) {
        self.answered = true;
        if let Some(recording) = &mut self.recording {
            let Computed { executed, runs } = computed;
            recording.executed(executed.began, &executed.usage, executed.routed.rows, runs);
        }
        self.took(energy);
    }

    /// Takes the request from what its caller may, once.
    pub(super) fn take(&mut self, model: &ModelName) -> Result<(), Denied> {
        self.caller.check(Verb::Infer, Target::Model(model.as_str()))?;
        if !self.is_taken {
            self.caller.take_request(Instant::now())?;
            self.is_taken = true;
        }
        Ok(())
    }

    pub(super) fn take_rows(&mut self, rows: usize) -> Result<(), Denied> {
        self.rows = self.caller.take_rows(rows)?;
        Ok(())
    }

    /// Its answer was there already.
    pub(super) fn kept(&mut self, energy: Option<Estimate>) {
        self.answered = true;
        self.took(energy);
    }

    pub(super) fn traced(&self) -> Option<Traced> {
        self.recording.as_ref().map(Recording::traced)
    }

    fn took(&mut self, energy: Option<Estimate>) {
        if let Some(estimate) = energy {
            self.caller.spend(estimate.energy.as_joules());
        }
        if let (Some(recording), Some(Estimate { energy, kind })) = (&mut self.recording, energy) {
            recording.energy(energy, kind.origin());
        }
    }

    fn finish_recording(&mut self, failed: Option<ErrorCode>) {
        let Some(mut recording) = self.recording.take() else { return };
        if let Some(variant) = &self.variant {
            recording.served_by(variant.served());
        }
        recording.finish(failed);
    }

    /// Rows that were not computed are given back.
    fn finish_rows(&mut self) {
        match self.rows.take() {
            Some(rows) if self.answered => rows.computed(),
            Some(rows) => rows.give_back(),
            None => {}
        }
    }

    fn failed(&self, code: ErrorCode) {
        let taken = self.received_at.map(|at| at.elapsed());
        if code == ErrorCode::Overloaded
            && let Some(taken) = taken
        {
            self.metrics.refusal_duration.observe(taken.as_secs_f64());
        }
        let Some(variant) = &self.variant else { return self.metrics.count_unrouted(code) };
        variant.metrics.count_error(code);
        // The statistics know a request that was answered as a success, whatever its encoder made of it.
        if !self.answered {
            variant.statistics.record_failure(taken.unwrap_or_default());
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if !self.settled {
            self.finish_rows();
            self.finish_recording(Some(ErrorCode::Cancelled));
            self.failed(ErrorCode::Cancelled);
        }
    }
}
