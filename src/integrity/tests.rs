//! Signatures by the real package (`tests/fixtures/signatures/make.py`), and what hostile ones come to.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::bundle::Bundle;
use super::*;
use crate::digest::Digest;
use crate::units::ByteSize;

/// What is done to a signature, and how it is refused then.
type Change = (fn(&mut Value), &'static str);

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signatures").join(name)
}

fn text(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn settings() -> SignaturesConfig {
    SignaturesConfig {
        bytes_max: ByteSize(1 << 20),
        resources_max: 100,
        policy: Policy::Require,
        ..Trust::none().settings
    }
}

fn keys(names: &[&str]) -> Trust {
    Trust::read(&SignaturesConfig { keys: names.iter().map(|name| path(name)).collect(), ..settings() }).unwrap()
}

fn roots() -> SignaturesConfig {
    SignaturesConfig { certificates: vec![path("root.pem")], ..settings() }
}

/// In the year 2027.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn refusal(trust: &Trust, text: &[u8]) -> String {
    trust.verify(text, now()).unwrap_err().to_string()
}

/// A bundle of the package with something changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut bundle = serde_json::from_slice(&text(name)).unwrap();
    change(&mut bundle);
    serde_json::to_vec(&bundle).unwrap()
}

#[test]
fn keys_vouch_for_what_was_signed_with_them() {
    let trust = keys(&["p256.pub", "p384.pub"]);
    for name in ["p256.sig", "p384.sig"] {
        let signed = trust.verify(&text(name), now()).unwrap();
        let files: Vec<&str> = signed.statement.files.keys().map(String::as_str).collect();
        let all = ["1/model.onnx", "1/variants/b/model.onnx", "1/weights", "2/model.onnx", "manifest.toml"];
        assert_eq!((files, signed.statement.name.as_str()), (all.to_vec(), "model"));
        assert_eq!(signed.statement.files["1/model.onnx"], Digest::of(b"own"));
        assert!(signed.statement.ignores("README.md") && signed.statement.ignores(".git/config"));
        assert!(!signed.statement.ignores("README.md2") && !signed.statement.ignores("a/README.md"));
        assert!(signed.signer.to_string().starts_with("key sha256:"), "{}", signed.signer);
    }
    let file = trust.verify(&text("file.sig"), now()).unwrap().statement;
    assert_eq!(file.files.into_iter().collect::<Vec<_>>(), [(SINGLE.to_owned(), Digest::of(b"own"))]);
    let other = refusal(&keys(&["p384.pub"]), &text("p256.sig"));
    assert_eq!(other, "the signer is not trusted: expected one of the 1 keys of signatures.keys, got another");
}

#[test]
fn certificates_vouch_through_their_chain() {
    let trust = Trust::read(&roots()).unwrap();
    let signed = trust.verify(&text("signer.sig"), now()).unwrap();
    let shown = "certificate O=Example,CN=signer, release@example.com, https://example.com/build";
    assert_eq!(signed.signer.to_string(), shown);
    for (name, why) in [
        ("ended.sig", "its certificate has ended"),
        ("server.sig", "RequiredEkuNotFound"),
        ("useless.sig", "neither for digital signatures nor for signing code"),
        ("p256.sig", "expected one of the 0 keys"),
    ] {
        let refusal = refusal(&trust, &text(name));
        assert!(refusal.starts_with("the signer is not trusted: ") && refusal.contains(why), "{name}: {refusal}");
    }
    let before = trust.verify(&text("signer.sig"), SystemTime::UNIX_EPOCH).unwrap_err();
    assert!(matches!(before, SignatureError::Untrusted(_)), "{before}");
    let late = Trust::read(&SignaturesConfig { expired: true, ..roots() }).unwrap();
    assert!(
        late.verify(&text("ended.sig"), now()).is_ok(),
        "as the package has it, at the time when the certificate began"
    );
    let nobody = keys(&["p256.pub"]);
    assert!(refusal(&nobody, &text("signer.sig")).contains("no certificate of signatures.certificates has issued it"));
}

#[test]
fn certificates_are_somebody_s() {
    let of = |identity: &str| SignaturesConfig { identities: vec!["x".into(), identity.into()], ..roots() };
    for identity in ["release@example.com", "https://example.com/build", "O=Example,CN=signer"] {
        assert!(Trust::read(&of(identity)).unwrap().verify(&text("signer.sig"), now()).is_ok(), "{identity}");
    }
    for identity in ["example.com", "release@example.co", "CN=signer", ""] {
        let refusal = refusal(&Trust::read(&of(identity)).unwrap(), &text("signer.sig"));
        assert!(refusal.contains("expected one of signatures.identities, got \"O=Example,CN=signer\""), "{refusal}");
    }
}

#[test]
fn what_is_not_checked_is_refused_by_its_name() {
    let trust = keys(&["p256.pub"]);
    for (name, why) in [
        ("shards.sig", "its digests are of shards of files"),
        ("blake2.sig", "expected hash_type \"sha256\", got \"blake2"),
    ] {
        assert!(refusal(&trust, &text(name)).contains(why), "{}", refusal(&trust, &text(name)));
    }
    let curve = Trust::read(&SignaturesConfig { keys: vec![path("p521.pub")], ..settings() }).unwrap_err().to_string();
    assert!(curve.contains("expected a public key of the curve P-256 or P-384 in PEM"), "{curve}");
    let changes: [Change; 8] = [
        (|it| it["mediaType"] = "application/x".into(), "expected media type"),
        (
            |it| it["dsseEnvelope"]["payloadType"] = "text/plain".into(),
            "expected payload type application/vnd.in-toto+json",
        ),
        (|it| it["verificationMaterial"]["tlogEntries"] = json!([{}]), "Sigstore's keyless method"),
        (|it| it["verificationMaterial"] = json!({"certificate": {"rawBytes": ""}}), "Sigstore's keyless method"),
        (|it| it["verificationMaterial"] = json!({}), "either publicKey or x509CertificateChain"),
        (|it| it["dsseEnvelope"] = Value::Null, "expected a dsseEnvelope, got none"),
        (|it| it["dsseEnvelope"]["signatures"] = json!([]), "expected one signature in the envelope, got 0"),
        (|it| it["dsseEnvelope"]["payload"] = "*".into(), "payload is no base64"),
    ];
    for (change, why) in changes {
        let refusal = refusal(&trust, &changed("p256.sig", change));
        assert!(refusal.contains(why), "{refusal}");
    }
}

#[test]
fn one_changed_byte_of_payload_or_signature_is_a_forgery() {
    let trust = Trust::read(&SignaturesConfig { keys: vec![path("p256.pub"), path("p384.pub")], ..roots() }).unwrap();
    for name in ["p256.sig", "p384.sig", "signer.sig"] {
        for field in ["payload", "sig"] {
            let forged = changed(name, |bundle| {
                let envelope = &mut bundle["dsseEnvelope"];
                let place =
                    if field == "sig" { &mut envelope["signatures"][0]["sig"] } else { &mut envelope["payload"] };
                let mut bytes = STANDARD.decode(place.as_str().unwrap()).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                *place = STANDARD.encode(bytes).into();
            });
            assert_eq!(trust.verify(&forged, now()), Err(SignatureError::Forged), "{name} {field}");
        }
    }
    let swapped = changed("p256.sig", |bundle| {
        let other: Value = serde_json::from_slice(&text("version.sig")).unwrap();
        bundle["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"].clone();
    });
    assert_eq!(trust.verify(&swapped, now()), Err(SignatureError::Forged));
}

#[test]
fn limits_hold() {
    let whole = text("p256.sig");
    let small = |bytes_max, resources_max| {
        let keys = vec![path("p256.pub")];
        Trust::read(&SignaturesConfig { keys, bytes_max: ByteSize(bytes_max), resources_max, ..settings() }).unwrap()
    };
    let length = whole.len() as u64;
    assert!(small(length, 5).verify(&whole, now()).is_ok());
    assert!(refusal(&small(length - 1, 5), &whole).contains(&format!("{length} bytes, the limit is {}", length - 1)));
    assert_eq!(refusal(&small(length, 4), &whole), "the signature has 5 resources, the limit is 4");
    let deep = [b"[".repeat(100_000), b"{\"a\":".repeat(100_000)];
    for text in deep {
        assert!(refusal(&small(1 << 20, 5), &text).starts_with("the signature cannot be read"));
    }
    let chain = changed("signer.sig", |bundle| {
        let certificates = &mut bundle["verificationMaterial"]["x509CertificateChain"]["certificates"];
        *certificates = vec![certificates[0].clone(); 17].into();
    });
    assert!(refusal(&small(1 << 20, 5), &chain).contains("expected 1 to 16 certificates, got 17"));
}

#[test]
fn statements_that_contradict_themselves_are_refused() {
    let parse = |change: fn(&mut Value)| {
        let bundle = Bundle::parse(&text("p256.sig"), 1 << 20).unwrap();
        let mut statement = serde_json::from_slice(&bundle.payload).unwrap();
        change(&mut statement);
        Statement::parse(&serde_json::to_vec(&statement).unwrap(), 100)
    };
    assert!(parse(|_| {}).is_ok());
    let changes: [Change; 9] = [
        (|it| it["predicate"]["resources"][0]["name"] = "../x".into(), "plain relative paths"),
        (|it| it["predicate"]["resources"][0]["name"] = "/x".into(), "plain relative paths"),
        (|it| it["predicate"]["resources"][0]["name"] = "a//b".into(), "plain relative paths"),
        (|it| it["predicate"]["resources"][1] = it["predicate"]["resources"][0].clone(), "listed twice"),
        (|it| it["predicate"]["resources"][0]["digest"] = "00".into(), "expected 64 hexadecimal digits"),
        (|it| it["subject"][0]["digest"]["sha256"] = "0".repeat(64).into(), "not that of its resources"),
        (|it| it["subject"] = json!([]), "expected one subject, got 0"),
        (|it| it["predicateType"] = "https://model_signing/Digests/v0.1".into(), "before 1.0"),
        (|it| it["predicate"] = Value::Null, "it has no predicate"),
    ];
    for (change, why) in changes {
        let refusal = parse(change).unwrap_err().to_string();
        assert!(refusal.contains(why), "{refusal}");
    }
}

#[test]
fn files_that_hold_no_keys_are_told() {
    let read = |keys: &[&str], certificates: &[&str]| {
        let all = |names: &[&str]| names.iter().map(|name| path(name)).collect();
        let wanted = SignaturesConfig { keys: all(keys), certificates: all(certificates), ..settings() };
        Trust::read(&wanted).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(read(&["none"], &[]).unwrap_err().starts_with("cannot read "));
    assert!(read(&["root.pem"], &[]).unwrap_err().ends_with("found none"));
    assert!(read(&[], &["p256.pub"]).unwrap_err().ends_with("found none"));
    let off = SignaturesConfig { policy: Policy::Off, keys: vec![path("none")], ..settings() };
    assert!(Trust::read(&off).is_ok(), "what is not asked for is not read");
    assert!(keys(&["p256.pub"]) == keys(&["p256.pub"]) && keys(&["p256.pub"]) != keys(&["p384.pub"]));
}

proptest! {
    #[test]
    fn a_cut_or_changed_bundle_is_refused_and_nothing_more(
        name in prop::sample::select(vec!["p256.sig", "signer.sig"]), cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let trust = Trust::read(&SignaturesConfig { keys: vec![path("p256.pub")], ..roots() }).unwrap();
        let whole = text(name);
        prop_assert!(trust.verify(&whole[..cut.index(whole.len())], now()).is_err());
        let mut changed = whole.clone();
        let at = at.index(whole.len());
        changed[at] = byte;
        // Where what is signed is read the same, nothing is forged.
        if let Ok(signed) = trust.verify(&changed, now()) {
            prop_assert_eq!(signed, trust.verify(&whole, now()).unwrap());
        }
    }

    #[test]
    fn any_text_comes_to_an_end(text in prop::collection::vec(any::<u8>(), 0..300), cut in prop::collection::vec(any::<u8>(), 0..100)) {
        let trust = keys(&["p256.pub"]);
        prop_assert!(trust.verify(&text, now()).is_err());
        let chain = changed("signer.sig", |bundle| {
            bundle["verificationMaterial"]["x509CertificateChain"]["certificates"][0]["rawBytes"] = STANDARD.encode(&cut).into();
        });
        prop_assert!(Trust::read(&roots()).unwrap().verify(&chain, now()).is_err());
        prop_assert!(Statement::parse(&text, 10).is_err());
    }
}
