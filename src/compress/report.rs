//! What was done to a model, and what it came to: for programs, for readers, and as a picture.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::evaluate::{self, Compared};
use super::factorize::Factored;
use super::layers::Change;
use super::{CompressError, Job, picture};
use crate::engine::{LayerReport, Plan, WeightLayer, Written};
use crate::repository::profile::REPORT;

/// Pairs are of the original and of what was made of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub source: String,
    /// What was asked for.
    pub recipe: String,
    /// Of the model files.
    pub bytes: [u64; 2],
    /// Medians of one made-up row on one core.
    pub milliseconds: [f64; 2],
    /// On the rows that the model was judged by, if there were any.
    pub compared: Option<Compared>,
    /// Layers that became two, before anything else was done.
    pub factored: Vec<Factored>,
    pub layers: Vec<Row>,
}

/// A layer that was compressed.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub operator: String,
    pub shape: Vec<usize>,
    pub weights: usize,
    /// With weights that are gone.
    pub zeros: [usize; 2],
    /// Of weights and scales.
    pub bytes: [usize; 2],
    /// Of one row, those with a zero left out; not known of layers that run together with others.
    pub macs: Option<[u64; 2]>,
    /// Of the layer with what is fused into it or done for it, the shortest of some runs, where it runs by itself.
    pub microseconds: [Option<f64>; 2],
    /// Mean square of what is left of the layer's responses on calibration rows, in parts of what they vary by: cut and
    /// rounded alone, and as it was fitted.
    pub errors: Option<[f64; 2]>,
}

impl Report {
    pub(super) fn of(
        job: &Job,
        factored: Vec<Factored>,
        layers: &[(WeightLayer, Change)],
        zeros_before: &[usize],
        written: Written,
        compared: Option<Compared>,
        plans: &[Arc<dyn Plan>; 2],
    ) -> Result<Self, CompressError> {
        let times = evaluate::times(plans, &job.row)?.map(|time| time.as_secs_f64() * 1e3);
        let ran = [plans[0].layers(&job.row, RUNS)?, plans[1].layers(&job.row, RUNS)?];
        let row = |((layer, change), &zeros): (&(WeightLayer, Change), &usize)| {
            let of = factored.iter().find(|of| layer.name == of.name || layer.name == of.first_name());
            row(layer, of, change, zeros, &ran)
        };
        let rows = layers.iter().zip(zeros_before).map(row).collect();
        let source = job.source.folder.join(&job.source.file);
        Ok(Self {
            bytes: [fs::metadata(&source).map_or(0, |metadata| metadata.len()), written.bytes],
            source: source.display().to_string(),
            recipe: job.recipe.to_string(),
            milliseconds: times,
            compared,
            factored,
            layers: rows,
        })
    }

    /// Puts it beside the model as `compression.json`, `.md` and `.svg`.
    pub(super) fn write(&self, folder: &Path) -> Result<(), CompressError> {
        let json = serde_json::to_string_pretty(self).expect("a report has a form in JSON");
        for (name, text) in [(REPORT, json + "\n"), (MARKDOWN, self.to_string()), (PICTURE, picture::of(self))] {
            let path = folder.join(name);
            let unwritable = |source| CompressError::Unwritable { path: path.display().to_string(), source };
            fs::write(&path, text).map_err(unwritable)?;
        }
        Ok(())
    }

    /// The share of weights of compressed layers that are zero, before and after.
    pub fn zeros(&self) -> [f64; 2] {
        let weights: usize = self.layers.iter().map(|row| row.weights).sum();
        [0, 1].map(|side| {
            let zeros: usize = self.layers.iter().map(|row| row.zeros[side]).sum();
            zeros as f64 / weights.max(1) as f64
        })
    }
}

/// A layer, which may be one of two that were made of another.
fn row(
    layer: &WeightLayer,
    of: Option<&Factored>,
    change: &Change,
    zeros_before: usize,
    ran: &[Vec<LayerReport>; 2],
) -> Row {
    let weights = layer.outputs * layer.depth;
    let zeros = [zeros_before, weights - change.left()];
    // What else is done for the layer, as turning an image, has its name too.
    let found = |side: usize, name: &str| {
        let is_it = |report: &&LayerReport| report.name.split_once(' ').is_some_and(|(_, node)| node == name);
        let found: Vec<_> = ran[side].iter().filter(is_it).collect();
        found.iter().any(|report| report.macs > 0).then_some(found)
    };
    let [before, after] = [found(0, of.map_or(&layer.name, |of| &of.name)), found(1, &layer.name)];
    let dense = before.as_ref().map(|reports| reports.iter().map(|report| report.macs).sum::<u64>());
    let micros = |reports: Vec<&LayerReport>| reports.iter().map(|report| report.time.as_secs_f64() * 1e6).sum();
    // Each weight is met as often as any other.
    let all = of.map_or(weights, |of| of.weights[0]) as u64;
    let left = |dense: u64| zeros.map(|zeros| dense / all * (weights - zeros) as u64);
    Row {
        name: layer.name.clone(),
        operator: layer.operator.clone(),
        shape: layer.shape.clone(),
        weights,
        zeros,
        bytes: [weights * size_of::<f32>(), change.bytes()],
        macs: dense.map(left),
        microseconds: [before.filter(|_| of.is_none()), after].map(|reports| reports.map(micros)),
        errors: change.errors,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}\n\n{}\n", self.source, self.recipe)?;
        writeln!(f, "| | before | after |\n|---|---:|---:|")?;
        writeln!(f, "| bytes | {} | {} |", self.bytes[0], self.bytes[1])?;
        writeln!(f, "| zeros of weights | {:.2} % | {:.2} % |", 100.0 * self.zeros()[0], 100.0 * self.zeros()[1])?;
        writeln!(f, "| milliseconds | {:.4} | {:.4} |", self.milliseconds[0], self.milliseconds[1])?;
        if let Some(compared) = &self.compared {
            if let Some([before, after]) = compared.accuracy {
                writeln!(f, "| accuracy | {:.2} % | {:.2} % |", 100.0 * before, 100.0 * after)?;
            }
            if let Some(agreement) = compared.agreement {
                writeln!(f, "| agreement | | {:.2} % |", 100.0 * agreement)?;
            }
            writeln!(f, "| error of outputs | | {:.4} |", compared.output_error)?;
            writeln!(f, "\nJudged by {} rows.", compared.rows)?;
        }
        if !self.factored.is_empty() {
            writeln!(f, "\n| layer | values between its two | groups | weights | error |\n|---|---:|---|---|---:|")?;
        }
        for Factored { name, rank, groups, weights, error } in &self.factored {
            let error = error.map_or_else(String::new, |error| format!("{error:.4}"));
            let [first, second] = groups;
            writeln!(f, "| {name} | {rank} | {first}, {second} | {} to {} | {error} |", weights[0], weights[1])?;
        }
        self.layers_shown(f)
    }
}

impl Report {
    fn layers_shown(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layers.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n| layer | weights | zeros | bytes | MACs | us | error, cut | error, fitted |")?;
        writeln!(f, "|---|---|---|---|---|---|---:|---:|")?;
        for row in &self.layers {
            let micros = row.microseconds.map(|time| time.map_or_else(String::new, |time| format!("{time:.1}")));
            let errors = row.errors.map_or_else(Default::default, |errors| errors.map(|error| format!("{error:.4}")));
            let macs = row.macs.map_or_else(String::new, |macs| format!("{} to {}", macs[0], macs[1]));
            writeln!(
                f,
                "| {} {} | {:?} | {} to {} | {} to {} | {macs} | {} to {} | {} | {} |",
                row.operator,
                row.name,
                row.shape,
                row.zeros[0],
                row.zeros[1],
                row.bytes[0],
                row.bytes[1],
                micros[0],
                micros[1],
                errors[0],
                errors[1]
            )?;
        }
        Ok(())
    }
}

const MARKDOWN: &str = "compression.md";
const PICTURE: &str = "compression.svg";

/// Of which the shortest counts for each layer.
const RUNS: usize = 20;
