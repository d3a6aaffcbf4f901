//! Connections over pipes in memory, under paused time, and clients that write bytes by hand.

mod accepting;
mod ending;
mod http2;

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::units::{ByteSize, Span};

/// What a listener gives to each of its connections: a route that answers at once, and some that wait to be let go.
struct Fixture {
    routes: Routes,
    limits: Arc<LimitsConfig>,
    drain: Drain,
    /// Lets the waiting routes go on.
    gate: CancellationToken,
}

impl Fixture {
    fn start(change: impl FnOnce(&mut LimitsConfig)) -> Self {
        let gate = CancellationToken::new();
        let (slow, trickle) = (gate.clone(), gate.clone());
        let slow = || async move {
            slow.cancelled().await;
            "slow"
        };
        let trickle = || async move {
            let rest = async move {
                trickle.cancelled().await;
                Ok::<_, io::Error>("cle")
            };
            Body::from_stream(stream::once(async { Ok("tri") }).chain(stream::once(rest)))
        };
        let echo = |body: Bytes| async move { body.len().to_string() };
        let router = Router::new()
            .route("/", get(|| async { "fast" }))
            .route("/slow", get(slow))
            .route("/trickle", get(trickle))
            .route("/large", get(|| async { LARGE }))
            .route("/echo", post(echo));
        let mut limits = limits();
        change(&mut limits);
        Self { routes: Routes::one(router), limits: Arc::new(limits), drain: Drain::default(), gate }
    }

    fn connect(&self) -> Client<DuplexStream> {
        let (near, far) = duplex(PIPE_BYTES);
        tokio::spawn(connection::drive(far, None, self.routes.clone(), Arc::clone(&self.limits), self.drain.clone()));
        Client(near)
    }
}

struct Client<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next bytes that arrive; none where the server has closed.
    async fn next(&mut self) -> String {
        let mut bytes = [0; 4096];
        let read = timeout(PATIENCE, self.0.read(&mut bytes)).await.expect("the server answers or closes in time");
        String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]).into_owned()
    }

    async fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    }

    async fn get(&mut self, path: &str) -> String {
        self.ask(path).await;
        self.next().await
    }

    /// Asks for the large answer and reads it as a slow client does; gives back how many bytes of it came.
    async fn read_large_slowly(&mut self, and_then: impl FnOnce()) -> usize {
        let head = self.get("/large").await;
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

    /// How long the server keeps the connection from now on.
    async fn closed_after(&mut self) -> Duration {
        let begun = Instant::now();
        assert!(self.is_closed().await);
        begun.elapsed()
    }
}

fn limits() -> LimitsConfig {
    LimitsConfig { connections_max: 10, http2_streams_max: 10, ..crate::config::Config::default().limits }
}

/// Whether two times are the same but for what a timer rounds.
fn about(got: Duration, wanted: Duration) -> bool {
    got.abs_diff(wanted) <= Duration::from_millis(5)
}

const PATIENCE: Duration = Duration::from_secs(200);
const SECOND: Duration = Duration::from_secs(1);
const PIPE_BYTES: usize = 64 << 10;
/// More than a pipe and the buffers at its ends hold.
const LARGE: &[u8] = &[7; 4 << 20];

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut_off_and_a_pause_is_not() {
    let fixture = Fixture::start(|limits| limits.header_timeout = Span(SECOND));
    let [mut silent, mut dribbling, mut healthy] = [fixture.connect(), fixture.connect(), fixture.connect()];
    dribbling.send("GET / HTTP/1.1\r\nho").await;
    assert!(healthy.get("/").await.ends_with("fast"));
    assert!(about(silent.closed_after().await, SECOND) && dribbling.is_closed().await);
    sleep(2 * SECOND).await;
    assert!(healthy.get("/").await.ends_with("fast"), "a pause between requests is no slow head");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_linger() {
    let fixture = Fixture::start(|limits| limits.idle_timeout = Span(2 * SECOND));
    let mut client = fixture.connect();
    assert!(client.get("/").await.ends_with("fast"));
    let kept = client.closed_after().await;
    assert!(about(kept, 2 * SECOND + Duration::from_millis(200)), "{kept:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_crosses_the_idle_timeout_is_answered() {
    let fixture = Fixture::start(|limits| limits.idle_timeout = Span(2 * SECOND));
    let mut client = fixture.connect();
    assert!(client.get("/").await.ends_with("fast"));
    sleep(2 * SECOND + Duration::from_millis(100)).await;
    let answer = client.get("/").await;
    assert!(answer.contains("connection: close") && answer.ends_with("fast"), "{answer}");
    assert!(client.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn heads_are_bounded() {
    let fixture = Fixture::start(|limits| {
        limits.header_bytes_max = ByteSize(1000);
        limits.headers_max = 5;
    });
    let many: String = (0..5).map(|n| format!("h{n}: x\r\n")).collect();
    let long = format!("long: {}\r\n", "x".repeat(2000));
    let huge = format!("huge: {}\r\n", "x".repeat(200_000));
    for (header, wanted) in [("a: b\r\n", "200"), (&many, "431"), (&long, "431"), (&huge, "431")] {
        let mut client = fixture.connect();
        // The server may answer and close before all of it is sent.
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{header}\r\n");
        let _ = client.0.write_all(request.as_bytes()).await;
        let answer = client.next().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted}")), "{wanted}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_may_be_larger_than_heads() {
    let fixture = Fixture::start(|_| {});
    let mut client = fixture.connect();
    let body = "x".repeat(500_000);
    client.send(&format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    assert!(client.next().await.ends_with("500000"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_being_read_is_no_idle_connection() {
    let fixture = Fixture::start(|limits| {
        limits.header_timeout = Span(Duration::from_millis(50));
        limits.idle_timeout = Span(Duration::from_millis(100));
        limits.write_timeout = Span(5 * SECOND);
    });
    let mut slow = fixture.connect();
    assert_eq!(slow.read_large_slowly(|| {}).await, LARGE.len());
    assert!(slow.is_closed().await, "idle after its answer");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_is_cut_off() {
    let fixture = Fixture::start(|limits| limits.write_timeout = Span(2 * SECOND));
    let [mut still, mut healthy] = [fixture.connect(), fixture.connect()];
    assert!(still.get("/large").await.starts_with("HTTP/1.1 200"));
    sleep(5 * SECOND).await;
    let mut rest = Vec::new();
    still.0.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < LARGE.len() / 2, "{} bytes more than the pipe holds", rest.len());
    assert!(healthy.get("/").await.ends_with("fast"), "the others go on");
}

/// Sends one request over HTTP/2 and gives back the answer's body, unread.
async fn http2_large(fixture: &Fixture) -> hyper::body::Incoming {
    let stream = TokioIo::new(fixture.connect().0);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::get("http://kinglet/large").body(Body::empty()).unwrap();
    sender.send_request(request).await.unwrap().into_body()
}

#[tokio::test(start_paused = true)]
async fn a_window_that_stays_shut_is_a_reader_that_stands_still() {
    let fixture = Fixture::start(|limits| limits.write_timeout = Span(2 * SECOND));
    let unread = http2_large(&fixture).await;
    sleep(5 * SECOND).await;
    assert!(unread.collect().await.is_err(), "cut off");
    assert!(fixture.connect().get("/").await.ends_with("fast"), "the others go on");
}

#[tokio::test(start_paused = true)]
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
            fixture.drain.close(SECOND);
        }
    }
    assert_eq!(got, LARGE.len());
}
