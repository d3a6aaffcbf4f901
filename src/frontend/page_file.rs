//! A file of a page for people, compiled in, and what browsers are told with it.

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;

use super::rest;

#[derive(Debug)]
pub(super) struct PageFile {
    pub(super) name: &'static str,
    content_type: &'static str,
    pub(super) bytes: &'static [u8],
}

impl PageFile {
    pub(super) const fn new(name: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        Self { name, content_type, bytes }
    }

    pub(super) fn response(&self) -> Response {
        let mut response = rest::with_type(Body::from(self.bytes), self.content_type);
        for (name, value) in HEADERS {
            response.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        response
    }

    /// What its policy forbids would not work: nothing of it stands in the entry of a page.
    #[cfg(test)]
    pub(super) fn check_html(&self) {
        assert_eq!(self.content_type, HTML);
        let html = std::str::from_utf8(self.bytes).unwrap();
        for inline in ["style=", "<style", "onclick", "://", "<script>"] {
            assert!(!html.contains(inline), "{inline}");
        }
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

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const CSS: &str = "text/css; charset=utf-8";
pub(super) const SCRIPT: &str = "text/javascript; charset=utf-8";
pub(super) const SVG: &str = "image/svg+xml";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_told_to_run_nothing_else() {
        let response = PageFile::new("index.html", HTML, b"").response();
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}
