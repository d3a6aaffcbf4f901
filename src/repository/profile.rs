//! What a build is worth and what it costs: by this routing chooses among the builds of a version.

use std::sync::Mutex;

use serde::Deserialize;

use super::error::LoadError;
use super::files::{Source, TEXT_BYTES_MAX};
use crate::engine::pool::lock;
use crate::metering::Costs;

/// Accuracy from the settings or from a report of compression, times from measurements.
#[derive(Debug, Default)]
pub struct Profile {
    /// By the settings, or the report beside the build.
    declared: Option<f64>,
    /// By the report of another build that was made of this one.
    learned: Mutex<Option<f64>>,
    /// Where a report stands beside the build.
    pub(super) judged: Option<Judged>,
    costs: Mutex<Costs>,
}

/// What the report of a compressed model says of it and of the original, on the same labelled rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Judged {
    rows: usize,
    pub(super) original: f64,
    pub(super) compressed: f64,
}

#[derive(Deserialize)]
struct Report {
    compared: Option<Compared>,
}

#[derive(Deserialize)]
struct Compared {
    rows: usize,
    accuracy: Option<[f64; 2]>,
}

impl Profile {
    /// Settings count for more than the report.
    pub(super) fn new(declared: Option<f64>, judged: Option<Judged>, costs: Costs) -> Self {
        let accuracy = declared.or(judged.map(|judged| judged.compressed));
        Self { declared: accuracy, learned: Mutex::default(), judged, costs: Mutex::new(costs) }
    }

    /// The share of rows with the right answer; `None` where nobody has said it.
    pub fn accuracy(&self) -> Option<f64> {
        self.declared.or(*lock(&self.learned))
    }

    /// Takes what the reports of other builds say now, if they say anything.
    pub fn learn_accuracy(&self, accuracy: Option<f64>) {
        *lock(&self.learned) = accuracy;
    }

    /// The same for another life of the build, whose costs go their own way from here on.
    pub fn again(&self) -> Self {
        Self::new(self.accuracy(), self.judged, self.costs(|costs| costs.clone()))
    }

    /// Reads, or learns, what runs cost; others wait meanwhile.
    pub fn costs<T>(&self, with: impl FnOnce(&mut Costs) -> T) -> T {
        with(&mut lock(&self.costs))
    }
}

impl Judged {
    /// What the report in a model's folder says, if it has one with labelled rows.
    pub(super) fn read(folder: &Source) -> Result<Option<Self>, LoadError> {
        let Some(text) = folder.read_text(REPORT, TEXT_BYTES_MAX)? else { return Ok(None) };
        let broken = |error: serde_json::Error| LoadError::File { file: REPORT.into(), reason: error.to_string() };
        let report: Report = serde_json::from_str(&text).map_err(broken)?;
        let Some(Compared { rows, accuracy: Some([original, compressed]) }) = report.compared else { return Ok(None) };
        if ![original, compressed].iter().all(|accuracy| (0.0..=1.0).contains(accuracy)) {
            let reason = format!("accuracy: expected shares from 0 to 1, got [{original}, {compressed}]");
            return Err(LoadError::File { file: REPORT.into(), reason });
        }
        Ok(Some(Self { rows, original, compressed }))
    }

    /// Of reports about one original, the one to believe.
    pub(super) fn most_rows(all: impl Iterator<Item = Self>) -> Option<Self> {
        all.max_by_key(|judged| judged.rows)
    }
}

/// What `kinglet compress` writes beside a model, for programs.
pub const REPORT: &str = "compression.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Judged>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(REPORT), text).unwrap();
        Judged::read(&Source::of(folder.path(), None)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_report_tells_what_both_are_worth() {
        let judged = Judged { rows: 500, original: 0.98, compressed: 0.975 };
        assert_eq!(read(r#"{"compared":{"rows":500,"accuracy":[0.98,0.975]},"layers":[]}"#), Ok(Some(judged)));
        for silent in [r#"{"compared":null}"#, "{}", r#"{"compared":{"rows":5,"accuracy":null,"agreement":0.9}}"#] {
            assert_eq!(read(silent), Ok(None), "{silent}");
        }
        assert_eq!(Judged::read(&Source::of(tempfile::tempdir().unwrap().path(), None)).unwrap(), None);
        let fewer = Judged { rows: 20, ..judged };
        assert_eq!(Judged::most_rows([fewer, judged].into_iter()), Some(judged));
    }

    #[test]
    fn a_broken_report_is_told() {
        assert!(read("{").unwrap_err().starts_with("compression.json: EOF"));
        let wrong = read(r#"{"compared":{"rows":5,"accuracy":[98, 97.5]}}"#).unwrap_err();
        assert_eq!(wrong, "compression.json: accuracy: expected shares from 0 to 1, got [98, 97.5]");
    }
}
