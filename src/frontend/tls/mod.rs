//! TLS of the listeners: a certificate and a key from files that are read again when they change, and the certificates of
//! clients where they are asked for.
//!
//! `files` reads and checks what is configured, `accept` makes a connection secure, `unchecked` is the other side of it, for the
//! health check of this program alone. docs/tls.md says what operators do with it.

mod accept;
pub mod config;
mod files;
#[cfg(test)]
mod tests;
mod unchecked;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;

pub use accept::{HandshakeError, accept};
pub use config::TlsConfig;
pub use unchecked::{Secure, connect};

use self::files::{Contents, Files};
use crate::telemetry::TlsMetrics;
use crate::watched::{self, Seen, Wake, Watched};

/// What connections are made secure with: the newest files that went together.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: Files,
    current: ArcSwap<ServerConfig>,
    seen: Seen<Contents>,
    wake: Wake,
    metrics: TlsMetrics,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("expected {expected} in PEM in {path}, {came}", path = path.display())]
    NotPem { path: PathBuf, expected: &'static str, came: String },
    #[error("the certificate in {certificate} and the key in {key} do not go together: {source}",
        certificate = certificate.display(), key = key.display())]
    NoPair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("there is no thread to look at the files: {0}")]
    Thread(std::io::Error),
    #[error("the authorities in {path} cannot be used: {why}", path = path.display())]
    Authorities { path: PathBuf, why: String },
}

impl Tls {
    /// `None` where no certificate is configured.
    ///
    /// # Errors
    /// When a file cannot be read, holds something else, or certificate and key do not go together.
    pub fn start(config: &TlsConfig, metrics: TlsMetrics) -> Result<Option<Self>, TlsError> {
        if !config.is_on() {
            return Ok(None);
        }
        let files = Files::of(config);
        let seen = files.read()?;
        let (settled, ends) = files.settle(&seen)?;
        metrics.ends(ends);
        let current = ArcSwap::from_pointee(settled);
        let (wake, woken) = watched::pair();
        let tls = Self(Arc::new(Inner { files, current, seen: Seen::first(seen), wake, metrics }));
        woken.watch("kinglet-tls", &tls.0, config.reload_interval.0).map_err(TlsError::Thread)?;
        Ok(Some(tls))
    }

    /// Whether what is configured could be served.
    ///
    /// # Errors
    /// As `start`.
    pub fn check(config: &TlsConfig) -> Result<(), TlsError> {
        if config.is_on() {
            let files = Files::of(config);
            files.settle(&files.read()?)?;
        }
        Ok(())
    }

    fn current(&self) -> Arc<ServerConfig> {
        self.0.current.load_full()
    }

    /// Has the files looked at now.
    pub fn refresh(&self) {
        self.0.wake.wake();
    }
}

impl Watched for Inner {
    /// What does not work leaves what serves: connections are better served with a certificate that ends than with none. It is told
    /// once.
    fn look(&self) {
        match self.seen.look(|| self.files.read(), |contents| self.files.settle(contents)) {
            None => {}
            Some(Ok((settled, ends))) => {
                self.current.store(Arc::new(settled));
                self.metrics.ends(ends);
                tracing::info!("TLS certificate taken anew");
            }
            Some(Err(error)) => self.not_taken(&error),
        }
    }
}

impl Inner {
    fn not_taken(&self, error: &TlsError) {
        self.metrics.reloads_failed.inc();
        tracing::warn!(%error, "TLS certificate not taken anew, the one before goes on");
    }
}

impl fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.0.files).finish_non_exhaustive()
    }
}

/// The one library of cryptography that is linked.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
