//! Which compiled plan runs which input shapes: one symbolic plan where tract can make it, else one per shape, of which
//! the least recently used is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::runner::Runner;
use super::typed::{Extents, Source, compiled};
use crate::tensor::Shape;

/// The plans of one model.
#[derive(Debug)]
pub(super) enum Shapes {
    Symbolic {
        whole: Runner,
        /// The same with one row, which tract can optimise further.
        row: Option<Runner>,
    },
    PerShape(Box<PerShape>),
}

impl Shapes {
    /// The plan for these shapes, made first where there is none.
    pub(super) fn runner(&self, shapes: &[Shape]) -> Result<Chosen<'_>, String> {
        match self {
            Self::Symbolic { whole, .. } => Ok(Chosen::Kept(whole)),
            Self::PerShape(plans) => plans.runner(shapes).map(Chosen::Shared),
        }
    }

    /// Copies of the weights that are held: each plan packs its own, and the file's message is kept to make more.
    pub(super) fn copies(&self) -> u64 {
        match self {
            Self::Symbolic { row, .. } => 1 + u64::from(row.is_some()),
            Self::PerShape(plans) => 1 + lock(&plans.plans).len() as u64,
        }
    }

    /// As `runner`, for inputs of one row each.
    pub(super) fn row_runner(&self, shapes: &[Shape]) -> Result<Chosen<'_>, String> {
        match self {
            Self::Symbolic { row: Some(row), .. } => Ok(Chosen::Kept(row)),
            _ => self.runner(shapes),
        }
    }
}

pub(super) enum Chosen<'a> {
    Kept(&'a Runner),
    Shared(Arc<Runner>),
}

impl std::ops::Deref for Chosen<'_> {
    type Target = Runner;

    fn deref(&self) -> &Runner {
        match self {
            Self::Kept(runner) => runner,
            Self::Shared(runner) => runner,
        }
    }
}

#[derive(Debug)]
pub(super) struct PerShape {
    source: Source,
    plans_max: usize,
    /// The most recently used last.
    plans: Mutex<Vec<(Vec<Shape>, Arc<Runner>)>>,
    /// Held while a plan is made: one at a time, so that a new shape is prepared once.
    making: Mutex<()>,
}

impl PerShape {
    pub(super) fn new(source: Source, plans_max: usize) -> Self {
        Self { source, plans_max: plans_max.max(1), plans: Mutex::default(), making: Mutex::default() }
    }

    fn runner(&self, shapes: &[Shape]) -> Result<Arc<Runner>, String> {
        if let Some(found) = self.find(shapes) {
            return Ok(found);
        }
        let _making = lock(&self.making);
        if let Some(found) = self.find(shapes) {
            return Ok(found);
        }
        let made = Arc::new(Runner::new(compiled(self.source.typed(Extents::Concrete(shapes))?)?)?);
        let mut plans = lock(&self.plans);
        if plans.len() >= self.plans_max {
            plans.remove(0);
        }
        plans.push((shapes.to_vec(), Arc::clone(&made)));
        Ok(made)
    }

    fn find(&self, shapes: &[Shape]) -> Option<Arc<Runner>> {
        let mut plans = lock(&self.plans);
        let position = plans.iter().rposition(|(kept, _)| kept == shapes)?;
        let used = plans.remove(position);
        let runner = Arc::clone(&used.1);
        plans.push(used);
        Some(runner)
    }
}

/// The list is whole at any time: plans are made outside of its lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
