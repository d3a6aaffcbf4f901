//! Bodies that a model answers: the request that lies beside it, else a row of made-up values.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::tensors::is_json;
use crate::access::Caller;
use crate::engine::{Dim, Signature, TensorSpec};
use crate::repository::{Catalog, Variant};
use crate::tensor::DType;

/// Bodies by their names among the components, as text: people read them in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Examples(BTreeMap<&'static str, Box<RawValue>>);

impl Examples {
    /// What bodies look like where no model can show it.
    pub(super) fn form() -> Self {
        let input = json!({ "name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.5] });
        let mut examples = Self::default();
        examples.add("Infer", &json!({ "inputs": [input] }));
        examples.add("V1Predict", &json!({ "instances": [[0.5, 0.5]] }));
        examples.add("SageMakerLoad", &json!({ "model_name": "name" }));
        examples
    }

    pub(super) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.get(name).map(|body| &**body)
    }

    fn add(&mut self, name: &'static str, body: &impl Serialize) {
        self.0.insert(name, to_raw_value(body).expect("writing JSON into memory succeeds"));
    }

    fn bytes(&self) -> usize {
        self.0.values().map(|body| body.get().len()).sum()
    }
}

/// The first model, by name, that has all examples and short ones.
pub(super) fn shown<'a>(catalog: &'a Catalog, caller: &Caller) -> Option<(&'a Variant, Examples)> {
    let ready = catalog.models.values().filter_map(|model| model.ready().last());
    let ready = ready.map(|build| &**build).filter(|build| caller.may_read(build.model.as_str()));
    let mut ready: Vec<&Variant> = ready.collect();
    ready.sort_unstable_by_key(|build| &build.model);
    ready.into_iter().find_map(|build| {
        let examples = of_model(build);
        let has_all = ["Infer", "V1Predict"].iter().all(|name| examples.get(name).is_some());
        let is_shown = has_all && examples.bytes() <= SHORT_MAX;
        is_shown.then_some((build, examples))
    })
}

/// Examples of what a model takes; of one that takes more than people read there are none.
pub(super) fn of_model(build: &Variant) -> Examples {
    // Whatever stands for a picture is none.
    let takes_made_up = build.ensemble.is_none() || !build.plan.follows_contents();
    let mut examples = if takes_made_up { made_up(&build.signature) } else { Examples::default() };
    examples.add("SageMakerLoad", &json!({ "model_name": build.model.as_str() }));
    let sample = build.settings.sample_request.as_deref().map(serde_json::from_slice::<Box<RawValue>>);
    if let Some(Ok(sample)) = sample {
        examples.0.insert("Infer", sample);
    }
    examples
}

fn made_up(signature: &Signature) -> Examples {
    let mut examples = Examples::default();
    let shapes = shapes(signature);
    let counts = shapes.iter().map(|shape| shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent)));
    let Some(_) = counts.sum::<Option<usize>>().filter(|elements| *elements <= ELEMENTS_MAX) else {
        return examples;
    };
    let inputs = || signature.inputs.iter().zip(&shapes);
    if is_json(&signature.inputs) {
        let inputs = inputs().map(|(spec, shape)| Input::new(spec, shape)).collect();
        examples.add("Infer", &Request { inputs, outputs: wishes(signature) });
    }
    let of = |from: usize| match signature.inputs.as_slice() {
        [only] => nested(&shapes[0][from..], only.dtype),
        _ => by_name(inputs(), from),
    };
    if signature.is_batched() {
        examples.add("V1Predict", &json!({ "instances": [of(1)] }));
        examples.add("V1Examples", &json!({ "examples": [by_name(inputs(), 1)] }));
    } else {
        examples.add("V1Predict", &json!({ "inputs": of(0) }));
    }
    examples
}

#[derive(Serialize)]
struct Request<'a> {
    inputs: Vec<Input<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<Value>,
}

#[derive(Serialize)]
struct Input<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    data: Vec<Value>,
}

impl<'a> Input<'a> {
    fn new(spec: &'a TensorSpec, shape: &'a [usize]) -> Self {
        let data = vec![value(spec.dtype); shape.iter().product()];
        Self { name: &spec.name, datatype: spec.dtype.name(), shape, data }
    }
}

/// Outputs that JSON has no form for come in binary form; where there are none, all are wanted as they are.
fn wishes(signature: &Signature) -> Vec<Value> {
    if is_json(&signature.outputs) {
        return Vec::new();
    }
    let wish = |spec: &TensorSpec| match is_json(std::slice::from_ref(spec)) {
        true => json!({ "name": spec.name }),
        false => json!({ "name": spec.name, "parameters": { "binary_data": true } }),
    };
    signature.outputs.iter().map(wish).collect()
}

/// One row; other free axes have some extent, the same where they have the same name.
fn shapes(signature: &Signature) -> Vec<Vec<usize>> {
    let is_batched = signature.is_batched();
    let mut bound = HashMap::new();
    let mut shape = |spec: &'_ TensorSpec| -> Vec<usize> {
        let extent = |(axis, dim): (usize, &Dim)| match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Free(name) => {
                let wanted = if axis == 0 && is_batched { 1 } else { EXTENT };
                name.clone().map_or(wanted, |name| *bound.entry(name).or_insert(wanted))
            }
        };
        spec.dims.iter().enumerate().map(extent).collect()
    };
    signature.inputs.iter().map(&mut shape).collect()
}

fn by_name<'a>(inputs: impl Iterator<Item = (&'a TensorSpec, &'a Vec<usize>)>, from: usize) -> Value {
    let named = inputs.map(|(spec, shape)| (spec.name.clone(), nested(&shape[from..], spec.dtype)));
    named.collect::<Map<String, Value>>().into()
}

fn nested(shape: &[usize], dtype: DType) -> Value {
    shape.iter().rev().fold(value(dtype), |inner, extent| vec![inner; *extent].into())
}

/// Whole numbers may be places in a table: the first is always there.
fn value(dtype: DType) -> Value {
    match dtype {
        DType::Bool => true.into(),
        DType::F16 | DType::Bf16 | DType::F32 | DType::F64 => 0.5.into(),
        DType::Bytes => "text".into(),
        _ => 0.into(),
    }
}

/// Of free axes that are not rows: long enough for most windows that slide along them.
const EXTENT: usize = 16;
/// Numbers of a picture as large as networks take them.
const ELEMENTS_MAX: usize = 300_000;
/// Bytes of all examples of a model that stands for all.
const SHORT_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dtype: DType, dims: &[Dim]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, dims: dims.to_vec() }
    }

    fn check(inputs: &[&TensorSpec], outputs: &[&TensorSpec], name: &str, wanted: Option<&str>) {
        let all = |specs: &[&TensorSpec]| specs.iter().copied().cloned().collect();
        let signature = Signature { inputs: all(inputs), outputs: all(outputs) };
        assert_eq!(made_up(&signature).get(name).map(RawValue::get), wanted);
    }

    #[test]
    fn a_row_is_made_up() {
        let batch = Dim::Free(Some("batch".into()));
        let x = spec("x", DType::F32, &[batch.clone(), Dim::Fixed(2)]);
        let y = spec("y", DType::F32, &[batch.clone(), Dim::Fixed(2)]);
        let wanted = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[0.5,0.5]}]}"#;
        check(&[&x], &[&y], "Infer", Some(wanted));
        check(&[&x], &[&y], "V1Predict", Some(r#"{"instances":[[0.5,0.5]]}"#));
        check(&[&x], &[&y], "V1Examples", Some(r#"{"examples":[{"x":[0.5,0.5]}]}"#));
        let ids = spec("ids", DType::I64, std::slice::from_ref(&batch));
        check(&[&x, &ids], &[&y], "V1Predict", Some(r#"{"instances":[{"ids":0,"x":[0.5,0.5]}]}"#));
    }

    #[test]
    fn axes_of_one_name_have_one_extent() {
        let n = Dim::Free(Some("n".into()));
        let signature = Signature {
            inputs: vec![
                spec("a", DType::Bool, &[n.clone(), Dim::Free(None)]),
                spec("b", DType::Bytes, &[n.clone(), n]),
            ],
            outputs: vec![spec("y", DType::F32, &[Dim::Free(None)])],
        };
        assert_eq!(shapes(&signature), [vec![1, EXTENT], vec![1, 1]]);
        let alone = Signature { outputs: vec![spec("y", DType::F32, &[])], ..signature };
        assert_eq!(shapes(&alone), [vec![EXTENT, EXTENT], vec![EXTENT, EXTENT]]);
    }

    #[test]
    fn what_json_cannot_hold_is_asked_for_in_binary_form() {
        let x = spec("x", DType::I64, &[Dim::Fixed(1)]);
        let half = spec("y", DType::F16, &[Dim::Fixed(1)]);
        let wanted = concat!(
            r#"{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[0]}],"#,
            r#""outputs":[{"name":"y","parameters":{"binary_data":true}},{"name":"x"}]}"#
        );
        check(&[&x], &[&half, &x], "Infer", Some(wanted));
        check(&[&half], &[&x], "Infer", None);
        check(&[&half], &[&half], "V1Predict", Some(r#"{"inputs":[0.5]}"#));
    }

    #[test]
    fn examples_are_bounded() {
        let picture = |side| spec("x", DType::F32, &[Dim::Fixed(3), Dim::Fixed(side), Dim::Fixed(side)]);
        let scalar = spec("y", DType::F32, &[]);
        let made = |side| made_up(&Signature { inputs: vec![picture(side)], outputs: vec![scalar.clone()] });
        assert!(made(299).get("Infer").is_some() && made(640).get("Infer").is_none());
        let endless = Signature { inputs: vec![picture(1 << 40)], outputs: vec![scalar.clone()] };
        assert!(made_up(&endless).get("Infer").is_none());
    }
}
