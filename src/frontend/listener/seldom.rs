//! A future that shares its task with a busy one, and is looked at only when it has called.
//!
//! A task polls all its futures whoever woke it. A connection is woken for every message, its clock once in seconds;
//! asking the clock each time would cost a small request more than its routing. Knows no connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::time::{Instant, Sleep};

#[derive(Debug)]
pub(super) struct Seldom<F> {
    future: F,
    caller: Option<Arc<Caller>>,
}

/// What the future wakes in place of the task.
#[derive(Debug)]
struct Caller {
    has_called: AtomicBool,
    task: Waker,
}

impl<F> Seldom<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future, caller: None }
    }
}

impl Seldom<Pin<&mut Sleep>> {
    pub(super) fn reset(&mut self, until: Instant) {
        self.future.as_mut().reset(until);
        // It must be polled once to know whom to wake.
        if let Some(caller) = &self.caller {
            caller.has_called.store(true, Ordering::Release);
        }
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let known = self.caller.take().filter(|caller| caller.task.will_wake(cx.waker()));
        let caller = known.unwrap_or_else(|| Arc::new(Caller::of(cx.waker())));
        let caller = self.caller.insert(caller);
        if !caller.has_called.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // Before the poll: a call that comes during it counts for the next one.
        caller.has_called.swap(false, Ordering::AcqRel);
        let waker = Waker::from(Arc::clone(caller));
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }
}

impl Caller {
    /// Has called, since a task that is new to the future must be made known to it.
    fn of(task: &Waker) -> Self {
        Self { has_called: AtomicBool::new(true), task: task.clone() }
    }
}

impl Wake for Caller {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The flag first: whoever is woken must see it.
        self.has_called.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    /// Never ready; counts its polls and keeps the waker of the last.
    #[derive(Default)]
    struct Counting {
        polls: usize,
        waker: Option<Waker>,
    }

    impl Future for Counting {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.polls += 1;
            self.waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    #[derive(Default)]
    struct Task(AtomicBool);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn polls_after(seldom: &mut Seldom<Counting>, task: &Arc<Task>) -> usize {
        let waker = Waker::from(Arc::clone(task));
        assert!(Pin::new(&mut *seldom).poll(&mut Context::from_waker(&waker)).is_pending());
        seldom.future.polls
    }

    #[test]
    fn it_is_polled_first_and_then_when_it_has_called() {
        let task = Arc::new(Task::default());
        let mut seldom = Seldom::new(Counting::default());
        assert_eq!([polls_after(&mut seldom, &task), polls_after(&mut seldom, &task)], [1, 1]);
        assert!(!task.0.load(Ordering::Relaxed));
        seldom.future.waker.as_ref().unwrap().wake_by_ref();
        assert!(task.0.load(Ordering::Relaxed), "the task is woken");
        assert_eq!([polls_after(&mut seldom, &task), polls_after(&mut seldom, &task)], [2, 2]);
    }

    #[test]
    fn another_task_is_made_known_to_it() {
        let (first, second) = (Arc::new(Task::default()), Arc::new(Task::default()));
        let mut seldom = Seldom::new(Counting::default());
        assert_eq!([polls_after(&mut seldom, &first), polls_after(&mut seldom, &second)], [1, 2]);
        seldom.future.waker.as_ref().unwrap().wake_by_ref();
        assert!(second.0.load(Ordering::Relaxed) && !first.0.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_anew_rings_again() {
        let begun = Instant::now();
        let sleep = pin!(tokio::time::sleep(SECOND));
        let mut clock = Seldom::new(sleep);
        for round in 1..=3 {
            (&mut clock).await;
            assert_eq!(begun.elapsed(), SECOND * round);
            clock.reset(Instant::now() + SECOND);
        }
        // Also before it rang.
        clock.reset(Instant::now() + 2 * SECOND);
        clock.await;
        assert_eq!(begun.elapsed(), 5 * SECOND);
    }

    const SECOND: Duration = Duration::from_secs(1);
}
