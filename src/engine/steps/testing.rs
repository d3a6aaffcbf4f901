//! Steps from a line of a manifest, and what others make of the same inputs (`tests/fixtures/steps/make.py`).

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use crate::engine::{EngineError, LoadOptions, Plan};

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/steps")
}

/// The step of a manifest's line.
pub(super) fn step(settings: &str) -> Result<Box<dyn Plan>, EngineError> {
    step_with(settings, &LoadOptions::default())
}

pub(super) fn step_with(settings: &str, options: &LoadOptions) -> Result<Box<dyn Plan>, EngineError> {
    super::plan(&toml::from_str(settings).unwrap(), &folder(), options)
}

/// Tensors by their names.
pub(super) struct Fixture(Vec<u8>);

impl Fixture {
    pub(super) fn read() -> Self {
        Self(std::fs::read(folder().join("expected.safetensors")).unwrap())
    }

    /// Of all tensors whose names begin so, what stands behind it.
    pub(super) fn names(&self, begin: &str) -> Vec<String> {
        let all = SafeTensors::deserialize(&self.0).unwrap();
        all.names().into_iter().filter_map(|name| name.strip_prefix(begin)).map(str::to_owned).collect()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    pub(super) fn shape(&self, name: &str) -> Vec<usize> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().shape().to_vec()
    }

    /// The elements of a tensor of floats or bytes.
    pub(super) fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes(name);
        match bytes.len() / self.shape(name).iter().product::<usize>() {
            1 => bytes.into_iter().map(f32::from).collect(),
            _ => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        }
    }
}
