//! Start and end of a server without models, under paused time.

use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::*;
use crate::repository::config::Control;
use crate::telemetry::config::LogLevel;
use crate::units::{ByteSize, Span};

async fn server() -> Running {
    let mut config = Config::default();
    let own_port = || "127.0.0.1:0".parse().unwrap();
    (config.http.listen, config.grpc.listen, config.admin.listen) = (own_port(), own_port(), own_port());
    config.repository.control = Control::Explicit;
    config.repository.paths.clear();
    (config.drain.delay, config.drain.grace) = (Span(DELAY), Span(GRACE));
    // A request of these tests is under way for as long as its body is.
    config.limits.body_rate_min = ByteSize(0);
    config.limits.body_timeout = Span(Duration::from_secs(3600));
    let mut next = config.clone();
    (next.limits.rank_max, next.engine.cores) = (3, 7);
    start(config, Logs::new(LogLevel::Error), Box::new(move || Ok(next.clone()))).await.unwrap()
}

/// A request whose body lacks its last byte.
async fn under_way(server: &Running) -> TcpStream {
    let head = b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{";
    at_once(async {
        let mut client = TcpStream::connect(server.address("http").and_then(Address::tcp).unwrap()).await.unwrap();
        client.write_all(head).await.unwrap();
        while server.receiving_bytes() == 0 {
            yield_now().await;
        }
        client
    })
    .await
}

/// Lets the paused clock stand still until a socket has done its part: it takes real time, and a runtime that has
/// nothing to do but wait would skip to its next timer.
async fn at_once<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            output = future.as_mut() => return output,
            () = yield_now() => {}
        }
    }
}

async fn read_to_end(client: &mut TcpStream) -> String {
    let mut answer = String::new();
    at_once(client.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_requests_takes_its_delay() {
    let server = server().await;
    let health = Arc::clone(&server.frontend.health);
    assert!(health.is_ready());
    let begun = Instant::now();
    let drain = tokio::spawn(server.drain());
    sleep(Duration::from_millis(1)).await;
    assert_eq!(health.phase(), Phase::Draining, "unready before the delay");
    assert!(drain.await.unwrap());
    assert!(begun.elapsed() >= DELAY && begun.elapsed() < DELAY + GRACE, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn new_requests_are_answered_through_the_delay() {
    let server = server().await;
    let address = server.address("http").and_then(Address::tcp).unwrap();
    let drain = tokio::spawn(server.drain());
    sleep(DELAY - Duration::from_millis(10)).await;
    let mut client = at_once(TcpStream::connect(address)).await.unwrap();
    client.write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connection: close"), "{answer}");
    assert!(answer.ends_with(r#"{"ready":false,"state":"draining"}"#), "{answer}");
    assert!(drain.await.unwrap());
    assert!(at_once(TcpStream::connect(address)).await.is_err(), "the listener is closed");
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_is_finished_within_the_grace() {
    let server = server().await;
    let mut client = under_way(&server).await;
    let drain = tokio::spawn(server.drain());
    sleep(DELAY + GRACE / 2).await;
    assert!(!drain.is_finished(), "it is waited for");
    client.write_all(b"}").await.unwrap();
    let answer = read_to_end(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("[]"), "{answer}");
    assert!(drain.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_grace_is_cut_off() {
    let server = server().await;
    let _client = under_way(&server).await;
    let begun = Instant::now();
    assert!(!server.drain().await);
    let took = begun.elapsed();
    assert!(took >= DELAY + GRACE && took < DELAY + GRACE + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_takes_what_can_change_and_names_the_rest() {
    let server = server().await;
    let report = server.settings.reload().await.unwrap();
    assert_eq!(
        (&report.applied[..], &report.refused[..]),
        (&["limits.rank_max".to_owned()][..], &["engine.cores".to_owned()][..])
    );
    assert_eq!(server.frontend.limits.load().rank_max, 3);
}

#[tokio::test(start_paused = true)]
async fn reloads_come_one_after_the_other() {
    let server = server().await;
    let under_way = server.settings.reloading.lock().await;
    let mut second = pin!(server.settings.reload());
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    assert_ne!(server.frontend.limits.load().rank_max, 3, "nothing is taken while another is under way");
    drop(under_way);
    assert!(second.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_is_asked_to_leave_and_then_lingers() {
    let server = server().await;
    let linger = server.settings.current().drain.linger.0;
    let mut silent = at_once(TcpStream::connect(server.address("http").and_then(Address::tcp).unwrap())).await.unwrap();
    let begun = Instant::now();
    assert!(server.drain().await);
    assert!(begun.elapsed() >= DELAY + linger, "{:?}", begun.elapsed());
    assert_eq!(read_to_end(&mut silent).await, "");
}

const DELAY: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(10);
