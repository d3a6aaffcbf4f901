//! A listener on a loopback port, and clients that write bytes by hand.

mod http2;

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
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
        let router = Router::new()
            .route("/", get(|| async { "fast" }))
            .route("/slow", get(slow))
            .route("/large", get(|| async { LARGE }))
            .route("/echo", post(echo));
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

    /// Waits until no more than `count` connections are open.
    async fn connections_fall_to(&self, count: i64) {
        let begun = Instant::now();
        while self.metrics.connections.get() > count {
            assert!(begun.elapsed() < PATIENCE, "{} connections are open", self.metrics.connections.get());
            sleep(Duration::from_millis(10)).await;
        }
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

    /// Asks for the large answer and reads it as a slow client does; gives back how many bytes of it came.
    async fn read_large_slowly(&mut self, and_then: impl FnOnce()) -> usize {
        self.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let head = self.next().await;
        let body = head.find("\r\n\r\n").expect("the head comes first") + 4;
        let mut got = head.len() - body;
        and_then();
        let mut bytes = vec![0; LARGE.len() / 100];
        while got < LARGE.len() {
            sleep(Duration::from_millis(10)).await;
            match timeout(PATIENCE, self.0.read(&mut bytes)).await.expect("the answer goes on") {
                Ok(read) if read > 0 => got += read,
                _ => break,
            }
        }
        got
    }

    async fn is_closed(&mut self) -> bool {
        self.next().await.is_empty()
    }
}

fn limits() -> LimitsConfig {
    LimitsConfig { connections_max: 10, http2_streams_max: 10, ..crate::config::Config::default().limits }
}

const PATIENCE: Duration = Duration::from_secs(20);
/// More than the sockets of both sides hold.
const LARGE: &[u8] = &[7; 24 << 20];

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

#[tokio::test]
async fn a_stop_leaves_a_slow_reader_its_whole_answer() {
    let fixture = Fixture::start(|_| {});
    let mut slow = fixture.connect().await;
    let got = slow.read_large_slowly(|| fixture.stop.cancel()).await;
    assert_eq!(got, LARGE.len());
    assert!(slow.is_closed().await && fixture.serving.finished(PATIENCE).await);
}

#[tokio::test]
async fn an_answer_that_is_being_read_is_no_idle_connection() {
    let fixture = Fixture::start(|limits| {
        limits.header_timeout = Span(Duration::from_millis(50));
        limits.idle_timeout = Span(Duration::from_millis(100));
        limits.write_timeout = Span(Duration::from_secs(5));
    });
    let mut slow = fixture.connect().await;
    assert_eq!(slow.read_large_slowly(|| {}).await, LARGE.len());
    assert!(slow.is_closed().await, "idle after its answer");
}

#[tokio::test]
async fn a_reader_that_stands_still_is_cut_off() {
    let fixture = Fixture::start(|limits| limits.write_timeout = Span(Duration::from_millis(200)));
    let mut still = fixture.connect().await;
    still.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(still.next().await.starts_with("HTTP/1.1 200"));
    let mut healthy = fixture.connect().await;
    assert!(healthy.get("/").await.ends_with("fast"));
    fixture.connections_fall_to(1).await;
    assert!(healthy.get("/").await.ends_with("fast"), "the others go on");
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_up_no_stop() {
    let fixture = Fixture::start(|limits| limits.write_timeout = Span(Duration::from_millis(200)));
    let mut still = fixture.connect().await;
    still.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(still.next().await.starts_with("HTTP/1.1 200"));
    fixture.stop.cancel();
    assert!(fixture.serving.finished(PATIENCE).await);
}

/// Sends one request over HTTP/2 and gives back the answer's body, unread.
async fn http2_large(fixture: &Fixture) -> hyper::body::Incoming {
    let stream = TokioIo::new(fixture.connect().await.0);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::get("http://kinglet/large").body(axum::body::Body::empty()).unwrap();
    sender.send_request(request).await.unwrap().into_body()
}

#[tokio::test]
async fn a_window_that_stays_shut_is_a_reader_that_stands_still() {
    let fixture = Fixture::start(|limits| limits.write_timeout = Span(Duration::from_millis(200)));
    let _unread = http2_large(&fixture).await;
    let mut healthy = fixture.connect().await;
    assert!(healthy.get("/").await.ends_with("fast"));
    fixture.connections_fall_to(1).await;
    assert!(healthy.get("/").await.ends_with("fast"), "the others go on");
}

#[tokio::test]
async fn a_slow_http2_reader_gets_its_whole_answer() {
    let fixture = Fixture::start(|limits| {
        limits.header_timeout = Span(Duration::from_millis(200));
        limits.idle_timeout = Span(Duration::from_millis(200));
    });
    let mut body = http2_large(&fixture).await;
    let (mut got, mut pauses) = (0, 0);
    while let Some(frame) = body.frame().await {
        got += frame.expect("the answer is not cut off").into_data().map_or(0, |bytes| bytes.len());
        if got > pauses * LARGE.len() / 50 {
            pauses += 1;
            sleep(Duration::from_millis(10)).await;
        }
        if pauses == 40 {
            fixture.stop.cancel();
        }
    }
    assert_eq!(got, LARGE.len());
    assert!(fixture.serving.finished(PATIENCE).await);
}
