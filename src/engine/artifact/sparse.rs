//! Elements of which many are zero, as those that are not and the places where they stand.

use bytes::Bytes;

/// A bit for each element, the first in the lowest of the first byte, and the elements whose bit is set.
pub(super) struct Sparse {
    pub(super) places: Bytes,
    pub(super) values: Bytes,
}

/// Takes elements of so many bytes apart, if that is much shorter. All bits of a zero are zero.
pub(super) fn apart(elements: &[u8], size: usize) -> Option<Sparse> {
    let is_set = |element: &&[u8]| element.iter().any(|&byte| byte != 0);
    let kept = elements.chunks_exact(size).filter(is_set).count();
    let count = elements.len() / size;
    bytes_apart(count, kept, size)?;
    let mut places = vec![0; count.div_ceil(BITS)];
    let mut values = Vec::with_capacity(kept * size);
    for (at, element) in elements.chunks_exact(size).enumerate().filter(|(_, element)| is_set(element)) {
        places[at / BITS] |= 1 << (at % BITS);
        values.extend_from_slice(element);
    }
    Some(Sparse { places: places.into(), values: values.into() })
}

/// Bytes that so many elements take, of which some are not zero.
pub fn stored_bytes(count: usize, nonzero: usize, size: usize) -> usize {
    bytes_apart(count, nonzero, size).unwrap_or(count * size)
}

/// The same where zeros are taken out, if that is much shorter.
fn bytes_apart(count: usize, nonzero: usize, size: usize) -> Option<usize> {
    let bytes = nonzero * size + count.div_ceil(BITS);
    (bytes <= count * size / 4 * 3).then_some(bytes)
}

/// So many elements of `size` bytes each.
///
/// # Errors
/// When places are not those of so many elements, or of as many as there are values.
pub(super) fn together(places: &[u8], values: &[u8], count: usize, size: usize) -> Result<Vec<u8>, String> {
    let expected = count.div_ceil(BITS);
    if places.len() != expected {
        return Err(format!("{} bytes of places, expected {expected}", places.len()));
    }
    let set: usize = places.iter().map(|byte| byte.count_ones() as usize).sum();
    let beyond = !count.is_multiple_of(BITS) && places.last().is_some_and(|last| last >> (count % BITS) != 0);
    if beyond || set * size != values.len() {
        return Err(format!("{set} places for {} values of {size} bytes, of {count} elements", values.len() / size));
    }
    let mut elements = vec![0; count * size];
    let mut values = values.chunks_exact(size);
    for (first, &byte) in places.iter().enumerate() {
        let mut left = byte;
        while left != 0 {
            let at = first * BITS + left.trailing_zeros() as usize;
            if let Some(value) = values.next() {
                elements[at * size..][..size].copy_from_slice(value);
            }
            left &= left - 1;
        }
    }
    Ok(elements)
}

/// Places in a byte.
const BITS: usize = u8::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_from_their_places() {
        for size in [1, 2, 4, 8] {
            for count in [1, 7, 8, 9, 64, 1001] {
                let zeros = vec![0; count * size];
                let mut some = zeros.clone();
                some.iter_mut().step_by(17 * size).for_each(|byte| *byte = 0x80);
                for elements in [zeros, some] {
                    let Some(Sparse { places, values }) = apart(&elements, size) else {
                        assert!(count < 10, "{size} {count}");
                        continue;
                    };
                    assert_eq!(together(&places, &values, count, size), Ok(elements), "{size} {count}");
                }
            }
        }
        assert!(apart(&[1; 4000], 4).is_none());
    }

    #[test]
    fn places_that_do_not_fit_are_refused() {
        assert_eq!(together(&[1, 0], &[5], 9, 1), Ok([&[5][..], &[0; 8]].concat()));
        for (places, values) in [(&[1u8][..], &[5u8][..]), (&[1, 2], &[5, 6]), (&[3, 0], &[5]), (&[0, 0], &[5])] {
            assert!(together(places, values, 9, 1).is_err(), "{places:?}");
        }
    }
}
