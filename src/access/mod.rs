//! Who may call what, and how much of it: one answer for every listener and every protocol.
//!
//! `tenants` and `token` read who there is, `scope` says what they may, `quota` how much; a `Caller` is who made a call. What
//! headers and paths mean is the front end's to know (`frontend::guard`). docs/access.md says what operators do with it.

mod audit;
mod caller;
pub mod config;
pub mod key;
mod quota;
mod scope;
mod tenants;
#[cfg(test)]
mod tests;
mod token;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::time::Instant;

pub use self::tenants::TenantsError;
pub use self::token::KeySetError;
pub use audit::{AUDIT, Call};
pub use caller::{Caller, Denied, Spending, Taken};
pub use config::{AccessConfig, Public};
pub use scope::{Scope, Target, Verb, WrongScope};
pub use token::TokenError;

use self::audit::Audit;
use self::caller::Known;
use self::tenants::Tenants;
use self::token::{Expected, KeySet, Verified};
use crate::digest::Digest;
use crate::telemetry::AccessMetrics;
use crate::watched::{self, Seen, Wake, Watched};

/// Who is known. Off, everyone is anyone.
#[derive(Clone, Debug)]
pub struct Access {
    known: Option<Arc<Inner>>,
    public: Arc<[Public]>,
    open_control: bool,
    audit: Arc<Audit>,
}

#[derive(Debug)]
struct Inner {
    config: AccessConfig,
    current: ArcSwap<Snapshot>,
    seen: Seen<Contents>,
    wake: Wake,
    metrics: AccessMetrics,
    audit: Arc<Audit>,
}

/// Everyone, as the files had them.
#[derive(Debug)]
struct Snapshot {
    tenants: Tenants,
    keys: Option<KeySet>,
    expected: Expected,
    /// Tokens that were verified with these keys: a signature takes longer than a small model.
    verified: Mutex<HashMap<Digest, Caller>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Contents {
    tenants: Option<Vec<u8>>,
    keys: Option<Vec<u8>>,
}

/// What a caller was known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Key(Digest),
    /// By the key that has signed it.
    Token(Digest),
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path} expects UTF-8", path = path.display())]
    NoText { path: PathBuf },
    #[error("tenants in {path}: {source}", path = path.display())]
    Tenants { path: PathBuf, source: TenantsError },
    #[error("keys in {path}: {source}", path = path.display())]
    Keys { path: PathBuf, source: KeySetError },
    #[error("there is no thread to look at the files: {0}")]
    Thread(std::io::Error),
}

impl Access {
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn start(config: &AccessConfig, metrics: AccessMetrics) -> Result<Self, AccessError> {
        let public = config.public.as_slice().into();
        let mut access = Self { public, open_control: config.open_control, ..Self::open(metrics.clone()) };
        let audit = Arc::clone(&access.audit);
        if config.is_on() {
            let contents = Contents::read(config)?;
            let current = ArcSwap::from_pointee(contents.settle(config, None, (&metrics, &audit))?);
            let (wake, woken) = watched::pair();
            let (config, seen) = (config.clone(), Seen::first(contents));
            let inner = Arc::new(Inner { config, current, seen, wake, metrics, audit });
            woken.watch("kinglet-access", &inner, inner.config.reload_interval.0).map_err(AccessError::Thread)?;
            access.known = Some(inner);
        }
        Ok(access)
    }

    /// Everyone may everything.
    pub fn open(metrics: AccessMetrics) -> Self {
        Self { known: None, public: Arc::default(), open_control: true, audit: Arc::new(Audit::new(metrics)) }
    }

    /// Whether callers must say who they are.
    pub fn is_on(&self) -> bool {
        self.known.is_some()
    }

    pub fn is_public(&self, what: Public) -> bool {
        self.known.is_none() || self.public.contains(&what)
    }

    /// Whether everyone may what operators do, where nobody is known.
    pub fn is_control_open(&self) -> bool {
        self.open_control
    }

    /// To be called with what is told of a call that is not let in.
    pub fn refused(&self, denied: &Denied, call: Call<'_>) {
        self.audit.refused(denied, Some(call));
    }

    /// Whom a secret belongs to.
    ///
    /// # Errors
    /// When it is nobody's, or no longer.
    pub fn identify(&self, secret: &str, now: SystemTime) -> Result<Caller, Denied> {
        match &self.known {
            None => Ok(Caller::anyone()),
            Some(inner) => inner.current.load().identify(secret, inner, now),
        }
    }

    /// The same caller as it stands now, for calls that go on while keys are taken away.
    ///
    /// # Errors
    /// When what it was known by holds no longer.
    pub fn again(&self, caller: &Caller, now: SystemTime) -> Result<Caller, Denied> {
        match (&self.known, caller.as_known()) {
            (Some(inner), Some(known)) => inner.current.load().again(caller, known, now),
            _ => Ok(caller.clone()),
        }
    }

    /// Has the files looked at now.
    pub fn refresh(&self) {
        if let Some(inner) = &self.known {
            inner.wake.wake();
        }
    }
}

impl Snapshot {
    fn identify(&self, secret: &str, inner: &Inner, now: SystemTime) -> Result<Caller, Denied> {
        let digest = Digest::of(secret.as_bytes());
        if let Some(caller) = self.tenants.by_key.get(&digest) {
            return holding(caller, now);
        }
        let Some(keys) = self.keys.as_ref().filter(|_| secret.matches('.').count() == 2) else {
            return Err(Denied::UnknownKey);
        };
        if let Some(caller) = self.lock().get(&digest) {
            return holding(caller, now);
        }
        let caller = self.caller_of(keys.verify(secret, &self.expected, now)?, &inner.config)?;
        self.keep(digest, &caller, inner.config.tokens_kept_max);
        Ok(caller)
    }

    fn again(&self, caller: &Caller, known: &Known, now: SystemTime) -> Result<Caller, Denied> {
        match known.proof {
            Proof::Key(digest) => holding(self.tenants.by_key.get(&digest).ok_or(Denied::UnknownKey)?, now),
            Proof::Token(print) if self.keys.as_ref().is_some_and(|keys| keys.has(print)) => holding(caller, now),
            Proof::Token(_) => Err(TokenError::UnknownKey.into()),
        }
    }

    fn caller_of(&self, Verified { key, claims, ends }: Verified, config: &AccessConfig) -> Result<Caller, Denied> {
        let name = claims.get(&config.token_tenant_claim).and_then(Value::as_str);
        let name = name.filter(|name| !name.is_empty()).ok_or(TokenError::Tenant)?;
        let tenant = self.tenants.of_token(name);
        let own = scopes(claims.get(&config.token_scopes_claim));
        let scopes = if own.is_empty() { tenant.scopes.clone() } else { own };
        Ok(Caller::known(Known { tenant, name: name.to_owned(), scopes, proof: Proof::Token(key), ends: Some(ends) }))
    }

    /// Which go where there are too many matters little: they are verified again.
    fn keep(&self, digest: Digest, caller: &Caller, most: usize) {
        let mut verified = self.lock();
        if verified.len() >= most {
            verified.clear();
        }
        if most > 0 {
            verified.insert(digest, caller.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Caller>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The caller, unless what it is known by has ended.
fn holding(caller: &Caller, now: SystemTime) -> Result<Caller, Denied> {
    match caller.as_known() {
        Some(Known { ends: Some(ends), proof, .. }) if *ends <= now => Err(match proof {
            Proof::Key(_) => Denied::EndedKey,
            Proof::Token(_) => TokenError::Ended.into(),
        }),
        _ => Ok(caller.clone()),
    }
}

impl Contents {
    fn read(config: &AccessConfig) -> Result<Self, AccessError> {
        let one = |path: &Path| (!path.as_os_str().is_empty()).then(|| read(path)).transpose();
        Ok(Self { tenants: one(&config.tenants_file)?, keys: one(&config.jwks_file)? })
    }

    fn settle(
        &self,
        config: &AccessConfig,
        before: Option<&Tenants>,
        told: (&AccessMetrics, &Arc<Audit>),
    ) -> Result<Snapshot, AccessError> {
        let path = &config.tenants_file;
        let text = std::str::from_utf8(self.tenants.as_deref().unwrap_or_default());
        let text = text.map_err(|_| AccessError::NoText { path: path.clone() })?;
        let tenants = Tenants::read(text, before, told, Instant::now());
        let tenants = tenants.map_err(|source| AccessError::Tenants { path: path.clone(), source })?;
        let keys = self.keys.as_deref().map(KeySet::read).transpose();
        let keys = keys.map_err(|source| AccessError::Keys { path: config.jwks_file.clone(), source })?;
        let expected = Expected {
            issuer: config.token_issuer.clone(),
            audience: config.token_audience.clone(),
            leeway: config.token_leeway.0,
        };
        Ok(Snapshot { tenants, keys, expected, verified: Mutex::default() })
    }
}

impl Watched for Inner {
    /// What cannot be taken leaves those who are known: it is told once.
    fn look(&self) {
        let before = self.current.load();
        let settle =
            |contents: &Contents| contents.settle(&self.config, Some(&before.tenants), (&self.metrics, &self.audit));
        match self.seen.look(|| Contents::read(&self.config), settle) {
            None => {}
            Some(Ok(snapshot)) => {
                let (tenants, keys) = (snapshot.tenants.by_name.len(), snapshot.tenants.by_key.len());
                tracing::info!(target: AUDIT, tenants, keys, "tenants and keys taken anew");
                before.tenants.forget_absent(&snapshot.tenants, &self.metrics);
                self.current.store(Arc::new(snapshot));
            }
            Some(Err(error)) => self.not_taken(&error),
        }
    }
}

impl Inner {
    fn not_taken(&self, error: &AccessError) {
        self.metrics.reloads_failed.inc();
        tracing::warn!(%error, "tenants and keys not taken anew, those before go on");
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AccessError> {
    watched::contents(path, FILE_BYTES_MAX).map_err(|source| AccessError::Unreadable { path: path.to_owned(), source })
}

/// Words in one text, or texts in a list; those of other services stand beside ours.
fn scopes(claim: Option<&Value>) -> Vec<Scope> {
    let words: Vec<&str> = match claim {
        Some(Value::String(text)) => text.split(' ').collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => return Vec::new(),
    };
    words.into_iter().filter_map(|word| word.parse().ok()).collect()
}

/// Ten thousand tenants with ten keys each.
const FILE_BYTES_MAX: u64 = 32 << 20;
