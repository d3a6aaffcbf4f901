//! A call's body on its way in: counted while it arrives, and held to a time. Knows bytes and messages' lengths, but not
//! what they say.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::admission::Held;
use crate::error::ErrorCode;
use crate::frontend::Refusal;
use crate::frontend::pace::Pace;

/// What a call's body and the decoder of its messages tell each other. Both belong to one task.
#[derive(Debug)]
pub(super) struct Incoming {
    held: Held,
    /// Messages follow each other, with any time between them.
    is_stream: bool,
    /// Whether the decoder tells when a message is whole.
    tells_whole: bool,
    /// Set when a message is whole, until the body is asked for the next.
    is_whole: AtomicBool,
}

impl Incoming {
    /// Of a call that carries neither tensors nor files.
    pub(super) fn small(held: Held) -> Self {
        Self { held, is_stream: false, tells_whole: false, is_whole: AtomicBool::new(false) }
    }

    /// Holds its bytes until the call is handed over: the library waits for the end of the body behind the message.
    pub(super) fn unary(held: Held) -> Self {
        Self { tells_whole: true, ..Self::small(held) }
    }

    /// Holds the bytes of a message until that is handed over.
    pub(super) fn stream(held: Held) -> Self {
        Self { is_stream: true, ..Self::unary(held) }
    }

    /// A body that breaks off is its client's doing: the library would take it for an error of ours.
    fn unbroken(&self, frame: Option<Result<Frame<Bytes>, Status>>) -> Option<Result<Frame<Bytes>, Status>> {
        let is_within = || self.held.bytes() > 0 && !self.is_whole.load(Ordering::Relaxed);
        match frame {
            // Whatever happened to the connection has no code of its own.
            Some(Err(error)) if matches!(error.code(), Code::Cancelled | Code::Unknown) => Some(Err(broken_off())),
            None if self.tells_whole && is_within() => {
                Some(Err(Refusal::invalid("expected a whole message, the call ended within it").into()))
            }
            frame => frame,
        }
    }

    fn arrived(&self, bytes: u64) -> Result<(), Refusal> {
        Ok(self.held.grow(bytes)?)
    }

    /// To be called with the bytes that a compressed message has become.
    ///
    /// # Errors
    /// When that would pass what may be received at a time.
    pub(super) fn inflated(&self, bytes: u64) -> Result<(), Refusal> {
        Ok(self.held.grow_to(bytes)?)
    }

    /// To be called with each message, before it is decoded.
    pub(super) fn whole(&self) {
        self.is_whole.store(true, Ordering::Relaxed);
    }

    /// To be called when the call has been read and admission is next to count it.
    pub(super) fn handed_over(&self) {
        self.held.give_back();
    }

    /// To be called with the bytes that a message is about to take when decoded.
    ///
    /// # Errors
    /// When that would pass what may be received at a time.
    pub(super) fn decoding(&self, bytes: u64) -> Result<(), Refusal> {
        if self.is_stream {
            self.held.give_back();
            return Ok(());
        }
        Ok(self.held.grow_to(bytes)?)
    }
}

/// Counted as cancelled. The library passes over a body's error of that code, and finds half a message then; the client is gone
/// and reads neither.
fn broken_off() -> Status {
    let mut status = Status::new(Code::Aborted, "the client broke its call off");
    status.set_source(Arc::new(Refusal::new(ErrorCode::Cancelled, status.message())));
    status
}

/// A request body that must be there in time; of a stream, each of its messages.
pub(super) struct Arriving {
    body: Body,
    incoming: Arc<Incoming>,
    pace: Pace,
}

impl Arriving {
    pub(super) fn new(body: Body, incoming: Arc<Incoming>, pace: Pace) -> Self {
        Self { body, incoming, pace }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.incoming.is_stream && self.incoming.is_whole.swap(false, Ordering::Relaxed) {
            self.pace.restart();
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame
                && let Some(piece) = frame.data_ref()
            {
                self.pace.took(piece.len());
                self.incoming.arrived(piece.len() as u64)?;
            }
            return Poll::Ready(self.incoming.unbroken(frame));
        }
        // A stream may stay open between its messages; its client's connection is watched instead.
        if self.incoming.is_stream && self.incoming.held.bytes() == 0 {
            return Poll::Pending;
        }
        self.pace.poll_late(cx).map(|late| Some(Err(Refusal::from(late).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::stream;
    use http_body::Body as _;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::admission::Admission;
    use crate::config::Config;
    use crate::frontend::LimitsConfig;
    use crate::frontend::grpc::status;
    use crate::units::ByteSize;

    fn admission(receiving_bytes_max: u64) -> Admission {
        let mut config = Config::default().admission;
        config.receiving_bytes_max.0 = receiving_bytes_max;
        Admission::new(config, Arc::default())
    }

    fn pace(rate: u64) -> Pace {
        Pace::new(&LimitsConfig { body_rate_min: ByteSize(rate), ..Config::default().limits })
    }

    /// A body whose pieces come after so many seconds each.
    fn late(pieces: &[(u64, &'static str)]) -> Body {
        let piece = async |(after, text): (u64, &'static str)| {
            sleep(Duration::from_secs(after)).await;
            Ok::<_, Status>(Frame::data(Bytes::from_static(text.as_bytes())))
        };
        Body::new(StreamBody::new(Box::pin(stream::StreamExt::then(stream::iter(pieces.to_vec()), piece))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_must_arrive_in_time() {
        for (rate, pieces, arrives) in [
            (0, &[(29, "x")][..], true),
            (0, &[(31, "x")], false),
            (0, &[(20, "x"), (20, "y")], false),
            (1024, &[(4, "x")], true),
            (1024, &[(6, "x")], false),
        ] {
            let incoming = Arc::new(Incoming::small(admission(10).receive()));
            let body = Arriving::new(late(pieces), incoming, pace(rate));
            assert!(!body.is_end_stream());
            let refused = body.collect().await.err().map(|status| status.code());
            assert_eq!(refused, (!arrives).then_some(Code::DeadlineExceeded), "{pieces:?} at {rate} B/s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_between_messages_and_not_within_one() {
        let admission = admission(10);
        let incoming = Arc::new(Incoming::stream(admission.receive()));
        let pieces = &[(100, "whole"), (100, "be"), (20, "gun"), (20, "late")];
        let mut body = Arriving::new(late(pieces), Arc::clone(&incoming), pace(0));
        let started = Instant::now();
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(admission.receiving_bytes(), 5);
        incoming.decoding(5).unwrap();
        assert_eq!(admission.receiving_bytes(), 0);
        incoming.whole();
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_ok());
        let status = body.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(started.elapsed().as_secs(), 230);
        drop((body, incoming));
        assert_eq!(admission.receiving_bytes(), 0);
    }

    #[tokio::test]
    async fn a_message_that_breaks_off_is_its_clients_doing() {
        let admission = admission(10);
        let collected = |counts: fn(Held) -> Incoming| {
            let incoming = Arc::new(counts(admission.receive()));
            Arriving::new(late(&[(0, "ha"), (0, "lf")]), incoming, pace(0)).collect()
        };
        assert_eq!(collected(Incoming::unary).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(collected(Incoming::stream).await.unwrap_err().code(), Code::InvalidArgument);
        assert!(collected(Incoming::small).await.is_ok());
        for error in [Status::unknown("reset"), Status::cancelled("reset")] {
            let reset = Body::new(StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(error)])));
            let body = Arriving::new(reset, Arc::new(Incoming::unary(admission.receive())), pace(0));
            assert_eq!(status::code(&body.collect().await.unwrap_err()), ErrorCode::Cancelled);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_stream_may_last() {
        let incoming = Arc::new(Incoming::stream(admission(10).receive()));
        let pieces = &[(20, "1"), (20, "2"), (20, "3"), (20, "4")];
        let mut body = Arriving::new(late(pieces), Arc::clone(&incoming), pace(0));
        for _ in pieces {
            assert!(body.frame().await.unwrap().is_ok());
            incoming.whole();
            incoming.decoding(1).unwrap();
            // A part of the next one has come with it.
            incoming.held.grow(1).unwrap();
        }
    }

    #[tokio::test]
    async fn bytes_beyond_the_budget_are_refused_and_given_back() {
        let admission = admission(10);
        let other = admission.receive();
        other.grow(7).unwrap();
        let body = || {
            let incoming = Arc::new(Incoming::small(admission.receive()));
            Arriving::new(late(&[(0, "ab"), (0, "cd")]), incoming, pace(0))
        };
        let status = body().collect().await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
        assert_eq!(admission.receiving_bytes(), 7);
        drop(other);
        assert!(body().collect().await.is_ok());
        assert_eq!(admission.receiving_bytes(), 0);
    }

    #[test]
    fn what_a_unary_call_decodes_to_counts() {
        let admission = admission(10);
        let incoming = Incoming::unary(admission.receive());
        incoming.arrived(4).unwrap();
        incoming.decoding(9).unwrap();
        assert_eq!(admission.receiving_bytes(), 9);
        assert_eq!(incoming.decoding(11).unwrap_err().code, ErrorCode::Overloaded);
        incoming.handed_over();
        assert_eq!(admission.receiving_bytes(), 0);
    }
}
