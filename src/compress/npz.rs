//! Arrays of a NumPy archive (`.npz`): a zip file whose members are arrays, each in the form of `.npy`.
//!
//! Read by hand, because of both formats so little is needed: members that are stored or deflated, below 4 GiB, and arrays
//! of numbers in C order, the lowest byte first (APPNOTE.TXT of PKWARE; NEP 1 of NumPy).

use std::io::Read;
use std::path::Path;

use flate2::bufread::DeflateDecoder;

use crate::tensor::{DType, NamedTensor, Shape, Tensor};

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("{path}: expected a zip file of arrays, as numpy.savez writes it, got {got}")]
    NoArchive { path: String, got: &'static str },
    #[error("{path}: array {member:?}: {what}")]
    Member { path: String, member: String, what: String },
}

/// All arrays, in the order of the archive.
pub(super) fn read(path: &Path) -> Result<Vec<NamedTensor>, NpzError> {
    let shown = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| NpzError::Unreadable { path: shown(), source })?;
    let members = members(&bytes).map_err(|got| NpzError::NoArchive { path: shown(), got })?;
    let array = |member: &Member<'_>| {
        let name = member.name.strip_suffix(".npy").unwrap_or(&member.name).to_owned();
        match member.contents().and_then(|contents| array(&contents)) {
            Ok(tensor) => Ok(NamedTensor { name, tensor }),
            Err(what) => Err(NpzError::Member { path: shown(), member: name, what }),
        }
    };
    members.iter().map(array).collect()
}

/// An entry of the archive's directory.
struct Member<'a> {
    name: String,
    method: u16,
    checksum: u32,
    length: usize,
    packed: &'a [u8],
}

fn members(bytes: &[u8]) -> Result<Vec<Member<'_>>, &'static str> {
    let cut = "a file that is cut short";
    // The end record has a comment of up to 64 KiB behind it; NumPy writes none.
    let end = bytes.windows(4).rposition(|word| word == END_SIGN).ok_or("no zip file")?;
    let mut at = long(bytes, end + 16).ok_or(cut)?;
    let count = short(bytes, end + 10).ok_or(cut)?;
    let mut members = Vec::new();
    for _ in 0..count {
        if bytes.get(at..at + 4) != Some(&ENTRY_SIGN) {
            return Err("a directory with something else in it, or an archive beyond 4 GiB");
        }
        let word = |offset: usize| short(bytes, at + offset).map(usize::from).ok_or(cut);
        let number = |offset: usize| long(bytes, at + offset).ok_or(cut);
        let (packed, length, header) = (number(20)?, number(24)?, number(42)?);
        let (name, extra, comment) = (word(28)?, word(30)?, word(32)?);
        let name_at = at + ENTRY_BYTES;
        let name_bytes = bytes.get(name_at..name_at + name).ok_or(cut)?;
        let local = |offset: usize| short(bytes, header + offset).map(usize::from).ok_or(cut);
        let start = header + LOCAL_BYTES + local(26)? + local(28)?;
        members.push(Member {
            name: String::from_utf8_lossy(name_bytes).into_owned(),
            method: short(bytes, at + 10).ok_or(cut)?,
            checksum: u32::try_from(number(16)?).map_err(|_| cut)?,
            length,
            packed: bytes.get(start..start.saturating_add(packed)).ok_or(cut)?,
        });
        at = name_at + name + extra + comment;
    }
    Ok(members)
}

impl Member<'_> {
    fn contents(&self) -> Result<Vec<u8>, String> {
        let mut contents = Vec::new();
        match self.method {
            0 => contents.extend_from_slice(self.packed),
            8 => {
                let limit = self.length as u64 + 1;
                let read = DeflateDecoder::new(self.packed).take(limit).read_to_end(&mut contents);
                read.map_err(|error| format!("cannot be inflated: {error}"))?;
            }
            other => return Err(format!("expected it stored or deflated, got method {other}")),
        }
        let mut crc = flate2::Crc::new();
        crc.update(&contents);
        if contents.len() != self.length || crc.sum() != self.checksum {
            return Err(format!("expected {} bytes with the archive's checksum, got {}", self.length, contents.len()));
        }
        Ok(contents)
    }
}

/// An array with its header: a line of Python that names type, order and shape.
fn array(bytes: &[u8]) -> Result<Tensor, String> {
    let cut = || "it is cut short".to_owned();
    if bytes.get(..6) != Some(NPY_SIGN) {
        return Err("expected the form of .npy, got something else".into());
    }
    let (length, start): (usize, usize) = match bytes.get(6).ok_or_else(cut)? {
        1 => (short(bytes, 8).map(usize::from).ok_or_else(cut)?, 10),
        2 | 3 => (long(bytes, 8).ok_or_else(cut)?, 12),
        other => return Err(format!("expected version 1 to 3 of .npy, got {other}")),
    };
    let header = bytes.get(start..start + length).ok_or_else(cut)?;
    let header = String::from_utf8_lossy(header);
    let field = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let descr = field("descr").and_then(|rest| rest.strip_prefix('\'')?.split('\'').next());
    let descr = descr.ok_or("expected an array of numbers, got records")?;
    if field("fortran_order").is_none_or(|rest| !rest.starts_with("False")) {
        return Err("expected the order of C (numpy.ascontiguousarray), got that of Fortran".into());
    }
    let shape = field("shape").and_then(|rest| rest.strip_prefix('(')?.split(')').next()).ok_or("it has no shape")?;
    let extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let shape = extents.map(|extent| extent.parse().ok()).collect::<Option<Shape>>().ok_or("its shape is none")?;
    let dtype = TYPES.iter().find(|(name, _)| *name == descr).map(|(_, dtype)| *dtype);
    let dtype = dtype.ok_or_else(|| format!("expected numbers, the lowest byte first, got {descr}"))?;
    Tensor::new(dtype, shape, bytes[start + length..].to_vec().into()).map_err(|error| error.to_string())
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

const END_SIGN: [u8; 4] = *b"PK\x05\x06";
const ENTRY_SIGN: [u8; 4] = *b"PK\x01\x02";

/// Of an entry of the directory and of a member's own header, without names.
const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;

const NPY_SIGN: &[u8] = b"\x93NUMPY";

const TYPES: [(&str, DType); 12] = [
    ("|b1", DType::Bool),
    ("|u1", DType::U8),
    ("|i1", DType::I8),
    ("<u2", DType::U16),
    ("<i2", DType::I16),
    ("<f2", DType::F16),
    ("<u4", DType::U32),
    ("<i4", DType::I32),
    ("<f4", DType::F32),
    ("<u8", DType::U64),
    ("<i8", DType::I64),
    ("<f8", DType::F64),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Vec<NamedTensor> {
        read(&Path::new("tests/fixtures").join(name)).unwrap()
    }

    #[test]
    fn archives_that_numpy_wrote_are_read() {
        let digits = fixture("digits_test.npz");
        let told: Vec<_> = digits.iter().map(|array| (array.name.as_str(), format!("{:?}", array.tensor))).collect();
        assert_eq!(told[0], ("images", "UINT8[2000,28,28] (1568000 bytes)".to_owned()));
        assert_eq!(told[1], ("labels", "UINT8[2000] (2000 bytes)".to_owned()));
        assert_eq!(digits[1].tensor.bytes()[..5], [3, 8, 8, 0, 9]);
        let iris = fixture("iris_test.npz");
        assert_eq!((iris[0].tensor.dtype(), &iris[0].tensor.shape()[..]), (DType::F32, &[45, 4][..]));
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let whole = std::fs::read("tests/fixtures/iris_test.npz").unwrap();
        let mut flipped = whole.clone();
        flipped[100] ^= 1;
        let mut shortened = whole[..200].to_vec();
        shortened.extend_from_slice(&whole[whole.len() - 22..]);
        for (bytes, why) in [
            (&b"nothing"[..], "got no zip file"),
            (&whole[..whole.len() - 30], "got no zip file"),
            (&shortened, "something else in it"),
            (&flipped, "array \"x\""),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let refusal = read(&path).unwrap_err().to_string();
            assert!(refusal.contains(why), "{refusal}");
        }
        assert!(read(Path::new("nowhere.npz")).unwrap_err().to_string().starts_with("cannot read nowhere.npz: "));
    }

    #[test]
    fn arrays_are_checked() {
        let npy = |header: &str, elements: usize| {
            let mut bytes = [NPY_SIGN, &[1, 0], &u16::try_from(header.len()).unwrap().to_le_bytes()].concat();
            bytes.extend_from_slice(header.as_bytes());
            bytes.resize(bytes.len() + elements, 0);
            array(&bytes).map(|tensor| format!("{tensor:?}"))
        };
        let header = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
        };
        for (descr, order, shape, bytes, expected) in [
            ("<f4", "False", "(2, 3)", 24, Ok("FP32[2,3] (24 bytes)")),
            ("<i8", "False", "(2,)", 16, Ok("INT64[2] (16 bytes)")),
            ("|u1", "False", "()", 1, Ok("UINT8[] (1 bytes)")),
            ("<f4", "False", "(2, 3)", 20, Err("needs 24 bytes, got 20")),
            ("<f4", "True", "(2, 3)", 24, Err("expected the order of C")),
            (">f4", "False", "(2,)", 8, Err("got >f4")),
            ("<U3", "False", "(2,)", 24, Err("got <U3")),
        ] {
            match (npy(&header(descr, order, shape), bytes), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
                (got, expected) => panic!("{descr}: expected {expected:?}, got {got:?}"),
            }
        }
    }
}
