//! Threads of their own for work that blocks: reading folders, and loading models at low priority.
//!
//! Neither Tokio's threads nor the compute pool's ever do that, so that a load disturbs no request.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// A fixed number of threads. They end when the last handle and seat are gone and their work is done.
#[derive(Clone)]
pub(super) struct Workers {
    seats: Arc<Semaphore>,
    work: SyncSender<Work>,
}

/// The right to use one thread, for as many pieces of work as are needed, one after the other.
pub(super) struct Seat {
    permit: Arc<OwnedSemaphorePermit>,
    work: SyncSender<Work>,
}

type Work = Box<dyn FnOnce() + Send>;

/// The work ended in a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panicked;

impl Workers {
    /// Starts `count` threads named `name-0` and up, `nice` steps below the process's priority.
    pub(super) fn start(name: &str, count: usize, nice: i32) -> Self {
        let count = count.max(1);
        let (work, taken) = sync_channel(count);
        let taken = Arc::new(Mutex::new(taken));
        for index in 0..count {
            let taken = Arc::clone(&taken);
            thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || run(&taken, nice))
                .expect("the system starts a few threads at the start");
        }
        Self { seats: Arc::new(Semaphore::new(count)), work }
    }

    /// Waits for a free thread, in the order of asking.
    pub(super) async fn seat(&self) -> Seat {
        let permit = Arc::clone(&self.seats).acquire_owned().await;
        let permit = Arc::new(permit.expect("the workers' semaphore is never closed"));
        Seat { permit, work: self.work.clone() }
    }
}

impl Seat {
    /// Runs `work` on the thread. Work that was started ends even where its caller stops waiting.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let (send, receive) = oneshot::channel();
        let permit = Arc::clone(&self.permit);
        let whole: Work = Box::new(move || {
            // A panic drops the sender, which is how the caller learns of it.
            if let Ok(result) = catch_unwind(AssertUnwindSafe(work)) {
                // The caller may have stopped waiting.
                let _ = send.send(result);
            }
            drop(permit);
        });
        // The channel has a place per permit, so that it is never full.
        self.work.try_send(whole).map_err(|_| Panicked)?;
        receive.await.map_err(|_| Panicked)
    }
}

fn run(taken: &Mutex<Receiver<Work>>, nice: i32) {
    // On Linux this moves the calling thread alone. Without the right to, loads merely compete as equals.
    let _ = rustix::process::nice(nice);
    loop {
        let next = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else { return };
        work();
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("free", &self.seats.available_permits()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_its_own_thread_at_low_priority() {
        let workers = Workers::start("test-load", 1, 10);
        let seat = workers.seat().await;
        let before = rustix::process::nice(0).unwrap();
        let (name, nice) = seat
            .run(|| (thread::current().name().map(str::to_owned), rustix::process::nice(0).unwrap()))
            .await
            .unwrap();
        assert_eq!(name.as_deref(), Some("test-load-0"));
        assert_eq!(nice, (before + 10).min(19));
        assert_eq!(rustix::process::nice(0).unwrap(), before, "this thread keeps its priority");
    }

    #[tokio::test]
    async fn a_panic_is_told_and_survived() {
        let workers = Workers::start("test-load", 1, 0);
        let seat = workers.seat().await;
        assert_eq!(seat.run(|| panic!("on purpose")).await, Err::<(), _>(Panicked));
        assert_eq!(seat.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn an_abandoned_seat_stays_taken_until_its_work_ends() {
        let workers = Workers::start("test-load", 1, 0);
        let (go, wait) = sync_channel::<()>(0);
        let (tell, begun) = oneshot::channel();
        let seat = workers.seat().await;
        let work = move || {
            tell.send(()).unwrap();
            wait.recv()
        };
        let abandoned = tokio::spawn(async move { seat.run(work).await });
        begun.await.unwrap();
        abandoned.abort();
        assert!(abandoned.await.unwrap_err().is_cancelled());
        assert_eq!(workers.seats.available_permits(), 0);
        go.send(()).unwrap();
        workers.seat().await;
    }
}
