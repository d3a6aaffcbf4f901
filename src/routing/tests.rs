//! Requests against the signature of a model that is never run.

mod choices;

use proptest::prelude::*;

use super::*;
use crate::admission::{Admission, AdmissionConfig};
use crate::engine::{self, Batch, Cores, Dim, EngineError, Merging, Part, Plan, Signature, TensorSpec};
use crate::error::ErrorCode;
use crate::infer::{Budget, InferRequest, Schedule, VersionId, Wanted};
use crate::pipeline::InferError;
use crate::repository::ModelSettings;
use crate::telemetry::Metrics;
use crate::tensor::{NamedTensor, Shape};
use crate::units::ByteSize;

/// Has a signature and is never run.
#[derive(Debug)]
struct Unrun(Signature, Merging);

impl Plan for Unrun {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn merging(&self) -> &Merging {
        &self.1
    }

    fn parts(&self) -> &[Part] {
        &[]
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    fn run(&self, _: &Batch, _: &Cores) -> Result<engine::Executed, EngineError> {
        unreachable!("nothing is run in this room")
    }

    fn warm_up(&self, _: usize, _: &Cores) -> Result<(), EngineError> {
        Ok(())
    }
}

fn spec(name: &str, dtype: DType, dims: &[Option<usize>]) -> TensorSpec {
    let dim = |dim: &Option<usize>| dim.map_or_else(|| Dim::Free(Some("n".into())), Dim::Fixed);
    TensorSpec { name: name.into(), dtype, dims: dims.iter().map(dim).collect() }
}

/// Inputs `x` FP32 [n,2] and `ids` INT64 [n], an output `y`, batches of at most 4 rows.
fn variant(merging: Merging, rows_alone_max: Option<usize>) -> Arc<Variant> {
    let inputs = vec![spec("x", DType::F32, &[None, Some(2)]), spec("ids", DType::I64, &[None])];
    let signature = Signature { inputs, outputs: vec![spec("y", DType::F32, &[None])] };
    let mut batching = crate::config::Config::default().batching.settings();
    batching.batch_size_max = 4;
    let settings = ModelSettings { rows_alone_max, ..ModelSettings::plain(batching, 1) };
    Arc::new(Variant::bare(Arc::new(Unrun(signature, merging)), settings))
}

fn alone() -> Merging {
    Merging::Alone { operator: "ReduceMean mean".into(), reason: "it mixes rows".into() }
}

fn tensor(name: &str, dtype: DType, shape: &[usize]) -> NamedTensor {
    let shape = Shape::new(shape);
    let bytes = vec![0; shape.element_count().unwrap() * dtype.size().unwrap()];
    NamedTensor { name: name.into(), tensor: Tensor::new(dtype, shape, bytes.into()).unwrap() }
}

fn x(rows: usize) -> NamedTensor {
    tensor("x", DType::F32, &[rows, 2])
}

fn ids(rows: usize) -> NamedTensor {
    tensor("ids", DType::I64, &[rows])
}

fn asking(model: &str, inputs: Vec<NamedTensor>, outputs: &[&str]) -> InferRequest {
    InferRequest {
        model: model.parse().unwrap(),
        version: None,
        variant: Wanted::Any,
        budget: Budget::default(),
        id: None,
        inputs,
        outputs: outputs.iter().map(ToString::to_string).collect(),
        schedule: Schedule::default(),
        received_at: Instant::now(),
        decode: Duration::ZERO,
    }
}

fn router() -> Router {
    Router::new(crate::config::Config::default().budgets, &Metrics::new())
}

fn bind(variant: &Arc<Variant>, inputs: Vec<NamedTensor>, outputs: &[&str]) -> Result<Routed, RouteError> {
    let config =
        AdmissionConfig { requests_max: 1, bytes_max: ByteSize(1 << 20), ..crate::config::Config::default().admission };
    let admitted = Admission::new(config, Arc::default()).admit(asking("m", inputs, outputs)).unwrap();
    router().bind(admitted, Arc::clone(variant))
}

fn refuse(variant: &Arc<Variant>, inputs: Vec<NamedTensor>, outputs: &[&str], says: &str) {
    let error = bind(variant, inputs, outputs).unwrap_err();
    assert_eq!(error.to_string(), says);
    assert_eq!(InferError::from(error).code(), ErrorCode::InvalidArgument);
}

#[test]
fn inputs_come_in_the_order_of_the_model() {
    let routed = bind(&variant(Merging::Rows, None), vec![ids(3), x(3)], &["y"]).unwrap();
    assert_eq!(routed.rows, 3);
    assert_eq!(routed.inputs.iter().map(Tensor::dtype).collect::<Vec<_>>(), [DType::F32, DType::I64]);
    assert!(routed.admitted.request.inputs.is_empty());
}

#[test]
fn an_answer_is_foreseen_by_its_signature() {
    for (merging, rows) in [(Merging::Rows, 3), (alone(), 1)] {
        let routed = bind(&variant(merging, None), vec![ids(rows), x(rows)], &[]).unwrap();
        assert_eq!(routed.answer_bytes_min(), 4 * rows as u64);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let merged = variant(Merging::Rows, None);
    let other = tensor("z", DType::F32, &[1]);
    refuse(&merged, vec![x(1), ids(1), other], &[], r#"unexpected input "z", the model has "x", "ids""#);
    refuse(&merged, vec![x(1), ids(1), x(1)], &[], r#"input "x" is given twice"#);
    refuse(&merged, vec![ids(1)], &[], r#"input "x" is missing, expected FP32 [n,2]"#);
    refuse(&merged, vec![], &[], r#"input "x" is missing, expected FP32 [n,2]"#);
    let wrong = tensor("ids", DType::I32, &[1]);
    refuse(&merged, vec![x(1), wrong], &[], r#"input "ids" expects datatype INT64, got INT32"#);
    refuse(&merged, vec![x(1), ids(1)], &["y", "z"], r#"unexpected output "z", the model has "y""#);
    for shape in [&[1, 3][..], &[2], &[1, 2, 1], &[]] {
        let error = bind(&merged, vec![tensor("x", DType::F32, shape), ids(1)], &[]).unwrap_err();
        assert!(matches!(error, RouteError::WrongShape(_)), "{shape:?}: {error}");
        assert!(error.to_string().contains("\"x\""), "{error}");
    }
}

#[test]
fn rows_are_bounded() {
    let merged = variant(Merging::Rows, None);
    for rows in [0, 1, 4] {
        assert_eq!(bind(&merged, vec![x(rows), ids(rows)], &[]).unwrap().rows, rows);
    }
    refuse(&merged, vec![x(5), ids(5)], &[], "batch of 5 rows is too large, the model takes at most 4");
    assert!(bind(&merged, vec![x(2), ids(3)], &[]).is_err(), "axes of one name have one extent");
}

#[test]
fn requests_that_are_never_merged_have_the_bound_that_is_written_down() {
    let bounded = variant(alone(), Some(6));
    for rows in [1, 6] {
        assert_eq!(bind(&bounded, vec![x(rows), ids(rows)], &[]).unwrap().rows, rows);
    }
    refuse(&bounded, vec![x(7), ids(7)], &[], "batch of 7 rows is too large, the model takes at most 6");
    // Where nothing is written down, axis 0 may be anything, such as a length.
    assert_eq!(bind(&variant(alone(), None), vec![x(1000), ids(1000)], &[]).unwrap().rows, 1000);
    assert_eq!(bind(&bounded, vec![x(0), ids(0)], &[]).unwrap().rows, 1, "a run of its own costs one at least");
}

#[test]
fn a_model_that_is_not_there_is_not_found() {
    let config =
        AdmissionConfig { requests_max: 1, bytes_max: ByteSize(1), ..crate::config::Config::default().admission };
    let admitted = Admission::new(config, Arc::default()).admit(asking("nope", vec![], &[])).unwrap();
    let error = router().choose(&Catalog::default(), &admitted, Conditions::default).unwrap_err();
    assert!(error.to_string().contains("nope"), "{error}");
    assert_eq!(InferError::from(error).code(), ErrorCode::NotFound);
}

proptest! {
    /// Whatever comes, what passes fits the signature and the limit.
    #[test]
    fn what_is_bound_fits(
        names in prop::collection::vec(prop::sample::select(vec!["x", "ids", "z"]), 0..4),
        shape in prop::collection::vec(0usize..7, 0..4),
        rows in 0usize..7,
        is_float: bool,
        merges: bool,
    ) {
        let variant = variant(if merges { Merging::Rows } else { alone() }, Some(5));
        let dtype = if is_float { DType::F32 } else { DType::I64 };
        let mut given: Vec<NamedTensor> = names.iter().map(|name| tensor(name, dtype, &shape)).collect();
        given.extend([ids(rows), x(rows)]);
        let given = given.split_off(given.len().saturating_sub(3));
        if let Ok(routed) = bind(&variant, given, &[]) {
            prop_assert_eq!(routed.inputs.len(), 2);
            prop_assert_eq!(&routed.inputs[0].shape()[1..], &[2]);
            prop_assert_eq!(routed.inputs[0].dtype(), DType::F32);
            prop_assert_eq!(routed.inputs[1].dtype(), DType::I64);
            let limit = if merges { 4 } else { 5 };
            prop_assert!(routed.rows <= limit, "{} rows", routed.rows);
        }
    }
}
