//! What a compressed model has lost: accuracy where rows have labels, agreement with the original where outputs are
//! classes, and how far outputs are apart in any case; and the time that both take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::CompressError;
use super::samples::Samples;
use crate::engine::{Batch, Plan, Pool};
use crate::tensor::{DType, Tensor};

/// Two models on the same rows, the original first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Compared {
    pub rows: usize,
    /// Shares of rows whose class is the label.
    pub accuracy: Option<[f64; 2]>,
    /// The share of rows that both give one class.
    pub agreement: Option<f64>,
    /// The root of the mean square of what outputs differ by, in parts of the original's.
    pub output_error: f64,
}

impl Compared {
    pub(super) fn of(plans: &[Arc<dyn Plan>; 2], samples: &Samples, pool: &Pool) -> Result<Self, CompressError> {
        let outputs = &plans[0].signature().outputs;
        let is_classes = |at: &usize| outputs[*at].dtype == DType::F32 && outputs[*at].dims.len() == 2;
        let classes = (0..outputs.len()).find(is_classes);
        let mut counted = Counted::default();
        samples.each(&[&plans[0], &plans[1]], pool, |answers| {
            for (before, after) in answers[0].iter().zip(&answers[1]).filter(|(output, _)| output.dtype() == DType::F32)
            {
                counted.compare(before, after);
            }
            if let Some(at) = classes {
                counted.classify([&answers[0][at], &answers[1][at]], samples.labels.as_deref());
            }
            Ok(())
        })?;
        let share = |count: usize| count as f64 / samples.rows as f64;
        let labelled = classes.and(samples.labels.as_ref());
        Ok(Self {
            rows: samples.rows,
            accuracy: labelled.map(|_| counted.right.map(share)),
            agreement: classes.map(|_| share(counted.same)),
            output_error: (counted.differences / counted.squares.max(f64::MIN_POSITIVE)).sqrt(),
        })
    }

    /// Accuracy where it is known, else agreement, else how far outputs are apart.
    pub fn loss(&self) -> f64 {
        match (self.accuracy, self.agreement) {
            (Some([before, after]), _) => before - after,
            (None, Some(agreement)) => 1.0 - agreement,
            (None, None) => self.output_error,
        }
    }

    /// What `loss` is of.
    pub fn what(&self) -> &'static str {
        match (self.accuracy, self.agreement) {
            (Some(_), _) => "accuracy",
            (None, Some(_)) => "agreement",
            (None, None) => "outputs",
        }
    }
}

/// The median time of a run on one core, of each plan; they take turns, so that a busy machine is so to both.
pub(super) fn times(plans: &[Arc<dyn Plan>; 2], row: &Batch) -> Result<[Duration; 2], CompressError> {
    let pool = Pool::start(Some(1));
    let mut times = [Vec::new(), Vec::new()];
    let started = Instant::now();
    while times[0].len() < RUNS_MIN || (started.elapsed() < TIME && times[0].len() < RUNS_MAX) {
        for (plan, times) in plans.iter().zip(&mut times) {
            let (plan, row) = (Arc::clone(plan), row.clone());
            let run = pool.wait_for(move |cores| {
                let started = Instant::now();
                plan.run(&row, cores).map(|_| started.elapsed())
            });
            times.push(run.ok_or(CompressError::Panicked)??);
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    }))
}

#[derive(Default)]
struct Counted {
    row: usize,
    right: [usize; 2],
    same: usize,
    differences: f64,
    squares: f64,
}

impl Counted {
    fn compare(&mut self, before: &Tensor, after: &Tensor) {
        for (before, after) in floats(before).zip(floats(after)) {
            // What is not finite differs by all that there is.
            let difference = if before.to_bits() == after.to_bits() { 0.0 } else { f64::from(before - after).powi(2) };
            self.differences += if difference.is_nan() { f64::INFINITY } else { difference };
            self.squares += f64::from(before).powi(2);
        }
    }

    fn classify(&mut self, answers: [&Tensor; 2], labels: Option<&[usize]>) {
        let [before, after] = answers.map(classes);
        for pair in before.into_iter().zip(after) {
            self.same += usize::from(pair.0 == pair.1);
            if let Some(label) = labels.map(|labels| labels[self.row]) {
                self.right[0] += usize::from(pair.0 == Some(label));
                self.right[1] += usize::from(pair.1 == Some(label));
            }
            self.row += 1;
        }
    }
}

/// For each row where its greatest number is, the first of equal ones; no class where one is no number.
fn classes(tensor: &Tensor) -> Vec<Option<usize>> {
    let width = tensor.shape().last().copied().unwrap_or(1).max(1);
    let numbers: Vec<f32> = floats(tensor).collect();
    let greatest = |row: &[f32]| (1..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
    let class = |row: &[f32]| row.iter().all(|number| !number.is_nan()).then(|| greatest(row));
    numbers.chunks(width).map(class).collect()
}

fn floats(tensor: &Tensor) -> impl Iterator<Item = f32> {
    tensor.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// How long both are timed together, and how often each at least and at most.
const TIME: Duration = Duration::from_millis(1000);
const RUNS_MIN: usize = 11;
const RUNS_MAX: usize = 2001;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    fn rows(width: usize, values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DType::F32, Shape::new(&[values.len() / width, width]), bytes.into()).unwrap()
    }

    #[test]
    fn classes_are_counted_across_batches() {
        let mut counted = Counted::default();
        let labels = [1, 0, 1];
        counted.classify([&rows(2, &[0.0, 1.0, 2.0, 1.0]), &rows(2, &[0.0, 1.0, 1.0, 2.0])], Some(&labels));
        counted.classify([&rows(2, &[5.0, 5.0]), &rows(2, &[f32::NAN, 1.0])], Some(&labels));
        assert_eq!((counted.row, counted.right, counted.same), (3, [2, 1], 1));
    }

    #[test]
    fn what_is_lost_is_of_what_is_known() {
        let with = |accuracy, agreement| Compared { rows: 1, accuracy, agreement, output_error: 0.25 };
        for (compared, what, loss) in [
            (with(Some([0.75, 0.5]), Some(0.5)), "accuracy", 0.25),
            (with(None, Some(0.875)), "agreement", 0.125),
            (with(None, None), "outputs", 0.25),
        ] {
            assert_eq!((compared.what(), compared.loss()), (what, loss));
        }
    }

    #[test]
    fn outputs_that_are_no_numbers_are_lost() {
        let mut counted = Counted::default();
        counted.compare(&rows(1, &[1.0, f32::NAN]), &rows(1, &[1.0, f32::NAN]));
        assert_eq!(counted.differences, 0.0);
        counted.compare(&rows(1, &[1.0]), &rows(1, &[f32::NAN]));
        assert_eq!(counted.differences, f64::INFINITY);
    }
}
