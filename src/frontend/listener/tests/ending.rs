//! The end of a server as one connection sees it: what was sent is answered, and nobody is waited for longer than said.

use super::*;

/// Long enough for the server to have seen what was sent, and shorter than every time limit.
async fn settle() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn what_has_arrived_is_answered() {
    let fixture = Fixture::start(|_| {});
    let [mut busy, mut silent, mut late] = [fixture.connect(), fixture.connect(), fixture.connect()];
    assert!(late.get("/").await.ends_with("fast"));
    busy.ask("/slow").await;
    settle().await;
    fixture.drain.close(SECOND);
    settle().await;
    let answer = late.get("/").await;
    assert!(answer.contains("connection: close") && answer.ends_with("fast"), "sent before it heard: {answer}");
    assert!(late.is_closed().await);
    assert!(about(silent.closed_after().await, SECOND - Duration::from_millis(10)));
    sleep(5 * SECOND).await;
    fixture.gate.cancel();
    let answer = busy.next().await;
    assert!(answer.contains("connection: close") && answer.ends_with("slow"), "{answer}");
    assert!(busy.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn the_request_after_an_answer_that_could_not_say_so_is_answered() {
    let fixture = Fixture::start(|_| {});
    let mut client = fixture.connect();
    let head = client.get("/trickle").await;
    assert!(!head.contains("connection: close"), "{head}");
    fixture.drain.close(SECOND);
    sleep(3 * SECOND).await;
    fixture.gate.cancel();
    assert!(client.next().await.contains("cle"), "the answer goes on");
    sleep(SECOND * 9 / 10).await;
    let answer = client.get("/").await;
    assert!(answer.contains("connection: close") && answer.ends_with("fast"), "{answer}");
    assert!(client.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn silence_after_an_answer_is_as_long_as_any() {
    let fixture = Fixture::start(|_| {});
    let mut client = fixture.connect();
    client.get("/trickle").await;
    fixture.drain.close(SECOND);
    sleep(3 * SECOND).await;
    fixture.gate.cancel();
    assert!(client.next().await.contains("cle"));
    let kept = client.closed_after().await;
    assert!(about(kept, SECOND), "{kept:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_begun_is_awaited_and_one_that_stops_is_not() {
    let fixture = Fixture::start(|limits| limits.header_timeout = Span(5 * SECOND));
    let [mut slow, mut stopped] = [fixture.connect(), fixture.connect()];
    slow.send("GET / HT").await;
    stopped.send("GET / HT").await;
    settle().await;
    fixture.drain.close(SECOND);
    sleep(4 * SECOND).await;
    slow.send("TP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(slow.next().await.ends_with("fast"));
    assert!(stopped.closed_after().await < SECOND);
}

#[tokio::test(start_paused = true)]
async fn from_the_beginning_of_a_drain_answers_are_the_last_of_their_connections() {
    let fixture = Fixture::start(|_| {});
    let [mut kept, mut silent] = [fixture.connect(), fixture.connect()];
    assert!(!kept.get("/").await.contains("connection: close"));
    fixture.drain.begin();
    for client in [&mut kept, &mut fixture.connect()] {
        let answer = client.get("/").await;
        assert!(answer.contains("connection: close") && answer.ends_with("fast"), "{answer}");
        assert!(client.is_closed().await);
    }
    assert!(about(silent.closed_after().await, fixture.limits.header_timeout.0), "nothing else has changed");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_its_whole_answer() {
    let fixture = Fixture::start(|_| {});
    let mut slow = fixture.connect();
    let got = slow.read_large_slowly(|| fixture.drain.close(Duration::from_millis(5))).await;
    assert_eq!(got, LARGE.len());
    assert!(slow.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_is_not_waited_for() {
    let fixture = Fixture::start(|limits| limits.write_timeout = Span(2 * SECOND));
    let mut still = fixture.connect();
    assert!(still.get("/large").await.starts_with("HTTP/1.1 200"));
    fixture.drain.close(SECOND);
    sleep(5 * SECOND).await;
    let mut rest = Vec::new();
    still.0.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < LARGE.len() / 2, "{}", rest.len());
}
