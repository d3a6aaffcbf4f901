//! Structured logs on standard error: for a person on a terminal, as JSON otherwise, one event a line.
//!
//! The level changes while the server runs, by configuration or by the protocol's logging extension. Whatever a client
//! sent stays inside its line: control characters are written as escapes. Where the logs end up is not known here, and
//! a client cannot choose it.

mod one_line;
mod panics;
mod patience;
mod settings;

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use kinglet_sys::standard_error::takes_bytes;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::{Interest, SetGlobalDefaultError};
use tracing::{Level, Metadata, Subscriber, callsite};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{self as lines, MakeWriter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use one_line::OneLine;
use patience::Patient;
pub use settings::{LogSettingError, LogSettings, LogValue, Stamp};

use super::config::{LogFormat, LogLevel, TelemetryConfig};

/// Makes every event of the process, panics among them, go to standard error from now on. Called once, at the start.
pub fn start(config: &TelemetryConfig) -> Result<Logs, SetGlobalDefaultError> {
    let terminal = io::stderr().is_terminal();
    let style = match config.log_format {
        LogFormat::Human if terminal => Style::Colour,
        LogFormat::Auto if terminal => Style::Colour,
        LogFormat::Human => Style::Plain,
        LogFormat::Auto | LogFormat::Json => Style::Json,
    };
    let logs = Logs::new(config.log_level);
    let written = Patient::new(io::stderr(), takes_bytes, Arc::clone(&logs.dropped));
    tracing::subscriber::set_global_default(subscriber(&logs, style, written))?;
    panics::log_from_now_on();
    Ok(logs)
}

/// The settings of the logs, shared by everyone who may change them.
#[derive(Clone, Debug)]
pub struct Logs {
    settings: Arc<ArcSwap<LogSettings>>,
    /// Lines that were not taken where they should go.
    dropped: Arc<AtomicU64>,
}

impl Logs {
    /// Settings that no subscriber follows yet.
    pub fn new(level: LogLevel) -> Self {
        Self { settings: Arc::new(ArcSwap::from_pointee(LogSettings::of_level(level))), dropped: Arc::default() }
    }

    /// Lines that were lost so far, because nobody read the log.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn settings(&self) -> LogSettings {
        LogSettings::clone(&self.settings.load())
    }

    /// Sets the level that configuration names; how times are written stays.
    pub fn set_level(&self, level: LogLevel) {
        let change = |old: LogSettings| Ok(LogSettings { stamp: old.stamp, ..LogSettings::of_level(level) });
        self.change(change).expect("a level is never refused");
    }

    /// Changes the named settings, all of them or, where one is wrong, none. Returns what then holds.
    pub fn update<N: AsRef<str>>(
        &self,
        changes: impl IntoIterator<Item = (N, LogValue)>,
    ) -> Result<LogSettings, LogSettingError> {
        self.change(|mut settings| {
            for (name, value) in changes {
                settings.set(name.as_ref(), value)?;
            }
            Ok(settings)
        })
    }

    fn change(
        &self,
        change: impl FnOnce(LogSettings) -> Result<LogSettings, LogSettingError>,
    ) -> Result<LogSettings, LogSettingError> {
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = change(self.settings())?;
        self.settings.store(Arc::new(settings.clone()));
        // Call sites remember whether they are wanted, so that an unwanted event costs one load.
        callsite::rebuild_interest_cache();
        Ok(settings)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Colour,
    Plain,
    Json,
}

fn subscriber<W>(logs: &Logs, style: Style, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = lines::layer()
        .with_timer(logs.clone())
        .with_writer(OneLine { to: writer, colour: style == Style::Colour })
        // The formatter's own colours would leave the escape character of a value alone.
        .with_ansi(false)
        // It would report through a macro that panics when standard error is closed.
        .log_internal_errors(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match style {
        Style::Colour | Style::Plain => lines.boxed(),
        // Field names are ours, so that a client cannot forge `level` or `message` at the top.
        Style::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(lines).with(logs.clone())
}

/// The filter: answers for each call site until the settings change.
impl<S: Subscriber> Layer<S> for Logs {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if wanted(&self.settings.load(), metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        wanted(&self.settings.load(), metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let settings = self.settings.load();
        let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
        let highest = levels.into_iter().find(|&level| settings.wants(level, true));
        Some(highest.map_or(LevelFilter::OFF, LevelFilter::from_level))
    }
}

fn wanted(settings: &LogSettings, metadata: &Metadata<'_>) -> bool {
    settings.wants(*metadata.level(), metadata.target().starts_with("kinglet"))
}

impl FormatTime for Logs {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        match self.settings.load().stamp {
            Stamp::Default => SystemTime.format_time(w),
            Stamp::Iso8601 => {
                let mut text = String::new();
                SystemTime.format_time(&mut Writer::new(&mut text))?;
                let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
                write!(w, "{seconds}Z")
            }
        }
    }
}

/// What call sites remember is one for the process; two rebuilds at a time could leave it at the older settings.
static CHANGING: Mutex<()> = Mutex::new(());

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::MutexGuard;

    use tracing::{debug, error, info, trace, warn};

    use super::*;

    const ESCAPE: char = '\u{1b}';

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl<'w> MakeWriter<'w> for Page {
        type Writer = PageWriter<'w>;

        fn make_writer(&'w self) -> PageWriter<'w> {
            PageWriter(self.0.lock().unwrap())
        }
    }

    struct PageWriter<'w>(MutexGuard<'w, Vec<u8>>);

    impl Write for PageWriter<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(logs: &Logs, style: Style, say: impl FnOnce()) -> String {
        let page = Page::default();
        tracing::subscriber::with_default(subscriber(logs, style, page.clone()), say);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    /// One event at each level, of this crate and of another; returns the messages that were written.
    fn heard(logs: &Logs) -> String {
        let say = || {
            error!("e");
            warn!("w");
            info!("i");
            debug!("d");
            trace!("t");
            error!(target: "h2", "E");
            info!(target: "h2", "I");
            debug!(target: "h2", "D");
            trace!(target: "h2", "T");
        };
        written(logs, Style::Plain, say).lines().map(|line| line.chars().last().unwrap()).collect()
    }

    #[test]
    fn levels_change_while_running() {
        let logs = Logs::new(LogLevel::Info);
        assert_eq!(heard(&logs), "ewiEI");
        for (level, wanted) in [
            (LogLevel::Error, "eE"),
            (LogLevel::Warn, "ewE"),
            (LogLevel::Debug, "ewidEI"),
            (LogLevel::Trace, "ewidtEI"),
        ] {
            logs.set_level(level);
            assert_eq!(heard(&logs), wanted, "{level:?}");
        }
        logs.update([("log_verbose_level", LogValue::Number(3))]).unwrap();
        assert_eq!(heard(&logs), "ewidtEIDT");
        logs.update([("log_warning", LogValue::Flag(false)), ("log_verbose_level", LogValue::Number(0))]).unwrap();
        assert_eq!(heard(&logs), "eiEI", "the protocol's switches are independent of each other");
    }

    #[test]
    fn a_change_reaches_a_subscriber_that_is_in_use() {
        let logs = Logs::new(LogLevel::Warn);
        let say = || {
            for round in 0..3 {
                info!("round {round}");
                logs.set_level(if round == 0 { LogLevel::Info } else { LogLevel::Error });
            }
        };
        let page = written(&logs, Style::Plain, say);
        assert_eq!(page.lines().count(), 1, "{page}");
        assert!(page.contains("round 1"), "{page}");
    }

    #[test]
    fn client_content_stays_on_its_line() {
        let hostile = "a\n2026-01-01T00:00:00Z ERROR forged\r\t\u{1b}[31mred\u{7}\u{7f}\u{9b}31m\
                       \u{2028}\u{202e}\u{2066}\"level\":\"x";
        let logs = Logs::new(LogLevel::Info);
        let say = || {
            let span = tracing::info_span!("request", id = %hostile);
            let _entered = span.enter();
            info!(display = %hostile, debug = ?hostile, plain = hostile, "message {hostile}");
        };
        for style in [Style::Plain, Style::Json, Style::Colour] {
            let page = written(&logs, style, say);
            assert_eq!(page.lines().count(), 1, "{style:?}: {page}");
            assert!(page.contains("forged"), "{style:?}: {page}");
            assert!(page.ends_with('\n'), "{style:?}");
            let line = page.strip_suffix('\n').unwrap();
            let ours = if style == Style::Colour { "\u{1b}[2m\u{1b}[0;32m\u{1b}[0m" } else { "" };
            let control: String =
                line.split_inclusive('m').flat_map(|part| part.find(ESCAPE).map(|at| &part[at..])).collect();
            assert_eq!(control, ours, "{style:?}: {page:?}");
            assert!(!line.contains(|c: char| c.is_control() && c != ESCAPE), "{style:?}: {page:?}");
            assert!(!line.contains(['\u{2028}', '\u{202e}', '\u{2066}']), "{style:?}: {page:?}");
        }
        let event: serde_json::Value = serde_json::from_str(&written(&logs, Style::Json, say)).unwrap();
        assert_eq!(event["plain"], hostile);
        assert_eq!(event["display"], hostile);
        assert_eq!(event["level"], "INFO");
        assert_eq!(event["message"], format!("message {hostile}"));
        assert_eq!(event["span"]["id"], hostile);
    }

    #[test]
    fn times_are_written_as_asked() {
        let logs = Logs::new(LogLevel::Info);
        let stamp = |logs: &Logs| written(logs, Style::Plain, || info!("now")).split(' ').next().unwrap().to_owned();
        assert_eq!(stamp(&logs).len(), "2026-01-31T12:00:00.123456Z".len());
        logs.update([("log_format", LogValue::Text("ISO8601".to_owned()))]).unwrap();
        assert_eq!(stamp(&logs).len(), "2026-01-31T12:00:00Z".len());
        assert!(stamp(&logs).ends_with('Z'));
        logs.set_level(LogLevel::Debug);
        assert_eq!(logs.settings().stamp, Stamp::Iso8601);
    }
}
