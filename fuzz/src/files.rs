//! Settings of models, and arrays for the commands that measure them; and files in memory, written anew for every input.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use kinglet::compress::Samples;
use kinglet::engine::{Dim, Signature, TensorSpec};
use kinglet::repository;
use kinglet::tensor::DType;

/// A folder of this process, with the file of one name in it.
#[derive(Default)]
pub struct Scratch {
    files: HashMap<&'static str, (PathBuf, File)>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    /// The folder that has a file of this name with these contents.
    pub fn written(name: &'static str, bytes: &[u8]) -> Option<PathBuf> {
        SCRATCH.with_borrow_mut(|scratch| {
            if !scratch.files.contains_key(name) {
                let folder = std::env::temp_dir().join(format!("kinglet-fuzz-{}/{name}", std::process::id()));
                fs::create_dir_all(&folder).ok()?;
                let file = File::create(folder.join(name)).ok()?;
                scratch.files.insert(name, (folder, file));
            }
            let (folder, file) = &scratch.files[name];
            file.set_len(0).ok()?;
            file.write_all_at(bytes, 0).ok()?;
            Some(folder.clone())
        })
    }
}

pub fn pbtxt(bytes: &[u8]) {
    settings(bytes, "config.pbtxt");
}

pub fn manifest(bytes: &[u8]) {
    settings(bytes, "manifest.toml");
}

/// Settings are read before the file that they speak of.
fn settings(bytes: &[u8], name: &'static str) {
    if let Some(folder) = Scratch::written(name, bytes) {
        let _ = repository::newest(&folder);
    }
}

pub fn npz(bytes: &[u8]) {
    let spec = |name: &str, dtype| TensorSpec { name: name.into(), dtype, dims: vec![Dim::Free(None), Dim::Free(None)] };
    let signature = Signature { inputs: vec![spec("x", DType::F32), spec("y", DType::I64)], outputs: Vec::new() };
    let Some(folder) = Scratch::written("rows.npz", bytes) else { return };
    if let Ok(samples) = Samples::read(&folder.join("rows.npz"), &signature) {
        samples.one_by_one();
    }
}
