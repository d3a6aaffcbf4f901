//! Feeds whatever bytes come to one of the readers of what clients, models and signers send: which, the variable FUZZ_TARGET says.
#![no_main]

mod files;
mod models;
mod signatures;
mod steps;
mod wire;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    TARGET.get_or_init(target)(bytes);
});

fn target() -> fn(&[u8]) {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let names = || TARGETS.map(|(name, _)| name).join(", ");
    found.unwrap_or_else(|| panic!("expected FUZZ_TARGET to be one of {}, got {name:?}", names())).1
}

const TARGETS: [(&str, fn(&[u8])); 13] = [
    ("onnx", models::onnx),
    ("native", models::native),
    ("rest-json", wire::json),
    ("rest-binary", wire::binary),
    ("grpc", wire::grpc),
    ("v1", wire::v1),
    ("pbtxt", files::pbtxt),
    ("manifest", files::manifest),
    ("npz", files::npz),
    ("image", steps::image),
    ("text", steps::text),
    ("signature", signatures::bundle),
    ("statement", signatures::statement),
];
