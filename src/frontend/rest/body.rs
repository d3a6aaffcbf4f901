//! Reading request bodies within their limits, and writing response bodies in pieces.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};

use crate::admission::Held;
use crate::error::ErrorCode;
use crate::frontend::config::LimitsConfig;
use crate::frontend::inflate::{Bound, Coding};
use crate::frontend::pace::Pace;
use crate::frontend::{Frontend, Refusal};

/// A body that has arrived. It counts as being received until `held` is dropped, which is due when its bytes have become
/// a request, or nothing.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) held: Held,
}

/// Reads a whole body, inflated where it was compressed.
///
/// # Errors
/// When it is larger than allowed, would pass what may be received at a time, inflates beyond reason, is no valid
/// stream, or comes too slowly.
pub(super) async fn read(
    frontend: &Frontend,
    headers: &HeaderMap,
    body: Body,
    limits: &LimitsConfig,
) -> Result<Received, Refusal> {
    let held = frontend.pipeline.admission().receive();
    let coding = request_coding(headers)?;
    let max = limits.body_bytes_max.as_len();
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    // What does not fit is refused before it has cost anything.
    held.grow(announced.unwrap_or(0) as u64)?;
    let received = collect(body, Pace::new(limits), announced, max, held).await?;
    match coding {
        None => Ok(received),
        Some(coding) => Box::pin(inflated(frontend, coding, received, limits)).await,
    }
}

/// Counts what a body inflates to as it counted what came.
async fn inflated(
    frontend: &Frontend,
    coding: Coding,
    Received { bytes, held }: Received,
    limits: &LimitsConfig,
) -> Result<Received, Refusal> {
    // In one piece.
    let bytes = frontend.inflate(coding, bytes, Bound::of(limits), u64::MAX).await?.pop_front().unwrap_or_default();
    held.grow_to(bytes.len() as u64)?;
    Ok(Received { bytes, held })
}

/// The coding an answer should have by the request's `Accept-Encoding`; none where it does not ask.
pub(super) fn response_coding(headers: &HeaderMap) -> Option<Coding> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    let wanted = |name: &str| {
        accepted.split(',').any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let is_named = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(name));
            is_named && !parts.any(|q| q == "q=0" || q.starts_with("q=0.0") && q.trim_end_matches('0') == "q=0.")
        })
    };
    if wanted("gzip") {
        Some(Coding::Gzip)
    } else if wanted("deflate") {
        Some(Coding::Deflate)
    } else {
        None
    }
}

/// Compresses the pieces into one.
pub(super) fn deflate(coding: Coding, pieces: &VecDeque<Bytes>) -> Bytes {
    let write = |mut out: Box<dyn Write + '_>| {
        for piece in pieces {
            out.write_all(piece).expect("compressing into memory succeeds");
        }
    };
    let mut bytes = Vec::new();
    match coding {
        Coding::Gzip => write(Box::new(GzEncoder::new(&mut bytes, Compression::fast()))),
        Coding::Deflate => write(Box::new(ZlibEncoder::new(&mut bytes, Compression::fast()))),
    }
    bytes.into()
}

async fn collect(
    mut body: Body,
    mut pace: Pace,
    announced: Option<usize>,
    max: usize,
    held: Held,
) -> Result<Received, Refusal> {
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| poll_frame(&mut body, &mut pace, cx)).await {
        let Ok(chunk) = frame?.into_data() else { continue };
        let so_far = first.as_ref().map_or(joined.len(), Bytes::len);
        if so_far + chunk.len() > max {
            return Err(too_large(max));
        }
        held.grow_to((so_far + chunk.len()) as u64)?;
        // Most bodies are one chunk, which is used as it is.
        if so_far == 0 {
            first = Some(chunk);
            continue;
        }
        if let Some(first) = first.take() {
            // Memory follows what arrived, not what was announced: at most double.
            joined.reserve(announced.unwrap_or(0).min(2 * (so_far + chunk.len())).max(so_far + chunk.len()));
            joined.extend_from_slice(&first);
        }
        joined.extend_from_slice(&chunk);
    }
    Ok(Received { bytes: first.unwrap_or_else(|| joined.freeze()), held })
}

/// The next frame, unless it is late.
fn poll_frame(body: &mut Body, pace: &mut Pace, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Refusal>>> {
    match Pin::new(body).poll_frame(cx) {
        Poll::Ready(Some(Ok(frame))) => {
            pace.took(frame.data_ref().map_or(0, Bytes::len));
            Poll::Ready(Some(Ok(frame)))
        }
        Poll::Ready(Some(Err(error))) => {
            Poll::Ready(Some(Err(Refusal::invalid(format!("the body could not be read: {error}")))))
        }
        Poll::Ready(None) => Poll::Ready(None),
        Poll::Pending => pace.poll_late(cx).map(|late| Some(Err(late.into()))),
    }
}

/// The coding a request came in.
///
/// # Errors
/// When it is none that is spoken here.
pub(super) fn request_coding(headers: &HeaderMap) -> Result<Option<Coding>, Refusal> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => Ok(Some(Coding::Gzip)),
        "deflate" => Ok(Some(Coding::Deflate)),
        other => {
            Err(Refusal::invalid(format!("content-encoding {other:?} is not supported, expected gzip or deflate")))
        }
    }
}

fn too_large(max: usize) -> Refusal {
    Refusal::new(ErrorCode::PayloadTooLarge, format!("the body is larger than the {max} bytes allowed"))
}

/// A body of known length in pieces.
#[derive(Debug)]
pub(super) struct Pieces(pub VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_are_told_in_any_case() {
        let coding =
            |value: &str| request_coding(&HeaderMap::from_iter([(header::CONTENT_ENCODING, value.parse().unwrap())]));
        assert_eq!(coding("GZIP").unwrap(), Some(Coding::Gzip));
        assert_eq!(coding(" X-Gzip").unwrap(), Some(Coding::Gzip));
        assert_eq!(coding("Deflate").unwrap(), Some(Coding::Deflate));
        assert_eq!(coding("Identity").unwrap(), None);
        assert!(coding("br").is_err());
    }

    #[test]
    fn codings_are_chosen_by_the_client() {
        let coding = |value: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]);
            response_coding(&headers)
        };
        assert_eq!(coding("gzip, deflate"), Some(Coding::Gzip));
        assert_eq!(coding("deflate"), Some(Coding::Deflate));
        assert_eq!(coding("gzip;q=0, deflate;q=0.5"), Some(Coding::Deflate));
        assert_eq!(coding("br"), None);
        assert_eq!(response_coding(&HeaderMap::new()), None);
    }
}
