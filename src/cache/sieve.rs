//! What is kept within a budget of bytes, and what makes room for others: SIEVE (Zhang et al., NSDI 2024).
//!
//! Entries stand in the order they came. A hit marks its entry and moves nothing. Where room is wanted, a hand goes from the
//! oldest to the newest and round again: what is marked loses its mark and stays, the first that has none goes. What is asked for
//! once, be it a flood of it, so leaves before what is asked for again. Knows no lock, no clock, and nothing of what it keeps.

use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct Sieve<K, V> {
    slots: Vec<Option<Slot<K, V>>>,
    /// Slots without an entry.
    free: Vec<usize>,
    places: HashMap<K, usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
    /// Where it looks next; at the oldest where there is none.
    hand: Option<usize>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    bytes: u64,
    is_marked: bool,
    newer: Option<usize>,
    older: Option<usize>,
}

impl<K: Copy + Eq + Hash, V> Sieve<K, V> {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            places: HashMap::new(),
            newest: None,
            oldest: None,
            hand: None,
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        let slot = self.slots[*self.places.get(key)?].as_mut()?;
        slot.is_marked = true;
        Some(&slot.value)
    }

    /// Keeps a value that takes so many bytes, in place of one of the same key, and says how many others had to go. What is
    /// larger than the budget is not kept.
    pub(super) fn insert(&mut self, key: K, value: V, bytes: u64) -> usize {
        if let Some(&at) = self.places.get(&key) {
            self.remove(at);
        }
        if bytes > self.bytes_max {
            return 0;
        }
        let gone = self.make_room(self.bytes_max - bytes);
        let slot = Slot { key, value, bytes, is_marked: false, newer: None, older: self.newest };
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[at] = Some(slot);
        match self.newest.replace(at) {
            Some(before) => self.slot(before).newer = Some(at),
            None => self.oldest = Some(at),
        }
        self.places.insert(key, at);
        self.bytes += bytes;
        gone
    }

    /// Takes another budget and says how many entries had to go for it.
    pub(super) fn resize(&mut self, bytes_max: u64) -> usize {
        self.bytes_max = bytes_max;
        self.make_room(bytes_max)
    }

    /// Takes out all entries of such keys.
    pub(super) fn remove_all(&mut self, is_one: impl Fn(&K) -> bool) {
        let gone: Vec<usize> = self.places.iter().filter(|(key, _)| is_one(key)).map(|(_, at)| *at).collect();
        gone.into_iter().for_each(|at| self.remove(at));
        // Slots at the end that hold nothing are memory for nothing.
        while matches!(self.slots.last(), Some(None)) {
            self.slots.pop();
        }
        self.free.retain(|at| *at < self.slots.len());
        self.slots.shrink_to_fit();
        self.free.shrink_to_fit();
        self.places.shrink_to_fit();
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    fn make_room(&mut self, bytes_max: u64) -> usize {
        let mut gone = 0;
        while self.bytes > bytes_max {
            let Some(at) = self.hand.or(self.oldest) else { break };
            self.hand = self.slot(at).newer;
            if std::mem::take(&mut self.slot(at).is_marked) {
                continue;
            }
            self.remove(at);
            gone += 1;
        }
        gone
    }

    fn remove(&mut self, at: usize) {
        let Slot { key, bytes, newer, older, .. } = self.slots[at].take().expect(HELD);
        match newer {
            Some(newer) => self.slot(newer).older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.slot(older).newer = newer,
            None => self.oldest = newer,
        }
        if self.hand == Some(at) {
            self.hand = newer;
        }
        self.places.remove(&key);
        self.free.push(at);
        self.bytes -= bytes;
    }

    fn slot(&mut self, at: usize) -> &mut Slot<K, V> {
        self.slots[at].as_mut().expect(HELD)
    }
}

const HELD: &str = "places and neighbours are of slots with an entry";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(sieve: &Sieve<u8, u8>) -> Vec<u8> {
        let mut keys: Vec<u8> = sieve.places.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn what_was_asked_for_again_outlives_a_flood() {
        let mut sieve = Sieve::new(40);
        (1..=4).for_each(|key| assert_eq!(sieve.insert(key, key, 10), 0));
        assert_eq!(sieve.get(&2), Some(&2));
        assert_eq!(sieve.get(&9), None);
        for key in 5..100 {
            assert_eq!(sieve.insert(key, key, 10), 1);
            assert!(sieve.get(&2).is_some());
        }
        assert_eq!((sieve.len(), sieve.bytes()), (4, 40));
    }

    #[test]
    fn the_hand_goes_on_where_it_stood() {
        let mut sieve = Sieve::new(4);
        (1..=4).for_each(|key| _ = sieve.insert(key, key, 1));
        [1, 2, 4].iter().for_each(|key| _ = sieve.get(key));
        sieve.insert(5, 5, 1);
        assert_eq!(kept(&sieve), [1, 2, 4, 5], "1 and 2 lose their marks, 3 goes");
        sieve.insert(6, 6, 1);
        assert_eq!(kept(&sieve), [1, 2, 4, 6], "4 loses its mark, 5 goes, which the hand comes to before 1");
    }

    #[test]
    fn what_is_larger_than_the_budget_is_not_kept() {
        let mut sieve = Sieve::new(10);
        sieve.insert(1, 1, 10);
        assert_eq!((sieve.insert(2, 2, 11), kept(&sieve)), (0, vec![1]));
        assert_eq!((sieve.insert(1, 3, 11), kept(&sieve)), (0, vec![]), "the old value is no longer true");
        sieve.insert(1, 1, 4);
        sieve.insert(2, 2, 4);
        assert_eq!((sieve.resize(4), kept(&sieve)), (1, vec![2]));
        assert_eq!((sieve.resize(0), sieve.len(), sieve.bytes()), (1, 0, 0));
    }

    /// The same by a list that is searched: keys, bytes and marks, oldest first, and the key that the hand is at.
    #[derive(Default)]
    struct Listed(Vec<(u8, u64, bool)>, Option<u8>);

    impl Listed {
        fn remove(&mut self, at: usize) {
            if self.1 == Some(self.0[at].0) {
                self.1 = self.0.get(at + 1).map(|entry| entry.0);
            }
            self.0.remove(at);
        }

        fn insert(&mut self, key: u8, bytes: u64, bytes_max: u64) {
            if let Some(at) = self.0.iter().position(|entry| entry.0 == key) {
                self.remove(at);
            }
            if bytes > bytes_max {
                return;
            }
            while self.0.iter().map(|entry| entry.1).sum::<u64>() + bytes > bytes_max {
                let at = self.0.iter().position(|entry| Some(entry.0) == self.1).unwrap_or(0);
                if std::mem::take(&mut self.0[at].2) {
                    self.1 = self.0.get(at + 1).map(|entry| entry.0);
                } else {
                    self.1 = Some(self.0[at].0);
                    self.remove(at);
                }
            }
            self.0.push((key, bytes, false));
        }
    }

    proptest! {
        #[test]
        fn it_keeps_what_a_plain_list_would(steps in prop::collection::vec((0u8..12, 0u64..30, 0u8..10), 0..200)) {
            let (mut sieve, mut listed) = (Sieve::new(60), Listed::default());
            for (key, bytes, what) in steps {
                match what {
                    0..5 => {
                        sieve.insert(key, key, bytes);
                        listed.insert(key, bytes, 60);
                    }
                    5..9 => {
                        let found = listed.0.iter_mut().find(|entry| entry.0 == key);
                        prop_assert_eq!(sieve.get(&key).copied(), found.as_ref().map(|entry| entry.0));
                        found.into_iter().for_each(|entry| entry.2 = true);
                    }
                    _ => {
                        sieve.remove_all(|other| other % 3 == key % 3);
                        while let Some(at) = listed.0.iter().position(|entry| entry.0 % 3 == key % 3) {
                            listed.remove(at);
                        }
                    }
                }
                let mut expected: Vec<u8> = listed.0.iter().map(|entry| entry.0).collect();
                expected.sort_unstable();
                prop_assert_eq!(kept(&sieve), expected);
                prop_assert_eq!(sieve.bytes(), listed.0.iter().map(|entry| entry.1).sum::<u64>());
                prop_assert!(sieve.bytes() <= 60 && sieve.slots.iter().flatten().count() == sieve.len());
            }
        }
    }
}
