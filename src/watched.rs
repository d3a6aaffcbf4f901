//! Files that are looked at again while the server runs, each set on a thread of its own: they may lie on a network.
//!
//! What is in the files, and what becomes of it, is known to who has them watched.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// Who has files.
pub trait Watched: Send + Sync + 'static {
    /// To look at them now.
    fn look(&self);
}

/// Wakes the thread that looks, which ends with this.
#[derive(Debug)]
pub struct Wake(SyncSender<()>);

/// The other end, until there is a thread.
#[derive(Debug)]
pub struct Woken(Receiver<()>);

pub fn pair() -> (Wake, Woken) {
    let (wake, woken) = sync_channel(1);
    (Wake(wake), Woken(woken))
}

impl Wake {
    /// Has the files looked at now.
    pub fn wake(&self) {
        // Where that is due already, once is enough.
        let _ = self.0.try_send(());
    }
}

impl Woken {
    /// Starts the thread, which looks every `interval` for as long as anybody else has hold of `watched`.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn watch<W: Watched>(self, name: &str, watched: &Arc<W>, interval: Duration) -> io::Result<()> {
        let watched: Weak<W> = Arc::downgrade(watched);
        let looks = move || {
            while self.0.recv_timeout(interval) != Err(RecvTimeoutError::Disconnected) {
                let Some(watched) = watched.upgrade() else { return };
                watched.look();
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(looks)?;
        Ok(())
    }
}
