//! Which tensor of an ensemble is which input and output of its steps: pure, from what files declare and signatures say.
//!
//! Where a step does not say where an input comes from, it is the tensor of that name from another step; else, if it is the only one
//! left, the one output of the step before; else the ensemble's input of that name.

use std::collections::{BTreeSet, HashMap};

use super::declared::DeclaredStep;
use crate::engine::{Dim, Signature, TensorSpec};

/// The tensors of an ensemble by position, and its steps in an order in which each finds its inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wiring {
    /// Positions in what was declared.
    pub(super) order: Vec<usize>,
    /// The tensors of each step's inputs, in its signature's order. By declared position.
    pub(super) inputs: Vec<Vec<usize>>,
    /// The same of outputs; nothing for one that nobody may take.
    pub(super) outputs: Vec<Vec<Option<usize>>>,
    pub(super) tensors: Vec<String>,
    /// The ensemble's own.
    pub(super) signature: Signature,
    pub(super) results: Vec<usize>,
}

/// What is wrong, and with which step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Miswired {
    pub(super) step: Option<String>,
    pub(super) problem: String,
}

/// The signatures of steps are those that clients see. `inputs` and `outputs` are the ensemble's where they are declared.
///
/// # Errors
/// When a tensor comes from nowhere or from two places, goes nowhere, does not fit where it goes, or waits for itself.
pub(super) fn wire(
    steps: &[DeclaredStep],
    faces: &[&Signature],
    inputs: &[String],
    outputs: &[String],
) -> Result<Wiring, Miswired> {
    let mut loom = Loom { steps, faces, tensors: Vec::new(), positions: HashMap::new() };
    for name in inputs {
        loom.add(name, None)?;
    }
    let made = loom.make()?;
    let taken = loom.connect(inputs.is_empty())?;
    let results = loom.results(outputs, &made)?;
    loom.check_use(&taken, &results)?;
    let order = loom.order(&taken)?;
    loom.finish(order, taken, made, results)
}

/// What is known so far.
struct Loom<'a> {
    steps: &'a [DeclaredStep],
    faces: &'a [&'a Signature],
    tensors: Vec<Tensor>,
    positions: HashMap<String, usize>,
}

struct Tensor {
    name: String,
    /// The step and its output; an input of the ensemble has none.
    from: Option<(usize, usize)>,
}

impl Loom<'_> {
    fn add(&mut self, name: &str, from: Option<(usize, usize)>) -> Result<usize, Miswired> {
        if let Some(&other) = self.positions.get(name) {
            let of = |from: Option<(usize, usize)>| match from {
                Some((step, _)) => format!("from step {:?}", self.steps[step].name),
                None => "an input of the ensemble".to_owned(),
            };
            let problem = format!(
                "expected one source of tensor {name:?}, got two: it is {} and {}",
                of(self.tensors[other].from),
                of(from)
            );
            return Err(self.wrong(from.map(|(step, _)| step), problem));
        }
        let position = self.tensors.len();
        self.tensors.push(Tensor { name: name.to_owned(), from });
        self.positions.insert(name.to_owned(), position);
        Ok(position)
    }

    /// The tensors that steps make.
    fn make(&mut self) -> Result<Vec<Vec<Option<usize>>>, Miswired> {
        let mut made = Vec::with_capacity(self.steps.len());
        for (at, (step, face)) in self.steps.iter().zip(self.faces).enumerate() {
            self.check_names(at, "output", step.outputs.keys(), &face.outputs)?;
            let mut own = Vec::with_capacity(face.outputs.len());
            for (output, spec) in face.outputs.iter().enumerate() {
                let name = step.outputs.get(&spec.name).or((!step.is_explicit).then_some(&spec.name));
                own.push(name.map(|name| self.add(name, Some((at, output)))).transpose()?);
            }
            made.push(own);
        }
        Ok(made)
    }

    /// The tensors that steps take. Where no input is declared, those are the ensemble's that its first step takes and no step
    /// makes.
    fn connect(&mut self, is_open: bool) -> Result<Vec<Vec<usize>>, Miswired> {
        let mut taken = Vec::with_capacity(self.steps.len());
        for (at, (step, face)) in self.steps.iter().zip(self.faces).enumerate() {
            self.check_names(at, "input", step.inputs.keys(), &face.inputs)?;
            let mut own = Vec::with_capacity(face.inputs.len());
            for spec in &face.inputs {
                own.push(match step.inputs.get(&spec.name) {
                    Some(name) => Some(self.named(at, &spec.name, name, is_open)?),
                    None if step.is_explicit => {
                        return Err(
                            self.wrong(Some(at), format!("nothing says where input {:?} comes from", spec.name))
                        );
                    }
                    None => self.made_elsewhere(at, &spec.name),
                });
            }
            self.take_from_the_step_before(at, &mut own);
            for (position, spec) in own.iter_mut().zip(&face.inputs).filter(|(position, _)| position.is_none()) {
                let given = self.positions.get(&spec.name).copied().filter(|&at| self.tensors[at].from.is_none());
                *position = match given {
                    None if is_open && at == 0 => Some(self.add(&spec.name, None)?),
                    given => given,
                };
            }
            self.take_from_the_step_before(at, &mut own);
            let missing = own.iter().position(Option::is_none);
            if let Some(spec) = missing.map(|missing| &face.inputs[missing]) {
                let problem = format!("input {:?} comes from nowhere, expected one of {}", spec.name, self.names());
                return Err(self.wrong(Some(at), problem));
            }
            taken.push(own.into_iter().flatten().collect());
        }
        Ok(taken)
    }

    /// The tensor that a step says it takes.
    fn named(&mut self, at: usize, input: &str, name: &str, is_open: bool) -> Result<usize, Miswired> {
        match self.positions.get(name) {
            Some(&position) => Ok(position),
            None if is_open && at == 0 => self.add(name, None),
            None => {
                let problem = format!("input {input:?} expects one of the tensors {}, got {name:?}", self.names());
                Err(self.wrong(Some(at), problem))
            }
        }
    }

    fn made_elsewhere(&self, at: usize, name: &str) -> Option<usize> {
        let position = *self.positions.get(name)?;
        self.tensors[position].from.filter(|&(step, _)| step != at).map(|_| position)
    }

    /// Where one input is left, and the step before makes one tensor which is not taken yet, they belong together.
    fn take_from_the_step_before(&self, at: usize, own: &mut [Option<usize>]) {
        let Some(before) = at.checked_sub(1) else { return };
        let is_made_there = |position: &usize| self.tensors[*position].from.is_some_and(|(step, _)| step == before);
        let mut makes = (0..self.tensors.len()).filter(is_made_there);
        let (Some(one), None) = (makes.next(), makes.next()) else { return };
        if own.contains(&Some(one)) {
            return;
        }
        let mut left = own.iter_mut().filter(|position| position.is_none());
        if let (Some(only), None) = (left.next(), left.next()) {
            *only = Some(one);
        }
    }

    /// The tensors that the ensemble answers with: those declared, or all of its last step.
    fn results(&self, outputs: &[String], made: &[Vec<Option<usize>>]) -> Result<Vec<usize>, Miswired> {
        if outputs.is_empty() {
            return Ok(made.last().into_iter().flatten().copied().flatten().collect());
        }
        let find = |name: &String| {
            let made = self.positions.get(name).copied().filter(|&position| self.tensors[position].from.is_some());
            let problem = || format!("expected a step that makes output {name:?}, got none");
            made.ok_or_else(|| self.wrong(None, problem()))
        };
        outputs.iter().map(find).collect()
    }

    /// Nothing is asked for, or computed, in vain.
    fn check_use(&self, taken: &[Vec<usize>], results: &[usize]) -> Result<(), Miswired> {
        let used: BTreeSet<usize> = taken.iter().flatten().chain(results).copied().collect();
        for (position, tensor) in self.tensors.iter().enumerate() {
            if tensor.from.is_none() && !used.contains(&position) {
                return Err(self.wrong(None, format!("input {:?} is taken by no step", tensor.name)));
            }
        }
        for at in 0..self.steps.len() {
            let makes = |&position: &usize| self.tensors[position].from.is_some_and(|(step, _)| step == at);
            if !used.iter().any(makes) {
                return Err(self.wrong(Some(at), "nothing takes what it makes".into()));
            }
        }
        Ok(())
    }

    fn order(&self, taken: &[Vec<usize>]) -> Result<Vec<usize>, Miswired> {
        let mut order: Vec<usize> = Vec::with_capacity(self.steps.len());
        while order.len() < self.steps.len() {
            let is_there =
                |&position: &usize| self.tensors[position].from.is_none_or(|(step, _)| order.contains(&step));
            let next = (0..self.steps.len()).find(|at| !order.contains(at) && taken[*at].iter().all(is_there));
            let Some(next) = next else {
                let names: Vec<String> = (0..self.steps.len())
                    .filter(|at| !order.contains(at))
                    .map(|at| format!("{:?}", self.steps[at].name))
                    .collect();
                return Err(self.wrong(None, format!("steps wait for one another: {}", names.join(", "))));
            };
            order.push(next);
        }
        Ok(order)
    }

    fn finish(
        &self,
        order: Vec<usize>,
        taken: Vec<Vec<usize>>,
        made: Vec<Vec<Option<usize>>>,
        results: Vec<usize>,
    ) -> Result<Wiring, Miswired> {
        let mut specs: Vec<Option<TensorSpec>> = self.tensors.iter().map(|tensor| self.made_as(tensor)).collect();
        for &at in &order {
            for (&position, spec) in taken[at].iter().zip(&self.faces[at].inputs) {
                let name = &self.tensors[position].name;
                specs[position] = Some(match specs[position].take() {
                    None => TensorSpec { name: name.clone(), ..spec.clone() },
                    Some(known) => self.fitted(at, known, spec, position)?,
                });
            }
        }
        let given: Vec<usize> = (0..self.tensors.len()).filter(|&at| self.tensors[at].from.is_none()).collect();
        // Axes of one name mean one extent within a model, not across several.
        let takers = (0..self.steps.len()).filter(|&at| taken[at].iter().any(|position| given.contains(position)));
        let keeps_names = takers.count() == 1;
        let spec = |position: &usize, keeps_names: bool| {
            let mut spec = specs[*position].clone().expect("every tensor is made or taken");
            if !keeps_names {
                spec.dims.iter_mut().filter(|dim| matches!(dim, Dim::Free(_))).for_each(|dim| *dim = Dim::Free(None));
            }
            spec
        };
        let signature = Signature {
            inputs: given.iter().map(|position| spec(position, keeps_names)).collect(),
            outputs: results.iter().map(|position| spec(position, false)).collect(),
        };
        // The ensemble's inputs come first.
        let mut moved: Vec<usize> = given.clone();
        moved.extend((0..self.tensors.len()).filter(|at| !given.contains(at)));
        let new = |old: usize| moved.iter().position(|&at| at == old).unwrap_or(old);
        Ok(Wiring {
            order,
            inputs: taken.into_iter().map(|own| own.into_iter().map(new).collect()).collect(),
            outputs: made.into_iter().map(|own| own.into_iter().map(|at| at.map(new)).collect()).collect(),
            tensors: moved.iter().map(|&at| self.tensors[at].name.clone()).collect(),
            signature,
            results: results.into_iter().map(new).collect(),
        })
    }

    /// What a step says of a tensor that it makes.
    fn made_as(&self, tensor: &Tensor) -> Option<TensorSpec> {
        let (step, output) = tensor.from?;
        Some(TensorSpec { name: tensor.name.clone(), ..self.faces[step].outputs[output].clone() })
    }

    /// A tensor as both sides have it.
    fn fitted(
        &self,
        at: usize,
        known: TensorSpec,
        wanted: &TensorSpec,
        position: usize,
    ) -> Result<TensorSpec, Miswired> {
        let both = |(known, wanted): (&Dim, &Dim)| match (known, wanted) {
            (Dim::Fixed(a), Dim::Fixed(b)) => (a == b).then_some(Dim::Fixed(*a)),
            (Dim::Fixed(extent), Dim::Free(_)) | (Dim::Free(_), Dim::Fixed(extent)) => Some(Dim::Fixed(*extent)),
            (Dim::Free(_), Dim::Free(_)) => Some(known.clone()),
        };
        let dims: Option<Vec<Dim>> = known.dims.iter().zip(&wanted.dims).map(both).collect();
        match dims.filter(|_| known.dtype == wanted.dtype && known.dims.len() == wanted.dims.len()) {
            Some(dims) => Ok(TensorSpec { dims, ..known }),
            None => {
                let source = match self.tensors[position].from {
                    Some((step, _)) => format!("from step {:?}", self.steps[step].name),
                    None => "as another step takes it".to_owned(),
                };
                let problem = format!(
                    "input {:?} expects {} {}, got {:?} {source}, which is {} {}",
                    wanted.name,
                    wanted.dtype,
                    wanted.shown_dims(),
                    known.name,
                    known.dtype,
                    known.shown_dims()
                );
                Err(self.wrong(Some(at), problem))
            }
        }
    }

    fn check_names<'n>(
        &self,
        at: usize,
        kind: &str,
        mut names: impl Iterator<Item = &'n String>,
        specs: &[TensorSpec],
    ) -> Result<(), Miswired> {
        match names.find(|name| !specs.iter().any(|spec| spec.name == **name)) {
            None => Ok(()),
            Some(unknown) => {
                let known: Vec<String> = specs.iter().map(|spec| format!("{:?}", spec.name)).collect();
                let problem = format!("it has no {kind} {unknown:?}, expected one of {}", known.join(", "));
                Err(self.wrong(Some(at), problem))
            }
        }
    }

    fn names(&self) -> String {
        let mut names: Vec<String> = self.tensors.iter().map(|tensor| format!("{:?}", tensor.name)).collect();
        names.sort();
        names.join(", ")
    }

    fn wrong(&self, step: Option<usize>, problem: String) -> Miswired {
        Miswired { step: step.map(|at| self.steps[at].name.clone()), problem }
    }
}
