//! Limits of HTTP/2, against frames written by hand: no client library would send them.

use super::*;

/// A request for `/slow`, whole in its head.
fn ask(stream: u32) -> Vec<u8> {
    // From the static table: GET, http; then the path and the authority as they are.
    let block = [&[0x82, 0x86, 0x44, 5], &b"/slow"[..], &[0x41, 1, b'x']].concat();
    frame(HEADERS, 5, stream, &block)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads frames until one of this kind comes, and gives back its stream and payload; `None` where the server closed.
async fn await_frame(client: &mut Client, wanted: u8) -> Option<(u32, Vec<u8>)> {
    loop {
        let mut head = [0; 9];
        timeout(PATIENCE, client.0.read_exact(&mut head)).await.expect("a frame in time").ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        timeout(PATIENCE, client.0.read_exact(&mut payload)).await.expect("a frame in time").ok()?;
        if head[3] == wanted {
            return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
        }
    }
}

fn code(payload: &[u8]) -> u32 {
    payload.last_chunk().copied().map_or(0, u32::from_be_bytes)
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_and_the_others_answered() {
    let fixture = Fixture::start(|limits| limits.http2_streams_max = 2);
    let mut healthy = fixture.connect().await;
    let mut greedy = fixture.connect().await;
    greedy.0.write_all(&[OPENING, &ask(1), &ask(3), &ask(5)].concat()).await.unwrap();
    let (stream, payload) = await_frame(&mut greedy, RST_STREAM).await.unwrap();
    assert_eq!((stream, code(&payload)), (5, REFUSED_STREAM));
    assert!(healthy.get("/").await.ends_with("fast"));
    let mut answered = Vec::new();
    for _ in 0..2 {
        answered.push(await_frame(&mut greedy, HEADERS).await.unwrap().0);
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
    greedy.0.write_all(&ask(7)).await.unwrap();
    assert_eq!(await_frame(&mut greedy, HEADERS).await.unwrap().0, 7, "the places are free again");
}

/// Opens and resets `count` requests in one go.
async fn reset(fixture: &Fixture, count: u32) -> Client {
    let mut client = fixture.connect().await;
    let requests = (0..count).flat_map(|number| {
        let stream = 2 * number + 1;
        [ask(stream), frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
    });
    let bytes: Vec<u8> = OPENING.iter().copied().chain(requests).collect();
    client.0.write_all(&bytes).await.unwrap();
    client
}

#[tokio::test]
async fn many_resets_end_the_connection_and_few_do_not() {
    let fixture = Fixture::start(|limits| limits.http2_resets_max = 5);
    let mut healthy = fixture.connect().await;
    let mut calm = reset(&fixture, 4).await;
    let mut rapid = reset(&fixture, 40).await;
    let (_, payload) = await_frame(&mut rapid, GOAWAY).await.unwrap();
    assert_eq!(u32::from_be_bytes(payload[4..8].try_into().unwrap()), ENHANCE_YOUR_CALM);
    assert!(healthy.get("/").await.ends_with("fast"));
    calm.0.write_all(&ask(101)).await.unwrap();
    assert_eq!(await_frame(&mut calm, HEADERS).await.unwrap().0, 101);
}

#[tokio::test]
async fn a_connection_without_a_sign_of_life_is_closed() {
    let fixture = Fixture::start(|limits| {
        limits.http2_keepalive_interval = Span(Duration::from_millis(100));
        limits.http2_keepalive_timeout = Span(Duration::from_millis(100));
    });
    let mut dead = fixture.connect().await;
    dead.0.write_all(OPENING).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, axum::body::Body>(
        TokioExecutor::new(),
        TokioIo::new(fixture.connect().await.0),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    // Never answered: the pings of the server are read here and left alone.
    assert!(await_frame(&mut dead, u8::MAX).await.is_none());
    let request = http::Request::get("http://kinglet/").body(axum::body::Body::empty()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200, "a client that answers pings stays");
}

/// The connection preface and an empty SETTINGS frame.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
const CANCEL: u32 = 8;
