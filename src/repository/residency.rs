//! Which models are in memory where not all can be: the bytes that are taken, and who makes room for whom.
//!
//! Only state and rules: nothing here loads or unloads. Bytes are what engines count of a model's builds; before a model has
//! been loaded once they are guessed from its files, by the largest ratio of the two that was seen.

use std::collections::BTreeMap;

use crate::infer::ModelName;

#[derive(Debug)]
pub(super) struct Residency {
    /// Of models that are loaded or on their way there: what they hold, or what is reserved for them.
    taken: BTreeMap<ModelName, u64>,
    /// Of models that were dropped and that requests still hold.
    leaving: BTreeMap<ModelName, u64>,
    /// What models took when they were loaded last.
    measured: BTreeMap<ModelName, u64>,
    /// Bytes in memory for a byte of files.
    ratio: f64,
}

/// Whether there is room for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Now.
    Free,
    /// Once these are dropped.
    Instead(Vec<ModelName>),
    /// When loads or last requests of others have ended.
    Later,
    /// Not beside those that stay.
    Never,
}

/// A model that could be dropped, and when it was used last.
pub(super) type Candidate = (ModelName, u64);

impl Default for Residency {
    fn default() -> Self {
        Self { taken: BTreeMap::new(), leaving: BTreeMap::new(), measured: BTreeMap::new(), ratio: RATIO_AT_FIRST }
    }
}

impl Residency {
    /// What a model will take. A guess never keeps a model from being tried.
    pub(super) fn need(&self, name: &ModelName, file_bytes: u64, bytes_max: u64) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a guess"
        )]
        let guessed = || (file_bytes as f64 * self.ratio) as u64;
        self.measured.get(name).copied().unwrap_or_else(|| guessed().min(bytes_max))
    }

    /// Whether `need` bytes more fit, and without whom: those go first that were used the longest ago. `stays` is what models
    /// hold that nobody may drop.
    pub(super) fn room(&self, need: u64, bytes_max: u64, stays: u64, mut candidates: Vec<Candidate>) -> Room {
        if stays.saturating_add(need) > bytes_max {
            return Room::Never;
        }
        let excess = self.held().saturating_add(need).saturating_sub(bytes_max);
        if excess == 0 {
            return Room::Free;
        }
        // What is leaving makes room by itself.
        let mut excess = excess.saturating_sub(self.leaving.values().sum());
        candidates.sort_by(|(a, used_a), (b, used_b)| (used_a, a).cmp(&(used_b, b)));
        let mut dropped = Vec::new();
        for (name, _) in candidates {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(self.taken(&name));
            dropped.push(name);
        }
        if dropped.is_empty() { Room::Later } else { Room::Instead(dropped) }
    }

    pub(super) fn reserve(&mut self, name: &ModelName, bytes: u64) {
        self.taken.insert(name.clone(), bytes);
    }

    /// The end of a load that brought something to serve: what it takes, and what its files weigh.
    pub(super) fn settle(&mut self, name: &ModelName, bytes: u64, file_bytes: u64) {
        self.taken.insert(name.clone(), bytes);
        self.measured.insert(name.clone(), bytes);
        if file_bytes >= FILE_BYTES_TELLING {
            #[expect(clippy::cast_precision_loss, reason = "a guess")]
            let ratio = bytes as f64 / file_bytes as f64;
            self.ratio = self.ratio.max(ratio).min(RATIO_MAX);
        }
    }

    /// The end of a load that brought nothing.
    pub(super) fn release(&mut self, name: &ModelName) {
        self.taken.remove(name);
    }

    /// Requests may still hold it.
    pub(super) fn leave(&mut self, name: &ModelName) {
        if let Some(bytes) = self.taken.remove(name) {
            *self.leaving.entry(name.clone()).or_default() += bytes;
        }
    }

    /// Nobody holds it any more.
    pub(super) fn gone(&mut self, name: &ModelName) {
        self.leaving.remove(name);
    }

    /// Its files have changed, so that what is known of it is not.
    pub(super) fn forget(&mut self, name: &ModelName) {
        self.measured.remove(name);
    }

    pub(super) fn taken(&self, name: &ModelName) -> u64 {
        self.taken.get(name).copied().unwrap_or(0)
    }

    /// Of all models, dropped ones that are held and reservations included.
    pub(super) fn held(&self) -> u64 {
        self.taken.values().chain(self.leaving.values()).sum()
    }
}

/// Before any model has shown it: weights, and copies of them in other layouts.
const RATIO_AT_FIRST: f64 = 1.5;
const RATIO_MAX: f64 = 8.0;
/// Models of smaller files are mostly something else than weights.
const FILE_BYTES_TELLING: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model(name: &str) -> ModelName {
        name.parse().unwrap()
    }

    fn residency(taken: &[(&str, u64)]) -> Residency {
        let mut residency = Residency::default();
        for (name, bytes) in taken {
            residency.reserve(&model(name), *bytes);
        }
        residency
    }

    fn candidates(used: &[(&str, u64)]) -> Vec<Candidate> {
        used.iter().map(|(name, used)| (model(name), *used)).collect()
    }

    #[test]
    fn the_longest_unused_make_room() {
        let three = residency(&[("a", 40), ("b", 30), ("c", 20)]);
        let used = candidates(&[("a", 7), ("b", 5), ("c", 6)]);
        assert_eq!(three.room(10, 100, 0, used.clone()), Room::Free);
        assert_eq!(three.room(40, 100, 0, used.clone()), Room::Instead(vec![model("b")]));
        assert_eq!(three.room(60, 100, 0, used.clone()), Room::Instead(vec![model("b"), model("c")]));
        assert_eq!(three.room(101, 100, 0, used.clone()), Room::Never);
        assert_eq!(three.room(70, 100, 40, used), Room::Never, "beside what stays");
    }

    #[test]
    fn what_leaves_is_waited_for() {
        let mut two = residency(&[("a", 60), ("b", 40)]);
        two.leave(&model("a"));
        assert_eq!((two.held(), two.taken(&model("a"))), (100, 0));
        assert_eq!(two.room(50, 100, 0, candidates(&[("b", 1)])), Room::Later);
        assert_eq!(two.room(70, 100, 0, candidates(&[("b", 1)])), Room::Instead(vec![model("b")]));
        assert_eq!(two.room(70, 100, 0, Vec::new()), Room::Later, "the other is loading");
        two.gone(&model("a"));
        assert_eq!(two.room(60, 100, 0, Vec::new()), Room::Free);
    }

    #[test]
    fn what_was_measured_is_believed_and_guesses_learn() {
        let mut residency = Residency::default();
        assert_eq!(residency.need(&model("a"), 100, 1000), 150);
        assert_eq!(residency.need(&model("a"), 900, 1000), 1000, "a guess never refuses");
        residency.settle(&model("b"), 3 << 20, 1 << 20);
        assert_eq!(residency.need(&model("a"), 100, 1000), 300);
        residency.settle(&model("a"), 5000, 100);
        assert_eq!(residency.need(&model("a"), 100, 1000), 5000, "it is known not to fit");
        residency.forget(&model("a"));
        assert_eq!(residency.need(&model("a"), 100, 1000), 300, "small files tell nothing of others");
    }

    proptest! {
        #[test]
        fn what_is_dropped_is_enough_and_no_more(
            models in prop::collection::vec((1u64..100, 0u64..10), 0..12),
            need in 1u64..300,
            bytes_max in 1u64..600,
        ) {
            let names: Vec<ModelName> = (0..models.len()).map(|index| model(&format!("m{index}"))).collect();
            let mut residency = Residency::default();
            names.iter().zip(&models).for_each(|(name, (bytes, _))| residency.reserve(name, *bytes));
            let used = names.iter().zip(&models).map(|(name, (_, used))| (name.clone(), *used)).collect();
            let before = residency.held();
            match residency.room(need, bytes_max, 0, used) {
                Room::Free => prop_assert!(before + need <= bytes_max),
                Room::Never => prop_assert!(need > bytes_max),
                Room::Later => prop_assert!(false, "nothing loads or leaves"),
                Room::Instead(dropped) => {
                    let last = residency.taken(dropped.last().unwrap());
                    dropped.iter().for_each(|name| residency.release(name));
                    prop_assert!(residency.held() + need <= bytes_max);
                    prop_assert!(residency.held() + last + need > bytes_max, "one fewer would not do");
                }
            }
        }
    }
}
