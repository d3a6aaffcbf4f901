//! Who vouches for the files of a model, and the bytes that were found to be so: signatures beside them, and digests of the manifest.
//!
//! A build is made of bytes that were read once and compared, never of a file that is opened again. Whom to trust is the
//! `integrity` room's matter, what becomes of a model that nobody vouches for is decided here by the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::error::IntegrityError;
use super::files::Source;
use super::fingerprint;
use super::layout::{self, CONFIG, MANIFEST, Place};
use super::variants::FOLDER;
use crate::digest::Digest;
use crate::engine::{Sealed, read_beneath};
use crate::infer::{ModelName, VariantName, VersionId};
use crate::integrity::{self, Policy, SINGLE, Signed, Signer, Trust};
use crate::telemetry::VerificationMetrics;

/// What holds for every model.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) trust: Arc<Trust>,
    pub(super) metrics: VerificationMetrics,
    /// Of all files of a build together.
    pub(super) bytes_max: u64,
}

/// What vouches for one model.
#[derive(Clone, Debug)]
pub(super) struct Vouched {
    rules: Rules,
    model: ModelName,
    root: PathBuf,
    /// The name of a file that is the whole model.
    single: Option<String>,
    /// By the signature of the model's folder.
    own: Result<Option<Signed>, IntegrityError>,
    digests: BTreeMap<String, Digest>,
}

/// One build's files, or with no version those that belong to none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) version: Option<VersionId>,
    pub(super) variant: Option<&'a VariantName>,
    /// Where they lie, free of links.
    pub(super) folder: &'a Path,
}

/// What a build is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Seal {
    pub(super) sealed: Option<Arc<Sealed>>,
    pub(super) signer: Option<Arc<str>>,
}

/// Files by path, and who vouches for them.
struct Covered {
    files: BTreeMap<String, Bytes>,
    /// Files that are there although nobody vouches for them.
    others: BTreeSet<String>,
    signer: Signer,
}

impl Vouched {
    /// Reads the signature of a model's folder.
    pub(super) fn of(place: &Place, model: &ModelName, rules: Rules) -> Self {
        let (root, single) = match place {
            Place::Folder(folder) => (folder.clone(), None),
            Place::File(path) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (path.parent().unwrap_or(path).to_owned(), Some(file))
            }
        };
        let mut vouched = Self { rules, model: model.clone(), root, single, own: Ok(None), digests: BTreeMap::new() };
        if vouched.policy() != Policy::Off {
            let name = vouched.single.as_ref().map_or_else(|| vouched.file().to_owned(), |file| format!("{file}.sig"));
            vouched.own = vouched.signature(&name);
        }
        vouched
    }

    /// Adds what the manifest says of files.
    pub(super) fn with_digests(mut self, digests: &BTreeMap<String, Digest>) -> Self {
        self.digests.clone_from(digests);
        self
    }

    /// Where settings are read that say what is to be loaded at all.
    ///
    /// # Errors
    /// When they are not as the policy wants them.
    pub(super) fn settings(&self) -> Result<Option<Source>, IntegrityError> {
        if self.single.is_some() {
            return Ok(None);
        }
        let plain = Source::of(&self.root, None);
        if self.policy() == Policy::Off {
            return Ok(Some(plain));
        }
        match (self.settings_files(), self.policy()) {
            (Ok(files), _) => {
                let sealed = Sealed::closed(self.root.clone(), files, BTreeSet::new());
                Ok(Some(Source::of(&self.root, Some(Arc::new(sealed)))))
            }
            (Err(error), Policy::Require) => {
                self.rules.metrics.ended(error.outcome());
                Err(error)
            }
            // It is told of with each build.
            (Err(_), _) => Ok(Some(plain)),
        }
    }

    /// The bytes that a build is made of, as far as somebody vouches for them. Reads all of them: runs on a thread of loads.
    ///
    /// # Errors
    /// When nobody does whom the policy asks for, or a file is not as the manifest says.
    pub(super) fn seal(&self, part: Part<'_>) -> Result<Seal, IntegrityError> {
        let began = Instant::now();
        let mut files = BTreeMap::new();
        let (mut others, mut signer) = (None, None);
        if self.policy() != Policy::Off {
            match self.covered(part) {
                Ok(covered) => {
                    (files, others) = (covered.files, Some(covered.others));
                    signer = Some(Arc::from(covered.signer.to_string()));
                }
                Err(error) => self.not_covered(part, error)?,
            }
        }
        let compared =
            self.compare_digests(part, &mut files).inspect_err(|error| self.rules.metrics.ended(error.outcome()));
        compared?;
        if signer.is_some() || !files.is_empty() {
            let bytes = files.values().map(|bytes| bytes.len() as u64).sum();
            self.rules.metrics.read(bytes, began.elapsed());
            self.rules.metrics.ended("verified");
        }
        self.add_resolved(part, &mut files);
        let sealed = match others {
            Some(others) => Some(Sealed::closed(self.root.clone(), files, others)),
            None if files.is_empty() => None,
            None => Some(Sealed::open(self.root.clone(), files)),
        };
        Ok(Seal { sealed: sealed.map(Arc::new), signer })
    }

    /// Whether files are compared with anything.
    pub(super) fn compares(&self) -> bool {
        self.policy() != Policy::Off || !self.digests.is_empty()
    }

    /// What is to be done with a build that nobody vouches for.
    fn not_covered(&self, part: Part<'_>, error: IntegrityError) -> Result<(), IntegrityError> {
        self.rules.metrics.ended(error.outcome());
        match self.policy() {
            Policy::Require => Err(error),
            Policy::Warn | Policy::Off => {
                let (model, version) = (&self.model, part.version.map_or_else(String::new, |id| id.to_string()));
                let variant = part.variant.map_or("", VariantName::as_str);
                tracing::warn!(%model, version, variant, reason = %error, "model is served although nobody whom signatures trust vouches for it");
                Ok(())
            }
        }
    }

    fn policy(&self) -> Policy {
        self.rules.trust.settings.policy
    }

    fn file(&self) -> &str {
        &self.rules.trust.settings.file
    }

    /// The settings files as they were signed.
    fn settings_files(&self) -> Result<BTreeMap<String, Bytes>, IntegrityError> {
        let own = self.own.as_ref().map_err(Clone::clone)?;
        let mut files = BTreeMap::new();
        for name in [MANIFEST, CONFIG] {
            let digest = own.as_ref().and_then(|own| own.statement.files.get(name));
            let Some(bytes) = self.read(name, self.rules.bytes_max)? else { continue };
            let digest = digest.ok_or_else(|| match own {
                None if !self.has_signed_versions() => IntegrityError::Unsigned { file: self.file().to_owned() },
                _ => IntegrityError::Extra(name.to_owned()),
            })?;
            files.insert(name.to_owned(), compared(name, bytes, digest)?);
        }
        Ok(files)
    }

    /// Whether some version's folder has a signature of its own.
    fn has_signed_versions(&self) -> bool {
        let versions = layout::version_folders(&self.root).unwrap_or_default();
        versions.iter().any(|id| self.root.join(id.to_string()).join(self.file()).is_file())
    }

    /// All files of a build, as they were signed.
    fn covered(&self, part: Part<'_>) -> Result<Covered, IntegrityError> {
        let own = self.own.as_ref().map_err(Clone::clone)?.as_ref();
        if let Some(own) = own {
            self.check_name(own)?;
        }
        let scope = Scope::of(self, part);
        let beneath = scope.signed_apart(self, own)?;
        let signer = match (&beneath, own) {
            (Some(beneath), _) => beneath.signer.clone(),
            (None, Some(own)) => own.signer.clone(),
            (None, None) => return Err(IntegrityError::Unsigned { file: self.file().to_owned() }),
        };
        let expected = scope.expected(self, own, beneath.as_ref())?;
        let mut others = BTreeSet::new();
        for path in scope.paths(self)? {
            if expected.contains_key(&path) || self.is_signature(&path) {
                continue;
            }
            if !scope.is_ignored(self, own, beneath.as_ref(), &path) {
                return Err(IntegrityError::Extra(path));
            }
            others.insert(path);
        }
        let (mut files, mut left) = (BTreeMap::new(), self.rules.bytes_max);
        for (path, digest) in expected {
            let bytes = self.read(&path, left)?.ok_or_else(|| IntegrityError::Missing(path.clone()))?;
            left -= bytes.len() as u64;
            let bytes = compared(&path, bytes, &digest)?;
            files.insert(path, bytes);
        }
        Ok(Covered { files, others, signer })
    }

    /// Compares what the manifest has digests of, and adds it to what is read already.
    fn compare_digests(&self, part: Part<'_>, files: &mut BTreeMap<String, Bytes>) -> Result<(), IntegrityError> {
        if self.digests.is_empty() {
            return Ok(());
        }
        let scope = Scope::of(self, part);
        let read: u64 = files.values().map(|bytes| bytes.len() as u64).sum();
        let mut left = self.rules.bytes_max.saturating_sub(read);
        for (path, digest) in self.digests.iter().filter(|(path, _)| scope.has(path)) {
            if !files.contains_key(path) {
                let bytes = self.read(path, left)?.ok_or_else(|| IntegrityError::Missing(path.clone()))?;
                left -= bytes.len() as u64;
                files.insert(path.clone(), bytes);
            }
            let got = Digest::of(&files[path]);
            if got != *digest {
                return Err(IntegrityError::Declared { file: path.clone(), expected: *digest, got });
            }
        }
        Ok(())
    }

    fn check_name(&self, own: &Signed) -> Result<(), IntegrityError> {
        let (got, expected) = (&own.statement.name, self.single.as_deref().unwrap_or(self.model.as_str()));
        match self.rules.trust.settings.names && got != expected {
            true => Err(IntegrityError::Name { expected: expected.to_owned(), got: got.chars().take(128).collect() }),
            false => Ok(()),
        }
    }

    fn is_signature(&self, path: &str) -> bool {
        path.rsplit('/').next() == Some(self.file())
    }

    /// The signature of this name, where there is one.
    fn signature(&self, name: &str) -> Result<Option<Signed>, IntegrityError> {
        let Some(text) = self.read(name, self.rules.trust.settings.bytes_max.0)? else { return Ok(None) };
        let signed = self.rules.trust.verify(&text, SystemTime::now());
        signed.map(Some).map_err(|error| IntegrityError::Signature { file: name.to_owned(), error })
    }

    fn read(&self, path: &str, bytes_max: u64) -> Result<Option<Bytes>, IntegrityError> {
        match read_beneath(&self.root, path, bytes_max) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(IntegrityError::Unreadable { file: path.to_owned(), reason: error.to_string() }),
        }
    }

    /// Where a build's folder is reached through a link, engines know it by the folder that the link leads to.
    fn add_resolved(&self, part: Part<'_>, files: &mut BTreeMap<String, Bytes>) {
        let named = Scope::of(self, part).prefix();
        let Some(lies) = part.folder.strip_prefix(&self.root).ok().and_then(Path::to_str) else { return };
        let lies = if lies.is_empty() { String::new() } else { format!("{lies}/") };
        if lies != named {
            let beneath = |(path, bytes): (&String, &Bytes)| {
                Some((format!("{lies}{}", path.strip_prefix(&named)?), bytes.clone()))
            };
            let again: Vec<_> = files.iter().filter_map(beneath).collect();
            files.extend(again);
        }
    }
}

/// Which paths of a model belong to a build.
#[derive(Clone, Copy)]
struct Scope<'a> {
    part: Part<'a>,
    /// Whether versions have folders of their own.
    has_versions: bool,
}

impl<'a> Scope<'a> {
    fn of(vouched: &Vouched, part: Part<'a>) -> Self {
        let has_versions = part.version.is_some_and(|id| vouched.root.join(id.to_string()).is_dir());
        Self { part, has_versions }
    }

    /// What the paths of the version begin with.
    fn version(&self) -> String {
        self.part.version.filter(|_| self.has_versions).map(|id| format!("{id}/")).unwrap_or_default()
    }

    /// What the paths of the build begin with.
    fn prefix(&self) -> String {
        let variant = self.part.variant.map(|name| format!("{FOLDER}/{name}/")).unwrap_or_default();
        format!("{}{variant}", self.version())
    }

    fn has(&self, path: &str) -> bool {
        let first = path.split('/').next().filter(|first| first.len() < path.len());
        let is_version = first.is_some_and(|first| first.parse::<VersionId>().is_ok());
        let beneath = match path.strip_prefix(&self.version()) {
            Some(beneath) if !self.version().is_empty() => beneath,
            // Settings, and what lies in a folder without versions.
            _ if is_version => return false,
            _ if self.has_versions => return true,
            _ => path,
        };
        match beneath.strip_prefix(FOLDER).and_then(|rest| rest.strip_prefix('/')?.split_once('/')) {
            Some((variant, _)) => self.part.variant.is_some_and(|name| name.as_str() == variant),
            None => self.part.variant.is_none() || !self.has_versions,
        }
    }

    /// The paths that are there; of a file that is the whole model that alone.
    fn paths(&self, vouched: &Vouched) -> Result<Vec<String>, IntegrityError> {
        if let Some(single) = &vouched.single {
            return Ok(vec![single.clone()]);
        }
        let all = fingerprint::paths(&vouched.root).map_err(|error| IntegrityError::Unreadable {
            file: "the model's folder".into(),
            reason: error.kind().to_string(),
        })?;
        Ok(all.into_iter().filter(|path| self.has(path)).collect())
    }

    /// The signature of the version's own folder. A version that the model's signature knows needs none, and has it replaced by none:
    /// it may be that of another model's.
    fn signed_apart(&self, vouched: &Vouched, own: Option<&Signed>) -> Result<Option<Signed>, IntegrityError> {
        let version = self.version();
        let is_known = own.is_some_and(|own| own.statement.files.keys().any(|path| path.starts_with(&version)));
        if version.is_empty() || is_known || vouched.single.is_some() {
            return Ok(None);
        }
        let file = format!("{version}{}", vouched.file());
        let found = vouched.signature(&file)?;
        if found.is_some() && vouched.rules.trust.settings.names {
            return Err(IntegrityError::NoName { file });
        }
        Ok(found)
    }

    /// The digests of all files that a build must have.
    fn expected(
        &self,
        vouched: &Vouched,
        own: Option<&Signed>,
        beneath: Option<&Signed>,
    ) -> Result<BTreeMap<String, Digest>, IntegrityError> {
        let version = self.version();
        let is_file = |signed: &&Signed| signed.statement.files.contains_key(SINGLE);
        if let Some(single) = &vouched.single {
            let digest = own.and_then(|own| own.statement.files.get(SINGLE));
            return digest.map(|digest| [(single.clone(), *digest)].into()).ok_or(IntegrityError::OfFolder);
        }
        if own.filter(is_file).or(beneath.filter(is_file)).is_some() {
            return Err(IntegrityError::OfFile);
        }
        let mut expected = BTreeMap::new();
        let is_own = |path: &&String| self.has(path) && (beneath.is_none() || !path.starts_with(&version));
        let all = own.iter().flat_map(|own| &own.statement.files);
        expected.extend(all.filter(|(path, _)| is_own(path)).map(|(path, digest)| (path.clone(), *digest)));
        let all = beneath.iter().flat_map(|signed| &signed.statement.files);
        let all = all.map(|(path, digest)| (format!("{version}{path}"), *digest));
        expected.extend(all.filter(|(path, _)| self.has(path)));
        Ok(expected)
    }

    /// Whether a file may be there without being signed.
    fn is_ignored(&self, vouched: &Vouched, own: Option<&Signed>, beneath: Option<&Signed>, path: &str) -> bool {
        let version = self.version();
        let in_version = path.strip_prefix(&version).filter(|_| !version.is_empty());
        let by_signer = match (in_version, beneath) {
            (Some(rest), Some(beneath)) => beneath.statement.ignores(rest),
            _ => own.is_some_and(|own| own.statement.ignores(path)),
        };
        let ignored =
            vouched.rules.trust.settings.ignored.iter().filter_map(|path| integrity::relative(path)).collect();
        by_signer || integrity::is_within(path, &ignored)
    }
}

fn compared(path: &str, bytes: Bytes, expected: &Digest) -> Result<Bytes, IntegrityError> {
    let got = Digest::of(&bytes);
    match got == *expected {
        true => Ok(bytes),
        false => Err(IntegrityError::Altered { file: path.to_owned(), expected: *expected, got }),
    }
}

#[cfg(test)]
mod tests;
