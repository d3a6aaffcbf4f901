//! Holds `docs/config.md` to the settings it describes. With `KINGLET_UPDATE_DOCS=1` it writes the page instead.

use std::fs;
use std::path::Path;

#[test]
fn the_page_equals_its_source() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    let wanted = kinglet::config::markdown();
    if update_is_asked_for() {
        fs::write(&page, wanted).expect("docs/ is writable");
        return;
    }
    let current = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        current == wanted,
        "docs/config.md differs from src/config and config/default.toml; run `just docs` (`KINGLET_UPDATE_DOCS=1 cargo test --test config_doc`)"
    );
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone, no setting of the server")]
fn update_is_asked_for() -> bool {
    std::env::var("KINGLET_UPDATE_DOCS").is_ok_and(|value| value == "1")
}
