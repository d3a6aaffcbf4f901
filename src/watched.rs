//! Files that are looked at again while the server runs, each set on a thread of its own: they may lie on a network.
//!
//! What is in the files, and what becomes of it, is known to who has them watched.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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

/// What was read last, so that only changes are taken, and a fault is told once.
#[derive(Debug)]
pub struct Seen<C>(Mutex<Option<C>>);

impl<C: PartialEq> Seen<C> {
    pub fn first(contents: C) -> Self {
        Self(Mutex::new(Some(contents)))
    }

    /// What becomes of the files now; `None` where they are what they were, or still cannot be read.
    pub fn look<T, E>(
        &self,
        read: impl FnOnce() -> Result<C, E>,
        settle: impl FnOnce(&C) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = match read() {
            Ok(contents) => contents,
            Err(_) if seen.is_none() => return None,
            Err(error) => {
                *seen = None;
                return Some(Err(error));
            }
        };
        if seen.as_ref() == Some(&contents) {
            return None;
        }
        let settled = settle(&contents);
        *seen = Some(contents);
        Some(settled)
    }
}

/// All of a file that is no longer than `bytes_max`.
///
/// # Errors
/// When it is, or cannot be read.
pub fn contents(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut contents)?;
    if contents.len() as u64 > bytes_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(contents) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_changes_are_taken_and_a_fault_is_told_once() {
        let seen = Seen::first(1);
        let look = |read: Result<i32, &'static str>| seen.look(|| read, |contents| Ok(*contents));
        assert_eq!(look(Ok(1)), None);
        assert_eq!(look(Ok(2)), Some(Ok(2)));
        assert_eq!(look(Err("gone")), Some(Err("gone")));
        assert_eq!(look(Err("gone")), None);
        assert_eq!(look(Ok(2)), Some(Ok(2)));
        let refused = |contents: i32| seen.look(|| Ok(contents), |_| Err::<(), _>("wrong"));
        assert_eq!((refused(3), refused(3)), (Some(Err("wrong")), None));
    }

    #[test]
    fn files_are_read_whole_or_not_at_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        assert_eq!(contents(file.path(), 3).unwrap(), b"abc");
        assert_eq!(contents(file.path(), 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
