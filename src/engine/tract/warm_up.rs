//! Learns from runs on made-up rows which sizes of batches are fast, and which give each row the very bits it gets
//! alone. Only the latter may ever be used.

use std::time::{Duration, Instant};

use bytes::Bytes;
use half::f16;

use super::forms::{Family, Forms};
use super::load::has_other_free_axes;
use super::plan::{Form, Model, Piece};
use super::shapes::Shapes;
use crate::engine::{BatchInput, Dim, EngineError, Merging, Signature};
use crate::tensor::{DType, Shape, Tensor};

/// What is known of batch sizes after at most `time_max` of runs. Nothing is learned of models whose rows have no fixed
/// shape: what holds for one shape need not hold for another.
pub(super) fn forms(model: &Model, batch_size_max: usize, time_max: Duration) -> Forms {
    let symbolic = matches!(model.shapes, Shapes::Symbolic { row: Some(_), .. });
    if model.merging != Merging::Rows || !symbolic || has_other_free_axes(&model.signature.inputs) {
        return Forms::default();
    }
    let row_bytes: usize = inputs(&model.signature, 1, &mut zero).iter().map(|input| input.pieces[0].len()).sum();
    let rows_max = batch_size_max.min(PROBE_BYTES_MAX / row_bytes.max(1)).max(1);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let inputs = inputs(&model.signature, rows_max, &mut |dtype, count| noise.elements(dtype, count));
    let probe = Probe { model, inputs, deadline: Instant::now() + time_max };
    probe.families(rows_max, time_max).map(|families| Forms::fastest(&families, rows_max)).unwrap_or_default()
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
    let inputs = inputs(&model.signature, rows, &mut zero);
    if inputs.iter().map(|input| input.pieces[0].len()).sum::<usize>() > PROBE_BYTES_MAX {
        return Ok(());
    }
    let values = inputs.iter().map(|input| super::convert::gather(input, &input.shape, 0)).collect::<Result<_, _>>()?;
    let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape.clone()).collect();
    model.run(form, &shapes, values).map(|_| ())
}

struct Probe<'a> {
    model: &'a Model,
    inputs: Vec<BatchInput>,
    deadline: Instant,
}

/// Rows run one by one: their answers and the time of one.
struct Singles {
    rows: Vec<Vec<Tensor>>,
    time: Duration,
}

impl Probe<'_> {
    /// Sizes whose rows come out as they do alone, once for each way to run a single row.
    fn families(&self, rows_max: usize, time_max: Duration) -> Result<Vec<Family>, EngineError> {
        let by_row = self.singles(Form::Row, rows_max, time_max / 4)?;
        let by_whole = self.singles(Form::Whole, by_row.rows.len(), time_max / 4)?;
        let mut families = [(false, &by_row), (true, &by_whole)].map(|(single_is_whole, singles)| {
            (Family { single_is_whole, sizes: vec![(1, singles.time)] }, singles)
        });
        let known = by_row.rows.len().min(by_whole.rows.len());
        let doubling = (1..usize::BITS).map(|bit| 1usize << bit).take_while(|size| *size < known);
        for size in doubling.chain((known > 1).then_some(known)) {
            if Instant::now() >= self.deadline {
                break;
            }
            let (first, time) = self.timed(Form::Whole, 0, size)?;
            // The same size from another row on: a row's place must not matter either.
            let from = known - size;
            let last = self.piece(Form::Whole, from, size)?.run(self.model)?;
            for (family, singles) in &mut families {
                let same = |outputs: &[Tensor], from: usize| is_same(outputs, &singles.rows[from..from + size]);
                if same(&first, 0) && same(&last, from) {
                    family.sizes.push((size, time));
                }
            }
        }
        Ok(families.map(|(family, _)| family).into())
    }

    /// Runs rows one by one until they are enough or the time is over; at least one.
    fn singles(&self, form: Form, rows_max: usize, time_max: Duration) -> Result<Singles, EngineError> {
        let started = Instant::now();
        let (first, time) = self.timed(form, 0, 1)?;
        let mut singles = Singles { rows: vec![first], time };
        for row in 1..rows_max {
            if started.elapsed() >= time_max {
                break;
            }
            let piece = self.piece(form, row, 1)?;
            let began = Instant::now();
            singles.rows.push(piece.run(self.model)?);
            singles.time = singles.time.min(began.elapsed());
        }
        Ok(singles)
    }

    /// The outputs of some rows, and the shortest time of a few runs.
    fn timed(&self, form: Form, from: usize, rows: usize) -> Result<(Vec<Tensor>, Duration), EngineError> {
        let mut shortest = Duration::MAX;
        let mut outputs = Vec::new();
        for _ in 0..TIMED_RUNS {
            let piece = self.piece(form, from, rows)?;
            let began = Instant::now();
            outputs = piece.run(self.model)?;
            shortest = shortest.min(began.elapsed());
            if Instant::now() >= self.deadline {
                break;
            }
        }
        Ok((outputs, shortest))
    }

    fn piece(&self, form: Form, from: usize, rows: usize) -> Result<Piece, EngineError> {
        Piece::of(&self.inputs, from, rows, form)
    }
}

/// Whether rows that ran together have the bits of rows that ran alone.
fn is_same(together: &[Tensor], alone: &[Vec<Tensor>]) -> bool {
    together.iter().enumerate().all(|(output, tensor)| {
        let rows = tensor.split_rows(&vec![1; alone.len()]);
        rows.iter().zip(alone).all(|(row, single)| *row == single[output])
    })
}

/// Inputs of so many rows; free axes besides the batch get one element.
fn inputs(signature: &Signature, rows: usize, fill: &mut dyn FnMut(DType, usize) -> Vec<u8>) -> Vec<BatchInput> {
    let input = |spec: &crate::engine::TensorSpec| {
        let extent = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Free(_) if axis == 0 => rows,
            Dim::Free(_) => 1,
        };
        let shape: Shape = spec.dims.iter().enumerate().map(extent).collect();
        // A hostile signature asks for no memory here: sizes beyond the limit are given up by the callers.
        let count = shape.element_count().filter(|count| *count <= PROBE_BYTES_MAX).unwrap_or(PROBE_BYTES_MAX);
        BatchInput { dtype: spec.dtype, shape, pieces: vec![Bytes::from(fill(spec.dtype, count))] }
    };
    signature.inputs.iter().map(input).collect()
}

fn zero(dtype: DType, count: usize) -> Vec<u8> {
    vec![0; count * dtype.size().unwrap_or(0)]
}

/// A reproducible source of elements (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between -1 and 1.
    fn unit(&mut self) -> f32 {
        let bits = u16::try_from(self.next() >> 48).unwrap_or(0);
        f32::from(bits) / 32768.0 - 1.0
    }

    /// Floats between -1 and 1; integers 0 and 1, which are indices of nearly everything.
    fn elements(&mut self, dtype: DType, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count * dtype.size().unwrap_or(0));
        for _ in 0..count {
            match dtype {
                DType::F32 => bytes.extend(self.unit().to_le_bytes()),
                DType::F64 => bytes.extend(f64::from(self.unit()).to_le_bytes()),
                DType::F16 => bytes.extend(f16::from_f32(self.unit()).to_le_bytes()),
                _ => {
                    let low = u8::from(self.next() >> 63 == 1);
                    bytes.push(low);
                    bytes.resize(bytes.len() + dtype.size().unwrap_or(1) - 1, 0);
                }
            }
        }
        bytes
    }
}

const TIMED_RUNS: usize = 3;

/// Made-up inputs are no larger than this.
const PROBE_BYTES_MAX: usize = 64 << 20;
