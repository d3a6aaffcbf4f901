//! Choices among the builds of a version, on builds that are never run.

use std::collections::HashMap;
use std::ops::Deref;

use super::*;
use crate::admission::AdmissionConfig;
use crate::config::Config;
use crate::engine::Merging;
use crate::error::ErrorCode;
use crate::infer::InferRequest;
use crate::pipeline::InferError;
use crate::repository::State;
use crate::repository::catalog::{Beside, Model, Version};
use crate::units::Span;

const MS: Duration = Duration::from_millis(1);
/// A CPU second takes 1 J.
const PRICE: Option<Nanojoules> = Some(Nanojoules(1_000_000_000));

/// A router, and what is loaded.
struct House {
    catalog: Catalog,
    router: Router,
}

impl House {
    fn choose(&self, admitted: &Admitted, conditions: impl FnOnce() -> Conditions) -> Result<Choice, RouteError> {
        self.router.choose(&self.catalog, admitted, conditions)
    }
}

impl Deref for House {
    type Target = Router;

    fn deref(&self) -> &Router {
        &self.router
    }
}

/// A build that takes so many milliseconds a row.
fn build(name: Option<&str>, accuracy: f64, ms: u32, merging: Merging) -> Arc<Variant> {
    let mut build = Arc::try_unwrap(variant(merging, None)).unwrap();
    build.name = name.map(|name| name.parse().unwrap());
    build.profile.learn_accuracy(Some(accuracy));
    build.profile.costs(|costs| costs.learn(1, MS * ms, MS * ms));
    Arc::new(build)
}

/// The own build, `int8`, `other`, which mixes rows and takes other inputs, and one that has failed to load.
fn router(change: impl FnOnce(&mut BudgetsConfig)) -> House {
    let mut other = Arc::try_unwrap(build(Some("other"), 1.0, 1, alone())).unwrap();
    other.signature.inputs[0].name = "z".into();
    let int8 = build(Some("int8"), 0.97, 4, Merging::Rows);
    let beside = vec![("int8", Some(int8)), ("other", Some(Arc::new(other))), ("lost", None)];
    of_builds(build(None, 0.98, 10, Merging::Rows), beside, change)
}

fn of_builds(
    own: Arc<Variant>,
    beside: Vec<(&str, Option<Arc<Variant>>)>,
    change: impl FnOnce(&mut BudgetsConfig),
) -> House {
    let beside =
        beside.into_iter().map(|(name, ready)| (name.parse().unwrap(), Beside { ready, reason: String::new() }));
    let version = Version { ready: Some(own), state: State::Ready, reason: String::new(), variants: beside.collect() };
    let model = Model { versions: [(VersionId(1), version)].into(), ..Model::default() };
    let catalog = Catalog { models: HashMap::from([("m".parse().unwrap(), model)]) };
    let mut config = Config::default().budgets;
    change(&mut config);
    House { catalog, router: Router::new(config, &Metrics::new()) }
}

fn admitted(change: impl FnOnce(&mut InferRequest)) -> Admitted {
    let mut request = asking("m", vec![x(1)], &[]);
    change(&mut request);
    let limits = AdmissionConfig { retry_after: Span(MS), ..Config::default().admission };
    Admission::new(limits, Arc::default()).admit(request).unwrap()
}

type Chosen = (Option<String>, Option<VariantReason>);

fn choose(router: &House, wait: Duration, change: impl FnOnce(&mut InferRequest)) -> Result<Chosen, RouteError> {
    let choice = router.choose(&admitted(change), || Conditions { wait, per_cpu_second: PRICE })?;
    Ok((choice.variant.name.as_ref().map(ToString::to_string), choice.reason))
}

fn within(ms: u32) -> impl Fn(&mut InferRequest) {
    move |request| request.budget.latency_max = Some(MS * ms)
}

fn of(name: Option<&str>, reason: VariantReason) -> Chosen {
    (name.map(str::to_owned), Some(reason))
}

#[test]
fn budgets_choose_among_builds_that_take_the_same_inputs() {
    let router = router(|_| {});
    let chosen = |wait, ms| choose(&router, MS * wait, within(ms)).unwrap();
    assert_eq!(choose(&router, Duration::ZERO, |_| {}).unwrap(), of(None, VariantReason::Default));
    assert_eq!(chosen(0, 10), of(None, VariantReason::Budget));
    assert_eq!(chosen(0, 9), of(Some("int8"), VariantReason::Budget));
    assert_eq!(chosen(1, 10), of(Some("int8"), VariantReason::Budget), "the wait counts");
    let rows = |request: &mut InferRequest| (request.inputs, request.budget.latency_max) = (vec![x(2)], Some(MS * 10));
    assert_eq!(choose(&router, Duration::ZERO, rows).unwrap(), of(Some("int8"), VariantReason::Budget), "rows count");
    let energy = |request: &mut InferRequest| request.budget.energy_max = Some(Nanojoules(5_000_000));
    assert_eq!(choose(&router, Duration::ZERO, energy).unwrap(), of(Some("int8"), VariantReason::Budget));
}

#[test]
fn another_build_than_the_own_may_be_the_default() {
    let (mut own, int8) = (build(None, 0.98, 10, Merging::Rows), build(Some("int8"), 0.97, 4, Merging::Rows));
    Arc::get_mut(&mut own).unwrap().settings.default_variant = Some("int8".parse().unwrap());
    let router = of_builds(own, vec![("int8", Some(int8))], |_| {});
    let chosen = |change: fn(&mut InferRequest)| choose(&router, Duration::ZERO, change).unwrap();
    assert_eq!(chosen(|_| {}), of(Some("int8"), VariantReason::Default));
    assert_eq!(chosen(|request| request.variant = Wanted::Own), of(None, VariantReason::Named));
    assert_eq!(chosen(|request| within(20)(request)), of(None, VariantReason::Budget), "the most accurate");
}

#[test]
fn a_named_build_is_held_to_the_budget_alone() {
    let router = router(|_| {});
    let named = |name: &'static str, ms| {
        choose(&router, Duration::ZERO, move |request| {
            request.variant = Wanted::Named(name.parse().unwrap());
            within(ms)(request);
        })
    };
    assert_eq!(named("int8", 4).unwrap(), of(Some("int8"), VariantReason::Named));
    assert_eq!(named("other", 4).unwrap(), of(Some("other"), VariantReason::Named));
    let error = named("int8", 3).unwrap_err();
    let says = r#"no build of model "m" version 1 keeps the budget (max_latency_ms 3); the nearest is variant "int8" (latency 4.000ms)"#;
    assert_eq!(error.to_string(), says);
    assert_eq!(InferError::from(error).code(), ErrorCode::BudgetUnmet);
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let router = router(|_| {});
    let budget = |request: &mut InferRequest| request.budget.energy_max = Some(Nanojoules(1));
    let conditions = Conditions { wait: Duration::ZERO, per_cpu_second: None };
    let error = router.choose(&admitted(budget), || conditions).unwrap_err().to_string();
    assert!(error.ends_with("the nearest is its own (energy unknown)"), "{error}");
}

#[test]
fn modes_hold_from_the_next_request_on() {
    let router = router(|config| config.mode = config::Mode::Balanced);
    let now = || choose(&router, Duration::ZERO, |_| {}).unwrap();
    assert_eq!(now(), of(Some("int8"), VariantReason::Balanced));
    router.reconfigure(BudgetsConfig {
        balanced_loss_max: 0.005,
        mode: config::Mode::Balanced,
        ..Config::default().budgets
    });
    assert_eq!(now(), of(None, VariantReason::Balanced), "int8 gives up too much");
    router.reconfigure(BudgetsConfig { mode: config::Mode::Eco, ..Config::default().budgets });
    assert_eq!(now(), of(Some("int8"), VariantReason::Eco));
}

#[tokio::test(start_paused = true)]
async fn a_power_limit_steps_down_and_then_refuses() {
    let router = router(|config| config.power_watts_max = 3.0);
    assert_eq!(router.standing().power_watts_max, Some(3.0));
    let conditions = Conditions { wait: Duration::ZERO, per_cpu_second: PRICE };
    let take = || router.choose(&admitted(|_| {}), || conditions).and_then(|choice| router.take_power(&choice));
    let run = || take().map(|grant| grant.into_iter().for_each(Grant::spend));
    let ask = |count: usize| (0..count).filter(|_| run().is_ok()).count();
    // 2 W are idle; of 100 requests a second the own build would take 1 W, 200 of it 2 W.
    let window = async |number: u64, attributed: u64| {
        tokio::time::advance(Duration::from_secs(1)).await;
        router.settle(&Latest {
            number,
            span: Duration::from_secs(1),
            idle: Nanojoules(2_000_000_000),
            attributed: Nanojoules(attributed),
            per_cpu_second: PRICE,
            ..Latest::default()
        });
    };
    assert_eq!(ask(90), 90);
    window(1, 900_000_000).await;
    assert_eq!(router.standing().stage, "accuracy");
    for number in 2..4 {
        ask(200);
        window(number, 2_000_000_000).await;
    }
    assert_eq!((router.standing().stage, router.standing().cause), ("balanced", "power_cap"));
    assert_eq!(choose(&router, Duration::ZERO, |_| {}).unwrap(), of(Some("int8"), VariantReason::PowerCap));
    for number in 4..6 {
        ask(2000);
        window(number, 8_000_000_000).await;
    }
    assert_eq!((router.standing().stage, router.standing().allowance_watts), ("cheapest", Some(1.0)));
    // Looking takes nothing, and neither does a request that is refused for another reason.
    assert!(router.check_power().is_err(), "it begins empty");
    tokio::time::advance(Duration::from_millis(100)).await;
    assert!((0..1000).all(|_| choose(&router, Duration::ZERO, |_| {}).is_ok()) && router.check_power().is_ok());
    assert!((0..1000).all(|_| take().is_ok()), "what does not run gives back");
    let refused = (0..1000).find_map(|_| run().err()).unwrap();
    let RouteError::PowerSpent { watts_max, .. } = refused else { panic!("{refused}") };
    assert_eq!(watts_max, 3.0);
    let error = InferError::from(refused);
    assert_eq!(error.code(), ErrorCode::Overloaded);
    assert!(error.retry_after(Duration::from_secs(9)).unwrap() < Duration::from_secs(9));
    assert!(router.check_power().is_err(), "a large request is not even decoded");
}

#[test]
fn rows_that_nobody_has_are_no_fault() {
    let router = router(|config| config.power_watts_max = 3.0);
    let endless = |request: &mut InferRequest| request.inputs = vec![tensor("x", DType::F32, &[usize::MAX, 0])];
    for _ in 0..10 {
        let choice = router.choose(&admitted(endless), || Conditions { wait: MS, per_cpu_second: PRICE }).unwrap();
        assert!(router.bind(admitted(endless), choice.variant).is_err());
    }
    assert!(matches!(choose(&router, Duration::MAX, within(1)), Err(RouteError::BudgetUnmet(_))));
}
