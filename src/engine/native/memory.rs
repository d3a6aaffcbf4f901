//! Where values lie in the arena, so that those alive at one time do not overlap; and views of it for a step.

use std::ops::Range;

use kinglet_kernels::LINE;
use smallvec::SmallVec;

use crate::engine::graph::infer::PerOperand;

/// Something that needs memory from one step to another, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tenant {
    pub(super) bytes: usize,
    pub(super) alive: Range<usize>,
}

/// Gives every tenant a place, in whole cache lines: the largest first, each as far in front as those alive with it
/// leave room (greedy by size; Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
/// Returns the places in the tenants' order, and the bytes of the arena.
pub(super) fn places(tenants: &[Tenant]) -> (Vec<Range<usize>>, usize) {
    let mut order: Vec<usize> = (0..tenants.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(tenants[at].bytes));
    let mut places = vec![0..0; tenants.len()];
    // Those with a place, by where it begins.
    let mut placed: Vec<usize> = Vec::new();
    let mut arena = 0;
    for at in order {
        let (bytes, alive) = (tenants[at].bytes.next_multiple_of(LINE), &tenants[at].alive);
        let mut start = 0;
        let meets = |other: &usize| tenants[*other].alive.start < alive.end && alive.start < tenants[*other].alive.end;
        for other in placed.iter().filter(|other| meets(other)) {
            if start + bytes <= places[*other].start {
                break;
            }
            start = start.max(places[*other].end);
        }
        places[at] = start..start + bytes;
        arena = arena.max(start + bytes);
        let behind = placed.partition_point(|other| places[*other].start <= start);
        placed.insert(behind, at);
    }
    (places, arena)
}

/// Pieces of an arena: those in `written`, mutable, and those in `read`. Pieces of `written` overlap nothing; those of
/// `read` are the same or apart.
///
/// # Panics
/// When the pieces are not so.
pub(super) fn views<'a, const W: usize>(
    arena: &'a mut [u8],
    written: [&Range<usize>; W],
    read: &[Range<usize>],
) -> ([&'a mut [u8]; W], PerOperand<&'a [u8]>) {
    let mut order: SmallVec<[(Range<usize>, Option<usize>); 8]> = SmallVec::new();
    order.extend(written.iter().enumerate().map(|(at, range)| ((*range).clone(), Some(at))));
    for range in read {
        if !order.iter().any(|(seen, of)| of.is_none() && seen == range) {
            order.push((range.clone(), None));
        }
    }
    order.retain(|(range, _)| range.start < range.end);
    order.sort_unstable_by_key(|(range, _)| range.start);
    let mut mutable = [const { None }; W];
    let mut shared: SmallVec<[(Range<usize>, &'a [u8]); 8]> = SmallVec::new();
    let (mut rest, mut at) = (arena, 0);
    for (range, of) in order {
        let (_, behind) = std::mem::take(&mut rest).split_at_mut(range.start - at);
        let (piece, behind) = behind.split_at_mut(range.len());
        (rest, at) = (behind, range.end);
        match of {
            Some(of) => mutable[of] = Some(piece),
            None => shared.push((range, piece)),
        }
    }
    // What has no bytes may be of any type, and lies where that may.
    let none = bytemuck::cast_slice::<u64, u8>(&[]);
    let find = |range: &Range<usize>| shared.iter().find(|(seen, _)| seen == range).map_or(none, |(_, piece)| *piece);
    (
        mutable.map(|piece| piece.unwrap_or(bytemuck::cast_slice_mut::<u64, u8>(&mut []))),
        read.iter().map(find).collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn those_alive_together_do_not_overlap(
            tenants in prop::collection::vec((0usize..1000, 0usize..20, 1usize..6), 0..40)
        ) {
            let tenants: Vec<Tenant> = tenants
                .into_iter()
                .map(|(bytes, from, steps)| Tenant { bytes, alive: from..from + steps })
                .collect();
            let (places, arena) = places(&tenants);
            for (a, place) in places.iter().enumerate() {
                prop_assert!(place.end <= arena && place.len() >= tenants[a].bytes && place.start.is_multiple_of(LINE));
                for (b, other) in places.iter().enumerate().take(a) {
                    let [x, y] = [&tenants[a].alive, &tenants[b].alive];
                    let together = x.start < y.end && y.start < x.end;
                    prop_assert!(!together || place.end <= other.start || other.end <= place.start);
                }
            }
        }
    }

    #[test]
    fn memory_is_used_again() {
        let tenant = |bytes, from, to| Tenant { bytes, alive: from..to };
        let (_, arena) = places(&[tenant(128, 0, 2), tenant(128, 1, 3), tenant(128, 2, 4), tenant(128, 3, 5)]);
        assert_eq!(arena, 256);
    }

    #[test]
    fn pieces_are_found_wherever_they_lie() {
        let mut arena: Vec<u8> = (0..20).collect();
        let ([out, scratch], read) = views(&mut arena, [&(8..12), &(0..0)], &[4..8, 12..14, 4..8, 3..3]);
        assert_eq!((&*out, &*scratch), (&[8, 9, 10, 11][..], &[][..]));
        assert_eq!(read.as_slice(), [&[4, 5, 6, 7][..], &[12, 13], &[4, 5, 6, 7], &[]]);
    }
}
