//! The writer behind the formatter: one event, one line, no control character but our own colours.
//!
//! Formatters escape some of what a client sent and differ in what; here nothing depends on them.

use std::borrow::Cow;
use std::io::{self, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Keeps an event on its line and a terminal under our control, whatever the event contains.
pub(super) struct OneLine<W> {
    pub(super) to: W,
    pub(super) colour: bool,
}

pub(super) struct OneLineWriter<W> {
    to: W,
    /// The level to be coloured.
    colour: Option<Level>,
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for OneLine<W> {
    type Writer = OneLineWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        OneLineWriter { to: self.to.make_writer(), colour: None }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> Self::Writer {
        OneLineWriter { to: self.to.make_writer_for(metadata), colour: self.colour.then_some(*metadata.level()) }
    }
}

impl<W: Write> Write for OneLineWriter<W> {
    /// The formatter hands over one whole event at a time. A log that cannot be written must not fail a request, so
    /// errors end here.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = escaped(text.strip_suffix('\n').unwrap_or(&text));
        if let Some(level) = self.colour {
            line = Cow::Owned(coloured(&line, level));
        }
        let _ = self.to.write_all(format!("{line}\n").as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.to.flush();
        Ok(())
    }
}

/// Control characters and their like, written as JSON writes them, so that a JSON event stays valid and means the same.
fn escaped(line: &str) -> Cow<'_, str> {
    if !line.contains(escapes) {
        return Cow::Borrowed(line);
    }
    let mut safe = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if escapes(c) => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// What could end a line or change how the rest of it is shown: controls, Unicode's own line breaks, and its marks that
/// turn the direction of text.
fn escapes(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The level stands behind the time, which has no such word in it.
fn coloured(line: &str, level: Level) -> String {
    let paint = match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "34",
    };
    match line.split_once(level.as_str()) {
        Some((time, rest)) => format!("\u{1b}[2m{time}\u{1b}[0;{paint}m{level}\u{1b}[0m{rest}"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_log_is_survived() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut writer = OneLineWriter { to: Closed, colour: None };
        assert_eq!(writer.write(b"event\n").unwrap(), 6);
        writer.flush().unwrap();
    }
}
