//! Signatures over models: bundles as they come, and statements that somebody trusted has signed.

use std::cell::OnceCell;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kinglet::integrity::{Policy, SignaturesConfig, Trust};
use kinglet::units::ByteSize;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

struct House {
    trust: Trust,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

thread_local! {
    static HOUSE: OnceCell<House> = const { OnceCell::new() };
}

impl House {
    fn open() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("there are random numbers");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("it was made just now");
        let info = [SPKI_HEAD, key.public_key().as_ref()].concat();
        let path = std::env::temp_dir().join(format!("kinglet-fuzz-{}.pub", std::process::id()));
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(info));
        fs::write(&path, pem).expect("the folder of temporary files is writable");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/signatures");
        let settings = SignaturesConfig {
            policy: Policy::Require,
            keys: vec![path, fixtures.join("p256.pub"), fixtures.join("p384.pub")],
            certificates: vec![fixtures.join("root.pem")],
            bytes_max: ByteSize(1 << 20),
            resources_max: 1000,
            ..Trust::none().settings
        };
        Self { trust: Trust::read(&settings).expect("the keys are valid"), key, random }
    }
}

pub fn bundle(text: &[u8]) {
    HOUSE.with(|house| {
        let house = house.get_or_init(House::open);
        let _ = house.trust.verify(text, SystemTime::now());
    });
}

pub fn statement(payload: &[u8]) {
    HOUSE.with(|house| {
        let House { trust, key, random } = house.get_or_init(House::open);
        let signed = [format!("DSSEv1 {} {TYPE} {} ", TYPE.len(), payload.len()).as_bytes(), payload].concat();
        let signature = key.sign(random, &signed).expect("there are random numbers");
        let (payload, signature) = (STANDARD.encode(payload), STANDARD.encode(signature));
        let text = format!(
            r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{{"publicKey":{{}}}},
            "dsseEnvelope":{{"payload":"{payload}","payloadType":"{TYPE}","signatures":[{{"sig":"{signature}"}}]}}}}"#
        );
        let _ = trust.verify(text.as_bytes(), SystemTime::now());
    });
}

const TYPE: &str = "application/vnd.in-toto+json";
/// What stands before a point of P-256 in a public key's DER.
const SPKI_HEAD: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 0x42, 0,
];
