//! Settings of who may call what.

use std::path::PathBuf;

use serde::Deserialize;

use crate::units::Span;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// Empty knows no tenants.
    pub tenants_file: PathBuf,
    /// Empty takes no tokens.
    pub jwks_file: PathBuf,
    pub token_issuer: String,
    pub token_audience: String,
    pub token_tenant_claim: String,
    pub token_scopes_claim: String,
    pub token_leeway: Span,
    pub tokens_kept_max: usize,
    pub public: Vec<Public>,
    /// Whether what changes the server is open where others reach it and nobody is known.
    pub open_control: bool,
    pub reload_interval: Span,
}

impl AccessConfig {
    /// Whether callers must say who they are.
    pub fn is_on(&self) -> bool {
        !self.tenants_file.as_os_str().is_empty() || self.takes_tokens()
    }

    pub fn takes_tokens(&self) -> bool {
        !self.jwks_file.as_os_str().is_empty()
    }
}

/// What may be open to everyone.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Public {
    /// What probes ask.
    Health,
    Metrics,
    /// `/openapi.json` of a listener, and the page at `/docs/`.
    Docs,
}
