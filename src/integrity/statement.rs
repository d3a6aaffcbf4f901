//! What was signed: an in-toto statement about the files of a model, as OpenSSF's `model-signing` 1.x writes it.
//!
//! By the time it is read its signature has been checked; its form is held to all the same, because who signs may be mistaken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::SignatureError;
use super::bundle::shown;
use crate::digest::Digest;

/// The files that somebody vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Of the folder, or the file, that was signed.
    pub name: String,
    /// By path relative to what was signed. A single file that was signed has the path ".".
    pub files: BTreeMap<String, Digest>,
    /// What was left out: files, and folders with all that is in them.
    pub ignored: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    #[serde(default)]
    predicate: Option<Predicate>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    digest: String,
    algorithm: String,
}

impl Statement {
    /// # Errors
    /// When the payload is no statement about files, or contradicts itself.
    pub(super) fn parse(payload: &[u8], resources_max: usize) -> Result<Self, SignatureError> {
        let written: Written =
            serde_json::from_slice(payload).map_err(|error| SignatureError::Broken(format!("payload: {error}")))?;
        expect("statement", &written.kind, STATEMENT)?;
        if written.predicate_type == PREDICATE_OLD {
            return unsupported(
                "it is of model-signing before 1.0, which listed no files that were left out: sign again".into(),
            );
        }
        expect("predicate", &written.predicate_type, PREDICATE)?;
        let Some(predicate) = written.predicate else { return broken("it has no predicate".into()) };
        let serialization = predicate.serialization;
        if serialization.method == "shards" {
            return unsupported(
                "its digests are of shards of files, expected those of files: sign with method \"files\"".into(),
            );
        }
        expect("serialization method", &serialization.method, "files")?;
        expect("hash_type", &serialization.hash_type, ALGORITHM)?;
        let [subject] = &written.subject[..] else {
            return unsupported(format!("expected one subject, got {}", written.subject.len()));
        };
        let files = files(predicate.resources, subject, resources_max)?;
        let ignored = serialization.ignore_paths.iter().filter_map(|path| relative(path)).collect();
        Ok(Self { name: subject.name.clone(), files, ignored })
    }

    /// Whether whoever signed has left a path out on purpose.
    pub fn ignores(&self, path: &str) -> bool {
        is_within(path, &self.ignored)
    }
}

/// Whether a path, or a folder that it lies in, is among these.
pub fn is_within(path: &str, paths: &BTreeSet<String>) -> bool {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.into_iter().any(|end| paths.contains(&path[..end]))
}

/// The files, whose digests together are those of the subject.
fn files(
    resources: Vec<Resource>,
    subject: &Subject,
    resources_max: usize,
) -> Result<BTreeMap<String, Digest>, SignatureError> {
    if resources.len() > resources_max {
        let what = format!("{} resources", resources.len());
        return Err(SignatureError::TooLarge { what, limit: resources_max as u64 });
    }
    let (mut files, mut all) = (BTreeMap::new(), Context::new(&SHA256));
    for resource in resources {
        expect("algorithm", &resource.algorithm, ALGORITHM)?;
        let digest: Digest = resource.digest.parse().map_err(|error| SignatureError::Broken(format!("{error}")))?;
        all.update(digest.bytes());
        let name = if resource.name == SINGLE { Some(SINGLE.to_owned()) } else { relative(&resource.name) };
        let Some(name) = name.filter(|name| *name == resource.name) else {
            return broken(format!("expected resources with plain relative paths, got {:?}", shown(&resource.name)));
        };
        if files.insert(name, digest).is_some() {
            return broken(format!("resource {:?} is listed twice", shown(&resource.name)));
        }
    }
    let root: Option<Digest> = subject.digest.get(ALGORITHM).and_then(|text| text.parse().ok());
    match root.is_some_and(|root| root.bytes() == all.finish().as_ref()) {
        true => Ok(files),
        false => broken("the subject's digest is not that of its resources".into()),
    }
}

/// A path of plain components, without what means nothing.
pub fn relative(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!parts.is_empty() && !path.contains('\0')).then(|| parts.join("/"))
}

fn expect(what: &str, got: &str, expected: &str) -> Result<(), SignatureError> {
    if got == expected { Ok(()) } else { unsupported(format!("expected {what} {expected:?}, got {:?}", shown(got))) }
}

fn broken<T>(why: String) -> Result<T, SignatureError> {
    Err(SignatureError::Broken(why))
}

fn unsupported<T>(why: String) -> Result<T, SignatureError> {
    Err(SignatureError::Unsupported(why))
}

/// The path of a file that was signed by itself.
pub const SINGLE: &str = ".";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";
const PREDICATE_OLD: &str = "https://model_signing/Digests/v0.1";
const ALGORITHM: &str = "sha256";
