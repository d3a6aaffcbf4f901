//! The one tag of EXIF that matters here: how a camera was held.

/// 1 to 8; 1, upright, where it is not told or makes no sense.
pub(super) fn orientation(exif: &[u8]) -> u16 {
    found(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif)).filter(|told| (1..=8).contains(told)).unwrap_or(1)
}

/// The tag in the first directory of a TIFF header.
fn found(tiff: &[u8]) -> Option<u16> {
    let big = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..)?.first_chunk().copied()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let start = tiff.get(4..)?.first_chunk().copied()?;
    let start = if big { u32::from_be_bytes(start) } else { u32::from_le_bytes(start) } as usize;
    let count = usize::from(short(start)?);
    let entry = (0..count).map(|index| start + 2 + index * ENTRY).find(|&at| short(at) == Some(ORIENTATION))?;
    // A number of two bytes stands at the beginning of the value's place.
    (short(entry + 2)? == SHORT).then(|| short(entry + 8)).flatten()
}

const ENTRY: usize = 12;
const ORIENTATION: u16 = 0x0112;
/// The type of a number of two bytes.
const SHORT: u16 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exif(big: bool, tag: u16, value: u16) -> Vec<u8> {
        let short = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let long = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let mut bytes = b"Exif\0\0".to_vec();
        bytes.extend(if big { b"MM\0*" } else { b"II*\0" });
        bytes.extend(long(8));
        bytes.extend(short(2));
        for (tag, value) in [(0x010f, 1), (tag, value)] {
            bytes.extend(short(tag));
            bytes.extend(short(SHORT));
            bytes.extend(long(1));
            bytes.extend(short(value));
            bytes.extend([0, 0]);
        }
        bytes.extend(long(0));
        bytes
    }

    #[test]
    fn the_orientation_is_found() {
        for big in [true, false] {
            assert_eq!(orientation(&exif(big, ORIENTATION, 6)), 6);
            assert_eq!(orientation(&exif(big, ORIENTATION, 6)[6..]), 6, "without the marker that JPEG has");
            assert_eq!(orientation(&exif(big, ORIENTATION, 9)), 1);
            assert_eq!(orientation(&exif(big, 0x0100, 6)), 1);
        }
        assert_eq!(orientation(b""), 1);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), big: bool) {
            let mut tiff = if big { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
            tiff.extend(bytes);
            prop_assert!((1..=8).contains(&orientation(&tiff)));
        }
    }
}
