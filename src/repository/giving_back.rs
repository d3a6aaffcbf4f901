//! When memory of loads and builds that have ended goes back to the system: a pure rule.
//!
//! Doing it takes a thread and some time; both are the actor's to find.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct GivingBack {
    asked_for: Option<Instant>,
    is_under_way: bool,
}

impl GivingBack {
    /// A load or a build has ended. Those that end together are one matter, and the last threads let go of them only now; but
    /// builds that go on ending do not put it off.
    pub(super) fn ask(&mut self, now: Instant) {
        self.asked_for.get_or_insert(now + DELAY);
    }

    /// When to begin, if at all. Not while one is under way: it may wait for a thread behind a long load, and others
    /// behind it would do nothing.
    pub(super) fn due(&self) -> Option<Instant> {
        self.asked_for.filter(|_| !self.is_under_way)
    }

    pub(super) fn begin(&mut self) {
        *self = Self { asked_for: None, is_under_way: true };
    }

    pub(super) fn end(&mut self) {
        self.is_under_way = false;
    }
}

/// Unloads that follow each other closely give their memory back together.
const DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_that_go_on_ending_do_not_put_it_off() {
        let (begin, mut rule) = (Instant::now(), GivingBack::default());
        assert_eq!(rule.due(), None);
        for tenths in 0..9 {
            rule.ask(begin + DELAY / 10 * tenths);
            assert_eq!(rule.due(), Some(begin + DELAY));
        }
    }

    #[test]
    fn one_is_under_way_at_a_time() {
        let (begin, mut rule) = (Instant::now(), GivingBack::default());
        rule.ask(begin);
        rule.begin();
        assert_eq!(rule.due(), None);
        rule.ask(begin + DELAY);
        rule.ask(begin + DELAY * 9);
        assert_eq!(rule.due(), None, "the thread is not free yet");
        rule.end();
        assert_eq!(rule.due(), Some(begin + DELAY * 2), "what ended meanwhile is not forgotten");
        rule.begin();
        rule.end();
        assert_eq!(rule.due(), None);
    }
}
