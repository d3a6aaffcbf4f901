//! The file of tenants: who there is, by which keys they are known, what they may do and how much of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::{self, Deserializer};
use tokio::time::Instant;
use toml::value::Datetime;
use x509_cert::der::DateTime;

use super::Proof;
use super::audit::Audit;
use super::caller::{Caller, Known};
use super::key;
use super::quota::{Allowance, Spent};
use super::scope::Scope;
use crate::digest::Digest;
use crate::telemetry::{AccessMetrics, TenantMetrics};
use crate::units::Span;

/// Everyone who is known by a file.
#[derive(Debug)]
pub(super) struct Tenants {
    pub(super) by_name: HashMap<String, Arc<Tenant>>,
    pub(super) by_key: HashMap<Digest, Caller>,
}

/// Who is served, and what it may take.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) scopes: Vec<Scope>,
    pub(super) requests: Option<Allowance>,
    pub(super) rows: Option<Allowance>,
    pub(super) joules: Option<Allowance>,
    pub(super) metrics: TenantMetrics,
    pub(super) audit: Arc<Audit>,
    spent: [Spent; 3],
}

#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    #[error("tenant {tenant:?}: expected a name of 1 to {NAME_BYTES_MAX} letters, digits and any of \"-_.@:/|\"")]
    Name { tenant: String },
    #[error("tenant {tenant:?}: {key} expects a number above 0, got {got}")]
    Rate { tenant: String, key: &'static str, got: f64 },
    #[error("tenant {tenant:?}: burst expects a time above zero")]
    Burst { tenant: String },
    #[error("tenant {tenant:?}: expected each key once, {name:?} is one that was there before")]
    Twice { tenant: String, name: String },
    #[error("expected at most {TENANTS_MAX} tenants and {KEYS_MAX} keys, got {tenants} and {keys}")]
    TooMany { tenants: usize, keys: usize },
}

impl Tenants {
    /// Whose limits a token's holder has: its tenant's, or those of all who are not in the file.
    pub(super) fn of_token(&self, name: &str) -> Arc<Tenant> {
        let tenant = self.by_name.get(name).unwrap_or_else(|| &self.by_name[UNLISTED]);
        Arc::clone(tenant)
    }

    /// What tenants of the same name have spent stays spent.
    pub(super) fn read(
        text: &str,
        before: Option<&Self>,
        (metrics, audit): (&AccessMetrics, &Arc<Audit>),
        now: Instant,
    ) -> Result<Self, TenantsError> {
        let mut file: File = toml::from_str(text)?;
        let keys = file.tenants.values().map(|tenant| tenant.keys.len()).sum();
        if file.tenants.len() > TENANTS_MAX || keys > KEYS_MAX {
            return Err(TenantsError::TooMany { tenants: file.tenants.len(), keys });
        }
        let mut tenants = Self { by_name: HashMap::new(), by_key: HashMap::new() };
        file.tenants.entry(UNLISTED.to_owned()).or_default();
        for (name, written) in file.tenants {
            let written = written.check(&name)?;
            let spent = before.and_then(|before| before.by_name.get(&name)).map(|tenant| tenant.spent.clone());
            let spent = spent.unwrap_or_else(|| std::array::from_fn(|_| Spent::nothing(now)));
            let tenant = Arc::new(written.tenant(&name, spent, (metrics.tenant(&name), Arc::clone(audit))));
            for key in written.keys {
                tenants.add(&tenant, key)?;
            }
            tenants.by_name.insert(name, tenant);
        }
        Ok(tenants)
    }

    /// Takes the series of those away who are there no longer.
    pub(super) fn forget_absent(&self, now: &Self, metrics: &AccessMetrics) {
        self.by_name.keys().filter(|name| !now.by_name.contains_key(*name)).for_each(|name| metrics.forget(name));
    }

    fn add(&mut self, tenant: &Arc<Tenant>, written: WrittenKey) -> Result<(), TenantsError> {
        let WrittenKey { name, sha256, scopes, ends } = written;
        let known = Known {
            tenant: Arc::clone(tenant),
            name: name.clone(),
            // A key may have less than its tenant, or something else.
            scopes: scopes.unwrap_or_else(|| tenant.scopes.clone()),
            proof: Proof::Key(sha256),
            ends: ends.map(|End(at)| at),
        };
        match self.by_key.insert(sha256, Caller::known(known)) {
            None => Ok(()),
            Some(_) => Err(TenantsError::Twice { tenant: tenant.name.clone(), name }),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenants: HashMap<String, Written>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    scopes: Vec<Scope>,
    requests_per_second: Option<f64>,
    rows_per_second: Option<f64>,
    joules_per_second: Option<f64>,
    burst: Option<Span>,
    #[serde(default)]
    keys: Vec<WrittenKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    name: String,
    #[serde(deserialize_with = "key::digest")]
    sha256: Digest,
    scopes: Option<Vec<Scope>>,
    ends: Option<End>,
}

struct End(SystemTime);

impl Written {
    fn check(self, tenant: &str) -> Result<Self, TenantsError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@:/|".contains(c);
        if tenant.is_empty() || tenant.len() > NAME_BYTES_MAX || !tenant.chars().all(is_plain) {
            return Err(TenantsError::Name { tenant: tenant.to_owned() });
        }
        for (key, rate) in [
            ("requests_per_second", self.requests_per_second),
            ("rows_per_second", self.rows_per_second),
            ("joules_per_second", self.joules_per_second),
        ] {
            if let Some(got) = rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
                return Err(TenantsError::Rate { tenant: tenant.to_owned(), key, got });
            }
        }
        match self.burst {
            Some(Span(Duration::ZERO)) => Err(TenantsError::Burst { tenant: tenant.to_owned() }),
            _ => Ok(self),
        }
    }

    fn tenant(&self, name: &str, spent: [Spent; 3], (metrics, audit): (TenantMetrics, Arc<Audit>)) -> Tenant {
        let burst = self.burst.map_or(BURST, |Span(burst)| burst);
        let [requests, rows, joules] = &spent;
        let allowance = |rate: Option<f64>, spent: &Spent| rate.map(|rate| Allowance::new(rate, burst, spent.clone()));
        Tenant {
            name: name.to_owned(),
            scopes: self.scopes.clone(),
            requests: allowance(self.requests_per_second, requests),
            rows: allowance(self.rows_per_second, rows),
            joules: allowance(self.joules_per_second, joules),
            metrics,
            audit,
            spent,
        }
    }
}

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Datetime::deserialize(deserializer)?;
        let wrong = || {
            format!("expected a date such as 2027-01-31 or a time in UTC such as 2027-01-31T12:00:00Z, got {written}")
        };
        moment(&written).map(End).ok_or_else(|| de::Error::custom(wrong()))
    }
}

/// A day ends where it begins: that is the earlier of what may be meant.
fn moment(written: &Datetime) -> Option<SystemTime> {
    let date = written.date?;
    let (hour, minute, second) = match (written.time, written.offset) {
        (None, None) => (0, 0, 0),
        (Some(time), Some(toml::value::Offset::Z)) => (time.hour, time.minute, time.second.unwrap_or_default()),
        _ => return None,
    };
    let at = DateTime::new(date.year, date.month, date.day, hour, minute, second).ok()?;
    UNIX_EPOCH.checked_add(at.unix_duration())
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What may be taken at once, of what a second brings, where the file says nothing.
const BURST: Duration = Duration::from_secs(1);
/// Those who have tokens and are not in the file share one account, and the scopes and limits that stand under this name.
const UNLISTED: &str = "_unlisted";
const NAME_BYTES_MAX: usize = 128;
const TENANTS_MAX: usize = 10_000;
const KEYS_MAX: usize = 100_000;
