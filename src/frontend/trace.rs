//! W3C trace context on either wire: a request that is part of a trace gets a span, and its answer says which.
//!
//! Requests without one pay a header look-up and nothing more.

use http::{HeaderMap, HeaderValue};
use tracing::Span;

use crate::telemetry::trace::TraceContext;

/// The span of a request whose client traces it.
pub fn span(headers: &HeaderMap) -> Option<(TraceContext, Span)> {
    let parent = headers.get(TRACEPARENT)?.to_str().ok()?;
    let state = headers.get(TRACESTATE).and_then(|state| state.to_str().ok());
    let context = TraceContext::of_request(Some(parent), state);
    let span = tracing::info_span!("infer", trace_id = %context.trace_id());
    Some((context, span))
}

/// Tells the client which span of its trace answered.
pub fn tell(context: &TraceContext, headers: &mut HeaderMap) {
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
    use super::*;

    #[test]
    fn a_trace_goes_on_where_the_client_began_one() {
        let mut headers = HeaderMap::new();
        assert!(span(&headers).is_none());
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert(TRACEPARENT, parent.parse().unwrap());
        headers.insert(TRACESTATE, "a=1".parse().unwrap());
        let (context, _) = span(&headers).unwrap();
        let mut answered = HeaderMap::new();
        tell(&context, &mut answered);
        let told = answered[TRACEPARENT].to_str().unwrap();
        assert_eq!(told[..36], parent[..36], "the trace is the client's");
        assert_ne!(told, parent, "the span is ours");
        assert_eq!(answered[TRACESTATE], "a=1");
    }
}
