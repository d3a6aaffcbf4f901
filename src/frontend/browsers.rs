//! Which calls that browsers make are taken: those of pages from here, not of other sites.
//!
//! A page of any site can make its visitors' browsers send requests to their own machines and networks, and a name that
//! such a site owns can be made to point there. Clients that are no browsers say nothing of the kind and pass.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{HeaderMap, Method, header};

use super::{Frontend, Refusal};
use crate::error::ErrorCode;

/// The names of this server that no browser could find out by itself.
#[derive(Clone, Debug, Default)]
pub struct Browsers {
    hosts: Arc<[String]>,
}

/// To stand before routes that change something or cost much.
pub async fn own_pages_only(State(frontend): State<Frontend>, request: Request, next: Next) -> Response {
    match frontend.browsers.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

impl Browsers {
    /// `hosts` are names besides IP addresses and localhost.
    pub fn new(hosts: &[String]) -> Self {
        Self { hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// # Errors
    /// When a page of another site makes the call.
    pub fn check<B>(&self, request: &http::Request<B>) -> Result<(), Refusal> {
        let headers = request.headers();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let foreign = matches!(text(headers, "sec-fetch-site"), Some("cross-site" | "same-site"));
        // Following a link to here is what a person does.
        if foreign && !(reads && text(headers, "sec-fetch-mode") == Some("navigate")) {
            return Err(refused("a page of another site"));
        }
        // Browsers send the origin of a read where it pleases them: with modules, not with other files.
        let Some(origin) = headers.get(header::ORIGIN).filter(|_| !reads) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        let asked = text(headers, header::HOST.as_str()).or(request.uri().authority().map(Authority::as_str));
        if self.is_own(origin, asked.unwrap_or_default()) { Ok(()) } else { Err(refused(origin)) }
    }

    /// Whether a page's origin is the server that was asked. A name proves nothing unless it is known: whoever owns it
    /// says where it points.
    fn is_own(&self, origin: &str, asked: &str) -> bool {
        let Some(authority) = origin.split_once("://").and_then(|(_, rest)| rest.parse::<Authority>().ok()) else {
            return false;
        };
        let host = authority.host().to_ascii_lowercase();
        let numeric = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let unowned = numeric || host == "localhost" || host.ends_with(".localhost");
        self.hosts.contains(&host) || (unowned && authority.as_str().eq_ignore_ascii_case(asked))
    }
}

fn refused(origin: &str) -> Refusal {
    Refusal::new(
        ErrorCode::PermissionDenied,
        format!("expected a call from a page of this server, got one from {origin}; admin.browser_hosts names others"),
    )
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = http::Request::builder().method(method).uri("/v2/repository/models/m/unload");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let browsers = Browsers::new(&["Kinglet.Example".into()]);
        browsers.check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn pages_from_here_and_clients_pass() {
        for headers in [
            &[][..],
            &[("host", "kinglet:8002")],
            &[("host", "127.0.0.1:8002"), ("origin", "http://127.0.0.1:8002"), ("sec-fetch-site", "same-origin")],
            &[("host", "[::1]:8002"), ("origin", "http://[::1]:8002")],
            &[("host", "localhost:9"), ("origin", "http://localhost:9")],
            // Behind a proxy that keeps the name, and behind one that does not.
            &[("host", "kinglet.example"), ("origin", "https://kinglet.example")],
            &[("host", "127.0.0.1:8002"), ("origin", "https://kinglet.example")],
            &[("host", "127.0.0.1:8002"), ("sec-fetch-site", "none")],
        ] {
            assert!(passes("POST", headers), "{headers:?}");
        }
    }

    #[test]
    fn pages_of_other_sites_do_not() {
        for headers in [
            &[("host", "127.0.0.1:8002"), ("origin", "http://evil.example")][..],
            &[("host", "127.0.0.1:8002"), ("origin", "http://127.0.0.1:3000"), ("sec-fetch-site", "same-site")],
            &[("host", "127.0.0.1:8002"), ("origin", "http://127.0.0.1:3000")],
            &[("host", "127.0.0.1:8002"), ("origin", "null")],
            &[("host", "127.0.0.1:8002"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
            // A name of theirs that has been made to point here.
            &[("host", "evil.example:8002"), ("origin", "http://evil.example:8002"), ("sec-fetch-site", "same-origin")],
            &[("host", "127.0.0.1.evil.example"), ("origin", "http://127.0.0.1.evil.example")],
        ] {
            assert!(!passes("POST", headers), "{headers:?}");
        }
    }

    #[test]
    fn a_link_may_be_followed_and_the_page_read_under_any_name() {
        let followed = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert!(passes("GET", &followed));
        assert!(passes("GET", &[("host", "a.example:8002"), ("origin", "http://a.example:8002")]));
        assert!(!passes("GET", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]));
    }
}
