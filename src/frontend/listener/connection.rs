//! One accepted connection from its first byte to its last.
//!
//! The HTTP library reads and writes; the clock here ends what takes too long. A connection that shall end answers the
//! requests that have arrived or are on their way, and goes once it has been silent for a while.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::select;
use tokio::time::{Instant, sleep_until};

use super::activity::{Activity, Leaving, Patience, Verdict};
use super::drain::Drain;
use super::seldom::Seldom;
use super::service::{HeadLimits, Requests, Routes};
use crate::frontend::LimitsConfig;

/// Drives a connection until its client leaves, it takes too long, or the server ends and its requests are answered.
pub(super) async fn drive<S>(
    stream: S,
    peer: Option<SocketAddr>,
    routes: Routes,
    limits: Arc<LimitsConfig>,
    drain: Drain,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new(routes.outflow());
    let mut patience =
        Patience { head: limits.header_timeout.0, idle: limits.idle_timeout.0, write: limits.write_timeout.0 };
    let heads = HeadLimits { bytes_max: limits.header_bytes_max.as_len(), headers_max: limits.headers_max };
    let requests = Requests { routes, limits: heads, activity: Arc::clone(&activity), drain: drain.clone(), peer };
    let builder = builder(&limits);
    let io = TokioIo::new(Watched { stream, activity: Arc::clone(&activity), blocked: None });
    let mut connection = pin!(builder.serve_connection(io, requests));
    let (clock, closed) = (pin!(sleep_until(Instant::now() + patience.shortest())), pin!(drain.closed()));
    let (mut clock, mut closed) = (Seldom::new(clock), Seldom::new(closed));
    loop {
        let linger = select! {
            biased;
            // Errors here are the client's, or its network's: it went away or sent what is no HTTP.
            _ = connection.as_mut() => return,
            () = &mut closed, if !activity.is_ending() => Some(drain.linger()),
            () = &mut clock => match activity.verdict(Instant::now(), patience) {
                Verdict::Fine(until) => {
                    clock.reset(until);
                    None
                }
                Verdict::Idle if !activity.is_ending() => Some(IDLE_LINGER),
                // An answer may take as long as its client goes on taking it; the grace of the server bounds that.
                Verdict::Idle | Verdict::Slow | Verdict::Stalled => return,
            },
        };
        if let Some(linger) = linger {
            activity.end();
            patience.idle = linger;
            clock.reset(Instant::now() + linger);
        }
        // HTTP/2 is told by a frame, as soon as it is known to be HTTP/2; told twice, it hears it once. HTTP/1.1 hears
        // it from its next answer, and the library, if told, would close without giving a request the time to arrive.
        if activity.is_ending() && activity.is_http2() {
            connection.as_mut().graceful_shutdown();
        }
    }
}

fn builder(limits: &LimitsConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let head_bytes = limits.header_bytes_max.as_len();
    builder
        .http1()
        // The clock above measures heads and pauses apart; the library knows one time for both.
        .header_read_timeout(None)
        // Bodies are read through this buffer too. Heads are held to their own limit when they are complete.
        .max_buf_size(head_bytes.saturating_mul(4).max(READ_BYTES_MIN));
    if limits.headers_max > HEADERS_ON_STACK {
        builder.http1().max_headers(limits.headers_max);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        // Resets cost a client nothing and a server much (CVE-2023-44487).
        .max_pending_accept_reset_streams(limits.http2_resets_max)
        .max_local_error_reset_streams(limits.http2_resets_max)
        .keep_alive_interval(limits.http2_keepalive_interval.0)
        .keep_alive_timeout(limits.http2_keepalive_timeout.0);
    builder
}

/// A stream that tells when bytes arrive, and when none leave.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    /// Present while the socket takes nothing, whether the library holds a body for it or only a head.
    blocked: Option<Leaving>,
}

impl<S> Watched<S> {
    fn wrote(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if outcome.is_ready() {
            self.blocked = None;
        } else if self.blocked.is_none() {
            self.blocked = Some(self.activity.offer(0, None));
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let received = &buf.filled()[before..];
        if !received.is_empty() {
            self.activity.received(received);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How long a connection that was idle for too long may still bring the request that its client had just sent.
const IDLE_LINGER: Duration = Duration::from_millis(200);
/// Bodies of a few hundred kilobytes arrive in few reads.
const READ_BYTES_MIN: usize = 64 << 10;
/// The library parses this many headers without an allocation; fewer are checked after parsing.
const HEADERS_ON_STACK: usize = 100;
