//! Files of tenants and keys, tokens signed here, and what becomes of callers when files change.

use std::fs;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::error::ErrorCode;
use crate::units::Span;

struct House {
    folder: TempDir,
    config: AccessConfig,
}

impl House {
    fn with(tenants: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::config::Config::default().access;
        config.tenants_file = folder.path().join("tenants.toml");
        config.reload_interval = Span(Duration::from_secs(3600));
        let house = Self { folder, config };
        house.write(tenants);
        house
    }

    fn taking_tokens(mut self, keys: &Value) -> Self {
        self.config.jwks_file = self.folder.path().join("keys.json");
        (self.config.token_issuer, self.config.token_audience) = ("https://issuer".into(), "kinglet".into());
        self.write_keys(keys);
        self
    }

    fn write(&self, tenants: &str) {
        fs::write(&self.config.tenants_file, tenants).unwrap();
    }

    fn write_keys(&self, keys: &Value) {
        fs::write(&self.config.jwks_file, json!({ "keys": keys }).to_string()).unwrap();
    }

    fn start(&self) -> Access {
        Access::start(&self.config, AccessMetrics::apart()).unwrap()
    }

    fn error(&self) -> String {
        Access::start(&self.config, AccessMetrics::apart()).unwrap_err().to_string()
    }
}

fn look(access: &Access) {
    access.known.as_ref().unwrap().look();
}

fn digest(key: &str) -> Digest {
    Digest::of(key.as_bytes())
}

fn shop() -> String {
    format!(
        r#"
        [tenants.shop]
        scopes = ["infer:digits", "read:*"]
        [[tenants.shop.keys]]
        name = "till"
        sha256 = "{}"
        [[tenants.shop.keys]]
        name = "reader"
        sha256 = "{}"
        scopes = ["read:digits"]
        ends = 2027-01-31
        [tenants.ops]
        scopes = ["*"]
        keys = [{{ name = "root", sha256 = "{}" }}]
        "#,
        digest("a"),
        digest("b"),
        digest("root")
    )
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// 2027-01-31T00:00:00Z
const END: u64 = 1_801_353_600;

#[test]
fn keys_are_their_tenants() {
    let access = House::with(&shop()).start();
    let till = access.identify("a", at(END)).unwrap();
    assert_eq!(till.name(), ("shop", "till"));
    assert_eq!(till.check(Verb::Infer, Target::Model("digits")), Ok(()));
    let denied = till.check(Verb::Infer, Target::Model("wine")).unwrap_err();
    assert_eq!(denied.to_string(), "tenant \"shop\" may not do this: expected scope \"infer:wine\"");
    assert_eq!(denied.code(), ErrorCode::PermissionDenied);
    // Less than its tenant, and until a day begins.
    let reader = access.identify("b", at(END - 1)).unwrap();
    assert!(reader.may_read("digits") && !reader.may_read("wine"));
    assert!(reader.check(Verb::Infer, Target::Model("digits")).is_err());
    assert_eq!(access.identify("b", at(END)).unwrap_err(), Denied::EndedKey);
    for unknown in ["", "A", "a ", "c", "x.y.z"] {
        assert_eq!(access.identify(unknown, at(0)).unwrap_err(), Denied::UnknownKey, "{unknown:?}");
    }
    assert_eq!(access.identify("root", at(0)).unwrap().check(Verb::Admin, Target::Server), Ok(()));
    assert_eq!(Caller::default().check(Verb::Read, Target::Server), Err(Denied::Missing));
}

#[test]
fn a_file_that_is_wrong_says_where() {
    let key = digest("a");
    for (text, says) in [
        ("[tenants.a]\nscope = []", "unknown field `scope`"),
        ("[tenants.a]\nscopes = [\"write:a\"]", "expected a scope such as"),
        ("[tenants.a]\nrequests_per_second = 0", "requests_per_second expects a number above 0, got 0"),
        ("[tenants.a]\njoules_per_second = inf", "joules_per_second expects a number above 0, got inf"),
        ("[tenants.a]\nburst = \"0s\"", "burst expects a time above zero"),
        ("[tenants.\"a b\"]", "expected a name of 1 to 128 letters"),
        ("[[tenants.a.keys]]\nname = \"k\"\nsha256 = \"secret\"", "expected a SHA-256 as 64 hexadecimal digits"),
        (
            &format!("[tenants.a]\nkeys = [{{ name = \"k\", sha256 = \"{key}\", ends = 2027-01-01T00:00:00+01:00 }}]"),
            "in UTC",
        ),
        (
            &format!(
                "[tenants.a]\nkeys = [{{ name = \"k\", sha256 = \"{key}\" }}]\n[tenants.b]\nkeys = [{{ name = \"l\", sha256 = \"{key}\" }}]"
            ),
            "expected each key once",
        ),
    ] {
        let error = House::with(text).error();
        assert!(error.contains(says), "{text}: {error}");
        assert!(!error.contains("got secret"), "{error}");
    }
    let mut house = House::with("");
    house.config.tenants_file = house.folder.path().join("absent");
    assert!(house.error().starts_with("cannot read"), "{}", house.error());
}

#[test]
fn a_change_is_taken_whole_or_not_at_all() {
    let house = House::with(&shop());
    let access = house.start();
    let till = access.identify("a", at(0)).unwrap();
    house.write("[tenants.shop]\nscopes = [\"nothing\"]");
    look(&access);
    assert!(access.identify("a", at(0)).is_ok());
    assert_eq!(access.known.as_ref().unwrap().metrics.reloads_failed.get(), 1);
    fs::remove_file(&house.config.tenants_file).unwrap();
    look(&access);
    look(&access);
    assert!(access.identify("a", at(0)).is_ok());
    assert_eq!(access.known.as_ref().unwrap().metrics.reloads_failed.get(), 2);
    house.write(&format!("[tenants.shop]\nkeys = [{{ name = \"new\", sha256 = \"{}\" }}]", digest("new")));
    look(&access);
    assert_eq!(access.identify("a", at(0)).unwrap_err(), Denied::UnknownKey);
    // A stream that is open asks again.
    assert_eq!(access.again(&till, at(0)).unwrap_err(), Denied::UnknownKey);
    let new = access.identify("new", at(0)).unwrap();
    assert!(new.check(Verb::Infer, Target::Model("digits")).is_err());
    assert_eq!(access.again(&new, at(0)).unwrap().name(), ("shop", "new"));
}

#[tokio::test(start_paused = true)]
async fn limits_hold_across_reloads_and_are_the_tenants_own() {
    let limited = |rate: u32| {
        format!(
            "[tenants.a]\nscopes = [\"*\"]\nrequests_per_second = {rate}\nrows_per_second = 100\njoules_per_second = 1\nburst = \"2s\"\n\
             keys = [{{ name = \"k\", sha256 = \"{}\" }}]\n[tenants.b]\nkeys = [{{ name = \"l\", sha256 = \"{}\" }}]",
            digest("a"),
            digest("b")
        )
    };
    let house = House::with(&limited(2));
    let access = house.start();
    let caller = || access.identify("a", at(0)).unwrap();
    let now = Instant::now();
    for _ in 0..4 {
        caller().take_request(now).unwrap();
    }
    let denied = caller().take_request(now).unwrap_err();
    assert_eq!((denied.code(), denied.reason()), (ErrorCode::QuotaExceeded, "requests"));
    assert_eq!(denied.to_string(), "tenant \"a\" has used up its requests, 2 a second");
    assert!(denied.retry_after().unwrap() <= Duration::from_millis(500));
    house.write(&limited(3));
    look(&access);
    assert!(caller().take_request(now).is_err());
    access.identify("b", at(0)).unwrap().take_request(now).unwrap();
    // Rows that were not computed are given back; one request may take more than there is.
    let rows = caller().take_rows(1000).unwrap().unwrap();
    assert_eq!(caller().take_rows(1).unwrap_err().reason(), "rows");
    rows.give_back();
    caller().take_rows(1).unwrap().unwrap().computed();
    tokio::time::advance(Duration::from_secs(60)).await;
    caller().spend(10.0);
    assert_eq!(caller().take_request(Instant::now()).unwrap_err().reason(), "joules");
    tokio::time::advance(Duration::from_secs(9)).await;
    caller().take_request(Instant::now()).unwrap();
}

/// Signs tokens, and shows its public key.
enum Issuer {
    Ecdsa(EcdsaKeyPair, &'static str, &'static str),
    Ed25519(Ed25519KeyPair),
}

impl Issuer {
    fn p256() -> Self {
        Self::ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256")
    }

    fn ecdsa(
        how: &'static ring::signature::EcdsaSigningAlgorithm,
        algorithm: &'static str,
        curve: &'static str,
    ) -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self::Ecdsa(EcdsaKeyPair::from_pkcs8(how, key.as_ref(), &random).unwrap(), algorithm, curve)
    }

    fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ecdsa(key, _, curve) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at((key.public_key().as_ref().len() - 1) / 2);
                json!({ "kty": "EC", "crv": curve, "kid": id, "x": text(x), "y": text(y) })
            }
            Self::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "use": "sig", "x": text(key.public_key().as_ref()) })
            }
        }
    }

    fn token(&self, head: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(head), part(claims));
        let signature = match self {
            Self::Ecdsa(key, ..) => key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn good(&self, id: &str, changes: &Value) -> String {
        let algorithm = match self {
            Self::Ecdsa(_, algorithm, _) => algorithm,
            Self::Ed25519(_) => "EdDSA",
        };
        self.token(&json!({ "alg": algorithm, "kid": id, "typ": "JWT" }), &claims(changes))
    }
}

fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": "https://issuer", "aud": ["other", "kinglet"], "sub": "shop", "exp": 1000, "nbf": 100.5,
        "scope": "openid infer:wine",
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

#[test]
fn tokens_of_every_kind_of_key_are_taken() {
    let p384 = Issuer::ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384");
    let issuers = [("one", Issuer::p256()), ("two", p384), ("three", Issuer::ed25519())];
    let keys: Vec<Value> = issuers.iter().map(|(id, issuer)| issuer.jwk(id)).collect();
    let access = House::with(&shop()).taking_tokens(&keys.into()).start();
    for (id, issuer) in &issuers {
        let token = issuer.good(id, &json!({}));
        // Verified, and then kept.
        for _ in 0..2 {
            let caller = access.identify(&token, at(500)).unwrap();
            assert_eq!(caller.name(), ("shop", "shop"), "{id}");
            assert_eq!(caller.check(Verb::Infer, Target::Model("wine")), Ok(()));
            assert!(caller.check(Verb::Infer, Target::Model("digits")).is_err());
        }
    }
    // Keys go on beside tokens.
    assert_eq!(access.identify("a", at(0)).unwrap().name(), ("shop", "till"));
}

#[test]
fn scopes_are_the_tokens_or_else_the_tenants() {
    let issuer = Issuer::p256();
    let access = House::with(&shop()).taking_tokens(&json!([issuer.jwk("k")])).start();
    let may = |changes: Value, verb, model| {
        let caller = access.identify(&issuer.good("k", &changes), at(500)).unwrap();
        caller.check(verb, Target::Model(model)).is_ok()
    };
    assert!(may(json!({ "scope": ["infer:a", 3, "x"] }), Verb::Infer, "a"));
    assert!(may(json!({ "scope": null }), Verb::Infer, "digits"));
    assert!(may(json!({ "scope": "openid" }), Verb::Infer, "digits"));
    assert!(!may(json!({ "scope": null, "sub": "stranger" }), Verb::Read, "digits"));
    assert!(may(json!({ "sub": "stranger" }), Verb::Infer, "wine"));
    let stranger = access.identify(&issuer.good("k", &json!({ "sub": "stranger" })), at(500)).unwrap();
    assert_eq!(stranger.name(), ("_unlisted", "stranger"));
}

#[test]
fn tokens_that_are_wrong_are_refused() {
    let (issuer, foreign) = (Issuer::p256(), Issuer::p256());
    let access = House::with(&shop()).taking_tokens(&json!([issuer.jwk("k")])).start();
    let refused = |token: &str| match access.identify(token, at(500)) {
        Err(Denied::Token(error)) => error,
        other => panic!("{token}: {other:?}"),
    };
    let with = |changes: Value| refused(&issuer.good("k", &changes));
    assert_eq!(with(json!({ "exp": 469 })), TokenError::Ended);
    assert_eq!(with(json!({ "exp": null })), TokenError::NoEnd);
    assert_eq!(with(json!({ "exp": "1000" })), TokenError::NoEnd);
    assert_eq!(with(json!({ "exp": -1 })), TokenError::NoEnd);
    assert_eq!(with(json!({ "exp": 1e300 })), TokenError::NoEnd);
    assert_eq!(with(json!({ "nbf": 531 })), TokenError::NotBegun);
    assert_eq!(with(json!({ "nbf": "100" })), TokenError::Begin);
    assert_eq!(with(json!({ "iss": "https://other" })), TokenError::Issuer);
    assert_eq!(with(json!({ "aud": "other" })), TokenError::Audience);
    assert_eq!(with(json!({ "aud": null })), TokenError::Audience);
    assert_eq!(with(json!({ "sub": null })), TokenError::Tenant);
    assert_eq!(with(json!({ "sub": 5 })), TokenError::Tenant);
    assert_eq!(refused(&foreign.good("k", &json!({}))), TokenError::Signature);
    assert_eq!(refused(&issuer.good("other", &json!({}))), TokenError::UnknownKey);
    let good = issuer.good("k", &json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    assert_eq!(refused(&format!("{signed}.")), TokenError::Signature);
    assert_eq!(refused(&format!("{signed}.!")), TokenError::Malformed);
    assert_eq!(refused("a.b.c"), TokenError::Malformed);
    for algorithm in ["none", "HS256", "RS256", "ES384", "es256"] {
        let head = json!({ "alg": algorithm, "kid": "k" });
        assert_eq!(refused(&issuer.token(&head, &claims(&json!({})))), TokenError::UnknownKey, "{algorithm}");
    }
    let critical = json!({ "alg": "ES256", "kid": "k", "crit": ["b64"] });
    assert_eq!(refused(&issuer.token(&critical, &claims(&json!({})))), TokenError::Critical);
    // A token that is kept ends all the same.
    assert!(access.identify(&good, at(500)).is_ok());
    assert_eq!(access.identify(&good, at(1030)).unwrap_err(), Denied::Token(TokenError::Ended));
}

#[test]
fn keys_of_issuers_come_and_go() {
    let (old, new) = (Issuer::p256(), Issuer::ed25519());
    let house = House::with(&shop()).taking_tokens(&json!([old.jwk("old")]));
    let access = house.start();
    let (first, second) = (old.good("old", &json!({})), new.good("new", &json!({})));
    let caller = access.identify(&first, at(500)).unwrap();
    assert!(access.identify(&second, at(500)).is_err());
    house.write_keys(
        &json!([old.jwk("old"), new.jwk("new"), { "kty": "oct", "k": "AAAA" }, { "kty": "EC", "crv": "P-521" }]),
    );
    look(&access);
    assert!(access.identify(&second, at(500)).is_ok() && access.again(&caller, at(500)).is_ok());
    assert_eq!(access.again(&caller, at(2000)).unwrap_err(), Denied::Token(TokenError::Ended));
    house.write_keys(&json!([new.jwk("new")]));
    look(&access);
    assert_eq!(access.identify(&first, at(500)).unwrap_err(), Denied::Token(TokenError::UnknownKey));
    assert_eq!(access.again(&caller, at(500)).unwrap_err(), Denied::Token(TokenError::UnknownKey));
    house.write_keys(&json!([{ "kty": "oct", "k": "AAAA" }]));
    look(&access);
    assert!(access.identify(&second, at(500)).is_ok());
    assert!(house.error().contains("got none among 1"), "{}", house.error());
}

#[test]
fn kept_tokens_are_bounded() {
    let issuer = Issuer::ed25519();
    let mut house = House::with("").taking_tokens(&json!([issuer.jwk("k")]));
    house.config.tokens_kept_max = 3;
    let access = house.start();
    for number in 0..10 {
        access.identify(&issuer.good("k", &json!({ "jti": number })), at(500)).unwrap();
        let kept = access.known.as_ref().unwrap().current.load().lock().len();
        assert!((1..=3).contains(&kept), "{kept}");
    }
}
