//! Bodies of v1, each form with what it refuses.

use super::*;
use crate::units::ByteSize;

fn spec(name: &str, dtype: DType, dims: &[usize]) -> TensorSpec {
    let dims = dims.iter().map(|&extent| if extent == 0 { Dim::Free(None) } else { Dim::Fixed(extent) });
    TensorSpec { name: name.into(), dtype, dims: dims.collect() }
}

fn one() -> Signature {
    Signature { inputs: vec![spec("x", DType::U8, &[0, 2])], outputs: Vec::new() }
}

fn two() -> Signature {
    Signature { inputs: vec![spec("a", DType::U8, &[0, 1]), spec("b", DType::Bytes, &[0])], outputs: Vec::new() }
}

fn text() -> Signature {
    Signature { inputs: vec![spec("t", DType::Bytes, &[0])], outputs: Vec::new() }
}

/// Name, shape and bytes of every input.
type Shown = Vec<(String, Vec<usize>, Vec<u8>)>;

fn read_as(verb: Verb, rows: bool, signature: &Signature, json: &str) -> Result<(Form, Shown), String> {
    let limits = crate::config::Config::default().limits;
    let limits = LimitsConfig { json_depth_max: 5, rank_max: 3, body_bytes_max: ByteSize(100), ..limits };
    let reading = Reading { verb, signature, limits: &limits, inputs_are_rows: rows };
    let (form, tensors) = read(json.as_bytes(), reading).map_err(|error| error.to_string())?;
    let shown = |named: NamedTensor| (named.name, named.tensor.shape().to_vec(), named.tensor.bytes().to_vec());
    Ok((form, tensors.into_iter().map(shown).collect()))
}

fn predict(signature: &Signature, json: &str) -> Result<(Form, Shown), String> {
    read_as(Verb::Predict, false, signature, json)
}

fn named(name: &str, shape: &[usize], bytes: &[u8]) -> (String, Vec<usize>, Vec<u8>) {
    (name.into(), shape.to_vec(), bytes.to_vec())
}

fn refused(got: Result<(Form, Shown), String>, says: &str) {
    let error = got.unwrap_err();
    assert!(error.contains(says), "expected {says:?} in {error:?}");
}

#[test]
fn rows_and_columns_of_one_input() {
    let x = || vec![named("x", &[2, 2], &[1, 2, 3, 4])];
    for json in [
        r#"{"instances": [[1,2],[3,4]]}"#,
        r#"{"signature_name": "serving_default", "instances": [{"x": [1,2]}, [3,4]], "other": {"a": [1]}}"#,
        r#"{"instances": [[1.0,2],[3,4]], "signature_name": null}"#,
    ] {
        assert_eq!(predict(&one(), json), Ok((Form::Rows, x())), "{json}");
    }
    for json in [r#"{"inputs": [[1,2],[3,4]]}"#, r#"{"signature_name": "", "inputs": {"x": [[1,2],[3,4]]}}"#] {
        assert_eq!(predict(&one(), json), Ok((Form::Columns, x())), "{json}");
    }
    assert_eq!(predict(&one(), r#"{"inputs": 7}"#), Ok((Form::Columns, vec![named("x", &[], &[7])])));
    let kserve = read_as(Verb::Predict, true, &one(), r#"{"inputs": [[1,2],[3,4]]}"#);
    assert_eq!(kserve, Ok((Form::Rows, x())));
    let whole = read_as(Verb::Predict, true, &one(), r#"{"inputs": {"x": [[1,2],[3,4]]}}"#);
    assert_eq!(whole, Ok((Form::Columns, x())), "an object has columns in any case");
}

#[test]
fn several_inputs_have_names() {
    let both = vec![named("a", &[2, 1], &[1, 2]), named("b", &[2], b"\x01\0\0\0p\x02\0\0\0qr")];
    let rows = r#"{"instances": [{"a": [1], "b": "p"}, {"b": {"b64": "cXI="}, "a": [2]}]}"#;
    assert_eq!(predict(&two(), rows), Ok((Form::Rows, both.clone())));
    let columns = r#"{"inputs": {"b": ["p", "qr"], "a": [[1], [2]]}}"#;
    assert_eq!(predict(&two(), columns), Ok((Form::Columns, both)));
    assert_eq!(predict(&two(), r#"{"inputs": {"a": [1]}}"#).unwrap().1.len(), 1, "what is missing is routing's matter");
    refused(predict(&two(), r#"{"instances": [{"a": 1, "b": "p"}, {"a": 2}]}"#), "\"b\" is missing in element 1 of 2");
    refused(
        predict(&two(), r#"{"instances": [{"a": 1}, {"a": 2, "b": "p"}]}"#),
        "\"b\" is missing in element 0, but not in",
    );
    refused(predict(&two(), r#"{"instances": [{"a": 1, "a": 1}]}"#), "input \"a\" is given twice");
    refused(predict(&two(), r#"{"instances": [{"c": 1}]}"#), "unexpected input \"c\", the model has \"a\", \"b\"");
    refused(predict(&two(), r#"{"instances": [1]}"#), "expected an object with the inputs \"a\", \"b\", got a value");
}

#[test]
fn an_object_may_be_bytes() {
    let t = |shape: &[usize]| vec![named("t", shape, b"\x01\0\0\0p")];
    assert_eq!(predict(&text(), r#"{"instances": [{"b64": "cA=="}]}"#), Ok((Form::Rows, t(&[1]))));
    assert_eq!(predict(&text(), r#"{"instances": [{"t": {"b64": "cA=="}}]}"#), Ok((Form::Rows, t(&[1]))));
    assert_eq!(predict(&text(), r#"{"inputs": {"b64": "cA=="}}"#), Ok((Form::Columns, t(&[]))));
    assert_eq!(predict(&text(), r#"{"inputs": [["p"]]}"#), Ok((Form::Columns, t(&[1, 1]))));
    refused(predict(&one(), r#"{"instances": [{"b64": "cA=="}]}"#), "unexpected input \"b64\"");
}

#[test]
fn a_body_has_one_form() {
    refused(predict(&one(), "{}"), "expected either \"instances\" or \"inputs\", got neither");
    refused(predict(&one(), r#"{"inputs": [], "instances": []}"#), "got both");
    refused(predict(&one(), r#"{"instances": []}"#), "expected at least one element, got an empty array");
    refused(predict(&one(), r#"{"instances": {"x": 1}}"#), "expected an array");
    refused(predict(&one(), r#"{"examples": [{"x": 1}]}"#), "got neither");
    refused(
        predict(&one(), r#"{"signature_name": "other", "instances": [1]}"#),
        "signature \"other\" is not found, the model has \"serving_default\"",
    );
    refused(predict(&one(), "[1]"), "expected an object with either");
    refused(predict(&one(), r#"{"instances": [[1,2],[3]]}"#), "1 elements along axis 1, before it had 2");
}

#[test]
fn limits_hold() {
    refused(predict(&one(), r#"{"instances": [[[[1]]]]}"#), "more than 3 axes");
    refused(predict(&one(), r#"{"inputs": [[[[[1]]]]]}"#), "more than 3 axes");
    refused(predict(&one(), r#"{"x": [[[[[1]]]]]}"#), "nested deeper than the limit");
    refused(predict(&one(), r#"{"instances": [{"x": [[[1]]]}]}"#), "nested deeper than the limit");
}

#[test]
fn examples_have_the_shape_of_the_input() {
    let classify = |json: &str| read_as(Verb::Classify, false, &two(), json);
    let both = vec![named("a", &[2, 1], &[1, 2]), named("b", &[2], b"\x01\0\0\0p\x01\0\0\0p")];
    for json in [
        r#"{"examples": [{"a": 1, "b": "p"}, {"a": [2], "b": "p"}]}"#,
        r#"{"examples": [{"a": 1}, {"a": 2}], "context": {"b": "p"}}"#,
        r#"{"context": {"b": "p"}, "examples": [{"a": 1}, {"a": 2}]}"#,
    ] {
        let got = classify(json);
        if json.contains("[2]") {
            refused(got, "array beside values");
        } else {
            assert_eq!(got, Ok((Form::Classes, both.clone())), "{json}");
        }
    }
    let long = format!(r#"{{"context": {{"b": "{}"}}, "examples": [{{"a": 1}}, {{"a": 2}}]}}"#, "p".repeat(47));
    refused(classify(&long), "the context's \"b\" has 102 bytes in all examples, 100B are allowed");
    let regress = read_as(Verb::Regress, false, &two(), r#"{"examples": [{"a": 1, "b": "p"}]}"#).unwrap();
    assert_eq!(regress.0, Form::Numbers);
    refused(classify(r#"{"instances": [1]}"#), "expected \"examples\", got neither");
}
