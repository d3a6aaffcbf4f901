//! Limits of HTTP/2, against frames written by hand: no client library would send them.

use super::*;

/// A request for `/slow`, whole in its head.
fn ask(stream: u32) -> Vec<u8> {
    ask_with(stream, &[])
}

/// The same with more in its header block.
fn ask_with(stream: u32, more: &[u8]) -> Vec<u8> {
    // From the static table: GET, http; then the path and the authority as they are.
    let block = [&[0x82, 0x86, 0x44, 5], &b"/slow"[..], &[0x41, 1, b'x'], more].concat();
    frame(HEADERS, 5, stream, &block)
}

/// A header named "a" with a value of `length` bytes, less than 255: as it is, and not kept in the table.
fn header(length: u8) -> Vec<u8> {
    // Lengths from 127 on go on in further bytes, seven bits each.
    let length_bytes = [127, (length - 127) | 0x80, (length - 127) >> 7];
    [&[0, 1, b'a'], &length_bytes[..], &vec![b'x'; length.into()]].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads frames until one of this kind comes, and gives back its stream and payload; `None` where the server closed.
async fn await_frame(client: &mut Client<DuplexStream>, wanted: u8) -> Option<(u32, Vec<u8>)> {
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

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_limit_are_refused_and_the_others_answered() {
    let fixture = Fixture::start(|limits| limits.http2_streams_max = 2);
    let mut healthy = fixture.connect();
    let mut greedy = fixture.connect();
    greedy.0.write_all(&[OPENING, &ask(1), &ask(3), &ask(5)].concat()).await.unwrap();
    let (stream, payload) = await_frame(&mut greedy, RST_STREAM).await.unwrap();
    assert_eq!((stream, code(&payload)), (5, REFUSED_STREAM));
    assert!(healthy.get("/").await.ends_with("fast"));
    fixture.gate.cancel();
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
async fn reset(fixture: &Fixture, count: u32) -> Client<DuplexStream> {
    let mut client = fixture.connect();
    let requests = (0..count).flat_map(|number| {
        let stream = 2 * number + 1;
        [ask(stream), frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
    });
    let bytes: Vec<u8> = OPENING.iter().copied().chain(requests).collect();
    client.0.write_all(&bytes).await.unwrap();
    client
}

#[tokio::test(start_paused = true)]
async fn many_resets_end_the_connection_and_few_do_not() {
    let fixture = Fixture::start(|limits| limits.http2_resets_max = 5);
    let mut healthy = fixture.connect();
    let mut calm = reset(&fixture, 4).await;
    let mut rapid = reset(&fixture, 40).await;
    let (_, payload) = await_frame(&mut rapid, GOAWAY).await.unwrap();
    assert_eq!(u32::from_be_bytes(payload[4..8].try_into().unwrap()), ENHANCE_YOUR_CALM);
    assert!(healthy.get("/").await.ends_with("fast"));
    fixture.gate.cancel();
    calm.0.write_all(&ask(101)).await.unwrap();
    assert_eq!(await_frame(&mut calm, HEADERS).await.unwrap().0, 101);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_sign_of_life_is_closed() {
    let fixture = Fixture::start(|limits| {
        limits.http2_keepalive_interval = Span(3 * SECOND);
        limits.http2_keepalive_timeout = Span(SECOND);
    });
    let mut dead = fixture.connect();
    dead.0.write_all(OPENING).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(fixture.connect().0))
            .await
            .unwrap();
    tokio::spawn(connection);
    // Never answered: the pings of the server are read here and left alone.
    let begun = Instant::now();
    assert!(await_frame(&mut dead, u8::MAX).await.is_none());
    assert!(about(begun.elapsed(), 4 * SECOND), "{:?}", begun.elapsed());
    let request = http::Request::get("http://kinglet/").body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200, "a client that answers pings stays");
}

#[tokio::test(start_paused = true)]
async fn header_lists_are_bounded() {
    let fixture = Fixture::start(|limits| limits.header_bytes_max = ByteSize(1000));
    fixture.gate.cancel();
    let mut client = fixture.connect();
    // Each header counts 32 bytes more than its name and value; those of the request itself are four.
    let [fits, exceeds] = [3, 4].map(|count| header(200).repeat(count));
    client.0.write_all(&[OPENING, &ask_with(1, &fits), &ask_with(3, &exceeds), &ask(5)].concat()).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let (stream, block) = await_frame(&mut client, HEADERS).await.unwrap();
        statuses.push((stream, block[0]));
    }
    statuses.sort_unstable();
    assert_eq!(statuses[0], (1, STATUS_200));
    assert_ne!(statuses[1], (3, STATUS_200), "refused");
    assert_eq!(statuses[2], (5, STATUS_200), "the connection goes on");
}

#[tokio::test(start_paused = true)]
async fn a_close_is_told_and_what_was_asked_is_answered() {
    let fixture = Fixture::start(|_| {});
    let [mut early, mut late] = [fixture.connect(), fixture.connect()];
    early.0.write_all(&[OPENING, &ask(1)].concat()).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    fixture.drain.close(SECOND);
    assert!(await_frame(&mut early, GOAWAY).await.is_some());
    late.0.write_all(&[OPENING, &ask(1)].concat()).await.unwrap();
    assert!(await_frame(&mut late, GOAWAY).await.is_some(), "also where the protocol was not known yet");
    sleep(5 * SECOND).await;
    fixture.gate.cancel();
    for client in [&mut early, &mut late] {
        assert_eq!(await_frame(client, HEADERS).await.unwrap().0, 1);
        let begun = Instant::now();
        assert!(await_frame(client, u8::MAX).await.is_none());
        assert!(begun.elapsed() <= SECOND, "no ping is answered, and nothing asked: {:?}", begun.elapsed());
    }
}

/// The connection preface and an empty SETTINGS frame.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
const CANCEL: u32 = 8;
/// The first byte of a header block that begins with the status 200, which has a row in the static table.
const STATUS_200: u8 = 0x88;
