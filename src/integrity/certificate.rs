//! The certificate of a signer: whether one of the roots stands behind it, whether it may sign, and whose it is.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{self, ExtendedKeyUsage, SubjectAltName};

use super::SignatureError;
use super::bundle::shown;
use super::config::SignaturesConfig;
use super::trust::{Key, Signer};

/// A certificate that signatures may be made with.
pub(super) struct Leaf {
    pub(super) signer: Signer,
    pub(super) key: Key,
}

/// # Errors
/// When the certificates are broken, or the first is not one that is trusted to sign.
pub(super) fn verify(
    chain: &[Vec<u8>],
    roots: &[TrustAnchor<'_>],
    now: UnixTime,
    settings: &SignaturesConfig,
) -> Result<Leaf, SignatureError> {
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(&der[..])).collect();
    let (first, others) = chain.split_first().ok_or_else(|| SignatureError::Broken("it has no certificate".into()))?;
    let broken = |error: String| SignatureError::Broken(format!("certificate: {error}"));
    let certificate = Certificate::from_der(first).map_err(|error| broken(error.to_string()))?;
    let entity = EndEntityCert::try_from(first).map_err(|error| broken(error.to_string()))?;
    let began = certificate.tbs_certificate.validity.not_before.to_unix_duration();
    let time = if settings.expired { UnixTime::since_unix_epoch(began.max(Duration::ZERO)) } else { now };
    let usage = KeyUsage::required_if_present(CODE_SIGNING_DER);
    let untrusted = |error: webpki::Error| {
        let why = match &error {
            webpki::Error::UnknownIssuer => "no certificate of signatures.certificates has issued it".into(),
            webpki::Error::CertExpired { .. } => "its certificate has ended".into(),
            other => other.to_string(),
        };
        SignatureError::Untrusted(why)
    };
    let path = entity.verify_for_usage(ALL_VERIFICATION_ALGS, roots, others, time, usage, None, None);
    path.map_err(untrusted)?;
    if !may_sign(&certificate) {
        let why = "its certificate is neither for digital signatures nor for signing code";
        return Err(SignatureError::Untrusted(why.into()));
    }
    let subject = certificate.tbs_certificate.subject.to_string();
    let names = names(&certificate);
    let is_allowed = |identity: &String| *identity == subject || names.contains(identity);
    if !settings.identities.is_empty() && !settings.identities.iter().any(is_allowed) {
        let got = [&subject].into_iter().chain(&names).map(|name| format!("{:?}", shown(name)));
        let why = format!("expected one of signatures.identities, got {}", got.collect::<Vec<_>>().join(" or "));
        return Err(SignatureError::Untrusted(why));
    }
    let info =
        certificate.tbs_certificate.subject_public_key_info.to_der().map_err(|error| broken(error.to_string()))?;
    let key = Key::of(&info).map_err(|why| {
        SignatureError::Unsupported(format!("expected a certificate of a key of the curve P-256 or P-384, {why}"))
    })?;
    let names = names.iter().take(NAMES_MAX).map(|name| shown(name)).collect();
    Ok(Leaf { signer: Signer::Certificate { subject: shown(&subject), names }, key })
}

fn may_sign(certificate: &Certificate) -> bool {
    let usage: Option<pkix::KeyUsage> = extension(certificate, KEY_USAGE);
    let extended: Option<ExtendedKeyUsage> = extension(certificate, EXTENDED_KEY_USAGE);
    usage.is_some_and(|usage| usage.digital_signature())
        || extended.is_some_and(|extended| extended.0.contains(&CODE_SIGNING))
}

/// Addresses, hosts and URIs that the certificate is for.
fn names(certificate: &Certificate) -> Vec<String> {
    let Some(names) = extension::<SubjectAltName>(certificate, SUBJECT_ALT_NAME) else { return Vec::new() };
    let text = |name: &GeneralName| match name {
        GeneralName::Rfc822Name(text) | GeneralName::DnsName(text) | GeneralName::UniformResourceIdentifier(text) => {
            Some(text.to_string())
        }
        _ => None,
    };
    names.0.iter().filter_map(text).collect()
}

fn extension<'a, T: Decode<'a>>(certificate: &'a Certificate, id: ObjectIdentifier) -> Option<T> {
    let all = certificate.tbs_certificate.extensions.as_ref()?;
    let found = all.iter().find(|extension| extension.extn_id == id)?;
    T::from_der(found.extn_value.as_bytes()).ok()
}

const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
/// The same without its tag and length.
const CODE_SIGNING_DER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
/// Names that are shown of one signer.
const NAMES_MAX: usize = 8;
