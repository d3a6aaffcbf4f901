//! Whom an operator trusts: public keys and roots of certificates from files, and what a signature must be to count.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, EcdsaVerificationAlgorithm, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::bundle::{Bundle, Material};
use super::certificate;
use super::config::{Policy, SignaturesConfig};
use super::{SignatureError, Statement};
use crate::digest::Digest;
use crate::watched;

/// Keys and roots as they were read, with the settings that go with them.
#[derive(Clone)]
pub struct Trust {
    pub settings: SignaturesConfig,
    keys: Vec<Key>,
    roots: Vec<TrustAnchor<'static>>,
    /// Of the files, so that one trust can be told from another.
    contents: Vec<Digest>,
}

/// A statement, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub statement: Statement,
    pub signer: Signer,
}

/// Whose signature was found to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The SHA-256 of the key in DER.
    Key(Digest),
    Certificate {
        subject: String,
        /// Its subject alternative names.
        names: Vec<String>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("expected {expected} in PEM in {path}, {came}", path = path.display())]
    Unusable { path: PathBuf, expected: &'static str, came: String },
}

/// A public key that signatures are held against.
#[derive(Clone)]
pub(super) struct Key {
    algorithm: &'static EcdsaVerificationAlgorithm,
    point: Vec<u8>,
    digest: Digest,
    /// The SHA-256 of its PEM text, by which bundles name it.
    hint: String,
}

impl Trust {
    /// Reads the files that the settings name; none where signatures are not looked at.
    ///
    /// # Errors
    /// When one cannot be read or holds something else.
    pub fn read(settings: &SignaturesConfig) -> Result<Self, TrustError> {
        let mut trust = Self { settings: settings.clone(), keys: Vec::new(), roots: Vec::new(), contents: Vec::new() };
        if settings.policy == Policy::Off {
            return Ok(trust);
        }
        for path in &settings.keys {
            let text = read(path)?;
            trust.contents.push(Digest::of(&text));
            trust.keys.extend(keys(path, &text)?);
        }
        for path in &settings.certificates {
            let text = read(path)?;
            trust.contents.push(Digest::of(&text));
            trust.roots.extend(roots(path, &text)?);
        }
        Ok(trust)
    }

    /// Trust in nobody, asked of nobody.
    pub fn none() -> Self {
        let settings = SignaturesConfig {
            policy: Policy::Off,
            file: "model.sig".into(),
            keys: Vec::new(),
            certificates: Vec::new(),
            identities: Vec::new(),
            expired: false,
            names: false,
            ignored: Vec::new(),
            bytes_max: crate::units::ByteSize(0),
            resources_max: 0,
        };
        Self { settings, keys: Vec::new(), roots: Vec::new(), contents: Vec::new() }
    }

    /// What the text of a bundle vouches for, and who does.
    ///
    /// # Errors
    /// When it cannot be read, is by nobody who is trusted, or not over what it holds.
    pub fn verify(&self, text: &[u8], now: SystemTime) -> Result<Signed, SignatureError> {
        let bundle = Bundle::parse(text, self.settings.bytes_max.0)?;
        let signer = match &bundle.material {
            Material::Key { hint } => self.verify_key(&bundle, hint)?,
            Material::Chain(chain) => {
                let time = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let time = UnixTime::since_unix_epoch(time);
                let leaf = certificate::verify(chain, &self.roots, time, &self.settings)?;
                if !leaf.key.verifies(&bundle.signed(), &bundle.signature) {
                    return Err(SignatureError::Forged);
                }
                leaf.signer
            }
        };
        let statement = Statement::parse(&bundle.payload, self.settings.resources_max)?;
        Ok(Signed { statement, signer })
    }

    fn verify_key(&self, bundle: &Bundle, hint: &str) -> Result<Signer, SignatureError> {
        let signed = bundle.signed();
        let good = self.keys.iter().find(|key| key.verifies(&signed, &bundle.signature));
        match good {
            Some(key) => Ok(Signer::Key(key.digest)),
            None if self.keys.iter().any(|key| key.hint == hint) => Err(SignatureError::Forged),
            None => {
                let keys = self.keys.len();
                let why = format!("expected one of the {keys} keys of signatures.keys, got another");
                Err(SignatureError::Untrusted(why))
            }
        }
    }
}

impl Key {
    pub(super) fn of(der: &[u8]) -> Result<Self, String> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|error| error.to_string())?;
        let (kind, curve) = (info.algorithm.oid, info.algorithm.parameters);
        let curve = curve.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
        let algorithm = match curve.filter(|_| kind == EC_KEY) {
            Some(P256) => &ECDSA_P256_SHA256_ASN1,
            Some(P384) => &ECDSA_P384_SHA384_ASN1,
            _ => return Err(format!("got one of {}", curve.unwrap_or(kind))),
        };
        let point = info.subject_public_key.as_bytes().ok_or("got one that does not end with a byte")?.to_vec();
        Ok(Self { algorithm, point, digest: Digest::of(der), hint: Digest::of(pem(der).as_bytes()).to_string() })
    }

    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.point).verify(signed, signature).is_ok()
    }
}

/// As `model-signing` writes a key before it takes its digest.
fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
    let encoded = STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = behind;
    }
    text.push_str("-----END PUBLIC KEY-----\n");
    text
}

fn keys(path: &Path, text: &[u8]) -> Result<Vec<Key>, TrustError> {
    let unusable = |came: String| TrustError::Unusable { path: path.to_owned(), expected: EXPECTED_KEY, came };
    let found: Result<Vec<_>, _> = SubjectPublicKeyInfoDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() {
        return Err(unusable("found none".into()));
    }
    found.iter().map(|der| Key::of(der).map_err(unusable)).collect()
}

fn roots(path: &Path, text: &[u8]) -> Result<Vec<TrustAnchor<'static>>, TrustError> {
    let unusable = |came: String| TrustError::Unusable { path: path.to_owned(), expected: "a certificate", came };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() {
        return Err(unusable("found none".into()));
    }
    let anchor = |der: &CertificateDer<'_>| {
        webpki::anchor_from_trusted_cert(der)
            .map(|anchor| anchor.to_owned())
            .map_err(|error| unusable(error.to_string()))
    };
    found.iter().map(anchor).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    watched::contents(path, FILE_BYTES_MAX).map_err(|source| TrustError::Unreadable { path: path.to_owned(), source })
}

/// Equal where nothing would be decided otherwise.
impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.contents == other.contents
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(digest) => write!(f, "key sha256:{digest}"),
            Self::Certificate { subject, names } => {
                write!(f, "certificate {subject}")?;
                names.iter().try_for_each(|name| write!(f, ", {name}"))
            }
        }
    }
}

const EXPECTED_KEY: &str = "a public key of the curve P-256 or P-384";
const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const PEM_LINE: usize = 64;
/// Lists of authorities are a few hundred kilobytes at most.
const FILE_BYTES_MAX: u64 = 4 << 20;
