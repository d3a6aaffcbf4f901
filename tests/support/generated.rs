//! Holds files that are made from others to their sources. With `KINGLET_UPDATE=1` it writes them instead. Knows no file
//! by name.

use std::fs;
use std::path::Path;

/// Compares files, named from the repository's root, with what they should hold. `recipe` is what a reader runs to
/// write them anew.
pub(crate) fn hold<T: AsRef<[u8]>>(files: &[(&str, T)], recipe: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let differs = |(name, wanted): &&(&str, T)| fs::read(root.join(name)).ok().as_deref() != Some(wanted.as_ref());
    let stale: Vec<_> = files.iter().filter(differs).collect();
    if update_is_asked_for() {
        for (name, wanted) in stale {
            fs::write(root.join(name), wanted).expect("the repository is writable");
        }
        return;
    }
    let names: Vec<_> = stale.iter().map(|(name, _)| name).collect();
    assert!(names.is_empty(), "{names:?} differ from what they are made of; run `{recipe}` and commit the result");
}

#[expect(clippy::disallowed_methods, reason = "a switch of these tests alone, no setting of the server")]
fn update_is_asked_for() -> bool {
    std::env::var("KINGLET_UPDATE").is_ok_and(|value| value == "1")
}
