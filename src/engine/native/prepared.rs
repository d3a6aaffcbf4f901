//! What was prepared for the extents of requests, kept for the next with the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use smallvec::SmallVec;

use super::model::Model;
use super::specialise::{Specialised, specialise};
use crate::engine::EngineError;
use crate::engine::graph::Fact;
use crate::engine::pool::lock;
use crate::tensor::{DType, Shape};

/// Shapes of all inputs.
pub(super) type Extents = SmallVec<[Shape; 4]>;

/// At most `limit` of them; the one not used for longest makes room.
#[derive(Debug)]
pub(super) struct Prepared {
    kept: Mutex<HashMap<Extents, Kept>>,
    /// Of the inputs.
    dtypes: Vec<DType>,
    limit: usize,
    clock: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    specialised: Arc<Specialised>,
    used: u64,
}

impl Prepared {
    pub(super) fn new(dtypes: Vec<DType>, limit: usize) -> Self {
        Self { kept: Mutex::default(), dtypes, limit: limit.max(1), clock: AtomicU64::new(0) }
    }

    /// What was prepared for these extents, prepared now where it was not.
    pub(super) fn get(&self, model: &Model, extents: &Extents) -> Result<Arc<Specialised>, EngineError> {
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        if let Some(kept) = lock(&self.kept).get_mut(extents) {
            kept.used = used;
            return Ok(Arc::clone(&kept.specialised));
        }
        let facts = self.dtypes.iter().zip(extents).map(|(&dtype, shape)| Fact::new(dtype, shape.clone())).collect();
        let specialised = specialise(model, facts).map_err(|error| unfit(model, extents.iter(), &error.to_string()))?;
        let specialised = Arc::new(specialised);
        let mut kept = lock(&self.kept);
        if kept.len() >= self.limit
            && let Some(oldest) = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(extents, _)| extents.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(extents.clone(), Kept { specialised: Arc::clone(&specialised), used });
        Ok(specialised)
    }
}

/// Inputs of these shapes cannot be taken.
pub(super) fn unfit<'a>(model: &Model, shapes: impl Iterator<Item = &'a Shape>, reason: &str) -> EngineError {
    let names = model.graph.inputs.iter().zip(shapes);
    let given: Vec<String> = names.map(|(&input, shape)| format!("{}: {shape}", model.graph.name(input))).collect();
    EngineError::InvalidShape(format!("got {}: {reason}", given.join(", ")))
}
