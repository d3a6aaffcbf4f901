//! A listener on a loopback port, and clients that write bytes by hand.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::telemetry::Metrics;
use crate::units::{ByteSize, Span};

/// A listener on a port of its own, with a route that answers at once and one that takes its time.
struct Fixture {
    address: SocketAddr,
    stop: CancellationToken,
    serving: Serving,
    metrics: ListenerMetrics,
}

impl Fixture {
    fn start(change: impl FnOnce(&mut LimitsConfig)) -> Self {
        let slow = || async {
            sleep(Duration::from_millis(150)).await;
            "slow"
        };
        let echo = |body: axum::body::Bytes| async move { body.len().to_string() };
        let router =
            Router::new().route("/", get(|| async { "fast" })).route("/slow", get(slow)).route("/echo", post(echo));
        let mut limits = limits();
        change(&mut limits);
        let metrics = Metrics::new().listener("test");
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Arc::new(ArcSwap::from_pointee(limits));
        let stop = CancellationToken::new();
        let serving = listener.serve(Routes::one(router), limits, metrics.clone(), stop.clone());
        Self { address, stop, serving, metrics }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next bytes that arrive; none where the server has closed.
    async fn next(&mut self) -> String {
        let mut bytes = [0; 4096];
        let read = timeout(PATIENCE, self.0.read(&mut bytes)).await.expect("the server answers or closes in time");
        String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]).into_owned()
    }

    async fn get(&mut self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        self.next().await
    }

    async fn is_closed(&mut self) -> bool {
        self.next().await.is_empty()
    }
}

fn limits() -> LimitsConfig {
    LimitsConfig {
        body_bytes_max: ByteSize(1 << 20),
        inflate_ratio_max: 20,
        tensors_max: 64,
        rank_max: 8,
        parameters_max: 64,
        json_depth_max: 100,
        header_bytes_max: ByteSize(1 << 14),
        headers_max: 64,
        header_timeout: Span(Duration::from_secs(10)),
        body_timeout: Span(Duration::from_secs(30)),
        idle_timeout: Span(Duration::from_secs(60)),
        connections_max: 10,
        http2_streams_max: 10,
        stream_in_flight_max: 10,
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let fixture = Fixture::start(|_| {});
    let mut client = fixture.connect().await;
    for _ in 0..3 {
        let answer = client.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("fast"), "{answer}");
    }
    assert_eq!(fixture.metrics.connections.get(), 1);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let fixture = Fixture::start(|limits| limits.connections_max = 1);
    let mut first = fixture.connect().await;
    assert!(first.get("/").await.ends_with("fast"));
    assert!(fixture.connect().await.is_closed().await);
    assert_eq!(fixture.metrics.refused_limit.get(), 1);
    assert!(first.get("/").await.ends_with("fast"), "the first goes on");
    drop(first);
    sleep(Duration::from_millis(50)).await;
    assert!(fixture.connect().await.get("/").await.ends_with("fast"), "the place is free again");
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_a_pause_is_not() {
    let fixture = Fixture::start(|limits| limits.header_timeout = Span(Duration::from_millis(100)));
    let mut silent = fixture.connect().await;
    let mut dribbling = fixture.connect().await;
    dribbling.send("GET / HTTP/1.1\r\nho").await;
    let mut healthy = fixture.connect().await;
    assert!(healthy.get("/").await.ends_with("fast"));
    let begun = Instant::now();
    assert!(silent.is_closed().await && dribbling.is_closed().await);
    assert!(begun.elapsed() < PATIENCE / 2);
    sleep(Duration::from_millis(150)).await;
    assert!(healthy.get("/").await.ends_with("fast"), "a pause between requests is no slow head");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let fixture = Fixture::start(|limits| {
        limits.idle_timeout = Span(Duration::from_millis(200));
        limits.header_timeout = Span(Duration::from_millis(100));
    });
    let mut client = fixture.connect().await;
    assert!(client.get("/").await.ends_with("fast"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn heads_are_bounded() {
    let fixture = Fixture::start(|limits| {
        limits.header_bytes_max = ByteSize(1000);
        limits.headers_max = 5;
    });
    let many: String = (0..5).map(|n| format!("h{n}: x\r\n")).collect();
    let long = format!("long: {}\r\n", "x".repeat(2000));
    let huge = format!("huge: {}\r\n", "x".repeat(200_000));
    for (header, wanted) in [("a: b\r\n", "200"), (&many, "431"), (&long, "431"), (&huge, "431")] {
        let mut client = fixture.connect().await;
        // The server may answer and close before all of it is sent.
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{header}\r\n");
        let _ = client.0.write_all(request.as_bytes()).await;
        let answer = client.next().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted}")), "{wanted}: {answer}");
    }
}

#[tokio::test]
async fn bodies_may_be_larger_than_heads() {
    let fixture = Fixture::start(|_| {});
    let mut client = fixture.connect().await;
    let body = "x".repeat(500_000);
    client.send(&format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    assert!(client.next().await.ends_with("500000"));
}

#[tokio::test]
async fn closing_answers_what_has_arrived() {
    let fixture = Fixture::start(|_| {});
    let mut busy = fixture.connect().await;
    let mut silent = fixture.connect().await;
    let mut late = fixture.connect().await;
    assert!(late.get("/").await.ends_with("fast"));
    busy.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(Duration::from_millis(50)).await;
    fixture.stop.cancel();
    sleep(Duration::from_millis(20)).await;
    assert!(TcpStream::connect(fixture.address).await.is_err(), "nothing new is taken");
    let answer = late.get("/").await;
    assert!(answer.contains("connection: close") && answer.ends_with("fast"), "sent before it heard: {answer}");
    let answer = busy.next().await;
    assert!(answer.contains("connection: close") && answer.ends_with("slow"), "{answer}");
    assert!(busy.is_closed().await && late.is_closed().await && silent.is_closed().await);
    assert!(fixture.serving.finished(PATIENCE).await, "all connections have ended");
    assert_eq!(fixture.metrics.connections.get(), 0);
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_off() {
    let fixture = Fixture::start(|_| {});
    let mut busy = fixture.connect().await;
    busy.send("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nx").await;
    sleep(Duration::from_millis(50)).await;
    fixture.stop.cancel();
    assert!(!fixture.serving.finished(Duration::from_millis(50)).await);
    assert!(busy.is_closed().await);
}
