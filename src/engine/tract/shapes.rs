//! Which compiled plan runs which input shapes: one symbolic plan where tract can make it, else one per shape, of which
//! the least recently used is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::runner::Runner;
use super::typed::{Extents, Source, compiled};
use crate::engine::LoadOptions;
use crate::telemetry::PlanMetrics;
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
    metrics: PlanMetrics,
    /// The most recently used last.
    plans: Mutex<Vec<(Vec<Shape>, Arc<Runner>)>>,
    /// Held while a plan is made: one at a time, so that a new shape is prepared once.
    making: Mutex<()>,
}

impl PerShape {
    pub(super) fn new(source: Source, options: &LoadOptions) -> Self {
        Self {
            source,
            plans_max: options.shape_plans_max.max(1),
            metrics: options.plans.clone(),
            plans: Mutex::default(),
            making: Mutex::default(),
        }
    }

    fn runner(&self, shapes: &[Shape]) -> Result<Arc<Runner>, String> {
        if let Some(found) = self.find(shapes) {
            return Ok(found);
        }
        let _making = lock(&self.making);
        if let Some(found) = self.find(shapes) {
            return Ok(found);
        }
        let started = Instant::now();
        let made = self.source.typed(Extents::Concrete(shapes)).and_then(|typed| Runner::new(compiled(typed)?));
        self.metrics.count_build(started.elapsed());
        let made = Arc::new(made?);
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

#[cfg(test)]
mod tests {
    use tract_onnx::pb::tensor_proto::DataType;

    use super::*;
    use crate::engine::proto::{floats, node, value_free};
    use crate::engine::testing::model;
    use crate::engine::{Dim, TensorSpec};
    use crate::tensor::DType;

    #[test]
    fn the_shapes_used_last_are_kept_and_builds_are_counted() {
        let (x, y) = (value_free("x", DataType::Float, &["n", "w"]), value_free("y", DataType::Float, &["n", "2"]));
        let nodes = vec![node("MatMul", &["x", "weights"], &["y"], vec![])];
        let proto = model(vec![x], nodes, vec![y], vec![floats("weights", &[2, 2], &[1.; 4])]).proto;
        let dims = ["n", "w"].map(|name| Dim::Free(Some(name.into()))).to_vec();
        let inputs = vec![TensorSpec { name: "x".into(), dtype: DType::F32, dims }];
        let options = LoadOptions { shape_plans_max: 2, ..LoadOptions::default() };
        let plans = PerShape::new(Source { proto, inputs }, &options);
        for (rows, builds) in [(3, 1), (5, 2), (3, 2), (5, 2), (1, 3), (5, 3), (3, 4), (7, 5), (3, 5)] {
            plans.runner(&[Shape::new(&[rows, 2])]).unwrap();
            assert_eq!(options.plans.builds(), builds, "{rows} rows");
            assert!(lock(&plans.plans).len() <= 2);
        }
        assert!(plans.runner(&[Shape::new(&[1, 3])]).is_err());
        assert_eq!(options.plans.builds(), 6, "what fails took its time too");
        assert!(options.plans.seconds() > 0.0);
    }
}
