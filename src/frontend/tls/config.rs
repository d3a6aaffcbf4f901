//! Settings of TLS.

use std::path::PathBuf;

use serde::Deserialize;

use crate::units::Span;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Empty speaks no TLS.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Empty asks no client for a certificate.
    pub client_authorities: PathBuf,
    pub client_certificates: Demand,
    pub listeners: Vec<Secured>,
    pub version_min: VersionMin,
    pub reload_interval: Span,
}

impl TlsConfig {
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    pub fn asks_clients(&self) -> bool {
        !self.client_authorities.as_os_str().is_empty()
    }

    /// Whether that listener, where it is a port, speaks TLS.
    pub fn covers(&self, listener: Secured) -> bool {
        self.is_on() && self.listeners.contains(&listener)
    }
}

/// Whether a client may come without a certificate.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    Required,
    Optional,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Secured {
    Http,
    Grpc,
    Admin,
}

impl Secured {
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Admin => "admin",
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum VersionMin {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}
