//! Who may make a call, asked of every request of every listener before anything of it is read.
//!
//! `calls` says what a path does, `credentials` what a request shows; the answer is `access`'s. Where a message names the
//! model, its handler asks once more, of the `Caller` that stands in the request from here on.

mod calls;
mod credentials;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{FromRef, FromRequestParts};
use axum::response::IntoResponse;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, header};
use tonic::Status;

use self::calls::{Need, Vertex, What};
use super::{Address, Browsers, DialectsConfig, Frontend, Refusal, is_grpc, is_grpc_web};
use crate::access::{AUDIT, Access, Call, Caller, Denied, Public, Target, Verb};

/// The guard of one listener.
#[derive(Clone, Debug)]
pub struct Guard {
    access: Access,
    browsers: Browsers,
    vertex: Vertex,
    /// Whether nobody from elsewhere reaches it.
    is_private: bool,
}

/// A call that is told in the audit log when it is over.
#[derive(Debug)]
pub struct Audited {
    caller: Caller,
    verb: Verb,
    method: Method,
    path: String,
    peer: Option<SocketAddr>,
}

impl Guard {
    /// `dialects` are those of a listener that has some: a platform's paths are REST's alone.
    pub fn new(access: Access, browsers: Browsers, dialects: Option<&DialectsConfig>, address: &Address) -> Self {
        let chosen = dialects.filter(|dialects| dialects.vertex);
        let paths = |d: &DialectsConfig| [d.vertex_health_route.clone(), d.vertex_predict_route.clone()];
        let is_private = address.tcp().is_none_or(|address| address.ip().is_loopback());
        Self { access, browsers, vertex: chosen.map(paths), is_private }
    }

    /// Lets a request in and writes into it who makes it, or says why not.
    #[expect(clippy::result_large_err, reason = "the response is moved once, on the rare path")]
    pub fn admit<B>(
        &self,
        request: &mut Request<B>,
        peer: Option<SocketAddr>,
    ) -> Result<Option<Audited>, Response<Body>> {
        if !self.access.is_on() && (self.is_private || self.access.is_control_open()) {
            return Ok(None);
        }
        let need = calls::need(request.method(), request.uri().path(), &self.vertex).unwrap_or(calls::OPERATORS);
        match self.check(request, &need) {
            Ok(caller) => {
                let audited = match need {
                    Need::Does(verb, _) if changes(verb, request.method()) => {
                        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                        Some(Audited { caller: caller.clone(), verb, method, path, peer })
                    }
                    Need::Does(..) | Need::Open(_) => None,
                };
                request.extensions_mut().insert(caller);
                Ok(audited)
            }
            Err(denied) => {
                self.access.refused(&denied, Call { method: request.method(), path: request.uri().path(), peer });
                Err(refused(request, denied))
            }
        }
    }

    fn check<B>(&self, request: &Request<B>, need: &Need<'_>) -> Result<Caller, Denied> {
        let (verb, what) = match need {
            Need::Open(what) if self.access.is_public(*what) => return Ok(Caller::default()),
            Need::Open(Public::Health | Public::Metrics | Public::Docs) => (Verb::Read, &What::Server),
            Need::Does(verb, what) => (*verb, what),
        };
        if !self.access.is_on() {
            return match verb {
                Verb::Read | Verb::Infer => Ok(Caller::anyone()),
                Verb::Load | Verb::Memory | Verb::Admin => Err(Denied::Unguarded),
            };
        }
        let secret = credentials::secret(request.headers())?;
        if secret.is_ambient && self.browsers.check(request).is_err() {
            return Err(Denied::Foreign);
        }
        let caller = self.access.identify(&secret.text, SystemTime::now())?;
        caller.may(verb, what.target())?;
        Ok(caller)
    }
}

/// Whether people will ask later who it was.
fn changes(verb: Verb, method: &Method) -> bool {
    match verb {
        Verb::Read | Verb::Infer => false,
        Verb::Load | Verb::Memory | Verb::Admin => *method != Method::GET && *method != Method::HEAD,
    }
}

impl Audited {
    /// To be called when the call is answered.
    pub fn over<B>(self, response: &Response<B>) {
        let (tenant, credential) = self.caller.name();
        let peer = self.peer.map(tracing::field::display);
        // Of a call that succeeds, the code stands behind its message.
        let grpc = response.headers().get(Status::GRPC_STATUS).and_then(|code| code.to_str().ok());
        tracing::info!(
            target: AUDIT,
            tenant,
            credential,
            scope = self.verb.as_str(),
            method = self.method.as_str(),
            path = self.path,
            peer,
            status = response.status().as_u16(),
            grpc_status = grpc,
            "control call"
        );
    }
}

/// The refusal in the form of its protocol.
fn refused<B>(request: &Request<B>, denied: Denied) -> Response<Body> {
    let is_unknown = denied.code() == crate::error::ErrorCode::Unauthenticated;
    let refusal = Refusal::from(denied);
    let headers = request.headers();
    if is_grpc(headers) || is_grpc_web(headers) {
        let mut response: Response<Body> = Status::from(refusal).into_http();
        if let Some(kind) = headers.get(header::CONTENT_TYPE).filter(|_| is_grpc_web(headers)) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
        }
        return response;
    }
    let mut response = refusal.into_response();
    if is_unknown {
        let challenge = if is_by_own_page(request) { BASIC } else { BEARER };
        response.headers_mut().append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// Whether a browser shall ask its user for a password, or show the one that it was given for the page.
fn is_by_own_page<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let is_page = path.starts_with("/ui") || path.starts_with("/docs");
    is_page || request.headers().get("sec-fetch-site").is_some_and(|site| site == "same-origin")
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self { code: denied.code(), retry_after: denied.retry_after(), message: denied.to_string() }
    }
}

/// Who makes a call, as the guard has written it.
pub fn caller_of(access: &Access, extensions: &http::Extensions) -> Caller {
    match access.is_on() {
        true => extensions.get().cloned().unwrap_or_default(),
        false => Caller::anyone(),
    }
}

/// # Errors
/// When the caller may not do that to a model.
pub fn check(caller: &Caller, verb: Verb, model: &str) -> Result<(), Refusal> {
    Ok(caller.check(verb, Target::Model(model))?)
}

impl<S> FromRequestParts<S> for Caller
where
    Frontend: FromRef<S>,
    S: Sync,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Frontend::from_ref(state).caller(&parts.extensions))
    }
}

const BEARER: &str = "Bearer realm=\"kinglet\"";
const BASIC: &str = "Basic realm=\"kinglet: any name, an API key as the password\", charset=\"UTF-8\"";
