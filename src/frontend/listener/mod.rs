//! Connections of every listener: accepted within limits, driven over HTTP/1.1 or HTTP/2, ended without losing a
//! request.
//!
//! Knows routers and limits, but no route and no message.

mod activity;
mod connection;
mod drain;
mod seldom;
mod service;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
pub use drain::Drain;
pub use service::{Counting, Direct, Routes, Shortcut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::task::{JoinHandle, JoinSet};

use self::socket::{Socket, Stream};
use super::LimitsConfig;
use super::address::{Address, Mode};
use super::tls::{self, HandshakeError, Tls};
use crate::telemetry::metrics::ListenerMetrics;

/// A bound address that nobody serves yet.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

/// A listener that is being served. Dropping it cuts off what is still open.
#[derive(Debug)]
pub struct Serving {
    task: JoinHandle<()>,
}

impl Listener {
    /// Must be called within a runtime. `mode` is for addresses that are files.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: &Address, mode: Mode) -> io::Result<Self> {
        Ok(Self { socket: Socket::bind(address, mode, BACKLOG)? })
    }

    /// The address with the port that was found for port 0.
    ///
    /// # Errors
    /// When the socket does not know its address.
    pub fn local_address(&self) -> io::Result<Address> {
        self.socket.local_address()
    }

    /// Accepts connections until `drain` closes, and then ends those that are open once their requests are answered.
    /// Changed limits hold for connections accepted from then on. A socket that is a file never speaks TLS: whom it knows
    /// is said by the file.
    pub fn serve(
        self,
        routes: Routes,
        tls: Option<Tls>,
        limits: Arc<ArcSwap<LimitsConfig>>,
        metrics: ListenerMetrics,
        drain: Drain,
    ) -> Serving {
        let accepting = Accepting { routes, tls, limits, metrics, drain, connections: JoinSet::new() };
        Serving { task: tokio::spawn(accepting.run(self.socket)) }
    }
}

impl Serving {
    /// Waits until every connection has ended after the close, and cuts off those that have not within `grace`. Tells
    /// whether all ended by themselves.
    pub async fn finished(mut self, grace: Duration) -> bool {
        tokio::time::timeout(grace, &mut self.task).await.is_ok()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // The connections belong to the task and end with it.
        self.task.abort();
    }
}

struct Accepting {
    routes: Routes,
    tls: Option<Tls>,
    limits: Arc<ArcSwap<LimitsConfig>>,
    metrics: ListenerMetrics,
    drain: Drain,
    connections: JoinSet<()>,
}

impl Accepting {
    async fn run(mut self, socket: Socket) {
        let mut failing = false;
        loop {
            select! {
                biased;
                () = self.drain.closed() => break,
                Some(_) = self.connections.join_next() => {}
                accepted = socket.accept() => match accepted {
                    Ok(stream) => {
                        failing = false;
                        self.take(stream);
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        self.metrics.refused_accept.inc();
                        if !failing {
                            tracing::warn!(%error, "connections cannot be accepted");
                        }
                        failing = true;
                        // Out of file descriptors, most likely: trying again at once would only burn a core.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        self.routes.close();
        self.take_connected(socket);
        while self.connections.join_next().await.is_some() {}
    }

    /// Takes the connections that the kernel has made already: their clients may have sent requests, which closing the
    /// socket would reset.
    fn take_connected(&mut self, socket: Socket) {
        let Ok(closing) = socket.closing() else { return };
        // At most as many as can have waited: whoever comes faster than that would be taken for ever.
        for _ in 0..=BACKLOG {
            match closing.accept() {
                Ok(stream) => self.take(stream),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, stream: Stream) {
        let limits = self.limits.load_full();
        if self.connections.len() >= limits.connections_max {
            self.metrics.refused_limit.inc();
            return;
        }
        match stream {
            // Answers are written whole: waiting for more would only delay them.
            Stream::Tcp(stream) if stream.set_nodelay(true).is_ok() => {
                match (self.tls.clone(), stream.peer_addr().ok()) {
                    (None, peer) => self.drive(stream, peer, limits),
                    (Some(tls), peer) => self.secure(stream, peer, tls, limits),
                }
            }
            Stream::Tcp(_) => {}
            Stream::Unix(stream) => self.drive(stream, None, limits),
        }
    }

    fn drive<S>(&mut self, stream: S, peer: Option<SocketAddr>, limits: Arc<LimitsConfig>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let counted = Connected::count(&self.metrics);
        let driven = connection::drive(stream, peer, self.routes.clone(), limits, self.drain.clone());
        self.connections.spawn(async move {
            driven.await;
            drop(counted);
        });
    }

    /// The same over TLS, whose handshake may take as long as the head of a request.
    fn secure(&mut self, stream: TcpStream, peer: Option<SocketAddr>, tls: Tls, limits: Arc<LimitsConfig>) {
        let counted = Connected::count(&self.metrics);
        let (routes, drain) = (self.routes.clone(), self.drain.clone());
        self.connections.spawn(async move {
            let ended = async {
                drain.closed().await;
                tokio::time::sleep(drain.linger()).await;
            };
            let accepted = select! {
                accepted = tls::accept(stream, &tls, limits.header_timeout.0) => accepted,
                // Who is not secure by then has sent no request.
                () = ended => Err(HandshakeError::Silent),
            };
            match accepted {
                Ok(stream) => connection::drive(stream, peer, routes, limits, drain).await,
                Err(HandshakeError::Silent) => {}
                Err(error) => {
                    counted.0.refused_handshake.inc();
                    tracing::debug!(%error, "no TLS came about");
                }
            }
            drop(counted);
        });
    }
}

/// Errors of a connection that broke before it was taken; the next one is as good as any.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Counts a connection for as long as it lives.
struct Connected(ListenerMetrics);

impl Connected {
    fn count(metrics: &ListenerMetrics) -> Self {
        metrics.connections.inc();
        Self(metrics.clone())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: i32 = 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
