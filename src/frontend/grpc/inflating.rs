//! A call's body whose compressed messages are inflated before the gRPC library sees them.
//!
//! The library would inflate a message where it arrives, up to the bytes that one may have, and only then could its ratio
//! be looked at. Here a message is held to both while it inflates, on the pool where that takes long, and is handed on as
//! if it had come so: its flag is cleared. Knows the frames of messages, but not what they say.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body::Frame;
use tonic::Status;

use super::incoming::{Arriving, Incoming};
use crate::frontend::inflate::{Bound, Coding};
use crate::frontend::{Frontend, Refusal};

pub(super) struct Inflating {
    body: Arriving,
    frontend: Frontend,
    incoming: Arc<Incoming>,
    coding: Coding,
    bound: Bound,
    state: State,
    /// What has come and was not looked at yet.
    rest: Bytes,
    /// What the library is to see next.
    ready: VecDeque<Bytes>,
    /// Set when the library was given a large piece, which it copies: others have their turn before the next.
    yields: bool,
}

enum State {
    /// So many bytes are there of the five before a message.
    Head([u8; HEAD_BYTES], usize),
    /// So many bytes of a message are still to come that is handed on as it is.
    Plain(usize),
    /// A compressed message that is arriving, and the bytes that it still lacks.
    Packed {
        came: BytesMut,
        head: [u8; HEAD_BYTES],
        lacks: usize,
    },
    Inflates(BoxFuture<'static, Result<VecDeque<Bytes>, Refusal>>),
}

/// The coding of a call's compressed messages. What is not known here is refused by the library.
pub(super) fn coding(headers: &HeaderMap) -> Option<Coding> {
    match headers.get(ENCODING)?.as_bytes() {
        b"gzip" => Some(Coding::Gzip),
        b"deflate" => Some(Coding::Deflate),
        _ => None,
    }
}

impl Inflating {
    pub(super) fn new(
        body: Arriving,
        frontend: &Frontend,
        incoming: Arc<Incoming>,
        coding: Coding,
        bound: Bound,
    ) -> Self {
        let (state, rest, ready) = (State::head(), Bytes::new(), VecDeque::new());
        Self { body, frontend: frontend.clone(), incoming, coding, bound, state, rest, ready, yields: false }
    }

    /// Looks at what has come, up to the end of a message that must be inflated.
    fn take_apart(&mut self) {
        while !self.rest.is_empty() {
            match &mut self.state {
                State::Head(head, there) => {
                    let part = self.rest.split_to(self.rest.len().min(HEAD_BYTES - *there));
                    head[*there..*there + part.len()].copy_from_slice(&part);
                    *there += part.len();
                    if *there == HEAD_BYTES {
                        let head = *head;
                        self.begin(head);
                    }
                }
                State::Plain(lacks) => {
                    let part = self.rest.split_to(self.rest.len().min(*lacks));
                    *lacks -= part.len();
                    if *lacks == 0 {
                        self.state = State::head();
                    }
                    self.ready.push_back(part);
                }
                State::Packed { came, lacks, .. } => {
                    let part = self.rest.split_to(self.rest.len().min(*lacks));
                    *lacks -= part.len();
                    // Memory follows what has come, not what was announced.
                    came.extend_from_slice(&part);
                    if *lacks == 0 {
                        let came = mem::take(came).freeze();
                        self.inflate(came);
                    }
                }
                State::Inflates(_) => return,
            }
        }
    }

    fn begin(&mut self, head: [u8; HEAD_BYTES]) {
        let [flag, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        if flag == COMPRESSED && length as u64 <= self.bound.bytes_max {
            self.state = State::Packed { came: BytesMut::new(), head, lacks: length };
            if length == 0 {
                self.inflate(Bytes::new());
            }
            return;
        }
        // A flag that means nothing, or a length that is too large, is the library's to refuse.
        self.ready.push_back(Bytes::copy_from_slice(&head));
        self.state = if length == 0 { State::head() } else { State::Plain(length) };
    }

    fn inflate(&mut self, message: Bytes) {
        let (frontend, coding, bound) = (self.frontend.clone(), self.coding, self.bound);
        let inflated = async move { frontend.inflate(coding, message, bound, PIECE_BYTES).await };
        self.state = State::Inflates(Box::pin(inflated));
    }

    /// Takes what a message has inflated to, counted as what came is.
    fn take_inflated(&mut self, pieces: VecDeque<Bytes>) -> Result<(), Refusal> {
        self.state = State::head();
        let length = pieces.iter().map(Bytes::len).sum::<usize>();
        self.incoming.inflated(length as u64)?;
        // No more than the bound, which is of the same kind.
        let length = u32::try_from(length).map_err(|_| Refusal::invalid("a message of 4 GiB or more has no length"))?;
        let [a, b, c, d] = length.to_be_bytes();
        self.ready = pieces;
        self.ready.push_front(Bytes::copy_from_slice(&[0, a, b, c, d]));
        Ok(())
    }

    /// What there is of a message that does not go on: the library says what becomes of that.
    fn cut_short(&mut self) -> Option<Bytes> {
        match mem::replace(&mut self.state, State::head()) {
            State::Head(head, there) if there > 0 => Some(Bytes::copy_from_slice(&head[..there])),
            State::Packed { came, head, .. } => Some([&head[..], &came].concat().into()),
            State::Head(..) | State::Plain(_) | State::Inflates(_) => None,
        }
    }
}

impl State {
    fn head() -> Self {
        Self::Head([0; HEAD_BYTES], 0)
    }
}

impl http_body::Body for Inflating {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if mem::take(&mut this.yields) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if let Some(piece) = this.ready.pop_front() {
                this.yields = piece.len() as u64 >= PIECE_BYTES;
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let State::Inflates(work) = &mut this.state {
                let pieces = ready!(work.as_mut().poll(cx))?;
                this.take_inflated(pieces)?;
                continue;
            }
            if !this.rest.is_empty() {
                this.take_apart();
                continue;
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => this.rest = piece,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(this.cut_short().map(|bytes| Ok(Frame::data(bytes)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_between = matches!(self.state, State::Head(_, 0));
        is_between && self.ready.is_empty() && self.rest.is_empty() && self.body.is_end_stream()
    }
}

const ENCODING: &str = "grpc-encoding";
const HEAD_BYTES: usize = 5;
const COMPRESSED: u8 = 1;
/// The library copies a piece in about the time that two wake-ups take.
const PIECE_BYTES: u64 = 512 << 10;
