//! Tensors in every form that TensorFlow's clients send, and in the one that they get.

use proptest::prelude::*;

use super::*;
use crate::frontend::grpc::convert::tests::limits;

fn of(dtype: DataType, dims: &[i64]) -> TensorProto {
    TensorProto { dtype: dtype.into(), tensor_shape: Some(shape_proto(dims.iter().copied())), ..TensorProto::default() }
}

fn read(proto: TensorProto) -> Result<Tensor, Refusal> {
    tensor(proto, &mut Room::new(&limits()))
}

fn check(proto: TensorProto, expected: Result<&[u8], &str>) {
    let shown = format!("{proto:?}");
    let got = read(proto).map(Tensor::into_bytes).map_err(|refusal| refusal.message);
    assert_eq!(got.as_deref().map_err(String::as_str), expected, "{shown}");
}

#[test]
fn every_datatype_has_its_list() {
    check(TensorProto { float_val: vec![1.0], ..of(DataType::DtFloat, &[1]) }, Ok(&1f32.to_le_bytes()));
    check(TensorProto { double_val: vec![-0.5], ..of(DataType::DtDouble, &[1]) }, Ok(&(-0.5f64).to_le_bytes()));
    check(TensorProto { int_val: vec![-1, 127], ..of(DataType::DtInt8, &[2]) }, Ok(&[255, 127]));
    check(TensorProto { int_val: vec![-2], ..of(DataType::DtInt16, &[1]) }, Ok(&[254, 255]));
    check(TensorProto { int_val: vec![1], ..of(DataType::DtInt32, &[]) }, Ok(&[1, 0, 0, 0]));
    check(TensorProto { int_val: vec![255], ..of(DataType::DtUint8, &[1]) }, Ok(&[255]));
    check(TensorProto { int_val: vec![258], ..of(DataType::DtUint16, &[1]) }, Ok(&[2, 1]));
    check(TensorProto { int64_val: vec![-1], ..of(DataType::DtInt64, &[1]) }, Ok(&[255; 8]));
    check(TensorProto { uint32_val: vec![u32::MAX], ..of(DataType::DtUint32, &[1]) }, Ok(&[255; 4]));
    check(TensorProto { uint64_val: vec![u64::MAX], ..of(DataType::DtUint64, &[1]) }, Ok(&[255; 8]));
    check(TensorProto { bool_val: vec![true, false], ..of(DataType::DtBool, &[2]) }, Ok(&[1, 0]));
    // 1.0 in sixteen bits of either kind.
    check(TensorProto { half_val: vec![0x3c00], ..of(DataType::DtHalf, &[1]) }, Ok(&[0, 0x3c]));
    check(TensorProto { half_val: vec![0x3f80], ..of(DataType::DtBfloat16, &[1]) }, Ok(&[0x80, 0x3f]));
    let words = vec![Bytes::from_static(b"ab"), Bytes::new()];
    check(TensorProto { string_val: words, ..of(DataType::DtString, &[2]) }, Ok(b"\x02\0\0\0ab\0\0\0\0"));
    check(of(DataType::DtFloat, &[2, 0]), Ok(&[]));
}

#[test]
fn a_short_list_goes_on_with_its_last_value() {
    check(TensorProto { int_val: vec![1, 2], ..of(DataType::DtInt8, &[2, 2]) }, Ok(&[1, 2, 2, 2]));
    check(of(DataType::DtInt8, &[3]), Ok(&[0, 0, 0]));
    let word = vec![Bytes::from_static(b"a")];
    check(TensorProto { string_val: word, ..of(DataType::DtString, &[2]) }, Ok(b"\x01\0\0\0a\x01\0\0\0a"));
    check(of(DataType::DtString, &[1]), Ok(b"\0\0\0\0"));
}

#[test]
fn bytes_are_taken_as_they_are() {
    let content = Bytes::from_static(&[1, 2, 3, 4]);
    let place = content.as_ptr();
    let sent = TensorProto { tensor_content: content.clone(), ..of(DataType::DtInt16, &[2]) };
    assert_eq!(read(sent).unwrap().bytes().as_ptr(), place, "copied");
    let short = "shape [3] of INT16 needs 6 bytes, got 4";
    check(TensorProto { tensor_content: content, ..of(DataType::DtInt16, &[3]) }, Err(short));
    let words = |content: &'static [u8], count| TensorProto {
        tensor_content: Bytes::from_static(content),
        ..of(DataType::DtString, &[count])
    };
    check(words(b"\x02\x00\x01abc", 3), Ok(b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"));
    let cut = "tensor_content does not hold the 2 strings of shape [2]";
    for content in [&b"\x01"[..], b"\x01\x02ab", b"\x01\x01abc", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01a"] {
        check(words(content, 2), Err(cut));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let many = "shape [1] has 1 elements, expected at most as many in float_val, got 2";
    check(TensorProto { float_val: vec![1.0; 2], ..of(DataType::DtFloat, &[1]) }, Err(many));
    let words = "shape [0] has 0 elements, expected at most as many in string_val, got 1";
    check(TensorProto { string_val: vec![Bytes::new()], ..of(DataType::DtString, &[0]) }, Err(words));
    let wide = "value 128 at position 0 does not fit INT8";
    check(TensorProto { int_val: vec![128], ..of(DataType::DtInt8, &[1]) }, Err(wide));
    check(of(DataType::DtFloat, &[-1]), Err("expected extents of at least 0, got -1"));
    check(of(DataType::DtFloat, &[1, 1, 1, 1]), Err("expected at most 3 axes, got 4"));
    let open = TensorProto {
        tensor_shape: Some(TensorShapeProto { unknown_rank: true, ..Default::default() }),
        ..of(DataType::DtFloat, &[])
    };
    check(open, Err("expected a tensor_shape with its axes, got one of unknown rank"));
    let unknown = |proto| read(proto).unwrap_err().message;
    assert!(
        unknown(of(DataType::DtComplex64, &[1])).starts_with("unknown dtype DT_COMPLEX64, expected one of DT_BOOL,")
    );
    assert!(unknown(TensorProto { dtype: 99, ..TensorProto::default() }).starts_with("unknown dtype 99"));
    assert!(unknown(TensorProto::default()).starts_with("unknown dtype DT_INVALID"));
}

#[test]
fn one_value_fills_no_more_than_a_message_may_have() {
    let word = vec![Bytes::from_static(b"word")];
    for proto in [
        TensorProto { float_val: vec![1.0], ..of(DataType::DtFloat, &[1 << 40]) },
        of(DataType::DtInt8, &[1 << 20, 1 << 20]),
        TensorProto { string_val: word, ..of(DataType::DtString, &[1 << 40]) },
    ] {
        let refusal = read(proto).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::PayloadTooLarge, "{refusal}");
    }
    check(
        of(DataType::DtFloat, &[i64::MAX, 4]),
        Err("shape [9223372036854775807,4] has more elements than can be addressed"),
    );
}

proptest! {
    #[test]
    fn what_leaves_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..64), which in 0..DTYPES.len()) {
        let (dtype, _) = DTYPES[which];
        let sent = match dtype.size() {
            Some(size) => {
                let count = bytes.len() / size;
                let whole: Vec<u8> = bytes[..count * size].iter().map(|b| if dtype == DType::Bool { b & 1 } else { *b }).collect();
                Tensor::new(dtype, Shape::new(&[count]), whole.into()).unwrap()
            }
            None => Tensor::from_elements(Shape::new(&[bytes.len()]), bytes.chunks(1)).unwrap(),
        };
        prop_assert_eq!(read(proto(&sent)).unwrap(), sent);
    }
}
