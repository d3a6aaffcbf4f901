//! The attributes of tree ensembles, in either of their two forms, as one forest.
//!
//! The older form (`ai.onnx.ml` 1 and 3) names nodes by tree and number and lists weights apart; the newer (5) refers to
//! nodes and leaves by their places. Numbers may be tensors of FP64, which are read as such.

use std::collections::HashMap;

use kinglet_kernels::trees::{Aggregate, Branch, Ensemble, Forest, Malformed, Node, Test};

use super::node::Source;
use crate::engine::EngineError;
use crate::engine::graph::trees::Trees;
use crate::tensor::{DType, Tensor};

/// A forest with numbers of FP64, which hold those of FP32 exactly.
pub(super) struct Grown {
    pub(super) forest: Forest<f64>,
    /// Whether its numbers need FP64.
    pub(super) is_wide: bool,
    /// What errors call its nodes.
    names: Vec<String>,
}

impl Grown {
    /// Lays out the forest for features of a type.
    pub(super) fn pack(&self, node: &Source<'_>, dtype: DType) -> Result<Trees, EngineError> {
        let packed = match dtype {
            DType::F64 => Ensemble::pack(&self.forest).map(Trees::F64),
            _ => Ensemble::pack(&narrowed(&self.forest)).map(Trees::F32),
        };
        packed.map_err(|Malformed { node: at, fault }| {
            let name = self.names.get(at).map_or_else(|| format!("node {at}"), Clone::clone);
            node.invalid(&format!("{name} {fault}"))
        })
    }

    /// Weights, and the targets that they are for.
    pub(super) fn weights(&self) -> impl Iterator<Item = (usize, f64)> {
        self.forest
            .nodes
            .iter()
            .flat_map(|node| if let Node::Leaf(weights) = node { &weights[..] } else { &[] })
            .copied()
    }
}

/// The older form; `of` is "class" or "target", by which weights go.
pub(super) fn named(node: &Source<'_>, of: &str, targets: usize) -> Result<Grown, EngineError> {
    let trees = node.ints("nodes_treeids")?.unwrap_or_default();
    let list = |name: &str| same_length(node, name, node.ints(name)?.unwrap_or_default(), trees.len());
    let (numbers, features) = (list("nodes_nodeids")?, list("nodes_featureids")?);
    let ends = [list("nodes_truenodeids")?, list("nodes_falsenodeids")?];
    let modes = same_length(node, "nodes_modes", node.texts("nodes_modes")?.unwrap_or_default(), trees.len())?;
    let missing = node.ints("nodes_missing_value_tracks_true")?.unwrap_or_default();
    let (thresholds, wide) = numbers_of(node, "nodes_values")?;
    let thresholds = same_length(node, "nodes_values", thresholds, trees.len())?;
    let mut places = HashMap::with_capacity(trees.len());
    let mut grown = Grown::new(targets, wide);
    for (at, key) in trees.iter().copied().zip(numbers.iter().copied()).enumerate() {
        grown.names.push(format!("node {} of tree {}", key.1, key.0));
        if places.insert(key, at).is_some() {
            return Err(node.invalid(&format!("{} is there twice", grown.names[at])));
        }
    }
    let mut begun = std::collections::HashSet::new();
    for (at, &tree) in trees.iter().enumerate() {
        // A tree begins with its root.
        if begun.insert(tree) {
            grown.forest.roots.push(at);
        }
        // A node that is not there is beyond all nodes.
        let end = |which: usize| places.get(&(tree, ends[which][at])).copied().unwrap_or(usize::MAX);
        let made = match modes[at].as_str() {
            "LEAF" => Node::Leaf(Vec::new()),
            mode => Node::Branch(Branch {
                feature: grown.feature(node, at, features[at])?,
                test: test(node, mode, thresholds[at])?,
                missing: missing.get(at) == Some(&1),
                then: end(0),
                otherwise: end(1),
            }),
        };
        grown.forest.nodes.push(made);
    }
    weigh(node, of, &places, &mut grown)?;
    Ok(grown)
}

/// Gives leaves their weights. Those of branches mean nothing, and some exporters write them.
fn weigh(
    node: &Source<'_>,
    of: &str,
    places: &HashMap<(i64, i64), usize>,
    grown: &mut Grown,
) -> Result<(), EngineError> {
    let attribute = |what: &str| format!("{of}_{what}");
    let trees = node.ints(&attribute("treeids"))?.unwrap_or_default();
    let list = |name: String| same_length(node, &name, node.ints(&name)?.unwrap_or_default(), trees.len());
    let (numbers, targets) = (list(attribute("nodeids"))?, list(attribute("ids"))?);
    let (weights, wide) = numbers_of(node, &attribute("weights"))?;
    let weights = same_length(node, &attribute("weights"), weights, trees.len())?;
    grown.is_wide |= wide;
    for (at, key) in trees.iter().copied().zip(numbers).enumerate() {
        let place = places.get(&key).copied();
        let place = place.ok_or_else(|| node.invalid(&format!("weight {at} is for a node that is not there")))?;
        let target = usize::try_from(targets[at]).unwrap_or(usize::MAX);
        if let Node::Leaf(own) = &mut grown.forest.nodes[place] {
            own.push((target, weights[at]));
        }
    }
    match grown.forest.nodes.iter().position(|node| matches!(node, Node::Leaf(own) if own.is_empty())) {
        Some(at) => Err(node.invalid(&format!("{} is a leaf without a weight", grown.names[at]))),
        None => Ok(()),
    }
}

/// The newer form.
pub(super) fn placed(node: &Source<'_>, targets: usize) -> Result<Grown, EngineError> {
    let features = node.ints("nodes_featureids")?.unwrap_or_default();
    let list = |name: &str| same_length(node, name, node.ints(name)?.unwrap_or_default(), features.len());
    let ends = [list("nodes_truenodeids")?, list("nodes_falsenodeids")?];
    let are_leaves = [list("nodes_trueleafs")?, list("nodes_falseleafs")?];
    let missing = node.ints("nodes_missing_value_tracks_true")?.unwrap_or_default();
    let (splits, wide) = numbers_of(node, "nodes_splits")?;
    let splits = same_length(node, "nodes_splits", splits, features.len())?;
    let modes = node.tensor("nodes_modes")?.map(|modes| modes.bytes().to_vec()).unwrap_or_default();
    let modes = same_length(node, "nodes_modes", modes, features.len())?;
    let members = numbers_of(node, "membership_values")?.0;
    let mut sets = members.split(|member| member.is_nan());
    let leaf_targets = node.ints("leaf_targetids")?.unwrap_or_default();
    let (leaf_weights, _) = numbers_of(node, "leaf_weights")?;
    let leaf_weights = same_length(node, "leaf_weights", leaf_weights, leaf_targets.len())?;
    let mut grown = Grown::new(targets, wide);
    grown.forest.nodes = vec![Node::Leaf(Vec::new()); features.len()];
    grown.names = (0..features.len()).map(|at| format!("node {at}")).collect();
    for at in 0..features.len() {
        let mut end = |which: usize| -> Result<usize, EngineError> {
            let place = usize::try_from(ends[which][at]).unwrap_or(usize::MAX);
            if are_leaves[which][at] == 0 {
                return Ok(if place < features.len() { place } else { usize::MAX });
            }
            // Each branch has leaves of its own, so that a leaf is reached by one way.
            let leaf = leaf_targets.get(place).zip(leaf_weights.get(place));
            let (target, weight) = leaf.ok_or_else(|| node.invalid(&format!("node {at} leads to no leaf")))?;
            grown.names.push(format!("leaf {place} of node {at}"));
            grown.forest.nodes.push(Node::Leaf(vec![(usize::try_from(*target).unwrap_or(usize::MAX), *weight)]));
            Ok(grown.forest.nodes.len() - 1)
        };
        let (then, otherwise) = (end(0)?, end(1)?);
        let test = match modes[at] {
            MEMBER => Test::Member(sets.next().unwrap_or_default().to_vec()),
            mode => test(node, MODES.get(usize::from(mode)).unwrap_or(&"of no kind"), splits[at])?,
        };
        let feature = grown.feature(node, at, features[at])?;
        let branch = Branch { feature, test, missing: missing.get(at) == Some(&1), then, otherwise };
        grown.forest.nodes[at] = Node::Branch(branch);
    }
    let roots = node.ints("tree_roots")?.unwrap_or_default();
    grown.forest.roots = roots.iter().map(|&root| usize::try_from(root).unwrap_or(usize::MAX)).collect();
    match grown.forest.roots.iter().find(|root| **root >= features.len()) {
        Some(_) => Err(node.invalid(&format!("tree_roots {roots:?} are not all nodes"))),
        None => Ok(grown),
    }
}

impl Grown {
    fn new(targets: usize, is_wide: bool) -> Self {
        let aggregate = Aggregate::Sum;
        let forest =
            Forest { nodes: Vec::new(), roots: Vec::new(), targets, aggregate, base: Vec::new(), tell_absent: false };
        Self { forest, is_wide, names: Vec::new() }
    }

    fn feature(&self, node: &Source<'_>, at: usize, feature: i64) -> Result<usize, EngineError> {
        let told = || node.invalid(&format!("{} asks for feature {feature}", self.names[at]));
        usize::try_from(feature).map_err(|_| told())
    }
}

/// Floats from an attribute that is a list, or one with this name and `_as_tensor`, or one that is a tensor itself; and
/// whether they are of FP64.
pub(super) fn numbers_of(node: &Source<'_>, name: &str) -> Result<(Vec<f64>, bool), EngineError> {
    let tensor = match node.is_tensor(name) {
        true => node.tensor(name)?,
        false => node.tensor(&format!("{name}_as_tensor"))?,
    };
    match tensor {
        Some(tensor) => wide(&tensor)
            .map(|numbers| (numbers, tensor.dtype() == DType::F64))
            .ok_or_else(|| node.refuse(&format!("{name} are {}", tensor.dtype()))),
        None => Ok((node.floats(name)?.unwrap_or_default().into_iter().map(f64::from).collect(), false)),
    }
}

/// Floats of either type.
pub(super) fn wide(tensor: &Tensor) -> Option<Vec<f64>> {
    let bytes = tensor.bytes();
    Some(match tensor.dtype() {
        DType::F64 => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        DType::F32 => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect(),
        _ => return None,
    })
}

fn test(node: &Source<'_>, mode: &str, number: f64) -> Result<Test<f64>, EngineError> {
    Ok(match mode {
        "BRANCH_LEQ" => Test::AtMost(number),
        "BRANCH_LT" => Test::Below(number),
        "BRANCH_GTE" => Test::AtLeast(number),
        "BRANCH_GT" => Test::Above(number),
        "BRANCH_EQ" => Test::Equal(number),
        "BRANCH_NEQ" => Test::NotEqual(number),
        other => return Err(node.invalid(&format!("a node is {other:?}, which is no mode"))),
    })
}

fn same_length<T>(node: &Source<'_>, name: &str, list: Vec<T>, length: usize) -> Result<Vec<T>, EngineError> {
    match list.len() == length {
        true => Ok(list),
        false => Err(node.invalid(&format!("{name} has {} elements, expected {length}", list.len()))),
    }
}

/// The same in FP32, in which its numbers are exact.
fn narrowed(forest: &Forest<f64>) -> Forest<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "numbers that were FP32 before")]
    let narrow = |number: f64| number as f32;
    let test = |test: &Test<f64>| match test {
        Test::AtMost(number) => Test::AtMost(narrow(*number)),
        Test::Below(number) => Test::Below(narrow(*number)),
        Test::AtLeast(number) => Test::AtLeast(narrow(*number)),
        Test::Above(number) => Test::Above(narrow(*number)),
        Test::Equal(number) => Test::Equal(narrow(*number)),
        Test::NotEqual(number) => Test::NotEqual(narrow(*number)),
        Test::Member(members) => Test::Member(members.iter().map(|member| narrow(*member)).collect()),
    };
    let node = |node: &Node<f64>| match node {
        Node::Leaf(weights) => Node::Leaf(weights.iter().map(|(target, weight)| (*target, narrow(*weight))).collect()),
        Node::Branch(branch) => {
            let Branch { feature, missing, then, otherwise, .. } = *branch;
            Node::Branch(Branch { feature, test: test(&branch.test), missing, then, otherwise })
        }
    };
    Forest {
        nodes: forest.nodes.iter().map(node).collect(),
        roots: forest.roots.clone(),
        targets: forest.targets,
        aggregate: forest.aggregate,
        base: forest.base.iter().map(|base| narrow(*base)).collect(),
        tell_absent: forest.tell_absent,
    }
}

/// Modes of the newer form by their numbers; the next is membership.
const MODES: [&str; 6] = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"];
const MEMBER: u8 = 6;
