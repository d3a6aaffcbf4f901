//! The order in which kernels take groups of weights whose products are of two kinds: those that may be added to a
//! neighbour's in sixteen bits, and those that may not.
//!
//! The one instruction of AVX2 that multiplies bytes adds two products in sixteen bits and saturates. Other engines accept
//! that, or halve the range of weights; here it meets only weights that no bytes can make it saturate with, which are
//! most of those that training makes.

/// Puts groups of weights, `size` bytes each, in order and writes it to `order`: how many groups fit into sixteen bits,
/// then each group's first element, those that fit before the others. A last group that is not `is_whole` stays the last.
pub(super) fn arrange(weights: &mut [i8], size: usize, is_whole: bool, order: &mut [u32]) {
    let packed = weights.to_vec();
    let groups = packed.chunks_exact(size);
    let last = groups.len().saturating_sub(1);
    let is_narrow = |at: usize, group: &[i8]| (is_whole || at < last) && group.chunks_exact(2).all(fits);
    let (narrow, wide): (Vec<_>, Vec<_>) = groups.enumerate().partition(|(at, group)| is_narrow(*at, group));
    order[0] = u32::try_from(narrow.len()).unwrap_or(u32::MAX);
    let arranged = weights.chunks_exact_mut(size).zip(&mut order[1..]);
    for ((to, first), (at, group)) in arranged.zip(narrow.into_iter().chain(wide)) {
        to.copy_from_slice(group);
        *first = u32::try_from(at * 4).unwrap_or(u32::MAX);
    }
}

/// Whether the products of two neighbours with any bytes can be added in sixteen bits.
fn fits(neighbours: &[i8]) -> bool {
    let sum = |side: fn(i32, i32) -> i32| neighbours.iter().map(|&weight| 255 * side(weight.into(), 0)).sum::<i32>();
    sum(i32::max) <= i16::MAX.into() && sum(i32::min) >= i16::MIN.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_fit_where_no_bytes_can_make_them_overflow() {
        let fitting = [[127, 1], [64, 64], [-128, 127], [127, -128], [-64, -64], [-128, 0], [0, 0]];
        assert!(fitting.iter().all(|neighbours| fits(neighbours)));
        assert!(![[127, 2], [65, 64], [-128, -1], [-65, -64]].iter().any(|neighbours| fits(neighbours)));
    }

    #[test]
    fn groups_that_fit_come_first_and_a_cut_one_last() {
        let packed = [[1i8, 2, 3, 4], [100, 100, 0, 0], [5, 6, 7, 8], [9, 0, 0, 0]];
        for (is_whole, narrow, expected) in [(true, 3, [0, 8, 12, 4]), (false, 2, [0, 8, 4, 12])] {
            let (mut weights, mut order) = (packed.concat(), [0; 5]);
            arrange(&mut weights, 4, is_whole, &mut order);
            assert_eq!((order[0], &order[1..]), (narrow, &expected[..]));
            let moved = expected.map(|first| packed[first as usize / 4]).concat();
            assert_eq!(weights, moved);
        }
    }
}
