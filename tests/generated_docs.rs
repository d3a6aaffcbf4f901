//! Holds the pages of `docs/` that are printed from the code to it. With `KINGLET_UPDATE=1` it writes them instead.

#[path = "support/generated.rs"]
mod generated;

#[test]
fn the_configuration_page_equals_its_source() {
    generated::hold(&[("docs/config.md", kinglet::config::markdown())], "just docs");
}

#[test]
fn the_metrics_page_equals_its_source() {
    generated::hold(&[("docs/metrics.md", kinglet::telemetry::catalogue::markdown())], "just docs");
}
