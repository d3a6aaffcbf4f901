//! How fast a request's body must arrive: whole within a time, and never slower than a least rate.
//!
//! Knows times and counts, no wire; both protocols hold their bodies to it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::{LimitsConfig, Refusal};
use crate::error::ErrorCode;
use crate::units::{ByteSize, Span};

/// Watches over the arrival of one body.
#[derive(Debug)]
pub struct Pace {
    patience: Span,
    rate: ByteSize,
    window: Span,
    /// Set when the body was first waited for: most are there at once.
    waiting: Option<Waiting>,
}

/// Why a body is not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    Whole(Span),
    Trickles { rate: ByteSize, window: Span },
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    /// Bytes since the window began.
    received: u64,
    timer: Pin<Box<Sleep>>,
}

impl Pace {
    pub fn new(limits: &LimitsConfig) -> Self {
        let (patience, rate, window) = (limits.body_timeout, limits.body_rate_min, limits.body_rate_window);
        Self { patience, rate, window, waiting: None }
    }

    /// To be told where another body begins, as messages of a stream do: its time begins anew.
    pub fn restart(&mut self) {
        self.waiting = None;
    }

    /// Takes note of bytes that arrived.
    pub fn took(&mut self, bytes: usize) {
        if let Some(waiting) = &mut self.waiting {
            waiting.received += bytes as u64;
        }
    }

    /// To be asked where no bytes are there: ready when the body has taken too long.
    pub fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        let (patience, rate, window) = (self.patience, self.rate, self.window);
        let waiting = self.waiting.get_or_insert_with(|| Waiting::new(patience.0, window.0));
        loop {
            ready!(waiting.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= waiting.until {
                return Poll::Ready(Late::Whole(patience));
            }
            if waiting.received < bytes_min(rate, window.0) {
                return Poll::Ready(Late::Trickles { rate, window });
            }
            waiting.received = 0;
            waiting.timer.as_mut().reset(waiting.until.min(now + window.0));
        }
    }
}

impl Waiting {
    fn new(patience: Duration, window: Duration) -> Self {
        let now = Instant::now();
        let until = now + patience;
        Self { until, received: 0, timer: Box::pin(sleep_until(until.min(now + window))) }
    }
}

/// What must have arrived in one window.
fn bytes_min(rate: ByteSize, window: Duration) -> u64 {
    let bytes = u128::from(rate.0) * window.as_millis() / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(patience) => write!(f, "the body did not arrive within {patience}"),
            Self::Trickles { rate, window } => {
                write!(f, "the body came slower than {rate} a second for {window}")
            }
        }
    }
}

impl From<Late> for Refusal {
    fn from(late: Late) -> Self {
        Self::new(ErrorCode::DeadlineExceeded, late.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::config::Config;

    /// 10 KiB in 5 s at least, and the whole in 30 s.
    fn pace() -> Pace {
        let limits = LimitsConfig { body_rate_min: ByteSize(2 << 10), ..Config::default().limits };
        Pace::new(&limits)
    }

    /// Gives the pace some bytes every second until it has had enough; says after how many seconds.
    async fn late_after(mut pace: Pace, bytes: usize) -> (u64, Late) {
        let begun = Instant::now();
        loop {
            match timeout(Duration::from_secs(1), poll_fn(|cx| pace.poll_late(cx))).await {
                Ok(late) => return (begun.elapsed().as_secs(), late),
                Err(_) => pace.took(bytes),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_with_its_window_and_a_stream_with_its_time() {
        let trickles = Late::Trickles { rate: ByteSize(2 << 10), window: Span(Duration::from_secs(5)) };
        assert_eq!(late_after(pace(), 0).await, (5, trickles));
        assert_eq!(late_after(pace(), 2000).await, (5, trickles));
        assert_eq!(late_after(pace(), 3000).await, (30, Late::Whole(Span(Duration::from_secs(30)))));
        let mut patient = pace();
        patient.rate = ByteSize(0);
        assert_eq!(late_after(patient, 1).await.0, 30, "no rate, no trickle");
    }

    #[tokio::test(start_paused = true)]
    async fn each_window_counts_for_itself() {
        let mut pace = pace();
        assert!(timeout(Duration::from_secs(1), poll_fn(|cx| pace.poll_late(cx))).await.is_err());
        pace.took(1 << 20);
        sleep(Duration::from_secs(4)).await;
        assert!(timeout(Duration::from_secs(4), poll_fn(|cx| pace.poll_late(cx))).await.is_err());
        assert!(timeout(Duration::from_secs(2), poll_fn(|cx| pace.poll_late(cx))).await.is_ok());
    }
}
