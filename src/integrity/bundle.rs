//! A Sigstore bundle, version 0.3, with a DSSE envelope: what is signed, by which signature, and who says that he made it.
//!
//! It is untrusted: its length is limited before it is read, its depth by the JSON parser, and nothing in it is believed here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::SignatureError;

/// What a bundle holds, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) material: Material,
}

/// By what the signature is to be checked, as the bundle says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Material {
    /// A key; the hint is the SHA-256 of its PEM text, where there is one.
    Key { hint: String },
    /// Certificates in DER, the signer's first.
    Chain(Vec<Vec<u8>>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: String,
    verification_material: WrittenMaterial,
    #[serde(default)]
    dsse_envelope: Option<Envelope>,
    #[serde(default)]
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMaterial {
    #[serde(default)]
    public_key: Option<KeyHint>,
    #[serde(default)]
    x509_certificate_chain: Option<Chain>,
    #[serde(default)]
    certificate: Option<IgnoredAny>,
    #[serde(default)]
    tlog_entries: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct KeyHint {
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<RawCertificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCertificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

impl Bundle {
    /// # Errors
    /// When the text is no bundle, or one of a kind that is not checked here.
    pub(super) fn parse(text: &[u8], bytes_max: u64) -> Result<Self, SignatureError> {
        if text.len() as u64 > bytes_max {
            let what = format!("{} bytes", text.len());
            return Err(SignatureError::TooLarge { what, limit: bytes_max });
        }
        let written: Written = serde_json::from_slice(text).map_err(|error| broken(error.to_string()))?;
        if written.media_type != MEDIA_TYPE {
            return unsupported(format!("expected media type {MEDIA_TYPE}, got {:?}", shown(&written.media_type)));
        }
        let material = written.verification_material.settle()?;
        let Some(envelope) = written.dsse_envelope else {
            let came = if written.message_signature.is_some() { "a messageSignature" } else { "none" };
            return unsupported(format!("expected a dsseEnvelope, got {came}"));
        };
        if envelope.payload_type != PAYLOAD_TYPE {
            return unsupported(format!(
                "expected payload type {PAYLOAD_TYPE}, got {:?}",
                shown(&envelope.payload_type)
            ));
        }
        let [signature] = &envelope.signatures[..] else {
            return unsupported(format!("expected one signature in the envelope, got {}", envelope.signatures.len()));
        };
        let payload = decoded("payload", &envelope.payload)?;
        Ok(Self { payload, signature: decoded("sig", &signature.sig)?, material })
    }

    /// The bytes that the signature is over: DSSE's encoding of type and payload.
    pub(super) fn signed(&self) -> Vec<u8> {
        let mut signed = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), self.payload.len()).into_bytes();
        signed.extend_from_slice(&self.payload);
        signed
    }
}

impl WrittenMaterial {
    fn settle(self) -> Result<Material, SignatureError> {
        if self.certificate.is_some() || self.tlog_entries.is_some_and(|entries| !entries.is_empty()) {
            return unsupported(
                "it was made by Sigstore's keyless method, which needs a network: sign with a key or certificate",
            );
        }
        match (self.public_key, self.x509_certificate_chain) {
            (Some(key), None) => Ok(Material::Key { hint: key.hint.unwrap_or_default() }),
            (None, Some(chain)) => {
                let count = chain.certificates.len();
                if count == 0 || count > CHAIN_MAX {
                    return Err(broken(format!("expected 1 to {CHAIN_MAX} certificates, got {count}")));
                }
                let raw = chain.certificates.iter().map(|raw| decoded("rawBytes", &raw.raw_bytes));
                Ok(Material::Chain(raw.collect::<Result<_, _>>()?))
            }
            _ => unsupported("expected either publicKey or x509CertificateChain in verificationMaterial"),
        }
    }
}

fn decoded(field: &str, text: &str) -> Result<Vec<u8>, SignatureError> {
    STANDARD.decode(text).map_err(|error| broken(format!("{field} is no base64: {error}")))
}

fn broken(why: String) -> SignatureError {
    SignatureError::Broken(why)
}

fn unsupported<T>(why: impl Into<String>) -> Result<T, SignatureError> {
    Err(SignatureError::Unsupported(why.into()))
}

/// As much of a text from outside as an error repeats.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Certificates between a signer and its root; chains in use have up to four.
const CHAIN_MAX: usize = 16;
const SHOWN_MAX: usize = 128;
