//! The settings of traces, as the protocol's trace extension names and writes them. Knows neither wire nor rule.

/// What the trace extension shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    pub level: Level,
    /// One in so many is recorded of requests whose clients do not say; none for 0.
    pub rate: u32,
    /// So many more are; `None` for any number.
    pub count: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Off,
    Timestamps,
}

/// A setting with its new value; nothing takes back what was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Level(Option<Level>),
    Rate(Option<u32>),
    Count(Option<Option<u64>>),
}

/// A setting's value on either wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceValue {
    Text(String),
    List(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceSettingError {
    #[error("unknown trace setting {name:?}, expected one of {}", NAMES.join(", "))]
    Unknown { name: String },
    #[error("expected {expected} for {name}, got {got:?}")]
    Wrong { name: &'static str, expected: &'static str, got: Vec<String> },
    #[error("trace level TENSORS is not served: what is in tensors is never recorded")]
    Tensors,
    #[error(
        "{name} cannot be set over the network: spans go to the collector of tracing.endpoint, every tracing.interval"
    )]
    ReadOnly { name: &'static str },
    #[error("trace settings cannot be changed over the network, tracing.settings_over_network allows it")]
    Closed,
    #[error("nothing can be recorded: tracing.endpoint names no collector")]
    NoCollector,
}

impl TraceSettings {
    /// Every setting by its name in the protocol.
    pub fn entries(&self) -> [(&'static str, TraceValue); 6] {
        let text = |text: &str| TraceValue::Text(text.to_owned());
        let level = match self.level {
            Level::Off => OFF,
            Level::Timestamps => TIMESTAMPS,
        };
        [
            (TRACE_FILE, text(NO_FILE)),
            (TRACE_LEVEL, TraceValue::List(vec![level.to_owned()])),
            (TRACE_RATE, TraceValue::Text(self.rate.to_string())),
            (TRACE_COUNT, TraceValue::Text(self.count.map_or_else(|| UNLIMITED.to_owned(), |left| left.to_string()))),
            (LOG_FREQUENCY, text(NO_FREQUENCY)),
            (TRACE_MODE, text(MODE)),
        ]
    }
}

impl Change {
    /// What a request says of one setting; no values take back what was set. Nothing where nothing changes: clients send
    /// back what they read.
    ///
    /// # Errors
    /// When the setting is unknown, cannot be changed, or not to this value.
    pub fn read(name: &str, values: &[String]) -> Result<Option<Self>, TraceSettingError> {
        let change = match name {
            TRACE_LEVEL => Self::Level(level(values)?),
            TRACE_RATE => Self::Rate(one(TRACE_RATE, RATES, values, |text| text.parse().ok())?),
            TRACE_COUNT => {
                let count = |text: &str| if text == UNLIMITED { Some(None) } else { text.parse().ok().map(Some) };
                Self::Count(one(TRACE_COUNT, COUNTS, values, count)?)
            }
            TRACE_FILE => return unchanged(TRACE_FILE, NO_FILE, values),
            LOG_FREQUENCY => return unchanged(LOG_FREQUENCY, NO_FREQUENCY, values),
            TRACE_MODE => return unchanged(TRACE_MODE, MODE, values),
            other => return Err(TraceSettingError::Unknown { name: other.chars().take(SHOWN_MAX).collect() }),
        };
        Ok(Some(change))
    }
}

fn level(values: &[String]) -> Result<Option<Level>, TraceSettingError> {
    match values {
        [] => Ok(None),
        [level] if level == OFF => Ok(Some(Level::Off)),
        [level] if level == TIMESTAMPS => Ok(Some(Level::Timestamps)),
        several if several.iter().any(|level| level == TENSORS) => Err(TraceSettingError::Tensors),
        other => Err(wrong(TRACE_LEVEL, LEVELS, other)),
    }
}

/// The only value.
fn one<T>(
    name: &'static str,
    expected: &'static str,
    values: &[String],
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, TraceSettingError> {
    match values {
        [] => Ok(None),
        [text] => parse(text).map(Some).ok_or_else(|| wrong(name, expected, values)),
        other => Err(wrong(name, expected, other)),
    }
}

fn unchanged(name: &'static str, holds: &str, values: &[String]) -> Result<Option<Change>, TraceSettingError> {
    match values {
        [] => Ok(None),
        [text] if text == holds => Ok(None),
        _ => Err(TraceSettingError::ReadOnly { name }),
    }
}

fn wrong(name: &'static str, expected: &'static str, got: &[String]) -> TraceSettingError {
    let shown = got.iter().take(VALUES_SHOWN_MAX).map(|text| text.chars().take(SHOWN_MAX).collect());
    TraceSettingError::Wrong { name, expected, got: shown.collect() }
}

const TRACE_FILE: &str = "trace_file";
const TRACE_LEVEL: &str = "trace_level";
const TRACE_RATE: &str = "trace_rate";
const TRACE_COUNT: &str = "trace_count";
const LOG_FREQUENCY: &str = "log_frequency";
const TRACE_MODE: &str = "trace_mode";
const NAMES: [&str; 6] = [TRACE_FILE, TRACE_LEVEL, TRACE_RATE, TRACE_COUNT, LOG_FREQUENCY, TRACE_MODE];
const OFF: &str = "OFF";
const TIMESTAMPS: &str = "TIMESTAMPS";
const TENSORS: &str = "TENSORS";
const LEVELS: &str = "OFF or TIMESTAMPS";
const RATES: &str = "a whole number from 0 to 4294967295";
const COUNTS: &str = "-1 or a whole number from 0";
const UNLIMITED: &str = "-1";
const NO_FILE: &str = "";
const NO_FREQUENCY: &str = "0";
/// As Triton calls it where spans go to a collector.
const MODE: &str = "opentelemetry";
/// An error repeats at most this much of what came.
const SHOWN_MAX: usize = 64;
const VALUES_SHOWN_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, values: &[&str], wanted: Result<Option<Change>, &str>) {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        let got = Change::read(name, &values).map_err(|error| error.to_string());
        assert_eq!(got, wanted.map_err(str::to_owned), "{name} {values:?}");
    }

    #[test]
    fn settings_are_read() {
        check("trace_level", &["OFF"], Ok(Some(Change::Level(Some(Level::Off)))));
        check("trace_level", &["TIMESTAMPS"], Ok(Some(Change::Level(Some(Level::Timestamps)))));
        check("trace_level", &[], Ok(Some(Change::Level(None))));
        let tensors = "trace level TENSORS is not served: what is in tensors is never recorded";
        check("trace_level", &["TENSORS"], Err(tensors));
        check("trace_level", &["TIMESTAMPS", "TENSORS"], Err(tensors));
        check("trace_level", &["off"], Err("expected OFF or TIMESTAMPS for trace_level, got [\"off\"]"));
        check(
            "trace_level",
            &["OFF", "TIMESTAMPS"],
            Err("expected OFF or TIMESTAMPS for trace_level, got [\"OFF\", \"TIMESTAMPS\"]"),
        );
        check("trace_rate", &["1000"], Ok(Some(Change::Rate(Some(1000)))));
        check("trace_rate", &["0"], Ok(Some(Change::Rate(Some(0)))));
        check("trace_rate", &[], Ok(Some(Change::Rate(None))));
        let rates = "expected a whole number from 0 to 4294967295 for trace_rate, got";
        check("trace_rate", &["-1"], Err(&format!("{rates} [\"-1\"]")));
        check("trace_rate", &["4294967296"], Err(&format!("{rates} [\"4294967296\"]")));
        check("trace_rate", &["1", "2"], Err(&format!("{rates} [\"1\", \"2\"]")));
        check("trace_count", &["-1"], Ok(Some(Change::Count(Some(None)))));
        check("trace_count", &["5"], Ok(Some(Change::Count(Some(Some(5))))));
        check("trace_count", &[], Ok(Some(Change::Count(None))));
        check("trace_count", &["-2"], Err("expected -1 or a whole number from 0 for trace_count, got [\"-2\"]"));
        let long = "x".repeat(1000);
        let shown = format!("expected OFF or TIMESTAMPS for trace_level, got [{:?}]", "x".repeat(64));
        check("trace_level", &[&long], Err(&shown));
    }

    #[test]
    fn what_is_read_may_be_sent_back_and_files_may_not_be_named() {
        for (name, holds, other) in
            [("trace_file", "", "/tmp/stolen"), ("log_frequency", "0", "1"), ("trace_mode", "opentelemetry", "triton")]
        {
            check(name, &[], Ok(None));
            check(name, &[holds], Ok(None));
            let why =
                "cannot be set over the network: spans go to the collector of tracing.endpoint, every tracing.interval";
            check(name, &[other], Err(&format!("{name} {why}")));
        }
        let names = "trace_file, trace_level, trace_rate, trace_count, log_frequency, trace_mode";
        check("level", &["OFF"], Err(&format!("unknown trace setting \"level\", expected one of {names}")));
        let settings = TraceSettings { level: Level::Timestamps, rate: 3, count: Some(2) };
        for (name, value) in settings.entries() {
            let values = match value {
                TraceValue::Text(text) => vec![text],
                TraceValue::List(list) => list,
            };
            assert!(Change::read(name, &values).is_ok(), "{name}");
        }
    }
}
