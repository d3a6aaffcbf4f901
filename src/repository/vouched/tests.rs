//! Signed models of `tests/fixtures/signatures`, with one thing or another changed.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::integrity::SignaturesConfig;
use crate::telemetry::Metrics;
use crate::units::ByteSize;

const VERSION: VersionId = VersionId(1);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signatures").join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if entry.is_dir() { copy(&entry, &to) } else { _ = fs::copy(&entry, &to).unwrap() }
    }
}

/// The signed model, in a folder of its own.
fn model(signature: &str) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().canonicalize().unwrap().join("model");
    copy(&fixture("model"), &folder);
    fs::copy(fixture(signature), folder.join("model.sig")).unwrap();
    (home, folder)
}

fn settings() -> SignaturesConfig {
    let none = Trust::none().settings;
    let keys = vec![fixture("p256.pub")];
    SignaturesConfig { keys, policy: Policy::Require, bytes_max: ByteSize(1 << 20), resources_max: 100, ..none }
}

fn vouched(folder: &Path, settings: &SignaturesConfig, bytes_max: u64) -> Vouched {
    let trust = Arc::new(Trust::read(settings).unwrap());
    let rules = Rules { trust, metrics: Metrics::new().verifications, bytes_max };
    Vouched::of(&Place::Folder(folder.to_owned()), &"model".parse().unwrap(), rules)
}

fn seal(folder: &Path, variant: Option<&str>, settings: &SignaturesConfig) -> Result<Seal, String> {
    let variant: Option<VariantName> = variant.map(|name| name.parse().unwrap());
    let lies = variant.as_ref().map_or(folder.join("1"), |name| folder.join("1/variants").join(name.as_str()));
    let part = Part { version: Some(VERSION), variant: variant.as_ref(), folder: &lies };
    vouched(folder, settings, 1000).seal(part).map_err(|error| error.to_string())
}

fn refusal(folder: &Path, variant: Option<&str>) -> String {
    seal(folder, variant, &settings()).unwrap_err()
}

#[test]
fn builds_are_made_of_the_bytes_that_were_compared() {
    let (_home, folder) = model("p256.sig");
    let Seal { sealed, signer } = seal(&folder, None, &settings()).unwrap();
    assert!(signer.unwrap().starts_with("key sha256:"));
    // What becomes of the files now is nothing to the load.
    fs::write(folder.join("1/model.onnx"), "swapped").unwrap();
    fs::write(folder.join("1/more"), "added").unwrap();
    let sealed = sealed.unwrap();
    let read = |name: &str| sealed.find(&folder.join("1"), name).map(|bytes| bytes.unwrap());
    assert_eq!(read("model.onnx").unwrap(), "own");
    assert_eq!(read("weights").unwrap(), "external");
    assert_eq!(read("more").unwrap_err().kind(), io::ErrorKind::NotFound);
    let left_out = sealed.find(&folder, "README.md").unwrap_err();
    assert_eq!(left_out.to_string(), "nobody vouches for it");
    let manifest = Source::of(&folder, Some(sealed)).read_text("manifest.toml", 100).unwrap();
    assert_eq!(manifest.as_deref(), Some("description = 'signed'\n"));
    let variant = seal(&folder, Some("b"), &settings()).unwrap().sealed.unwrap();
    assert_eq!(variant.find(&folder.join("1/variants/b"), "model.onnx").unwrap().unwrap(), "variant");
}

#[test]
fn whatever_is_changed_is_refused() {
    for file in ["1/model.onnx", "1/weights", "manifest.toml"] {
        let (_home, folder) = model("p256.sig");
        let whole = fs::read(folder.join(file)).unwrap();
        let mut other = whole.clone();
        other[0] ^= 1;
        fs::write(folder.join(file), other).unwrap();
        assert!(refusal(&folder, None).starts_with(&format!("{file} is not what was signed: expected sha256 ")));
        fs::write(folder.join(file), [&whole[..], b"+"].concat()).unwrap();
        assert!(refusal(&folder, None).starts_with(&format!("{file} is not what was signed: expected sha256 ")));
        fs::remove_file(folder.join(file)).unwrap();
        assert_eq!(refusal(&folder, None), format!("{file} is missing, somebody vouches for it"));
    }
    for file in ["1/extra", "labels.txt", "config.pbtxt", "warmup/a", "1/variants/note", "1/deep/er/file"] {
        let (_home, folder) = model("p256.sig");
        fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        fs::write(folder.join(file), "x").unwrap();
        assert_eq!(refusal(&folder, None), format!("{file} is not covered by the signature"));
    }
}

#[test]
fn a_variant_is_refused_by_itself() {
    let (_home, folder) = model("p256.sig");
    fs::write(folder.join("1/variants/b/model.onnx"), "other").unwrap();
    assert!(seal(&folder, None, &settings()).is_ok());
    assert!(refusal(&folder, Some("b")).starts_with("1/variants/b/model.onnx is not what was signed"));
    fs::create_dir(folder.join("1/variants/c")).unwrap();
    fs::write(folder.join("1/variants/c/model.onnx"), "unsigned").unwrap();
    assert!(seal(&folder, None, &settings()).is_ok());
    assert_eq!(refusal(&folder, Some("c")), "1/variants/c/model.onnx is not covered by the signature");
    // Other versions are looked at when they are loaded.
    fs::write(folder.join("2/model.onnx"), "other").unwrap();
    assert!(seal(&folder, None, &settings()).is_ok());
}

#[test]
fn a_version_s_folder_may_be_signed_by_itself() {
    let (_home, folder) = model("p256.sig");
    fs::remove_file(folder.join("model.sig")).unwrap();
    fs::copy(fixture("version.sig"), folder.join("1/model.sig")).unwrap();
    assert_eq!(refusal(&folder, None), "README.md is not covered by the signature");
    fs::remove_file(folder.join("README.md")).unwrap();
    assert_eq!(refusal(&folder, None), "manifest.toml is not covered by the signature");
    let settings_refused = vouched(&folder, &settings(), 1000).settings().unwrap_err().to_string();
    assert_eq!(settings_refused, "manifest.toml is not covered by the signature");
    fs::remove_file(folder.join("manifest.toml")).unwrap();
    for variant in [None, Some("b")] {
        assert!(seal(&folder, variant, &settings()).unwrap().signer.is_some(), "{variant:?}");
    }
    fs::write(folder.join("1/weights"), "other").unwrap();
    assert!(refusal(&folder, None).starts_with("1/weights is not what was signed"));
    // Nor does a version's signature stand above that of its model.
    fs::copy(fixture("p256.sig"), folder.join("model.sig")).unwrap();
    fs::write(folder.join("1/weights"), "external").unwrap();
    assert_eq!(refusal(&folder, None), "manifest.toml is missing, somebody vouches for it");
    fs::remove_file(folder.join("model.sig")).unwrap();
    let named = seal(&folder, None, &SignaturesConfig { names: true, ..settings() }).unwrap_err();
    assert!(named.starts_with("1/model.sig: expected a signature over the model's folder"), "{named}");
}

#[test]
fn signatures_of_others_are_refused() {
    let (_home, folder) = model("p384.sig");
    assert!(refusal(&folder, None).starts_with("model.sig: the signer is not trusted"));
    let (_home, folder) = model("file.sig");
    assert_eq!(refusal(&folder, None), "expected a signature over a folder, got one over a file");
    let (_home, folder) = model("version.sig");
    fs::remove_file(folder.join("README.md")).unwrap();
    assert_eq!(refusal(&folder, None), "1/model.onnx is not covered by the signature");
    fs::remove_file(folder.join("model.sig")).unwrap();
    assert_eq!(refusal(&folder, None), "it is not signed: expected model.sig in the model's folder or the version's");
    let (_home, folder) = model("p256.sig");
    let other = folder.with_file_name("other");
    fs::rename(&folder, &other).unwrap();
    assert!(seal(&other, None, &settings()).is_ok(), "a model may have another name than it was signed under");
    let trust = Arc::new(Trust::read(&SignaturesConfig { names: true, ..settings() }).unwrap());
    let rules = Rules { trust, metrics: Metrics::new().verifications, bytes_max: 1000 };
    let named = Vouched::of(&Place::Folder(other.clone()), &"other".parse().unwrap(), rules);
    let part = Part { version: Some(VERSION), variant: None, folder: &other.join("1") };
    let why = "expected a signature over \"other\", got one over \"model\": signatures.names";
    assert_eq!(named.seal(part).unwrap_err().to_string(), why);
}

#[test]
fn what_may_be_there_is_still_not_read() {
    let (_home, folder) = model("p256.sig");
    fs::write(folder.join("1/notes.txt"), "x").unwrap();
    fs::write(folder.join(".hidden"), "x").unwrap();
    assert_eq!(refusal(&folder, None), "1/notes.txt is not covered by the signature");
    let ignored = SignaturesConfig { ignored: vec!["1/notes.txt".into()], ..settings() };
    let sealed = seal(&folder, None, &ignored).unwrap().sealed.unwrap();
    assert_eq!(sealed.find(&folder.join("1"), "notes.txt").unwrap_err().to_string(), "nobody vouches for it");
    assert!(sealed.find(&folder, ".hidden").is_err());
    let ignored = SignaturesConfig { ignored: vec!["1".into()], ..settings() };
    fs::write(folder.join("1/weights"), "other").unwrap();
    assert!(seal(&folder, None, &ignored).unwrap_err().starts_with("1/weights is not what was signed"));
}

#[test]
fn links_within_the_folder_are_followed_and_no_further() {
    let (home, folder) = model("p256.sig");
    fs::rename(folder.join("1"), folder.join("..2026")).unwrap();
    std::os::unix::fs::symlink("..2026", folder.join("1")).unwrap();
    let lies = folder.join("..2026");
    let part = Part { version: Some(VERSION), variant: None, folder: &lies };
    let sealed = vouched(&folder, &settings(), 1000).seal(part).unwrap().sealed.unwrap();
    assert_eq!(sealed.find(&lies, "model.onnx").unwrap().unwrap(), "own");
    fs::remove_file(lies.join("weights")).unwrap();
    fs::write(home.path().join("outside"), "external").unwrap();
    std::os::unix::fs::symlink(home.path().join("outside"), lies.join("weights")).unwrap();
    assert!(refusal(&folder, None).starts_with("1/weights: "), "{}", refusal(&folder, None));
}

#[test]
fn the_policy_decides() {
    let (_home, folder) = model("p256.sig");
    fs::write(folder.join("1/weights"), "other").unwrap();
    for policy in [Policy::Warn, Policy::Off] {
        let Seal { sealed, signer } = seal(&folder, None, &SignaturesConfig { policy, ..settings() }).unwrap();
        assert!(sealed.is_none() && signer.is_none(), "{policy}");
    }
    let bytes = |bytes_max| {
        let (_home, folder) = model("p256.sig");
        let lies = folder.join("1");
        let part = Part { version: Some(VERSION), variant: None, folder: &lies };
        vouched(&folder, &settings(), bytes_max).seal(part).map(|_| ()).map_err(|error| error.to_string())
    };
    let all = ["own", "external", "description = 'signed'\n"].iter().map(|text| text.len() as u64).sum::<u64>();
    assert_eq!(bytes(all), Ok(()));
    assert!(bytes(all - 1).unwrap_err().contains("it is larger than"));
}

#[test]
fn digests_of_a_manifest_hold_under_any_policy() {
    let (_home, folder) = model("p256.sig");
    fs::remove_file(folder.join("model.sig")).unwrap();
    let off = SignaturesConfig { policy: Policy::Off, ..settings() };
    let lies = folder.join("1");
    let part = Part { version: Some(VERSION), variant: None, folder: &lies };
    let with = |digests: &[(&str, Digest)]| {
        let digests = digests.iter().map(|(path, digest)| ((*path).to_owned(), *digest)).collect();
        vouched(&folder, &off, 1000).with_digests(&digests).seal(part).map_err(|error| error.to_string())
    };
    let weights = Digest::of(b"external");
    let Seal { sealed, signer } = with(&[("1/weights", weights), ("2/model.onnx", weights)]).unwrap();
    let sealed = sealed.unwrap();
    assert_eq!(sealed.find(&lies, "weights").unwrap().unwrap(), "external");
    assert!(
        sealed.find(&lies, "model.onnx").unwrap().is_none() && signer.is_none(),
        "others are read as they lie there"
    );
    assert_eq!(with(&[("1/none", weights)]).unwrap_err(), "1/none is missing, somebody vouches for it");
    let wrong = with(&[("1/model.onnx", weights)]).unwrap_err();
    assert!(wrong.starts_with("1/model.onnx is not what the manifest says: expected sha256 "), "{wrong}");
}

#[test]
fn a_single_file_has_its_signature_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    fs::copy(fixture("model/1/model.onnx"), root.join("net.onnx")).unwrap();
    fs::write(root.join("weights"), "external").unwrap();
    let seal = || {
        let trust = Arc::new(Trust::read(&settings()).unwrap());
        let rules = Rules { trust, metrics: Metrics::new().verifications, bytes_max: 1000 };
        let vouched = Vouched::of(&Place::File(root.join("net.onnx")), &"net".parse().unwrap(), rules);
        vouched.seal(Part { version: Some(VERSION), variant: None, folder: &root }).map_err(|error| error.to_string())
    };
    assert!(seal().unwrap_err().starts_with("it is not signed"));
    fs::copy(fixture("version.sig"), root.join("net.onnx.sig")).unwrap();
    assert_eq!(seal().unwrap_err(), "expected a signature over the file itself, got one over a folder");
    fs::copy(fixture("file.sig"), root.join("net.onnx.sig")).unwrap();
    let sealed = seal().unwrap().sealed.unwrap();
    assert_eq!(sealed.find(&root, "net.onnx").unwrap().unwrap(), "own");
    assert!(sealed.find(&root, "weights").is_err(), "nobody has signed what lies beside it");
    fs::write(root.join("net.onnx"), "other").unwrap();
    assert!(seal().unwrap_err().starts_with("net.onnx is not what was signed"));
}
