//! A model for the extents of one request: facts of all values, their places in the arena, and the steps left to run.

use std::ops::Range;

use kinglet_kernels::Aligned;

use super::chain::{self, Chain};
use super::memory::{self, Tenant};
use super::model::Model;
use crate::engine::graph::infer::{Facts, PerOperand};
use crate::engine::graph::samples::{GraphFacts, Stopped};
use crate::engine::graph::{Fact, ValueId};

#[derive(Debug)]
pub(super) struct Specialised {
    pub(super) facts: GraphFacts,
    pub(super) steps: Vec<Step>,
    pub(super) inputs: Vec<Range<usize>>,
    pub(super) outputs: Vec<Source>,
    /// Values that follow from the extents and are needed at run time.
    pub(super) known: Vec<Aligned>,
    pub(super) arena_bytes: usize,
}

/// One layer to run, or a chain of them.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) work: Work,
    pub(super) operands: PerOperand<(ValueId, Source)>,
    pub(super) output: Range<usize>,
    pub(super) scratch: Range<usize>,
}

#[derive(Debug)]
pub(super) enum Work {
    /// One of the model's nodes and layers.
    Layer(usize),
    Chain(Chain),
}

impl Work {
    /// The node whose output is that of the step.
    pub(super) fn node(&self) -> usize {
        match self {
            Self::Layer(node) => *node,
            Self::Chain(chain) => chain.last(),
        }
    }

    /// What it takes at run time.
    fn operands(&self, model: &Model) -> PerOperand<ValueId> {
        match self {
            Self::Layer(node) => model.layers[*node].operands.iter().copied().collect(),
            Self::Chain(chain) => chain.operands(model).collect(),
        }
    }

    fn scratch(&self, model: &Model, facts: &GraphFacts) -> usize {
        let threads = model.limits.threads_max;
        match self {
            Self::Layer(node) => {
                let all = model.graph.nodes[*node].inputs.iter().map(|&input| fact(facts, input));
                model.layers[*node].layer.scratch(&all.collect::<Facts<'_>>(), threads)
            }
            Self::Chain(chain) => chain.scratch(threads),
        }
    }
}

/// Where an operand's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Arena(Range<usize>),
    /// The model's constant.
    Constant(ValueId),
    Known(usize),
}

/// Why a model cannot run on some extents.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum NotPrepared {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("the run needs {needed} bytes, the limit is {limit}")]
    TooLarge { needed: usize, limit: usize },
}

/// Prepares a model for inputs of these facts.
pub(super) fn specialise(model: &Model, inputs: Vec<Fact>) -> Result<Specialised, NotPrepared> {
    let facts = model.infer_stored(inputs)?;
    for node in &model.graph.nodes {
        let needed = bytes(fact(&facts, node.output));
        if needed > model.limits.arena_bytes_max {
            return Err(NotPrepared::TooLarge { needed, limit: model.limits.arena_bytes_max });
        }
    }
    let mut homes = Homes::new(model, &facts);
    let mut pending = Vec::new();
    for work in works(model, &facts) {
        let step = pending.len() + 1;
        let made = &model.graph.nodes[work.node()];
        let operands: PerOperand<(ValueId, Home)> =
            work.operands(model).into_iter().map(|operand| (operand, homes.used(operand, step))).collect();
        if let (true, [(_, Home::Tenant(tenant))]) = (made.op.only_reshapes(), operands.as_slice()) {
            homes.at[made.output.index()] = Some(Home::Tenant(*tenant));
            continue;
        }
        let scratch = homes.rent(work.scratch(model, &facts), step);
        let output = homes.rent(bytes(fact(&facts, made.output)), step);
        homes.at[made.output.index()] = Some(Home::Tenant(output));
        pending.push((work, operands, output, scratch));
    }
    let end = pending.len() + 1;
    let outputs: Vec<Home> = model.graph.outputs.iter().map(|&output| homes.used(output, end)).collect();
    let (places, arena_bytes) = memory::places(&homes.tenants);
    if arena_bytes > model.limits.arena_bytes_max {
        return Err(NotPrepared::TooLarge { needed: arena_bytes, limit: model.limits.arena_bytes_max });
    }
    let place = |tenant: usize| places[tenant].start..places[tenant].start + homes.tenants[tenant].bytes;
    let source = |home: &Home| match *home {
        Home::Tenant(tenant) => Source::Arena(place(tenant)),
        Home::Constant(value) => Source::Constant(value),
        Home::Known(at) => Source::Known(at),
    };
    let steps = pending.into_iter().map(|(work, operands, output, scratch)| Step {
        work,
        operands: operands.iter().map(|(value, home)| (*value, source(home))).collect(),
        output: place(output),
        scratch: place(scratch),
    });
    Ok(Specialised {
        steps: steps.collect(),
        inputs: (0..model.graph.inputs.len()).map(place).collect(),
        outputs: outputs.iter().map(source).collect(),
        known: homes.known,
        arena_bytes,
        facts,
    })
}

/// All layers whose output is not known, those of chains together.
fn works(model: &Model, facts: &GraphFacts) -> Vec<Work> {
    let mut chains = chain::find(model, facts).into_iter().peekable();
    let mut works = Vec::new();
    for node in 0..model.layers.len() {
        if fact(facts, model.graph.nodes[node].output).value.is_some() {
            continue;
        }
        match chains.next_if(|chain| chain.last() == node) {
            Some(chain) => works.push(Work::Chain(chain)),
            None if chains.peek().is_some_and(|chain| chain.nodes().any(|link| link == node)) => {}
            None => works.push(Work::Layer(node)),
        }
    }
    works
}

/// The fact of a value; inference left none without.
pub(super) fn fact(facts: &GraphFacts, value: ValueId) -> &Fact {
    facts.get(value).expect("inference gives every value of a live node a fact")
}

fn bytes(fact: &Fact) -> usize {
    fact.bytes().expect("inference refuses shapes that overflow")
}

/// What will hold each value.
struct Homes<'a> {
    model: &'a Model,
    facts: &'a GraphFacts,
    at: Vec<Option<Home>>,
    tenants: Vec<Tenant>,
    known: Vec<Aligned>,
}

#[derive(Clone, Copy, Debug)]
enum Home {
    Tenant(usize),
    Constant(ValueId),
    Known(usize),
}

impl<'a> Homes<'a> {
    /// Inputs are the first tenants, from before the first step.
    fn new(model: &'a Model, facts: &'a GraphFacts) -> Self {
        let mut homes =
            Self { model, facts, at: vec![None; model.graph.value_count()], tenants: Vec::new(), known: Vec::new() };
        for &input in &model.graph.inputs {
            let tenant = homes.rent(bytes(fact(facts, input)), 0);
            homes.at[input.index()] = Some(Home::Tenant(tenant));
        }
        homes
    }

    fn rent(&mut self, bytes: usize, step: usize) -> usize {
        self.tenants.push(Tenant { bytes, alive: step..step + 1 });
        self.tenants.len() - 1
    }

    /// Where a value is, alive until this step.
    fn used(&mut self, value: ValueId, step: usize) -> Home {
        if let Some(home) = self.at[value.index()] {
            if let Home::Tenant(tenant) = home {
                self.tenants[tenant].alive.end = step + 1;
            }
            return home;
        }
        let home = if self.model.constants[value.index()].is_some() {
            Home::Constant(value)
        } else {
            let known = fact(self.facts, value).value.as_ref();
            let tensor = known.expect("a value without a layer before it is an input, a constant, or known");
            self.known.push(Aligned::of(tensor.bytes()));
            Home::Known(self.known.len() - 1)
        };
        self.at[value.index()] = Some(home);
        home
    }
}
