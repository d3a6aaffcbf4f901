//! What the server does to stay below a power and to spare a dirty grid: pure, window by window, time included.
//!
//! Requests tell what they would cost at every stage, whether they are served or not, so that a step is known before it is
//! taken: down at once to the first stage that fits, up only where the stage above would leave room for some time. Where
//! even the cheapest builds take too much, what is left is handed out as joules, and who finds none is refused.

use super::variant_rule::Stage;

/// What holds where the governor does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Limits {
    pub(super) mode: Stage,
    /// Of the machine, as its source tells it.
    pub(super) watts_max: Option<f64>,
    /// Grams per kWh.
    pub(super) intensity_max: Option<f64>,
}

/// One window of the meter with what requests wanted in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Of the machine at rest and of other processes, in watts as all that follow.
    pub(super) elsewhere: f64,
    /// Of this process outside of batches.
    pub(super) overhead: f64,
    /// Of batches.
    pub(super) attributed: f64,
    /// What all requests would have taken at each stage, by what builds are known to cost.
    pub(super) wanted: [f64; STAGES],
    /// What those that were let in were expected to take.
    pub(super) granted: f64,
    /// Grams per kWh.
    pub(super) intensity: Option<f64>,
}

/// What holds until the next window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Setting {
    pub(super) stage: Stage,
    pub(super) cause: Option<Cause>,
    /// What batches may take, where requests must be refused for it, in true watts.
    pub(super) allowance: Option<f64>,
    /// What batches take in parts of what is expected of them.
    pub(super) bias: f64,
}

/// Why the stage is another than the mode's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Power,
    Carbon,
}

#[derive(Clone, Debug)]
pub(super) struct Governor {
    limits: Limits,
    /// The stage that the power asks for, whatever the mode and the grid do.
    stage: Stage,
    /// What is left to take at the cheapest of all.
    allowance: Option<f64>,
    /// Whether the grid is too dirty.
    is_dirty: bool,
    /// Windows on end that were too much for the stage, and that would have left room above it.
    too_much: u32,
    room: u32,
    /// Windows that must leave room before a step up. Twice as many after one that had to be taken back.
    patience: u32,
    /// Windows since the last step up.
    since_up: u32,
    /// What batches took in parts of what they were expected to.
    bias: f64,
}

impl Default for Setting {
    fn default() -> Self {
        Self { stage: Stage::Accuracy, cause: None, allowance: None, bias: 1.0 }
    }
}

impl Default for Governor {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            stage: Stage::Accuracy,
            allowance: None,
            is_dirty: false,
            too_much: 0,
            room: 0,
            patience: PATIENCE_MIN,
            since_up: u32::MAX,
            bias: 1.0,
        }
    }
}

impl Governor {
    /// The setting that new limits begin with.
    pub(super) fn limit(&mut self, limits: Limits) -> Setting {
        if limits.watts_max != self.limits.watts_max {
            (self.stage, self.too_much, self.room, self.patience) = (Stage::Accuracy, 0, 0, PATIENCE_MIN);
            self.allowance = None;
        }
        self.is_dirty &= limits.intensity_max.is_some();
        self.limits = limits;
        self.setting()
    }

    pub(super) fn step(&mut self, seen: &Seen) -> Setting {
        self.look_at_the_grid(seen.intensity);
        let Some(watts_max) = self.limits.watts_max else { return self.setting() };
        if seen.granted > 0.0 {
            let bias = (seen.attributed / seen.granted).clamp(1.0 / BIAS_MAX, BIAS_MAX);
            self.bias += LEARNING_RATE * (bias - self.bias);
        }
        let rest = watts_max - seen.elsewhere - seen.overhead;
        let floor = self.floor();
        let stage = self.stage.max(floor);
        let takes = |stage: Stage| seen.wanted[stage as usize] * self.bias;
        let is_over = takes(stage) > rest || seen.attributed > rest + watts_max * TOLERANCE;
        self.too_much = if is_over { self.too_much + 1 } else { 0 };
        let above = Stage::ALL.into_iter().rfind(|above| (floor..stage).contains(above));
        let has_room = above.is_some_and(|above| takes(above) <= rest - watts_max * MARGIN);
        self.room = if has_room { self.room + 1 } else { 0 };
        self.since_up = self.since_up.saturating_add(1);
        if self.too_much >= STEP_DOWN_AFTER && stage < Stage::Cheapest {
            self.patience = match self.since_up {
                0..TAKEN_BACK_WITHIN => (2 * self.patience).min(PATIENCE_MAX),
                _ => PATIENCE_MIN,
            };
            let fits = Stage::ALL.into_iter().find(|below| *below > stage && takes(*below) <= rest);
            (self.stage, self.too_much, self.room) = (fits.unwrap_or(Stage::Cheapest), 0, 0);
        } else if let Some(above) = above.filter(|_| self.room >= self.patience) {
            (self.stage, self.too_much, self.room, self.since_up) = (above, 0, 0, 0);
        }
        self.allowance = (self.stage == Stage::Cheapest).then_some(rest.max(watts_max * ALLOWANCE_MIN));
        self.setting()
    }

    fn look_at_the_grid(&mut self, intensity: Option<f64>) {
        if let (Some(max), Some(intensity)) = (self.limits.intensity_max, intensity) {
            self.is_dirty = intensity > if self.is_dirty { max * CLEAN } else { max };
        }
    }

    /// The stage without a limit of power.
    fn floor(&self) -> Stage {
        if self.is_dirty { self.limits.mode.max(Stage::Eco) } else { self.limits.mode }
    }

    fn setting(&self) -> Setting {
        let floor = self.floor();
        let stage = if self.limits.watts_max.is_some() { self.stage.max(floor) } else { floor };
        let cause =
            if stage > floor { Some(Cause::Power) } else { (stage > self.limits.mode).then_some(Cause::Carbon) };
        Setting { stage, cause, allowance: self.allowance, bias: self.bias }
    }
}

pub(super) const STAGES: usize = Stage::ALL.len();

/// Windows on end that must be too much before a step: one may be a neighbour's moment.
const STEP_DOWN_AFTER: u32 = 2;
/// Windows on end that must leave room before a step up, the first time and at most.
const PATIENCE_MIN: u32 = 10;
const PATIENCE_MAX: u32 = 640;
/// A step up that had to be taken back within so many windows was a mistake.
const TAKEN_BACK_WITHIN: u32 = 60;
/// The share of the limit that must be left above a stage that is stepped up to.
const MARGIN: f64 = 0.1;
/// What batches may take beyond the limit, in parts of it, before that counts against expectations.
const TOLERANCE: f64 = 0.02;
/// The share of the limit that is always handed out, so that somebody is served and costs are known.
const ALLOWANCE_MIN: f64 = 0.01;
/// A grid is clean again below this share of what is too dirty.
const CLEAN: f64 = 0.9;
/// The weight of the newest window, and the most that expectations may be off by.
const LEARNING_RATE: f64 = 0.3;
const BIAS_MAX: f64 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with 1 W elsewhere whose requests take 8, 5, 3 and 2 W at full load.
    struct Machine {
        governor: Governor,
        setting: Setting,
        /// What batches really take, in parts of what is expected.
        truth: f64,
        stages: Vec<Stage>,
    }

    const COSTS: [f64; STAGES] = [8.0, 5.0, 3.0, 2.0];
    const ELSEWHERE: f64 = 1.0;

    impl Machine {
        fn new(watts_max: f64, truth: f64) -> Self {
            let mut governor = Governor::default();
            let limits = Limits { watts_max: Some(watts_max), ..Limits::default() };
            let setting = governor.limit(limits);
            Self { governor, setting, truth, stages: Vec::new() }
        }

        /// Windows at such a load, and the watts of the last.
        fn run(&mut self, load: f64, windows: usize) -> f64 {
            let mut watts = 0.0;
            for _ in 0..windows {
                let wanted = COSTS.map(|cost| cost * load);
                let allowance = self.setting.allowance.map_or(f64::INFINITY, |watts| watts / self.setting.bias);
                let granted = wanted[self.setting.stage as usize].min(allowance);
                let attributed = granted * self.truth;
                watts = ELSEWHERE + attributed;
                let seen = Seen { elsewhere: ELSEWHERE, attributed, wanted, granted, ..Seen::default() };
                self.setting = self.governor.step(&seen);
                if self.stages.last() != Some(&self.setting.stage) {
                    self.stages.push(self.setting.stage);
                }
            }
            watts
        }
    }

    #[test]
    fn steps_go_down_to_what_fits_and_shedding_comes_last() {
        let mut machine = Machine::new(7.0, 1.0);
        assert_eq!((machine.run(0.5, 20), machine.stages.clone()), (5.0, vec![Stage::Accuracy]));
        assert_eq!((machine.run(1.0, 5), machine.setting.stage), (6.0, Stage::Balanced));
        assert_eq!((machine.run(1.5, 5), machine.setting.stage), (5.5, Stage::Eco));
        assert_eq!((machine.run(2.5, 5), machine.setting.stage), (6.0, Stage::Cheapest));
        assert_eq!(machine.setting.allowance, Some(6.0), "not yet reached");
        assert_eq!(machine.run(10.0, 5), 7.0, "the rest is refused");
        assert_eq!(machine.setting.cause, Some(Cause::Power));
        machine.run(0.2, 100);
        assert_eq!((machine.setting.stage, machine.setting.cause), (Stage::Accuracy, None));
        assert_eq!(machine.stages.len(), 7, "one stage after the other: {:?}", machine.stages);
    }

    #[test]
    fn expectations_that_are_off_are_corrected() {
        for truth in [0.4, 2.5] {
            let mut machine = Machine::new(5.0, truth);
            let watts = machine.run(20.0, 30);
            assert!((watts / 5.0 - 1.0).abs() < 0.01, "{truth}: {watts} W");
        }
    }

    #[test]
    fn a_load_at_the_border_does_not_make_it_flap() {
        // What the mode's builds take is 5 % below the limit, then 5 % above, over and over.
        let mut machine = Machine::new(9.0, 1.0);
        for _ in 0..60 {
            machine.run(0.95, 5);
            machine.run(1.05, 5);
        }
        assert_eq!(machine.stages, [Stage::Accuracy, Stage::Balanced]);
    }

    #[test]
    fn a_step_up_that_was_a_mistake_is_tried_less_and_less_often() {
        // Long pauses invite it up, and the next burst takes it back.
        let mut machine = Machine::new(5.0, 1.0);
        for _ in 0..100 {
            machine.run(0.3, 15);
            machine.run(0.7, 15);
        }
        assert!(machine.stages.len() <= 6, "{:?}", machine.stages);
    }

    #[test]
    fn what_others_take_is_not_ours_but_somebody_is_always_served() {
        let mut governor = Governor::default();
        governor.limit(Limits { watts_max: Some(10.0), ..Limits::default() });
        let seen = Seen { elsewhere: 12.0, wanted: COSTS, granted: 1.0, attributed: 1.0, ..Seen::default() };
        let setting = (0..5).map(|_| governor.step(&seen)).last().unwrap();
        assert_eq!((setting.stage, setting.allowance), (Stage::Cheapest, Some(0.1)));
    }

    #[test]
    fn a_dirty_grid_asks_for_eco_until_it_is_clearly_clean() {
        let mut governor = Governor::default();
        governor.limit(Limits { intensity_max: Some(300.0), mode: Stage::Balanced, ..Limits::default() });
        let mut at = |intensity| {
            let setting = governor.step(&Seen { intensity: Some(intensity), ..Seen::default() });
            (setting.stage, setting.cause)
        };
        let (eco, mode) = ((Stage::Eco, Some(Cause::Carbon)), (Stage::Balanced, None));
        assert_eq!([300.0, 301.0, 299.0, 271.0, 269.0, 299.0].map(&mut at), [mode, eco, eco, eco, mode, mode]);
        governor.limit(Limits { intensity_max: Some(300.0), mode: Stage::Eco, ..Limits::default() });
        let setting = governor.step(&Seen { intensity: Some(400.0), ..Seen::default() });
        assert_eq!((setting.stage, setting.cause), (Stage::Eco, None), "it was the mode already");
    }

    #[test]
    fn a_reload_keeps_what_holds_and_a_mode_that_goes_leaves_no_trace() {
        let mut machine = Machine::new(5.0, 1.0);
        machine.run(20.0, 30);
        let limits = Limits { watts_max: Some(5.0), ..Limits::default() };
        assert_eq!(machine.governor.limit(limits), machine.setting, "the same limit goes on");
        let mut governor = Governor::default();
        governor.limit(Limits { mode: Stage::Eco, watts_max: Some(100.0), ..Limits::default() });
        governor.step(&Seen { wanted: COSTS, ..Seen::default() });
        let setting = governor.limit(Limits { watts_max: Some(100.0), ..Limits::default() });
        assert_eq!((setting.stage, setting.cause), (Stage::Accuracy, None), "power has never asked for less");
    }

    #[test]
    fn limits_that_go_take_their_stage_along() {
        let mut machine = Machine::new(4.0, 1.0);
        machine.run(1.0, 5);
        assert_eq!(machine.setting.stage, Stage::Eco);
        let wider = Limits { watts_max: Some(100.0), ..Limits::default() };
        assert_eq!(machine.governor.limit(wider).stage, Stage::Accuracy);
        let none = machine.governor.limit(Limits::default());
        assert_eq!((none.stage, none.cause, none.allowance), (Stage::Accuracy, None, None));
    }
}
