//! Log lines on standard error: `<RFC 3339 time> LEVEL message key=value`.
//!
//! A layer of our own, because the message has to stand right behind the level: no target, no span, no thread, until
//! the level is debug. A line is built in a buffer of its thread and written with one call, so lines never mix; a
//! standard error that fails or is closed is nobody's problem but the reader's.

use crate::cli::LogFormat;
use crate::config::LogLevel;
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// The least important level, at first.
    pub(crate) level: LogLevel,
    /// Text or JSON.
    pub(crate) format: LogFormat,
    /// Whether levels are coloured.
    pub(crate) color: bool,
    /// Whether the log is an output of flow records: then they are written whatever the level.
    pub(crate) records: bool,
}

/// Sends events of the whole process to standard error from now on. Only the first call counts: a process has one log.
pub(crate) fn start(style: Style) {
    static THRESHOLD: Threshold = Threshold::new();
    if OF_PROCESS.get().is_some() {
        return;
    }
    THRESHOLD.set(style.level);
    THRESHOLD.records.store(style.records, Ordering::Relaxed);
    let write = |line: &[u8]| drop(std::io::stderr().write_all(line));
    let lines = Lines { style, threshold: &THRESHOLD, write };
    let filter = Enough(&THRESHOLD);
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    // Fails when there is one already, which only tests within one process can bring about.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = OF_PROCESS.set(&THRESHOLD);
    }
}

/// From now on the process's log has events of this level and above.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(threshold) = OF_PROCESS.get() {
        threshold.set(level);
        // Who asks whether an event is wanted keeps the answer.
        tracing::callsite::rebuild_interest_cache();
    }
}

/// From now on the process's log is an output of flow records.
pub(crate) fn take_records() {
    if let Some(threshold) = OF_PROCESS.get() {
        threshold.records.store(true, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// That of the process's log.
static OF_PROCESS: OnceLock<&'static Threshold> = OnceLock::new();

/// The target of the log output's events, which are of level INFO.
const RECORDS: &str = "mermin::flow";

/// What is logged. It may change.
struct Threshold {
    /// The least important level.
    level: AtomicU8,
    /// Whether the log is an output of flow records.
    records: AtomicBool,
}

impl Threshold {
    const fn new() -> Self {
        Self { level: AtomicU8::new(0), records: AtomicBool::new(false) }
    }

    fn set(&self, level: LogLevel) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    fn level(&self) -> LevelFilter {
        const LEVELS: [LevelFilter; 5] = [
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ];
        LEVELS[usize::from(self.level.load(Ordering::Relaxed)) % LEVELS.len()]
    }

    fn takes_records(&self) -> bool {
        self.records.load(Ordering::Relaxed)
    }
}

/// Lets through what is important enough.
struct Enough<'t>(&'t Threshold);

impl Enough<'_> {
    fn is_wanted(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0.level()
            || (self.0.takes_records()
                && *metadata.level() <= Level::INFO
                && metadata.target().starts_with(RECORDS))
    }
}

impl<S> Filter<S> for Enough<'_> {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.is_wanted(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let level = self.0.level();
        Some(if self.0.takes_records() { level.max(LevelFilter::INFO) } else { level })
    }
}

struct Lines<'t, W> {
    style: Style,
    threshold: &'t Threshold,
    write: W,
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl<S: Subscriber, W: Fn(&[u8]) + 'static> Layer<S> for Lines<'static, W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let with_target = self.threshold.level() >= LevelFilter::DEBUG;
        LINE.with(|line| {
            // An event within an event (a value whose formatting logs) gets a line of its own.
            let mut own = String::new();
            let mut shared = line.try_borrow_mut();
            let line = shared.as_deref_mut().unwrap_or(&mut own);
            line.clear();
            match self.style.format {
                LogFormat::Text => text_line(line, (self.style, with_target), now, event),
                LogFormat::Json => json_line(line, with_target, now, event),
            }
            line.push('\n');
            (self.write)(line.as_bytes());
        });
    }
}

fn text_line(line: &mut String, (style, with_target): (Style, bool), now: Duration, event: &Event<'_>) {
    timestamp(line, now);
    let level = *event.metadata().level();
    let (color, reset) = if style.color { (color(level), "\x1b[0m") } else { ("", "") };
    let _ = write!(line, " {color}{level:<5}{reset} ");
    if with_target {
        let _ = write!(line, "{}: ", event.metadata().target());
    }
    let mut fields = TextFields { message: String::new(), rest: String::new() };
    event.record(&mut fields);
    // An event without a message goes by its name, for example `flow`.
    let message = if fields.message.is_empty() { event.metadata().name() } else { &fields.message };
    escape_controls(line, message);
    line.push_str(&fields.rest);
}

const fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// Appends `text` so that it stays on its line and can't steer a terminal.
fn escape_controls(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

struct TextFields {
    message: String,
    rest: String,
}

impl TextFields {
    fn value(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            self.message.push_str(text);
            return;
        }
        let _ = write!(self.rest, " {}=", field.name());
        let bare =
            !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
        if bare {
            self.rest.push_str(text);
        } else {
            let _ = write!(self.rest, "{text:?}");
        }
    }
}

impl Visit for TextFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.value(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field, &format!("{value:?}"));
    }
}

fn json_line(line: &mut String, with_target: bool, now: Duration, event: &Event<'_>) {
    let mut time = String::new();
    timestamp(&mut time, now);
    let mut fields = JsonFields(serde_json::Map::new());
    fields.0.insert("time".to_owned(), time.into());
    fields.0.insert("level".to_owned(), event.metadata().level().as_str().into());
    if with_target {
        fields.0.insert("target".to_owned(), event.metadata().target().into());
    }
    event.record(&mut fields);
    if !fields.0.contains_key("message") {
        fields.0.insert("message".to_owned(), event.metadata().name().into());
    }
    let _ = write!(line, "{}", serde_json::Value::Object(fields.0));
}

struct JsonFields(serde_json::Map<String, serde_json::Value>);

impl JsonFields {
    fn value(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for JsonFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.value(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field, format!("{value:?}"));
    }
}

/// RFC 3339 in UTC with milliseconds. Days to date as the Gregorian calendar repeats: every 400 years, 146 097 days.
fn timestamp(line: &mut String, since_1970: Duration) {
    const DAYS_TO_1970: u64 = 719_468; // from 1 March of year 0, so that the leap day ends a year
    let seconds = since_1970.as_secs();
    let (days, second) = (seconds / 86_400 + DAYS_TO_1970, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let milli = since_1970.subsec_millis();
    let _ = write!(line, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn logged(style: Style, events: impl FnOnce()) -> Vec<String> {
        logged_with(style, |_| events())
    }

    fn logged_with(style: Style, events: impl FnOnce(&'static Threshold)) -> Vec<String> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let threshold: &Threshold = Box::leak(Box::new(Threshold::new()));
        threshold.set(style.level);
        threshold.records.store(style.records, Ordering::Relaxed);
        let write = move |line: &[u8]| sink.lock().unwrap().extend_from_slice(line);
        let filter = Enough(threshold);
        let subscriber =
            tracing_subscriber::registry().with(Lines { style, threshold, write }.with_filter(filter));
        tracing::subscriber::with_default(subscriber, || events(threshold));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn style(level: LogLevel, format: LogFormat) -> Style {
        Style { level, format, color: false, records: false }
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, millis, expected) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, 999, "2000-02-28T23:59:59.999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, 1, "2024-12-31T23:59:59.001Z"),
            (1_709_164_800, 0, "2024-02-29T00:00:00.000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut text = String::new();
            timestamp(&mut text, Duration::from_secs(seconds) + Duration::from_millis(millis));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_line_is_time_level_message() {
        let lines = logged(style(LogLevel::Info, LogFormat::Text), || {
            tracing::info!("Packet reader task started");
            tracing::warn!(key = "pipeline.flow_workers", count = 3, note = "two words", "queue full");
            tracing::debug!("not shown");
            tracing::error!("bell\u{7} and\nnewline");
        });
        let rest: Vec<_> = lines.iter().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(
            rest,
            [
                "INFO  Packet reader task started",
                "WARN  queue full key=pipeline.flow_workers count=3 note=\"two words\"",
                "ERROR bell\\u{7} and\\nnewline",
            ]
        );
        let time = lines[0].split(' ').next().unwrap();
        assert_eq!((time.len(), time.ends_with('Z'), &time[10..11]), (24, true, "T"));
    }

    #[test]
    fn debug_lines_name_their_target() {
        let lines = logged(style(LogLevel::Debug, LogFormat::Text), || tracing::debug!(target: "here", "x"));
        assert!(lines[0].ends_with(" DEBUG here: x"), "{lines:?}");
    }

    #[test]
    fn records_are_written_whatever_the_level() {
        for (records, expected) in [(true, 1), (false, 0)] {
            let style = Style { records, ..style(LogLevel::Error, LogFormat::Text) };
            let lines = logged(style, || {
                tracing::info!(name: "flow", target: RECORDS, sequence = 0);
                tracing::info!("not shown");
                tracing::warn!("nor this");
            });
            assert_eq!(lines.len(), expected, "{lines:?}");
            assert!(lines.iter().all(|line| line.contains("INFO  flow sequence=0")), "{lines:?}");
        }
    }

    #[test]
    fn the_level_may_change() {
        fn event() {
            tracing::debug!("an event");
        }
        let lines = logged_with(style(LogLevel::Info, LogFormat::Text), |threshold| {
            for level in [LogLevel::Info, LogLevel::Debug, LogLevel::Error, LogLevel::Trace] {
                threshold.set(level);
                tracing::callsite::rebuild_interest_cache();
                event();
                tracing::info!("level {}", level.name());
            }
        });
        let rest: Vec<_> = lines.iter().map(|line| line.split_once("Z ").unwrap().1).collect();
        let (here, event) = (module_path!(), "DEBUG mermin::logging::tests: an event");
        let named = |level: &str| format!("INFO  {here}: level {level}");
        assert_eq!(rest, ["INFO  level info", event, &named("debug"), event, &named("trace")]);
    }

    #[test]
    fn json_lines_are_objects() {
        let lines = logged(style(LogLevel::Info, LogFormat::Json), || {
            tracing::info!(count = 3_u64, "Processed {} packets", 1000);
        });
        let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(value["message"], "Processed 1000 packets");
        assert_eq!((&value["level"], &value["count"]), (&"INFO".into(), &3.into()));
        assert!(value.get("target").is_none());
    }
}
