//! The thread that reads the source once a window and settles what was used: with builds, in metrics, and for estimates.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attribution::{Attribution, attribute};
use super::carbon::{Carbon, NANOJOULES_PER_KWH, grams};
use super::moment::Moment;
use super::sources::{Opened, SourceError, with_causes};
use super::windows::{Closed, Step, Windows};
use super::{Books, Latest};
use crate::engine::pool::thread_cpu_time;
use crate::telemetry::Metrics;
use crate::telemetry::energy::{Origin, WindowEnergy};

/// All that one reading needs; the time comes with each.
pub(super) struct Sampler {
    pub(super) opened: Opened,
    pub(super) windows: Windows,
    pub(super) books: Arc<Books>,
    pub(super) carbon: Carbon,
    pub(super) metrics: Arc<Metrics>,
    pub(super) origin: Origin,
    pub(super) handles: WindowEnergy,
    /// Whether the last reading failed, which was told then.
    pub(super) is_lost: bool,
    /// When the machine's life was counted last.
    pub(super) lived_until: Duration,
}

impl Sampler {
    /// One reading, at a moment if the clocks could be read.
    pub(super) fn tick(&mut self, moment: io::Result<Moment>, now: SystemTime) {
        let read = moment.map_err(SourceError::from).and_then(|moment| {
            let zones = self.opened.source.read(&moment)?;
            Ok((moment, zones))
        });
        self.tell_whether_it_is_lost(read.as_ref().err());
        let (moment, zones) = read.map_or_else(|_| (Moment::default(), None), |(moment, zones)| (moment, Some(zones)));
        self.count_life(moment.at);
        match self.windows.step(moment, zones) {
            Step::Waiting => {}
            Step::First => self.forget_what_was_used(),
            Step::Dropped(reason) => {
                self.metrics.energy.dropped(reason.as_str()).inc();
                self.forget_what_was_used();
            }
            Step::Closed(closed) => self.settle(&closed, now),
        }
        let cost = &self.metrics.energy.sampler_cpu;
        cost.inc_by((thread_cpu_time().as_secs_f64() - cost.get()).max(0.0));
    }

    fn tell_whether_it_is_lost(&mut self, error: Option<&SourceError>) {
        let source = self.origin.source;
        match (error, self.is_lost) {
            (Some(error), false) => {
                let error = with_causes(error);
                tracing::warn!(source, error, "energy source lost: energy is not told until it is back");
                self.metrics.energy.tell(false);
                self.books.lose();
            }
            (None, true) => tracing::info!(source, "energy source is back"),
            _ => {}
        }
        self.is_lost = error.is_some();
    }

    fn count_life(&mut self, at: Duration) {
        let lived = at.saturating_sub(self.lived_until);
        self.lived_until = self.lived_until.max(at);
        if let Some(grams) = self.carbon.embodied_per_second {
            self.metrics.energy.embodied().inc_by(grams * lived.as_secs_f64());
        }
    }

    /// Its energy is not known: with the next window's it would be wrong.
    fn forget_what_was_used(&self) {
        let _ = self.books.take();
    }

    fn settle(&mut self, closed: &Closed, now: SystemTime) {
        let taken = self.books.take();
        let batches: Vec<Duration> = taken.iter().map(|(_, cpu)| *cpu).collect();
        let window = closed.with(&batches);
        let parts = attribute(&window);
        let intensity = self.carbon.grams_per_kwh(now);
        let per_nanojoule = intensity.map(|intensity| intensity / NANOJOULES_PER_KWH);
        for ((account, _), energy) in taken.iter().zip(&parts.batches) {
            account.settle(*energy, per_nanojoule.map(|per_nanojoule| grams(*energy, per_nanojoule)));
        }
        for (domain, energy) in &closed.difference.domains {
            self.metrics.energy.counted(self.origin, domain.as_str()).inc_by(energy.as_joules());
        }
        self.handles.overhead.inc_by(parts.overhead.as_joules());
        self.handles.idle.inc_by(parts.idle.as_joules());
        self.handles.other.inc_by(parts.other.as_joules());
        self.metrics.energy.tell(true);
        let attributed = parts.attributed();
        let Attribution { idle, other, overhead, .. } = parts;
        self.books.publish(|before| Latest {
            number: before.map_or(0, |before| before.number) + 1,
            span: window.span,
            energy: window.energy,
            idle,
            other,
            overhead,
            attributed,
            // A window in which nobody ran has no price; the last one's is the best guess.
            per_cpu_second: window.per_cpu_second().or(before.and_then(|before| before.per_cpu_second)),
            intensity,
            host_utilization: closed.host_utilization(),
        });
    }
}
