//! One trial: requests that arrive at random (a Poisson process), whether the ones before are answered or not, so that
//! waiting is seen and not hidden by clients that wait.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::search::Measured;
use crate::admission::Admission;
use crate::batching::Batcher;
use crate::engine::pool::lock;
use crate::infer::{Budget, InferRequest, Schedule, Wanted};
use crate::pipeline::InferError;
use crate::repository::Variant;
use crate::routing::Router;
use crate::tensor::{NamedTensor, Tensor};

/// Who sends, and what.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) admission: Admission,
    pub(super) router: Router,
    pub(super) batcher: Batcher,
    /// Taken by turns.
    pub(super) rows: Vec<Vec<Tensor>>,
    /// Requests a second.
    pub(super) rate: f64,
    pub(super) runtime: Handle,
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Random(u64);

/// How long each answer took, from when its request was due; nothing for one that failed.
type Answers = Arc<Mutex<Vec<Option<Duration>>>>;

/// Serves a build under the load for some time. Who is not answered `patience` after that is not waited for.
pub(super) async fn run(load: &Arc<Load>, variant: &Arc<Variant>, time: Duration, patience: Duration) -> Measured {
    let answers = Answers::default();
    let (ended, sent) = oneshot::channel();
    let (sender, variant_of, all) = (Arc::clone(load), Arc::clone(variant), Arc::clone(&answers));
    // A thread that sleeps is punctual to some ten microseconds, a timer of the runtime to a millisecond.
    let spawned = thread::Builder::new().name("kinglet-load".into()).spawn(move || {
        let _ = ended.send(send(&sender, &variant_of, time, &all));
    });
    let (sent, mut asking) = if spawned.is_ok() { sent.await.unwrap_or_default() } else { Default::default() };
    let _ = timeout(patience, async { while asking.join_next().await.is_some() {} }).await;
    // Those that still wait leave their queue, so that the next trial finds an idle machine.
    asking.shutdown().await;
    let statistics = variant.statistics.snapshot();
    let answers = std::mem::take(&mut *lock(&answers));
    let mut times: Vec<Duration> = answers.into_iter().flatten().collect();
    times.sort_unstable();
    let failed = sent - times.len();
    // Who was not answered waited for longer than anybody.
    let at = |share: f64| times.get(rank(share, sent)).copied().unwrap_or(time + patience);
    let (p50, p99) = (at(0.5), at(0.99));
    let batches = usize::try_from(statistics.execution_count).unwrap_or(usize::MAX);
    Measured { requests: sent, failed, p50, p99, cpu: statistics.cpu, batches, energy: None }
}

/// Sends until the time is over, and says how many it sent, with those that are on their way.
fn send(load: &Arc<Load>, variant: &Arc<Variant>, time: Duration, answers: &Answers) -> (usize, JoinSet<()>) {
    let (began, mut random, mut due) = (Instant::now(), Random(SEED), Duration::ZERO);
    let mut asking = JoinSet::new();
    for sent in 0..REQUESTS_MAX {
        due += Duration::from_secs_f64(random.exponential() / load.rate);
        if due >= time {
            return (sent, asking);
        }
        let at = began + due;
        thread::sleep(at.saturating_duration_since(Instant::now()));
        while asking.try_join_next().is_some() {}
        let (load, variant, answers) = (Arc::clone(load), Arc::clone(variant), Arc::clone(answers));
        let inputs = load.rows[sent % load.rows.len()].clone();
        let runtime = load.runtime.clone();
        let ask = async move {
            let answered = ask(&load, variant, inputs).await;
            let took = answered.is_ok().then(|| at.elapsed());
            lock(&answers).push(took);
        };
        asking.spawn_on(ask, &runtime);
    }
    (REQUESTS_MAX, asking)
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Of mean 1, as gaps of a Poisson process are.
    fn exponential(&mut self) -> f64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        -(1.0 - unit).ln()
    }
}

async fn ask(load: &Load, variant: Arc<Variant>, inputs: Vec<Tensor>) -> Result<(), InferError> {
    let specs = &variant.signature.inputs;
    let named = |(tensor, spec): (Tensor, &crate::engine::TensorSpec)| NamedTensor { name: spec.name.clone(), tensor };
    let request = InferRequest {
        model: variant.model.clone(),
        version: None,
        variant: Wanted::Any,
        budget: Budget::default(),
        id: None,
        inputs: inputs.into_iter().zip(specs).map(named).collect(),
        outputs: Vec::new(),
        schedule: Schedule::default(),
        received_at: Instant::now(),
        decode: Duration::ZERO,
    };
    let admitted = load.admission.admit(request)?;
    let routed = load.router.bind(admitted, variant)?;
    load.batcher.submit(routed, None).await?;
    Ok(())
}

/// The place of a share in so many sorted ones: the smallest that at least that share is not above.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count")]
fn rank(share: f64, count: usize) -> usize {
    ((share * count as f64).ceil() as usize).saturating_sub(1)
}

/// The same arrivals in every trial.
const SEED: u64 = 1;
/// A trial needs no more, and their times must be held.
const REQUESTS_MAX: usize = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_those_of_a_poisson_process() {
        let mut random = Random(SEED);
        let gaps: Vec<f64> = (0..100_000).map(|_| random.exponential()).collect();
        let mean = gaps.iter().sum::<f64>() / 1e5;
        let above = gaps.iter().filter(|gap| **gap > 1.0).count() as f64 / 1e5;
        assert!((mean - 1.0).abs() < 0.01 && (above - (-1.0f64).exp()).abs() < 0.01, "{mean} {above}");
    }

    #[test]
    fn ranks_are_of_the_whole_count() {
        assert_eq!((rank(0.5, 4), rank(0.99, 100), rank(0.99, 1000), rank(0.99, 1)), (1, 98, 989, 0));
        assert_eq!(rank(0.99, 0), 0);
    }
}
