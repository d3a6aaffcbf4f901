//! The room as a whole, on readings and clocks that the tests make up: nothing is lost, nothing is invented, and what
//! cannot be known is not told.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::attribution::{attribute, by_rows};
use super::counter::{Counter, Domain, Dropped, Zone};
use super::moment::{HostCpu, Moment};
use super::sources::{Opened, Source};
use super::windows::Step;
use super::*;
use crate::config::Config;

const J: u64 = 1_000_000_000;
const MS: Duration = Duration::from_millis(1);
/// Of a counter that comes to its end often, and yet not twice in a window of a second.
const MAX: u64 = 3000 * J;

fn package(value: u64) -> Zone {
    let counter = Counter::Wraps { max: Nanojoules(MAX) };
    Zone { name: "0".into(), domain: Domain::Package, value: Nanojoules(value), counter }
}

fn moment(ms: u64, busy_ms: u64, process_ms: u64) -> Moment {
    let host = HostCpu { busy: MS * u32::try_from(busy_ms).unwrap(), cpus: 2 };
    Moment { at: Duration::from_millis(ms), host, process: MS * u32::try_from(process_ms).unwrap() }
}

/// What happens until the next reading.
#[derive(Clone, Debug)]
struct Second {
    joules: u64,
    other_ms: u64,
    overhead_ms: u64,
    /// Of which build, for how long, and the rows of its requests; some of them have gone when it ends.
    batches: Vec<(usize, u64, Vec<usize>)>,
    reading: Kept,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    Yes,
    Unreadable,
    SetBack,
}

fn second() -> impl Strategy<Value = Second> {
    let batch = (0usize..3, 0u64..3_000_000_000, proptest::collection::vec(0usize..64, 1..9));
    let reading = prop_oneof![8 => Just(Kept::Yes), 1 => Just(Kept::Unreadable), 1 => Just(Kept::SetBack)];
    let batches = proptest::collection::vec(batch, 0..6);
    (0u64..1900 * J, 0u64..2000, 0u64..2000, batches, reading).prop_map(
        |(joules, other_ms, overhead_ms, batches, reading)| Second { joules, other_ms, overhead_ms, batches, reading },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Every nanojoule of the windows that count is somebody's, and of no others, whatever comes.
    #[test]
    fn energy_is_conserved(idle in prop_oneof![Just(0u64), Just(40 * J)], seconds in proptest::collection::vec(second(), 1..20)) {
        let idle = if idle == 0 { Idle::Lowest(None) } else { Idle::Configured(idle) };
        let mut windows = Windows::new(idle, Duration::from_secs(10));
        let (books, accounts) = books(3);
        let (mut counter, mut at, mut busy, mut process) = (0u64, 0u64, 0u64, 0u64);
        let (mut wanted, mut pending, mut got, mut is_open) = (0u128, 0u64, 0u128, false);
        for second in &seconds {
            at += 1000;
            counter = (counter + second.joules) % MAX;
            pending += second.joules;
            for (build, nanos, rows) in &second.batches {
                let used = Duration::from_nanos(*nanos);
                prop_assert_eq!(by_rows(used, rows).iter().sum::<Duration>(), used);
                accounts[*build].note(used);
                process += nanos / 1_000_000;
            }
            process += second.overhead_ms;
            busy += second.other_ms + second.overhead_ms;
            let value = match second.reading {
                Kept::Yes => Some(counter),
                Kept::Unreadable => None,
                Kept::SetBack => {
                    // A reading 1 J below the last is no way forward, but the next goes on from it.
                    counter = counter.saturating_sub(second.joules + J);
                    Some(counter)
                }
            };
            let step = windows.step(moment(at, busy, process), value.map(|value| vec![package(value)]));
            match step {
                Step::Closed(closed) => {
                    let taken = books.take();
                    let used: Vec<_> = taken.iter().map(|(_, used)| *used).collect();
                    let parts = attribute(&closed.with(&used));
                    got += [parts.idle, parts.other, parts.overhead, parts.attributed()].iter().map(|part| u128::from(part.0)).sum::<u128>();
                    prop_assert!(is_open);
                    if second.reading == Kept::Yes {
                        wanted += u128::from(pending);
                    } else {
                        wanted += u128::from(closed.difference.total.0);
                    }
                    pending = 0;
                }
                Step::Waiting => {
                    prop_assert!(pending == 0 || second.reading == Kept::SetBack);
                    pending = 0;
                }
                Step::First | Step::Dropped(_) => {
                    let _ = books.take();
                    pending = 0;
                }
            }
            is_open = second.reading != Kept::Unreadable;
            prop_assert!(got == wanted, "{got} {wanted} after {second:?}");
        }
    }
}

fn books(builds: usize) -> (Books, Vec<Arc<Account>>) {
    let books = Books::default();
    let accounts: Vec<Arc<Account>> = (0..builds).map(|_| Arc::default()).collect();
    books.lock().extend(accounts.iter().cloned());
    (books, accounts)
}

/// Readings as the test sets them.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Option<u64>>>);

impl Source for Scripted {
    fn read(&mut self, _: &Moment) -> Result<Vec<Zone>, SourceError> {
        let absent = SourceError::Absent { path: "/fake".into(), expected: "a value" };
        let zone = |value| Zone { counter: Counter::Endless, ..package(value) };
        self.0.lock().unwrap().map(|value| vec![zone(value)]).ok_or(absent)
    }
}

/// A meter whose source and clocks are the test's.
struct House {
    metrics: Arc<Metrics>,
    meter: Meter,
    sampler: Sampler,
    value: Scripted,
    seconds: u32,
}

impl House {
    fn new(change: impl FnOnce(&mut MeteringConfig)) -> Self {
        let mut config = Config::default().metering;
        config.idle_watts = 10.0;
        change(&mut config);
        let (metrics, value) = (Arc::new(Metrics::new()), Scripted(Arc::new(Mutex::new(Some(0)))));
        let opened = Opened { kind: Kind::Powercap, coefficients: None, source: Box::new(value.clone()) };
        let (meter, sampler) = Meter::with(opened, &config, &metrics);
        Self { metrics, meter, sampler, value, seconds: 0 }
    }

    fn account(&self, version: &str) -> (Arc<Account>, Arc<Statistics>) {
        let statistics = Arc::default();
        (self.meter.account(["m", version, ""], &statistics), statistics)
    }

    /// A second passes in which this process has run half of it, and others a quarter.
    fn second(&mut self, joules: Option<u64>) {
        let mut value = self.value.0.lock().unwrap();
        *value = joules.map(|joules| value.unwrap_or(0) + joules * J);
        drop(value);
        self.seconds += 1;
        let ms = u64::from(self.seconds) * 1000;
        self.sampler.tick(Ok(moment(ms, ms * 3 / 4, ms / 2)), SystemTime::UNIX_EPOCH);
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let values = text
            .lines()
            .filter(|line| line.starts_with(name))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }
}

fn is_about(got: Option<f64>, wanted: f64) -> bool {
    got.is_some_and(|got| (got - wanted).abs() < 1e-9 * wanted.max(1.0))
}

#[test]
fn a_window_is_shared_out_and_told_everywhere() {
    let mut house = House::new(|config| (config.carbon_intensity, config.carbon_embodied) = (360.0, 35_064.0 * 3600.0));
    let (one, statistics) = house.account("1");
    let (two, _) = house.account("2");
    one.note(90 * MS);
    house.second(Some(0));
    assert_eq!((house.meter.latest(), house.meter.estimate(MS)), (None, None), "there is no window yet");
    assert_eq!(house.metric("kinglet_energy_joules_total"), None, "and nothing is told of none");

    // 40 J, 10 of them idle; of 750 ms CPU 500 are ours, of which 100 and 250 in batches.
    one.note(100 * MS);
    two.note(250 * MS);
    house.second(Some(40));
    let latest = house.meter.latest().unwrap();
    assert_eq!((latest.energy.0, latest.idle.0, latest.other.0), (40 * J, 10 * J, 10 * J));
    assert_eq!((latest.overhead.0, latest.attributed.0), (6 * J, 14 * J));
    assert_eq!(latest.per_cpu_second, Some(Nanojoules(40 * J)));
    assert_eq!(statistics.snapshot().energy, Some(Nanojoules(4 * J)));
    for (name, wanted) in [
        ("kinglet_energy_joules_total", 40.0),
        ("kinglet_energy_idle_joules_total", 10.0),
        ("kinglet_energy_other_joules_total", 10.0),
        ("kinglet_energy_overhead_joules_total", 6.0),
        ("kinglet_energy_attributed_joules_total", 14.0),
        (
            "kinglet_energy_attributed_joules_total{model=\"m\",quality=\"measured\",source=\"powercap\",version=\"2\"}",
            10.0,
        ),
        (
            "kinglet_energy_source_info{coefficients=\"\",idle=\"configured\",quality=\"measured\",source=\"powercap\"}",
            1.0,
        ),
        ("kinglet_carbon_operational_grams_total", 14.0 * 1e-4),
        ("kinglet_carbon_embodied_grams_total", 2.0),
    ] {
        assert!(is_about(house.metric(name), wanted), "{name}: {:?}", house.metric(name));
    }
    assert!(house.metric("kinglet_energy_sampler_cpu_seconds_total").unwrap() > 0.0);
}

#[test]
fn estimates_are_of_the_last_windows_price_and_rounded_up() {
    let mut house = House::new(|config| config.quantum_microjoules = 500);
    house.second(Some(0));
    house.second(Some(40));
    let estimate = |us| house.meter.estimate(Duration::from_micros(us)).unwrap();
    // 40 J a second are 40 uJ a microsecond.
    assert_eq!(estimate(10), Estimate { energy: Nanojoules(500_000), kind: Kind::Powercap });
    assert_eq!([0, 12, 13, 1000].map(|us| estimate(us).energy.0), [500_000, 500_000, 1_000_000, 40_000_000]);
}

#[test]
fn a_source_that_is_lost_is_not_told_until_it_is_back() {
    let mut house = House::new(|_| ());
    let (account, _) = house.account("1");
    house.second(Some(0));
    house.second(Some(40));
    house.second(None);
    house.second(None);
    for name in [
        "kinglet_energy_joules_total",
        "kinglet_energy_attributed",
        "kinglet_energy_idle",
        "kinglet_energy_source_info",
    ] {
        assert_eq!(house.metric(name), None, "{name}");
    }
    assert_eq!((house.meter.estimate(MS), house.meter.latest()), (None, None));
    assert_eq!(house.metric("kinglet_energy_windows_dropped_total{reason=\"unreadable\"}"), Some(2.0));
    account.note(100 * MS);
    // The first reading only says where counting begins; what was used before is nobody's.
    house.second(Some(5));
    assert_eq!(house.metric("kinglet_energy_joules_total"), None);
    house.second(Some(20));
    assert_eq!(house.metric("kinglet_energy_joules_total"), Some(60.0));
    assert_eq!(house.metric("kinglet_energy_attributed_joules_total"), Some(0.0));
    assert!(house.meter.estimate(MS).is_some());
}

#[test]
fn clocks_that_cannot_be_read_lose_the_source_too() {
    let mut house = House::new(|_| ());
    house.second(Some(0));
    house.second(Some(1));
    house.sampler.tick(Err(io::ErrorKind::NotFound.into()), SystemTime::UNIX_EPOCH);
    assert_eq!(house.metric("kinglet_energy_joules_total"), None);
}

#[test]
fn a_counter_that_stands_still_is_waited_for_and_then_given_up() {
    let mut house = House::new(|_| ());
    let (account, _) = house.account("1");
    house.second(Some(100));
    account.note(500 * MS);
    house.second(Some(0));
    house.second(Some(0));
    account.note(1000 * MS);
    house.second(Some(60));
    // Three seconds of one window: half of the time is ours, all of it in batches; 30 of the joules are idle.
    assert!(is_about(house.metric("kinglet_energy_attributed_joules_total"), 20.0));
    assert_eq!(house.meter.latest().unwrap().span, Duration::from_secs(3));
    (0..10).for_each(|_| house.second(Some(0)));
    assert_eq!(house.metric("kinglet_energy_windows_dropped_total{reason=\"stuck\"}"), Some(1.0));
}

#[test]
fn the_lowest_power_that_was_seen_is_idle() {
    let mut house = House::new(|config| config.idle_watts = 0.0);
    house.second(Some(0));
    for (joules, idle) in [(30, 30.0), (50, 60.0), (20, 80.0), (90, 100.0)] {
        house.second(Some(joules));
        assert!(is_about(house.metric("kinglet_energy_idle_joules_total"), idle), "{joules}");
    }
}

#[test]
fn what_a_build_used_last_is_attributed_after_it_is_gone() {
    let mut house = House::new(|_| ());
    let (account, statistics) = house.account("1");
    house.second(Some(0));
    account.note(250 * MS);
    drop(account);
    house.second(Some(25));
    assert_eq!(statistics.snapshot().energy, Some(Nanojoules(5 * J)));
    assert!(house.meter.books.lock().is_empty(), "and then nothing is kept of it");
}

#[test]
fn doubling_rows_at_equal_cpu_halves_joules_per_row_and_idling_costs_nobody() {
    let mut house = House::new(|_| ());
    house.second(Some(0));
    house.second(Some(40));
    let row = |rows: usize| house.meter.estimate(by_rows(100 * MS, &vec![1; rows])[0]).unwrap().energy.0;
    assert_eq!(row(4), 2 * row(8));
    let before = house.metric("kinglet_energy_attributed_joules_total");
    house.second(Some(10));
    assert_eq!(house.metric("kinglet_energy_attributed_joules_total"), before);
}

#[test]
fn reasons_are_told_apart() {
    let mut windows = Windows::new(Idle::Lowest(None), Duration::from_secs(10));
    let mut step = |ms, value: Option<u64>| windows.step(moment(ms, 0, 0), value.map(|value| vec![package(value)]));
    assert_eq!(step(0, Some(5 * J)), Step::First);
    assert_eq!(step(1000, Some(4 * J)), Step::Dropped(Dropped::Backwards));
    assert_eq!(step(4000, Some(9 * J)), Step::Dropped(Dropped::Gap));
    assert!(matches!(step(5000, Some(10 * J)), Step::Closed(_)), "a dropped window is where the next begins");
    assert_eq!(step(6000, None), Step::Dropped(Dropped::Unreadable));
    assert_eq!(step(7000, Some(11 * J)), Step::First);
}
