//! Extents of free axes that samples try, until some fit a graph.

use super::infer::Fact;
use super::samples::{Inputs, Others};
use crate::engine::{Dim, TensorSpec};

/// Facts of the inputs of both samples.
pub(super) type Pair = [Vec<Option<Fact>>; 2];

/// Facts whose free axes, but for the batch, get other extents until some work.
pub(super) struct Tried {
    facts: Pair,
    free: Vec<Free>,
    /// Whether the facts are worth a try as they are.
    whole: bool,
    /// Whether the graph is one within a node.
    is_within: bool,
}

/// Axes that have one extent, whatever it is.
struct Free {
    /// Input and axis.
    axes: Vec<(usize, usize)>,
    /// Whether it is the first such axis of its input.
    is_first: bool,
}

impl Tried {
    pub(super) fn of(inputs: &Inputs<'_>) -> Self {
        match inputs {
            Inputs::Declared(declared) => Self::declared(declared),
            Inputs::Given(facts) => Self::given(facts),
        }
    }

    /// Axes of one name are one; those named as an axis 0 are the batch.
    fn declared(declared: &[TensorSpec]) -> Self {
        let batches: Vec<&String> = declared.iter().filter_map(|spec| name(spec.dims.first()?)).collect();
        let is_batch = |axis: usize, dim: &Dim| axis == 0 || name(dim).is_some_and(|name| batches.contains(&name));
        let mut free: Vec<(Option<&String>, Free)> = Vec::new();
        for (input, spec) in declared.iter().enumerate() {
            let others = spec.dims.iter().enumerate();
            let others = others.filter(|(axis, dim)| matches!(dim, Dim::Free(_)) && !is_batch(*axis, dim));
            for (at, (axis, dim)) in others.enumerate() {
                match free.iter_mut().find(|(known, _)| known.is_some() && *known == name(dim)) {
                    Some((_, same)) => same.axes.push((input, axis)),
                    None => free.push((name(dim), Free { axes: vec![(input, axis)], is_first: at == 0 })),
                }
            }
        }
        let facts = BATCHES.map(|batch| {
            let extent = |dim: &Dim| if let Dim::Fixed(extent) = dim { *extent } else { batch };
            declared.iter().map(|spec| Some(Fact::new(spec.dtype, spec.dims.iter().map(extent).collect()))).collect()
        });
        Self { facts, is_within: false, whole: free.is_empty(), free: free.into_iter().map(|(_, free)| free).collect() }
    }

    /// Axes whose extents differ are free, those that differ as the batch does are the batch.
    fn given(facts: &Pair) -> Self {
        let mut free = Vec::new();
        for (input, pair) in facts[0].iter().zip(&facts[1]).enumerate() {
            let (Some(a), Some(b)) = pair else { continue };
            let both = a.shape.iter().zip(b.shape.iter()).map(|(a, b)| [*a, *b]).enumerate();
            let others = both.filter(|(_, both)| both[0] != both[1] && *both != BATCHES);
            free.extend(
                others.enumerate().map(|(at, (axis, _))| Free { axes: vec![(input, axis)], is_first: at == 0 }),
            );
        }
        Self { facts: facts.clone(), free, whole: true, is_within: true }
    }

    /// What is tried, in this order: other extents for all free axes, or for one while the others are the batch too. A
    /// graph within a node may be one that never runs for such extents: at last nothing is known of its inputs.
    pub(super) fn all(&self, vary: Others) -> impl Iterator<Item = Pair> {
        let roles = move || [None].into_iter().chain((0..self.free.len()).map(Some));
        let roles = move || roles().filter(move |role| self.free.len() > 1 || role.is_none());
        let extents = OTHER_EXTENTS.iter().filter(|_| !self.free.is_empty());
        let others = extents.flat_map(move |extents| roles().map(move |role| self.with(*extents, role, vary)));
        let unknown = self.is_within.then(|| self.facts.clone().map(|facts| vec![None; facts.len()]));
        self.whole.then(|| self.facts.clone()).into_iter().chain(others).chain(unknown)
    }

    fn with(&self, extents: [[usize; 2]; 2], role: Option<usize>, vary: Others) -> Pair {
        let mut facts = self.facts.clone();
        for (at, facts) in facts.iter_mut().enumerate() {
            let [first, others] = extents[if vary == Others::Same { 0 } else { at }];
            for (position, free) in self.free.iter().enumerate() {
                let extent = match role {
                    Some(role) if role != position => BATCHES[at],
                    _ if free.is_first => first,
                    _ => others,
                };
                for &(input, axis) in &free.axes {
                    if let Some(fact) = &mut facts[input] {
                        let extents = fact.shape.iter().enumerate();
                        let shape = extents.map(|(at, was)| if at == axis { extent } else { *was }).collect();
                        *fact = Fact::new(fact.dtype, shape);
                    }
                }
            }
        }
        facts
    }
}

fn name(dim: &Dim) -> Option<&String> {
    if let Dim::Free(Some(name)) = dim { Some(name) } else { None }
}

/// Primes, so that no product of other extents is taken for the batch.
pub(in crate::engine) const BATCHES: [usize; 2] = [53, 59];

/// Extents of other free axes, until one pair works: some models need multiples of 32, some one particular extent.
/// One that is the same in both samples is the first such axis' own, as the height of a line of text is.
const OTHER_EXTENTS: [[[usize; 2]; 2]; 9] = [
    [[61, 61], [509, 509]],
    [[64, 64], [320, 320]],
    [[48, 48], [96, 96]],
    [[100, 100], [16, 16]],
    [[48, 192], [48, 320]],
    [[32, 192], [32, 320]],
    [[1, 1], [2, 2]],
    [[160, 160], [288, 288]],
    [[320, 320], [576, 576]],
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn spec(dims: &[&str]) -> TensorSpec {
        let dim = |text: &&str| match text.parse() {
            Ok(extent) => Dim::Fixed(extent),
            Err(_) => Dim::Free((!text.is_empty()).then(|| (*text).to_owned())),
        };
        TensorSpec { name: "x".into(), dtype: DType::F32, dims: dims.iter().map(dim).collect() }
    }

    fn shapes(inputs: &Inputs<'_>) -> Vec<Vec<Vec<usize>>> {
        let of = |facts: &Vec<Option<Fact>>| facts.iter().flatten().map(|fact| fact.shape.to_vec()).collect();
        Tried::of(inputs).all(Others::Different).map(|pair| of(&pair[1])).collect()
    }

    #[test]
    fn the_batch_and_fixed_axes_are_always_the_same() {
        assert_eq!(shapes(&Inputs::Declared(&[spec(&["n", "3"])])), [[[59, 3]]]);
        let tried = shapes(&Inputs::Declared(&[spec(&["n", "3", "", ""])]));
        assert_eq!(tried.len(), OTHER_EXTENTS.len() * 3, "both, or one of the two");
        assert_eq!(tried[0], [[59, 3, 509, 509]]);
        assert_eq!(tried[1], [[59, 3, 509, 59]]);
        assert_eq!(tried[2], [[59, 3, 59, 509]]);
    }

    #[test]
    fn axes_of_one_name_are_one() {
        let tried = shapes(&Inputs::Declared(&[spec(&["n", "s"]), spec(&["2", "n", "s"]), spec(&["n", "t"])]));
        assert_eq!(tried[0], [vec![59, 509], vec![2, 59, 509], vec![59, 509]]);
        assert_eq!(tried[1], [vec![59, 509], vec![2, 59, 509], vec![59, 59]]);
    }

    #[test]
    fn axes_that_are_given_are_tried_first() {
        let fact = |shape: [usize; 2]| Some(Fact::new(DType::F32, shape.into_iter().collect()));
        let given = [vec![fact([53, 61]), None], vec![fact([59, 509]), None]];
        let tried = shapes(&Inputs::Given(given));
        assert_eq!((&tried[0], &tried[1]), (&vec![vec![59, 509]], &vec![vec![59, 509]]));
        assert!(tried.contains(&vec![vec![59, 576]]));
        assert!(tried.last().unwrap().is_empty(), "nothing is known of any");
    }
}
