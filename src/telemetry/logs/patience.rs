//! The writer behind all others: a log that nobody reads any more costs lines, not requests.
//!
//! Lines are written by the threads that answer. A pipe or a terminal that is full would hold them, one for each line, until the
//! server stands still; so it is asked before whether it takes a piece, and not waited for twice.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kinglet_sys::standard_error::PIECE;
use tracing_subscriber::fmt::MakeWriter;

/// Where lines go, and how to ask whether it takes a piece within a time.
pub(super) struct Patient<W> {
    to: W,
    takes_bytes: fn(Duration) -> bool,
    dropped: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last line was not taken: the next one is not waited for.
    is_stalled: bool,
    /// That line had begun.
    is_cut: bool,
}

impl<W> Patient<W> {
    pub(super) fn new(to: W, takes_bytes: fn(Duration) -> bool, dropped: Arc<AtomicU64>) -> Self {
        Self { to, takes_bytes, dropped, state: Mutex::default() }
    }
}

impl<'w, W: 'w> MakeWriter<'w> for Patient<W>
where
    for<'a> &'a W: Write,
{
    type Writer = &'w Self;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}

impl<W> Write for &Patient<W>
where
    for<'a> &'a W: Write,
{
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut to = &self.to;
        let wait = if state.is_stalled { Duration::ZERO } else { WAIT_MAX };
        for (at, piece) in line.chunks(PIECE).enumerate() {
            if !(self.takes_bytes)(wait) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                *state = State { is_stalled: true, is_cut: state.is_cut || at > 0 };
                return Ok(line.len());
            }
            if std::mem::take(&mut state.is_cut) {
                to.write_all(b"\n")?;
            }
            to.write_all(piece)?;
        }
        state.is_stalled = false;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.to).flush()
    }
}

/// For a reader that is alive and slow.
const WAIT_MAX: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Pieces that are still taken.
        static ROOM: Cell<usize> = const { Cell::new(0) };
        static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    fn takes_bytes(time_max: Duration) -> bool {
        WAITED.set(time_max);
        let room = ROOM.get();
        ROOM.set(room.saturating_sub(1));
        room > 0
    }

    #[derive(Default)]
    struct Page(Mutex<Vec<u8>>);

    impl Write for &Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_are_not_taken_are_dropped_and_counted() {
        let log = Patient::new(Page::default(), takes_bytes, Arc::default());
        let write = |line: &str, room| {
            ROOM.set(room);
            (&log).write_all(line.as_bytes()).unwrap();
            WAITED.get()
        };
        let long = format!("{}\n", "x".repeat(PIECE));
        assert_eq!(write("first\n", 1), WAIT_MAX);
        assert_eq!(write("lost\n", 0), WAIT_MAX);
        assert_eq!(write("lost\n", 0), Duration::ZERO, "who has stopped is not waited for again");
        assert_eq!(write("second\n", 1), Duration::ZERO);
        assert_eq!(write(&long, 1), WAIT_MAX);
        write("third\n", 1);
        let page = String::from_utf8(log.to.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            page,
            format!("first\nsecond\n{}\nthird\n", "x".repeat(PIECE)),
            "a line that was cut ends before the next"
        );
        assert_eq!(log.dropped.load(Ordering::Relaxed), 3);
    }
}
