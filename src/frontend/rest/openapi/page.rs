//! The page at `/docs/`: its files, compiled in. What it shows it reads from the documents; what looks like the page at
//! `/ui/` is of the same files.

use axum::Router;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::Documented;
use crate::error::ErrorCode;
use crate::frontend::Refusal;
use crate::frontend::page_file::{CSS, HTML, PageFile, SCRIPT, SVG};
use crate::frontend::rest::{InPath, Selector, get};
use crate::infer::{ModelName, VersionId};

pub(super) fn router() -> Router<Documented> {
    Router::new()
        // What the page names is relative to a folder.
        .route("/docs", get(|| async { moved("docs/") }))
        .route("/docs/", get(|| async { FILES[0].response() }))
        .route("/docs/{file}", get(file))
        .route("/v2/docs", get(|| async { moved("../docs/") }))
        .route("/v2/models/{model}/docs", get(of_model))
        .route("/v2/models/{model}/versions/{version}/docs", get(of_model))
}

/// Where other servers have a model's page.
async fn of_model(InPath(Selector { model, version }): InPath<Selector>) -> Result<Response, Refusal> {
    let model: ModelName = model.parse()?;
    let version = version.map(|version| version.parse::<VersionId>()).transpose()?;
    Ok(match version {
        None => moved(&format!("../../../docs/#/models/{model}")),
        Some(version) => moved(&format!("../../../../../docs/#/models/{model}/{version}")),
    })
}

fn moved(to: &str) -> Response {
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    let to = HeaderValue::try_from(to).expect("names have letters, digits and signs");
    response.headers_mut().insert(header::LOCATION, to);
    response
}

async fn file(InPath(name): InPath<String>) -> Result<Response, Refusal> {
    let unknown = || Refusal::new(ErrorCode::NotFound, format!("the page has no file {name:?}"));
    FILES.iter().find(|file| file.name == name).map(PageFile::response).ok_or_else(unknown)
}

macro_rules! files {
    ($($folder:literal $name:literal: $content_type:expr,)*) => {
        &[$(PageFile::new($name, $content_type, include_bytes!(concat!($folder, $name)))),*]
    };
}

/// The entry first.
const FILES: &[PageFile] = files! {
    "page/" "index.html": HTML,
    "page/" "docs.css": CSS,
    "page/" "docs.js": SCRIPT,
    "page/" "call.js": SCRIPT,
    "page/" "schema.js": SCRIPT,
    "page/" "trial.js": SCRIPT,
    "../../admin/page/" "page.css": CSS,
    "../../admin/page/" "mark.svg": SVG,
    "../../admin/page/" "element.js": SCRIPT,
    "../../admin/page/" "format.js": SCRIPT,
    "../../admin/page/" "theme.js": SCRIPT,
};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_table_has_every_file_of_the_page() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/frontend/rest/openapi/page");
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(FILES.iter().any(|file| file.name == name), "{name}");
        }
    }

    #[test]
    fn nothing_stands_inline() {
        FILES[0].check_html();
    }
}
