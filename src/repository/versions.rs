//! Which of the versions on disk are served: a pure rule.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use crate::infer::VersionId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The highest versions, this many of them.
    Latest(NonZeroUsize),
    All,
    /// These and no others, whether or not they are on disk.
    Specific(BTreeSet<VersionId>),
}

impl VersionPolicy {
    /// The versions to serve. A specific version that is not on disk is among them: its absence must be seen.
    pub fn choose(&self, on_disk: &BTreeSet<VersionId>) -> BTreeSet<VersionId> {
        match self {
            Self::Latest(count) => on_disk.iter().rev().take(count.get()).copied().collect(),
            Self::All => on_disk.clone(),
            Self::Specific(versions) => versions.clone(),
        }
    }
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(NonZeroUsize::MIN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(numbers: &[u64]) -> BTreeSet<VersionId> {
        numbers.iter().copied().map(VersionId).collect()
    }

    fn latest(count: usize) -> VersionPolicy {
        VersionPolicy::Latest(NonZeroUsize::new(count).unwrap())
    }

    #[test]
    fn policies_choose() {
        let on_disk = ids(&[1, 2, 10]);
        assert_eq!(VersionPolicy::default().choose(&on_disk), ids(&[10]), "10 is later than 2");
        assert_eq!(latest(2).choose(&on_disk), ids(&[2, 10]));
        assert_eq!(latest(9).choose(&on_disk), on_disk);
        assert_eq!(VersionPolicy::All.choose(&on_disk), on_disk);
        assert_eq!(VersionPolicy::Specific(ids(&[1, 7])).choose(&on_disk), ids(&[1, 7]));
    }

    proptest! {
        #[test]
        fn latest_takes_the_highest_and_never_more(numbers in prop::collection::vec(0u64..50, 0..12), count in 1usize..6) {
            let on_disk = ids(&numbers);
            let chosen = latest(count).choose(&on_disk);
            prop_assert!(chosen.is_subset(&on_disk));
            prop_assert_eq!(chosen.len(), count.min(on_disk.len()));
            let left: BTreeSet<_> = on_disk.difference(&chosen).collect();
            if let (Some(lowest), Some(&&highest_left)) = (chosen.first(), left.last()) {
                prop_assert!(*lowest > highest_left);
            }
        }
    }
}
