//! What a job has done so far, on disk, so that one that was ended goes on where it was; and the place of a model until it
//! may have its name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CompressError;
use crate::repository::settings::NATIVE_FILE;

/// A hidden folder in that of the model.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    /// Folders that were made for it.
    made: Vec<PathBuf>,
}

impl Kept {
    /// What is there of a job; what others have left is removed.
    pub(super) fn open(beside: &Path, identity: &str) -> Result<Self, CompressError> {
        let made = beside.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made: Vec<PathBuf> = made.map(Path::to_owned).collect();
        let folder = beside.join(FOLDER);
        let kept = Self { folder, made };
        let told = fs::read_to_string(kept.folder.join(IDENTITY)).unwrap_or_default();
        if told != identity {
            let _ = fs::remove_dir_all(&kept.folder);
        }
        fs::create_dir_all(&kept.folder).map_err(|source| unwritable(&kept.folder, source))?;
        kept.write(IDENTITY, identity.as_bytes())?;
        Ok(kept)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the model is until it was judged.
    pub(super) fn candidate(&self) -> PathBuf {
        self.folder.join(NATIVE_FILE)
    }

    /// What a step made of a layer, if it came so far.
    pub(super) fn done<T: DeserializeOwned>(&self, step: &str, place: usize) -> Option<T> {
        serde_json::from_slice(&fs::read(self.folder.join(name(step, place))).ok()?).ok()
    }

    pub(super) fn keep<T: Serialize>(&self, step: &str, place: usize, made: &T) -> Result<(), CompressError> {
        let text = serde_json::to_vec(made).map_err(|error| unwritable(&self.folder, error.into()))?;
        self.write(&name(step, place), &text)
    }

    /// Removes all of it, and the folders that were made for it and are empty.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.folder);
        self.made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }

    /// A file that is there whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CompressError> {
        let (part, path) = (self.folder.join("part"), self.folder.join(name));
        fs::write(&part, bytes).and_then(|()| fs::rename(&part, &path)).map_err(|source| unwritable(&path, source))
    }
}

fn unwritable(path: &Path, source: io::Error) -> CompressError {
    CompressError::Unwritable { path: path.display().to_string(), source }
}

fn name(step: &str, place: usize) -> String {
    format!("{step}-{place}.json")
}

/// Weights as text: numbers of a file that is JSON otherwise.
pub(super) mod encoded {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::compress) fn serialize<S: Serializer>(weights: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(in crate::compress) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

const FOLDER: &str = ".compress";
const IDENTITY: &str = "job";
