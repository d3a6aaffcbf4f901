//! One loaded build of one version of a model, ready to answer.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::oneshot;

use super::ensemble::Ensemble;
use super::profile::Profile;
use super::settings::ModelSettings;
use crate::engine::{Merging, Plan, Signature};
use crate::infer::{ModelName, VariantName, VersionId};
use crate::metering::{Account, Statistics};
use crate::telemetry::ModelMetrics;
use crate::telemetry::spans::Served;

/// Dropping the last handle unloads the build; requests on their way hold one.
#[derive(Debug)]
pub struct Variant {
    pub model: ModelName,
    pub version: VersionId,
    /// Of a build beside the version's own.
    pub name: Option<VariantName>,
    pub plan: Arc<dyn Plan>,
    /// What it is made of, where it is an ensemble.
    pub ensemble: Option<Arc<Ensemble>>,
    /// Who vouches for its files, where somebody does whom the settings trust.
    pub signer: Option<Arc<str>>,
    /// What clients see: the plan's signature, or the one a configuration reshapes it to.
    pub signature: Signature,
    pub settings: ModelSettings,
    pub metrics: Arc<ModelMetrics>,
    pub statistics: Arc<Statistics>,
    pub profile: Arc<Profile>,
    /// What its batches use, for the meter.
    pub account: Arc<Account>,
    pub attachments: Attachments,
    /// The last field, so that its end comes after that of all others.
    pub presence: Presence,
}

/// Tells when the last handle of a build has been dropped.
#[derive(Debug, Default)]
pub struct Presence(OnceLock<oneshot::Sender<()>>);

/// What later rooms keep for a build.
#[derive(Debug, Default)]
pub struct Attachments {
    /// The batching room's.
    pub queue: Attachment,
    /// The cache room's.
    pub shelf: Attachment,
}

/// A place where a later room keeps what it needs per variant, so that both end together.
#[derive(Default)]
pub struct Attachment(OnceLock<Box<dyn Any + Send + Sync>>);

impl Variant {
    /// Rows of one run at most: 1 where requests cannot be merged.
    pub fn batch_size_max(&self) -> usize {
        match self.plan.merging() {
            Merging::Rows => self.settings.batching.batch_size_max,
            Merging::Alone { .. } => 1,
        }
    }

    /// Rows that one request may have where clients count them: those of a batch, and of an ensemble what it says or else what
    /// all of its steps take.
    pub fn rows_max(&self) -> Option<usize> {
        let Some(ensemble) = &self.ensemble else { return self.merges().then(|| self.batch_size_max()) };
        let least = || ensemble.steps.iter().map(|step| step.build.rows_max()).min().flatten();
        self.settings.rows_alone_max.or_else(least).filter(|_| self.signature.is_batched())
    }

    /// In metrics, where it is known.
    pub(super) fn tell_accuracy(&self) {
        if let Some(accuracy) = self.profile.accuracy() {
            self.metrics.choices.accuracy(accuracy);
        }
    }

    pub fn merges(&self) -> bool {
        *self.plan.merging() == Merging::Rows
    }

    /// What its plan holds, and those of steps that are an ensemble's own.
    pub fn memory_bytes(&self) -> u64 {
        self.plan.memory_bytes() + self.own_steps().map(|step| step.plan.memory_bytes()).sum::<u64>()
    }

    /// The builds of steps that are an ensemble's own.
    pub fn own_steps(&self) -> impl Iterator<Item = &Arc<Self>> {
        self.ensemble.iter().flat_map(|ensemble| ensemble.own())
    }

    /// Its names, for spans.
    pub fn served(&self) -> Served {
        Served { model: self.model.clone(), version: self.version, variant: self.name.clone() }
    }
}

#[cfg(test)]
impl Variant {
    /// A build of version 1 of model `m` that clients see as it is.
    pub fn bare(plan: Arc<dyn Plan>, settings: ModelSettings) -> Self {
        Self {
            model: "m".parse().unwrap(),
            version: VersionId(1),
            name: None,
            signature: plan.signature().clone(),
            plan,
            ensemble: None,
            signer: None,
            settings,
            metrics: crate::telemetry::Metrics::new().model("m", "1", ""),
            statistics: Arc::default(),
            profile: Arc::default(),
            account: Arc::default(),
            attachments: Attachments::default(),
            presence: Presence::default(),
        }
    }
}

impl Presence {
    /// Closes when the build ends. There is one listener: for a second one it is closed already.
    pub fn end(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        // A sender that finds the place taken is dropped here.
        let _ = self.0.set(sender);
        receiver
    }
}

impl Attachment {
    /// The attached value; made by the first caller. One room attaches one type.
    ///
    /// # Panics
    /// When another type was attached before.
    pub fn get_or_attach<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> &T {
        let attached = self.0.get_or_init(|| Box::new(make()));
        attached.downcast_ref().expect("one room attaches one type")
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "attached" } else { "empty" })
    }
}
