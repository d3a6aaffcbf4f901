//! The variant rule: which build of a version answers a request. A pure function of what each is worth and will cost, what
//! the request allows, and what the server cares for.

use std::time::Duration;

use crate::infer::Budget;
use crate::units::Nanojoules;

/// What counts among the builds that fit a budget, each stage cheaper than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The most accurate.
    #[default]
    Accuracy,
    /// The cheapest that gives up little accuracy.
    Balanced,
    /// The cheapest that gives up some.
    Eco,
    /// The cheapest of all, which no mode asks for.
    Cheapest,
}

/// What is known of a build, for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Candidate {
    pub(super) accuracy: Option<f64>,
    /// The wait for a core included.
    pub(super) latency: Option<Duration>,
    pub(super) cpu: Option<Duration>,
    pub(super) energy: Option<Nanojoules>,
}

impl Stage {
    pub(super) const ALL: [Self; 4] = [Self::Accuracy, Self::Balanced, Self::Eco, Self::Cheapest];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Balanced => "balanced",
            Self::Eco => "eco",
            Self::Cheapest => "cheapest",
        }
    }
}

/// The candidate that answers, the one that answers by default being the first. `loss_max` is the accuracy that may be given up for
/// a cheaper one. Another of which nobody has said what it is worth is never chosen; the default one is taken for the best
/// where nothing is known of it.
///
/// # Errors
/// Where none fits: the one that comes the nearest.
pub(super) fn choose(candidates: &[Candidate], budget: &Budget, stage: Stage, loss_max: f64) -> Result<usize, usize> {
    // Nothing speaks for another.
    if budget.is_empty() && stage == Stage::Accuracy {
        return Ok(0);
    }
    let known = || candidates.iter().enumerate().filter(|(at, candidate)| *at == 0 || candidate.accuracy.is_some());
    let fitting = || known().filter(|(_, candidate)| excess(candidate, budget) <= 1.0);
    // Who sets no bounds expects the default, and gives up from there.
    let best = match candidates.first().filter(|_| budget.is_empty()) {
        Some(default) => Some(worth(default)),
        None => fitting().map(|(_, candidate)| worth(candidate)).reduce(f64::max),
    };
    let Some(best) = best else {
        let nearest = known().min_by(|(_, a), (_, b)| excess(a, budget).total_cmp(&excess(b, budget)));
        return Err(nearest.map_or(0, |(at, _)| at));
    };
    let worthy =
        fitting().filter(|(_, candidate)| stage == Stage::Cheapest || is_level(worth(candidate), best, loss_max));
    let cheapest = worthy.min_by_key(|(at, candidate)| (candidate.cpu.unwrap_or(Duration::MAX), *at));
    Ok(cheapest.map_or(0, |(at, _)| at))
}

/// How far a candidate is beyond the limit that it fails the most, as a ratio; what is not known is infinitely far.
fn excess(candidate: &Candidate, budget: &Budget) -> f64 {
    let ratio =
        |limit: Option<f64>, got: Option<f64>| limit.map(|limit| got.map_or(f64::INFINITY, |got| over(got, limit)));
    let latency = ratio(seconds(budget.latency_max), seconds(candidate.latency));
    let energy = ratio(joules(budget.energy_max), joules(candidate.energy));
    // Here less is worse.
    let accuracy = budget.accuracy_min.map(|min| candidate.accuracy.map_or(f64::INFINITY, |got| over(min, got)));
    [latency, energy, accuracy].into_iter().flatten().fold(0.0, f64::max)
}

fn over(got: f64, limit: f64) -> f64 {
    if got <= limit { 1.0_f64.min(got / limit) } else { got / limit }
}

fn worth(candidate: &Candidate) -> f64 {
    candidate.accuracy.unwrap_or(f64::INFINITY)
}

/// Whether a worth is the best but for so much. Of a build that nobody has judged nothing is given up.
pub fn is_level(worth: f64, best: f64, loss_max: f64) -> bool {
    worth >= best - loss_max - ROUNDING
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

fn joules(energy: Option<Nanojoules>) -> Option<f64> {
    energy.map(Nanojoules::as_joules)
}

/// What a difference of two decimal shares may be off by.
const ROUNDING: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build(accuracy: Option<f64>, ms: u64) -> Candidate {
        let cpu = Some(Duration::from_millis(ms));
        Candidate { accuracy, latency: cpu, cpu, energy: Some(Nanojoules(ms * 1_000_000)) }
    }

    /// The default one, int8, pruned.
    fn three() -> [Candidate; 3] {
        [build(Some(0.98), 10), build(Some(0.975), 4), build(Some(0.95), 1)]
    }

    fn within(ms: u64) -> Budget {
        Budget { latency_max: Some(Duration::from_millis(ms)), ..Budget::default() }
    }

    const ANY: Budget = Budget { latency_max: None, energy_max: None, accuracy_min: None };

    #[test]
    fn the_most_accurate_that_fits_is_chosen() {
        let choose = |budget| choose(&three(), &budget, Stage::Accuracy, 0.0);
        assert_eq!(choose(ANY), Ok(0));
        assert_eq!(
            [within(10), within(9), within(4), within(3), within(1)].map(choose),
            [Ok(0), Ok(1), Ok(1), Ok(2), Ok(2)]
        );
        let joules = |mj: u64| Budget { energy_max: Some(Nanojoules(mj * 1_000_000)), ..ANY };
        assert_eq!([joules(10), joules(5), joules(2)].map(choose), [Ok(0), Ok(1), Ok(2)]);
        let least = |accuracy_min| Budget { accuracy_min: Some(accuracy_min), ..within(9) };
        assert_eq!([least(0.97), least(0.96)].map(choose), [Ok(1), Ok(1)]);
    }

    #[test]
    fn where_none_fits_the_nearest_is_named() {
        let choose = |budget| choose(&three(), &budget, Stage::Accuracy, 0.0);
        assert_eq!(choose(Budget { latency_max: Some(Duration::from_micros(500)), ..ANY }), Err(2));
        assert_eq!(choose(Budget { accuracy_min: Some(0.99), ..ANY }), Err(0));
        assert_eq!(choose(Budget { accuracy_min: Some(0.98), ..within(9) }), Err(1), "4 ms of 9, 0.975 of 0.98");
    }

    #[test]
    fn stages_give_up_accuracy_for_cost_as_far_as_they_may() {
        let at = |stage, loss| choose(&three(), &ANY, stage, loss);
        assert_eq!(at(Stage::Balanced, 0.01), Ok(1));
        assert_eq!(at(Stage::Balanced, 0.005), Ok(1), "decimal shares are not exact in binary");
        assert_eq!(at(Stage::Balanced, 0.004), Ok(0));
        assert_eq!((at(Stage::Eco, 0.05), at(Stage::Cheapest, 1.0)), (Ok(2), Ok(2)));
        let strict = Budget { accuracy_min: Some(0.96), ..ANY };
        assert_eq!(choose(&three(), &strict, Stage::Cheapest, 1.0), Ok(1), "a budget holds at every stage");
    }

    #[test]
    fn what_is_not_known_is_not_promised() {
        let unjudged = [build(None, 10), build(None, 1), build(Some(0.9), 2)];
        assert_eq!(
            choose(&unjudged, &within(5), Stage::Accuracy, 0.0),
            Ok(2),
            "a variant without accuracy is not chosen"
        );
        assert_eq!(choose(&unjudged, &within(20), Stage::Accuracy, 0.0), Ok(0), "the default is the reference");
        assert_eq!(choose(&unjudged, &ANY, Stage::Eco, 0.5), Ok(0), "nobody knows what would be given up");
        assert_eq!(choose(&unjudged, &ANY, Stage::Cheapest, 1.0), Ok(2));
        let demanding = Budget { accuracy_min: Some(0.8), ..ANY };
        assert_eq!(choose(&unjudged, &demanding, Stage::Accuracy, 0.0), Ok(2));
        let unmeasured = [Candidate { accuracy: Some(0.9), ..Candidate::default() }];
        assert_eq!(choose(&unmeasured, &within(1000), Stage::Accuracy, 0.0), Err(0));
    }

    proptest! {
        #[test]
        fn a_choice_fits_and_later_stages_never_cost_more(
            builds in prop::collection::vec((prop::option::of(0.0f64..1.0), 1u64..100), 1..6),
            latency in prop::option::of(1u64..100), energy in prop::option::of(1u64..100),
            accuracy in prop::option::of(0.0f64..1.0), losses in (0.0f64..0.1, 0.1f64..0.3),
        ) {
            let candidates: Vec<_> = builds.into_iter().map(|(accuracy, ms)| build(accuracy, ms)).collect();
            let budget = Budget {
                latency_max: latency.map(Duration::from_millis),
                energy_max: energy.map(|mj| Nanojoules(mj * 1_000_000)),
                accuracy_min: accuracy,
            };
            let losses = [0.0, losses.0, losses.1, 1.0];
            let chosen: Vec<_> = Stage::ALL.iter().zip(losses).map(|(stage, loss)| choose(&candidates, &budget, *stage, loss)).collect();
            let fits = |candidate: &Candidate| {
                budget.latency_max.is_none_or(|max| candidate.latency.unwrap() <= max)
                    && budget.energy_max.is_none_or(|max| candidate.energy.unwrap() <= max)
                    && budget.accuracy_min.is_none_or(|min| candidate.accuracy.is_some_and(|got| got >= min))
            };
            let any = candidates.iter().enumerate().any(|(at, it)| (at == 0 || it.accuracy.is_some()) && fits(it));
            for choice in &chosen {
                prop_assert_eq!(choice.is_ok(), any);
                let (Ok(at) | Err(at)) = choice;
                prop_assert!(*at == 0 || candidates[*at].accuracy.is_some());
                prop_assert!(choice.is_err() || fits(&candidates[*at]));
            }
            let cpu = |choice: &Result<usize, usize>| choice.map(|at| candidates[at].cpu).ok();
            prop_assert!(chosen.windows(2).all(|pair| cpu(&pair[0]) >= cpu(&pair[1])));
        }
    }
}
