//! Room 4: answers that are kept for requests which are equal, and one run for all that are
//! equal at the same time.
//!
//! Models ask for it (`response_cache`), and none has it that draws random numbers. What is kept are tensors: their forms on
//! a wire are the front end's. An entry is found by the loaded build and a digest of the inputs (`digest`), stays within one budget of
//! bytes (`sieve`), and ends with its build. docs/cache.md says what clients see.

pub mod config;
mod digest;
mod sieve;
mod store;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use config::CacheConfig;
pub use store::Holding;

use self::digest::Secret;
use self::store::{Entered, Flight, Key, Landing, Store};
use self::turns::Turns;
use crate::engine::Share;
use crate::infer::{CacheOutcome, VariantName};
use crate::repository::Variant;
use crate::routing::Routed;
use crate::telemetry::Metrics;
use crate::telemetry::cache::LookupMetrics;

/// The door of the room.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    secret: Secret,
    metrics: Arc<Metrics>,
}

/// What came of looking an answer up.
#[derive(Debug)]
pub enum Found {
    Answer(Kept),
    /// Nothing: the request is to be computed, for others too.
    Nothing(Lead),
}

/// An answer that needs no run.
#[derive(Debug)]
pub struct Kept {
    pub share: Share,
    /// A hit or coalesced.
    pub outcome: CacheOutcome,
    /// Time of the look itself.
    pub lookup: Duration,
}

/// A request that others with the same inputs may wait for. Dropping it has them look again.
#[derive(Debug)]
pub struct Lead {
    flight: Flight,
    variant: Arc<Variant>,
    pub lookup: Duration,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    #[error("the deadline passed after {waited:?}, before the request was answered")]
    Expired { waited: Duration },
}

/// What is kept for one build. It hangs on the build and takes its entries along.
#[derive(Debug)]
struct Shelf {
    build: u64,
    store: Arc<Store>,
    metrics: LookupMetrics,
}

impl Cache {
    pub fn new(config: &CacheConfig, metrics: &Arc<Metrics>) -> Self {
        let store = Store::new(config.bytes_max.0, metrics.cache.clone());
        Self { store, secret: Secret::draw(), metrics: Arc::clone(metrics) }
    }

    /// The answer to an equal request, where there is one or will be in time; nothing at all for models whose answers are
    /// not kept.
    ///
    /// # Errors
    /// When the deadline passes first.
    pub async fn look_up(&self, routed: &Routed) -> Result<Option<Found>, CacheError> {
        let (variant, schedule) = (&routed.variant, &routed.admitted.request.schedule);
        if !variant.settings.response_cache || self.store.is_off() {
            return Ok(None);
        }
        if schedule.deadline.is_some_and(|deadline| routed.arrived >= deadline) {
            return Err(CacheError::Expired { waited: Duration::ZERO });
        }
        let shelf = variant.attachments.shelf.get_or_attach(|| self.shelf(variant));
        let mut turns = Turns::begin();
        let key = Key { build: shelf.build, inputs: self.secret.digest(&routed.inputs, &mut turns).await };
        let mut entered = self.store.enter(key, schedule);
        let lookup = turns.took();
        shelf.metrics.duration.observe(lookup.as_secs_f64());
        let found = loop {
            let (share, outcome) = match entered {
                Entered::Kept(share) => (share, CacheOutcome::Hit),
                Entered::Leads(flight) => break Found::Nothing(Lead { flight, variant: Arc::clone(variant), lookup }),
                Entered::OnItsWay(landing) => match landed(landing, routed).await? {
                    Landing::Answered(share) => (share, CacheOutcome::Coalesced),
                    Landing::Failed => {
                        entered = Entered::Leads(self.store.alone(key));
                        continue;
                    }
                    Landing::Aloft => {
                        entered = self.store.enter(key, schedule);
                        continue;
                    }
                },
            };
            break Found::Answer(Kept { share: (*share).clone(), outcome, lookup });
        };
        shelf.metrics.count(found.outcome());
        Ok(Some(found))
    }

    /// Another budget, from now on.
    pub fn reconfigure(&self, config: &CacheConfig) {
        self.store.resize(config.bytes_max.0);
    }

    /// Forgets all answers and says what they were. Requests on their way are answered as before.
    pub fn clear(&self) -> Holding {
        self.store.clear()
    }

    pub fn holding(&self) -> Holding {
        self.store.holding()
    }

    fn shelf(&self, variant: &Variant) -> Shelf {
        let name = variant.name.as_ref().map_or("", VariantName::as_str);
        let labels = [variant.model.as_str(), &variant.version.to_string(), name];
        Shelf {
            build: self.store.next_build(),
            store: Arc::clone(&self.store),
            metrics: self.metrics.cache.build(labels),
        }
    }
}

impl Found {
    pub fn outcome(&self) -> CacheOutcome {
        match self {
            Self::Answer(kept) => kept.outcome,
            Self::Nothing(_) => CacheOutcome::Miss,
        }
    }
}

impl Lead {
    /// Keeps the answer and gives it to those who wait for it.
    pub async fn answer(self, share: &Share) {
        let began = Instant::now();
        self.flight.answer(turns::copied(share).await);
        self.variant.statistics.record_cache_miss(self.lookup + began.elapsed());
    }

    /// To be called where the run has failed: those who wait for it need not wait for one another.
    pub fn fail(self) {
        self.flight.fail();
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.store.forget(self.build);
    }
}

/// Waits until a flight has ended; aloft still where it was abandoned.
async fn landed(mut landing: watch::Receiver<Landing>, routed: &Routed) -> Result<Landing, CacheError> {
    let end = async {
        let landed = landing.wait_for(|landing| !matches!(landing, Landing::Aloft)).await;
        landed.map_or(Landing::Aloft, |landing| landing.clone())
    };
    match routed.admitted.request.schedule.deadline {
        None => Ok(end.await),
        Some(deadline) => {
            timeout_at(deadline, end).await.map_err(|_| CacheError::Expired { waited: routed.arrived.elapsed() })
        }
    }
}
