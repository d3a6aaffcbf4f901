//! A forest laid out for walks: every test becomes "at most" where it can, children lie beside each other, and what leads
//! nowhere is refused.

use std::collections::VecDeque;

use super::generic::{EQUAL, GREATER, LESS, MEMBER, NAN};
use super::{Branch, Element, Ensemble, Fault, Forest, Leaves, Malformed, Node, Packed, Test, Tree};

pub(super) fn pack<T: Element>(forest: &Forest<T>) -> Result<Ensemble<T>, Malformed> {
    let mut packer = Packer {
        forest,
        reached: vec![false; forest.nodes.len()],
        ensemble: Ensemble {
            nodes: Vec::new(),
            masks: Vec::new(),
            sets: Vec::new(),
            trees: Vec::new(),
            leaves: Leaves::One(Vec::new()),
            plain: true,
            scattered: true,
            width: 0,
            targets: forest.targets,
            aggregate: forest.aggregate,
            base: forest.base.clone(),
            tell_absent: forest.tell_absent,
        },
        sources: Vec::new(),
    };
    for &root in &forest.roots {
        packer.tree(root)?;
    }
    packer.leaves()?;
    Ok(packer.ensemble)
}

struct Packer<'a, T> {
    forest: &'a Forest<T>,
    /// Of the forest's nodes, those that have a place.
    reached: Vec<bool>,
    ensemble: Ensemble<T>,
    /// For every place the forest's node there.
    sources: Vec<usize>,
}

impl<T: Element> Packer<'_, T> {
    /// Lays out a tree level by level.
    fn tree(&mut self, root: usize) -> Result<(), Malformed> {
        let first = self.reach(root, root)?;
        let mut waiting = VecDeque::from([(first, 0)]);
        let mut deepest = 0;
        while let Some((place, depth)) = waiting.pop_front() {
            deepest = depth;
            let at = self.sources[place];
            let Node::Branch(branch) = &self.forest.nodes[at] else { continue };
            let (threshold, mask, turned) = self.test(at, branch)?;
            let children = if turned { [branch.otherwise, branch.then] } else { [branch.then, branch.otherwise] };
            let places = [self.reach(at, children[0])?, self.reach(at, children[1])?];
            let feature = u32::try_from(branch.feature).ok().filter(|feature| *feature < FEATURES_MAX);
            let feature = feature.ok_or(Malformed { node: at, fault: Fault::Feature })?;
            self.ensemble.width = self.ensemble.width.max(branch.feature + 1);
            self.ensemble.nodes[place] = Packed { threshold, feature, first: self.count(at, places[0])? };
            self.ensemble.masks[place] = mask;
            self.ensemble.plain &= mask & !(1 << NAN) == 1 << GREATER;
            waiting.extend(places.map(|place| (place, depth + 1)));
        }
        let root = self.count(root, first)?;
        self.ensemble.trees.push(Tree { root, depth: deepest, target: 0 });
        Ok(())
    }

    /// Gives a node the next place, as a leaf until it turns out to be a branch.
    fn reach(&mut self, from: usize, node: usize) -> Result<usize, Malformed> {
        let place = self.sources.len();
        match self.reached.get_mut(node) {
            None => return Err(Malformed { node: from, fault: Fault::NoNode }),
            Some(true) => return Err(Malformed { node, fault: Fault::ReachedTwice }),
            Some(reached) => *reached = true,
        }
        let itself = self.count(node, place)?;
        self.ensemble.nodes.push(Packed { threshold: T::INFINITY, feature: 0, first: itself });
        self.ensemble.masks.push(0);
        self.sources.push(node);
        Ok(place)
    }

    /// The threshold and the mask of a branch, and whether its children change places.
    fn test(&mut self, node: usize, branch: &Branch<T>) -> Result<(T, u8, bool), Malformed> {
        let bits = |outcomes: &[u8]| outcomes.iter().fold(0u8, |mask, outcome| mask | 1 << outcome);
        let (then_on_nan, otherwise_on_nan) = (u8::from(branch.missing) << NAN, u8::from(!branch.missing) << NAN);
        let all = bits(&[LESS, EQUAL, GREATER]);
        let (threshold, mask, turned) = match branch.test {
            Test::AtMost(t) => (t, bits(&[GREATER]) | otherwise_on_nan, false),
            Test::Above(t) => (t, bits(&[GREATER]) | then_on_nan, true),
            // Nothing lies below.
            Test::Below(t) if t.is_lowest() => (t, all | otherwise_on_nan, false),
            Test::AtLeast(t) if t.is_lowest() => (t, all | then_on_nan, true),
            Test::Below(t) => (t.next_down(), bits(&[GREATER]) | otherwise_on_nan, false),
            Test::AtLeast(t) => (t.next_down(), bits(&[GREATER]) | then_on_nan, true),
            Test::Equal(t) => (t, bits(&[LESS, GREATER]) | otherwise_on_nan, false),
            // NaN equals nothing, so that it goes to `then` anyway.
            Test::NotEqual(t) => (t, bits(&[EQUAL]), false),
            Test::Member(ref members) => {
                let mut set = members.clone();
                set.retain(|member| !member.is_nan());
                set.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
                self.ensemble.sets.push(set);
                if self.ensemble.sets.len() > SETS_MAX {
                    return Err(Malformed { node, fault: Fault::TooMany });
                }
                (T::of_index(self.ensemble.sets.len() - 1), bits(&[GREATER]) | otherwise_on_nan | MEMBER, false)
            }
        };
        if threshold.is_nan() {
            Err(Malformed { node, fault: Fault::Threshold })
        } else {
            Ok((threshold, mask, turned))
        }
    }

    /// Puts weights beside the nodes, one for each where every leaf of a tree has one and for the same target.
    fn leaves(&mut self) -> Result<(), Malformed> {
        let mut starts = Vec::with_capacity(self.sources.len() + 1);
        let mut weights = Vec::new();
        for &at in &self.sources {
            starts.push(self.count(at, weights.len())?);
            let Node::Leaf(own) = &self.forest.nodes[at] else { continue };
            for &(target, weight) in own {
                let fault = |fault| Malformed { node: at, fault };
                let known = u32::try_from(target).ok().filter(|_| target < self.forest.targets);
                let target = known.ok_or(fault(Fault::Target))?;
                if weight.is_nan() {
                    return Err(fault(Fault::Weight));
                }
                weights.push((target, weight));
            }
        }
        let last = self.sources.last().copied().unwrap_or(0);
        starts.push(self.count(last, weights.len())?);
        self.ensemble.scattered = self.is_scattered(&starts, &weights);
        let alone: Option<Vec<u32>> =
            self.each_tree().map(|places| self.sole_target(places, &starts, &weights)).collect();
        let Some(alone) = alone else {
            self.ensemble.leaves = Leaves::Several { starts, weights };
            return Ok(());
        };
        self.ensemble.trees.iter_mut().zip(alone).for_each(|(tree, target)| tree.target = target);
        let own =
            starts.windows(2).map(|ends| if ends[0] < ends[1] { weights[ends[0] as usize].1 } else { T::default() });
        self.ensemble.leaves = Leaves::One(own.collect());
        Ok(())
    }

    /// The places of each tree.
    fn each_tree(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let ends = self.ensemble.trees[1.min(self.ensemble.trees.len())..].iter().map(|tree| tree.root as usize);
        let ends = ends.chain([self.sources.len()]);
        self.ensemble.trees.iter().zip(ends).map(|(tree, end)| tree.root as usize..end)
    }

    fn is_leaf(&self, place: usize) -> bool {
        matches!(self.forest.nodes[self.sources[place]], Node::Leaf(_))
    }

    /// The one target of all leaves of a tree, if each has one weight.
    fn sole_target(&self, places: std::ops::Range<usize>, starts: &[u32], weights: &[(u32, T)]) -> Option<u32> {
        let mut targets = places.filter(|place| self.is_leaf(*place)).map(|place| {
            let [from, to] = [starts[place], starts[place + 1]];
            (to - from == 1).then(|| weights[from as usize].0)
        });
        let first = targets.next()??;
        targets.all(|target| target == Some(first)).then_some(first)
    }

    /// Whether there is a target without a tree all of whose leaves have a weight for it.
    fn is_scattered(&self, starts: &[u32], weights: &[(u32, T)]) -> bool {
        let mut always = vec![false; self.forest.targets];
        // By target, leaves of this tree that have a weight for it, and the last of them.
        let mut seen = vec![(0, usize::MAX); self.forest.targets];
        for places in self.each_tree() {
            let leaves = places.clone().filter(|place| self.is_leaf(*place)).count();
            let own = |place: usize| &weights[starts[place] as usize..starts[place + 1] as usize];
            for place in places.clone() {
                for &(target, _) in own(place) {
                    let (count, last) = &mut seen[target as usize];
                    *count = if places.contains(last) { *count + usize::from(*last != place) } else { 1 };
                    *last = place;
                    always[target as usize] |= *count == leaves;
                }
            }
        }
        always.contains(&false)
    }

    fn count(&self, node: usize, count: usize) -> Result<u32, Malformed> {
        let fits = u32::try_from(count).ok().filter(|count| *count < COUNT_MAX);
        fits.ok_or(Malformed { node, fault: Fault::TooMany })
    }
}

/// More features than any row of a tensor has that is served.
const FEATURES_MAX: u32 = 1 << 31;

const COUNT_MAX: u32 = 1 << 31;

/// Their places are exact in `f32`.
const SETS_MAX: usize = 1 << 24;
