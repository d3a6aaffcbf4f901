//! What only sockets show: the limit on connections, and the closing of the door.
//!
//! Time is real here, and nothing waits for it to pass.

use std::net::SocketAddr;

use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::telemetry::Metrics;

/// A listener on a port of its own.
struct Open {
    address: Address,
    drain: Drain,
    serving: Serving,
    metrics: ListenerMetrics,
}

impl Open {
    fn start(connections_max: usize) -> Self {
        Self::serve(bound(), connections_max)
    }

    fn serve(listener: Listener, connections_max: usize) -> Self {
        let fixture = Fixture::start(|limits| limits.connections_max = connections_max);
        let (address, metrics) = (listener.local_address().unwrap(), Metrics::new().listener("test"));
        let limits = Arc::new(ArcSwap::new(fixture.limits));
        let serving = listener.serve(fixture.routes, None, limits, metrics.clone(), fixture.drain.clone());
        Self { address, drain: fixture.drain, serving, metrics }
    }

    async fn connect(&self) -> Client<TcpStream> {
        Client(TcpStream::connect(self.port()).await.unwrap())
    }

    fn port(&self) -> SocketAddr {
        self.address.tcp().unwrap()
    }
}

fn bound() -> Listener {
    Listener::bind(&"127.0.0.1:0".parse().unwrap(), Mode(0o600)).unwrap()
}

#[tokio::test]
async fn a_socket_that_is_a_file_has_the_same_limits_and_the_same_end() {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Unix(folder.path().join("a.socket"));
    let open = Open::serve(Listener::bind(&address, Mode(0o600)).unwrap(), 1);
    let path = folder.path().join("a.socket");
    assert_eq!(open.address, address);
    let mut client = Client(UnixStream::connect(&path).await.unwrap());
    assert!(client.get("/").await.ends_with("fast"));
    let mut second = UnixStream::connect(&path).await.unwrap();
    assert_eq!(second.read(&mut [0]).await.unwrap_or(0), 0, "one connection is allowed");
    assert_eq!(open.metrics.refused_limit.get(), 1);
    open.drain.close(Duration::ZERO);
    assert!(open.serving.finished(PATIENCE).await);
    assert!(!path.exists(), "the file went with the listener");
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let open = Open::start(10);
    let mut client = open.connect().await;
    for _ in 0..3 {
        let answer = client.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("fast"), "{answer}");
    }
    assert_eq!(open.metrics.connections.get(), 1);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let open = Open::start(1);
    let mut first = open.connect().await;
    assert!(first.get("/").await.ends_with("fast"));
    assert!(open.connect().await.is_closed().await);
    assert_eq!(open.metrics.refused_limit.get(), 1);
    assert!(first.get("/").await.ends_with("fast"), "the first goes on");
    drop(first);
    while open.metrics.connections.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(open.connect().await.get("/").await.ends_with("fast"), "the place is free again");
}

#[tokio::test]
async fn a_close_ends_the_listener_and_its_connections() {
    let open = Open::start(10);
    let (port, mut silent) = (open.port(), open.connect().await);
    assert!(silent.get("/").await.ends_with("fast"));
    open.drain.close(Duration::from_millis(1));
    assert!(silent.is_closed().await);
    assert!(open.serving.finished(PATIENCE).await, "all connections have ended");
    assert!(TcpStream::connect(port).await.is_err(), "nothing new is taken");
    assert_eq!(open.metrics.connections.get(), 0);
}

#[tokio::test]
async fn whoever_has_connected_before_the_close_is_answered() {
    let listener = bound();
    let mut clients = Vec::new();
    for _ in 0..CONNECTED {
        let mut client = Client(TcpStream::connect(listener.local_address().unwrap().tcp().unwrap()).await.unwrap());
        client.ask("/").await;
        clients.push(client);
    }
    let open = Open::serve(listener, CONNECTED);
    open.drain.close(PATIENCE);
    for mut client in clients {
        let answer = client.next().await;
        assert!(answer.contains("connection: close") && answer.ends_with("fast"), "{answer}");
    }
    assert!(open.serving.finished(PATIENCE).await);
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_off() {
    let open = Open::start(10);
    let mut busy = open.connect().await;
    busy.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nx").await;
    while open.metrics.connections.get() == 0 {
        tokio::task::yield_now().await;
    }
    open.drain.close(PATIENCE);
    assert!(!open.serving.finished(Duration::ZERO).await);
    assert!(busy.is_closed().await);
}

/// More than the runtime lets one task accept in a row.
const CONNECTED: usize = 300;
