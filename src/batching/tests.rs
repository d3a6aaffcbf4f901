//! The room as a whole, on a plan that waits for permission: who shares a batch, who is refused, who is never run.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::admission::{Admission, AdmissionConfig};
use crate::engine::{self, Batch, Cores, Dim, Merging, Part, Plan, Signature, TensorSpec};
use crate::infer::{BatchReason, Batched, Budget, InferRequest, Wanted};
use crate::repository::{ModelSettings, TimeoutAction};
use crate::telemetry::Metrics;
use crate::tensor::{DType, NamedTensor, Shape, Tensor};
use crate::units::{ByteSize, Span};

const MS: Duration = Duration::from_millis(1);

/// Gives back its input once the test lets it. Every run is noted by the values of its rows.
struct Gated {
    signature: Signature,
    merging: Merging,
    go: Mutex<Receiver<()>>,
    runs: Mutex<Vec<Vec<u8>>>,
    threads: Mutex<Vec<ThreadId>>,
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
const INLINE: Duration = Duration::from_micros(50);

/// Inputs whose run goes wrong.
const PANICS: u8 = 200;
const FAILS: u8 = 201;
const UNFIT: u8 = 202;

/// One model on one core, and the gate before it.
struct House {
    batcher: Batcher,
    admission: Admission,
    variant: Arc<Variant>,
    plan: Arc<Gated>,
    gate: SyncSender<()>,
}

fn spec(name: &str) -> TensorSpec {
    TensorSpec { name: name.into(), dtype: DType::U8, dims: vec![Dim::Free(None), Dim::Free(None)] }
}

impl House {
    fn new(change: impl FnOnce(&mut BatchSettings)) -> Self {
        Self::of(Merging::Rows, change)
    }

    fn of(merging: Merging, change: impl FnOnce(&mut BatchSettings)) -> Self {
        Self::timed(merging, None, change)
    }

    fn timed(merging: Merging, row_time: Option<Duration>, change: impl FnOnce(&mut BatchSettings)) -> Self {
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
        let limits = AdmissionConfig { requests_max, bytes_max, receiving_bytes_max: bytes_max, retry_after };
        let admission = Admission::new(limits, metrics);
        Self { batcher: Batcher::new(Pool::start(Some(1)), INLINE), admission, variant, plan, gate }
    }

    /// Sends a request of these rows, each row `width` bytes of the row's value.
    fn ask_wide(&self, rows: &[u8], width: usize, schedule: Schedule) -> JoinHandle<Result<Executed, BatchError>> {
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

    fn ask(&self, rows: &[u8]) -> JoinHandle<Result<Executed, BatchError>> {
        self.ask_wide(rows, 1, Schedule::default())
    }

    fn ask_scheduled(&self, row: u8, schedule: Schedule) -> JoinHandle<Result<Executed, BatchError>> {
        self.ask_wide(&[row], 1, schedule)
    }

    /// Occupies the only core, so that what follows has to queue.
    async fn occupy(&self) -> JoinHandle<Result<Executed, BatchError>> {
        let first = self.ask(&[0]);
        while self.batcher.pool.idle() > 0 {
            tokio::task::yield_now().await;
        }
        first
    }

    /// Lets every run go from now on.
    fn open(&self) {
        while self.gate.try_send(()).is_ok() {}
    }

    fn runs(&self) -> Vec<Vec<u8>> {
        self.plan.runs.lock().unwrap().clone()
    }

    fn queued(&self) -> i64 {
        self.variant.metrics.queue_requests.get()
    }
}

/// Lets all tasks reach their next wait.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn output(executed: &Executed) -> Vec<u8> {
    executed.share[0].bytes().to_vec()
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_told_before_the_request_is_there() {
    let house = House::new(|settings| settings.queue.requests_max = 1);
    let first = house.occupy().await;
    assert!(house.batcher.check_room(&house.variant).is_ok());
    let second = house.ask(&[1]);
    while house.queued() == 0 {
        tokio::task::yield_now().await;
    }
    let full = house.batcher.check_room(&house.variant).unwrap_err();
    assert!(matches!(full, BatchError::QueueFull { what: "requests", limit: 1 }), "{full}");
    house.open();
    assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
    assert!(house.batcher.check_room(&house.variant).is_ok());
}

#[tokio::test]
async fn what_queues_together_runs_together_and_everyone_gets_their_own() {
    let house = House::new(|_| {});
    let first = house.occupy().await;
    let rest: Vec<_> = [&[1][..], &[2, 3], &[4], &[5]].into_iter().map(|rows| house.ask(rows)).collect();
    settle().await;
    house.open();
    assert_eq!(output(&first.await.unwrap().unwrap()), [0]);
    let mut answers = Vec::new();
    for answer in rest {
        answers.push(answer.await.unwrap().unwrap());
    }
    assert_eq!(house.runs(), [vec![0], vec![1, 2, 3, 4], vec![5]]);
    assert_eq!(answers.iter().map(output).collect::<Vec<_>>(), [vec![1], vec![2, 3], vec![4], vec![5]]);
    assert_eq!(answers[1].usage.batch, Some(Batched { rows: 4, reason: BatchReason::Full }));
    assert_eq!(answers[3].usage.batch, Some(Batched { rows: 1, reason: BatchReason::Idle }));
    drop(answers);
    assert_eq!((house.queued(), house.admission.in_flight()), (0, 0));
    let all = house.variant.statistics.snapshot();
    assert_eq!((all.inference_count, all.execution_count, all.success.count), (6, 3, 5));
}

#[tokio::test]
async fn different_shapes_never_share_a_batch() {
    let house = House::new(|_| {});
    let first = house.occupy().await;
    let asked: Vec<_> = [(1, 1), (2, 2), (3, 1), (4, 2)]
        .map(|(v, w)| house.ask_wide(&[v], w, Schedule::default()))
        .into_iter()
        .collect();
    settle().await;
    house.open();
    first.await.unwrap().unwrap();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    let runs = house.runs();
    assert_eq!(runs[..2], [vec![0], vec![1, 3]]);
    // Whether the others share a batch depends on what the first took, which is no matter here.
    assert_eq!(runs[2..].concat(), [2, 2, 4, 4]);
}

#[tokio::test]
async fn models_that_mix_rows_run_one_request_at_a_time() {
    let merging =
        Merging::Alone { operator: "DynamicQuantizeLinear".into(), reason: "its scale spans the batch".into() };
    let house = House::of(merging, |_| {});
    let first = house.occupy().await;
    let asked: Vec<_> = [&[1][..], &[2, 3], &[4]].into_iter().map(|rows| house.ask(rows)).collect();
    settle().await;
    house.open();
    first.await.unwrap().unwrap();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![1], vec![2, 3], vec![4]]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_keeps_what_it_has() {
    let house = House::new(|batching| {
        batching.queue.requests_max = 2;
        batching.queue.bytes_max = 3;
    });
    let first = house.occupy().await;
    let held = [house.ask(&[1]), house.ask(&[2])];
    settle().await;
    let refused = house.ask(&[3]).await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "the queue of the model is full: it holds at most 2 requests");
    assert_eq!(house.queued(), 2);
    house.open();
    first.await.unwrap().unwrap();
    for answer in held {
        answer.await.unwrap().unwrap();
    }
    let refused = house.ask_wide(&[1], 4, Schedule::default()).await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "the queue of the model is full: it holds at most 3 bytes");
}

#[tokio::test(start_paused = true)]
async fn an_expired_request_is_answered_by_the_clock_and_never_run() {
    let house = House::new(|_| {});
    let first = house.occupy().await;
    let asked_at = Instant::now();
    let deadline = Schedule { deadline: Some(asked_at + 50 * MS), ..Schedule::default() };
    let timeout = Schedule { queue_timeout: Some(30 * MS), ..Schedule::default() };
    let (by_deadline, by_timeout) = (house.ask_scheduled(1, deadline), house.ask_scheduled(2, timeout));
    assert!(matches!(by_timeout.await.unwrap(), Err(BatchError::Expired { .. })));
    assert_eq!(asked_at.elapsed().as_millis(), 30);
    assert!(matches!(by_deadline.await.unwrap(), Err(BatchError::Expired { .. })));
    assert_eq!(asked_at.elapsed().as_millis(), 50);
    settle().await;
    assert_eq!(house.queued(), 0);
    house.open();
    first.await.unwrap().unwrap();
    assert_eq!(house.runs(), [vec![0]]);
    assert_eq!(house.admission.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_request_can_be_delayed_instead() {
    let house = House::new(|batching| {
        batching.queue.timeout_action = TimeoutAction::Delay;
        batching.batch_size_max = 1;
    });
    let first = house.occupy().await;
    let timeout = Schedule { queue_timeout: Some(10 * MS), ..Schedule::default() };
    let late = house.ask_scheduled(1, timeout);
    let in_time = house.ask(&[2]);
    tokio::time::sleep(20 * MS).await;
    house.open();
    for answer in [first, late, in_time] {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![2], vec![1]]);
}

#[tokio::test]
async fn an_abandoned_request_gives_its_place_back_and_never_runs() {
    let house = House::new(|batching| batching.queue.requests_max = 1);
    let first = house.occupy().await;
    let abandoned = house.ask(&[1]);
    settle().await;
    assert_eq!(house.queued(), 1);
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    settle().await;
    assert_eq!((house.queued(), house.admission.in_flight()), (0, 1));
    let next = house.ask(&[2]);
    settle().await;
    house.open();
    for answer in [first, next] {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![2]]);
}

#[tokio::test]
async fn higher_priorities_go_first() {
    let house = House::new(|batching| {
        batching.priority_levels = 3;
        batching.default_priority = 2;
        batching.batch_size_max = 1;
    });
    let first = house.occupy().await;
    let priority = |priority| Schedule { priority, ..Schedule::default() };
    let asked: Vec<_> = [(1, 3), (2, 0), (3, 1), (4, 2), (5, 99)]
        .map(|(row, level)| house.ask_scheduled(row, priority(level)))
        .into_iter()
        .collect();
    settle().await;
    house.open();
    first.await.unwrap().unwrap();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![3], vec![2], vec![4], vec![5], vec![1]]);
}

#[tokio::test]
async fn a_panic_or_failure_ends_its_batch_only() {
    let house = House::new(|_| {});
    house.open();
    assert!(matches!(house.ask(&[PANICS]).await.unwrap(), Err(BatchError::Panicked)));
    assert!(matches!(house.ask(&[FAILS]).await.unwrap(), Err(BatchError::Engine(_))));
    assert_eq!(output(&house.ask(&[7]).await.unwrap().unwrap()), [7]);
    assert_eq!((house.queued(), house.admission.in_flight()), (0, 0));
}

#[tokio::test]
async fn contents_that_do_not_fit_cost_nobody_else_an_answer() {
    let house = House::new(|batching| batching.queue_delay_max = 100 * MS);
    house.open();
    let asked: Vec<_> = [1, 2, UNFIT, 4].into_iter().map(|row| house.ask(&[row])).collect();
    for (answer, row) in asked.into_iter().zip([Some(1), Some(2), None, Some(4)]) {
        let answer = answer.await.unwrap();
        assert_eq!(answer.as_ref().ok().map(output), row.map(|row| vec![row]));
    }
    assert_eq!(house.runs(), [vec![1, 2, UNFIT, 4], vec![1, 2], vec![UNFIT, 4], vec![UNFIT], vec![4]]);
    assert_eq!((house.queued(), house.admission.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_fills_a_batch_or_ends_with_the_delay() {
    let house = House::new(|batching| batching.queue_delay_max = 20 * MS);
    house.open();
    let asked_at = Instant::now();
    let (a, b) = (house.ask(&[1]), house.ask(&[2]));
    assert_eq!(a.await.unwrap().unwrap().usage.batch.unwrap().reason, BatchReason::Delay);
    assert_eq!(b.await.unwrap().unwrap().usage.batch.unwrap().rows, 2);
    assert_eq!(asked_at.elapsed().as_millis(), 20);
    let four: Vec<_> = (3..7).map(|row| house.ask(&[row])).collect();
    for answer in four {
        assert_eq!(answer.await.unwrap().unwrap().usage.batch.unwrap().reason, BatchReason::Full);
    }
    assert_eq!(asked_at.elapsed().as_millis(), 20, "a full batch waits for nothing");
}

#[tokio::test]
async fn the_worker_ends_with_its_variant() {
    let house = House::new(|_| {});
    house.open();
    house.ask(&[1]).await.unwrap().unwrap();
    let plan = Arc::downgrade(&house.plan);
    let House { variant, plan: held, .. } = house;
    drop((variant, held));
    while plan.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_quick_runs_where_it_was_formed() {
    for (micros, rows, is_here) in [(20, 1, true), (20, 2, true), (20, 3, false), (60, 1, false)] {
        let house = House::timed(Merging::Rows, Some(Duration::from_micros(micros)), |_| {});
        house.open();
        let answer = house.ask(&vec![7; rows]).await.unwrap().unwrap();
        assert_eq!(answer.usage.batch.unwrap().rows, rows);
        let ran_here = *house.plan.threads.lock().unwrap() == [thread::current().id()];
        assert_eq!(ran_here, is_here, "{rows} rows of {micros} us");
        assert_eq!(house.batcher.pool.idle(), 1, "the core was given back");
    }
}

#[tokio::test]
async fn a_quick_batch_waits_for_a_core_and_a_panic_ends_it_only() {
    let house = House::timed(Merging::Rows, Some(Duration::from_micros(1)), |_| {});
    let core = house.batcher.pool.try_acquire().unwrap();
    let together = [house.ask(&[1]), house.ask(&[2])];
    settle().await;
    assert_eq!((house.runs().len(), house.queued()), (0, 2));
    house.open();
    drop(core);
    for answer in together {
        assert_eq!(answer.await.unwrap().unwrap().usage.batch.unwrap().rows, 2);
    }
    assert!(matches!(house.ask(&[PANICS]).await.unwrap(), Err(BatchError::Panicked)));
    assert_eq!(output(&house.ask(&[7]).await.unwrap().unwrap()), [7]);
}

#[tokio::test]
async fn nobody_overtakes_where_order_is_kept() {
    let house = House::new(|batching| batching.preserve_ordering = true);
    let first = house.occupy().await;
    let asked: Vec<_> = [(1, 1), (2, 2), (3, 1)]
        .map(|(value, width)| house.ask_wide(&[value], width, Schedule::default()))
        .into_iter()
        .collect();
    settle().await;
    house.open();
    first.await.unwrap().unwrap();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(house.runs(), [vec![0], vec![1], vec![2, 2], vec![3]]);
}

#[tokio::test]
async fn who_leaves_during_the_run_is_no_success() {
    let house = House::new(|_| {});
    let first = house.occupy().await;
    while house.plan.threads.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    house.open();
    house.ask(&[1]).await.unwrap().unwrap();
    let all = house.variant.statistics.snapshot();
    assert_eq!((all.execution_count, all.success.count), (2, 1));
}
