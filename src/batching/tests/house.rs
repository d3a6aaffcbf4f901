//! One model on one core behind a gate, for the tests of this room.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admission::{Admission, AdmissionConfig};
use crate::batching::{BatchError, Batcher, Executed};
use crate::engine::{self, Batch, Cores, Dim, EngineError, Merging, Part, Plan, Pool, Signature, TensorSpec};
use crate::infer::{Budget, InferRequest, Schedule, Wanted};
use crate::repository::{BatchSettings, ModelSettings, Variant};
use crate::routing::Routed;
use crate::telemetry::Metrics;
use crate::tensor::{DType, NamedTensor, Shape, Tensor};
use crate::units::{ByteSize, Span};

pub(super) const MS: Duration = Duration::from_millis(1);

/// Gives back its input once the test lets it. Every run is noted by the values of its rows.
pub(super) struct Gated {
    pub(super) signature: Signature,
    pub(super) merging: Merging,
    pub(super) go: Mutex<Receiver<()>>,
    pub(super) runs: Mutex<Vec<Vec<u8>>>,
    pub(super) threads: Mutex<Vec<ThreadId>>,
    /// What it says a row takes, if it says anything.
    row_time: Option<Duration>,
}

impl std::fmt::Debug for Gated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gated")
    }
}

impl Plan for Gated {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn merging(&self) -> &Merging {
        &self.merging
    }

    fn parts(&self) -> &[Part] {
        &[]
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    fn time_of(&self, rows: usize) -> Option<Duration> {
        Some(self.row_time? * u32::try_from(rows).unwrap())
    }

    fn run(&self, batch: &Batch, _: &Cores) -> Result<engine::Executed, EngineError> {
        self.threads.lock().unwrap().push(thread::current().id());
        self.go.lock().unwrap().recv().unwrap();
        let input = batch.inputs[0].to_tensor();
        self.runs.lock().unwrap().push(input.bytes().to_vec());
        match input.bytes().first() {
            Some(&PANICS) => panic!("asked for"),
            Some(&FAILS) => Err(EngineError::Failed("asked for".into())),
            _ if input.bytes().contains(&UNFIT) => Err(EngineError::InvalidContents("asked for".into())),
            _ => Ok(engine::Executed {
                shares: engine::batch::scatter(&[input], &batch.rows),
                times: crate::infer::ComputeTimes::default(),
                helper_cpu: Duration::ZERO,
            }),
        }
    }

    fn warm_up(&self, _: usize, _: &Cores) -> Result<(), EngineError> {
        Ok(())
    }
}

/// The longest batch that runs where it was formed.
pub(super) const INLINE: Duration = Duration::from_micros(50);

/// Inputs whose run goes wrong.
pub(super) const PANICS: u8 = 200;
pub(super) const FAILS: u8 = 201;
pub(super) const UNFIT: u8 = 202;

/// One model on one core, and the gate before it.
pub(super) struct House {
    pub(super) batcher: Batcher,
    pub(super) admission: Admission,
    pub(super) variant: Arc<Variant>,
    pub(super) plan: Arc<Gated>,
    pub(super) gate: SyncSender<()>,
}

pub(super) fn spec(name: &str) -> TensorSpec {
    TensorSpec { name: name.into(), dtype: DType::U8, dims: vec![Dim::Free(None), Dim::Free(None)] }
}

impl House {
    pub(super) fn new(change: impl FnOnce(&mut BatchSettings)) -> Self {
        Self::of(Merging::Rows, change)
    }

    pub(super) fn of(merging: Merging, change: impl FnOnce(&mut BatchSettings)) -> Self {
        Self::timed(merging, None, change)
    }

    pub(super) fn timed(merging: Merging, row_time: Option<Duration>, change: impl FnOnce(&mut BatchSettings)) -> Self {
        let (gate, go) = sync_channel(100);
        let signature = Signature { inputs: vec![spec("x")], outputs: vec![spec("y")] };
        let plan = Arc::new(Gated {
            signature,
            merging,
            go: Mutex::new(go),
            runs: Mutex::default(),
            threads: Mutex::default(),
            row_time,
        });
        let mut batching = crate::config::Config::default().batching.settings();
        batching.batch_size_max = 4;
        change(&mut batching);
        let metrics = Arc::new(Metrics::new());
        let settings = ModelSettings { instances_max: 4, ..ModelSettings::plain(batching, 1) };
        let bare = Variant::bare(Arc::clone(&plan) as Arc<dyn Plan>, settings);
        let variant = Arc::new(Variant { metrics: metrics.model("m", "1", ""), ..bare });
        let (requests_max, bytes_max, retry_after) = (1000, ByteSize(1 << 30), Span(MS));
        let limits = AdmissionConfig {
            requests_max,
            bytes_max,
            receiving_bytes_max: bytes_max,
            leaving_bytes_max: bytes_max,
            retry_after,
        };
        let admission = Admission::new(limits, metrics);
        Self { batcher: Batcher::new(Pool::start(Some(1)), INLINE), admission, variant, plan, gate }
    }

    /// Sends a request of these rows, each row `width` bytes of the row's value.
    pub(super) fn ask_wide(
        &self,
        rows: &[u8],
        width: usize,
        schedule: Schedule,
    ) -> JoinHandle<Result<Executed, BatchError>> {
        let bytes: Vec<u8> = rows.iter().flat_map(|row| vec![*row; width]).collect();
        let tensor = Tensor::new(DType::U8, Shape::new(&[rows.len(), width]), bytes.into()).unwrap();
        let request = InferRequest {
            model: self.variant.model.clone(),
            version: None,
            variant: Wanted::Any,
            budget: Budget::default(),
            id: None,
            inputs: vec![NamedTensor { name: "x".into(), tensor: tensor.clone() }],
            outputs: vec![],
            schedule,
            received_at: Instant::now(),
            decode: Duration::ZERO,
        };
        let admitted = self.admission.admit(request).unwrap();
        let variant = Arc::clone(&self.variant);
        let routed =
            Routed { admitted, variant, inputs: vec![tensor], rows: rows.len(), arrived: Instant::now(), grant: None };
        let batcher = self.batcher.clone();
        tokio::spawn(async move { batcher.submit(routed, None).await })
    }

    pub(super) fn ask(&self, rows: &[u8]) -> JoinHandle<Result<Executed, BatchError>> {
        self.ask_wide(rows, 1, Schedule::default())
    }

    pub(super) fn ask_scheduled(&self, row: u8, schedule: Schedule) -> JoinHandle<Result<Executed, BatchError>> {
        self.ask_wide(&[row], 1, schedule)
    }

    /// Occupies the only core, so that what follows has to queue.
    pub(super) async fn occupy(&self) -> JoinHandle<Result<Executed, BatchError>> {
        let first = self.ask(&[0]);
        while self.batcher.pool.idle() > 0 {
            tokio::task::yield_now().await;
        }
        first
    }

    /// Lets every run go from now on.
    pub(super) fn open(&self) {
        while self.gate.try_send(()).is_ok() {}
    }

    pub(super) fn runs(&self) -> Vec<Vec<u8>> {
        self.plan.runs.lock().unwrap().clone()
    }

    pub(super) fn queued(&self) -> i64 {
        self.variant.metrics.queue_requests.get()
    }
}

/// Lets all tasks reach their next wait.
pub(super) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub(super) fn output(executed: &Executed) -> Vec<u8> {
    executed.share[0].bytes().to_vec()
}
