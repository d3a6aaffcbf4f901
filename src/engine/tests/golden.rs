//! Real models against ONNX Runtime's answers (`tests/fixtures/golden/make.py`), as one request, cut into several, and
//! row by row.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use bytes::Bytes;
use kinglet_kernels::Level;

use crate::engine::testing::{execute, options, values};
use crate::engine::{Automatic, Engine, EngineChoice, EngineError, LoadOptions, Merging, ModelFile, Plan, Share};
use crate::tensor::{DType, Shape, Tensor};

#[derive(Deserialize)]
struct Golden {
    model: String,
    bin: String,
    /// The input, then the outputs.
    tensors: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
}

impl Golden {
    fn tensors(&self) -> Vec<Tensor> {
        let mut rest = Bytes::from(std::fs::read(golden_folder().join(&self.bin)).unwrap());
        let tensor = |described: &Described| {
            let dtype: DType = described.dtype.parse().unwrap();
            let bytes = described.shape.iter().product::<usize>() * dtype.size().unwrap();
            Tensor::new(dtype, Shape::new(&described.shape), rest.split_to(bytes)).unwrap()
        };
        self.tensors.iter().map(tensor).collect()
    }

    fn load(&self, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
        let path = root().join(&self.model);
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let model = ModelFile { folder: path.parent().unwrap().to_owned(), file };
        Automatic.load(&model, options)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn golden_folder() -> PathBuf {
    root().join("tests/fixtures/golden")
}

fn close(name: &str, got: &Tensor, expected: &Tensor) {
    assert_eq!((got.dtype(), got.shape()), (expected.dtype(), expected.shape()), "{name}");
    if got.dtype() != DType::F32 {
        assert_eq!(got.bytes(), expected.bytes(), "{name}");
        return;
    }
    for (a, b) in values(got).iter().zip(values(expected)) {
        assert!((a - b).abs() <= 1e-4 + 1e-4 * b.abs(), "{name}: {a} {b}");
    }
}

fn goldens() -> Vec<Golden> {
    let index = std::fs::read(golden_folder().join("golden.json")).unwrap();
    serde_json::from_slice(&index).unwrap()
}

fn check(golden: &Golden, plan: Box<dyn Plan>) {
    let mut tensors = golden.tensors();
    let (expected, input) = (tensors.split_off(1), tensors.remove(0));
    let rows = input.shape().rows();
    let (plan, whole) = execute(plan, vec![vec![input.clone()]], false);
    let whole = whole.unwrap().shares.remove(0);
    for (got, expected) in whole.iter().zip(&expected) {
        close(&golden.model, got, expected);
    }
    if golden.model.contains("int8_dyn") {
        // Its scales span the batch.
        let is_told = |operator: &str| operator.starts_with("DynamicQuantizeLinear");
        assert!(matches!(plan.merging(), Merging::Alone { operator, .. } if is_told(operator)));
        return;
    }
    assert_eq!(plan.merging(), &Merging::Rows, "{}", golden.model);
    let cut = |rows: &[usize]| input.split_rows(rows).into_iter().map(|piece| vec![piece]).collect::<Vec<_>>();
    let (plan, single) = execute(plan, cut(&vec![1; rows]), true);
    let single = single.unwrap().shares;
    let (_, pairs) = execute(plan, cut(&[rows - 1, 1]), false);
    let pairs = pairs.unwrap().shares;
    for (output, expected) in expected.iter().enumerate() {
        let bytes =
            |shares: &[Share]| shares.iter().flat_map(|share| share[output].bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(bytes(&single), bytes(&pairs), "{}: company changes bits", golden.model);
        let joined = Tensor::new(expected.dtype(), expected.shape().clone(), bytes(&single).into()).unwrap();
        close(&golden.model, &joined, expected);
    }
}

#[test]
fn answers_are_onnx_runtimes_however_rows_are_cut() {
    let all = goldens();
    assert_eq!(all.len(), 9);
    for golden in all {
        check(&golden, golden.load(&options()).unwrap());
    }
}

#[test]
fn native_answers_are_right_at_every_instruction_set() {
    for level in Level::all() {
        let options = LoadOptions { engine: EngineChoice::Native, isa_max: level.set(), ..options() };
        let mut served = Vec::new();
        for golden in goldens() {
            match golden.load(&options) {
                Ok(plan) => {
                    check(&golden, plan);
                    served.push(golden.model);
                }
                Err(refused) => assert!(matches!(refused, EngineError::UnsupportedOperator { .. }), "{refused}"),
            }
        }
        assert_eq!(served, NATIVE, "{level}");
    }
}

/// What the native engine covers; the list only grows.
const NATIVE: [&str; 9] = [
    "models/digits/1/model.onnx",
    "models/vowels/1/model.onnx",
    "models/wine/1/model.onnx",
    "tests/fixtures/lenet_mnist_int8_dyn.onnx",
    "tests/fixtures/lenet_mnist_int8_qdq.onnx",
    "tests/fixtures/lenet_mnist_int8_qop.onnx",
    "tests/fixtures/iris_logreg.onnx",
    "tests/fixtures/digits_mlp.onnx",
    "tests/fixtures/gunpoint_fcn.onnx",
];
