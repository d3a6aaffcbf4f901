//! A source read twice, before and after a measurement: for whoever runs a model without a server.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::attribution::attribute;
use super::config::MeteringConfig;
use super::moment::{Clock, PROC_STAT};
use super::sources::{Opened, SourceError, choose};
use super::windows::{Idle, Step, Windows};
use super::{Estimate, idle_of};

/// A source, and the reading that a measurement began with.
#[derive(Debug)]
pub struct Stopwatch {
    clock: Clock,
    opened: Opened,
    windows: Windows,
}

impl Stopwatch {
    /// The source that settings choose, if any. Idle power is left out where the settings or a model know it.
    ///
    /// # Errors
    /// When the settings name a source that does not work.
    pub fn open(config: &MeteringConfig) -> Result<Option<Self>, SourceError> {
        let clock = Clock::new(Path::new(PROC_STAT));
        let opened = choose(config, |step| {
            thread::sleep(step);
            clock.read()
        })?;
        let Some(opened) = opened else { return Ok(None) };
        let idle = match idle_of(&opened, config) {
            // Of one window the least is all of it.
            Idle::Lowest(_) => Idle::Configured(0),
            idle => idle,
        };
        Ok(Some(Self { clock, opened, windows: Windows::new(idle, Duration::ZERO) }))
    }

    /// A measurement begins.
    pub fn start(&mut self) {
        self.windows.forget();
        self.read();
    }

    /// What runs that used so much CPU time have taken since; nothing where that cannot be known.
    pub fn stop(&mut self, used: Duration) -> Option<Estimate> {
        let Step::Closed(closed) = self.read() else { return None };
        let parts = attribute(&closed.with(&[used]));
        Some(Estimate { energy: parts.attributed(), kind: self.opened.kind })
    }

    fn read(&mut self) -> Step {
        let moment = self.clock.read().unwrap_or_default();
        let zones = self.opened.source.read(&moment).ok();
        self.windows.step(moment, zones)
    }
}
