//! `weir journal`: what lies on disk, for whom, and whether it is whole.

use std::{
    fmt::Write as _,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    FAILED, WRONG,
    admin_socket::unanswered,
    arguments::{ConfigArgs, DumpArgs, InspectArgs, JournalArgs, JournalCommand, JournalPlace, RmArgs, TraceId},
    journal,
    journal_letters::{self, OfTrace, letters_text},
    live,
    run::say,
    start::{self, TABLES},
    tap::refusal,
};
use crate::{
    admin::{Orphan, RECORDS_MAX, RecordPlace, Records, Removal, Removed, Report, SOCKET, StandingOf, Standings},
    journal::{
        Lag,
        inspect::{ConsumerStock, Entry, InspectError, Journal, JournalRecord, LostRecords, Places, ShardView, Stock, What},
    },
    otlp::{
        edit::{AttributesWriter, Edit, Editor, Place, edit},
        json,
        view::{LogRecordView, MetricView, PointView, ResourceView, SpanView},
    },
    pipeline::{File, Plan, RemoveError},
    runtime::Clock,
    signal::{Signal, UnixNanos},
    transport::local,
};

/// What a weir says of a thousand records is less.
const STANDINGS_BYTES_MAX: u64 = 16 << 20;
/// How what is said of a record begins that a consumer is not past.
const HELD: &str = "held";
/// How it ends of a record that was refused.
const IN_LETTERS: &str = " (in the dead letters)";

/// Where `--yes` was not said.
pub(super) const NOT_YET: &str = "nothing was removed; --yes lets go what stands above, and it is not delivered to anybody";

/// Why a command ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("{0}")]
    Wrong(String),
    #[error(transparent)]
    Journal(#[from] InspectError),
    /// What the weir that runs says, or does not.
    #[error("{0}")]
    Running(String),
    #[error("stdout: {0}")]
    Out(#[from] io::Error),
    /// Diagnostics were shown already.
    #[error("the configuration does not load")]
    Shown,
}

pub(super) fn journal(args: &JournalArgs) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = execute(args, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match done {
        Ok(code) => ExitCode::from(code),
        // Who reads it has seen enough.
        Err(Failed::Out(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failed::Shown) => ExitCode::from(WRONG),
        Err(error) => {
            say(&format!("weir: {error}"));
            ExitCode::from(if matches!(error, Failed::Wrong(_)) { WRONG } else { FAILED })
        }
    }
}

/// Returns the exit code.
fn execute(args: &JournalArgs, out: &mut dyn Write) -> Result<u8, Failed> {
    let found = Found::of(&args.place)?;
    match &args.command {
        JournalCommand::Ls { json } => ls(&found, *json, out),
        JournalCommand::Inspect(args) => inspect(&found.journal, args, out),
        JournalCommand::Verify { topic } => verify(&found.journal, topic.as_deref(), out),
        JournalCommand::Dump(args) if args.letters => journal_letters::dump(&found.journal, args, out),
        JournalCommand::Dump(args) => dump(&found.journal, args, out),
        JournalCommand::Where { trace_id, json } => locate(&found, *trace_id, *json, out),
        JournalCommand::Letters { which, json } => journal_letters::letters(&found, which, *json, out),
        JournalCommand::Replay(args) => journal_letters::replay(&found, args, out),
        JournalCommand::Rm(args) if args.letters => journal_letters::rm(&found.journal, args, out),
        JournalCommand::Rm(args) => rm(&found, args, out),
    }
}

/// A journal, and what its configuration says of it.
pub(super) struct Found {
    pub(super) journal: Journal,
    /// Of a configuration that was named.
    pub(super) plan: Option<Plan>,
    /// Of the weir that runs on it, if one does.
    socket: PathBuf,
}

impl Found {
    fn of(place: &JournalPlace) -> Result<Self, Failed> {
        let directory = place.data_dir.as_ref().filter(|directory| !directory.is_empty());
        let names_config = place.config.iter().any(|uri| !uri.is_empty());
        let file = if names_config || directory.is_none() { Some(read(place)?) } else { None };
        let path = match (directory, &file) {
            (Some(directory), _) => PathBuf::from(directory),
            (None, Some(file)) => journal::directory(file).map_err(Failed::Wrong)?,
            (None, None) => return Err(Failed::Wrong("no directory was named".to_owned())),
        };
        let named = file.as_ref().filter(|file| !file.admin.is_off()).and_then(|file| file.admin.socket.clone());
        let socket = named.map_or_else(|| path.join(SOCKET), PathBuf::from);
        let plan = file.filter(|_| names_config).map(|file| Plan::of(&file, &TABLES));
        Ok(Self { journal: Journal::open(&path)?, plan, socket })
    }

    /// Consumers of a running weir whose destination fails, and how.
    fn failing(&self) -> Vec<(String, String)> {
        if !self.socket.exists() {
            return Vec::new();
        }
        // Without an answer less is told, and nothing wrong.
        let Ok(report) = live::ask(&self.socket) else { return Vec::new() };
        let failing = report.consumers.into_iter().filter_map(|consumer| {
            let destination = consumer.destination.filter(|destination| !destination.up)?;
            let since = destination.failing_seconds.and_then(|since| Duration::try_from_secs_f64(since).ok()).unwrap_or_default();
            let error = destination.error.unwrap_or_else(|| "no reason is known".to_owned());
            Some((consumer.name, format!("the destination has failed for {}: {error}", span(since))))
        });
        failing.collect()
    }

    /// What a running weir has in memory about these records; nothing where none runs.
    fn standings(&self, located: &[Located]) -> Vec<StandingOf> {
        if located.is_empty() || !self.socket.exists() {
            return Vec::new();
        }
        let records = located.iter().take(RECORDS_MAX).map(|located| located.place.clone()).collect();
        let answer = serde_json::to_vec(&Records { records })
            .map_err(io::Error::from)
            .and_then(|body| local::ask(&self.socket, "/v1/standing", Some(&body)))
            .and_then(|answer| answer.whole(STANDINGS_BYTES_MAX));
        match answer {
            Ok(body) => serde_json::from_slice::<Standings>(&body).map(|answer| answer.standings).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Vec::new(),
            Err(error) => {
                let message = unanswered(&self.socket, &error);
                say(&format!("weir: what is under way cannot be told: {message}"));
                Vec::new()
            }
        }
    }

    /// Whether a consumer takes what a source appends; `None`: nobody said which configuration runs.
    fn takes(&self, consumer: &str, source: &str) -> Option<bool> {
        let plan = self.plan.as_ref()?;
        let mut planned = plan.consumers.iter().filter(|planned| planned.subscriber_name() == consumer).peekable();
        planned.peek()?;
        Some(planned.any(|planned| planned.reads.iter().any(|(_, sources)| sources.iter().any(|id| id.as_str() == source))))
    }

    /// Whether a named configuration has the consumer.
    pub(super) fn has(&self, consumer: &str) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.consumers.iter().any(|planned| planned.subscriber_name() == consumer))
    }

    fn stock(&self, shard: &ShardView) -> Result<Stock, InspectError> {
        shard.stock(&|consumer, source| self.takes(consumer, source))
    }
}

/// The configuration, as far as it tells where the journal lies.
fn read(place: &JournalPlace) -> Result<File, Failed> {
    let args = ConfigArgs { config: place.config.clone(), set: place.set.clone(), ..ConfigArgs::default() };
    let mut loaded = start::load_inputs(&args).map_err(|error| Failed::Wrong(error.to_string()))?;
    let mut found = std::mem::take(&mut loaded.found);
    let file = File::check(&loaded.node, &TABLES, &mut found);
    file.filter(|_| !found.has_errors()).ok_or_else(|| {
        start::show(&found, &loaded);
        Failed::Shown
    })
}

fn ls(found: &Found, as_json: bool, out: &mut dyn Write) -> Result<u8, Failed> {
    let now = Clock::system().now();
    let age = |at: Option<UnixNanos>| at.map(|at| Duration::from_nanos(now.0.saturating_sub(at.0)));
    let mut all = Vec::new();
    if !as_json {
        writeln!(out, "{}", found.journal.path().display())?;
    }
    let shards = found.journal.shards()?;
    if shards.is_empty() && !as_json {
        writeln!(out, "  no topic yet")?;
    }
    for shard in shards {
        let stock = found.stock(&shard)?;
        if as_json {
            let consumers: Vec<Value> = stock
                .consumers
                .iter()
                .map(|consumer| {
                    let dropped: serde_json::Map<_, _> =
                        consumer.dropped.iter().map(|(reason, items)| (reason.as_str().to_owned(), json!(items))).collect();
                    json!({
                        "name": consumer.name,
                        "held": amount(consumer.held),
                        "held_is_exact": consumer.is_exact,
                        "as_of_saved_state": consumer.is_of_state,
                        "oldest_age_seconds": age(consumer.oldest).map(|age| age.as_secs_f64()),
                        "committed": consumer.committed,
                        "delivered": consumer.delivered,
                        "dropped": dropped,
                        "in_configuration": found.plan.as_ref().map(|_| found.has(&consumer.name)),
                    })
                })
                .collect();
            all.push(json!({
                "topic": shard.topic,
                "shard": shard.number,
                "records": stock.records.records,
                "items": stock.records.items,
                "bytes": stock.records.bytes,
                "bytes_on_disk": stock.bytes_on_disk,
                "segments": stock.segments,
                "oldest_age_seconds": age(stock.oldest).map(|age| age.as_secs_f64()),
                "end": stock.end,
                "places": match stock.places { Places::Whole => "whole", Places::None => "none", Places::Damaged => "damaged" },
                "consumers": consumers,
            }));
            continue;
        }
        writeln!(
            out,
            "{}/{}  {}  oldest {}  {}  {} on disk  next offset {}",
            shard.topic,
            shard.number,
            amount_text(stock.records),
            age(stock.oldest).map_or_else(|| "-".to_owned(), span),
            counted(stock.segments as u64, "segment"),
            size(stock.bytes_on_disk),
            stock.end,
        )?;
        if stock.places == Places::Damaged {
            writeln!(out, "  the consumers' places are damaged: the next start delivers everything held once more")?;
        }
        for consumer in &stock.consumers {
            writeln!(out, "  {}{}", consumer_text(consumer, age(consumer.oldest)), stranger(found, &consumer.name))?;
        }
    }
    let letters = journal_letters::total(&found.journal)?;
    if letters.records > 0 && !as_json {
        writeln!(out, "dead letters  {}  (`weir journal letters`)", letters_text(letters))?;
    }
    if as_json {
        let path = found.journal.path().display().to_string();
        let letters = json!({ "letters": letters.records, "items": letters.items, "bytes": letters.bytes });
        let whole = json!({ "directory": path, "shards": all, "dead_letters": letters });
        writeln!(out, "{whole:#}")?;
    }
    Ok(0)
}

fn stranger(found: &Found, consumer: &str) -> &'static str {
    if found.plan.is_some() && !found.has(consumer) { "  not in this configuration" } else { "" }
}

fn consumer_text(consumer: &ConsumerStock, oldest: Option<Duration>) -> String {
    let bound = if consumer.is_exact { "" } else { "at most " };
    let mut text = format!("{}  held {bound}{}", consumer.name, amount_text(consumer.held));
    if let Some(oldest) = oldest {
        write!(text, "  oldest {}", span(oldest)).expect("writing to a string does not fail");
    }
    write!(text, "  committed {}  delivered {}", consumer.committed, consumer.delivered)
        .expect("writing to a string does not fail");
    for (reason, items) in &consumer.dropped {
        write!(text, "  dropped{{{}}} {items}", reason.as_str()).expect("writing to a string does not fail");
    }
    if consumer.is_of_state && consumer.held.records > 0 {
        text.push_str(
            "  (as of its last saved state: what it has counted since is not saved yet, and is counted again after a crash)",
        );
    }
    text
}

fn inspect(journal: &Journal, args: &InspectArgs, out: &mut dyn Write) -> Result<u8, Failed> {
    let shards = journal.shards_of(Some(&args.topic))?;
    let mut left = if args.limit == 0 { u64::MAX } else { args.limit };
    for shard in &shards {
        let prefix = if shards.len() > 1 { format!("{}:", shard.number) } else { String::new() };
        for entry in shard.records(args.from)? {
            if left == 0 {
                out.flush()?;
                say(&format!("weir: there are more: --limit 0 shows all, --from N goes on (this showed {})", args.limit));
                return Ok(0);
            }
            left -= 1;
            match entry? {
                Entry::Record(record) => writeln!(out, "{prefix}{}", record_text(&record))?,
                Entry::Lost(lost) => writeln!(out, "{prefix}{}", lost_text(&lost))?,
            }
        }
    }
    Ok(0)
}

fn record_text(record: &JournalRecord) -> String {
    let mut text = format!(
        "{}  {}  {}  {}  {}",
        record.offset,
        time(record.received),
        record.source,
        counted(record.items, "item"),
        counted(record.payload.len() as u64, "byte"),
    );
    // Keys only: values may be somebody's.
    let mut keys: Vec<String> = Vec::new();
    keys.extend(record.context.peer.map(|_| "peer".to_owned()));
    keys.extend(record.context.metadata.iter().map(|(key, _)| format!("metadata.{key}")));
    keys.extend(record.context.auth.iter().map(|(key, _)| format!("auth.{key}")));
    if !keys.is_empty() {
        write!(text, "  {}", keys.join(",")).expect("writing to a string does not fail");
    }
    if let Some((topic, shard, offset)) = &record.derived_from {
        write!(text, "  from {topic}/{shard} {offset}").expect("writing to a string does not fail");
    }
    text
}

pub(super) fn lost_text(lost: &LostRecords) -> String {
    let items = lost.items.map_or_else(String::new, |items| format!(", {}", counted(items, "item")));
    let which = if lost.to > lost.offset + 1 { format!("{} to {}", lost.offset, lost.to - 1) } else { lost.offset.to_string() };
    format!("{which}  damaged{items}  {}:{}", lost.path.display(), lost.at)
}

fn verify(journal: &Journal, topic: Option<&str>, out: &mut dyn Write) -> Result<u8, Failed> {
    let mut written = Ok(());
    let verified = journal.verify(topic, &mut |fault| {
        let mut line = format!("{}:{}: {}", fault.path.display(), fault.at, fault.what);
        if let Some(items) = fault.items.filter(|items| *items > 0) {
            write!(line, " ({})", counted(items, "item")).expect("writing to a string does not fail");
        }
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    })?;
    written?;
    for note in &verified.notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(
        out,
        "{}, {}; {}",
        counted(verified.shards as u64, "shard"),
        counted(verified.segments as u64, "segment"),
        amount_text(verified.records)
    )?;
    if verified.faults == 0 {
        writeln!(out, "no fault")?;
        return Ok(0);
    }
    let more = if verified.is_uncounted { " and those that nobody can count" } else { "" };
    writeln!(
        out,
        "{}: {} lost, with {}{more}",
        counted(verified.faults as u64, "fault"),
        counted(verified.records_lost, "record"),
        counted(verified.items_lost, "item")
    )?;
    Ok(FAILED)
}

/// Keeps what a person asked for.
pub(super) struct Filter<'a> {
    pub(super) service: Option<&'a str>,
    pub(super) trace_id: Option<TraceId>,
}

impl Filter<'_> {
    fn keep(&self, trace_id: &[u8]) -> Edit {
        if self.trace_id.is_none_or(|wanted| wanted.0 == *trace_id) { Edit::Keep } else { Edit::Drop }
    }

    /// What is left of a record; `None`: nothing.
    pub(super) fn apply(&mut self, signal: Signal, payload: &Bytes, items: u64) -> Option<(Bytes, u64)> {
        if self.service.is_none() && self.trace_id.is_none() {
            return Some((payload.clone(), items));
        }
        if self.trace_id.is_some_and(|id| memchr::memmem::find(payload, &id.0).is_none()) {
            return None;
        }
        let edited = edit(signal, payload, self);
        let left = items.saturating_sub(edited.dropped);
        (left > 0).then_some((edited.payload, left))
    }
}

impl Editor for Filter<'_> {
    fn visits_items(&self) -> bool {
        self.trace_id.is_some()
    }

    fn resource(&mut self, resource: &ResourceView<'_>, _: &mut AttributesWriter) -> Edit {
        if self.service.is_none_or(|service| resource.service_name() == Some(service)) { Edit::Keep } else { Edit::Drop }
    }

    fn span(&mut self, _: &Place<'_>, span: &SpanView<'_>, _: &mut AttributesWriter) -> Edit {
        self.keep(span.trace_id)
    }

    fn log_record(&mut self, _: &Place<'_>, record: &LogRecordView<'_>, _: &mut AttributesWriter) -> Edit {
        self.keep(record.trace_id)
    }

    fn data_point(&mut self, _: &Place<'_>, _: &MetricView<'_>, point: &PointView<'_>, _: &mut AttributesWriter) -> Edit {
        let Some(wanted) = self.trace_id else { return Edit::Keep };
        let has = match point {
            PointView::Number(point) => point.exemplars().any(|exemplar| exemplar.trace_id == wanted.0),
            PointView::Histogram(point) => point.exemplars().any(|exemplar| exemplar.trace_id == wanted.0),
            PointView::ExponentialHistogram(point) => point.exemplars().any(|exemplar| exemplar.trace_id == wanted.0),
            PointView::Summary(_) => false,
        };
        if has { Edit::Keep } else { Edit::Drop }
    }
}

fn dump(journal: &Journal, args: &DumpArgs, out: &mut dyn Write) -> Result<u8, Failed> {
    let mut filter = Filter { service: args.service.as_deref(), trace_id: args.trace_id };
    let mut left = if args.limit == 0 { u64::MAX } else { args.limit };
    let (mut line, mut code) = (Vec::new(), 0);
    for shard in journal.shards_of(args.topic.as_deref())? {
        for entry in shard.records(args.from)? {
            if left == 0 {
                return Ok(code);
            }
            let record = match entry? {
                Entry::Record(record) => record,
                Entry::Lost(lost) => {
                    say(&format!("weir: {}/{} {}", shard.topic, shard.number, lost_text(&lost)));
                    code = FAILED;
                    continue;
                }
            };
            let Some((payload, _)) = filter.apply(record.signal, &record.payload, record.items) else { continue };
            line.clear();
            if let Err(error) = json::encode(record.signal, &payload, &mut line) {
                say(&format!("weir: {}/{} record {} is no OTLP: {error}", shard.topic, shard.number, record.offset));
                code = FAILED;
                continue;
            }
            line.push(b'\n');
            out.write_all(&line)?;
            left -= 1;
        }
    }
    Ok(code)
}

/// A record with a part of the trace, and how consumers stand to it.
struct Located {
    place: RecordPlace,
    received: UnixNanos,
    source: String,
    signal: Signal,
    items: u64,
    consumers: Vec<(String, String)>,
}

fn locate(found: &Found, trace_id: TraceId, as_json: bool, out: &mut dyn Write) -> Result<u8, Failed> {
    let mut filter = Filter { service: None, trace_id: Some(trace_id) };
    let mut all = Vec::new();
    let (letters, mut code) = OfTrace::find(&found.journal, trace_id)?;
    for shard in found.journal.shards()? {
        // The places before the records: what a consumer is past now is still said to be held, never the other way round.
        let stock = found.stock(&shard)?;
        for entry in shard.records(0)? {
            let record = match entry? {
                Entry::Record(record) => record,
                Entry::Lost(lost) => {
                    say(&format!("weir: {}/{} {}", shard.topic, shard.number, lost_text(&lost)));
                    code = FAILED;
                    continue;
                }
            };
            let Some((_, items)) = filter.apply(record.signal, &record.payload, record.items) else { continue };
            let refusal = |consumer: &ConsumerStock| {
                let why = letters.refusal(&consumer.name, &shard.topic, shard.number, record.offset)?;
                Some(format!("{why}{IN_LETTERS}"))
            };
            let standing = |consumer: &ConsumerStock| {
                let standing = refusal(consumer).unwrap_or_else(|| standing(found, consumer, &record).to_owned());
                (consumer.name.clone(), standing)
            };
            all.push(Located {
                place: RecordPlace { topic: shard.topic.clone(), shard: shard.number, offset: record.offset },
                received: record.received,
                consumers: stock.consumers.iter().map(standing).collect(),
                source: record.source,
                signal: record.signal,
                items,
            });
        }
    }
    let now = found.standings(&all);
    // Only where somebody waits: the report is asked for once.
    let waits = all.iter().any(|located| located.consumers.iter().any(|(_, standing)| standing.starts_with(HELD)));
    let failing = if waits { found.failing() } else { Vec::new() };
    for located in &mut all {
        for (consumer, standing) in &mut located.consumers {
            if let Some(now) = now.iter().find(|now| now.record == located.place && now.consumer == *consumer) {
                *standing = live_text(now);
            } else if let Some((_, why)) =
                failing.iter().find(|(name, _)| name == consumer).filter(|_| standing.starts_with(HELD))
            {
                *standing = format!("{HELD}: waits its turn; {why}");
            }
        }
    }
    if as_json {
        let mut all: Vec<Value> = all.iter().map(|located| located_json(located, &now)).collect();
        all.extend(letters.json());
        writeln!(out, "{:#}", Value::from(all))?;
        return Ok(code);
    }
    for located in &all {
        let Located { place, received, source, signal, items, consumers } = located;
        let what = signal.items().replace('_', " ");
        writeln!(
            out,
            "{}/{}  offset {}  {}  {source}  {items} {what} of it",
            place.topic,
            place.shard,
            place.offset,
            time(*received)
        )?;
        for (consumer, standing) in consumers {
            writeln!(out, "  {consumer}  {standing}")?;
        }
    }
    letters.show(out)?;
    if !all.is_empty() {
        writeln!(out, "{}", summary(&all))?;
    }
    if all.is_empty() && letters.is_empty() {
        writeln!(
            out,
            "not in the journal: it was delivered to all (a record is gone once every consumer has passed it), dropped with a reason that `weir journal ls` counts, or it never came in"
        )?;
    }
    Ok(code)
}

/// Where all of it is, in one line.
fn summary(all: &[Located]) -> String {
    let consumers = || all.iter().flat_map(|located| &located.consumers);
    let of = |kind: Fate| {
        let mut names: Vec<&str> =
            consumers().filter(|(_, standing)| fate(standing) == kind).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    let (held, rejected, dropped) = (of(Fate::Held), of(Fate::Rejected), of(Fate::Dropped));
    let mut parts = Vec::new();
    for (what, names) in [("held by", held), ("rejected by", rejected), ("perhaps dropped by", dropped)] {
        if !names.is_empty() {
            parts.push(format!("{what} {names}"));
        }
    }
    if parts.is_empty() {
        return "in short: delivered to all who take it".to_owned();
    }
    let delivered = of(Fate::Delivered);
    if !delivered.is_empty() {
        parts.push(format!("delivered by {delivered}"));
    }
    format!("in short: {}", parts.join("; "))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Held,
    Delivered,
    Dropped,
    Rejected,
    /// It is not for this consumer.
    Passed,
}

fn fate(standing: &str) -> Fate {
    if standing.starts_with(HELD) {
        Fate::Held
    } else if standing.ends_with(IN_LETTERS) {
        Fate::Rejected
    } else if standing.contains("dropped") {
        Fate::Dropped
    } else if standing.starts_with("delivered") {
        Fate::Delivered
    } else {
        Fate::Passed
    }
}

fn located_json(located: &Located, live: &[StandingOf]) -> Value {
    let consumers = located.consumers.iter().map(|(name, standing)| {
        let now = live.iter().find(|now| now.record == located.place && now.consumer == *name);
        json!({ "name": name, "standing": standing, "live": now.map(|now| json!({
            "parked": now.parked, "attempts": now.attempts, "error": now.error, "next_attempt_seconds": now.next_attempt_seconds,
        })) })
    });
    json!({
        "topic": located.place.topic, "shard": located.place.shard, "offset": located.place.offset, "received": time(located.received),
        "source": located.source, "items": located.items, "consumers": consumers.collect::<Vec<_>>(),
    })
}

/// What a running weir says of a record that it holds for a consumer.
fn live_text(now: &StandingOf) -> String {
    let failed = match (now.attempts, &now.error) {
        (0, _) => String::new(),
        (attempts, error) => {
            format!(
                " after {}: {}",
                counted(u64::from(attempts), "failed attempt"),
                error.as_deref().unwrap_or("no reason is known")
            )
        }
    };
    let next = now.next_attempt_seconds.and_then(|next| Duration::try_from_secs_f64(next).ok());
    let next = next.map(|next| format!("; tried again in {}", span(next))).unwrap_or_default();
    format!("held: {}{failed}{next}", if now.parked { "waits" } else { "under way" })
}

/// What can be said of a consumer and a record.
fn standing(found: &Found, consumer: &ConsumerStock, record: &JournalRecord) -> &'static str {
    let takes = found.takes(&consumer.name, &record.source);
    if takes == Some(false) {
        "does not take this source"
    } else if record.offset >= consumer.committed {
        if consumer.is_of_state {
            "held: read or not, its state is not saved up to here yet"
        } else {
            "held: not delivered yet, or not confirmed"
        }
    } else if consumer.delivered == 0 && consumer.dropped.is_empty() {
        "passed: it does not take this source, or began after this record"
    } else if consumer.dropped.is_empty() {
        if takes == Some(true) { "delivered" } else { "delivered, if it takes this source" }
    } else if consumer.delivered == 0 {
        "dropped, for a reason that `weir journal ls` counts"
    } else {
        "delivered, or dropped for a reason that `weir journal ls` counts"
    }
}

/// Has the weir that runs let go what it holds for a consumer. `None`: none runs, or none that answers.
fn rm_running(found: &Found, consumer: &str, yes: bool, out: &mut dyn Write) -> Result<Option<u8>, Failed> {
    let away = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    let ask = |path: &str, body: Option<&[u8]>| local::ask(&found.socket, path, body);
    let unanswered = |error: io::Error| Failed::Running(unanswered(&found.socket, &error));
    if !yes {
        let answer = match ask("/v1/live", None) {
            Err(error) if away(&error) => return Ok(None),
            answer => answer.map_err(unanswered)?,
        };
        let report: Report = read_answer(answer).map_err(unanswered)?;
        let orphans: Vec<_> = report.orphans.iter().filter(|orphan| orphan.consumer == *consumer).collect();
        if orphans.is_empty() && report.consumers.iter().any(|known| known.name == *consumer) {
            return Err(Failed::Wrong(RemoveError::Configured(consumer.to_owned()).to_string()));
        }
        for Orphan { topic, held, .. } in orphans {
            let held = Lag { records: held.records, items: held.items, bytes: held.bytes };
            writeln!(out, "{topic}  {consumer}: holds up to {}", amount_text(held))?;
        }
        out.flush()?;
        return Err(Failed::Wrong(NOT_YET.to_owned()));
    }
    let body = serde_json::to_vec(&Removal { consumer: consumer.to_owned() }).map_err(io::Error::from)?;
    let answer = match ask("/v1/remove", Some(&body)) {
        Err(error) if away(&error) => return Ok(None),
        answer => answer.map_err(unanswered)?,
    };
    match answer.status {
        200 => {}
        404 | 409 => return Err(Failed::Wrong(refusal(answer))),
        _ => return Err(Failed::Running(refusal(answer))),
    }
    let Removed { held, items } = read_answer(answer).map_err(unanswered)?;
    if items == 0 && held.records == 0 {
        writeln!(out, "nothing is held for `{consumer}` any more")?;
    } else {
        writeln!(
            out,
            "removed by the weir that runs: {} of `{consumer}` are dropped{{removed}} in its books now; {} of the journal are no longer held for it",
            counted(items, "item"),
            size(held.bytes)
        )?;
    }
    Ok(Some(0))
}

/// # Errors
/// It is too long, or is not what is expected.
fn read_answer<T: DeserializeOwned>(answer: local::Answer) -> io::Result<T> {
    Ok(serde_json::from_slice(&answer.whole(STANDINGS_BYTES_MAX)?)?)
}

fn rm(found: &Found, args: &RmArgs, out: &mut dyn Write) -> Result<u8, Failed> {
    if let Some(consumer) = &args.consumer
        && let Some(code) = rm_running(found, consumer, args.yes, out)?
    {
        return Ok(code);
    }
    let what = match (&args.consumer, &args.topic) {
        (Some(consumer), _) => What::Consumer(consumer),
        (None, Some(topic)) => What::Topic(topic),
        (None, None) => return Err(Failed::Wrong("name a --consumer or a --topic".to_owned())),
    };
    let removals = found.journal.removal(what)?;
    let used = removals.iter().flat_map(|removal| &removal.consumers).find(|(name, _)| found.has(name));
    if let Some((name, _)) = used {
        return Err(Failed::Wrong(format!(
            "`{name}` is in this configuration and would begin anew at what comes next: take it out of the configuration first"
        )));
    }
    for removal in &removals {
        if matches!(what, What::Topic(_)) {
            writeln!(out, "{}/{}: {}", removal.topic, removal.shard, amount_text(removal.records))?;
        }
        for (consumer, held) in &removal.consumers {
            writeln!(out, "{}/{}  {consumer}: holds up to {}", removal.topic, removal.shard, amount_text(*held))?;
        }
    }
    if !args.yes {
        out.flush()?;
        return Err(Failed::Wrong(NOT_YET.to_owned()));
    }
    let released = found.journal.remove(what)?;
    writeln!(out, "removed; {} with {} let go", counted(released.segments as u64, "segment"), size(released.bytes))?;
    Ok(0)
}

fn amount(lag: Lag) -> Value {
    json!({ "records": lag.records, "items": lag.items, "bytes": lag.bytes })
}

pub(super) fn amount_text(lag: Lag) -> String {
    format!("{}  {}  {}", counted(lag.records, "record"), counted(lag.items, "item"), size(lag.bytes))
}

pub(super) fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// `3d4h`, `2h5m`, `1m20s`, `0.3s`
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// RFC 3339.
pub(super) fn time(at: UnixNanos) -> String {
    Timestamp::from_nanosecond(i128::from(at.0)).map_or_else(|_| format!("{} ns", at.0), |at| at.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use clap::Parser;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message as _;
    use tempfile::TempDir;
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        admin::Amount,
        cli::{Arguments, arguments::Command},
        journal::{
            Directory, LagBound, NewRecord, OnOverflow, Persistence, Settled, Shard as _, SourceId, Sources, Subscriber, Topic,
            TopicId,
        },
        otlp::tests::{request, span},
        signal::{Batch, Context},
    };

    pub(in crate::cli) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    pub(in crate::cli) async fn written(path: &std::path::Path) {
        let wish = Persistence {
            directory: path.to_owned(),
            sync: false,
            bytes_max: Some(16 << 20),
            letters_bytes_max: None,
            shards: 1,
            offset_reset: crate::journal::OffsetReset::Latest,
        };
        let directory = Directory::open(&wish, vec!["traces".to_owned()], &["otlp".to_owned()], Clock::system()).unwrap();
        let room = Arc::new(Notify::new());
        let shard = directory.shard(TopicId(0), "traces", Signal::Traces, 0, 1 << 40, room.clone()).unwrap();
        let topic = Topic::of(TopicId(0), "traces".to_owned(), Signal::Traces, room, vec![shard.clone()]);
        let subscriber = |name: &str| Subscriber {
            name: name.into(),
            sources: Sources::of([SourceId(0)]),
            bound: LagBound::NONE,
            on_overflow: OnOverflow::SkipOldest,
            is_stateful: false,
        };
        let mut forward = topic.cursor(&subscriber("otlp_grpc/forward in pipeline traces"));
        let _old = topic.cursor(&Subscriber { is_stateful: true, ..subscriber("old") });
        let id = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes().to_vec();
        for number in 0..4_u8 {
            let other = Span { trace_id: vec![number + 1; 16], ..span("other") };
            let mine = Span { trace_id: id.clone(), ..span("mine") };
            let spans = if number % 2 == 0 { vec![other, mine] } else { vec![other] };
            let batch = Batch {
                signal: Signal::Traces,
                items: spans.len() as u64,
                payload: request(spans).encode_to_vec().into(),
                context: Arc::new(Context { auth: vec![("user".into(), "secret".into())], ..Context::default() }),
                index: None,
            };
            let record =
                NewRecord { source: SourceId(0), received: UnixNanos(1_700_000_000_000_000_000), batch, derived_from: None };
            topic.append(0, record).await.unwrap();
        }
        let mut records = Vec::new();
        forward.read(2, 1 << 20, &mut records);
        for record in records {
            forward.settle(record.position, &Settled::delivered(record.batch.items));
        }
        shard.close();
    }

    /// The exit code and what is printed, or the error.
    pub(in crate::cli) fn weir(path: &std::path::Path, words: &[&str]) -> Result<(u8, String), String> {
        let all = ["weir", "journal", "--data-dir", path.to_str().unwrap()].into_iter().chain(words.iter().copied());
        let Some(Command::Journal(args)) = Arguments::try_parse_from(all).map_err(|error| error.to_string())?.command else {
            panic!("another command")
        };
        let mut out = Vec::new();
        let code = execute(&args, &mut out).map_err(|error| error.to_string())?;
        Ok((code, String::from_utf8(out).unwrap()))
    }

    #[tokio::test]
    async fn every_command_says_what_is_there() {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        assert!(weir(path, &["ls"]).unwrap_err().contains("--data-dir"));
        written(path).await;
        let weir = |words: &[&str]| weir(path, words);
        let (_, ls) = weir(&["ls"]).unwrap();
        assert!(ls.contains("traces/0  4 records  6 items"), "{ls}");
        assert!(ls.contains("otlp_grpc/forward in pipeline traces  held 2 records  3 items"), "{ls}");
        assert!(ls.contains("committed 2  delivered 3\n"), "{ls}");
        assert!(
            ls.contains("  old  held 4 records") && ls.contains("committed 0  delivered 0  (as of its last saved state"),
            "{ls}"
        );
        let json: Value = serde_json::from_str(&weir(&["ls", "--json"]).unwrap().1).unwrap();
        assert_eq!(json["shards"][0]["consumers"][0]["held"]["items"], 6);
        let (_, lines) = weir(&["inspect", "traces", "--from", "1", "--limit", "2"]).unwrap();
        assert!(lines.starts_with("1  2023-11-14T22:13:20Z  otlp  1 item  ") && lines.lines().count() == 2, "{lines}");
        assert!(lines.contains("auth.user") && !lines.contains("secret"), "{lines}");
        assert!(weir(&["inspect", "logs"]).unwrap_err().contains("`traces`"));
        assert_eq!(weir(&["verify"]).unwrap().0, 0);
        let (_, dump) = weir(&["dump", "--trace-id", TRACE]).unwrap();
        assert_eq!((dump.lines().count(), dump.matches("\"mine\"").count(), dump.contains("other")), (2, 2, false), "{dump}");
        let line: Value = serde_json::from_str(dump.lines().next().unwrap()).unwrap();
        assert_eq!(line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"], TRACE);
        assert_eq!(weir(&["dump", "traces", "--from", "3"]).unwrap().1.lines().count(), 1);
        assert_eq!(weir(&["dump", "--service", "nobody"]).unwrap().1, "");
        let (_, found) = weir(&["where", &TRACE.to_uppercase()]).unwrap();
        assert!(found.contains("offset 0") && found.contains("offset 2") && !found.contains("offset 1"), "{found}");
        assert!(found.contains("forward in pipeline traces  delivered") && found.contains("  held"), "{found}");
        let forward = "otlp_grpc/forward in pipeline traces";
        assert!(found.ends_with(&format!("in short: held by old, {forward}; delivered by {forward}\n")), "{found}");
        assert!(weir(&["where", &"9".repeat(32)]).unwrap().1.contains("not in the journal"));
        assert!(weir(&["where", "xyz"]).unwrap_err().contains("32 hexadecimal"));
    }

    /// A weir that gives these answers, one a connection, in order.
    fn answering(socket: &std::path::Path, answers: Vec<String>) -> std::thread::JoinHandle<Vec<String>> {
        use std::io::{BufRead as _, BufReader, Read as _};
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                let (mut first, mut length) = (String::new(), 0);
                stream.read_line(&mut first).unwrap();
                loop {
                    let mut header = String::new();
                    stream.read_line(&mut header).unwrap();
                    match header.trim_end().split_once(": ") {
                        Some(("content-length", bytes)) => length = bytes.parse().unwrap(),
                        Some(_) => {}
                        None => break,
                    }
                }
                stream.read_exact(&mut vec![0; length]).unwrap();
                write!(stream.get_mut(), "HTTP/1.0 200 OK\r\n\r\n{answer}").unwrap();
                asked.push(first);
            }
            asked
        })
    }

    #[tokio::test]
    async fn what_a_running_weir_has_in_memory_is_told_beside_what_lies_on_disk() {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        written(path).await;
        let standing = StandingOf {
            record: RecordPlace { topic: "traces".to_owned(), shard: 0, offset: 2 },
            consumer: "otlp_grpc/forward in pipeline traces".to_owned(),
            parked: true,
            attempts: 4,
            error: Some("UNAVAILABLE: try later".to_owned()),
            next_attempt_seconds: Some(1.5),
        };
        let mut report = live::tests::report();
        report.consumers[0].name = "old".to_owned();
        let answers = vec![
            serde_json::to_string(&Standings { standings: vec![standing] }).unwrap(),
            serde_json::to_string(&report).unwrap(),
        ];
        let running = answering(&path.join(SOCKET), answers);
        let (_, told) = weir(path, &["where", TRACE]).unwrap();
        assert!(
            told.contains(
                "forward in pipeline traces  held: waits after 4 failed attempts: UNAVAILABLE: try later; tried again in 1.5s"
            ),
            "{told}"
        );
        assert!(told.contains("old  held: waits its turn; the destination has failed for 1m19s: connection refused"), "{told}");
        assert!(told.contains("forward in pipeline traces  delivered"), "{told}");
        let asked = running.join().unwrap();
        assert!(asked[0].starts_with("POST /v1/standing ") && asked[1].starts_with("GET /v1/live "), "{asked:?}");
        // Its listener is gone: what lies on disk is told all the same.
        let (code, told) = weir(path, &["where", TRACE]).unwrap();
        assert!(code == 0 && told.contains("forward in pipeline traces  held: not delivered yet"), "{told}");
    }

    #[tokio::test]
    async fn a_weir_that_runs_lets_go_itself_what_it_holds_for_who_is_gone() {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        written(path).await;
        let held = Amount { records: 4, items: 6, bytes: 600 };
        let mut report = live::tests::report();
        report.orphans[0] = Orphan { consumer: "old".to_owned(), topic: "traces".to_owned(), held, removed_items: 0 };
        let report = serde_json::to_string(&report).unwrap();
        let removed = serde_json::to_string(&Removed { held, items: 6 }).unwrap();
        let again = serde_json::to_string(&Removed { held: Amount::default(), items: 0 }).unwrap();
        let running = answering(&path.join(SOCKET), vec![report.clone(), report, removed, again]);
        let remove = |words: &[&str]| weir(path, &[&["rm", "--consumer"], words].concat());
        assert!(remove(&["old"]).unwrap_err().contains("--yes"));
        let known = "otlp_grpc/eu in pipeline traces";
        assert!(remove(&[known]).unwrap_err().contains("is in the configuration that runs"));
        let done = remove(&["old", "--yes"]).unwrap().1;
        assert!(done.contains("6 items of `old` are dropped{removed}"), "{done}");
        assert_eq!(remove(&["old", "--yes"]).unwrap().1, "nothing is held for `old` any more\n");
        let asked: Vec<String> = running.join().unwrap();
        let paths: Vec<&str> = asked.iter().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(paths, ["/v1/live", "/v1/live", "/v1/remove", "/v1/remove"]);
        assert!(weir(path, &["ls"]).unwrap().1.contains("  old  "), "nothing was done behind its back");
    }

    #[tokio::test]
    async fn removing_asks_first_and_spares_who_is_configured() {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        written(path).await;
        assert!(weir(path, &["rm", "--consumer", "old"]).unwrap_err().contains("--yes"));
        assert!(weir(path, &["ls"]).unwrap().1.contains("  old  "));
        let (_, done) = weir(path, &["rm", "--consumer", "old", "--yes"]).unwrap();
        assert!(done.contains("removed"), "{done}");
        assert!(!weir(path, &["ls"]).unwrap().1.contains("  old  "));
        let config = "yaml:{receivers: {otlp: {protocols: {grpc: }}}, exporters: {otlp_grpc/forward: {endpoint: 'x:4317'}}, service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc/forward]}}}}";
        let known = "otlp_grpc/forward in pipeline traces";
        let kept = weir(path, &["--config", config, "rm", "--consumer", known, "--yes"]).unwrap_err();
        assert!(kept.contains("take it out of the configuration"), "{kept}");
        assert!(weir(path, &["--config", config, "where", TRACE]).unwrap().1.contains("traces  delivered\n"));
    }
}
