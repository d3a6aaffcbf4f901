//! W3C trace context on either wire: a request that is part of a trace gets a span, and its answer says which. What heads
//! tell of a call that is recorded.
//!
//! Requests without one pay a header look-up and nothing more.

use std::str::FromStr;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header};
use tracing::{Instrument, Span};

use crate::telemetry::Tracer;
use crate::telemetry::spans::{Attribute, Fate, Head, Recording, Value, Wire};
use crate::telemetry::trace::TraceContext;

/// The span of a call, for whoever is told of it and for the logs.
#[derive(Debug)]
pub struct Trace {
    context: TraceContext,
    span: Span,
    /// Where it may turn out that nothing was recorded, and so that there is nothing to tell.
    fate: Option<Fate>,
}

/// The span of a request whose client traces it, or that is sampled here.
pub fn of(tracer: &Tracer, headers: &HeaderMap) -> Option<Trace> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let parent = text(TRACEPARENT);
    let context = tracer.span_of(parent, parent.and_then(|_| text(TRACESTATE)))?;
    let span = tracing::info_span!("infer", trace_id = %context.trace_id());
    let fate = tracer.fate(&context);
    Some(Trace { context, span, fate })
}

/// What is recorded of it, where it is sampled.
pub fn record(tracer: &Tracer, trace: Option<&Trace>, head: impl FnOnce() -> Head) -> Option<Recording> {
    let Trace { context, fate, .. } = trace?;
    tracer.record(context, fate.as_ref(), head)
}

/// The head of an inference call over REST; its route is the verb and the path's form.
pub fn rest_head(parts: &Parts, route: &'static str) -> Head {
    let path = route.trim_start_matches("POST ");
    let version = if parts.version == Version::HTTP_2 { "2" } else { "1.1" };
    let mut attributes = vec![
        ("http.request.method", Value::Name("POST")),
        ("http.route", Value::Name(path)),
        ("network.protocol.version", Value::Name(version)),
        ("url.path", Value::Text(parts.uri.path().to_owned())),
        ("url.scheme", Value::Name("http")),
    ];
    attributes.extend(server(&parts.uri, &parts.headers));
    Head { wire: Wire::Http, name: route, attributes }
}

/// The head of a call over gRPC, whose path is that of its method.
pub fn grpc_head<B>(request: &Request<B>, path: &'static str) -> Head {
    let method = path.trim_start_matches('/');
    let mut attributes = vec![("rpc.system.name", Value::Name("grpc")), ("rpc.method", Value::Name(method))];
    attributes.extend(server(request.uri(), request.headers()));
    Head { wire: Wire::Grpc, name: method, attributes }
}

/// This server as its client names it.
fn server(uri: &Uri, headers: &HeaderMap) -> impl Iterator<Item = Attribute> + use<> {
    let host = || Authority::from_str(headers.get(header::HOST)?.to_str().ok()?).ok();
    let authority = uri.authority().cloned().or_else(host);
    let port = authority.as_ref().and_then(Authority::port_u16).map(|port| ("server.port", Value::Int(port.into())));
    let host = authority.map(|authority| ("server.address", Value::Text(authority.host().to_owned())));
    host.into_iter().chain(port)
}

/// Answers within the span of a request, where it has one, and tells the client which it was, whatever the answer is.
pub async fn around<B>(trace: Option<Trace>, answer: impl Future<Output = Response<B>>) -> Response<B> {
    let Some(Trace { context, span, fate }) = trace else { return answer.await };
    let mut response = answer.instrument(span).await;
    if !fate.is_some_and(|fate| fate.is_dropped()) {
        tell(&context, response.headers_mut());
    }
    response
}

fn tell(context: &TraceContext, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::try_from(context.to_string()) {
        headers.insert(TRACEPARENT, value);
    }
    if let Some(Ok(value)) = context.tracestate().map(HeaderValue::try_from) {
        headers.insert(TRACESTATE, value);
    }
}

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use axum::response::IntoResponse;

    use super::*;
    use crate::error::ErrorCode;
    use crate::frontend::Refusal;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_error_is_logged_once_and_within_its_trace() {
        let page = Page::default();
        let written = page.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
        let _default = tracing::subscriber::set_default(subscriber);
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let parent = format!("00-{trace}-b7ad6b7169203331-01");
        let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), parent.parse().unwrap())]);
        let rest = async { Refusal::new(ErrorCode::Internal, "over rest").into_response() };
        around(of(&Tracer::off(), &headers), rest).await;
        let grpc = async { tonic::Status::from(Refusal::new(ErrorCode::Internal, "over grpc")).into_http::<String>() };
        let told = around(of(&Tracer::off(), &headers), grpc).await;
        assert!(told.headers()[TRACEPARENT].to_str().unwrap().contains(trace));
        around(None, async { Refusal::invalid("the client's own").into_response() }).await;
        let logged = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = logged.lines().collect();
        assert_eq!(lines.len(), 2, "{logged}");
        assert!(lines[0].contains("over rest") && lines[1].contains("over grpc"), "{logged}");
        assert!(lines.iter().all(|line| line.contains("ERROR") && line.contains(trace)), "{logged}");
    }

    #[test]
    fn a_trace_goes_on_where_the_client_began_one() {
        let mut headers = HeaderMap::new();
        assert!(of(&Tracer::off(), &headers).is_none());
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert(TRACEPARENT, parent.parse().unwrap());
        headers.insert(TRACESTATE, "a=1".parse().unwrap());
        let Trace { context, .. } = of(&Tracer::off(), &headers).unwrap();
        let mut answered = HeaderMap::new();
        tell(&context, &mut answered);
        let told = answered[TRACEPARENT].to_str().unwrap();
        assert_eq!(told[..36], parent[..36], "the trace is the client's");
        assert_ne!(told, parent, "the span is ours");
        assert_eq!(answered[TRACESTATE], "a=1");
    }
}
