//! Runs graphs of inputs and outputs of any type, at every instruction set.

use super::*;
use crate::engine::proto::value_free;
use crate::tensor::{DType, Shape};

/// A graph whose inputs are named `x`, `x1`, `x2`, and whose outputs have these names, types and ranks.
pub(super) struct Graph<'a> {
    pub(super) version: i64,
    pub(super) nodes: Vec<NodeProto>,
    pub(super) constants: Vec<TensorProto>,
    pub(super) inputs: &'a [Tensor],
    pub(super) outputs: &'a [(&'static str, DType, usize)],
}

impl Graph<'_> {
    /// What it answers, the same at every level.
    pub(super) fn answers(&self) -> Vec<Tensor> {
        allocations::steps_take_none(&self.model(), self.inputs);
        let mut answers: Vec<Vec<Tensor>> = Vec::new();
        for level in Level::all() {
            let plan = plan(&self.model(), &LoadOptions { isa_max: level.set(), ..options() }).unwrap();
            answers.push(answer(plan, self.inputs.to_vec()).unwrap().to_vec());
        }
        for other in &answers[1..] {
            for (one, other) in answers[0].iter().zip(other) {
                assert_eq!(one.shape(), other.shape());
                let near =
                    |(a, b): (f64, f64)| a == b || (a - b).abs() <= 1e-5 * (1.0 + a.abs()) || a.is_nan() && b.is_nan();
                assert!(of(one).into_iter().zip(of(other)).all(near), "levels differ");
            }
        }
        answers.remove(0)
    }

    /// The one answer's elements.
    pub(super) fn answer(&self) -> Vec<f64> {
        of(&self.answers()[0])
    }

    /// What ran, and the one answer's elements.
    pub(super) fn layers(&self) -> (Vec<&'static str>, Vec<f64>) {
        let plan = plan(&self.model(), &options()).unwrap();
        let batch = crate::engine::Batch::merge(&[self.inputs.to_vec()], vec![self.inputs[0].shape().rows()]);
        (operators(&plan.layers(&batch, 1).unwrap()), self.answer())
    }

    pub(super) fn refused(&self) -> String {
        plan(&self.model(), &options()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    /// What it says of inputs that its model loads with and cannot run on, behind the operator's name.
    pub(super) fn unfit(&self) -> String {
        let plan = plan(&self.model(), &options()).unwrap();
        match answer(plan, self.inputs.to_vec()) {
            Err(EngineError::InvalidContents(told)) => told.split_once(' ').unwrap().1.into(),
            other => panic!("expected contents to be refused, got {other:?}"),
        }
    }

    pub(super) fn model(&self) -> ModelProto {
        let names = ["x", "x1", "x2"];
        let inputs = self.inputs.iter().zip(names).map(|(input, name)| {
            let dims: Vec<String> = input.shape().iter().map(ToString::to_string).collect();
            value_free(name, data_type(input.dtype()), &dims.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let axes = ["a", "b", "c", "d", "e", "f"];
        let outputs =
            self.outputs.iter().map(|(name, dtype, rank)| value_free(name, data_type(*dtype), &axes[..*rank]));
        let mut model = model(inputs.collect(), self.nodes.clone(), outputs.collect(), self.constants.clone());
        model.opset_import[0].version = self.version;
        model
    }
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::Bool => DataType::Bool,
        DType::U8 => DataType::Uint8,
        DType::I8 => DataType::Int8,
        DType::U16 => DataType::Uint16,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U64 => DataType::Uint64,
        DType::F16 => DataType::Float16,
        DType::F64 => DataType::Double,
        _ => DataType::Float,
    }
}

/// A tensor of numbers that its type has.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers that the type has")]
pub(super) fn some(dtype: DType, shape: &[usize], numbers: &[f64]) -> Tensor {
    let bytes: Vec<u8> = match dtype {
        DType::Bool | DType::U8 => numbers.iter().map(|x| *x as u8).collect(),
        DType::I8 => numbers.iter().map(|x| (*x as i8).cast_unsigned()).collect(),
        DType::U16 => numbers.iter().flat_map(|x| (*x as u16).to_le_bytes()).collect(),
        DType::I16 => numbers.iter().flat_map(|x| (*x as i16).to_le_bytes()).collect(),
        DType::I32 => numbers.iter().flat_map(|x| (*x as i32).to_le_bytes()).collect(),
        DType::I64 => numbers.iter().flat_map(|x| (*x as i64).to_le_bytes()).collect(),
        DType::U64 => numbers.iter().flat_map(|x| (*x as u64).to_le_bytes()).collect(),
        DType::F16 => numbers.iter().flat_map(|x| half::f16::from_f64(*x).to_le_bytes()).collect(),
        DType::F64 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
    };
    Tensor::new(dtype, Shape::new(shape), bytes.into()).unwrap()
}

/// So many numbers from zero on.
pub(super) fn counted(count: usize) -> Vec<f64> {
    (0..count).map(|at| at as f64).collect()
}

pub(super) fn of(tensor: &Tensor) -> Vec<f64> {
    if tensor.dtype() == DType::F16 {
        return tensor.bytes().as_chunks().0.iter().map(|two| half::f16::from_le_bytes(*two).to_f64()).collect();
    }
    crate::engine::graph::numbers(tensor).unwrap()
}

/// A constant with these contents.
pub(super) fn constant(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: data_type(tensor.dtype()) as i32,
        dims: tensor.shape().iter().map(|&extent| i64::try_from(extent).unwrap()).collect(),
        raw_data: tensor.bytes().clone(),
        ..Default::default()
    }
}

pub(super) fn near(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{got:?} {expected:?}");
    for (a, b) in got.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{got:?} {expected:?}");
    }
}
