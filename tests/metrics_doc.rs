//! Holds `docs/metrics.md` to the catalogue it describes. With `KINGLET_UPDATE_DOCS=1` it writes the page instead.

use std::fs;
use std::path::Path;

#[test]
fn the_page_equals_its_source() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let wanted = kinglet::telemetry::catalogue::markdown();
    if update_is_asked_for() {
        fs::write(&page, wanted).expect("docs/ is writable");
        return;
    }
    let current = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        current == wanted,
        "docs/metrics.md differs from src/telemetry/catalogue.rs; run `just docs` (`KINGLET_UPDATE_DOCS=1 cargo test --test metrics_doc`)"
    );
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone, no setting of the server")]
fn update_is_asked_for() -> bool {
    std::env::var("KINGLET_UPDATE_DOCS").is_ok_and(|value| value == "1")
}
