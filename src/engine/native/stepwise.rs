//! Runs models whose shapes follow from contents: one node after the other, each inferred from what those before it
//! made. Kernels and weights are those of other models; memory is found anew for every value.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kinglet_kernels::Aligned;

use super::layers::{Io, Unfit, View, ViewMut};
use super::model::Model;
use super::spare::Memory;
use crate::engine::graph::control::{Repeat, Several};
use crate::engine::graph::foreign::Foreign;
use crate::engine::graph::infer::{Facts, PerOperand};
use crate::engine::graph::samples::{GraphFacts, KNOWN_ELEMENTS_MAX, Stopped};
use crate::engine::graph::{Fact, Node, Op, ValueId, tensor_of_integers};
use crate::engine::pool::Team;
use crate::tensor::{DType, Shape, Tensor};

/// What the nodes of a run share.
pub(super) struct Walk<'a, 'b> {
    pub(super) memory: &'a mut Memory<'b>,
    pub(super) team: &'a mut Team,
    /// Hears what a layer took.
    pub(super) tell: &'a mut dyn FnMut(&Model, usize, &GraphFacts, Duration),
}

/// A value and where it is.
#[derive(Clone, Debug)]
pub(super) struct Value<'m> {
    pub(super) fact: Fact,
    pub(super) at: Place<'m>,
}

#[derive(Clone, Debug)]
pub(super) enum Place<'m> {
    Own(Rc<Aligned>),
    Constant(&'m Aligned),
}

/// What a node makes.
#[derive(Clone, Debug)]
enum Made<'m> {
    Value(Place<'m>),
    Several(Vec<Value<'m>>),
}

/// Why a run ended without an answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum NotRun {
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("{node}: the run needs more than {limit} bytes")]
    TooLarge { node: String, limit: usize },
    #[error("{node}: more than {limit} rounds")]
    Endless { node: String, limit: u64 },
    #[error("{node}: {unfit}")]
    Unfit { node: String, unfit: Unfit },
    #[error("{node}: {problem}")]
    Foreign { node: String, problem: String },
    #[error("{node}: a round makes {got}, expected {expected}")]
    Uneven { node: String, expected: String, got: String },
}

impl Value<'_> {
    /// A value from outside.
    pub(super) fn given(fact: Fact, memory: &mut Memory<'_>, fill: impl FnOnce(&mut [u8])) -> Option<Self> {
        let length = fact.bytes()?;
        let mut piece = memory.take(length)?;
        fill(&mut piece.elements_mut()[..length]);
        Some(Self { fact, at: Place::Own(Rc::new(piece)) }.with_contents())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.at.memory().elements()[..self.fact.bytes().unwrap_or(0)]
    }

    /// A copy of a few bytes.
    fn small(dtype: DType, shape: Shape, bytes: &[u8]) -> Self {
        let at = Place::Own(Rc::new(Aligned::of(bytes)));
        Self { fact: Fact::new(dtype, shape), at }.with_contents()
    }

    /// Shapes may depend on the contents of small values.
    pub(super) fn with_contents(mut self) -> Self {
        if self.fact.value.is_none() && self.fact.elements() <= KNOWN_ELEMENTS_MAX {
            self.fact.value = contents(&self.fact, self.bytes());
        }
        self
    }

    fn is_true(&self) -> bool {
        self.bytes().first().is_some_and(|byte| *byte != 0)
    }
}

impl Place<'_> {
    fn memory(&self) -> &Aligned {
        match self {
            Self::Own(memory) => memory,
            Self::Constant(memory) => memory,
        }
    }
}

/// One run of one graph.
struct Run<'m> {
    model: &'m Model,
    facts: GraphFacts,
    made: Vec<Option<Made<'m>>>,
}

/// The outputs of a model for these inputs.
pub(super) fn run<'m>(
    model: &'m Model,
    inputs: Vec<Value<'m>>,
    walk: &mut Walk<'_, '_>,
) -> Result<Vec<Value<'m>>, NotRun> {
    let mut run =
        Run { model, facts: GraphFacts::of_constants(&model.graph), made: vec![None; model.graph.value_count()] };
    for (constant, made) in model.constants.iter().zip(&mut run.made) {
        *made = constant.as_ref().map(|constant| Made::Value(Place::Constant(constant)));
    }
    for (&input, value) in model.graph.inputs.iter().zip(inputs) {
        run.keep(input, value);
    }
    for (at, node) in model.graph.nodes.iter().enumerate() {
        run.node(at, node, walk)?;
        for &ended in &model.ends[at] {
            run.forget(ended, walk);
        }
    }
    Ok(model.graph.outputs.iter().map(|&output| run.value(output)).collect())
}

impl<'m> Run<'m> {
    fn node(&mut self, at: usize, node: &'m Node, walk: &mut Walk<'_, '_>) -> Result<(), NotRun> {
        match &node.op {
            Op::Several(Several::Branch(_)) => {
                let condition = self.value(node.inputs[0]).is_true();
                let given = node.inputs[1..].iter().map(|&input| self.value(input)).collect();
                let body = &self.model.layers[at].bodies[usize::from(!condition)];
                self.made[node.output.index()] = Some(Made::Several(run(body, given, walk)?));
            }
            Op::Several(Several::Repeat(repeat)) => {
                let made = self.repeat(at, node, repeat, walk)?;
                self.made[node.output.index()] = Some(Made::Several(made));
            }
            Op::Several(Several::Foreign(foreign)) => {
                let made = self.foreign(node, foreign, walk)?;
                self.made[node.output.index()] = Some(Made::Several(made));
            }
            Op::Part(part) => {
                let Some(Made::Several(values)) = &self.made[node.inputs[0].index()] else { return Ok(()) };
                let value = values[*part].clone();
                self.keep(node.output, value);
            }
            _ => self.layer(at, node, walk)?,
        }
        Ok(())
    }

    /// What another engine makes.
    fn foreign(&self, node: &Node, foreign: &Foreign, walk: &mut Walk<'_, '_>) -> Result<Vec<Value<'m>>, NotRun> {
        let failed = |problem: String| NotRun::Foreign { node: node.name.clone(), problem };
        let given = node.inputs.iter().map(|&input| {
            let value = self.value(input);
            contents(&value.fact, value.bytes()).ok_or_else(|| failed("an operand has no tensor".into()))
        });
        let made = foreign.0.run(&given.collect::<Result<Vec<_>, _>>()?).map_err(failed)?;
        let limit = walk.memory.limit();
        let value = |tensor: Tensor| {
            let fact = Fact::new(tensor.dtype(), tensor.shape().clone());
            let value = Value::given(fact, walk.memory, |to| to.copy_from_slice(tensor.bytes()));
            value.ok_or_else(|| NotRun::TooLarge { node: node.name.clone(), limit })
        };
        made.into_iter().map(value).collect()
    }

    fn layer(&mut self, at: usize, node: &'m Node, walk: &mut Walk<'_, '_>) -> Result<(), NotRun> {
        if node.op.reads_contents() {
            self.know_all(node);
        }
        let fact = self.facts.infer_node(&self.model.graph, node, &|_, _| None)?;
        if let Some(value) = &fact.value {
            let value = Value::small(fact.dtype, fact.shape.clone(), value.bytes());
            self.keep(node.output, value);
            return Ok(());
        }
        let layered = &self.model.layers[at];
        if let (true, [operand]) = (node.op.only_reshapes(), &layered.operands[..]) {
            let value = Value { fact, ..self.value(*operand) };
            self.keep(node.output, value.with_contents());
            return Ok(());
        }
        let started = Instant::now();
        let made = self.run_layer(at, node, &fact, walk)?;
        let taken = started.elapsed();
        self.keep(node.output, Value { fact, at: Place::Own(Rc::new(made)) }.with_contents());
        (walk.tell)(self.model, at, &self.facts, taken);
        Ok(())
    }

    fn run_layer(&self, at: usize, node: &Node, fact: &Fact, walk: &mut Walk<'_, '_>) -> Result<Aligned, NotRun> {
        let layered = &self.model.layers[at];
        let all: Facts<'_> = node.inputs.iter().filter_map(|&input| self.facts.get(input)).collect();
        let length = fact.bytes().unwrap_or(usize::MAX);
        let scratch_bytes = layered.layer.scratch(&all, self.model.limits.threads_max);
        let (Some(mut output), Some(mut scratch)) = (walk.memory.take(length), walk.memory.take(scratch_bytes)) else {
            return Err(NotRun::TooLarge { node: node.name.clone(), limit: walk.memory.limit() });
        };
        let operands: PerOperand<Value<'m>> = layered.operands.iter().map(|&operand| self.value(operand)).collect();
        let views = operands.iter().map(|value| View { fact: &value.fact, bytes: value.bytes() });
        let mut io = Io {
            operands: views.collect(),
            output: ViewMut { fact, bytes: &mut output.elements_mut()[..length] },
            scratch: &mut scratch.elements_mut()[..scratch_bytes],
        };
        let ran = io.run(&*layered.layer, walk.team);
        drop(io);
        walk.memory.give_back(scratch);
        ran.map_err(|unfit| NotRun::Unfit { node: node.name.clone(), unfit })?;
        Ok(output)
    }

    /// The rounds of a loop: what is carried, then what was collected.
    fn repeat(
        &self,
        at: usize,
        node: &Node,
        repeat: &Repeat,
        walk: &mut Walk<'_, '_>,
    ) -> Result<Vec<Value<'m>>, NotRun> {
        let body = &self.model.layers[at].bodies[0];
        let limits = self.model.limits;
        let given: Vec<Value<'m>> = node.inputs.iter().map(|&input| self.value(input)).collect();
        let trips = given[0].fact.integers("how often a loop repeats");
        let trips = trips.map_err(|source| Stopped { node: node.name.clone(), source })?;
        let trips = trips.first().map_or(u64::MAX, |&trips| u64::try_from(trips).unwrap_or(0));
        let (mut carried, besides) = (given[2..2 + repeat.carried].to_vec(), &given[2 + repeat.carried..]);
        let mut condition = given[1].clone();
        let mut collected: Vec<Vec<Value<'m>>> = vec![Vec::new(); repeat.empty.len()];
        let mut round = 0;
        while round < trips && condition.is_true() {
            if round == limits.rounds_max {
                return Err(NotRun::Endless { node: node.name.clone(), limit: limits.rounds_max });
            }
            let number = i64::try_from(round).unwrap_or(i64::MAX);
            let number = Value::small(DType::I64, Shape::new(&[]), tensor_of_integers(&[], &[number]).bytes());
            let mut inputs = vec![number, condition];
            inputs.append(&mut carried);
            inputs.extend_from_slice(besides);
            let mut made = run(body, inputs, walk)?.into_iter();
            condition = made.next().unwrap_or_else(|| given[1].clone());
            carried.extend(made.by_ref().take(repeat.carried));
            collected.iter_mut().zip(made).for_each(|(rounds, value)| rounds.push(value));
            round += 1;
        }
        for (rounds, (dtype, shape)) in collected.into_iter().zip(&repeat.empty) {
            carried.push(behind_each_other(node, rounds, (*dtype, shape), walk.memory)?);
        }
        Ok(carried)
    }

    fn value(&self, value: ValueId) -> Value<'m> {
        let fact = self.facts.get(value).expect("what is taken was made or given before");
        match &self.made[value.index()] {
            Some(Made::Value(at)) => Value { fact: fact.clone(), at: at.clone() },
            _ => {
                let bytes = fact.value.as_ref().map(Tensor::bytes);
                let bytes = bytes.expect("what is not made is a small constant");
                Value { fact: fact.clone(), at: Place::Own(Rc::new(Aligned::of(bytes))) }
            }
        }
    }

    fn keep(&mut self, value: ValueId, made: Value<'m>) {
        self.facts.set(value, made.fact);
        self.made[value.index()] = Some(Made::Value(made.at));
    }

    /// A node takes its decisions from the contents of what it is given, however large.
    fn know_all(&mut self, node: &Node) {
        for &input in &node.inputs {
            let value = self.value(input);
            if value.fact.value.is_none() {
                let known = contents(&value.fact, value.bytes());
                self.facts.set(input, Fact { value: known, ..value.fact });
            }
        }
    }

    fn forget(&mut self, value: ValueId, walk: &mut Walk<'_, '_>) {
        let values = match self.made[value.index()].take() {
            Some(Made::Value(at)) => vec![at],
            Some(Made::Several(values)) => values.into_iter().map(|value| value.at).collect(),
            None => return,
        };
        for at in values {
            if let Place::Own(memory) = at
                && let Ok(memory) = Rc::try_unwrap(memory)
            {
                walk.memory.give_back(memory);
            }
        }
    }
}

fn contents(fact: &Fact, bytes: &[u8]) -> Option<Tensor> {
    Tensor::new(fact.dtype, fact.shape.clone(), Bytes::copy_from_slice(bytes)).ok()
}

/// Values of one shape as one, along a new first axis.
fn behind_each_other<'m>(
    node: &Node,
    rounds: Vec<Value<'m>>,
    (dtype, shape): (DType, &Shape),
    memory: &mut Memory<'_>,
) -> Result<Value<'m>, NotRun> {
    let Some(first) = rounds.first().map(|value| value.fact.clone()) else {
        let shape = [0].into_iter().chain(shape.iter().copied()).collect();
        return Ok(Value::small(dtype, shape, &[]));
    };
    if let Some(other) = rounds.iter().find(|value| value.fact.shape != first.shape) {
        let (expected, got) = (first.shape.to_string(), other.fact.shape.to_string());
        return Err(NotRun::Uneven { node: node.name.clone(), expected, got });
    }
    let piece = first.bytes().unwrap_or(0);
    let length = piece.saturating_mul(rounds.len());
    let all = memory.take(length);
    let mut all = all.ok_or_else(|| NotRun::TooLarge { node: node.name.clone(), limit: memory.limit() })?;
    let pieces = all.elements_mut::<u8>()[..length].chunks_exact_mut(piece.max(1));
    rounds.iter().zip(pieces).for_each(|(value, to)| to.copy_from_slice(value.bytes()));
    let shape = [rounds.len()].into_iter().chain(first.shape.iter().copied()).collect();
    Ok(Value { fact: Fact::new(first.dtype, shape), at: Place::Own(Rc::new(all)) }.with_contents())
}
