//! Schemas of small signatures, whole.

use super::*;

fn spec(name: &str, dtype: DType, dims: &[Dim]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, dims: dims.to_vec() }
}

fn free(name: &str) -> Dim {
    Dim::Free(Some(name.into()))
}

fn made(inputs: &[TensorSpec], outputs: &[TensorSpec], rows_max: Option<usize>) -> Map<String, Value> {
    of_signature(&Signature { inputs: inputs.to_vec(), outputs: outputs.to_vec() }, rows_max)
}

#[test]
fn one_input_is_the_item() {
    let x = spec("x", DType::F32, &[free("batch"), Dim::Fixed(3)]);
    let all = made(std::slice::from_ref(&x), std::slice::from_ref(&x), Some(32));
    let inputs = &all["OwnRequest"]["properties"]["inputs"];
    assert_eq!((&inputs["minItems"], &inputs["maxItems"]), (&1.into(), &1.into()));
    let number = json!({ "type": "number", "minimum": -f64::from(f32::MAX), "maximum": f64::from(f32::MAX) });
    let rows = json!({ "type": "array", "items": { "type": "array", "minItems": 3, "maxItems": 3, "items": number } });
    let wanted = json!({
        "name": { "const": "x" },
        "datatype": { "const": "FP32" },
        "shape": {
            "type": "array", "minItems": 2, "maxItems": 2,
            "prefixItems": [{ "type": "integer", "minimum": 0, "maximum": 32, "description": "Rows." }, { "const": 3 }],
        },
        "data": { "anyOf": [{ "type": "array", "items": number }, rows] },
        "parameters": { "$ref": "#/components/schemas/InputParameters" },
    });
    assert_eq!(inputs["items"]["properties"], wanted);
    assert_eq!(inputs["items"]["required"], json!(["name", "datatype", "shape", "data"]));
}

#[test]
fn several_inputs_stand_in_any_order_each_once() {
    let (x, ids) = (spec("x", DType::F64, &[Dim::Fixed(2)]), spec("ids", DType::I32, &[]));
    let all = made(&[x.clone(), ids], std::slice::from_ref(&x), None);
    let inputs = &all["OwnRequest"]["properties"]["inputs"];
    assert_eq!(inputs["items"]["anyOf"].as_array().map(Vec::len), Some(2));
    let named = |name: &str| json!({ "contains": named(name) });
    assert_eq!(inputs["allOf"], json!([named("x"), named("ids")]));
    // Without a free axis the count of elements is known.
    let scalar = &inputs["items"]["anyOf"][1]["properties"];
    assert_eq!(scalar["shape"], json!({ "type": "array", "minItems": 0, "maxItems": 0 }));
    assert_eq!((&scalar["data"]["minItems"], &scalar["data"]["maxItems"]), (&1.into(), &1.into()));
    assert_eq!(inputs["items"]["anyOf"][0]["properties"]["data"]["maxItems"], 2);
    // Columns alone: there are no rows.
    assert_eq!(all["OwnV1Request"]["oneOf"], json!([{ "required": ["inputs"] }]));
    assert_eq!(all["OwnV1Request"]["properties"]["inputs"]["required"], json!(["x", "ids"]));
}

#[test]
fn free_axes_have_their_names() {
    let x = spec("x", DType::I64, &[free("batch"), free("time"), Dim::Free(None)]);
    let extents = |rows| shape(&x, rows)["prefixItems"].clone();
    let (whole, time) =
        (json!({ "type": "integer", "minimum": 0 }), json!({ "type": "integer", "minimum": 0, "description": "time" }));
    let rows = json!({ "type": "integer", "minimum": 0, "description": "Rows." });
    assert_eq!(extents(Some(Rows { max: None })), json!([rows, time, whole]));
    let batch = json!({ "type": "integer", "minimum": 0, "description": "batch" });
    assert_eq!(extents(None), json!([batch, time, whole]));
}

#[test]
fn every_datatype_has_its_values() {
    for (dtype, wanted, fitting, wrong) in [
        (DType::Bool, "boolean", "true", "2"),
        (DType::U8, "integer", "255", "256"),
        (DType::U16, "integer", "65535", "-1"),
        (DType::U32, "integer", "4294967295", "4294967296"),
        (DType::U64, "integer", "18446744073709551615", "-1"),
        (DType::I8, "integer", "-128", "128"),
        (DType::I16, "integer", "-32768", "32768"),
        (DType::I32, "integer", "-2147483648", "2147483648"),
        (DType::I64, "integer", "-9223372036854775808", "9223372036854775808"),
        (DType::F16, "number", "65504.0", "65505.0"),
        (DType::Bf16, "number", "3e38", "3.4e38"),
        (DType::F32, "number", "3.4e38", "3.5e38"),
    ] {
        let schema = element(dtype);
        assert!(schema["type"] == wanted || schema["type"][0] == wanted, "{dtype}: {schema}");
        let bound = |name: &str| schema[name].as_number().map(|number| number.to_string().parse::<f64>().unwrap());
        let (least, most) = (bound("minimum").unwrap(), bound("maximum").unwrap());
        let fits = |text: &str| text.parse::<f64>().is_ok_and(|value| (least..=most).contains(&value));
        assert!(fitting == "true" || fits(fitting), "{dtype}: {schema}");
        // 64 bits are more than a float tells apart: there the bound is compared as it is written.
        assert!(!fits(wrong) || schema["maximum"] == i64::MAX, "{dtype}: {schema}");
    }
    assert_eq!(element(DType::F64), json!({ "type": "number" }));
    assert_eq!(element(DType::Bytes), json!({ "type": "string" }));
}

#[test]
fn halves_have_no_form_in_the_protocols_json_but_in_v1() {
    let x = spec("x", DType::F16, &[free("batch"), Dim::Fixed(2)]);
    let all = made(std::slice::from_ref(&x), std::slice::from_ref(&x), None);
    let input = &all["OwnRequest"]["properties"]["inputs"]["items"];
    assert_eq!(input["required"], json!(["name", "datatype", "shape"]));
    assert!(input["properties"].get("data").is_none());
    let row = &all["OwnV1Request"]["properties"]["instances"]["items"]["anyOf"][1];
    assert_eq!((&row["minItems"], &row["items"]["type"]), (&2.into(), &"number".into()));
}

#[test]
fn bytes_are_text_or_base64_in_v1() {
    let x = spec("x", DType::Bytes, &[free("batch")]);
    let all = made(std::slice::from_ref(&x), std::slice::from_ref(&x), None);
    let data = &all["OwnRequest"]["properties"]["inputs"]["items"]["properties"]["data"];
    assert_eq!(*data, json!({ "type": "array", "items": { "type": "string" } }));
    let row = &all["OwnV1Examples"]["properties"]["examples"]["items"]["properties"]["x"]["anyOf"];
    assert_eq!((&row[0]["type"], &row[1]["required"][0]), (&"string".into(), &"b64".into()));
}

#[test]
fn an_output_may_come_as_classes() {
    let x = spec("x", DType::F32, &[Dim::Fixed(2)]);
    let all = made(std::slice::from_ref(&x), std::slice::from_ref(&x), None);
    let outputs = &all["OwnResponse"]["properties"]["outputs"]["items"]["anyOf"];
    let kinds: Vec<&Value> =
        outputs.as_array().unwrap().iter().map(|one| &one["properties"]["datatype"]["const"]).collect();
    assert_eq!(kinds, ["FP32", "BYTES"]);
}
