//! Learns from runs on made-up rows which sizes of batches are fast, and which give each row the very bits it gets
//! alone. Only the latter may ever be used, and only after so many equal answers that an accident is out of the
//! question: tract picks its kernels by the number of rows, and two of them may differ in one answer out of hundreds.

use std::time::{Duration, Instant};

use super::forms::{Family, Forms, Single};
use super::load::has_other_free_axes;
use super::plan::{Form, Model, Piece};
use super::probe::{Noise, PROBE_BYTES_MAX, inputs, zero};
use super::shapes::Shapes;
use crate::engine::{BatchInput, Dim, EngineError, Merging};
use crate::tensor::{DType, Shape, Tensor};

/// What is known of batch sizes after about `time_max` of runs. Nothing is learned of models whose rows have no fixed
/// shape: what holds for one shape need not hold for another.
pub(super) fn forms(model: &Model, batch_size_max: usize, time_max: Duration) -> Forms {
    let symbolic = matches!(model.shapes, Shapes::Symbolic { row: Some(_), .. });
    if model.merging != Merging::Rows || !symbolic || has_other_free_axes(&model.signature.inputs) {
        return Forms::default();
    }
    let Some(one) = inputs(&model.signature, 1, &mut zero) else { return Forms::default() };
    let row_bytes: usize = one.iter().map(|input| input.pieces[0].len()).sum();
    drop(one);
    let rows_max = batch_size_max.min(PROBE_BYTES_MAX / row_bytes.max(1)).max(1);
    let trial = Trial { model, rows_max, deadline: Instant::now() + time_max };
    trial.families(time_max).map(|families| Forms::fastest(&families, rows_max)).unwrap_or_default()
}

/// Runs the model once on zeros, where only the number of rows is free and any number will do: what fails then always
/// fails.
pub(super) fn try_once(model: &Model, form: Form) -> Result<(), EngineError> {
    let batched = model.merging == Merging::Rows;
    let decided = model.signature.inputs.iter().flat_map(|spec| spec.dims.iter().skip(usize::from(batched)));
    if decided.into_iter().any(|dim| matches!(dim, Dim::Free(_))) {
        return Ok(());
    }
    let rows = if batched && form == Form::Whole { 2 } else { 1 };
    let Some(inputs) = inputs(&model.signature, rows, &mut zero) else { return Ok(()) };
    let values =
        inputs.iter().map(|input| super::convert::gather(input, &input.shape, 0, 1)).collect::<Result<_, _>>()?;
    let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape.clone()).collect();
    model.run(form, &shapes, values).map(|_| ())
}

struct Trial<'a> {
    model: &'a Model,
    rows_max: usize,
    deadline: Instant,
}

/// Rows run one by one: their answers and the shortest time of one.
struct Singles {
    rows: Vec<Vec<Tensor>>,
    time: Duration,
}

/// A size of a family that has not differed yet.
struct Candidate {
    single: Single,
    size: usize,
    time: Duration,
    /// Elements that were compared and say something.
    evidence: usize,
}

impl Trial<'_> {
    /// Sizes whose rows come out as they do alone, once for each way to run a single row.
    fn families(&self, time_max: Duration) -> Result<Vec<Family>, EngineError> {
        let given = self.noise(0, self.rows_max)?;
        let mut known = self.rows_max;
        let mut times = Vec::new();
        for single in SINGLES {
            let singles = self.singles(&given, single, known, time_max / 8)?;
            known = singles.rows.len();
            times.push((single, singles.time));
        }
        let mut candidates = Vec::new();
        let doubling = (1..usize::BITS).map(|bit| 1usize << bit).take_while(|size| *size < known);
        for size in doubling.chain((known > 1).then_some(known)) {
            if Instant::now() >= self.deadline {
                break;
            }
            let time = self.timed(&given, size)?;
            candidates.extend(SINGLES.map(|single| Candidate { single, size, time, evidence: 0 }));
        }
        // A few rounds find most differences; what is left is compared at length for the best family alone.
        for round in 0..SHALLOW_ROUNDS {
            if Instant::now() < self.deadline {
                self.compare(round, &mut candidates)?;
            }
        }
        let family = |(single, time): (Single, Duration), candidates: &[Candidate]| {
            let sizes = candidates.iter().filter(|candidate| candidate.single == single).map(|c| (c.size, c.time));
            Family { single, sizes: std::iter::once((1, time)).chain(sizes).collect() }
        };
        let families: Vec<Family> = times.iter().map(|&time| family(time, &candidates)).collect();
        let best = Forms::fastest(&families, self.rows_max).single;
        candidates.retain(|candidate| candidate.single == best);
        let mut round = SHALLOW_ROUNDS;
        while Instant::now() < self.deadline && candidates.iter().any(|c| c.evidence < EVIDENCE_ENOUGH) {
            self.compare(round, &mut candidates)?;
            round += 1;
        }
        candidates.retain(|candidate| candidate.evidence >= EVIDENCE_MIN);
        Ok(times.into_iter().map(|time| family(time, &candidates)).collect())
    }

    /// One round on new rows: candidates that differ from single rows anywhere are out.
    fn compare(&self, round: u32, candidates: &mut Vec<Candidate>) -> Result<(), EngineError> {
        let rows = candidates.iter().map(|candidate| candidate.size).max().unwrap_or(0);
        let given = self.noise(round, rows)?;
        let mut alone = Vec::new();
        for single in SINGLES {
            let wanted = candidates.iter().any(|candidate| candidate.single == single);
            let rows = if wanted { self.singles(&given, single, rows, Duration::MAX)?.rows } else { Vec::new() };
            alone.push((single, rows));
        }
        let mut sizes: Vec<usize> = candidates.iter().map(|candidate| candidate.size).collect();
        sizes.dedup();
        for size in sizes {
            // From another row on each round: where a row stands must not matter either.
            let first = usize::try_from(round).unwrap_or(0) % size % (rows - size + 1);
            for from in (first..=rows - size).step_by(size) {
                let together = Piece::gather(&given, from, size, Single::Whole)?.run(self.model)?;
                candidates.retain_mut(|candidate| {
                    let rows = alone.iter().find(|(single, _)| *single == candidate.single).map(|(_, rows)| rows);
                    let equal = rows.and_then(|rows| equal_elements(&together, rows.get(from..from + size)?));
                    candidate.evidence += equal.filter(|_| candidate.size == size).unwrap_or(0);
                    candidate.size != size || equal.is_some()
                });
                if !candidates.iter().any(|candidate| candidate.size == size) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Runs rows one by one until they are enough or the time is over; at least one.
    fn singles(
        &self,
        given: &[BatchInput],
        single: Single,
        rows: usize,
        time_max: Duration,
    ) -> Result<Singles, EngineError> {
        let started = Instant::now();
        let mut singles = Singles { rows: Vec::new(), time: Duration::MAX };
        while singles.rows.len() < rows && (singles.rows.is_empty() || started.elapsed() < time_max) {
            let piece = Piece::gather(given, singles.rows.len(), 1, single)?;
            let began = Instant::now();
            singles.rows.push(piece.run(self.model)?);
            singles.time = singles.time.min(began.elapsed());
        }
        Ok(singles)
    }

    /// The shortest time of a few runs.
    fn timed(&self, given: &[BatchInput], rows: usize) -> Result<Duration, EngineError> {
        let mut shortest = Duration::MAX;
        for _ in 0..TIMED_RUNS {
            let piece = Piece::gather(given, 0, rows, Single::Whole)?;
            let began = Instant::now();
            piece.run(self.model)?;
            shortest = shortest.min(began.elapsed());
            if Instant::now() >= self.deadline {
                break;
            }
        }
        Ok(shortest)
    }

    fn noise(&self, round: u32, rows: usize) -> Result<Vec<BatchInput>, EngineError> {
        let mut noise = Noise::of_round(round);
        let made = inputs(&self.model.signature, rows, &mut |dtype, count| noise.elements(dtype, count));
        made.ok_or_else(|| EngineError::Failed(format!("{rows} made-up rows are larger than {PROBE_BYTES_MAX} bytes")))
    }
}

/// How many telling elements rows that ran together have in common with rows that ran alone, or nothing if they differ
/// in a single bit.
fn equal_elements(together: &[Tensor], alone: &[Vec<Tensor>]) -> Option<usize> {
    let mut equal = 0;
    for (output, tensor) in together.iter().enumerate() {
        let rows = tensor.split_rows(&vec![1; alone.len()]);
        if rows.iter().zip(alone).any(|(row, single)| *row != single[output]) {
            return None;
        }
        equal += telling(tensor);
    }
    Some(equal)
}

/// Elements in which a difference of kernels would show: neither integers nor saturated.
fn telling(tensor: &Tensor) -> usize {
    match tensor.dtype() {
        DType::F32 => {
            let values = tensor.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            values.filter(|value| value.is_finite() && value.fract() != 0.0).count()
        }
        DType::F16 | DType::F64 => tensor.element_count(),
        _ => 0,
    }
}

/// The first that is fast enough is taken.
const SINGLES: [Single; 3] = [Single::Row, Single::Whole, Single::Pair];

const TIMED_RUNS: usize = 3;

/// Equal elements that a size needs to be used.
const EVIDENCE_MIN: usize = 1 << 13;

/// Equal elements after which a size is not compared any further.
const EVIDENCE_ENOUGH: usize = 1 << 16;

/// Rounds for all ways to run a single row.
const SHALLOW_ROUNDS: u32 = 4;
