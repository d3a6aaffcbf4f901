//! Who calls, and what they may.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Proof;
use super::quota::Allowance;
use super::scope::{Scope, Target, Verb};
use super::tenants::Tenant;
use super::token::TokenError;
use crate::error::ErrorCode;

/// Whoever made a call. The default is nobody, who may nothing.
#[derive(Clone, Debug, Default)]
pub struct Caller(Who);

#[derive(Clone, Debug, Default)]
enum Who {
    #[default]
    Nobody,
    /// Where nobody needs to say who they are.
    Anyone,
    Known(Arc<Known>),
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) tenant: Arc<Tenant>,
    /// The name of the key, or of who the token is about.
    pub(super) name: String,
    pub(super) scopes: Vec<Scope>,
    pub(super) proof: Proof,
    pub(super) ends: Option<SystemTime>,
}

/// Why a call is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "expected an API key or a token, as \"authorization: Bearer ...\" or \"x-api-key: ...\", got no credentials"
    )]
    Missing,
    #[error("expected one credential that can be read, as \"authorization: Bearer ...\" or \"x-api-key: ...\"")]
    Unreadable,
    #[error("expected a page of this server, got a password by a page of another site")]
    Foreign,
    #[error("the API key is not known")]
    UnknownKey,
    #[error("the API key has ended")]
    EndedKey,
    #[error("the token is not taken: {0}")]
    Token(#[from] TokenError),
    #[error("tenant {tenant:?} may not do this: expected scope \"{expected}\"")]
    Scope { tenant: String, expected: String },
    #[error("tenant {tenant:?} has used up its {what}, {rate} a second")]
    Quota { tenant: String, what: Spending, rate: String, wait: Duration },
    #[error(
        "this call changes the server or is for its operators, and others reach this address: expected access.tenants_file \
         or access.jwks_file to say who may, or access.open_control to let everyone"
    )]
    Unguarded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    Requests,
    Rows,
    Joules,
}

/// Rows that were taken for a request, until it has been computed.
#[derive(Debug)]
#[must_use]
pub struct Taken {
    tenant: Arc<Tenant>,
    rows: f64,
}

impl Caller {
    pub fn anyone() -> Self {
        Self(Who::Anyone)
    }

    pub(super) fn known(known: Known) -> Self {
        Self(Who::Known(Arc::new(known)))
    }

    pub(super) fn as_known(&self) -> Option<&Known> {
        match &self.0 {
            Who::Known(known) => Some(known),
            Who::Nobody | Who::Anyone => None,
        }
    }

    /// The tenant, and which of its credentials.
    pub fn name(&self) -> (&str, &str) {
        self.as_known().map_or(("", ""), |known| (&known.tenant.name, &known.name))
    }

    /// As `may`, where a handler has found out what the call does: told in the audit log.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn check(&self, verb: Verb, target: Target<'_>) -> Result<(), Denied> {
        self.may(verb, target).inspect_err(|denied| {
            if let Some(known) = self.as_known() {
                known.tenant.audit.refused(denied, None);
            }
        })
    }

    /// # Errors
    /// When the caller may not.
    pub fn may(&self, verb: Verb, target: Target<'_>) -> Result<(), Denied> {
        match &self.0 {
            Who::Anyone => Ok(()),
            Who::Nobody => Err(Denied::Missing),
            Who::Known(known) if known.scopes.iter().any(|scope| scope.allows(verb, target)) => Ok(()),
            Who::Known(known) => {
                let expected = format!("{}{target}", verb.as_str());
                Err(Denied::Scope { tenant: known.tenant.name.clone(), expected })
            }
        }
    }

    /// Whether a list that the caller asks for tells of a model.
    pub fn may_read(&self, model: &str) -> bool {
        self.may(Verb::Read, Target::Model(model)).is_ok()
    }

    /// Counts a request.
    ///
    /// # Errors
    /// When its tenant may take no more of requests or joules.
    pub fn take_request(&self, now: Instant) -> Result<(), Denied> {
        let Some(known) = self.as_known() else { return Ok(()) };
        let tenant = &known.tenant;
        tenant.take(Spending::Joules, tenant.joules.as_ref(), now, 0.0)?;
        tenant.take(Spending::Requests, tenant.requests.as_ref(), now, 1.0)?;
        tenant.metrics.requests.inc();
        Ok(())
    }

    /// Counts its rows, where there is anybody to count for.
    ///
    /// # Errors
    /// When its tenant may take no more.
    pub fn take_rows(&self, rows: usize) -> Result<Option<Taken>, Denied> {
        let Some(known) = self.as_known() else { return Ok(None) };
        let (tenant, rows) = (Arc::clone(&known.tenant), as_float(rows));
        tenant.take(Spending::Rows, tenant.rows.as_ref(), Instant::now(), rows)?;
        Ok(Some(Taken { tenant, rows }))
    }

    /// Counts what an answer took.
    pub fn spend(&self, joules: f64) {
        if let Some(Known { tenant, .. }) = self.as_known() {
            tenant.metrics.joules.inc_by(joules);
            if let Some(allowance) = &tenant.joules {
                allowance.charge(Instant::now(), joules);
            }
        }
    }
}

impl Taken {
    /// To be called when they were computed.
    pub fn computed(self) {
        self.tenant.metrics.rows.inc_by(self.rows);
    }

    /// To be called when they were not.
    pub fn give_back(self) {
        if let Some(allowance) = &self.tenant.rows {
            allowance.give_back(self.rows);
        }
    }
}

impl Tenant {
    fn take(&self, what: Spending, allowance: Option<&Allowance>, now: Instant, units: f64) -> Result<(), Denied> {
        let Some(allowance) = allowance else { return Ok(()) };
        allowance.take(now, units).map_err(|wait| {
            let denied = Denied::Quota { tenant: self.name.clone(), what, rate: allowance.to_string(), wait };
            self.audit.refused(&denied, None);
            denied
        })
    }
}

impl Denied {
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing | Self::Unreadable | Self::UnknownKey | Self::EndedKey | Self::Token(_) => {
                ErrorCode::Unauthenticated
            }
            Self::Scope { .. } | Self::Foreign | Self::Unguarded => ErrorCode::PermissionDenied,
            Self::Quota { .. } => ErrorCode::QuotaExceeded,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Quota { wait, .. } => Some(*wait),
            _ => None,
        }
    }

    /// As metrics call it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable | Self::UnknownKey => "unknown",
            Self::EndedKey | Self::Token(TokenError::Ended) => "ended",
            Self::Token(_) => "token",
            Self::Scope { .. } => "scope",
            Self::Foreign => "foreign",
            Self::Unguarded => "unguarded",
            Self::Quota { what, .. } => what.as_str(),
        }
    }
}

impl Spending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Rows => "rows",
            Self::Joules => "joules",
        }
    }
}

impl std::fmt::Display for Spending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[expect(clippy::cast_precision_loss, reason = "rows beyond 2^53 fit no memory")]
fn as_float(rows: usize) -> f64 {
    rows as f64
}
