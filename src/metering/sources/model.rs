//! A power model: what a machine takes by how busy its processors are. The figure compares models and variants on one
//! machine; it is no measurement, and nobody's bill.

use std::time::Duration;

use super::{Source, SourceError};
use crate::metering::config::MeteringConfig;
use crate::metering::counter::{Counter, Domain, Zone};
use crate::metering::moment::Moment;
use crate::units::Nanojoules;

/// What a virtual processor takes idle and busy, and whose figures these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coefficients {
    pub name: &'static str,
    /// Nanowatts of one processor.
    pub idle: u64,
    pub max: u64,
}

/// `cpus * idle + busy * (max - idle)`, summed up over time.
#[derive(Debug)]
pub(in crate::metering) struct Model {
    coefficients: Coefficients,
    /// The last reading's time and busy time, and what has been used until then.
    last: Option<(Duration, Duration)>,
    used: Nanojoules,
}

impl Coefficients {
    /// Those that the settings name; `auto` looks at this machine's processor.
    pub(in crate::metering) fn of(config: &MeteringConfig) -> Self {
        match config.model_coefficients.as_str() {
            CUSTOM => {
                let (idle, max) = (nanowatts(config.model_idle_watts), nanowatts(config.model_max_watts));
                Self { name: CUSTOM, idle, max: max.max(idle) }
            }
            AUTO => {
                let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
                Processor::parse(&text).coefficients()
            }
            name => Self::named(name).unwrap_or(MEAN),
        }
    }

    fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).copied()
    }

    /// What the settings may name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        [AUTO, CUSTOM].into_iter().chain(TABLE.iter().map(|row| row.name))
    }
}

impl Model {
    pub(in crate::metering) fn new(coefficients: Coefficients) -> Self {
        Self { coefficients, last: None, used: Nanojoules::ZERO }
    }
}

impl Source for Model {
    fn read(&mut self, moment: &Moment) -> Result<Vec<Zone>, SourceError> {
        let Coefficients { idle, max, .. } = self.coefficients;
        if let Some((at, busy)) = self.last {
            let (span, busy) = (moment.at.saturating_sub(at), moment.host.busy.saturating_sub(busy));
            let idle = Nanojoules::of_power(idle.saturating_mul(u64::from(moment.host.cpus)), span);
            let active = Nanojoules::of_power(max - self.coefficients.idle, busy);
            self.used.0 = self.used.0.saturating_add(idle.0).saturating_add(active.0);
        }
        self.last = Some((moment.at, moment.host.busy));
        let name = "model".to_owned();
        Ok(vec![Zone { name, domain: Domain::Model, value: self.used, counter: Counter::Endless }])
    }
}

/// What `/proc/cpuinfo` says of the first processor.
#[derive(Debug, Default, PartialEq, Eq)]
struct Processor {
    is_amd: bool,
    family: u32,
    model: u32,
    stepping: u32,
}

impl Processor {
    fn parse(text: &str) -> Self {
        let first = text.split("\n\n").next().unwrap_or_default();
        let field = |name: &str| {
            let fields = first.lines().filter_map(|line| line.split_once(':'));
            fields.into_iter().find(|(field, _)| field.trim() == name).map_or("", |(_, value)| value.trim())
        };
        let number = |name: &str| field(name).parse().unwrap_or(0);
        let is_amd = field("vendor_id") == "AuthenticAMD";
        Self { is_amd, family: number("cpu family"), model: number("model"), stepping: number("stepping") }
    }

    /// Families and models as their makers number them. Later generations of EPYC have no published figures and stand in
    /// for by Milan's, which their name says.
    fn coefficients(&self) -> Coefficients {
        let name = match (self.is_amd, self.family, self.model, self.stepping) {
            (true, 23, 0x00..=0x0f, _) => "epyc-naples",
            (true, 23, 0x30..=0x3f, _) => "epyc-rome",
            (true, 25, 0x00..=0x0f, _) => "epyc-milan",
            (true, 25 | 26, ..) => "epyc-milan-as-proxy",
            // Skylake's servers and Cascade Lake's are one model and differ in their stepping.
            (false, 6, 0x55, 0..=4) => "xeon-skylake",
            (false, 6, 0x55, 5..=7) => "xeon-cascade-lake",
            _ => MEAN.name,
        };
        Coefficients::named(name).unwrap_or(MEAN)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the settings' rules bound it")]
pub(in crate::metering) fn nanowatts(watts: f64) -> u64 {
    (watts * 1e9) as u64
}

const AUTO: &str = "auto";
const CUSTOM: &str = "custom";

/// Watts of one virtual processor, idle and at full load, as the Cloud Carbon Footprint project has published them from
/// SPECpower's results; in nanowatts.
const TABLE: &[Coefficients] = &[
    Coefficients { name: "epyc-naples", idle: 820_000_000, max: 2_550_000_000 },
    Coefficients { name: "epyc-rome", idle: 470_000_000, max: 1_640_000_000 },
    Coefficients { name: "epyc-milan", idle: 450_000_000, max: 1_870_000_000 },
    Coefficients { name: "epyc-milan-as-proxy", idle: 450_000_000, max: 1_870_000_000 },
    Coefficients { name: "xeon-skylake", idle: 640_000_000, max: 4_050_000_000 },
    Coefficients { name: "xeon-cascade-lake", idle: 640_000_000, max: 3_800_000_000 },
    MEAN,
];
/// For processors that are not in the table: the mean of the five that are.
const MEAN: Coefficients = Coefficients { name: "mean", idle: 604_000_000, max: 2_782_000_000 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metering::moment::HostCpu;

    #[test]
    fn idle_and_busy_time_are_paid_apart() {
        let mut model = Model::new(Coefficients { name: "x", idle: 500_000_000, max: 2_000_000_000 });
        let mut at = |seconds: u64, busy_ms: u64| {
            let host = HostCpu { busy: Duration::from_millis(busy_ms), cpus: 4 };
            let moment = Moment { at: Duration::from_secs(seconds), host, process: Duration::ZERO };
            model.read(&moment).unwrap()[0].value.0
        };
        assert_eq!(at(10, 70_000), 0, "what was before the first reading is not known");
        assert_eq!(at(11, 70_000), 2_000_000_000);
        assert_eq!(at(12, 74_000), 2_000_000_000 + 8_000_000_000, "all four busy take the maximum");
        assert_eq!(at(12, 73_000), 10_000_000_000, "a clock that goes back takes nothing away");
    }

    #[test]
    fn processors_are_known_by_family_and_model() {
        let cpuinfo = |vendor: &str, family: u32, model: u32, stepping: u32| {
            format!(
                "processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\
                 model name\t: X\nstepping\t: {stepping}\n\nprocessor\t: 1\nvendor_id\t: other\n"
            )
        };
        for (vendor, family, model, stepping, wanted) in [
            ("AuthenticAMD", 23, 1, 2, "epyc-naples"),
            ("AuthenticAMD", 23, 49, 0, "epyc-rome"),
            ("AuthenticAMD", 25, 1, 1, "epyc-milan"),
            ("AuthenticAMD", 25, 17, 1, "epyc-milan-as-proxy"),
            ("AuthenticAMD", 26, 2, 1, "epyc-milan-as-proxy"),
            ("GenuineIntel", 6, 85, 4, "xeon-skylake"),
            ("GenuineIntel", 6, 85, 7, "xeon-cascade-lake"),
            ("GenuineIntel", 6, 143, 8, "mean"),
        ] {
            let processor = Processor::parse(&cpuinfo(vendor, family, model, stepping));
            assert_eq!(processor.coefficients().name, wanted, "{vendor} {family} {model}");
        }
        assert_eq!(Processor::parse("").coefficients(), MEAN);
    }

    #[test]
    fn the_mean_is_that_of_the_table() {
        let rows: Vec<_> = TABLE.iter().filter(|row| row.name != "mean" && !row.name.ends_with("proxy")).collect();
        let mean = |of: fn(&Coefficients) -> u64| rows.iter().map(|row| of(row)).sum::<u64>() / rows.len() as u64;
        assert_eq!((mean(|row| row.idle), mean(|row| row.max)), (MEAN.idle, MEAN.max));
    }
}
