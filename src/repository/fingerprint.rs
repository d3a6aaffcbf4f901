//! What tells one state of a model's files from another, and when a state has settled.
//!
//! Nothing is read but names, sizes and times: a poll over many models must cost next to nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::layout::Place;
use super::variants::FOLDER;
use crate::infer::{VariantName, VersionId};

/// The files of one version, or the settings of a model, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<FileStamp>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileStamp {
    /// Relative to the model's folder.
    path: String,
    size: u64,
    inode: u64,
    modified_ns: i128,
    /// The inode's change time: unlike the modification time no copying tool can set it back.
    changed_ns: i128,
}

/// All files of a model at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    versions: BTreeMap<VersionId, Fingerprint>,
    /// Everything outside the version folders.
    settings: Fingerprint,
}

/// Since when a model's files have looked the same.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub stamp: Stamp,
    since: Instant,
    /// How long they had been unchanged when they were first seen, by the file system's clock.
    age: Duration,
}

impl Stamp {
    /// # Errors
    /// When a folder cannot be read, or holds more files than a model can have.
    pub fn take(place: &Place) -> io::Result<Self> {
        let mut stamp = Self::default();
        match place {
            Place::File(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let signature = format!("{name}.sig");
                stamp.settings.0.push(FileStamp::of(name, &fs::metadata(path)?));
                if let Ok(metadata) = fs::metadata(path.with_file_name(&signature)) {
                    stamp.settings.0.push(FileStamp::of(signature, &metadata));
                }
            }
            Place::Folder(folder) => walk(folder, "", &mut |file| stamp.add(file))?,
        }
        stamp.settings.0.sort();
        stamp.versions.values_mut().for_each(|version| version.0.sort());
        Ok(stamp)
    }

    /// The files of one version; those of a model without version folders are its settings' too.
    pub fn version(&self, id: VersionId) -> &Fingerprint {
        self.versions.get(&id).unwrap_or(&self.settings)
    }

    pub fn settings(&self) -> &Fingerprint {
        &self.settings
    }

    /// What the newest version's files weigh, or those of a model without version folders.
    pub fn bytes(&self) -> u64 {
        let newest = self.versions.values().next_back().unwrap_or(&self.settings);
        newest.0.iter().map(|file| file.size).sum()
    }

    fn add(&mut self, file: FileStamp) {
        let version = file.path.split_once('/').and_then(|(first, _)| first.parse().ok());
        match version {
            Some(id) => self.versions.entry(id).or_default().0.push(file),
            None => self.settings.0.push(file),
        }
    }

    fn newest_ns(&self) -> i128 {
        let all = self.versions.values().chain([&self.settings]).flat_map(|fingerprint| &fingerprint.0);
        all.map(|file| file.modified_ns.max(file.changed_ns)).max().unwrap_or(0)
    }
}

impl Fingerprint {
    /// Whether all files but those of variants are the same.
    pub fn is_own_of(&self, other: &Self) -> bool {
        let own = |all: &Self| all.0.iter().filter(|file| file.variant().is_none()).cloned().collect::<Vec<_>>();
        own(self) == own(other)
    }

    /// The files of one variant.
    pub fn variant(&self, name: &VariantName) -> Self {
        Self(self.0.iter().filter(|file| file.variant() == Some(name.as_str())).cloned().collect())
    }
}

impl Sighting {
    /// Takes note of how a model's files look now, given how they looked before.
    pub fn update(before: Option<Self>, stamp: Stamp, now: Instant, clock: SystemTime) -> Self {
        match before {
            Some(same) if same.stamp == stamp => same,
            _ => {
                let clock_ns = clock.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
                let age_ns = i128::try_from(clock_ns).unwrap_or(i128::MAX) - stamp.newest_ns();
                // A time in the future says nothing: then only what is observed counts.
                let age = u64::try_from(age_ns).map_or(Duration::ZERO, Duration::from_nanos);
                Self { stamp, since: now, age }
            }
        }
    }

    /// Whether nothing has changed for `settle`, so that no copy is under way.
    pub fn is_settled(&self, now: Instant, settle: Duration) -> bool {
        self.age.max(now.saturating_duration_since(self.since)) >= settle
    }
}

impl FileStamp {
    /// The variant that the file belongs to.
    fn variant(&self) -> Option<&str> {
        let (first, rest) = self.path.split_once('/')?;
        let beneath = if first.parse::<VersionId>().is_ok() { rest } else { &self.path };
        let (variant, _) = beneath.strip_prefix(FOLDER)?.strip_prefix('/')?.split_once('/')?;
        Some(variant)
    }

    fn of(path: String, metadata: &fs::Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            path,
            size: metadata.size(),
            inode: metadata.ino(),
            modified_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The files of a model, as stamps know them, in order.
pub(super) fn paths(root: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    walk(root, "", &mut |file| paths.push(file.path))?;
    paths.sort();
    Ok(paths)
}

fn walk(root: &Path, beneath: &str, visit: &mut dyn FnMut(FileStamp)) -> io::Result<()> {
    let mut left = FILES_MAX;
    walk_folder(root, beneath, 0, &mut |file| {
        visit(file);
        left = left.checked_sub(1).ok_or_else(|| io::Error::other("more files than a model can have"))?;
        Ok(())
    })
}

fn walk_folder(
    root: &Path,
    beneath: &str,
    depth: usize,
    visit: &mut dyn FnMut(FileStamp) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(root.join(beneath))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || is_partial(&name) {
            continue;
        }
        let path = if beneath.is_empty() { name } else { format!("{beneath}/{name}") };
        // Through links: a Kubernetes mount changes by swapping one.
        let metadata = match fs::metadata(root.join(&path)) {
            Ok(metadata) => metadata,
            // Gone since the folder was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if metadata.is_file() {
            visit(FileStamp::of(path, &metadata))?;
        } else if metadata.is_dir() && depth < DEPTH_MAX {
            walk_folder(root, &path, depth + 1, visit)?;
        }
    }
    Ok(())
}

/// Whether a name says that the file is still being written.
fn is_partial(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| PARTIAL.iter().any(|partial| extension == *partial))
}

/// Endings of files under way: editors, browsers, rclone, WinSCP.
const PARTIAL: &[&str] = &["tmp", "temp", "part", "partial", "filepart", "download", "crdownload", "swp"];
/// Folders beneath a model's: versions, and what an exporter puts below.
const DEPTH_MAX: usize = 6;
const FILES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_versions_and_settings_apart() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("1/model.onnx", "a");
        write("2/sub/weights", "b");
        write("config.pbtxt", "");
        let place = Place::Folder(root.path().to_owned());
        let first = Stamp::take(&place).unwrap();
        assert_eq!(first, Stamp::take(&place).unwrap());
        for unseen in ["2/model.onnx.part", "2/.model.onnx.a1B2c3", "x.tmp"] {
            write(unseen, "half");
            assert_eq!(first, Stamp::take(&place).unwrap(), "{unseen}");
        }
        write("2/sub/weights", "longer");
        let second = Stamp::take(&place).unwrap();
        assert_eq!(first.version(VersionId(1)), second.version(VersionId(1)));
        assert_ne!(first.version(VersionId(2)), second.version(VersionId(2)));
        assert_eq!(first.settings(), second.settings());
        write("config.pbtxt", "max_batch_size: 1");
        assert_ne!(second.settings(), Stamp::take(&place).unwrap().settings());
    }

    #[test]
    fn a_variant_s_files_are_told_apart() {
        let file = |path: &str, size| FileStamp { path: path.into(), size, inode: 1, modified_ns: 0, changed_ns: 0 };
        for prefix in ["1/", ""] {
            let of = |own, first, second| {
                let paths = [("model.onnx", own), ("variants/a/model.onnx", first), ("variants/b/sub/x", second)];
                Fingerprint(paths.into_iter().map(|(path, size)| file(&format!("{prefix}{path}"), size)).collect())
            };
            let (before, name) = (of(1, 1, 1), |name: &str| name.parse::<VariantName>().unwrap());
            assert!(before.is_own_of(&of(1, 2, 2)) && !before.is_own_of(&of(2, 1, 1)));
            assert_eq!(before.variant(&name("a")), of(2, 1, 2).variant(&name("a")));
            assert_ne!(before.variant(&name("b")), of(1, 1, 2).variant(&name("b")));
            assert_eq!(before.variant(&name("c")), Fingerprint::default());
        }
    }

    fn stamp(changed: Duration) -> Stamp {
        let changed_ns = i128::try_from(changed.as_nanos()).unwrap();
        let file = FileStamp { path: "x".into(), size: 1, inode: 1, modified_ns: 0, changed_ns };
        Stamp { versions: BTreeMap::new(), settings: Fingerprint(vec![file]) }
    }

    #[test]
    fn files_settle_by_their_age_or_by_being_watched() {
        let (settle, now) = (Duration::from_secs(2), Instant::now());
        let at = |seconds| Duration::from_secs(seconds);
        let clock = UNIX_EPOCH + at(100);
        let old = Sighting::update(None, stamp(at(98)), now, clock);
        assert!(old.is_settled(now, settle), "unchanged for two seconds when first seen");
        let fresh = Sighting::update(None, stamp(at(99)), now, clock);
        assert!(!fresh.is_settled(now, settle));
        let same = Sighting::update(Some(fresh), stamp(at(99)), now + at(1), clock + at(1));
        assert!(!same.is_settled(now + at(1), settle));
        assert!(same.is_settled(now + at(2), settle));
        let grown = Sighting::update(Some(same), stamp(at(102)), now + at(2), clock + at(2));
        assert!(!grown.is_settled(now + at(3), settle), "a file that grows starts anew");
        let future = Sighting::update(None, stamp(at(500)), now, clock);
        assert!(!future.is_settled(now + at(1), settle));
        assert!(future.is_settled(now + at(2), settle));
    }
}
