//! Which pages of other sites may read what their scripts asked for (cross-origin resource sharing, the Fetch standard).
//!
//! Off where no origin is named: browsers then keep answers from such pages. Credentials are never allowed. Control
//! calls stay refused to pages of other sites whatever stands here (`browsers`).

use std::str::FromStr;
use std::sync::Arc;

use axum::body::Body;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A site, as browsers name it: scheme, host and port, without a path; or every site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected \"*\" or an origin such as \"https://example.org\" or \"http://localhost:3000\", got {0:?}")]
pub struct OriginError(String);

/// The origins that are allowed.
#[derive(Clone, Debug)]
pub struct Cors(Arc<[Origin]>);

/// What a browser is told with an answer.
#[derive(Clone, Debug)]
pub struct Allowed(Option<HeaderValue>);

impl Cors {
    /// `None` where no origin is allowed.
    pub fn new(origins: &[Origin]) -> Option<Self> {
        (!origins.is_empty()).then(|| Self(origins.into()))
    }

    /// What a request's answer has to tell.
    pub fn allowed(&self, headers: &HeaderMap) -> Allowed {
        let Some(asked) = headers.get(header::ORIGIN) else { return Allowed(None) };
        if self.0.iter().any(Origin::is_every) {
            return Allowed(Some(HeaderValue::from_static(EVERY)));
        }
        let is_known = self.0.iter().any(|origin| origin.0.as_bytes() == asked.as_bytes());
        Allowed(is_known.then(|| asked.clone()))
    }
}

impl Allowed {
    /// The answer to a browser that asks whether a request would be allowed, where this is such a question.
    pub fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let asked = request.headers();
        let asks = request.method() == Method::OPTIONS && asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.0.is_none() {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED));
        // Whatever a request carries is looked at anyway.
        if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        Some(response)
    }

    pub fn tell(self, headers: &mut HeaderMap) {
        // Also where it is not allowed: a cache must not give one site what was said to another.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.0 {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

impl Origin {
    fn is_every(&self) -> bool {
        self.0 == EVERY
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let parts = text.split_once("://").and_then(|(scheme, rest)| {
            let (scheme, authority) = (scheme.parse::<Scheme>().ok()?, rest.parse::<Authority>().ok()?);
            Some((scheme, authority)).filter(|(_, authority)| !authority.host().is_empty() && !rest.contains('@'))
        });
        // Browsers write both in small letters.
        let is_origin = parts.is_some() && text.bytes().all(|byte| !byte.is_ascii_uppercase());
        if is_origin || text == EVERY { Ok(Self(text.to_owned())) } else { Err(OriginError(text.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

const EVERY: &str = "*";
/// Seconds for which a browser need not ask again.
const REMEMBERED: &str = "600";
/// What scripts may read besides what they always may.
const EXPOSED: &str = "kinglet-energy-joules, kinglet-energy-source, kinglet-variant, kinglet-variant-reason, \
    kinglet-cache, inference-header-content-length, retry-after, traceparent, tracestate, grpc-status, grpc-message";

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors::new(&origins.iter().map(|origin| origin.parse().unwrap()).collect::<Vec<_>>()).unwrap()
    }

    fn request(method: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().method(method).uri("/v2");
        headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
    }

    fn told(cors: &Cors, origin: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        cors.allowed(request("GET", &[("origin", origin)]).headers()).tell(&mut headers);
        assert_eq!(headers[header::VARY], "origin");
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_named_origins_are_told_that_they_may() {
        let two = cors(&["https://a.example", "http://localhost:3000"]);
        assert_eq!(told(&two, "https://a.example").as_deref(), Some("https://a.example"));
        assert_eq!(told(&two, "http://localhost:3000").as_deref(), Some("http://localhost:3000"));
        for foreign in
            ["https://b.example", "http://a.example", "https://a.example:8443", "https://a.example.evil", "null"]
        {
            assert_eq!(told(&two, foreign), None, "{foreign}");
        }
        assert_eq!(told(&cors(&["*"]), "https://b.example").as_deref(), Some("*"));
        assert!(Cors::new(&[]).is_none());
    }

    #[test]
    fn a_question_is_answered_where_the_origin_may() {
        let asks = |method, origin| {
            let asked = [
                ("origin", origin),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "kinglet-timeout-ms"),
            ];
            let request = request(method, &asked);
            cors(&["https://a.example"]).allowed(request.headers()).preflight(&request)
        };
        let answer = asks("OPTIONS", "https://a.example").unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "kinglet-timeout-ms");
        assert!(asks("OPTIONS", "https://b.example").is_none());
        assert!(asks("POST", "https://a.example").is_none());
        let plain = request("OPTIONS", &[("origin", "https://a.example")]);
        assert!(cors(&["*"]).allowed(plain.headers()).preflight(&plain).is_none());
    }

    #[test]
    fn an_origin_has_scheme_and_host_alone() {
        for fits in ["*", "https://a.example", "http://localhost:3000", "http://[::1]:80"] {
            assert!(fits.parse::<Origin>().is_ok(), "{fits}");
        }
        for wrong in
            ["", "a.example", "https://", "https://a.example/", "https://A.example", "https://u@a.example", "*.example"]
        {
            assert_eq!(wrong.parse::<Origin>(), Err(OriginError(wrong.to_owned())));
        }
    }
}
