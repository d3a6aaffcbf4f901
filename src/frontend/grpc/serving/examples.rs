//! Examples, which are named lists of values, to tensors: one row each, the feature of an input's name its values.

use std::collections::HashMap;

use bytes::Bytes;
use half::{bf16, f16};

use super::tensor_proto::{LENGTH_BYTES, Room};
use crate::engine::{Dim, Signature, TensorSpec};
use crate::frontend::grpc::contents::narrowed;
use crate::frontend::{LimitsConfig, Refusal};
use crate::proto::tensorflow::feature::Kind;
use crate::proto::tensorflow::serving::{Input, input};
use crate::proto::tensorflow::{Example, Feature};
use crate::tensor::{DType, NamedTensor, Shape, Tensor};

/// # Errors
/// When there are no examples, or one lacks an input's feature or has it in another form than the input takes.
pub(super) fn tensors(
    input: Option<Input>,
    signature: &Signature,
    limits: &LimitsConfig,
) -> Result<Vec<NamedTensor>, Refusal> {
    let (examples, context) = match input.and_then(|input| input.kind) {
        Some(input::Kind::ExampleList(list)) => (list.examples, None),
        Some(input::Kind::ExampleListWithContext(list)) => (list.examples, list.context),
        None => (Vec::new(), None),
    };
    if examples.is_empty() {
        return Err(Refusal::invalid("expected examples in input, got none"));
    }
    let (rows, context) = (examples.into_iter().map(features).collect::<Vec<_>>(), context.map(features));
    let context = context.unwrap_or_default();
    if let Some(unknown) = rows.iter().flat_map(HashMap::keys).find(|name| signature.input(name).is_none()) {
        let known: Vec<&str> = signature.inputs.iter().map(|spec| spec.name.as_str()).collect();
        return Err(Refusal::invalid(format!("expected features {}, got {unknown:?}", known.join(", "))));
    }
    let mut room = Room::new(limits);
    let column = |spec: &TensorSpec| column(spec, &rows, &context, &mut room);
    signature.inputs.iter().map(column).collect()
}

type FeatureMap = HashMap<String, Feature>;

fn features(example: Example) -> FeatureMap {
    example.features.map(|features| features.feature).unwrap_or_default()
}

/// The values of one input, an example's own before those of the context.
fn column(
    spec: &TensorSpec,
    rows: &[FeatureMap],
    context: &FeatureMap,
    room: &mut Room,
) -> Result<NamedTensor, Refusal> {
    let about = |row: usize, what: String| Refusal::invalid(format!("example {row}, feature {:?}: {what}", spec.name));
    let mut values = Values::of(spec.dtype);
    let mut length = None;
    for (row, example) in rows.iter().enumerate() {
        let feature = example.get(&spec.name).or_else(|| context.get(&spec.name)).and_then(|found| found.kind.as_ref());
        let kind = feature.ok_or_else(|| about(row, "expected values, got none".into()))?;
        let got = values.add(spec.dtype, kind).map_err(|refusal| about(row, refusal.message))?;
        let expected = *length.get_or_insert(got);
        if got != expected {
            return Err(about(row, format!("expected {expected} values as in the first example, got {got}")));
        }
        // Of a context's feature, every example takes its own copy.
        room.take(&Shape::new(&[rows.len(), got]), bytes(kind, spec.dtype), 1)?;
    }
    let shape = row_shape(spec, rows.len(), length.unwrap_or_default()).ok_or_else(|| {
        about(0, format!("expected the values of a row of {}, got {}", spec.shown_dims(), length.unwrap_or_default()))
    })?;
    Ok(NamedTensor { name: spec.name.clone(), tensor: values.tensor(spec.dtype, shape)? })
}

/// The shape of so many rows of so many values each: one free extent behind axis 0 is what the values leave.
fn row_shape(spec: &TensorSpec, rows: usize, length: usize) -> Option<Shape> {
    let behind = spec.dims.get(1..)?;
    let fixed: usize = behind.iter().try_fold(1usize, |product, dim| match dim {
        Dim::Fixed(extent) => product.checked_mul(*extent),
        Dim::Free(_) => Some(product),
    })?;
    let free = match behind.iter().filter(|dim| matches!(dim, Dim::Free(_))).count() {
        0 => 1,
        1 => length.checked_div(fixed)?,
        _ => return None,
    };
    let extent = |dim: &Dim| match dim {
        Dim::Fixed(extent) => *extent,
        Dim::Free(_) => free,
    };
    let dims: Vec<usize> = std::iter::once(rows).chain(behind.iter().map(extent)).collect();
    (fixed * free == length).then(|| Shape::new(&dims))
}

/// The elements of a column so far.
enum Values {
    Numbers(Vec<u8>),
    Strings(Vec<Bytes>),
}

impl Values {
    fn of(dtype: DType) -> Self {
        if dtype == DType::Bytes { Self::Strings(Vec::new()) } else { Self::Numbers(Vec::new()) }
    }

    /// Takes the values of one row and tells how many they were.
    fn add(&mut self, dtype: DType, kind: &Kind) -> Result<usize, Refusal> {
        match (self, kind) {
            (Self::Numbers(bytes), Kind::FloatList(list)) => {
                bytes.extend(floats(dtype, &list.value)?);
                Ok(list.value.len())
            }
            (Self::Numbers(bytes), Kind::Int64List(list)) => {
                bytes.extend(whole_numbers(dtype, &list.value)?);
                Ok(list.value.len())
            }
            (Self::Strings(strings), Kind::BytesList(list)) => {
                strings.extend(list.value.iter().cloned());
                Ok(list.value.len())
            }
            (_, kind) => Err(wrong(dtype, name(kind))),
        }
    }

    fn tensor(self, dtype: DType, shape: Shape) -> Result<Tensor, Refusal> {
        Ok(match self {
            Self::Numbers(bytes) => Tensor::new(dtype, shape, bytes.into())?,
            Self::Strings(strings) => Tensor::from_elements(shape, strings.iter().map(|element| &element[..]))?,
        })
    }
}

/// That the values of a feature take as elements of this datatype.
fn bytes(kind: &Kind, dtype: DType) -> usize {
    let width = dtype.size().unwrap_or_default();
    match kind {
        Kind::BytesList(list) => list.value.iter().map(|element| element.len() + LENGTH_BYTES).sum(),
        Kind::FloatList(list) => list.value.len() * width,
        Kind::Int64List(list) => list.value.len() * width,
    }
}

fn floats(dtype: DType, values: &[f32]) -> Result<Vec<u8>, Refusal> {
    match dtype {
        DType::F32 => narrowed(dtype, values, f32::to_le_bytes),
        DType::F64 => narrowed(dtype, values, f64::to_le_bytes),
        DType::F16 => Ok(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()),
        DType::Bf16 => Ok(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()),
        _ => Err(wrong(dtype, "float_list")),
    }
}

fn whole_numbers(dtype: DType, values: &[i64]) -> Result<Vec<u8>, Refusal> {
    match dtype {
        DType::Bool => Ok(values.iter().map(|value| u8::from(*value != 0)).collect()),
        DType::I8 => narrowed(dtype, values, i8::to_le_bytes),
        DType::I16 => narrowed(dtype, values, i16::to_le_bytes),
        DType::I32 => narrowed(dtype, values, i32::to_le_bytes),
        DType::I64 => narrowed(dtype, values, i64::to_le_bytes),
        DType::U8 => narrowed(dtype, values, u8::to_le_bytes),
        DType::U16 => narrowed(dtype, values, u16::to_le_bytes),
        DType::U32 => narrowed(dtype, values, u32::to_le_bytes),
        DType::U64 => narrowed(dtype, values, u64::to_le_bytes),
        _ => Err(wrong(dtype, "int64_list")),
    }
}

fn wrong(dtype: DType, got: &str) -> Refusal {
    let expected = match dtype {
        DType::F16 | DType::Bf16 | DType::F32 | DType::F64 => "float_list",
        DType::Bytes => "bytes_list",
        _ => "int64_list",
    };
    Refusal::invalid(format!("input of {dtype} expects a {expected}, got a {got}"))
}

fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::BytesList(_) => "bytes_list",
        Kind::FloatList(_) => "float_list",
        Kind::Int64List(_) => "int64_list",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::frontend::grpc::convert::tests::limits;
    use crate::proto::tensorflow::serving::{ExampleList, ExampleListWithContext};
    use crate::proto::tensorflow::{BytesList, Features, FloatList, Int64List};
    use crate::units::ByteSize;

    fn spec(name: &str, dtype: DType, dims: &[Dim]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, dims: dims.to_vec() }
    }

    fn signature(inputs: Vec<TensorSpec>) -> Signature {
        Signature { inputs, outputs: Vec::new() }
    }

    fn example(list: &[(&str, Kind)]) -> Example {
        let feature = |(name, kind): &(&str, Kind)| (name.to_string(), Feature { kind: Some(kind.clone()) });
        Example { features: Some(Features { feature: list.iter().map(feature).collect() }) }
    }

    fn some(values: &[f32]) -> Kind {
        Kind::FloatList(FloatList { value: values.to_vec() })
    }

    fn list(examples: Vec<Example>) -> Option<Input> {
        Some(Input { kind: Some(input::Kind::ExampleList(ExampleList { examples })) })
    }

    fn refused(input: Option<Input>, signature: &Signature, expected: &str) {
        assert_eq!(tensors(input, signature, &limits()).unwrap_err().message, expected);
    }

    #[test]
    fn each_example_is_a_row() {
        let signature = signature(vec![
            spec("x", DType::F32, &[Dim::Free(None), Dim::Fixed(2)]),
            spec("n", DType::I8, &[Dim::Free(None)]),
            spec("w", DType::Bytes, &[Dim::Free(None), Dim::Fixed(1)]),
        ]);
        let row = |x: f32, n: i64, w: &'static str| {
            let word = Kind::BytesList(BytesList { value: vec![Bytes::from_static(w.as_bytes())] });
            example(&[("x", some(&[x, -x])), ("n", Kind::Int64List(Int64List { value: vec![n] })), ("w", word)])
        };
        let got = tensors(list(vec![row(1.0, -1, "a"), row(2.0, 3, "bc")]), &signature, &limits()).unwrap();
        let floats: Vec<u8> = [1f32, -1.0, 2.0, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(got[0].tensor, Tensor::new(DType::F32, Shape::new(&[2, 2]), floats.into()).unwrap());
        assert_eq!(got[1].tensor, Tensor::new(DType::I8, Shape::new(&[2]), vec![255, 3].into()).unwrap());
        assert_eq!(got[2].tensor, Tensor::from_elements(Shape::new(&[2, 1]), [&b"a"[..], b"bc"]).unwrap());
    }

    #[test]
    fn a_context_stands_in_for_what_examples_lack() {
        let signature = signature(vec![spec("x", DType::F64, &[Dim::Free(None), Dim::Free(None)])]);
        let examples = vec![example(&[]), example(&[("x", some(&[3.0]))])];
        let with_context = ExampleListWithContext { examples, context: Some(example(&[("x", some(&[0.5]))])) };
        let input = Some(Input { kind: Some(input::Kind::ExampleListWithContext(with_context)) });
        let got = tensors(input, &signature, &limits()).unwrap();
        let floats: Vec<u8> = [0.5f64, 3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(got[0].tensor, Tensor::new(DType::F64, Shape::new(&[2, 1]), floats.into()).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let one = signature(vec![spec("x", DType::F32, &[Dim::Free(None), Dim::Fixed(2)])]);
        refused(None, &one, "expected examples in input, got none");
        refused(list(vec![]), &one, "expected examples in input, got none");
        let with = |kind| list(vec![example(&[("x", kind)])]);
        let short = "example 0, feature \"x\": expected the values of a row of [?,2], got 1";
        let message = tensors(with(some(&[1.0])), &one, &limits()).unwrap_err().message;
        assert!(message.starts_with(short.split('[').next().unwrap()) && message.ends_with("got 1"), "{message}");
        let whole = Kind::Int64List(Int64List { value: vec![1, 2] });
        refused(with(whole), &one, "example 0, feature \"x\": input of FP32 expects a float_list, got a int64_list");
        refused(list(vec![example(&[])]), &one, "example 0, feature \"x\": expected values, got none");
        let both = list(vec![example(&[("x", some(&[1.0, 2.0]))]), example(&[("x", some(&[1.0]))])]);
        refused(both, &one, "example 1, feature \"x\": expected 2 values as in the first example, got 1");
        refused(list(vec![example(&[("y", some(&[1.0]))])]), &one, "expected features x, got \"y\"");
        let scalar = signature(vec![spec("x", DType::F32, &[])]);
        assert!(tensors(with(some(&[1.0])), &scalar, &limits()).is_err(), "there are no rows");
    }

    #[test]
    fn a_context_fills_no_more_than_a_message_may_have() {
        let word = Kind::BytesList(BytesList { value: vec![Bytes::from_static(&[b'a'; 3996])] });
        for (dtype, feature, width) in [(DType::F32, some(&[0.5; 1000]), 1000), (DType::Bytes, word, 1)] {
            let signature = signature(vec![spec("x", dtype, &[Dim::Free(None), Dim::Fixed(width)])]);
            let context = Some(example(&[("x", feature)]));
            let all = ExampleListWithContext { examples: vec![example(&[]); 100], context };
            let within = |bytes| {
                let limits = LimitsConfig { body_bytes_max: ByteSize(bytes), ..limits() };
                let input = Input { kind: Some(input::Kind::ExampleListWithContext(all.clone())) };
                tensors(Some(input), &signature, &limits).map(|_| ()).map_err(|refusal| refusal.code)
            };
            assert_eq!(within(400_000), Ok(()), "{dtype}");
            assert_eq!(within(399_999), Err(ErrorCode::PayloadTooLarge), "{dtype}");
        }
    }
}
