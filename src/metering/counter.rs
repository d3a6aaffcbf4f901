//! What energy counters said, and what was used between two readings of them. Pure.

use std::time::Duration;

use crate::units::Nanojoules;

/// All counters of a source at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Since the start, by a clock that does not jump.
    pub at: Duration,
    pub zones: Vec<Zone>,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    /// Tells it from the source's others.
    pub name: String,
    pub domain: Domain,
    pub value: Nanojoules,
    pub counter: Counter,
}

/// What a counter does at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    /// It never comes to one.
    Endless,
    /// It goes on from zero behind this value.
    Wraps { max: Nanojoules },
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Domain {
    /// A processor with its cores and caches.
    Package,
    /// Memory outside of packages.
    Dram,
    /// Within a package.
    Core,
    /// Within a package.
    Uncore,
    /// The whole machine, packages included.
    Psys,
    /// What somebody's own meter counts.
    Meter,
    /// What a model says of the whole machine.
    Model,
}

/// The energy between two readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Of all domains that there are, each once.
    pub domains: Vec<(Domain, Nanojoules)>,
    /// Of those that are not part of others.
    pub total: Nanojoules,
    pub span: Duration,
}

/// Why the time between two readings has no energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// The source could not be read.
    Unreadable,
    /// Counters have come or gone.
    Zones,
    /// A counter went back, and not because it came to its end.
    Backwards,
    /// A counter may have come to its end more than once.
    Gap,
    /// No counter has moved for too long.
    Stuck,
}

impl Reading {
    /// What was used since an earlier reading.
    ///
    /// # Errors
    /// When that cannot be known.
    pub(super) fn since(&self, before: &Self) -> Result<Difference, Dropped> {
        let span = self.at.saturating_sub(before.at);
        let same = self.zones.len() == before.zones.len()
            && self.zones.iter().zip(&before.zones).all(|(now, then)| now.name == then.name);
        if !same {
            return Err(Dropped::Zones);
        }
        let mut domains: Vec<(Domain, Nanojoules)> = Vec::new();
        for (now, then) in self.zones.iter().zip(&before.zones) {
            let used = now.counter.difference(then.value, now.value, span)?;
            match domains.iter_mut().find(|(domain, _)| *domain == now.domain) {
                Some((_, sum)) => sum.0 += used.0,
                None => domains.push((now.domain, used)),
            }
        }
        let has_package = domains.iter().any(|(domain, _)| *domain == Domain::Package);
        let total = domains.iter().filter(|(domain, _)| domain.is_whole(has_package)).map(|(_, used)| *used).sum();
        Ok(Difference { domains, total, span })
    }
}

impl Counter {
    /// From `before` to `now`, at most one end between them.
    fn difference(self, before: Nanojoules, now: Nanojoules, span: Duration) -> Result<Nanojoules, Dropped> {
        let forward = now.0.checked_sub(before.0);
        let Self::Wraps { max } = self else { return forward.map(Nanojoules).ok_or(Dropped::Backwards) };
        let most = Nanojoules::of_power(NANOWATTS_MAX, span);
        if most >= max {
            return Err(Dropped::Gap);
        }
        let around = || Some(max.0.checked_sub(before.0)? + now.0);
        // What no processor can take has not been taken: the counter was set back, or exchanged.
        let used = forward.or_else(around).filter(|used| *used <= most.0).ok_or(Dropped::Backwards)?;
        Ok(Nanojoules(used))
    }
}

impl Domain {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Dram => "dram",
            Self::Core => "core",
            Self::Uncore => "uncore",
            Self::Psys => "psys",
            Self::Meter => "meter",
            Self::Model => "model",
        }
    }

    /// Whether it counts what no other domain does. The whole machine counts where there are no packages to add up: both
    /// would count packages twice, and its sensor is not on every board what its name says.
    fn is_whole(self, has_package: bool) -> bool {
        match self {
            Self::Package | Self::Dram | Self::Meter | Self::Model => true,
            Self::Core | Self::Uncore => false,
            Self::Psys => !has_package,
        }
    }
}

impl Dropped {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Zones => "zones",
            Self::Backwards => "backwards",
            Self::Gap => "gap",
            Self::Stuck => "stuck",
        }
    }
}

/// No processor takes 2 kW. A counter of 65 kJ, the smallest of RAPL's, then comes to its end after 33 seconds.
const NANOWATTS_MAX: u64 = 2_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const J: u64 = 1_000_000_000;
    const MAX: Nanojoules = Nanojoules(262_143 * J);

    fn reading(seconds: u64, zones: &[(&str, Domain, u64)]) -> Reading {
        let zone = |(name, domain, value): &(&str, Domain, u64)| Zone {
            name: (*name).to_owned(),
            domain: *domain,
            value: Nanojoules(*value),
            counter: Counter::Wraps { max: MAX },
        };
        Reading { at: Duration::from_secs(seconds), zones: zones.iter().map(zone).collect() }
    }

    #[test]
    fn counters_end_and_go_on() {
        let second = Duration::from_secs(1);
        let wraps = Counter::Wraps { max: MAX };
        for (counter, before, now, span, wanted) in [
            (wraps, 5, 5 + 40 * J, second, Ok(40 * J)),
            (wraps, 5, 5, second, Ok(0)),
            (wraps, MAX.0 - 10 * J, 20 * J, second, Ok(30 * J)),
            (wraps, 0, 2001 * J, second, Err(Dropped::Backwards)),
            (wraps, 100 * J, 99 * J, second, Err(Dropped::Backwards)),
            (wraps, MAX.0 + 1, 1, second, Err(Dropped::Backwards)),
            (wraps, 0, 40 * J, Duration::from_secs(132), Err(Dropped::Gap)),
            (wraps, 0, 40 * J, Duration::from_secs(131), Ok(40 * J)),
            (Counter::Endless, 7, 9_000 * J, second, Ok(9_000 * J - 7)),
            (Counter::Endless, 7, 6, second, Err(Dropped::Backwards)),
        ] {
            let used = counter.difference(Nanojoules(before), Nanojoules(now), span);
            assert_eq!(used, wanted.map(Nanojoules), "{before} to {now} in {span:?}");
        }
    }

    #[test]
    fn nothing_counts_twice() {
        use Domain::{Core, Dram, Package, Psys, Uncore};
        let zones = [("0", Package), ("0:0", Core), ("0:1", Uncore), ("0:2", Dram), ("1", Package), ("2", Psys)];
        let at = |seconds: u64, used: [u64; 6]| {
            let zones: Vec<_> = zones.iter().zip(used).map(|((name, domain), used)| (*name, *domain, used)).collect();
            reading(seconds, &zones)
        };
        let difference = at(1, [10, 7, 1, 3, 20, 50]).since(&at(0, [0; 6])).unwrap();
        assert_eq!(difference.total, Nanojoules(33));
        let sums = [(Package, 30), (Core, 7), (Uncore, 1), (Dram, 3), (Psys, 50)];
        assert_eq!(difference.domains, sums.map(|(domain, used)| (domain, Nanojoules(used))));

        let alone = reading(1, &[("2", Psys, 50)]).since(&reading(0, &[("2", Psys, 8)])).unwrap();
        assert_eq!(alone.total, Nanojoules(42));
    }

    #[test]
    fn other_zones_are_no_difference() {
        let one = reading(0, &[("0", Domain::Package, 1)]);
        let two = reading(1, &[("0", Domain::Package, 2), ("1", Domain::Package, 1)]);
        let renamed = reading(1, &[("1", Domain::Package, 2)]);
        assert_eq!(two.since(&one), Err(Dropped::Zones));
        assert_eq!(one.since(&two), Err(Dropped::Zones));
        assert_eq!(renamed.since(&one), Err(Dropped::Zones));
    }
}
