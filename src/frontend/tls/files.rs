//! Certificates, keys and authorities, from PEM files to what a connection is accepted with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::config::{Demand, TlsConfig, VersionMin};
use super::{TlsError, provider};
use crate::watched;

/// Where they are.
#[derive(Clone, Debug)]
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authorities: Option<PathBuf>,
    demand: Demand,
    versions: &'static [&'static SupportedProtocolVersion],
}

/// What they hold.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl Files {
    pub(super) fn of(config: &TlsConfig) -> Self {
        Self {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
            authorities: config.asks_clients().then(|| config.client_authorities.clone()),
            demand: config.client_certificates,
            versions: match config.version_min {
                VersionMin::Tls12 => ALL_VERSIONS,
                VersionMin::Tls13 => &ALL_VERSIONS[..1],
            },
        }
    }

    pub(super) fn read(&self) -> Result<Contents, TlsError> {
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            authorities: self.authorities.as_deref().map(read).transpose()?,
        })
    }

    /// What connections are accepted with from now on, and until when the certificate holds.
    pub(super) fn settle(&self, contents: &Contents) -> Result<(ServerConfig, Option<i64>), TlsError> {
        let chain = certificates(&self.certificate, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| not_pem(&self.key, "a private key", error.to_string()))?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions)
            .expect("the library of cryptography has both versions");
        let builder = match self.verifier(contents)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let ends = not_after(&chain[0]);
        let mut config = builder.with_single_cert(chain, key).map_err(|source| TlsError::NoPair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok((config, ends))
    }

    fn verifier(&self, contents: &Contents) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let (Some(path), Some(text)) = (&self.authorities, &contents.authorities) else { return Ok(None) };
        let unusable = |why: String| TlsError::Authorities { path: path.clone(), why };
        let mut roots = RootCertStore::empty();
        for authority in certificates(path, text)? {
            roots.add(authority).map_err(|error| unusable(error.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = match self.demand {
            Demand::Required => builder,
            Demand::Optional => builder.allow_unauthenticated(),
        };
        builder.build().map(Some).map_err(|error| unusable(error.to_string()))
    }
}

/// At least one.
pub(super) fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(not_pem(path, "a certificate", "found none".into())),
        Err(error) => Err(not_pem(path, "a certificate", error.to_string())),
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    watched::contents(path, FILE_BYTES_MAX).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

/// In seconds since 1970, where the certificate can be read so far.
fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let ends = certificate.tbs_certificate.validity.not_after.to_unix_duration();
    i64::try_from(ends.as_secs()).ok()
}

fn not_pem(path: &Path, expected: &'static str, came: String) -> TlsError {
    TlsError::NotPem { path: path.to_owned(), expected, came }
}

/// Newest first.
static ALL_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
/// What clients may speak within, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Chains and lists of authorities are a few hundred kilobytes at most.
const FILE_BYTES_MAX: u64 = 4 << 20;
