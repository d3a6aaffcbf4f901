//! Whether standard error takes bytes without a wait.

use std::io;
use std::time::Duration;

use libc::{POLLOUT, STDERR_FILENO, c_int, poll, pollfd};

/// Whether a write of at most `PIECE` bytes to standard error would end at once, well or not. Waits at most `time_max` for that.
pub fn takes_bytes(time_max: Duration) -> bool {
    let time = c_int::try_from(time_max.as_millis()).unwrap_or(c_int::MAX);
    loop {
        let mut asked = pollfd { fd: STDERR_FILENO, events: POLLOUT, revents: 0 };
        // SAFETY: the pointer is to one entry, which outlives the call.
        match unsafe { poll(&raw mut asked, 1, time) } {
            0 => return false,
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            // What cannot be asked is left to the write.
            _ => return true,
        }
    }
}

/// A pipe that has room at all has room for this many bytes (`PIPE_BUF`).
pub const PIECE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_have_a_reader() {
        assert!(takes_bytes(Duration::from_secs(10)));
    }
}
