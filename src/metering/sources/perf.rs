//! The power unit of Linux' performance events: the same counters of the processor as powercap's, in 64 bits.

use std::path::{Path, PathBuf};

use kinglet_sys::perf::Counter as Event;

use super::{Source, SourceError, names, read_number, read_text};
use crate::metering::counter::{Counter, Domain, Zone};
use crate::metering::moment::Moment;
use crate::units::Nanojoules;

#[derive(Debug)]
pub(super) struct Perf {
    open: Vec<Open>,
}

/// One event on one processor of each package.
#[derive(Debug)]
struct Open {
    name: String,
    domain: Domain,
    event: Event,
    nanojoules_per_count: f64,
    path: PathBuf,
}

impl Perf {
    pub(super) fn open(root: &Path) -> Result<Self, SourceError> {
        let power = root.join("power");
        let kind = u32::try_from(read_number(&power.join("type"), "the number of the power unit")?).unwrap_or(u32::MAX);
        let cpus = power.join("cpumask");
        let mask = read_text(&cpus, MASK)?;
        let cpus = processors(&mask).ok_or(SourceError::Garbage { path: cpus, expected: MASK, got: mask })?;
        let events = power.join("events");
        let unreadable =
            |source| SourceError::Unreadable { path: events.clone(), expected: "a folder of events", source };
        let mut open = Vec::new();
        for name in names(&events, "energy-").map_err(unreadable)? {
            let Some(domain) = domain(&name) else { continue };
            let path = events.join(&name);
            let (config, nanojoules_per_count) = described(&events, &name)?;
            for cpu in &cpus {
                let expected = "an event that may be counted (CAP_PERFMON, or kernel.perf_event_paranoid below 1)";
                let event = Event::open(kind, config, *cpu).map_err(|source| SourceError::Unreadable {
                    path: path.clone(),
                    expected,
                    source,
                })?;
                let name = format!("{name}:{cpu}");
                open.push(Open { name, domain, event, nanojoules_per_count, path: path.clone() });
            }
        }
        if open.is_empty() {
            return Err(SourceError::Absent { path: events, expected: "events of energy" });
        }
        Ok(Self { open })
    }
}

impl Source for Perf {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts are positive, and sums of differences of rounded numbers are differences of rounded numbers"
    )]
    fn read(&mut self, _: &Moment) -> Result<Vec<Zone>, SourceError> {
        let zone = |open: &Open| {
            let expected = "an event that can be read";
            let unreadable = |source| SourceError::Unreadable { path: open.path.clone(), expected, source };
            let count = open.event.read().map_err(unreadable)?;
            let value = Nanojoules((count as f64 * open.nanojoules_per_count) as u64);
            Ok(Zone { name: open.name.clone(), domain: open.domain, value, counter: Counter::Endless })
        };
        self.open.iter().map(zone).collect()
    }
}

/// Its number within the unit, and the energy of one count.
fn described(events: &Path, name: &str) -> Result<(u64, f64), SourceError> {
    let path = events.join(name);
    let text = read_text(&path, EVENT)?;
    let config = text.strip_prefix("event=0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let config = config.ok_or(SourceError::Garbage { path, expected: EVENT, got: text })?;
    let path = events.join(format!("{name}.scale"));
    let text = read_text(&path, SCALE)?;
    let joules = text.parse::<f64>().ok().filter(|joules| (0.0..1.0).contains(joules) && *joules > 0.0);
    let joules = joules.ok_or(SourceError::Garbage { path, expected: SCALE, got: text })?;
    Ok((config, joules * 1e9))
}

/// Of the list of processors that stand for their packages, such as `0,24` or `0-1`.
fn processors(mask: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in mask.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last - first > PACKAGES_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

fn domain(event: &str) -> Option<Domain> {
    match event {
        "energy-pkg" => Some(Domain::Package),
        "energy-ram" => Some(Domain::Dram),
        "energy-cores" => Some(Domain::Core),
        "energy-gpu" => Some(Domain::Uncore),
        "energy-psys" => Some(Domain::Psys),
        _ => None,
    }
}

/// Where Linux describes the units of its performance events.
pub(super) const EVENTS: &str = "/sys/bus/event_source/devices";
const MASK: &str = "a list of processors";
const EVENT: &str = "an event such as event=0x02";
const SCALE: &str = "the joules of one count";
const PACKAGES_MAX: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_listed() {
        assert_eq!(processors("0"), Some(vec![0]));
        assert_eq!(processors("0,24"), Some(vec![0, 24]));
        assert_eq!(processors("0-2,7"), Some(vec![0, 1, 2, 7]));
        for wrong in ["", "x", "2-1", "0-4294967295", "1,,2"] {
            assert_eq!(processors(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn events_are_described_by_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("energy-pkg", "event=0x02\n");
        write("energy-pkg.scale", "2.3283064365386962890625e-10\n");
        let (config, nanojoules) = described(folder.path(), "energy-pkg").unwrap();
        assert_eq!(config, 2);
        assert!((nanojoules - 0.232_830_643_653_869_6).abs() < 1e-15);
        for (name, text) in [("energy-pkg", "event=two"), ("energy-pkg.scale", "-1")] {
            write(name, text);
            assert!(matches!(described(folder.path(), "energy-pkg"), Err(SourceError::Garbage { .. })), "{name}");
            write("energy-pkg", "event=0x02\n");
        }
    }

    #[test]
    fn a_machine_without_the_unit_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let error = Perf::open(folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("power/type: expected the number of the power unit"), "{error}");
    }
}
