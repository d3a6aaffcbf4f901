//! What one connection is doing right now, and whether it has taken too long over it.
//!
//! Shared by the connection's reader, its requests and its clock. Knows bytes and counts, no message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::{Outflow, Outgoing};

#[derive(Debug)]
pub(super) struct Activity {
    accepted: Instant,
    protocol: AtomicU8,
    /// Whether no further request is wanted.
    ending: AtomicBool,
    /// Requests whose answers are not complete yet.
    open: AtomicUsize,
    /// Pieces of answers that the client has not taken yet, and one more while the socket takes nothing.
    leaving: AtomicUsize,
    /// When the client last took something of them, or since when there is anything to take, in milliseconds after
    /// `accepted`.
    taken_at: AtomicU64,
    /// When the head that is being read began, in milliseconds after `accepted`; `NEVER` where none is on its way. The
    /// first head begins with the connection.
    head_since: AtomicU64,
    /// When the last answer was complete, or the end began, in milliseconds after `accepted`.
    idle_since: AtomicU64,
    /// What its answers count against while they leave, where they do.
    outflow: Option<Arc<Outflow>>,
}

/// A request that is being answered; dropping it ends it.
#[derive(Debug)]
pub(super) struct Open(Arc<Activity>);

/// A part of an answer that is on its way to the client; dropping it ends that.
#[derive(Debug)]
pub(super) struct Leaving {
    of: Arc<Activity>,
    /// That count against the budget of what leaves.
    bytes: u64,
}

/// What the clock of a connection has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this instant.
    Fine(Instant),
    /// A head has taken too long.
    Slow,
    /// No request for too long.
    Idle,
    /// The client has taken nothing of its answer for too long.
    Stalled,
}

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
}

impl Patience {
    pub(super) fn shortest(self) -> Duration {
        self.head.min(self.idle).min(self.write)
    }
}

impl Activity {
    pub(super) fn new(outflow: Option<Arc<Outflow>>) -> Arc<Self> {
        Arc::new(Self {
            accepted: Instant::now(),
            protocol: AtomicU8::new(UNKNOWN),
            ending: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            taken_at: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            outflow,
        })
    }

    /// Takes note of bytes that arrived.
    pub(super) fn received(&self, bytes: &[u8]) {
        match self.protocol.load(Ordering::Relaxed) {
            // Frames arrive while nothing is asked: pings, settings, windows. Only the idle time counts there.
            HTTP2 => {}
            HTTP1 => self.head_arrives(),
            matched => self.recognise(matched, bytes),
        }
    }

    fn head_arrives(&self) {
        if !self.is_open() && self.head_since.load(Ordering::Relaxed) == NEVER {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Tells the protocols apart by their first bytes, however they are cut.
    fn recognise(&self, matched: u8, bytes: &[u8]) {
        self.head_arrives();
        let expected = PREFACE.get(usize::from(matched)..).unwrap_or_default();
        let compared = expected.len().min(bytes.len());
        if expected[..compared] != bytes[..compared] {
            self.protocol.store(HTTP1, Ordering::Relaxed);
        } else if compared == expected.len() {
            self.head_since.store(NEVER, Ordering::Relaxed);
            self.idle_since.store(self.now(), Ordering::Relaxed);
            self.protocol.store(HTTP2, Ordering::Relaxed);
        } else {
            self.protocol.store(matched + u8::try_from(compared).unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Takes note of a request whose head has arrived.
    pub(super) fn begin(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// Takes note of a part of an answer that the client can take, whose bytes may have been counted with the whole.
    pub(super) fn offer(self: &Arc<Self>, bytes: usize, whole: Option<&Outgoing>) -> Leaving {
        let bytes = bytes as u64;
        if let Some(outflow) = &self.outflow {
            outflow.add(bytes - whole.map_or(0, |whole| whole.hand_over(bytes)));
        }
        // The time first, as in the drops below: whoever sees a part must see since when.
        if !self.is_leaving() {
            self.taken_at.store(self.now(), Ordering::Relaxed);
        }
        self.leaving.fetch_add(1, Ordering::Release);
        Leaving { of: Arc::clone(self), bytes }
    }

    /// Whether a request is being answered, until its answer is out of our hands.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0 || self.is_leaving()
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire) > 0
    }

    /// Whether the client has said so with its first bytes.
    pub(super) fn is_http2(&self) -> bool {
        self.protocol.load(Ordering::Relaxed) == HTTP2
    }

    /// Takes note that the connection is to end: how long it has been idle counts from now, and a first head of which
    /// nothing has arrived is awaited no longer than any other.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.idle_since.store(self.now(), Ordering::Relaxed);
        if self.protocol.load(Ordering::Relaxed) == UNKNOWN {
            self.head_since.store(NEVER, Ordering::Relaxed);
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub(super) fn verdict(&self, now: Instant, patience: Patience) -> Verdict {
        let at = |since: u64, patience: Duration| self.accepted + Duration::from_millis(since) + patience;
        let taken_at = self.taken_at.load(Ordering::Relaxed);
        if self.is_leaving() && at(taken_at, patience.write) <= now {
            return Verdict::Stalled;
        }
        // While answers are on their way the other times restart: they are looked at again when the first can be over.
        if self.is_open() {
            return Verdict::Fine(now + patience.shortest());
        }
        let idle_until = at(self.idle_since.load(Ordering::Relaxed).max(taken_at), patience.idle);
        let head_until = match self.head_since.load(Ordering::Relaxed) {
            NEVER => None,
            since => Some(at(since, patience.head)),
        };
        if head_until.is_some_and(|until| until <= now) {
            return Verdict::Slow;
        }
        if head_until.is_none() && idle_until <= now {
            return Verdict::Idle;
        }
        // A head or an answer may begin at any time, and must then be noticed before it is too old by much.
        Verdict::Fine(head_until.unwrap_or_else(|| idle_until.min(now + patience.shortest())))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

impl Open {
    /// A part of this request's answer.
    pub(super) fn offer(&self, bytes: usize, whole: Option<&Outgoing>) -> Leaving {
        self.0.offer(bytes, whole)
    }

    /// Whether its connection takes no further request.
    pub(super) fn is_last(&self) -> bool {
        self.0.is_ending()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // The time first: whoever sees no open request must see since when.
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

impl Leaving {
    /// The client has taken a bit of it.
    pub(super) fn moved(&self) {
        self.of.taken_at.store(self.of.now(), Ordering::Relaxed);
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.moved();
        self.of.leaving.fetch_sub(1, Ordering::Release);
        if let Some(outflow) = &self.of.outflow {
            outflow.give_back(self.bytes);
        }
    }
}

/// How HTTP/2 connections begin. All of it: the library, too, knows the protocol only then.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NEVER: u64 = u64::MAX;
/// Not known yet: the number of bytes that have matched the preface.
const UNKNOWN: u8 = 0;
const HTTP1: u8 = 100;
const HTTP2: u8 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(10), idle: Duration::from_secs(60), write: Duration::from_secs(30) };

    async fn verdict_after(activity: &Activity, seconds: u64) -> Verdict {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        activity.verdict(Instant::now(), PATIENCE)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_is_awaited_from_the_start() {
        let activity = Activity::new(None);
        assert_eq!(verdict_after(&activity, 9).await, Verdict::Fine(Instant::now() + Duration::from_secs(1)));
        activity.received(b"POST");
        assert_eq!(verdict_after(&activity, 1).await, Verdict::Slow);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_head_is_awaited_from_its_first_byte() {
        let activity = Activity::new(None);
        activity.received(b"GET / HTTP/1.1\r\n\r\n");
        let open = activity.begin();
        assert!(matches!(verdict_after(&activity, 500).await, Verdict::Fine(_)), "an answer may take its time");
        drop(open);
        assert!(matches!(verdict_after(&activity, 50).await, Verdict::Fine(_)), "a pause is no head");
        activity.received(b"G");
        assert!(matches!(verdict_after(&activity, 9).await, Verdict::Fine(_)));
        activity.received(b"ET");
        assert_eq!(verdict_after(&activity, 1).await, Verdict::Slow);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_is_idle() {
        let activity = Activity::new(None);
        activity.received(b"GET / HTTP/1.1\r\n\r\n");
        drop(activity.begin());
        assert!(matches!(verdict_after(&activity, 59).await, Verdict::Fine(_)));
        assert_eq!(verdict_after(&activity, 1).await, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_between_requests_are_no_head() {
        let activity = Activity::new(None);
        activity.received(b"P");
        activity.received(b"RI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert!(matches!(verdict_after(&activity, 30).await, Verdict::Fine(_)));
        activity.received(b"\0\0\x08\x06");
        assert!(matches!(verdict_after(&activity, 29).await, Verdict::Fine(_)));
        assert!(activity.is_http2());
        assert_eq!(verdict_after(&activity, 1).await, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_idleness_counts_anew_and_a_begun_head_is_awaited() {
        let [silent, beginning, paused] = [Activity::new(None), Activity::new(None), Activity::new(None)];
        beginning.received(b"PR");
        paused.received(b"GET / HTTP/1.1\r\n\r\n");
        drop(paused.begin());
        assert!(matches!(verdict_after(&paused, 9).await, Verdict::Fine(_)));
        for activity in [&silent, &beginning, &paused] {
            activity.end();
        }
        for (activity, wanted) in [(&silent, Verdict::Idle), (&beginning, Verdict::Slow), (&paused, Verdict::Idle)] {
            let patience = Patience { idle: Duration::from_secs(1), ..PATIENCE };
            assert_eq!(activity.verdict(Instant::now(), patience), Verdict::Fine(Instant::now() + patience.idle));
            assert_eq!(activity.verdict(Instant::now() + patience.idle, patience), wanted);
        }
        silent.received(b"G");
        assert_eq!(verdict_after(&silent, 9).await, Verdict::Fine(Instant::now() + Duration::from_secs(1)));
        assert_eq!(verdict_after(&silent, 1).await, Verdict::Slow, "its first head is awaited like any other");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_leaves_is_neither_idle_nor_stalled_while_it_moves() {
        let activity = Activity::new(None);
        activity.received(b"GET / HTTP/1.1\r\n\r\n");
        let open = activity.begin();
        let leaving = activity.offer(1, None);
        drop(open);
        for _ in 0..9 {
            assert!(matches!(verdict_after(&activity, 29).await, Verdict::Fine(_)));
            assert!(activity.is_open());
            leaving.moved();
        }
        drop(leaving);
        assert!(!activity.is_open());
        assert!(matches!(verdict_after(&activity, 59).await, Verdict::Fine(_)), "idle only since it left");
        assert_eq!(verdict_after(&activity, 1).await, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_stalls() {
        let activity = Activity::new(None);
        activity.received(b"GET / HTTP/1.1\r\n\r\n");
        let _open = activity.begin();
        assert!(matches!(verdict_after(&activity, 500).await, Verdict::Fine(_)), "nothing to take yet");
        let _leaving = activity.offer(1, None);
        assert!(matches!(verdict_after(&activity, 29).await, Verdict::Fine(_)));
        let _more = activity.offer(1, None);
        assert_eq!(verdict_after(&activity, 1).await, Verdict::Stalled, "more to take is nothing taken");
    }
}
