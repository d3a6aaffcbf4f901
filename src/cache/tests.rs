//! The room as a whole, under paused time: runs are made up by the tests, which play the rooms behind it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::future::join_all;
use futures_util::poll;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::*;
use crate::admission::{Admission, AdmissionConfig};
use crate::engine::{self, Batch, Cores, Dim, EngineError, Merging, Part, Plan, Signature, TensorSpec};
use crate::infer::{Budget, InferRequest, Schedule, Wanted};
use crate::repository::ModelSettings;
use crate::tensor::{DType, Shape, Tensor};
use crate::units::ByteSize;

const MS: Duration = Duration::from_millis(1);

/// Is never run.
#[derive(Debug)]
struct Unrun(Signature);

impl Plan for Unrun {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn merging(&self) -> &Merging {
        &Merging::Rows
    }

    fn parts(&self) -> &[Part] {
        &[]
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    fn run(&self, _: &Batch, _: &Cores) -> Result<engine::Executed, EngineError> {
        unreachable!("nothing is run in this room")
    }

    fn warm_up(&self, _: usize, _: &Cores) -> Result<(), EngineError> {
        Ok(())
    }
}

/// One model, whose answers are kept.
struct House {
    cache: Cache,
    admission: Admission,
    variant: Arc<Variant>,
}

fn variant(metrics: &Metrics, response_cache: bool) -> Arc<Variant> {
    let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::U8, dims: vec![Dim::Free(None)] };
    let signature = Signature { inputs: vec![spec("x")], outputs: vec![spec("y")] };
    let batching = crate::config::Config::default().batching.settings();
    let settings = ModelSettings { response_cache, ..ModelSettings::plain(batching, 1) };
    let metrics = metrics.model("m", "1", "");
    Arc::new(Variant { metrics, ..Variant::bare(Arc::new(Unrun(signature)), settings) })
}

impl House {
    fn new(bytes_max: u64) -> Self {
        let metrics = Arc::new(Metrics::new());
        let cache = Cache::new(&CacheConfig { bytes_max: ByteSize(bytes_max) }, &metrics);
        let limits = AdmissionConfig { requests_max: 10_000, ..crate::config::Config::default().admission };
        let variant = variant(&metrics, true);
        Self { cache, admission: Admission::new(limits, metrics), variant }
    }

    fn routed(&self, input: u8, schedule: Schedule) -> Routed {
        self.routed_to(&self.variant, input, schedule)
    }

    fn routed_to(&self, variant: &Arc<Variant>, input: u8, schedule: Schedule) -> Routed {
        let request = InferRequest {
            model: variant.model.clone(),
            version: None,
            variant: Wanted::Any,
            budget: Budget::default(),
            id: None,
            inputs: vec![],
            outputs: vec![],
            schedule,
            received_at: Instant::now(),
            decode: Duration::ZERO,
        };
        let admitted = self.admission.admit(request).unwrap();
        let (variant, inputs, arrived) = (Arc::clone(variant), share(input), Instant::now());
        Routed { admitted, variant, inputs, rows: 1, arrived, grant: None }
    }

    async fn ask(&self, input: u8) -> Found {
        self.cache.look_up(&self.routed(input, Schedule::default())).await.unwrap().unwrap()
    }

    async fn lead(&self, input: u8) -> Lead {
        lead(self.ask(input).await)
    }

    fn counted(&self, outcome: CacheOutcome) -> u64 {
        let text = String::from_utf8(self.cache.metrics.render()).unwrap();
        let series =
            format!("kinglet_cache_lookups_total{{model=\"m\",outcome=\"{}\",version=\"1\"}} ", outcome.as_str());
        text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
    }
}

fn share(value: u8) -> Share {
    vec![Tensor::new(DType::U8, Shape::new(&[1]), vec![value].into()).unwrap()]
}

fn lead(found: Found) -> Lead {
    match found {
        Found::Nothing(lead) => lead,
        Found::Answer(kept) => panic!("there is an answer: {kept:?}"),
    }
}

fn kept(found: Found) -> (u8, CacheOutcome) {
    match found {
        Found::Answer(kept) => (kept.share[0].bytes()[0], kept.outcome),
        Found::Nothing(_) => panic!("there is no answer"),
    }
}

fn until(deadline: Instant) -> Schedule {
    Schedule { deadline: Some(deadline), ..Schedule::default() }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_given_again_to_equal_inputs_alone() {
    let house = House::new(1 << 20);
    house.lead(1).await.answer(&share(101)).await;
    assert_eq!(kept(house.ask(1).await), (101, CacheOutcome::Hit));
    drop(house.lead(2).await);
    assert_eq!((house.counted(CacheOutcome::Hit), house.counted(CacheOutcome::Miss)), (1, 2));
    assert_eq!(house.variant.statistics.snapshot().cache_miss.count, 1, "those that were answered");
    assert_eq!(house.cache.holding().flights, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_asked_for_is_not_kept() {
    let house = House::new(1 << 20);
    let plain = variant(&house.cache.metrics, false);
    let routed = house.routed_to(&plain, 1, Schedule::default());
    assert!(house.cache.look_up(&routed).await.unwrap().is_none());
    house.cache.reconfigure(&CacheConfig { bytes_max: ByteSize(0) });
    assert!(
        house.cache.look_up(&house.routed(1, Schedule::default())).await.unwrap().is_none(),
        "nor without a budget"
    );
}

#[tokio::test(start_paused = true)]
async fn those_that_come_meanwhile_wait_for_the_first() {
    let house = House::new(1 << 20);
    let first = house.lead(1).await;
    let followers = join_all((0..5).map(|_| house.ask(1)));
    let (answers, ()) = tokio::join!(followers, async {
        sleep(MS).await;
        first.answer(&share(101)).await;
    });
    answers.into_iter().for_each(|found| assert_eq!(kept(found), (101, CacheOutcome::Coalesced)));
    assert_eq!((house.counted(CacheOutcome::Coalesced), house.counted(CacheOutcome::Miss)), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_kept_goes_to_those_who_wait() {
    let house = House::new(1);
    let first = house.lead(1).await;
    let mut follower = pin!(house.ask(1));
    assert!(poll!(follower.as_mut()).is_pending());
    first.answer(&share(101)).await;
    assert_eq!(kept(follower.await), (101, CacheOutcome::Coalesced));
    drop(house.lead(1).await);
    assert_eq!(house.cache.holding().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn when_the_first_leaves_the_next_leads() {
    let house = House::new(1 << 20);
    let first = house.lead(1).await;
    let (mut second, mut third) = (pin!(house.ask(1)), pin!(house.ask(1)));
    assert!(poll!(second.as_mut()).is_pending() && poll!(third.as_mut()).is_pending());
    drop(first);
    let second = lead(second.await);
    assert!(poll!(third.as_mut()).is_pending(), "it follows the second");
    second.answer(&share(101)).await;
    assert_eq!(kept(third.await), (101, CacheOutcome::Coalesced));
}

#[tokio::test(start_paused = true)]
async fn when_the_first_fails_nobody_waits_for_another_failure() {
    let house = House::new(1 << 20);
    let first = house.lead(1).await;
    let followers = join_all((0..5).map(|_| house.ask(1)));
    let (found, ()) = tokio::join!(followers, async {
        sleep(MS).await;
        first.fail();
    });
    let leads: Vec<Lead> = found.into_iter().map(lead).collect();
    assert_eq!(house.cache.holding(), Holding { flights: 0, ..house.cache.holding() });
    drop(leads);
    assert_eq!(house.cache.holding().entries, 0, "a failure is not kept");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_its_deadline() {
    let house = House::new(1 << 20);
    let begun = Instant::now();
    let _first = lead(house.cache.look_up(&house.routed(1, until(begun + 5 * MS))).await.unwrap().unwrap());
    let error = house.cache.look_up(&house.routed(1, until(begun + 7 * MS))).await.unwrap_err();
    assert_eq!(error.to_string(), "the deadline passed after 7ms, before the request was answered");
    assert_eq!(begun.elapsed(), 7 * MS);
    let late = house.cache.look_up(&house.routed(1, until(begun))).await.unwrap_err();
    assert_eq!(late.to_string(), "the deadline passed after 0ns, before the request was answered");
}

#[tokio::test(start_paused = true)]
async fn only_those_who_are_in_no_more_of_a_hurry_follow() {
    let (begun, usual) = (Instant::now(), Schedule::default());
    let (soon, late) = (until(begun + MS), until(begun + 9 * MS));
    let urgent = Schedule { priority: 1, ..usual };
    let impatient = Schedule { queue_timeout: Some(MS), ..usual };
    for (first, second, follows) in [
        (usual, usual, true),
        (soon, late, true),
        (soon, soon, true),
        (soon, usual, true),
        (late, soon, false),
        (usual, late, false),
        (usual, urgent, false),
        (urgent, usual, false),
        (usual, impatient, false),
        (impatient, impatient, true),
    ] {
        let house = House::new(1 << 20);
        let first_lead = lead(house.cache.look_up(&house.routed(1, first)).await.unwrap().unwrap());
        let routed = house.routed(1, second);
        let mut second_found = pin!(house.cache.look_up(&routed));
        let polled = poll!(second_found.as_mut());
        assert_eq!(polled.is_pending(), follows, "{first:?} {second:?}");
        // Whoever leads in the place of another is followed, and the other's end changes nothing about that.
        drop(first_lead);
        let second_lead = match polled {
            std::task::Poll::Ready(found) => lead(found.unwrap().unwrap()),
            std::task::Poll::Pending => lead(second_found.await.unwrap().unwrap()),
        };
        assert_eq!(house.cache.holding().flights, 1);
        let third = house.routed(1, second);
        let mut third = pin!(house.cache.look_up(&third));
        assert!(poll!(third.as_mut()).is_pending());
        second_lead.answer(&share(101)).await;
        assert_eq!(kept(third.await.unwrap().unwrap()).0, 101);
    }
}

#[tokio::test(start_paused = true)]
async fn a_build_never_gets_the_answers_of_another_and_takes_its_own_along() {
    let mut house = House::new(1 << 20);
    house.lead(1).await.answer(&share(101)).await;
    let reloaded = variant(&house.cache.metrics, true);
    let routed = house.routed_to(&reloaded, 1, Schedule::default());
    lead(house.cache.look_up(&routed).await.unwrap().unwrap()).answer(&share(102)).await;
    drop(routed);
    assert_eq!(house.cache.holding().entries, 2);
    assert_eq!(kept(house.ask(1).await).0, 101);
    house.variant = reloaded;
    assert_eq!(house.cache.holding().entries, 1, "the old build was unloaded");
    assert_eq!(kept(house.ask(1).await).0, 102);
    assert_eq!(house.cache.clear().entries, 1);
    assert_eq!((house.cache.holding().entries, house.cache.holding().bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_budget_holds_counts_and_shrinks() {
    let house = House::new(10_000);
    for input in 0..200 {
        house.lead(input).await.answer(&share(input)).await;
        let Holding { entries, bytes, .. } = house.cache.holding();
        assert!(bytes <= 10_000 && entries > 0, "{bytes}");
    }
    let Holding { entries, bytes, .. } = house.cache.holding();
    let text = String::from_utf8(house.cache.metrics.render()).unwrap();
    for (name, value) in [
        ("entries", entries as u64),
        ("bytes", bytes),
        ("bytes_max", 10_000),
        ("evictions_total", 200 - entries as u64),
    ] {
        assert!(text.contains(&format!("\nkinglet_cache_{name} {value}\n")), "{name} {value}");
    }
    house.cache.reconfigure(&CacheConfig { bytes_max: ByteSize(bytes / 2) });
    assert!(house.cache.holding().bytes <= bytes / 2);
}

/// What an entry counts for covers what it takes, tables that are half empty included.
#[test]
fn entries_count_what_they_take() {
    for (length, entries) in [(1, 5000_u64), (10, 5000), (4000, 500)] {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let metrics = Metrics::new();
        let store = Store::new(1 << 30, metrics.cache.clone());
        // A piece of a larger buffer, as of a batch: it must not keep the rest of it.
        let whole: bytes::Bytes = vec![7; length * 64].into();
        let piece = Tensor::new(DType::U8, Shape::new(&[length]), whole.slice(..length)).unwrap();
        let held = allocation_counter::measure(|| {
            for inputs in 0..u128::from(entries) {
                let share = runtime.block_on(turns::copied(std::slice::from_ref(&piece)));
                store.alone(Key { build: 1, inputs }).answer(share);
            }
            // Each is asked for and written to a client, which makes what shares it allocate.
            for inputs in 0..u128::from(entries) {
                match store.enter(Key { build: 1, inputs }, &Schedule::default()) {
                    Entered::Kept(share) => drop((*share).clone()),
                    _ => panic!("it was kept"),
                }
            }
        });
        let counted = store.holding().bytes;
        assert!(held.bytes_current <= i64::try_from(counted).unwrap(), "{length}: {} > {counted}", held.bytes_current);
        assert!(counted <= 3 * u64::try_from(held.bytes_current).unwrap(), "{length}: {held:?} {counted}");
    }
}

/// One request of a made-up run: what it asks, when, how long its run would take and how it would end, and when it gives up.
#[derive(Clone, Debug)]
struct Asked {
    at: u64,
    input: u8,
    run: u64,
    end: End,
    deadline: Option<u64>,
    leaves: Option<u64>,
    priority: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Answers,
    Fails,
    /// Refused before it runs.
    Refused,
}

#[derive(Debug, PartialEq)]
enum Told {
    Right,
    Expired,
    /// By its own run.
    Failed,
    Refused,
    Left,
}

fn asked() -> impl Strategy<Value = Asked> {
    let end = prop_oneof![6 => Just(End::Answers), 2 => Just(End::Fails), 1 => Just(End::Refused)];
    let times = (0u64..40, 0u64..12);
    (times, 0u8..3, end, prop::option::of(1u64..20), prop::option::of(0u64..20), 0u64..2).prop_map(
        |((at, run), input, end, deadline, leaves, priority)| Asked { at, input, run, end, deadline, leaves, priority },
    )
}

/// What the rooms behind do: refuse, or run for a time, and keep to the deadline.
async fn answered(house: &House, asked: &Asked, runs: &RefCell<BTreeMap<u8, u64>>) -> Told {
    let begun = Instant::now();
    let deadline = asked.deadline.map(|ms| begun + MS * u32::try_from(ms).unwrap());
    let schedule = Schedule { deadline, priority: asked.priority, ..Schedule::default() };
    let lead = match house.cache.look_up(&house.routed(asked.input, schedule)).await {
        Err(CacheError::Expired { .. }) => {
            assert_eq!(deadline, Some(Instant::now()), "neither before nor after its deadline");
            return Told::Expired;
        }
        Ok(Some(Found::Answer(kept))) => {
            assert_eq!(kept.share, share(100 + asked.input));
            assert!(deadline.is_none_or(|deadline| Instant::now() <= deadline));
            return Told::Right;
        }
        Ok(Some(Found::Nothing(lead))) => lead,
        Ok(None) => panic!("answers are kept"),
    };
    if asked.end == End::Refused {
        return Told::Refused;
    }
    *runs.borrow_mut().entry(asked.input).or_default() += 1;
    let run = sleep(MS * u32::try_from(asked.run).unwrap());
    if timeout_at(deadline.unwrap_or_else(|| Instant::now() + 1000 * MS), run).await.is_err() {
        return Told::Expired;
    }
    match asked.end {
        End::Fails => {
            lead.fail();
            Told::Failed
        }
        _ => {
            lead.answer(&share(100 + asked.input)).await;
            Told::Right
        }
    }
}

async fn check(all: &[Asked], bytes_max: u64) {
    let house = House::new(bytes_max);
    let (runs, told) = (RefCell::default(), Cell::new(0));
    let outcomes = join_all(all.iter().map(|asked| {
        let (house, runs, told) = (&house, &runs, &told);
        async move {
            sleep(MS * u32::try_from(asked.at).unwrap()).await;
            let left = sleep(asked.leaves.map_or(1000 * MS, |ms| MS * u32::try_from(ms).unwrap()));
            let outcome = tokio::select! {
                biased;
                outcome = answered(house, asked, runs) => outcome,
                () = left => Told::Left,
            };
            told.set(told.get() + 1);
            outcome
        }
    }));
    // Nobody waits for ever: all runs together are over long before.
    let outcomes = tokio::time::timeout(500 * MS, outcomes).await.expect("every request is told something");
    assert_eq!(told.get(), all.len());
    for (asked, outcome) in all.iter().zip(&outcomes) {
        let fits = match outcome {
            Told::Right => true,
            Told::Expired => asked.deadline.is_some(),
            Told::Failed => asked.end == End::Fails,
            Told::Refused => asked.end == End::Refused,
            Told::Left => asked.leaves.is_some(),
        };
        assert!(fits, "{asked:?} was told {outcome:?}");
    }
    let Holding { entries, flights, .. } = house.cache.holding();
    assert_eq!(flights, 0, "every flight has ended");
    let right: usize = (0..3)
        .filter(|input| {
            all.iter().zip(&outcomes).any(|(asked, outcome)| asked.input == *input && *outcome == Told::Right)
        })
        .count();
    assert_eq!(entries, if bytes_max > 1 { right } else { 0 }, "answers are kept, and nothing else");
    assert_eq!(house.admission.in_flight(), 0);
}

proptest! {
    /// Whatever leaves, fails, is refused or runs out of time: every request is answered once and right, or told of its own failure.
    #[test]
    fn everybody_is_answered(all in prop::collection::vec(asked(), 1..40), keeps in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(check(&all, if keeps { 1 << 20 } else { 1 }));
    }

    /// Requests that are all alike and of which none fails are computed once, or once more for each that leaves.
    #[test]
    fn equal_requests_are_computed_once(count in 1usize..30, leavers in prop::collection::vec(0u64..9, 0..4)) {
        let plain = |leaves| Asked { at: 0, input: 1, run: 5, end: End::Answers, deadline: None, leaves, priority: 0 };
        let leavers = leavers.into_iter().map(|at| plain(Some(at)));
        let all: Vec<Asked> = leavers.chain(std::iter::repeat_n(plain(None), count)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let computed = runtime.block_on(async {
            let (house, runs) = (House::new(1 << 20), RefCell::default());
            join_all(all.iter().map(|asked| async {
                let left = sleep(asked.leaves.map_or(1000 * MS, |ms| MS * u32::try_from(ms).unwrap()));
                tokio::select! { biased; _ = answered(&house, asked, &runs) => {}, () = left => {} }
            })).await;
            runs.into_inner()[&1]
        });
        let left = (all.len() - count) as u64;
        prop_assert!(computed <= 1 + left, "{} runs, {} left", computed, left);
    }
}
