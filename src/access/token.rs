//! Tokens: JSON Web Tokens (RFC 7519) with a signature (RFC 7515) by one of the public keys in a JSON Web Key Set (RFC 7517).
//!
//! What a key may verify is said by the key, never by a token; symmetric keys and unsigned tokens are not taken (RFC 8725).
//! How tokens are kept, and what they allow, is not known here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::digest::Digest;

/// The public keys of whoever issues tokens.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<PublicKey>,
}

#[derive(Debug)]
struct PublicKey {
    /// Tells it from others, whatever they are called.
    print: Digest,
    id: Option<String>,
    /// Of those that its kind has, where it is held to one.
    algorithm: Option<String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// What a token must say.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) issuer: String,
    pub(super) audience: String,
    /// How far clocks may be apart.
    pub(super) leeway: Duration,
}

/// A token whose signature and times hold.
#[derive(Debug)]
pub(super) struct Verified {
    /// Of the key that has signed it.
    pub(super) key: Digest,
    pub(super) claims: Map<String, Value>,
    pub(super) ends: SystemTime,
}

#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("expected at least one RSA, P-256, P-384 or Ed25519 key for signatures, got none among {0}")]
    NoKey(usize),
    #[error("expected at most {KEYS_MAX} keys, got {0}")]
    TooMany(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("expected three parts of Base64 with JSON in the first two")]
    Malformed,
    #[error("expected a signature of RS, PS, ES or EdDSA by a key of the set, got another algorithm or key")]
    UnknownKey,
    #[error("its signature does not hold")]
    Signature,
    #[error("a \"crit\" header asks for what is not known")]
    Critical,
    #[error("expected a number in \"exp\"")]
    NoEnd,
    #[error("it has ended")]
    Ended,
    #[error("it has not begun")]
    NotBegun,
    #[error("expected a number in \"nbf\"")]
    Begin,
    #[error("expected another \"iss\"")]
    Issuer,
    #[error("expected another \"aud\"")]
    Audience,
    #[error("expected the tenant's name as text in its claim")]
    Tenant,
}

impl KeySet {
    /// Keys of other kinds, and those for encryption, are passed over: sets have them.
    pub(super) fn read(text: &[u8]) -> Result<Self, KeySetError> {
        let written: WrittenSet = serde_json::from_slice(text)?;
        let count = written.keys.len();
        if count > KEYS_MAX {
            return Err(KeySetError::TooMany(count));
        }
        let keys: Vec<PublicKey> = written.keys.into_iter().filter_map(WrittenKey::public).collect();
        if keys.is_empty() { Err(KeySetError::NoKey(count)) } else { Ok(Self { keys }) }
    }

    pub(super) fn verify(&self, token: &str, expected: &Expected, now: SystemTime) -> Result<Verified, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (head, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let head: Head = json(head)?;
        if head.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let signature = bytes(signature)?;
        let mut fitting = self.keys.iter().filter(|key| key.fits(&head)).take(KEYS_TRIED_MAX).peekable();
        fitting.peek().ok_or(TokenError::UnknownKey)?;
        let key = fitting.find(|key| key.kind.verify(&head.alg, signed.as_bytes(), &signature));
        let key = key.ok_or(TokenError::Signature)?.print;
        let claims: Map<String, Value> = json(claims)?;
        let ends = expected.check(&claims, now)?;
        Ok(Verified { key, claims, ends })
    }

    /// Whether it still has a key.
    pub(super) fn has(&self, print: Digest) -> bool {
        self.keys.iter().any(|key| key.print == print)
    }
}

impl Expected {
    fn check(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<SystemTime, TokenError> {
        let ends = claims.get("exp").and_then(moment).ok_or(TokenError::NoEnd)?;
        let ends = ends.checked_add(self.leeway).ok_or(TokenError::NoEnd)?;
        if ends <= now {
            return Err(TokenError::Ended);
        }
        if let Some(begin) = claims.get("nbf") {
            let begin = moment(begin).ok_or(TokenError::Begin)?;
            if now.checked_add(self.leeway).is_some_and(|now| now < begin) {
                return Err(TokenError::NotBegun);
            }
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(TokenError::Issuer);
        }
        let is_for_us = match claims.get("aud") {
            Some(Value::String(one)) => *one == self.audience,
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(&self.audience)),
            _ => false,
        };
        if is_for_us { Ok(ends) } else { Err(TokenError::Audience) }
    }
}

impl PublicKey {
    fn fits(&self, head: &Head) -> bool {
        let named = match (&head.kid, &self.id) {
            (Some(wanted), Some(id)) => wanted == id,
            (Some(_), None) => false,
            (None, _) => true,
        };
        let held = self.algorithm.as_ref().is_none_or(|held| *held == head.alg);
        named && held && self.kind.has(&head.alg)
    }
}

impl Kind {
    fn has(&self, algorithm: &str) -> bool {
        match self {
            Self::Rsa { .. } => rsa(algorithm).is_some(),
            Self::P256(_) => algorithm == "ES256",
            Self::P384(_) => algorithm == "ES384",
            Self::Ed25519(_) => algorithm == "EdDSA" || algorithm == "Ed25519",
        }
    }

    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        let by = |how: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(how, key).verify(signed, signature).is_ok()
        };
        match self {
            Self::Rsa { n, e } => {
                rsa(algorithm).is_some_and(|how| RsaPublicKeyComponents { n, e }.verify(how, signed, signature).is_ok())
            }
            Self::P256(point) => by(&signature::ECDSA_P256_SHA256_FIXED, point),
            Self::P384(point) => by(&signature::ECDSA_P384_SHA384_FIXED, point),
            Self::Ed25519(key) => by(&signature::ED25519, key),
        }
    }
}

/// Keys of fewer than 2048 bits verify nothing.
fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

#[derive(Deserialize)]
struct WrittenSet {
    keys: Vec<WrittenKey>,
}

#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl WrittenKey {
    fn public(self) -> Option<PublicKey> {
        if self.purpose.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let part = |part: Option<String>| bytes(&part?).ok();
        let point = |coordinate_bytes: usize, x: Option<String>, y: Option<String>| {
            let (x, y) = (part(x)?, part(y)?);
            // A point in the form of SEC 1 without compression.
            (x.len() == coordinate_bytes && y.len() == coordinate_bytes).then(|| [&[4], &x[..], &y[..]].concat())
        };
        let print = Digest::of(format!("{:?} {:?} {:?} {:?}", self.n, self.e, self.x, self.y).as_bytes());
        let kind = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Kind::Rsa { n: part(self.n)?, e: part(self.e)? },
            ("EC", Some("P-256")) => Kind::P256(point(32, self.x, self.y)?),
            ("EC", Some("P-384")) => Kind::P384(point(48, self.x, self.y)?),
            ("OKP", Some("Ed25519")) => Kind::Ed25519(part(self.x)?),
            _ => return None,
        };
        Some(PublicKey { print, id: self.kid, algorithm: self.alg, kind })
    }
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

fn json<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    serde_json::from_slice(&bytes(part)?).map_err(|_| TokenError::Malformed)
}

fn bytes(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}

/// Seconds since 1970, which may have a fraction.
fn moment(value: &Value) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(value.as_f64()?).ok()?)
}

const KEYS_MAX: usize = 1000;
/// Where neither token nor keys have a name: each of them costs a verification.
const KEYS_TRIED_MAX: usize = 8;
