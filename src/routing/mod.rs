//! Room 3: from a name to the build that answers, and the check of a request against its signature.
//!
//! Where a version has variants, a pure rule (`variant_rule`) chooses among them by what the request allows and the stage
//! that the server is at; what power or the grid ask of that is `governor`'s matter, and the joules that are left `ledger`'s.
//! After this room inputs stand in the signature's order, with the model's own shapes, and nothing needs checking again.

mod bind;
pub mod choice;
pub mod config;
mod governor;
mod ledger;
mod variant_rule;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use choice::{Choice, Conditions, Grant, Standing};
pub use config::BudgetsConfig;
pub use variant_rule::is_level;

use self::choice::Choosing;
use crate::admission::Admitted;
use crate::engine::signature::{Bindings, ShapeMismatch};
use crate::infer::{Budget, InferRequest, ModelName, VariantName, VariantReason, VersionId, Wanted};
use crate::metering::Latest;
use crate::repository::catalog::LookupError;
use crate::repository::{Catalog, Variant};
use crate::telemetry::Metrics;
use crate::tensor::{DType, Tensor};
use crate::units::Nanojoules;

#[derive(Debug)]
pub struct Router {
    choosing: Arc<Choosing>,
}

/// A request with the build that will answer it.
#[derive(Debug)]
pub struct Routed {
    pub admitted: Admitted,
    pub variant: Arc<Variant>,
    /// In the plan's order and shapes.
    pub inputs: Vec<Tensor>,
    /// Batch elements; 1 where the model does not batch.
    pub rows: usize,
    /// When it began to wait for its answer.
    pub arrived: Instant,
    /// What it may take, where power is limited.
    pub grant: Option<Grant>,
}

impl Routed {
    /// What its answer takes at least, by what the signature says of the outputs that are wanted.
    pub fn answer_bytes_min(&self) -> u64 {
        let (signature, wanted) = (&self.variant.signature, &self.admitted.request.outputs);
        let mut extents = Bindings::new();
        for (spec, tensor) in signature.inputs.iter().zip(&self.inputs) {
            spec.bind(tensor.shape(), &mut extents);
        }
        let outputs = signature.outputs.iter();
        let outputs = outputs.filter(|output| wanted.is_empty() || wanted.contains(&output.name));
        outputs.map(|output| output.bytes_min(&extents)).fold(0, u64::saturating_add)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(transparent)]
    BudgetUnmet(Box<Unmet>),
    #[error("the machine takes as much power as budgets.power_watts_max allows: {watts_max} W")]
    PowerSpent { watts_max: f64, retry_after: Duration },
    #[error("unexpected input {got:?}, the model has {expected}")]
    UnknownInput { got: String, expected: String },
    #[error("input {0:?} is given twice")]
    DuplicateInput(String),
    #[error("input {name:?} is missing, expected {expected}")]
    MissingInput { name: String, expected: String },
    #[error("input {input:?} expects datatype {expected}, got {got}")]
    WrongDType { input: String, expected: DType, got: DType },
    #[error(transparent)]
    WrongShape(#[from] ShapeMismatch),
    #[error("input {input:?} has {got} rows, other inputs have {expected}")]
    RowsDiffer { input: String, expected: usize, got: usize },
    #[error("batch of {got} rows is too large, the model takes at most {limit}")]
    TooManyRows { got: usize, limit: usize },
    #[error("unexpected output {got:?}, the model has {expected}")]
    UnknownOutput { got: String, expected: String },
}

/// What no build of a version can keep, and which comes the nearest.
#[derive(Clone, Debug, PartialEq)]
pub struct Unmet {
    pub model: ModelName,
    pub version: VersionId,
    pub budget: Budget,
    pub nearest: Option<VariantName>,
    /// What is known of the nearest.
    pub accuracy: Option<f64>,
    pub latency: Option<Duration>,
    pub energy: Option<Nanojoules>,
}

impl Router {
    pub fn new(budgets: BudgetsConfig, metrics: &Metrics) -> Self {
        Self { choosing: Arc::new(Choosing::new(budgets, metrics.budgets.clone())) }
    }

    /// Settings that hold from the next request on.
    pub fn reconfigure(&self, budgets: BudgetsConfig) {
        self.choosing.configure(budgets);
    }

    /// What holds now where requests leave a choice.
    pub fn standing(&self) -> Standing {
        self.choosing.standing()
    }

    /// Takes a window of the meter that has just ended, for what power and the grid ask of choices.
    pub fn settle(&self, latest: &Latest) {
        self.choosing.settle(latest);
    }

    /// The build that answers, of those that are loaded: the variant that is named, or the one that the rule chooses.
    /// `conditions` are asked for where there is something to judge.
    ///
    /// # Errors
    /// When there is none, or none keeps the budget.
    pub fn choose(
        &self,
        catalog: &Catalog,
        admitted: &Admitted,
        conditions: impl FnOnce() -> Conditions,
    ) -> Result<Choice, RouteError> {
        let request = &admitted.request;
        let named = match &request.variant {
            Wanted::Any => None,
            Wanted::Own => Some(catalog.find(&request.model, request.version)?),
            Wanted::Named(name) => Some(catalog.find_variant(&request.model, request.version, Some(name))?),
        };
        if let Some(named) = named {
            let choice = self.choosing.among(&[named], request, conditions)?;
            return Ok(Choice { reason: Some(VariantReason::Named), ..choice });
        }
        let (own, version) = catalog.find_version(&request.model, request.version)?;
        if version.variants.is_empty() {
            return self.choosing.among(&[own], request, conditions);
        }
        self.choose_among(own, version.alike(own), request, conditions)
    }

    /// The build that answers, of a version's own and others that take the same.
    ///
    /// # Errors
    /// When none keeps the budget.
    pub fn choose_among<'a>(
        &self,
        own: &'a Arc<Variant>,
        alike: impl Iterator<Item = &'a Arc<Variant>>,
        request: &InferRequest,
        conditions: impl FnOnce() -> Conditions,
    ) -> Result<Choice, RouteError> {
        let mut builds: Vec<&Arc<Variant>> = [own].into_iter().chain(alike).collect();
        let default = own.settings.default_variant.as_ref();
        if let Some(at) = default.and_then(|name| builds.iter().position(|build| build.name.as_ref() == Some(name))) {
            builds.swap(0, at);
        }
        self.choosing.among(&builds, request, conditions)
    }

    /// Refuses a request of which nobody knows yet what it takes, where power is limited and nothing is left of it.
    ///
    /// # Errors
    /// When the power is spent.
    pub fn check_power(&self) -> Result<(), RouteError> {
        self.choosing.check_power()
    }

    /// Takes what the chosen build will, where power is limited: for requests that nothing else is wrong with.
    ///
    /// # Errors
    /// When the power is spent.
    pub fn take_power(&self, choice: &Choice) -> Result<Option<Grant>, RouteError> {
        self.choosing.take(choice.wants)
    }

    /// Checks a request against the build's signature and brings its inputs into the plan's form.
    ///
    /// # Errors
    /// When a name, datatype, shape or row count does not fit.
    pub fn bind(&self, mut admitted: Admitted, variant: Arc<Variant>) -> Result<Routed, RouteError> {
        let given = std::mem::take(&mut admitted.request.inputs);
        let (inputs, rows) = bind::inputs(given, &variant)?;
        bind::check_outputs(&admitted.request.outputs, &variant.signature)?;
        Ok(Routed { admitted, variant, inputs, rows, arrived: Instant::now(), grant: None })
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, version, budget, nearest, accuracy, latency, energy } = self;
        write!(f, "no build of model {model:?} version {version} keeps the budget ({budget}); the nearest is ")?;
        match nearest {
            Some(name) => write!(f, "variant {name:?}")?,
            None => f.write_str("its own")?,
        }
        let of = |what: &str, figure: Option<String>| format!("{what} {}", figure.unwrap_or_else(|| "unknown".into()));
        let latency = budget.latency_max.map(|_| of("latency", latency.map(|latency| format!("{latency:.3?}"))));
        let energy =
            budget.energy_max.map(|_| of("energy", energy.map(|energy| format!("{} mJ", energy.as_millijoules()))));
        let accuracy = budget.accuracy_min.map(|_| of("accuracy", accuracy.map(|share| share.to_string())));
        let figures: Vec<String> = [latency, energy, accuracy].into_iter().flatten().collect();
        write!(f, " ({})", figures.join(", "))
    }
}

impl std::error::Error for Unmet {}

#[cfg(test)]
mod tests;
