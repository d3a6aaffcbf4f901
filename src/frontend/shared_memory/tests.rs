//! Regions of files in a folder: what is registered, what is refused, and what a client can do to them meanwhile.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;

use http::HeaderValue;
use proptest::prelude::*;

use super::testing::{config, memory, registration, with_region};
use super::*;
use crate::error::ErrorCode;
use crate::frontend::Refusal;
use crate::frontend::parameters::Value;
use crate::tensor::{DType, Shape, Tensor};
use crate::units::ByteSize;

fn slot(memory: &SharedMemory, offset: u64, byte_size: u64) -> Result<Slot, MemoryError> {
    memory.slot("r".into(), offset, byte_size)
}

fn input(slot: Slot, dtype: DType, shape: &[usize]) -> Placed {
    Placed { at: 0, name: "x".into(), dtype, shape: Shape::new(shape), slot }
}

fn bytes(content: &[u8]) -> Tensor {
    Tensor::new(DType::U8, Shape::new(&[content.len()]), content.to_vec().into()).unwrap()
}

#[test]
fn tensors_are_read_and_written_where_they_lie() {
    let (folder, memory) = with_region("r", 100);
    let segment = folder.path().join("kinglet_test");
    fs::write(&segment, (0..100).collect::<Vec<u8>>()).unwrap();
    memory.register("part", registration("kinglet_test", 10, 50)).unwrap();
    let part = memory.slot("part".into(), 5, 4).unwrap();
    let (_, read) = input(part.clone(), DType::U8, &[2, 2]).read().unwrap();
    assert_eq!(read.tensor.bytes(), &[15, 16, 17, 18][..]);
    part.write("y", &bytes(&[1, 2, 3])).unwrap();
    assert_eq!(fs::read(&segment).unwrap()[14..20], [14, 1, 2, 3, 18, 19], "and not beside it");
    assert_eq!(read.tensor.bytes(), &[15, 16, 17, 18][..], "what was read is a copy");
    let told: Vec<_> = part.parameters(&bytes(&[1, 2, 3])).collect();
    let wanted = [
        (REGION, Value::Text("part".into())),
        ("shared_memory_byte_size", Value::Uint(3)),
        ("shared_memory_offset", Value::Uint(5)),
    ];
    assert_eq!(told, wanted);
}

#[test]
fn elements_of_bytes_have_their_lengths() {
    let (folder, memory) = with_region("r", 13);
    fs::write(folder.path().join("kinglet_test"), b"\x03\0\0\0one\x02\0\0\0no").unwrap();
    let (_, read) = input(slot(&memory, 0, 13).unwrap(), DType::Bytes, &[2]).read().unwrap();
    assert_eq!(read.tensor.elements().collect::<Vec<_>>(), [&b"one"[..], b"no"]);
    let refusal = input(slot(&memory, 0, 12).unwrap(), DType::Bytes, &[2]).read().unwrap_err();
    assert!(refusal.message.starts_with("input \"x\": BYTES element 1 is cut short"), "{refusal}");
}

#[test]
fn sizes_are_known_before_anything_is_copied() {
    let (_folder, memory) = with_region("r", 100);
    let check = |byte_size, dtype, shape: &[usize]| {
        input(slot(&memory, 0, byte_size).unwrap(), dtype, shape).check().map_err(|error| error.to_string())
    };
    assert_eq!(check(8, DType::F32, &[1, 2]), Ok(()));
    assert_eq!(check(9, DType::F32, &[1, 2]), Err("shape [1,2] of FP32 needs 8 bytes, got 9".into()));
    assert_eq!(check(9, DType::Bytes, &[1, 2]), Ok(()), "only its elements tell");
    assert!(check(8, DType::F32, &[1 << 62, 4]).unwrap_err().contains("more elements than can be addressed"));
    assert!(check(8, DType::U64, &[1 << 61]).unwrap_err().contains("more elements than can be addressed"));
    let (small, needs) = (slot(&memory, 0, 2).unwrap(), "output \"y\": expected at least 3 bytes");
    assert!(small.check("y", &bytes(&[1, 2, 3])).unwrap_err().message.starts_with(needs));
    small.check("y", &bytes(&[1, 2])).unwrap();
}

#[test]
fn a_segment_that_becomes_shorter_is_an_error() {
    let (folder, memory) = with_region("r", 1 << 20);
    let whole = slot(&memory, 0, 1 << 20).unwrap();
    let segment = OpenOptions::new().write(true).open(folder.path().join("kinglet_test")).unwrap();
    segment.set_len(5000).unwrap();
    let refusal = input(whole.clone(), DType::U8, &[1 << 20]).read().unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidArgument);
    let shorter = "the segment of shared memory is shorter than it was when it was registered";
    assert_eq!(refusal.message, format!("input \"x\": {shorter}"));
    let refusal = whole.write("y", &bytes(&[1; 6000])).unwrap_err();
    assert_eq!(refusal.message, format!("output \"y\": {shorter}"));
    assert_eq!(segment.metadata().unwrap().len(), 5000, "writing has not made it longer");
    whole.write("y", &bytes(&[1; 5000])).unwrap();
}

#[test]
fn a_request_keeps_what_is_unregistered() {
    let (folder, memory) = with_region("r", 8);
    let before = slot(&memory, 0, 8).unwrap();
    memory.unregister(Some("r")).unwrap();
    fs::remove_file(folder.path().join("kinglet_test")).unwrap();
    assert_eq!(slot(&memory, 0, 8).unwrap_err(), MemoryError::Unknown("r".into()));
    assert!(memory.status(None).unwrap().is_empty());
    fs::write(folder.path().join("kinglet_test"), [7; 8]).unwrap();
    memory.register("r", registration("/kinglet_test", 0, 8)).unwrap();
    let read = |slot: Slot| input(slot, DType::U8, &[8]).read().unwrap().1.tensor.into_bytes();
    assert_eq!(read(before), &[0; 8][..], "the old one");
    assert_eq!(read(slot(&memory, 0, 8).unwrap()), &[7; 8][..], "the new one");
}

#[test]
fn names_stand_for_one_region() {
    let (_folder, memory) = with_region("r", 8);
    let again = memory.register("r", registration("/kinglet_test", 0, 4)).unwrap_err();
    assert_eq!(Refusal::from(again.clone()).code, ErrorCode::AlreadyExists);
    assert_eq!(again.to_string(), "shared memory region \"r\" is registered already");
    memory.register("a", registration("kinglet_test", 4, 4)).unwrap();
    let both =
        [("a".to_owned(), registration("kinglet_test", 4, 4)), ("r".to_owned(), registration("/kinglet_test", 0, 8))];
    assert_eq!(memory.status(None).unwrap(), both);
    assert_eq!(memory.status(Some("r")).unwrap(), both[1..]);
    assert_eq!(Refusal::from(memory.status(Some("b")).unwrap_err()).code, ErrorCode::NotFound);
    memory.unregister(Some("b")).unwrap();
    memory.unregister(None).unwrap();
    assert!(memory.status(None).unwrap().is_empty());
    let long = "n".repeat(256);
    for name in ["", &long] {
        assert_eq!(memory.register(name, registration("/kinglet_test", 0, 4)), Err(MemoryError::Name(name.len())));
    }
}

#[test]
fn what_is_no_segment_of_ours_is_refused_in_one_way() {
    let (folder, memory) = with_region("r", 8);
    let path = |name: &str| folder.path().join(name);
    fs::write(path("other"), [0; 8]).unwrap();
    symlink("kinglet_test", path("kinglet_link")).unwrap();
    fs::write(path("kinglet_named"), [0; 8]).unwrap();
    fs::hard_link(path("kinglet_named"), path("kinglet_twice")).unwrap();
    fs::create_dir(path("kinglet_folder")).unwrap();
    rustix::fs::mknodat(CWD, path("kinglet_pipe"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    let refused = |key: &str| memory.register("new", registration(key, 0, 8)).unwrap_err();
    for key in ["/kinglet_none", "/kinglet_link", "/kinglet_twice", "/kinglet_folder", "/kinglet_pipe"] {
        assert_eq!(refused(key), MemoryError::Segment, "{key}");
    }
    for key in ["/other", "other", "/kinglet_/../other", "../kinglet_test", "/kinglet_test\0", ""] {
        assert_eq!(refused(key), MemoryError::Key, "{key:?}");
    }
    if rustix::process::geteuid().is_root() {
        File::create(path("kinglet_theirs")).unwrap().set_len(8).unwrap();
        rustix::fs::chown(path("kinglet_theirs"), Some(rustix::fs::Uid::from_raw(1)), None).unwrap();
        assert_eq!(refused("/kinglet_theirs"), MemoryError::Segment, "of another user");
    }
    assert_eq!(memory.status(None).unwrap().len(), 1);
}

#[test]
fn no_error_repeats_a_key_or_a_path() {
    let (folder, memory) = with_region("r", 8);
    let secret = "kinglet_secret";
    for key in [format!("/{secret}"), format!("/{secret}/x"), format!("/{secret}{}", "y".repeat(300))] {
        let why = memory.register("new", registration(&key, 0, 8)).unwrap_err().to_string();
        assert!(!why.contains(secret) && !why.contains(folder.path().to_str().unwrap()), "{why}");
    }
}

#[test]
fn limits_hold_and_change() {
    let (folder, _) = with_region("r", 100);
    let own = SharedMemoryConfig { regions_max: 2, bytes_max: ByteSize(150), ..config(folder.path()) };
    let memory = memory(&own);
    let register = |name: &str, byte_size| {
        let refused = memory.register(name, registration("/kinglet_test", 0, byte_size));
        refused.map_err(|error| (Refusal::from(error.clone()).code, error.to_string()))
    };
    let full = |what: &str, limit| {
        let why = format!("too much shared memory is registered: {what} would pass the limit of {limit}");
        Err((ErrorCode::QuotaExceeded, why))
    };
    register("a", 100).unwrap();
    assert_eq!(register("b", 51), full("bytes", 150));
    assert_eq!(register("b", u64::MAX), full("bytes", 150));
    register("b", 50).unwrap();
    assert_eq!(register("c", 1), full("regions", 2));
    memory.unregister(Some("b")).unwrap();
    register("c", 50).unwrap();
    memory.reconfigure(&SharedMemoryConfig { regions_max: 3, bytes_max: ByteSize(151), ..own });
    assert_eq!(register("d", 2), full("bytes", 151));
    register("d", 1).unwrap();
}

#[test]
fn pages_and_servers_without_it_are_told() {
    let (_folder, memory) = with_region("r", 8);
    let headers = |name| HeaderMap::from_iter([(name, HeaderValue::from_static("http://localhost"))]);
    for name in [header::ORIGIN, header::HeaderName::from_static(FETCH_SITE)] {
        let refusal: Refusal = memory.for_call(&headers(name), &Caller::anyone()).status(None).unwrap_err().into();
        assert_eq!(refusal.code, ErrorCode::PermissionDenied);
    }
    assert_eq!(memory.for_call(&headers(header::HOST), &Caller::anyone()).status(None).unwrap().len(), 1);
    let off = SharedMemory::Off.for_call(&headers(header::ORIGIN), &Caller::anyone()).unregister(None).unwrap_err();
    assert_eq!(Refusal::from(off).code, ErrorCode::Unsupported);
}

fn placed(parameters: &[(&str, Value)], memory: &SharedMemory) -> Result<Option<(u64, u64)>, String> {
    let mut placement = Placement::default();
    for (key, value) in parameters {
        placement.set(key, value).map_err(|refusal| refusal.message)?;
    }
    let slot = placement.find(memory, "input", "x").map_err(|refusal| refusal.message)?;
    Ok(slot.map(|slot| (slot.offset, slot.byte_size)))
}

#[test]
fn parameters_say_where_a_tensor_lies() {
    let (_folder, memory) = with_region("r", 8);
    let region = || (REGION, Value::Text("r".into()));
    let size = |bytes| ("shared_memory_byte_size", Value::Int(bytes));
    let offset = |bytes| ("shared_memory_offset", Value::Int(bytes));
    let check = |parameters: &[(&str, Value)], wanted: Result<Option<(u64, u64)>, &str>| {
        assert_eq!(placed(parameters, &memory), wanted.map_err(str::to_owned), "{parameters:?}");
    };
    check(&[], Ok(None));
    check(&[("colour", Value::Bool(true))], Ok(None));
    check(&[region(), size(8)], Ok(Some((0, 8))));
    check(&[size(3), offset(5), region()], Ok(Some((5, 3))));
    check(&[region(), size(0), offset(8)], Ok(Some((8, 0))));
    let needs = |missing: &str, given: &str| format!("input \"x\": expected parameter {missing:?} beside {given:?}");
    check(&[region()], Err(&needs("shared_memory_byte_size", REGION)));
    check(&[size(8)], Err(&needs(REGION, "shared_memory_byte_size")));
    check(&[offset(0)], Err(&needs(REGION, "shared_memory_offset")));
    let beyond = |offset: u64, size: u64| {
        format!(
            "input \"x\": expected a part of shared memory region \"r\", which has 8 bytes, \
             got offset {offset} and byte_size {size}"
        )
    };
    check(&[region(), size(9)], Err(&beyond(0, 9)));
    check(&[region(), size(1), offset(8)], Err(&beyond(8, 1)));
    check(&[region(), size(i64::MAX), offset(i64::MAX)], Err(&beyond(i64::MAX as u64, i64::MAX as u64)));
    check(
        &[(REGION, Value::Text("s".into())), size(8)],
        Err("input \"x\": shared memory region \"s\" is not registered"),
    );
    check(&[(REGION, Value::Int(1))], Err("parameter \"shared_memory_region\" expects a string, got 1"));
    let negative = "parameter \"shared_memory_byte_size\" expects a whole number of at least 0, got -1";
    check(&[region(), size(-1)], Err(negative));
}

proptest! {
    #[test]
    fn regions_are_within_their_segment_and_slots_within_their_region(
        offset in any::<u64>(), size in any::<u64>(), at in any::<u64>(), length in any::<u64>(), small in any::<[u8; 4]>(),
    ) {
        let (_folder, memory) = with_region("r", 200);
        for (offset, size, at, length) in [(offset, size, at, length), small.map(u64::from).into()] {
            let (is_region, is_slot) = (
                size > 0 && u128::from(offset) + u128::from(size) <= 200,
                u128::from(at) + u128::from(length) <= u128::from(size),
            );
            memory.reconfigure(&SharedMemoryConfig {
                bytes_max: ByteSize(u64::MAX),
                ..crate::config::Config::default().shared_memory
            });
            memory.unregister(Some("new")).unwrap();
            memory.unregister(Some("r")).unwrap();
            let registered = memory.register("new", registration("/kinglet_test", offset, size));
            prop_assert_eq!(registered.is_ok(), is_region);
            if is_region {
                let slot = memory.slot("new".into(), at, length);
                prop_assert_eq!(slot.is_ok(), is_slot);
            }
        }
    }
}
