//! Panics as events: one line of the log each, in its format, instead of the standard library's text.
//!
//! A panic is caught, counted and answered where it strikes; here it is only told.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

use tracing::field::display;

/// Makes every panic of the process an event from now on.
pub(super) fn log_from_now_on() {
    panic::set_hook(Box::new(tell));
}

fn tell(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let location = panic.location().map(display);
    // Captured only where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(&backtrace));
    let message = shortened(panic.payload_as_str().unwrap_or("no message"));
    tracing::error!(thread, location, panic = message, backtrace, "a thread has panicked");
}

/// tract's messages can print whole weights.
fn shortened(message: &str) -> &str {
    message.char_indices().nth(MESSAGE_CHARS_MAX).map_or(message, |(end, _)| &message[..end])
}

const MESSAGE_CHARS_MAX: usize = 1000;
