//! The order in which kernels take groups of weights, whose products are of three kinds: those that may be added to a
//! neighbour's in sixteen bits, those that may be added to those of another group besides, and those that may not.
//!
//! The one instruction of AVX2 that multiplies bytes adds two products in sixteen bits and saturates. Other engines accept
//! that, or halve the range of weights; here it meets only weights that no bytes can make it saturate with, which are
//! most of those that training makes.

/// What an order begins with.
pub(super) const HEAD: usize = 2;

/// Puts groups of weights, `size` bytes each, in order and writes it to `order`: how many couples of groups fit into
/// sixteen bits together, how many groups that fit alone come then, and each group's first element; those that do not fit
/// follow. A last group that is not `is_whole` stays the last.
pub(super) fn arrange(weights: &mut [i8], size: usize, is_whole: bool, order: &mut [u32]) {
    let packed = weights.to_vec();
    let groups: Vec<&[i8]> = packed.chunks_exact(size).collect();
    let last = groups.len().saturating_sub(1);
    let is_narrow = |at: usize| (is_whole || at < last) && groups[at].chunks_exact(2).all(|one| fits([one, &[]]));
    let (narrow, wide): (Vec<usize>, Vec<usize>) = (0..groups.len()).partition(|at| is_narrow(*at));
    let (mut couples, mut single, mut free) = (Vec::new(), Vec::new(), narrow);
    while let Some(one) = free.pop() {
        let fit = |other: &usize| groups[one].chunks_exact(2).zip(groups[*other].chunks_exact(2));
        let found = free.iter().rev().take(PARTNERS_TRIED).position(|other| fit(other).all(|(a, b)| fits([a, b])));
        match found {
            Some(back) => couples.extend([one, free.remove(free.len() - 1 - back)]),
            None => single.push(one),
        }
    }
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    order[..HEAD].copy_from_slice(&[number(couples.len() / 2), number(single.len())]);
    let arranged = weights.chunks_exact_mut(size).zip(&mut order[HEAD..]);
    for ((to, first), at) in arranged.zip(couples.into_iter().chain(single).chain(wide)) {
        to.copy_from_slice(groups[at]);
        *first = number(at * 4);
    }
}

/// Whether the products of neighbours with any bytes can all be added in sixteen bits.
fn fits(neighbours: [&[i8]; 2]) -> bool {
    let all = || neighbours.iter().copied().flatten().map(|&weight| 255 * i32::from(weight));
    let sum = |side: fn(i32, i32) -> i32| all().map(|most| side(most, 0)).sum::<i32>();
    sum(i32::max) <= i16::MAX.into() && sum(i32::min) >= i16::MIN.into()
}

/// Most groups find a partner among the next few, or none does.
const PARTNERS_TRIED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_fit_where_no_bytes_can_make_them_overflow() {
        let fitting = [[127, 1], [64, 64], [-128, 127], [127, -128], [-64, -64], [-128, 0], [0, 0]];
        assert!(fitting.iter().all(|neighbours| fits([neighbours, &[]])));
        assert!(![[127, 2], [65, 64], [-128, -1], [-65, -64]].iter().any(|neighbours| fits([neighbours, &[]])));
        assert!(fits([&[100, -50], &[28, -78]]) && !fits([&[100, 0], &[28, 1]]) && !fits([&[0, -100], &[-28, -1]]));
    }

    #[test]
    fn couples_come_first_and_a_cut_group_last() {
        let (small, half, large) = ([1i8, 2, 3, 4], [100, 0, 0, 0], [100, 100, 0, 0]);
        let packed = [small, large, half, small, half, [9, 0, 0, 0]];
        for (is_whole, head, expected) in
            [(true, [2, 1], [20, 16, 12, 8, 0, 4]), (false, [2, 0], [16, 12, 8, 0, 4, 20])]
        {
            let (mut weights, mut order) = (packed.concat(), [0; 8]);
            arrange(&mut weights, 4, is_whole, &mut order);
            assert_eq!((&order[..HEAD], &order[HEAD..]), (&head[..], &expected[..]));
            let moved = expected.map(|first| packed[first as usize / 4]).concat();
            assert_eq!(weights, moved);
        }
    }
}
