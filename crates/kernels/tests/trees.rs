//! Ensembles of trees against plain code, bit for bit: every test, NaN, every tail, trees of every form.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use kinglet_kernels::reference;
use kinglet_kernels::trees::{Aggregate, Branch, Element, Ensemble, Fault, Forest, Malformed, Node, Test};

/// What a made-up forest may consist of.
#[derive(Clone, Copy)]
struct Kind {
    tests: usize,
    targets: usize,
    /// Weights of a leaf; fewer, by chance, where there may be none for a target.
    weights: usize,
    sole: bool,
    depth_max: usize,
}

const PLAIN: Kind = Kind { tests: 4, targets: 1, weights: 1, sole: true, depth_max: 7 };

/// A sequence of numbers between 0 and the one that is asked for.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 40).unwrap() % count
    }

    /// One of few, so that features meet thresholds exactly.
    fn number(&mut self) -> f32 {
        (self.below(17) as f32 - 8.0) / 4.0
    }
}

fn forest<T: Element>(trees: usize, kind: Kind, of: impl Fn(f32) -> T + Copy, seed: u64) -> Forest<T> {
    let mut dice = Dice(seed);
    let mut forest = Forest {
        nodes: Vec::new(),
        roots: Vec::new(),
        targets: kind.targets,
        aggregate: Aggregate::Sum,
        base: Vec::new(),
        tell_absent: false,
    };
    for tree in 0..trees {
        forest.roots.push(forest.nodes.len());
        forest.nodes.push(Node::Leaf(Vec::new()));
        let depth = dice.below(kind.depth_max + 1);
        grow(&mut forest, tree, depth, kind, &mut dice, of);
    }
    forest
}

/// Turns the last node into a tree.
fn grow<T: Element>(
    forest: &mut Forest<T>,
    tree: usize,
    depth: usize,
    kind: Kind,
    dice: &mut Dice,
    of: impl Fn(f32) -> T + Copy,
) {
    let at = forest.nodes.len() - 1;
    if depth == 0 || dice.below(5) == 0 {
        let weight = |dice: &mut Dice| {
            let target = if kind.sole { tree % kind.targets } else { dice.below(kind.targets) };
            (target, of(dice.number() * 0.1))
        };
        let count = if kind.sole { kind.weights } else { dice.below(kind.weights + 1) };
        forest.nodes[at] = Node::Leaf((0..count).map(|_| weight(dice)).collect());
        return;
    }
    let mut ends = [0; 2];
    for end in &mut ends {
        *end = forest.nodes.len();
        forest.nodes.push(Node::Leaf(Vec::new()));
        grow(forest, tree, depth - 1, kind, dice, of);
    }
    let number = of(dice.number());
    let test = match dice.below(kind.tests) {
        0 => Test::AtMost(number),
        1 => Test::Below(number),
        2 => Test::AtLeast(number),
        3 => Test::Above(number),
        4 => Test::Equal(number),
        5 => Test::NotEqual(number),
        _ => Test::Member(vec![number, of(dice.number()), of(dice.number()), T::NAN]),
    };
    let [then, otherwise] = ends;
    let branch = Branch { feature: dice.below(FEATURES), test, missing: dice.below(2) == 0, then, otherwise };
    forest.nodes[at] = Node::Branch(branch);
}

fn rows<T: Element>(count: usize, missing: bool, of: impl Fn(f32) -> T) -> Vec<T> {
    let mut dice = Dice(count as u64 + 1);
    let mut element = |_| if missing && dice.below(9) == 0 { T::NAN } else { of(dice.number()) };
    (0..count * WIDTH).map(&mut element).collect()
}

fn check<T: Element>(forest: &Forest<T>, of: impl Fn(f32) -> T + Copy) {
    let ensemble = Ensemble::pack(forest).unwrap();
    for (count, missing) in
        [(0, false), (1, true), (1, false), (7, false), (8, true), (63, false), (65, true), (150, false)]
    {
        let x = rows(count, missing, of);
        let mut out = vec![of(77.0); count * forest.targets + 1];
        ensemble.run(&x, WIDTH, &ensemble.grid(&mut out, count));
        let expected: Vec<T> = x.chunks(WIDTH).flat_map(|row| reference::trees(forest, row)).collect();
        for (at, (got, expected)) in out.iter().zip(&expected).enumerate() {
            // Sums begin with zero or with the first weight, which differ in the sign of zero alone.
            assert!(got == expected || got.is_nan() && expected.is_nan(), "{count} rows, {at}: {got:?} {expected:?}");
        }
        assert!(out[count * forest.targets] == of(77.0), "what is beside the output is not touched");
    }
}

#[test]
fn every_form_of_forest() {
    let several = Kind { tests: 7, targets: 5, weights: 6, sole: false, ..PLAIN };
    for (seed, kind) in [
        PLAIN,
        Kind { tests: 1, ..PLAIN },
        Kind { tests: 6, targets: 3, ..PLAIN },
        several,
        Kind { depth_max: 1, ..several },
    ]
    .into_iter()
    .enumerate()
    {
        for trees in [0, 1, 7, 8, 9, 30] {
            let seed = seed as u64 * 31 + trees as u64 + 1;
            check(&forest(trees, kind, |x| x, seed), |x| x);
            check(&forest(trees, kind, f64::from, seed), f64::from);
        }
    }
}

#[test]
fn every_aggregate() {
    for aggregate in [Aggregate::Sum, Aggregate::Average, Aggregate::Min, Aggregate::Max] {
        for (kind, base) in [(PLAIN, vec![0.5]), (Kind { targets: 3, weights: 2, sole: false, ..PLAIN }, vec![])] {
            for tell_absent in [false, true] {
                check(&Forest { aggregate, base: base.clone(), tell_absent, ..forest(11, kind, |x| x, 5) }, |x| x);
            }
        }
    }
}

#[test]
fn extreme_numbers_are_compared_as_such() {
    let extremes = [f32::NEG_INFINITY, f32::MIN, -0.0, 0.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN];
    let tests: [fn(f32) -> Test<f32>; 6] =
        [Test::AtMost, Test::Below, Test::AtLeast, Test::Above, Test::Equal, Test::NotEqual];
    for test in tests {
        for threshold in &extremes[..7] {
            for missing in [false, true] {
                let branch = Branch { feature: 0, test: test(*threshold), missing, then: 1, otherwise: 2 };
                let nodes = vec![Node::Branch(branch), Node::Leaf(vec![(0, 1.0)]), Node::Leaf(vec![(0, 2.0)])];
                let forest = Forest { nodes, roots: vec![0], ..forest(0, PLAIN, |x| x, 1) };
                let ensemble = Ensemble::pack(&forest).unwrap();
                for x in extremes {
                    let mut out = [0.0];
                    ensemble.run(&[x], 1, &ensemble.grid(&mut out, 1));
                    assert_eq!(&out[..], reference::trees(&forest, &[x]), "{x} {:?} {missing}", test(*threshold));
                }
            }
        }
    }
}

#[test]
fn rows_do_not_depend_on_each_other() {
    let forest = forest(100, PLAIN, |x| x * 1.1, 3);
    let ensemble = Ensemble::pack(&forest).unwrap();
    let x = rows(70, true, |x| x * 0.9);
    let mut together = vec![0.0; 70];
    ensemble.run(&x, WIDTH, &ensemble.grid(&mut together, 70));
    for (row, together) in x.chunks(WIDTH).zip(together) {
        let mut alone = [0.0];
        ensemble.run(row, WIDTH, &ensemble.grid(&mut alone, 1));
        assert_eq!(alone[0].to_bits(), together.to_bits());
    }
}

#[test]
fn what_leads_nowhere_is_refused() {
    let branch = |feature, then, otherwise| {
        Node::Branch(Branch { feature, test: Test::AtMost(0.5), missing: false, then, otherwise })
    };
    let leaf = |target, weight| Node::Leaf(vec![(target, weight)]);
    let refused = |nodes: Vec<Node<f32>>, roots: &[usize]| {
        let forest = Forest { nodes, roots: roots.to_vec(), ..forest(0, PLAIN, |x| x, 1) };
        Ensemble::pack(&forest).map(|_| ()).map_err(|Malformed { node, fault }| (node, fault))
    };
    assert_eq!(refused(vec![branch(0, 1, 2), leaf(0, 1.0), leaf(0, 2.0)], &[0]), Ok(()));
    assert_eq!(refused(vec![branch(0, 1, 3), leaf(0, 1.0), leaf(0, 2.0)], &[0]), Err((0, Fault::NoNode)));
    assert_eq!(refused(vec![leaf(0, 1.0)], &[1]), Err((1, Fault::NoNode)));
    assert_eq!(refused(vec![branch(0, 1, 0), leaf(0, 1.0)], &[0]), Err((0, Fault::ReachedTwice)));
    assert_eq!(refused(vec![branch(0, 1, 1), leaf(0, 1.0)], &[0]), Err((1, Fault::ReachedTwice)));
    let cycle = vec![branch(0, 1, 2), branch(0, 0, 3), leaf(0, 1.0), leaf(0, 1.0)];
    assert_eq!(refused(cycle, &[0]), Err((0, Fault::ReachedTwice)));
    assert_eq!(refused(vec![leaf(0, 1.0)], &[0, 0]), Err((0, Fault::ReachedTwice)));
    assert_eq!(refused(vec![branch(1 << 40, 1, 2), leaf(0, 1.0), leaf(0, 2.0)], &[0]), Err((0, Fault::Feature)));
    assert_eq!(refused(vec![leaf(1, 1.0)], &[0]), Err((0, Fault::Target)));
    assert_eq!(refused(vec![leaf(0, f32::NAN)], &[0]), Err((0, Fault::Weight)));
    let nan = Branch { feature: 0, test: Test::AtLeast(f32::NAN), missing: false, then: 1, otherwise: 2 };
    assert_eq!(refused(vec![Node::Branch(nan), leaf(0, 1.0), leaf(0, 1.0)], &[0]), Err((0, Fault::Threshold)));
}

#[test]
#[should_panic(expected = "features at least")]
fn rows_that_are_too_short_are_not_read() {
    let ensemble = Ensemble::pack(&forest(30, PLAIN, |x| x, 2)).unwrap();
    ensemble.run(&[0.0], 1, &ensemble.grid(&mut [0.0], 1));
}

const FEATURES: usize = 6;
/// One more than is asked for.
const WIDTH: usize = FEATURES + 1;
