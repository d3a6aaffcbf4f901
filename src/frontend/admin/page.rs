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
use crate::frontend::page_file::{CSS, HTML, PageFile, SCRIPT, SVG, TEXT};
use crate::frontend::rest::{self, InPath, get};
use crate::frontend::{Frontend, Refusal, SERVER_NAME, SERVER_VERSION};

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
    FILES.iter().find(|file| file.name == name).map(PageFile::response).ok_or_else(unknown)
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

macro_rules! files {
    ($($name:literal: $content_type:expr,)*) => {
        &[$(PageFile::new($name, $content_type, include_bytes!(concat!("page/", $name)))),*]
    };
}

/// The entry first.
const FILES: &[PageFile] = files! {
    "index.html": HTML,
    "page.css": CSS,
    "mark.svg": SVG,
    "page.js": SCRIPT,
    "server.js": SCRIPT,
    "metrics.js": SCRIPT,
    "history.js": SCRIPT,
    "element.js": SCRIPT,
    "theme.js": SCRIPT,
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
    "uplot-license.txt": TEXT,
};

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
    fn nothing_stands_inline() {
        FILES[0].check_html();
    }
}
