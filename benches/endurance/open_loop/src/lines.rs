//! Ways to the server: each carries one request at a time. A connection is one line over HTTP/1.1, many over HTTP/2.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::plan::Plan;

#[derive(Clone)]
pub enum Line {
    Http1(Rc<Only>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An HTTP/1.1 connection.
pub struct Only {
    sender: RefCell<http1::SendRequest<Full<Bytes>>>,
    /// Whether it has ever brought an answer: until then the server may not have accepted it.
    is_known: Cell<bool>,
}

/// How a request ended without an answer.
pub enum Broken {
    /// Nothing of it left this process.
    NotSent,
    /// The server said that it has not looked at it (HTTP/2's GOAWAY).
    TurnedAway,
    /// The connection was reset before it brought any answer.
    Unknown(String),
    /// It was sent, or may have been, and the connection ended; why.
    Lost(String),
}

/// The lines that carry nothing now. The one that rested longest goes first, so that none rests for too long.
pub struct Free {
    lines: RefCell<VecDeque<Line>>,
}

impl Free {
    pub fn new() -> Self {
        Self { lines: RefCell::default() }
    }

    /// A free line, by a new connection where there is none.
    pub async fn take(&self, plan: &Plan) -> Result<Line, Broken> {
        while let Some(line) = self.pop() {
            if line.is_open() {
                return Ok(line);
            }
        }
        self.connect(plan).await?;
        self.pop().ok_or(Broken::NotSent)
    }

    pub async fn connect(&self, plan: &Plan) -> Result<(), Broken> {
        let stream = TcpStream::connect(plan.address).await.map_err(|_| Broken::NotSent)?;
        stream.set_nodelay(true).map_err(|_| Broken::NotSent)?;
        let io = TokioIo::new(stream);
        let new = if plan.is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(|_| Broken::NotSent)?;
            tokio::spawn(connection);
            vec![Line::Http2(sender); STREAMS_PER_CONNECTION]
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(|_| Broken::NotSent)?;
            tokio::spawn(connection);
            vec![Line::Http1(Rc::new(Only { sender: RefCell::new(sender), is_known: Cell::new(false) }))]
        };
        self.lines.borrow_mut().extend(new);
        Ok(())
    }

    pub fn give(&self, line: Line) {
        if line.is_open() {
            self.lines.borrow_mut().push_back(line);
        }
    }

    fn pop(&self) -> Option<Line> {
        self.lines.borrow_mut().pop_front()
    }
}

impl Line {
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Broken> {
        match self {
            Self::Http1(only) => {
                let ready = std::future::poll_fn(|cx| only.sender.borrow_mut().poll_ready(cx)).await;
                ready.map_err(|_| Broken::NotSent)?;
                let answer = only.sender.borrow_mut().try_send_request(request);
                let answer = answer.await.map_err(|error| Broken::of(error, only.is_known.get()))?;
                only.is_known.set(true);
                Ok(answer)
            }
            Self::Http2(sender) => {
                let mut sender = sender.clone();
                sender.ready().await.map_err(|_| Broken::NotSent)?;
                sender.try_send_request(request).await.map_err(|error| Broken::of(error, true))
            }
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Http1(only) => !only.sender.borrow().is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }
}

impl Broken {
    fn of<T>(error: TrySendError<T>, is_known: bool) -> Self {
        let cause = error.error().source().and_then(|cause| cause.downcast_ref::<h2::Error>());
        // Streams that the server took are not failed by this frame.
        let turned_away = cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote());
        let why = format!("{:?}", error.error());
        match error.message() {
            Some(_) => Self::NotSent,
            None if turned_away => Self::TurnedAway,
            None if is_known => Self::Lost(why),
            None => Self::Unknown(why),
        }
    }
}

/// Below the 100 that servers commonly allow, so that no request waits inside the generator.
const STREAMS_PER_CONNECTION: usize = 64;
