//! The decoder by rows and by properties: what is valid becomes its bytes, and nothing panics.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn limits(json_depth_max: usize) -> LimitsConfig {
    LimitsConfig { json_depth_max, ..crate::config::Config::default().limits }
}

fn read(body: &str, json_depth_max: usize) -> Result<JsonRequest, String> {
    parse(body.as_bytes(), &limits(json_depth_max)).map_err(|error| error.to_string())
}

fn check(body: &str, json_depth_max: usize, refused: Option<&str>) {
    match (read(body, json_depth_max), refused) {
        (Ok(_), None) => {}
        (Err(error), Some(says)) if error.contains(says) => {}
        (got, _) => panic!("{body}: {got:?}, expected {refused:?}"),
    }
}

const OURS: &str = "nested deeper than the limit";

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

#[test]
fn the_depth_limit_is_exact() {
    // At 127 the parser stops at the same level in its own words.
    for (limit, says) in [(4, OURS), (10, OURS), (100, OURS), (126, OURS), (127, "recursion limit exceeded")] {
        // The request is the first level; the list, the input or output and what is in it follow.
        for (before, after, above) in [
            (r#"{"x":"#, "}", 1),
            (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[0],"data":[],"y":"#, "}]}", 3),
            (r#"{"inputs":[],"outputs":[{"name":"x","y":"#, "}]}", 3),
        ] {
            check(&format!("{before}{}{after}", nested(limit - above)), limit, None);
            check(&format!("{before}{}{after}", nested(limit - above + 1)), limit, Some(says));
        }
    }
}

#[test]
fn objects_count_as_arrays_do() {
    let body = |levels: usize| format!(r#"{{"x":{}1{}}}"#, r#"{"y":"#.repeat(levels), "}".repeat(levels));
    check(&body(9), 10, None);
    check(&body(10), 10, Some("nested deeper"));
}

#[test]
fn the_depth_of_data_is_the_same_before_and_behind_its_shape() {
    for body in [
        r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1,1],"data":[[[1]]]}]}"#,
        r#"{"inputs":[{"data":[[[1]]],"name":"x","datatype":"FP32","shape":[1,1,1]}]}"#,
    ] {
        check(body, 6, None);
        check(body, 5, Some("data is nested deeper than the limit"));
    }
}

#[test]
fn nulls_are_as_good_as_nothing() {
    let body = r#"{"id":null,"parameters":null,"outputs":null,"inputs":
        [{"name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":null}]}"#;
    let request = read(body, 100).unwrap();
    assert_eq!((request.id, request.parameters.len(), request.outputs.len()), (None, 0, 0));
    assert_eq!(request.inputs.unwrap()[0].values.as_deref(), Some(&1f32.to_le_bytes()[..]));
    check(r#"{"inputs":[],"outputs":[{"name":"y","parameters":null}]}"#, 100, None);
    check(r#"{"inputs":null}"#, 100, Some("null"));
}

#[test]
fn extents_are_whole_numbers() {
    let body =
        |extent: &str| format!(r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{extent}],"data":[]}}]}}"#);
    check(&body("0"), 100, None);
    for (extent, got) in [("1.0", "`1.0`"), ("-1", "`-1`"), ("\"1\"", "string \"1\""), ("null", "null")] {
        let error = read(&body(extent), 100).unwrap_err();
        assert!(error.contains(got), "{error}");
        assert!(error.contains("expected an extent of the shape: a whole number of at least 0"), "{error}");
    }
}

/// An input in JSON, with the shape and the bytes that it must become.
#[derive(Clone, Debug)]
struct Sample {
    json: Json,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Arrays as deep as the shape. An outer extent of zero ends them early.
fn as_nested(values: &[Json], shape: &[usize]) -> Json {
    match shape {
        [] | [_] => json!(values),
        [extent, inner @ ..] => {
            let each = inner.iter().product::<usize>();
            (0..*extent).map(|row| as_nested(&values[row * each..][..each], inner)).collect()
        }
    }
}

prop_compose! {
    fn sample()(shape in prop::collection::vec(0usize..4, 0..4), is_nested in any::<bool>(), kind in 0..4)(
        values in prop::collection::vec(any::<i64>(), shape.iter().product::<usize>()),
        shape in Just(shape),
        is_nested in Just(is_nested),
        kind in Just(kind),
    ) -> Sample {
        let (name, json, bytes): (_, Vec<Json>, Vec<Vec<u8>>) = match kind {
            0 => ("INT64", values.iter().map(|v| json!(v)).collect(), values.iter().map(|v| v.to_le_bytes().into()).collect()),
            1 => {
                let floats: Vec<f64> = values.iter().map(|v| f64::from(i32::try_from(v % 100_000).unwrap()) / 8.0).collect();
                ("FP64", floats.iter().map(|v| json!(v)).collect(), floats.iter().map(|v| v.to_le_bytes().into()).collect())
            }
            2 => ("BOOL", values.iter().map(|v| json!(v % 2 == 0)).collect(), values.iter().map(|v| vec![u8::from(v % 2 == 0)]).collect()),
            _ => {
                let texts = values.iter().map(|v| format!("\"\\ü{v}\n"));
                let bytes = texts.clone().map(|t| [&u32::try_from(t.len()).unwrap().to_le_bytes()[..], t.as_bytes()].concat());
                ("BYTES", texts.clone().map(|t| json!(t)).collect(), bytes.collect())
            }
        };
        let data = if is_nested { as_nested(&json, &shape) } else { json!(json) };
        let json = json!({ "name": "x", "datatype": name, "shape": shape, "data": data });
        Sample { json, shape, bytes: bytes.concat() }
    }
}

proptest! {
    /// serde_json prints keys in the order of the alphabet, so that data comes first; the other order is made by hand.
    #[test]
    fn a_valid_request_becomes_its_bytes(sample in sample(), data_first: bool) {
        let text = if data_first {
            json!({ "inputs": [sample.json], "id": "7", "other": [{ "a": [1] }] }).to_string()
        } else {
            let part = |key: &str| sample.json[key].to_string();
            let parts = (part("shape"), part("datatype"), part("data"));
            format!(r#"{{"inputs":[{{"name":"x","shape":{},"datatype":{},"data":{}}}],"id":"7"}}"#, parts.0, parts.1, parts.2)
        };
        let request = read(&text, 100).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        let [input] = request.inputs.unwrap().try_into().unwrap();
        prop_assert_eq!(&input.shape[..], &sample.shape[..]);
        prop_assert_eq!(input.values.unwrap(), sample.bytes);
        prop_assert_eq!(request.id.unwrap(), "7");
    }

    /// What is cut or changed is refused, or still has as many bytes as its shape says.
    #[test]
    fn damage_never_panics(sample in sample(), at: prop::sample::Index, byte: u8, cut: bool) {
        let mut text = json!({ "inputs": [sample.json] }).to_string().into_bytes();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = byte }
        if let Ok(JsonRequest { inputs: Some(inputs), .. }) = parse(&text, &limits(100)) {
            for input in inputs.iter().filter(|input| input.dtype != DType::Bytes) {
                let wanted = input.shape.element_count().unwrap() * input.dtype.size().unwrap();
                prop_assert!(input.values.as_ref().is_none_or(|values| values.len() == wanted));
            }
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"[\[\]{}":,0-9a-z ]{0,80}"#) {
        let _ = parse(&bytes, &limits(100));
        let _ = parse(text.as_bytes(), &limits(100));
    }
}
