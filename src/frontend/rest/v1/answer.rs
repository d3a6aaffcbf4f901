//! An answer in the words of v1: rows (`predictions`), columns (`outputs`), or `results` of examples.
//!
//! Written by hand, not through serde: JSON as these clients read it has `NaN` and `Infinity`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use serde::Serialize;

use super::Form;
use crate::frontend::Refusal;
use crate::frontend::rest::encode::text_length;
use crate::pipeline::Answer;
use crate::repository::Variant;
use crate::tensor::{DType, NamedTensor};

/// # Errors
/// When the outputs do not have the rows that the form is made of.
pub(in crate::frontend::rest) fn write(answer: &Answer, form: Form) -> Result<Vec<u8>, Refusal> {
    let outputs = &answer.response.outputs;
    let mut out = Vec::with_capacity(outputs.iter().map(|named| text_length(&named.tensor)).sum::<usize>() + FRAME);
    match form {
        Form::Rows => rows(&mut out, outputs)?,
        Form::Columns => columns(&mut out, outputs),
        Form::Classes => classes(&mut out, sole(outputs), &answer.variant),
        Form::Numbers => {
            let named = sole(outputs);
            out.extend_from_slice(b"{\"results\":");
            let mut next = Elements::of(named);
            list(&mut out, named.tensor.element_count(), |out, _| next.write(out));
        }
    }
    out.push(b'}');
    Ok(out)
}

fn rows(out: &mut Vec<u8>, outputs: &[NamedTensor]) -> Result<(), Refusal> {
    let count = outputs.first().map_or(0, |named| named.tensor.shape().rows());
    let odd = outputs.iter().find(|named| named.tensor.shape().is_empty() || named.tensor.shape().rows() != count);
    if let Some(NamedTensor { name, tensor }) = odd {
        return Err(Refusal::invalid(format!(
            "rows expect outputs with as many elements along axis 0, {count}; {name:?} has shape {}: ask for columns, with \
             \"inputs\"",
            tensor.shape()
        )));
    }
    out.extend_from_slice(b"{\"predictions\":");
    let mut elements: Vec<(&NamedTensor, Elements<'_>)> =
        outputs.iter().map(|named| (named, Elements::of(named))).collect();
    list(out, count, |out, _| match elements.as_mut_slice() {
        [(named, next)] => nested(out, named.tensor.shape().row_dims(), next),
        all => object(out, all.iter_mut().map(|(named, next)| (*named, next)), |out, named, next| {
            nested(out, named.tensor.shape().row_dims(), next);
        }),
    });
    Ok(())
}

fn columns(out: &mut Vec<u8>, outputs: &[NamedTensor]) {
    out.extend_from_slice(b"{\"outputs\":");
    match outputs {
        [named] => nested(out, named.tensor.shape(), &mut Elements::of(named)),
        all => object(out, all.iter().map(|named| (named, Elements::of(named))), |out, named, mut next| {
            nested(out, named.tensor.shape(), &mut next);
        }),
    }
}

/// Each row's classes with their scores, in the order that the model has them.
fn classes(out: &mut Vec<u8>, named: &NamedTensor, variant: &Variant) {
    let labels = variant.settings.labels.get(&named.name).map_or(&[][..], |labels| &labels.names);
    let shape = named.tensor.shape();
    let count = shape.row_dims().iter().product();
    let mut next = Elements::of(named);
    out.extend_from_slice(b"{\"results\":");
    list(out, shape.rows(), |out, _| {
        list(out, count, |out, class| {
            out.push(b'[');
            match labels.get(class) {
                Some(label) => text(out, label),
                None => text(out, &class.to_string()),
            }
            out.push(b',');
            next.write(out);
            out.push(b']');
        });
    });
}

fn sole(outputs: &[NamedTensor]) -> &NamedTensor {
    outputs.first().expect("such a call names the one output that it wants")
}

/// The next elements as arrays of this shape.
fn nested(out: &mut Vec<u8>, dims: &[usize], next: &mut Elements<'_>) {
    match dims {
        [] => next.write(out),
        [count, inner @ ..] => list(out, *count, |out, _| nested(out, inner, next)),
    }
}

fn list(out: &mut Vec<u8>, count: usize, mut item: impl FnMut(&mut Vec<u8>, usize)) {
    out.push(b'[');
    for at in 0..count {
        if at > 0 {
            out.push(b',');
        }
        item(out, at);
    }
    out.push(b']');
}

fn object<'a, T>(
    out: &mut Vec<u8>,
    entries: impl Iterator<Item = (&'a NamedTensor, T)>,
    mut value: impl FnMut(&mut Vec<u8>, &NamedTensor, T),
) {
    for (at, (named, next)) in entries.enumerate() {
        out.push(if at == 0 { b'{' } else { b',' });
        text(out, &named.name);
        out.push(b':');
        value(out, named, next);
    }
    out.push(b'}');
}

/// The elements of an output that are not written yet.
struct Elements<'a> {
    dtype: DType,
    /// Of all datatypes but `BYTES`.
    bytes: &'a [u8],
    octets: crate::tensor::Elements<'a>,
    is_base64: bool,
}

impl<'a> Elements<'a> {
    /// Outputs whose names end so hold bytes, by TensorFlow's convention; what is no text can be nothing else.
    fn of(NamedTensor { name, tensor }: &'a NamedTensor) -> Self {
        let dtype = tensor.dtype();
        let is_text = || tensor.elements().all(|element| std::str::from_utf8(element).is_ok());
        let is_base64 = dtype == DType::Bytes && (name.ends_with("_bytes") || !is_text());
        Self { dtype, bytes: tensor.bytes(), octets: tensor.elements(), is_base64 }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        macro_rules! whole {
            ($kind:ty) => {
                number(out, &<$kind>::from_le_bytes(self.take()))
            };
        }
        match self.dtype {
            DType::Bool => {
                let [byte] = self.take();
                out.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
            }
            DType::U8 => whole!(u8),
            DType::U16 => whole!(u16),
            DType::U32 => whole!(u32),
            DType::U64 => whole!(u64),
            DType::I8 => whole!(i8),
            DType::I16 => whole!(i16),
            DType::I32 => whole!(i32),
            DType::I64 => whole!(i64),
            DType::F16 => float(out, f16::from_le_bytes(self.take()).to_f32()),
            DType::Bf16 => float(out, bf16::from_le_bytes(self.take()).to_f32()),
            DType::F32 => float(out, f32::from_le_bytes(self.take())),
            DType::F64 => float(out, f64::from_le_bytes(self.take())),
            DType::Bytes => self.octets(out),
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) = self.bytes.split_first_chunk().expect("a tensor has the elements of its shape");
        self.bytes = rest;
        *first
    }

    fn octets(&mut self, out: &mut Vec<u8>) {
        let octets = self.octets.next().expect("a tensor has the elements of its shape");
        match std::str::from_utf8(octets) {
            Ok(plain) if !self.is_base64 => text(out, plain),
            _ => {
                out.extend_from_slice(b"{\"b64\":\"");
                out.extend_from_slice(STANDARD.encode(octets).as_bytes());
                out.extend_from_slice(b"\"}");
            }
        }
    }
}

/// A float as Python and TensorFlow write it, also where it is no number of JSON.
fn float<F: Into<f64> + Copy + Serialize>(out: &mut Vec<u8>, value: F) {
    let wide: f64 = value.into();
    match wide {
        wide if wide.is_finite() => number(out, &value),
        wide if wide.is_nan() => out.extend_from_slice(b"NaN"),
        wide if wide > 0.0 => out.extend_from_slice(b"Infinity"),
        _ => out.extend_from_slice(b"-Infinity"),
    }
}

fn number(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("writing JSON into memory succeeds");
}

fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing JSON into memory succeeds");
}

/// Room for names and braces.
const FRAME: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Shape, Tensor};

    fn named(name: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> NamedTensor {
        NamedTensor { name: name.into(), tensor: Tensor::new(dtype, Shape::new(shape), bytes.into()).unwrap() }
    }

    fn floats(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
        named(name, DType::F32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn shown(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn check(outputs: &[NamedTensor], columns_: &str, rows_: Result<&str, &str>) {
        assert_eq!(shown(|out| columns(out, outputs)), format!("{{\"outputs\":{columns_}"));
        let mut out = Vec::new();
        match (rows(&mut out, outputs), rows_) {
            (Ok(()), Ok(text)) => assert_eq!(String::from_utf8(out).unwrap(), format!("{{\"predictions\":{text}")),
            (Err(refusal), Err(says)) => assert!(refusal.message.contains(says), "{refusal}"),
            (got, wanted) => panic!("{got:?}, expected {wanted:?}"),
        }
    }

    #[test]
    fn outputs_in_rows_and_columns() {
        let y = floats("y", &[2, 2], &[1.0, 0.1, -2.5, 1e10]);
        let text = "[[1.0,0.1],[-2.5,10000000000.0]]";
        check(std::slice::from_ref(&y), text, Ok(text));
        let z = named("z", DType::I64, &[2], [1i64, -1].iter().flat_map(|value| value.to_le_bytes()).collect());
        check(
            &[y.clone(), z],
            &format!("{{\"y\":{text},\"z\":[1,-1]}}"),
            Ok("[{\"y\":[1.0,0.1],\"z\":1},{\"y\":[-2.5,10000000000.0],\"z\":-1}]"),
        );
        let scalar = named("s", DType::Bool, &[], vec![1]);
        check(std::slice::from_ref(&scalar), "true", Err("\"s\" has shape []"));
        check(&[y, scalar], &format!("{{\"y\":{text},\"s\":true}}"), Err("as many elements along axis 0, 2"));
        check(&[floats("y", &[0, 2], &[])], "[]", Ok("[]"));
    }

    #[test]
    fn floats_that_json_lacks_are_bare_words() {
        let y = floats("y", &[3], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        check(&[y], "[NaN,Infinity,-Infinity]", Ok("[NaN,Infinity,-Infinity]"));
        check(&[named("y", DType::F16, &[1], vec![0, 0x3c])], "[1.0]", Ok("[1.0]"));
        check(&[named("y", DType::Bf16, &[1], vec![0x80, 0x3f])], "[1.0]", Ok("[1.0]"));
    }

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let of = |name: &str, bytes: &[u8]| named(name, DType::Bytes, &[1], bytes.to_vec());
        check(&[of("y", b"\x02\0\0\0\"\n")], r#"["\"\n"]"#, Ok(r#"["\"\n"]"#));
        check(&[of("y", b"\x01\0\0\0\xff")], r#"[{"b64":"/w=="}]"#, Ok(r#"[{"b64":"/w=="}]"#));
        check(&[of("y_bytes", b"\x01\0\0\0a")], r#"[{"b64":"YQ=="}]"#, Ok(r#"[{"b64":"YQ=="}]"#));
    }
}
