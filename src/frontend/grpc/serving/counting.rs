//! What calls of TensorFlow Serving's will take when they are decoded, found out without decoding them.

use crate::frontend::grpc::bounded::{Counted, Counter, Fields, check_typed, element, floats, whole_numbers};
use crate::frontend::{LimitsConfig, Refusal};
use crate::proto::tensorflow::serving::{ClassificationRequest, PredictRequest, RegressionRequest};
use crate::proto::tensorflow::{Example, Feature};

impl Counted for PredictRequest {
    fn count(message: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal> {
        let mut typed = 0;
        let mut inputs = Counter::new("inputs", limits.tensors_max);
        let mut filters = Counter::new("names in output_filter", limits.tensors_max);
        for (number, content) in Fields(message) {
            match number {
                2 => {
                    inputs.count()?;
                    for (_, tensor) in Fields(content).filter(|(number, _)| *number == VALUE) {
                        typed += tensor_bytes(tensor, limits)?;
                    }
                    check_typed(typed, limits)?;
                }
                3 => filters.count()?,
                _ => {}
            }
        }
        Ok(typed)
    }
}

impl Counted for ClassificationRequest {
    fn count(message: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal> {
        examples(message, limits)
    }
}

impl Counted for RegressionRequest {
    fn count(message: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal> {
        examples(message, limits)
    }
}

fn tensor_bytes(tensor: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal> {
    let mut axes = Counter::new("axes", limits.rank_max);
    let mut typed = 0;
    for (number, content) in Fields(tensor) {
        typed += match number {
            2 => {
                Fields(content).filter(|(number, _)| *number == DIM).try_for_each(|_| axes.count())?;
                0
            }
            5 => floats(content, 4),
            6 => floats(content, 8),
            7 | 13 | 16 => whole_numbers(content, 4),
            8 => element(content),
            10 | 17 => whole_numbers(content, 8),
            11 => whole_numbers(content, 1),
            _ => 0,
        };
    }
    Ok(typed)
}

/// Of a request whose second field is its input. Both forms of that have examples in their first field, and the one with a
/// context has it in its second.
fn examples(request: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal> {
    let mut typed = 0;
    let lists = Fields(request).filter(|(number, _)| *number == INPUT).flat_map(|(_, input)| Fields(input));
    for (_, example) in lists.flat_map(|(_, list)| Fields(list)) {
        typed += size_of::<Example>() as u64;
        for (_, features) in Fields(example) {
            typed += features_bytes(features, limits)?;
        }
        check_typed(typed, limits)?;
    }
    Ok(typed)
}

fn features_bytes(features: &[u8], limits: &LimitsConfig) -> Result<u64, Refusal> {
    let mut count = Counter::new("features of an example", limits.tensors_max);
    let mut typed = 0;
    for (_, entry) in Fields(features) {
        count.count()?;
        typed += size_of::<(String, Feature)>() as u64;
        for (number, content) in Fields(entry) {
            typed += if number == VALUE { feature_bytes(content) } else { content.len() as u64 };
        }
    }
    Ok(typed)
}

fn feature_bytes(feature: &[u8]) -> u64 {
    let list = |(kind, list): (u32, &[u8])| -> u64 {
        let values = |(_, values): (u32, &[u8])| match kind {
            1 => element(values),
            2 => floats(values, 4),
            3 => whole_numbers(values, 8),
            _ => 0,
        };
        Fields(list).map(values).sum()
    };
    Fields(feature).map(list).sum()
}

/// Fields of the messages.
const INPUT: u32 = 2;
const DIM: u32 = 2;
/// Of a map's entry.
const VALUE: u32 = 2;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::frontend::grpc::convert::tests::limits;
    use crate::frontend::grpc::serving::tensor_proto::shape_proto;
    use crate::proto::tensorflow::feature::Kind;
    use crate::proto::tensorflow::serving::input;
    use crate::proto::tensorflow::serving::{ExampleList, ExampleListWithContext, Input};
    use crate::proto::tensorflow::{BytesList, Features, FloatList, Int64List, TensorProto};
    use crate::units::ByteSize;

    fn predict(tensors: &[TensorProto], filters: usize) -> Vec<u8> {
        let inputs = tensors.iter().enumerate().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        PredictRequest { model_spec: None, inputs, output_filter: vec!["y".into(); filters] }.encode_to_vec()
    }

    #[test]
    fn values_of_tensors_count_as_they_are_in_memory() {
        let all = TensorProto {
            tensor_content: Bytes::from_static(&[9; 50]),
            float_val: vec![1.0; 3],
            double_val: vec![1.0; 3],
            int_val: vec![-1, 1, 300],
            string_val: vec![Bytes::from_static(b"abc"), Bytes::new()],
            int64_val: vec![-1, 1],
            bool_val: vec![true; 5],
            half_val: vec![1],
            uint32_val: vec![u32::MAX],
            uint64_val: vec![u64::MAX],
            ..TensorProto::default()
        };
        let texts = 2 * size_of::<Bytes>() as u64 + 3;
        let expected = 3 * 4 + 3 * 8 + 3 * 4 + texts + 2 * 8 + 5 + 4 + 4 + 8;
        assert_eq!(PredictRequest::count(&predict(std::slice::from_ref(&all), 0), &limits()).unwrap(), expected);
        let narrow = LimitsConfig { body_bytes_max: ByteSize(expected - 1), ..limits() };
        assert!(PredictRequest::count(&predict(&[all], 0), &narrow).is_err());
    }

    #[test]
    fn parts_of_a_prediction_are_counted() {
        let check = |message: Vec<u8>, refused: Option<&str>| {
            let got = PredictRequest::count(&message, &limits()).map_err(|refusal| refusal.message);
            assert_eq!(got.err().as_deref(), refused);
        };
        let deep =
            |axes| TensorProto { tensor_shape: Some(shape_proto(std::iter::repeat_n(1, axes))), ..Default::default() };
        check(predict(&[deep(3), deep(3)], 2), None);
        check(predict(&[deep(4)], 0), Some("expected at most 3 axes, got more"));
        check(predict(&[deep(1), deep(1), deep(1)], 0), Some("expected at most 2 inputs, got more"));
        check(predict(&[], 3), Some("expected at most 2 names in output_filter, got more"));
    }

    fn example(features: usize) -> Example {
        let kinds = [
            Kind::FloatList(FloatList { value: vec![1.0; 3] }),
            Kind::Int64List(Int64List { value: vec![1; 3] }),
            Kind::BytesList(BytesList { value: vec![Bytes::from_static(b"ab")] }),
        ];
        let entry = |(name, kind): (usize, &Kind)| (name.to_string(), Feature { kind: Some(kind.clone()) });
        let feature: HashMap<_, _> = kinds.iter().enumerate().map(entry).take(features).collect();
        Example { features: Some(Features { feature }) }
    }

    #[test]
    fn examples_and_their_features_are_counted() {
        let (one, entry) = (size_of::<Example>() as u64, size_of::<(String, Feature)>() as u64 + 1);
        let each = one + 2 * entry + 12 + 24;
        let kind = input::Kind::ExampleList(ExampleList { examples: vec![example(2); 2] });
        let request = ClassificationRequest { model_spec: None, input: Some(Input { kind: Some(kind) }) };
        assert_eq!(ClassificationRequest::count(&request.encode_to_vec(), &limits()).unwrap(), 2 * each);
        let kind = input::Kind::ExampleListWithContext(ExampleListWithContext {
            examples: vec![example(2)],
            context: Some(example(3)),
        });
        let request = RegressionRequest { model_spec: None, input: Some(Input { kind: Some(kind) }) };
        let refused = RegressionRequest::count(&request.encode_to_vec(), &limits()).unwrap_err().message;
        assert_eq!(refused, "expected at most 2 features of an example, got more");
        // Examples of two bytes on the wire.
        let empty = [&[0x12, 0x81, 0x20, 0x0a, 0xfe, 0x1f][..], &[0x0a, 0].repeat(2047)].concat();
        assert_eq!(ClassificationRequest::decode(&empty[..]).unwrap().encoded_len(), empty.len());
        assert_eq!(ClassificationRequest::count(&empty, &limits()).unwrap(), 2047 * one);
    }
}
