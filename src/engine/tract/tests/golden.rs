//! Real models against ONNX Runtime's answers (`tests/fixtures/golden/make.py`), as one request, cut into several, and
//! row by row.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;
use crate::engine::{Automatic, Engine, Merging, ModelFile};

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

    fn load(&self) -> Box<dyn Plan> {
        let path = root().join(&self.model);
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let model = ModelFile { folder: path.parent().unwrap().to_owned(), file };
        Automatic.load(&model, &options()).unwrap()
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

#[test]
fn answers_are_onnx_runtimes_however_rows_are_cut() {
    let index = std::fs::read(golden_folder().join("golden.json")).unwrap();
    let all: Vec<Golden> = serde_json::from_slice(&index).unwrap();
    assert_eq!(all.len(), 9);
    for golden in all {
        let mut tensors = golden.tensors();
        let (expected, input) = (tensors.split_off(1), tensors.remove(0));
        let rows = input.shape().rows();
        let (plan, whole) = execute(golden.load(), vec![vec![input.clone()]], false);
        let whole = whole.unwrap().shares.remove(0);
        for (got, expected) in whole.iter().zip(&expected) {
            close(&golden.model, got, expected);
        }
        if golden.model.contains("int8_dyn") {
            // Its scales span the batch.
            assert!(
                matches!(plan.merging(), Merging::Alone { operator, .. } if operator.starts_with("DynamicQuantizeLinear"))
            );
            continue;
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
}
