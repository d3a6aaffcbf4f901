//! Operators that another engine runs.

use std::fmt::Debug;
use std::sync::Arc;

use super::control::Several;
use super::{Graph, Op};
use crate::tensor::{DType, Tensor};

/// An operator, ready to run from any number of threads at once.
pub(in crate::engine) trait Program: Debug + Send + Sync {
    /// Who runs it, for `inspect`.
    fn engine(&self) -> &'static str;

    /// The operator's name in the file.
    fn operator(&self) -> &str;

    /// The types of what it makes.
    fn dtypes(&self) -> &[DType];

    /// What it makes of these operands, which are those that are no constants.
    fn run(&self, operands: &[Tensor]) -> Result<Vec<Tensor>, String>;
}

/// Makes several values, as a branch does: [`Op::Part`] takes one of them.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Foreign(pub(in crate::engine) Arc<dyn Program>);

impl PartialEq for Foreign {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Graph {
    /// The programs of a graph and of those within its nodes.
    pub(in crate::engine) fn programs(&self) -> Vec<&dyn Program> {
        self.nodes.iter().flat_map(|node| within(&node.op)).collect()
    }
}

fn within(op: &Op) -> Vec<&dyn Program> {
    match op {
        Op::Several(Several::Foreign(foreign)) => vec![&*foreign.0],
        Op::Several(Several::Branch(branch)) => branch.bodies.iter().flat_map(|body| body.0.programs()).collect(),
        Op::Several(Several::Repeat(repeat)) => repeat.body.0.programs(),
        _ => Vec::new(),
    }
}
