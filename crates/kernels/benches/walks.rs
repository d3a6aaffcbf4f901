//! Nanoseconds of one walk down one tree: 500 full trees of depth 8 over 50 features, for batches of rows; the least time
//! of many runs, each over other rows than the one before.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]
#![allow(clippy::unwrap_used, reason = "a forest that does not pack ends the run")]

use std::time::{Duration, Instant};

use kinglet_kernels::trees::{Aggregate, Branch, Element, Ensemble, Forest, Node, Test};

fn main() {
    for rows in [1, 8, 64, 512] {
        let [a, b] = [nanoseconds::<f32>(rows, |x| x), nanoseconds::<f64>(rows, f64::from)];
        println!("{rows:4} rows | f32 {a:6.2} | f64 {b:6.2}");
    }
}

fn nanoseconds<T: Element>(rows: usize, of: impl Fn(f32) -> T) -> f64 {
    let mut next = random();
    let mut forest = Forest {
        nodes: Vec::new(),
        roots: Vec::new(),
        targets: 1,
        aggregate: Aggregate::Sum,
        base: Vec::new(),
        tell_absent: false,
    };
    for _ in 0..TREES {
        let first = forest.nodes.len();
        forest.roots.push(first);
        for at in 0..(2 << DEPTH) - 1 {
            let node = if at < (1 << DEPTH) - 1 {
                let feature = at * 7919 % FEATURES;
                let [then, otherwise] = [first + 2 * at + 1, first + 2 * at + 2];
                Node::Branch(Branch { feature, test: Test::AtMost(of(next())), missing: false, then, otherwise })
            } else {
                Node::Leaf(vec![(0, of(next()))])
            };
            forest.nodes.push(node);
        }
    }
    let ensemble = Ensemble::pack(&forest).unwrap();
    let batches: Vec<Vec<T>> = (0..32).map(|_| (0..rows * FEATURES).map(|_| of(next())).collect()).collect();
    let mut out = vec![T::default(); rows];
    let (begun, mut least) = (Instant::now(), Duration::MAX);
    while begun.elapsed() < Duration::from_millis(500) {
        let started = Instant::now();
        for x in &batches {
            ensemble.run(x, FEATURES, &ensemble.grid(&mut out, rows));
        }
        least = least.min(started.elapsed());
    }
    least.as_secs_f64() * 1e9 / (batches.len() * rows * TREES) as f64
}

fn random() -> impl FnMut() -> f32 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    }
}

const TREES: usize = 500;
const DEPTH: usize = 8;
const FEATURES: usize = 50;
