//! From readings to windows: what was used between the last reading that counts and this one. Pure, time included.

use std::time::Duration;

use super::attribution::Window;
use super::counter::{Difference, Dropped, Reading, Zone};
use super::moment::Moment;

/// The last reading, and what an idle machine takes.
#[derive(Debug)]
pub(super) struct Windows {
    before: Option<(Moment, Reading)>,
    idle: Idle,
    /// How long counters may stand still.
    stuck_after: Duration,
}

/// What the machine takes when it does nothing, in nanowatts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Configured(u64),
    /// Of each processor, as the model has it.
    Model(u64),
    /// The least that any window showed.
    Lowest(Option<u64>),
}

/// What a reading has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing to compare it with.
    First,
    /// No counter has moved: the window goes on.
    Waiting,
    /// What was used in this window is not known, nor whose it was.
    Dropped(Dropped),
    Closed(Closed),
}

/// A window that counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) difference: Difference,
    pub(super) idle_nanowatts: u64,
    pub(super) host_cpu: Duration,
    pub(super) cpus: u32,
    pub(super) process_cpu: Duration,
}

impl Windows {
    pub(super) fn new(idle: Idle, stuck_after: Duration) -> Self {
        Self { before: None, idle, stuck_after }
    }

    /// The next reading is the first.
    pub(super) fn forget(&mut self) {
        self.before = None;
    }

    /// Takes a reading; `None` where the source could not be read.
    pub(super) fn step(&mut self, moment: Moment, zones: Option<Vec<Zone>>) -> Step {
        let Some(zones) = zones else {
            // Without a reading before, nobody knows when it began.
            self.before = None;
            return Step::Dropped(Dropped::Unreadable);
        };
        let now = Reading { at: moment.at, zones };
        let Some((then, before)) = &self.before else {
            self.before = Some((moment, now));
            return Step::First;
        };
        let (host_cpu, process_cpu) =
            (moment.host.busy.saturating_sub(then.host.busy), moment.process.saturating_sub(then.process));
        let step = match now.since(before) {
            Err(reason) => Step::Dropped(reason),
            Ok(still) if still.total.0 == 0 && still.span < self.stuck_after => return Step::Waiting,
            Ok(still) if still.total.0 == 0 => Step::Dropped(Dropped::Stuck),
            Ok(difference) => {
                let power = difference.total.power_over(difference.span).unwrap_or(0);
                let cpus = moment.host.cpus;
                let idle_nanowatts = self.idle.learn(power, cpus);
                Step::Closed(Closed { difference, idle_nanowatts, host_cpu, cpus, process_cpu })
            }
        };
        self.before = Some((moment, now));
        step
    }
}

impl Idle {
    /// The idle power that holds for a window of this power.
    fn learn(&mut self, nanowatts: u64, cpus: u32) -> u64 {
        match self {
            Self::Configured(idle) => *idle,
            Self::Model(idle) => idle.saturating_mul(u64::from(cpus)),
            Self::Lowest(lowest) => *lowest.insert(lowest.unwrap_or(u64::MAX).min(nanowatts)),
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Configured(_) => "configured",
            Self::Model(_) => "model",
            Self::Lowest(_) => "lowest",
        }
    }
}

impl Closed {
    /// The share of the machine's processors that was busy.
    pub(super) fn host_utilization(&self) -> f64 {
        let whole = self.difference.span.as_secs_f64() * f64::from(self.cpus);
        if whole > 0.0 { (self.host_cpu.as_secs_f64() / whole).min(1.0) } else { 0.0 }
    }

    /// The window with what builds' batches used in it.
    pub(super) fn with<'a>(&self, batches: &'a [Duration]) -> Window<'a> {
        Window {
            energy: self.difference.total,
            span: self.difference.span,
            idle_nanowatts: self.idle_nanowatts,
            host_cpu: self.host_cpu,
            process_cpu: self.process_cpu,
            batches,
        }
    }
}
