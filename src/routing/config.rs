//! Settings of the routing room: which build of a version answers, and what the server may take.

use serde::Deserialize;

use super::variant_rule::Stage;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct BudgetsConfig {
    pub mode: Mode,
    /// Shares of rows.
    pub balanced_loss_max: f64,
    pub eco_loss_max: f64,
    /// Of the machine; 0 for any.
    pub power_watts_max: f64,
    /// Grams per kWh; 0 for any.
    pub carbon_intensity_max: f64,
}

/// What counts where a request leaves a choice.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Accuracy,
    Balanced,
    Eco,
}

impl Mode {
    pub(super) fn stage(self) -> Stage {
        match self {
            Self::Accuracy => Stage::Accuracy,
            Self::Balanced => Stage::Balanced,
            Self::Eco => Stage::Eco,
        }
    }
}

impl BudgetsConfig {
    pub(super) fn watts_max(&self) -> Option<f64> {
        (self.power_watts_max > 0.0).then_some(self.power_watts_max)
    }

    pub(super) fn intensity_max(&self) -> Option<f64> {
        (self.carbon_intensity_max > 0.0).then_some(self.carbon_intensity_max)
    }

    /// What accuracy may be given up for at a stage.
    pub(super) fn loss_max(&self, stage: Stage) -> f64 {
        match stage {
            Stage::Accuracy => 0.0,
            Stage::Balanced => self.balanced_loss_max,
            Stage::Eco => self.eco_loss_max,
            Stage::Cheapest => 1.0,
        }
    }
}
