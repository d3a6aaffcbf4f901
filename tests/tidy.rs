//! The house rules that neither compiler nor clippy can state. Runs with every test run.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;

/// Where this repository's own code stands.
const FOLDERS: &[&str] = &["src", "crates", "tests", "benches"];

/// The rooms in the order of `lib.rs`; a room names only rooms above it. What a request meets first stands first.
const ROOMS: &[&str] = &[
    "digest",
    "error",
    "tensor",
    "units",
    "infer",
    "watched",
    // The generated messages: a file format for `repository`, a wire for `frontend`, nothing to anyone else.
    "proto",
    "telemetry",
    "access",
    "engine",
    "metering",
    "integrity",
    "repository",
    "admission",
    "routing",
    "cache",
    "batching",
    "pipeline",
    "frontend",
    "compress",
    "config",
    "tune",
    "app",
    "cli",
];

/// Rooms that may name the generated protocol of the wire, and messages of model files.
const WIRE_READERS: &[&str] = &["repository", "frontend"];
const FILE_READERS: &[&str] = &["engine"];
/// And those of traces.
const TRACE_WRITERS: &[&str] = &["telemetry"];

/// The one file of the root package that may read the environment.
const ENVIRONMENT_READER: &str = "src/config/environment.rs";

const NAMES_REFUSED: &[&str] = &["common", "util", "utils", "helper", "helpers", "misc", "manager", "data", "info"];

/// Files that no one edits.
const GENERATED: &[&str] = &[
    "src/proto/inference.rs",
    "src/proto/onnx.rs",
    "src/proto/otlp.rs",
    "src/proto/tensorflow.rs",
    "tests/support/inference_client.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(dir)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The path below the root, as the tables above write it.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

fn written_by_hand(dir: &str) -> impl Iterator<Item = (String, String)> {
    rust_files(dir)
        .into_iter()
        .map(|path| (shown(&path), fs::read_to_string(&path).unwrap()))
        .filter(|(name, _)| !GENERATED.contains(&name.as_str()))
}

/// The room a file of `src/` belongs to; `lib.rs` and `main.rs` belong to none.
fn room_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("src/")?;
    let room = rest.split(['/', '.']).next()?;
    (!matches!(room, "lib" | "main")).then_some(room)
}

/// The rooms that a text names through `crate::`.
fn named_rooms(text: &str) -> impl Iterator<Item = String> {
    text.split("crate::")
        .skip(1)
        .map(|after| after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
}

#[test]
fn rooms_import_only_rooms_above_them() {
    for (name, text) in written_by_hand("src") {
        let Some(room) = room_of(&name) else { continue };
        let place = ROOMS.iter().position(|known| *known == room);
        let place = place.unwrap_or_else(|| panic!("{name} is in no room of the table"));
        // Tests may look at any room.
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        if name.ends_with("/tests.rs") || name.contains("/tests/") || name.ends_with("/testing.rs") {
            continue;
        }
        for target in named_rooms(text) {
            assert!(!target.is_empty(), "{name}: one module per `use` line, so that this test can read it");
            let above = ROOMS[..=place].contains(&target.as_str());
            assert!(above, "{name}: {room} names {target}, which does not stand above it");
        }
        for named in text.split("crate::proto").skip(1).filter(|_| room != "proto") {
            let readers = match named {
                _ if named.starts_with("::onnx") => FILE_READERS,
                _ if named.starts_with("::otlp") => TRACE_WRITERS,
                _ => WIRE_READERS,
            };
            assert!(readers.contains(&room), "{name}: {room} knows neither wire nor file, but names the messages");
        }
    }
}

#[test]
fn every_room_of_the_table_exists() {
    let declared = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: BTreeSet<&str> =
        declared.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, ROOMS.iter().copied().collect());
}

#[test]
fn no_file_outgrows_its_room() {
    for (name, text) in FOLDERS.iter().flat_map(|folder| written_by_hand(folder)) {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name} has {lines} lines, at most {FILE_LINES_MAX} are allowed");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (name, text) in FOLDERS.iter().flat_map(|folder| written_by_hand(folder)) {
        assert!(text.starts_with("//!"), "{name} does not begin with a `//!` line");
    }
}

#[test]
fn there_is_no_unsafe_code() {
    for entry in ["src/lib.rs", "src/main.rs"] {
        let text = fs::read_to_string(root().join(entry)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{entry} does not forbid unsafe code");
    }
}

/// Files of the kernels that may hold unsafe code: named for an instruction set, or the loop that all of them share.
const UNSAFE_KERNELS: &[&str] = &["avx2.rs", "avx512.rs", "portable.rs", "generic.rs", "vector.rs", "grid.rs"];

#[test]
fn kernels_are_unsafe_where_their_files_say_so() {
    for (name, text) in written_by_hand("crates/kernels") {
        let file = name.rsplit('/').next().unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        // `type Kernel = unsafe fn` and the like are said, not done, elsewhere.
        let does = code.into_iter().any(|line| line.contains("unsafe {") || line.contains("unsafe impl"));
        assert!(!does || UNSAFE_KERNELS.contains(&file), "{name} holds unsafe code");
    }
}

#[test]
fn only_config_reads_the_environment() {
    for (name, text) in written_by_hand("src") {
        // Built in two halves, so that this file does not find itself.
        let reads = [concat!("env::", "var"), concat!("temp", "_dir")].iter().any(|call| text.contains(call));
        assert!(!reads || name == ENVIRONMENT_READER, "{name} reads the environment");
    }
}

#[test]
fn names_say_what_a_thing_is() {
    for (name, _) in FOLDERS.iter().flat_map(|folder| written_by_hand(folder)) {
        for part in Path::new(&name).with_extension("").iter() {
            let part = part.to_str().unwrap();
            let refused = part.split('_').find(|word| NAMES_REFUSED.contains(word));
            assert!(refused.is_none(), "{name}: {part:?} says nothing about what is in it");
        }
    }
}
