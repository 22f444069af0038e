//! Our own log lines: console or JSON, sampled, and harmless to look at.
//!
//! In:   events of `tracing`.
//! Out:  one line each, on stderr or wherever `output_paths` says.
//! Lost: of equal lines within a tick only the first few are written and then each n-th; the rest is counted. Events of [`ONCE`] are
//!       all written.
//!
//! What peers send us ends up in fields, so no control character reaches a terminal and no value is longer than 256 bytes.

use std::{
    fmt::{self, Write as _},
    fs::OpenOptions,
    hash::BuildHasher,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::FixedState;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Number, Value};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::Context,
};

use super::{LogEncoding, LogLevel, LogSettings, Sampling};
use crate::runtime::{BuildError, Clock, appendable, both};

/// The target of events that are never sampled, because whoever writes them bounds their number: the first data of a service.
pub const ONCE: &str = "weir::once";

impl LogSettings {
    /// Whether every file can be opened, as far as can be told without making it.
    pub fn try_outputs(&self) -> Result<(), BuildError> {
        let mut told = Ok(());
        for path in self.output_paths.iter().filter_map(|path| file_of(path)) {
            let checked = appendable(Path::new(path)).map_err(|error| unopened(path, &error));
            told = both(told, checked).map(drop);
        }
        told
    }
}

/// The file that an output path stands for.
fn file_of(path: &str) -> Option<&str> {
    (!matches!(path, "stderr" | "stdout")).then(|| path.strip_prefix("file://").unwrap_or(path))
}

fn unopened(path: &str, error: &io::Error) -> BuildError {
    BuildError::setting("service::telemetry::logs::output_paths", format!("cannot open {path}: {error}"))
}

/// Longest value of a field, in bytes.
const VALUE_BYTES_MAX: usize = 256;
/// Longest message, in bytes: it is ours, but may quote.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Writes events as lines.
pub struct Logging {
    encoding: LogEncoding,
    level: LogLevel,
    initial_fields: Vec<(String, Value)>,
    outputs: Vec<Mutex<Box<dyn Write + Send>>>,
    sampler: Option<Sampler>,
    suppressed: Arc<AtomicU64>,
    clock: Clock,
}

impl Logging {
    /// Opens the outputs; a file that cannot be opened is an error that names it.
    pub fn open(settings: &LogSettings, clock: Clock) -> Result<Self, BuildError> {
        let mut outputs: Vec<Box<dyn Write + Send>> = Vec::new();
        for path in &settings.output_paths {
            outputs.push(match file_of(path) {
                Some(path) => {
                    let file = OpenOptions::new().create(true).append(true).open(path);
                    Box::new(file.map_err(|error| unopened(path, &error))?)
                }
                None if path == "stdout" => Box::new(io::stdout()),
                None => Box::new(io::stderr()),
            });
        }
        Ok(Self::to(settings, clock, outputs))
    }

    /// Writes to `outputs` instead of what the settings name.
    pub fn to(settings: &LogSettings, clock: Clock, outputs: Vec<Box<dyn Write + Send>>) -> Self {
        let fields = settings.initial_fields.iter();
        Self {
            encoding: settings.encoding,
            level: settings.level,
            initial_fields: fields.map(|(name, value)| (name.clone(), Value::String(clean(value, VALUE_BYTES_MAX)))).collect(),
            outputs: outputs.into_iter().map(Mutex::new).collect(),
            sampler: settings.sampling.map(Sampler::new),
            suppressed: Arc::default(),
            clock,
        }
    }

    /// Which events are wanted: ours at the level asked for, those of the libraries below us only when they warn.
    pub fn filter(&self) -> Targets {
        let (ours, others) = match self.level {
            LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
            LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
            LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
            LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        };
        Targets::new().with_default(others).with_target("weir", ours)
    }

    /// How many lines sampling kept back so far.
    pub fn suppressed(&self) -> Arc<AtomicU64> {
        self.suppressed.clone()
    }

    fn line(&self, metadata: &Metadata<'_>, unix_nanos: u64, fields: &Fields) -> String {
        let time = time_text(unix_nanos);
        let level = level_text(*metadata.level());
        let all = self.initial_fields.iter().map(|(name, value)| (name.as_str(), value));
        let all = all.chain(fields.others.iter().map(|(name, value)| (*name, value)));
        let mut line = String::with_capacity(256);
        match self.encoding {
            LogEncoding::Console => {
                for part in [time.as_str(), level, &fields.message] {
                    line.push_str(part);
                    line.push('\t');
                }
                line.pop();
                let start = line.len();
                line.push_str("\t{");
                write_fields(&mut line, all);
                if line.ends_with('{') {
                    line.truncate(start);
                } else {
                    line.push('}');
                }
            }
            LogEncoding::Json => {
                let (time, message) = (Value::String(time), Value::String(fields.message.clone()));
                let level = Value::String(level.to_owned());
                let own = [("level", &level), ("ts", &time), ("msg", &message)];
                line.push('{');
                write_fields(&mut line, own.into_iter().chain(all));
                line.push('}');
            }
        }
        line.push('\n');
        line
    }
}

impl<S: Subscriber> Layer<S> for Logging {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = self.clock.now().0;
        if let Some(sampler) = &self.sampler
            && event.metadata().target() != ONCE
            && !sampler.passes(event.metadata(), &fields.message, now)
        {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let line = self.line(event.metadata(), now, &fields);
        for output in &self.outputs {
            // A log that cannot be written has nowhere to say so.
            output.lock().write_all(line.as_bytes()).unwrap_or_default();
        }
    }
}

fn level_text(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

fn time_text(unix_nanos: u64) -> String {
    match Timestamp::from_nanosecond(i128::from(unix_nanos)) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        Err(_) => unix_nanos.to_string(),
    }
}

fn write_fields<'a>(line: &mut String, fields: impl Iterator<Item = (&'a str, &'a Value)>) {
    for (number, (name, value)) in fields.enumerate() {
        if number > 0 {
            line.push(',');
        }
        // Writing to a string does not fail.
        write!(line, "{}:{value}", Value::String(name.to_owned())).unwrap_or_default();
    }
}

/// The fields of one event, made harmless.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            self.message = clean(text, MESSAGE_BYTES_MAX);
        } else {
            self.others.push((field.name(), Value::String(clean(text, VALUE_BYTES_MAX))));
        }
    }

    fn value(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.to_string();
        } else {
            self.others.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match Number::from_f64(value) {
            Some(number) => self.value(field, Value::Number(number)),
            None => self.value(field, Value::String(value.to_string())),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = Bounded::default();
        // A text that outgrows its bound ends the writing early; what is there is what is shown.
        write!(text, "{value}").unwrap_or_default();
        let mut cause = value.source();
        while let Some(error) = cause {
            if write!(text, ": {error}").is_err() {
                break;
            }
            cause = error.source();
        }
        self.text(field, &text.0);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Bounded::default();
        write!(text, "{value:?}").unwrap_or_default();
        self.text(field, &text.0);
    }
}

/// Stops a `Debug` or `Display` that would write megabytes.
#[derive(Default)]
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (MESSAGE_BYTES_MAX + 4).saturating_sub(self.0.len());
        let end = text.floor_char_boundary(room);
        self.0.push_str(text.get(..end).unwrap_or_default());
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// `text` without anything that moves a cursor or turns the reading direction, at most `bytes_max` long.
fn clean(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars() {
        let start = out.len();
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
        if out.len() > bytes_max {
            out.truncate(start);
            out.push('…');
            break;
        }
    }
    out
}

/// Line separators, direction marks and zero-width characters: they make a line say something other than it holds.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Counters of equal lines, in a fixed number of slots: two messages that share one are sampled together.
struct Sampler {
    settings: Sampling,
    slots: Box<[Slot]>,
}

#[derive(Default)]
struct Slot {
    /// End of the present tick.
    until: AtomicU64,
    seen: AtomicU64,
}

impl Sampler {
    fn new(settings: Sampling) -> Self {
        Self { settings, slots: (0..1024).map(|_| Slot::default()).collect() }
    }

    fn passes(&self, metadata: &Metadata<'_>, message: &str, now: u64) -> bool {
        let hash = FixedState::default().hash_one((level_text(*metadata.level()), message));
        let number = usize::try_from(hash % 1024).unwrap_or_default();
        let Some(slot) = self.slots.get(number) else { return true };
        let until = slot.until.load(Ordering::Relaxed);
        let tick = u64::try_from(self.settings.tick.0.as_nanos()).unwrap_or(u64::MAX);
        // A clock set back by more than a tick begins a new one too.
        if now >= until || until - now > tick {
            slot.until.store(now.saturating_add(tick), Ordering::Relaxed);
            slot.seen.store(0, Ordering::Relaxed);
        }
        let seen = slot.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(beyond) = seen.checked_sub(self.settings.initial).filter(|beyond| *beyond > 0) else { return true };
        self.settings.thereafter > 0 && beyond.is_multiple_of(self.settings.thereafter)
    }
}
