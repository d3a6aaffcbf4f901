//! The page at `/ui/`: its files, compiled in, and the little that only it asks for.
//!
//! All else it shows comes from `/metrics` and the routes of the protocol; what it means is decided in `page/`, by the
//! browser. No file comes from elsewhere, and a browser is told to hold it to that.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::error::ErrorCode;
use crate::frontend::rest::{self, InPath, get};
use crate::frontend::{Frontend, Refusal, SERVER_NAME, SERVER_VERSION};

/// A file of the page.
struct File {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

pub(super) fn router() -> Router<Frontend> {
    Router::new()
        .route("/ui", get(moved))
        .route("/ui/", get(entry))
        .route("/ui/{file}", get(file))
        .route("/ui/server", get(server))
        .route("/ui/models/{model}/sample", get(sample))
}

/// What the page names is relative to a folder.
async fn moved() -> Response {
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("ui/"));
    response
}

async fn entry() -> Response {
    FILES[0].response()
}

async fn file(InPath(name): InPath<String>) -> Result<Response, Refusal> {
    let unknown = || Refusal::new(ErrorCode::NotFound, format!("the page has no file {name:?}"));
    FILES.iter().find(|file| file.name == name).map(File::response).ok_or_else(unknown)
}

/// What neither the metrics nor the protocol tell.
async fn server(State(frontend): State<Frontend>) -> Response {
    let control = frontend.repository.control().to_string();
    rest::json(&json!({ "name": SERVER_NAME, "version": SERVER_VERSION, "control": control }))
}

/// The request that lies beside a model; 204 where there is none.
async fn sample(State(frontend): State<Frontend>, InPath(model): InPath<String>) -> Result<Response, Refusal> {
    let build = frontend.find(&model, None).await?;
    Ok(match &build.settings.sample_request {
        Some(request) => rest::with_type(Body::from(request.clone()), "application/json"),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

impl File {
    const fn new(name: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        Self { name, content_type, bytes }
    }

    fn response(&self) -> Response {
        let mut response = rest::with_type(Body::from(self.bytes), self.content_type);
        for (name, value) in HEADERS {
            response.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Nothing inline, nothing from elsewhere, no frame around it, no type that is guessed.
const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    // The files change with the binary, under the same names.
    ("cache-control", "no-cache"),
];

macro_rules! files {
    ($($name:literal: $content_type:expr,)*) => {
        &[$(File::new($name, $content_type, include_bytes!(concat!("page/", $name)))),*]
    };
}

/// The entry first.
const FILES: &[File] = files! {
    "index.html": HTML,
    "page.css": CSS,
    "mark.svg": "image/svg+xml",
    "page.js": SCRIPT,
    "server.js": SCRIPT,
    "metrics.js": SCRIPT,
    "history.js": SCRIPT,
    "element.js": SCRIPT,
    "format.js": SCRIPT,
    "chart.js": SCRIPT,
    "overview.js": SCRIPT,
    "builds.js": SCRIPT,
    "model.js": SCRIPT,
    "variants.js": SCRIPT,
    "layers.js": SCRIPT,
    "energy.js": SCRIPT,
    "trial.js": SCRIPT,
    "inputs.js": SCRIPT,
    "picture.js": SCRIPT,
    "answer.js": SCRIPT,
    "uplot.js": SCRIPT,
    "uplot.css": CSS,
    "uplot-license.txt": "text/plain; charset=utf-8",
};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    const LINES_MAX: usize = 500;

    #[test]
    fn the_table_has_every_file_of_the_page() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/frontend/admin/page");
        let there = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let known: BTreeSet<String> = FILES.iter().map(|file| file.name.to_owned()).collect();
        assert_eq!(there.collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn files_are_short_and_say_what_they_are_for() {
        for file in FILES.iter().filter(|file| !file.name.starts_with("uplot")) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            assert!(text.lines().count() <= LINES_MAX, "{}", file.name);
            let begins = ["//", "/*", "<!doctype", "<svg"].iter().any(|start| text.starts_with(start));
            assert!(begins, "{}", file.name);
        }
    }

    #[test]
    fn a_browser_is_told_to_run_nothing_else() {
        let response = FILES[0].response();
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let html = std::str::from_utf8(FILES[0].bytes).unwrap();
        for inline in ["style=", "<style", "onclick", "://", "<script>"] {
            assert!(!html.contains(inline), "{inline}");
        }
    }
}
