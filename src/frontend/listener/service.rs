//! One connection's requests on their way to a router, by content type where both protocols share a port.
//!
//! Holds limits on heads that the HTTP library does not, and keeps count of what is being answered.

use std::convert::Infallible;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::routing::future::RouteFuture;
use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::activity::{Activity, Leaving, Open};
use super::drain::Drain;
use crate::admission::{Outflow, Outgoing, outflow};
use crate::frontend::Refusal;
use crate::frontend::cors::{Allowed, Cors};
use crate::frontend::guard::{Audited, Guard};
use crate::frontend::{is_grpc, is_grpc_web};

/// Who answers the requests of a listener.
#[derive(Clone, Debug)]
pub struct Routes {
    answers: Answers,
    /// Answers gRPC where it shares the port.
    grpc: Option<Answers>,
    /// Pages of other sites that may read answers.
    cors: Option<Cors>,
    /// Who may make a call; `None` lets everyone.
    guard: Option<Guard>,
    /// What leaves, where it is counted.
    counting: Option<Counting>,
    /// Ends the calls that would go on for ever.
    closing: CancellationToken,
}

/// How the bytes of answers that leave are counted.
#[derive(Clone, Debug)]
pub struct Counting {
    pub outflow: Arc<Outflow>,
    /// Whether large answers that nobody has let leave yet are refused where too much leaves.
    pub refuses: bool,
}

/// A router, and the way past it for the calls that come most often.
#[derive(Clone, Debug)]
struct Answers {
    router: Router,
    shortcut: Option<Arc<dyn Shortcut>>,
}

/// Knows its requests at a glance and answers them as the router would: finding a route and running its extractors
/// costs a small request more than all the rest of its decoding.
pub trait Shortcut: Debug + Send + Sync {
    fn knows(&self, request: &Request<Body>) -> bool;

    /// To be called with requests that it knows.
    fn answer(&self, request: Request<Body>) -> Direct;
}

pub type Direct = BoxFuture<'static, Response<Body>>;

/// What one request's head may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLimits {
    pub(super) bytes_max: usize,
    pub(super) headers_max: usize,
}

#[derive(Debug)]
pub(super) struct Requests {
    pub(super) routes: Routes,
    pub(super) limits: HeadLimits,
    pub(super) activity: Arc<Activity>,
    pub(super) drain: Drain,
    /// Who has connected, where it has an address.
    pub(super) peer: Option<SocketAddr>,
}

impl Routes {
    pub fn one(routes: impl Into<Self>) -> Self {
        routes.into()
    }

    /// Two protocols on one port.
    pub fn by_content_type(rest: impl Into<Self>, grpc: impl Into<Self>) -> Self {
        let (rest, grpc) = (rest.into(), grpc.into());
        Self { grpc: Some(grpc.answers), closing: grpc.closing, ..rest }
    }

    /// For calls that would go on for ever, streams and watches: `closing` is cancelled when the listener closes.
    pub fn until(closing: CancellationToken, router: Router) -> Self {
        let answers = Answers { router, shortcut: None };
        Self { answers, grpc: None, cors: None, guard: None, counting: None, closing }
    }

    pub fn with_shortcut(mut self, shortcut: impl Shortcut + 'static) -> Self {
        self.answers.shortcut = Some(Arc::new(shortcut));
        self
    }

    /// For pages of these other sites.
    pub fn with_cors(self, cors: Option<Cors>) -> Self {
        Self { cors, ..self }
    }

    /// Only for callers that this lets in.
    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Answers count against this budget until they are taken.
    pub fn counted(self, counting: Counting) -> Self {
        Self { counting: Some(counting), ..self }
    }

    pub(super) fn outflow(&self) -> Option<Arc<Outflow>> {
        self.counting.as_ref().map(|counting| Arc::clone(&counting.outflow))
    }

    /// The answer to a request that came over no connection, for which no limits of heads hold: fuzzing asks so.
    pub async fn answer(&self, request: Request<Bytes>) -> Response<Body> {
        match self.call(request.map(Full::new)) {
            Reply::Routed(future) => future.await.unwrap_or_else(|never| match never {}),
            Reply::Direct(future) => future.await,
            Reply::Ready(answer) => answer.unwrap_or_default(),
        }
    }

    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    fn call<B>(&self, request: Request<B>) -> Reply
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let answers = match &self.grpc {
            Some(grpc) if is_grpc(request.headers()) || is_grpc_web(request.headers()) => grpc,
            _ => &self.answers,
        };
        let request = request.map(Body::new);
        match &answers.shortcut {
            Some(shortcut) if shortcut.knows(&request) => Reply::Direct(shortcut.answer(request)),
            _ => Reply::Routed(answers.router.clone().call(request)),
        }
    }
}

impl From<Router> for Routes {
    fn from(router: Router) -> Self {
        Self::until(CancellationToken::new(), router)
    }
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let open = Activity::begin(&self.activity);
        // HTTP/2 says with a frame of its own that no further requests are taken.
        let drain = (request.version() < Version::HTTP_2).then(|| self.drain.clone());
        let allowed = self.routes.cors.as_ref().map(|cors| cors.allowed(request.headers()));
        let (reply, audited) = match self.admit(&mut request, allowed.as_ref()) {
            Ok(audited) => (self.routes.call(request), audited),
            Err(answer) => (Reply::Ready(Some(answer)), None),
        };
        let refuses = self.routes.counting.as_ref().filter(|counting| counting.refuses);
        let outflow = refuses.map(|counting| Arc::clone(&counting.outflow));
        Answer { reply, open: Some(open), drain, allowed, audited, outflow }
    }
}

impl Requests {
    /// Whether a request goes to its router, or is answered here.
    #[expect(clippy::result_large_err, reason = "the response is moved once, on the rare path")]
    fn admit(
        &self,
        request: &mut Request<Incoming>,
        allowed: Option<&Allowed>,
    ) -> Result<Option<Audited>, Response<Body>> {
        self.limits.check(request)?;
        // A browser's question what it may ask shows no credentials.
        if let Some(answer) = allowed.and_then(|allowed| allowed.preflight(request)) {
            return Err(answer);
        }
        match &self.routes.guard {
            None => Ok(None),
            Some(guard) => guard.admit(request, self.peer),
        }
    }
}

impl HeadLimits {
    #[expect(clippy::result_large_err, reason = "the response is moved once, on the rare path")]
    fn check<B>(&self, request: &Request<B>) -> Result<(), Response<Body>> {
        let headers = request.headers();
        if headers.len() > self.headers_max {
            let got = headers.len();
            return Err(too_long(&format!("request has {got} headers, expected at most {}", self.headers_max)));
        }
        // HTTP/2 counts by itself while it unpacks.
        if request.version() < Version::HTTP_2 {
            let got = head_bytes(request);
            if got > self.bytes_max {
                return Err(too_long(&format!("request head has {got} bytes, expected at most {}", self.bytes_max)));
            }
        }
        Ok(())
    }
}

/// Without the punctuation between the parts, which says nothing.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    target + headers.sum::<usize>()
}

fn too_long(message: &str) -> Response<Body> {
    let body = serde_json::json!({ "error": message }).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response that is on its way.
pub(super) struct Answer {
    reply: Reply,
    open: Option<Open>,
    /// Present where the response itself must say that the connection ends.
    drain: Option<Drain>,
    /// What pages of other sites are told, where there may be any.
    allowed: Option<Allowed>,
    audited: Option<Audited>,
    /// Present where a large answer may be refused.
    outflow: Option<Arc<Outflow>>,
}

enum Reply {
    Routed(RouteFuture<Infallible>),
    Direct(Direct),
    Ready(Option<Response<Body>>),
}

impl Future for Answer {
    type Output = Result<Response<Counted>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match &mut self.reply {
            Reply::Routed(future) => match ready!(Pin::new(future).poll(cx)) {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Reply::Direct(future) => ready!(future.as_mut().poll(cx)),
            Reply::Ready(response) => response.take().expect("a future is not polled after it was ready"),
        };
        let open = self.open.take().expect("a future is not polled after it was ready");
        if self.drain.as_ref().is_some_and(|drain| drain.has_begun() || open.is_last()) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let outgoing = response.extensions_mut().remove().or_else(|| self.leaving(&mut response));
        if let Some(allowed) = self.allowed.take() {
            allowed.tell(response.headers_mut());
        }
        if let Some(audited) = self.audited.take() {
            audited.over(&response);
        }
        Poll::Ready(Ok(response.map(|body| Counted { body, outgoing, open })))
    }
}

impl Answer {
    /// Lets a large answer leave that is none to inference, or puts its refusal in its place.
    fn leaving(&self, response: &mut Response<Body>) -> Option<Arc<Outgoing>> {
        let bytes = http_body::Body::size_hint(response.body()).lower();
        if !outflow::is_large(bytes) {
            return None;
        }
        match self.outflow.as_ref()?.leave(bytes) {
            Ok(outgoing) => Some(Arc::new(outgoing)),
            Err(overloaded) => {
                *response = axum::response::IntoResponse::into_response(Refusal::from(overloaded));
                None
            }
        }
    }
}

/// A response body; its request counts as open until the library has taken all of it.
#[derive(Debug)]
pub(super) struct Counted {
    body: Body,
    /// What it holds of the budget of what leaves, where it was counted as a whole. Behind the body: bytes that are
    /// counted are there.
    outgoing: Option<Arc<Outgoing>>,
    open: Open,
}

/// A part of a body that the library holds until the client's socket, and with HTTP/2 its window, have taken it.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    leaving: Leaving,
}

impl http_body::Body for Counted {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let piece = |bytes: Bytes| {
            let leaving = self.open.offer(bytes.len(), self.outgoing.as_deref());
            Piece { bytes, leaving }
        };
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.leaving.moved();
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn heads_are_bounded() {
        let limits = HeadLimits { bytes_max: 20, headers_max: 2 };
        assert!(limits.check(&request(&[("abc", "defg"), ("hij", "klmnopqrs")])).is_ok());
        let long = limits.check(&request(&[("abc", "defg"), ("hij", "klmnopqrstu")])).unwrap_err();
        assert_eq!(long.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert!(limits.check(&request(&[("a", "1"), ("a", "2"), ("a", "3")])).is_err());
        let mut http2 = request(&[("abc", "defg"), ("hij", "klmnopqrstu")]);
        *http2.version_mut() = Version::HTTP_2;
        assert!(limits.check(&http2).is_ok());
    }

    #[test]
    fn content_types_tell_the_protocols_apart() {
        for (kind, wanted) in
            [("application/grpc", true), ("application/grpc+proto", true), ("application/json", false)]
        {
            assert_eq!(is_grpc(request(&[("content-type", kind)]).headers()), wanted, "{kind}");
        }
        assert!(!is_grpc(request(&[]).headers()));
    }
}
