//! `weir journal letters`, `replay`, and what the other commands say of dead letters.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    FAILED, UNDELIVERED,
    arguments::{DumpArgs, LetterArgs, ReplayArgs, RmArgs, Since, TraceId},
    journal_commands::{Failed, Filter, Found, NOT_YET, amount_text, counted, lost_text, size, span, time},
    run::say,
};
use crate::{
    journal::{
        Lag, LetterFilter, Note, Refusal, ReplayRequest, RequestFile,
        inspect::{FoundLetter, Journal, LostRecords},
    },
    otlp::json,
    runtime::Clock,
    signal::UnixNanos,
};

/// How long a weir that runs may take to see a request: it looks each second.
const TAKEN_WITHIN: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(50);

/// Letters of one consumer with one reason.
#[derive(Default)]
struct Sum {
    lag: Lag,
    oldest: Option<UnixNanos>,
    newest: Option<UnixNanos>,
    /// Of the newest.
    message: String,
}

impl Sum {
    fn add(&mut self, letter: FoundLetter) {
        let Note { refused, message, .. } = letter.note;
        self.lag = self.lag.plus(Lag { records: 1, items: letter.items, bytes: letter.payload.len() as u64 });
        self.oldest = Some(self.oldest.map_or(refused, |oldest| oldest.min(refused)));
        if self.newest.is_none_or(|newest| newest <= refused) {
            (self.newest, self.message) = (Some(refused), message);
        }
    }
}

type Sums = BTreeMap<(Arc<str>, Refusal), Sum>;

/// What a person named.
fn filter(which: &LetterArgs) -> LetterFilter {
    let since = which.since.map(|since| match since {
        Since::At(at) => at,
        Since::Ago(ago) => UnixNanos(Clock::system().now().0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))),
    });
    LetterFilter { consumer: which.consumer.clone(), reason: which.reason, since }
}

/// Sums up the letters that `takes` names. Returns whether all could be read.
fn sum(journal: &Journal, mut takes: impl FnMut(&FoundLetter) -> bool) -> Result<(Sums, u8), Failed> {
    let (mut sums, mut code) = (Sums::new(), 0);
    journal.letters::<Failed>(|letter| {
        match letter {
            Ok(letter) if takes(&letter) => {
                sums.entry((letter.note.consumer.clone(), letter.note.reason)).or_default().add(letter);
            }
            Ok(_) => {}
            Err(lost) => code = damaged(&lost),
        }
        Ok(())
    })?;
    Ok((sums, code))
}

fn damaged(lost: &LostRecords) -> u8 {
    say(&format!("weir: dead letters {}", lost_text(lost)));
    FAILED
}

fn age(at: Option<UnixNanos>) -> Duration {
    at.map_or(Duration::ZERO, |at| Duration::from_nanos(Clock::system().now().0.saturating_sub(at.0)))
}

/// How many there are of all consumers.
pub(super) fn total(journal: &Journal) -> Result<Lag, Failed> {
    let (sums, _) = sum(journal, |_| true)?;
    Ok(sums.values().fold(Lag::default(), |all, sum| all.plus(sum.lag)))
}

pub(super) fn letters_text(lag: Lag) -> String {
    format!("{}  {}  {}", counted(lag.records, "letter"), counted(lag.items, "item"), size(lag.bytes))
}

fn line(consumer: &str, reason: Refusal, sum: &Sum) -> String {
    format!(
        "{consumer}  {}  {}  oldest {}  newest {}\n  {}",
        reason.as_str(),
        letters_text(sum.lag),
        span(age(sum.oldest)),
        span(age(sum.newest)),
        sum.message
    )
}

fn stranger(found: &Found, consumer: &str) -> &'static str {
    if found.plan.is_some() && !found.has(consumer) { "\n  not in this configuration" } else { "" }
}

pub(super) fn letters(found: &Found, which: &LetterArgs, as_json: bool, out: &mut dyn Write) -> Result<u8, Failed> {
    let filter = filter(which);
    let (sums, code) = sum(&found.journal, |letter| filter.takes(&letter.note))?;
    if as_json {
        let all: Vec<Value> = sums
            .iter()
            .map(|((consumer, reason), sum)| {
                json!({
                    "consumer": **consumer,
                    "reason": reason.as_str(),
                    "letters": sum.lag.records,
                    "items": sum.lag.items,
                    "bytes": sum.lag.bytes,
                    "oldest": sum.oldest.map(time),
                    "newest": sum.newest.map(time),
                    "message": sum.message,
                    "in_configuration": found.plan.as_ref().map(|_| found.has(consumer)),
                })
            })
            .collect();
        let whole = json!({ "directory": found.journal.path().display().to_string(), "letters": all });
        writeln!(out, "{whole:#}")?;
        return Ok(code);
    }
    if sums.is_empty() {
        writeln!(out, "no dead letters")?;
    }
    for ((consumer, reason), sum) in &sums {
        writeln!(out, "{}{}", line(consumer, *reason, sum), stranger(found, consumer))?;
    }
    Ok(code)
}

pub(super) fn replay(found: &Found, args: &ReplayArgs, out: &mut dyn Write) -> Result<u8, Failed> {
    let (filter, asked) = (filter(&args.which), Clock::system().now());
    let (mut left, mut to, mut spared) = (if args.limit == 0 { u64::MAX } else { args.limit }, 0, 0_u64);
    let mut meant = Vec::new();
    let (sums, code) = sum(&found.journal, |letter| {
        if filter.takes(&letter.note) && !filter.replays(&letter.note) {
            spared += 1;
        }
        let takes = left > 0 && filter.replays(&letter.note);
        if takes {
            (left, to) = (left - 1, letter.offset + 1);
            if args.wait {
                meant.push((letter.offset, Key::of(&letter.note)));
            }
        }
        takes
    })?;
    for ((consumer, reason), sum) in &sums {
        writeln!(out, "{}{}", line(consumer, *reason, sum), stranger(found, consumer))?;
    }
    if spared > 0 {
        let which = Refusal::Partial.as_str();
        writeln!(
            out,
            "{} with the reason `{which}` left out: the backend took some of it, and would have that twice (--reason {which})",
            counted(spared, "letter")
        )?;
    }
    if sums.is_empty() {
        writeln!(out, "no dead letter to be replayed")?;
        return Ok(code);
    }
    if args.dry_run {
        writeln!(out, "nothing was asked for (--dry-run)")?;
        return Ok(code);
    }
    let file = found.journal.ask_for_replay(&ReplayRequest { filter, to, asked })?;
    out.flush()?;
    let mut waited = Duration::ZERO;
    while file.waits() && waited < TAKEN_WITHIN {
        std::thread::sleep(LOOK);
        waited += LOOK;
    }
    if file.waits() {
        writeln!(out, "no weir runs on this directory: the next start sends them")?;
        return Ok(if args.wait { UNDELIVERED } else { code });
    }
    if args.wait {
        out.flush()?;
        return wait(found, &file, &meant, args.timeout, out).map(|waited| waited.max(code));
    }
    writeln!(out, "weir sends them now; `weir journal letters` shows what is left, its log what became of them")?;
    Ok(code)
}

/// What a letter and the one that it becomes when it is refused again have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key(Arc<str>, Arc<str>, u16, u64);

impl Key {
    fn of(note: &Note) -> Self {
        Self(note.consumer.clone(), note.origin.topic.clone(), note.origin.shard, note.origin.offset)
    }
}

/// Waits until all that was asked for was tried, and says what became of it: 0 all delivered, 1 some refused again or sent to nobody, 3 not all tried.
fn wait(found: &Found, file: &RequestFile, meant: &[(u64, Key)], timeout: Duration, out: &mut dyn Write) -> Result<u8, Failed> {
    let began = Instant::now();
    while !file.is_done() && began.elapsed() < timeout {
        std::thread::sleep(LOOK);
    }
    let is_done = file.is_done();
    let (mut there, mut back) = (BTreeSet::new(), BTreeMap::<Key, u64>::new());
    let offsets: BTreeSet<u64> = meant.iter().map(|(offset, _)| *offset).collect();
    found.journal.letters::<Failed>(|letter| {
        if let Ok(letter) = letter {
            if offsets.contains(&letter.offset) {
                there.insert(letter.offset);
            } else {
                *back.entry(Key::of(&letter.note)).or_default() += 1;
            }
        }
        Ok(())
    })?;
    let (mut delivered, mut refused) = (0_u64, 0_u64);
    for (_, key) in meant.iter().filter(|(offset, _)| !there.contains(offset)) {
        match back.get_mut(key).filter(|letters| **letters > 0) {
            Some(letters) => {
                *letters -= 1;
                refused += 1;
            }
            None => delivered += 1,
        }
    }
    let left = there.len() as u64;
    let still = if is_done { "not sent (see weir's log)" } else { "not tried yet: weir goes on with them" };
    writeln!(out, "{} delivered, {refused} refused again and kept, {left} {still}", counted(delivered, "letter"))?;
    Ok(if !is_done {
        UNDELIVERED
    } else if refused + left > 0 {
        FAILED
    } else {
        0
    })
}

fn letter_json(letter: &FoundLetter) -> Value {
    let Note { consumer, origin, refused, reason, message, attempts, is_processed } = &letter.note;
    json!({
        "offset": letter.offset,
        "consumer": **consumer,
        "reason": reason.as_str(),
        "message": message,
        "refused": time(*refused),
        "received": time(letter.received),
        "attempts": attempts,
        "items": letter.items,
        "topic": *origin.topic,
        "shard": origin.shard,
        "record": origin.offset,
        "processed": is_processed,
    })
}

/// Lines of OTLP/JSON, each with one member more: why it is a letter.
pub(super) fn dump(journal: &Journal, args: &DumpArgs, out: &mut dyn Write) -> Result<u8, Failed> {
    let which = LetterArgs { consumer: args.consumer.clone(), reason: args.reason, since: args.since };
    let filter = filter(&which);
    let mut content = Filter { service: args.service.as_deref(), trace_id: args.trace_id };
    let (mut left, mut code) = (if args.limit == 0 { u64::MAX } else { args.limit }, 0);
    journal.letters::<Failed>(|letter| {
        let letter = match letter {
            Ok(letter) => letter,
            Err(lost) => {
                code = damaged(&lost);
                return Ok(());
            }
        };
        if left == 0 || !filter.takes(&letter.note) {
            return Ok(());
        }
        let Some((payload, _)) = content.apply(letter.signal, &letter.payload, letter.items) else { return Ok(()) };
        let mut body = Vec::new();
        if let Err(error) = json::encode(letter.signal, &payload, &mut body) {
            say(&format!("weir: dead letter {} is no OTLP: {error}", letter.offset));
            code = FAILED;
            return Ok(());
        }
        let inner = body.strip_prefix(b"{").unwrap_or(&body);
        let comma = if inner == b"}" { "" } else { "," };
        write!(out, "{{\"letter\":{}{comma}", letter_json(&letter))?;
        out.write_all(inner)?;
        out.write_all(b"\n")?;
        left -= 1;
        Ok(())
    })?;
    Ok(code)
}

/// The letters that hold parts of a trace.
pub(super) struct OfTrace(Vec<(FoundLetter, u64)>);

impl OfTrace {
    pub(super) fn find(journal: &Journal, trace_id: TraceId) -> Result<(Self, u8), Failed> {
        let mut content = Filter { service: None, trace_id: Some(trace_id) };
        let (mut all, mut code) = (Vec::new(), 0);
        journal.letters::<Failed>(|letter| {
            match letter {
                Ok(letter) => {
                    if let Some((_, items)) = content.apply(letter.signal, &letter.payload, letter.items) {
                        all.push((letter, items));
                    }
                }
                Err(lost) => code = damaged(&lost),
            }
            Ok(())
        })?;
        Ok((Self(all), code))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Why a consumer refused the record, if it did.
    pub(super) fn refusal(&self, consumer: &str, topic: &str, shard: u16, offset: u64) -> Option<String> {
        let is_it = |note: &Note| {
            *note.consumer == *consumer && (&*note.origin.topic, note.origin.shard, note.origin.offset) == (topic, shard, offset)
        };
        let (letter, _) = self.0.iter().find(|(letter, _)| is_it(&letter.note))?;
        Some(format!("{}: {}", letter.note.reason.as_str(), letter.note.message))
    }

    pub(super) fn show(&self, out: &mut dyn Write) -> Result<(), Failed> {
        for (letter, items) in &self.0 {
            let note = &letter.note;
            writeln!(
                out,
                "dead letter {}  of {}/{} offset {}  refused {}  {items} {} of it",
                letter.offset,
                note.origin.topic,
                note.origin.shard,
                note.origin.offset,
                time(note.refused),
                letter.signal.items().replace('_', " "),
            )?;
            writeln!(
                out,
                "  {}  {}: {}  ({})",
                note.consumer,
                note.reason.as_str(),
                note.message,
                counted(u64::from(note.attempts), "attempt")
            )?;
        }
        Ok(())
    }

    pub(super) fn json(&self) -> Vec<Value> {
        self.0
            .iter()
            .map(|(letter, items)| {
                let mut whole = letter_json(letter);
                if let Some(object) = whole.as_object_mut() {
                    let object: &mut Map<String, Value> = object;
                    object.insert("items_of_trace".to_owned(), json!(items));
                }
                whole
            })
            .collect()
    }
}

pub(super) fn rm(journal: &Journal, args: &RmArgs, out: &mut dyn Write) -> Result<u8, Failed> {
    let filter = LetterFilter { consumer: args.consumer.clone(), reason: args.reason, since: None };
    let (sums, code) = sum(journal, |letter| filter.takes(&letter.note))?;
    if sums.is_empty() {
        writeln!(out, "no such dead letter")?;
        return Ok(code);
    }
    for ((consumer, reason), sum) in &sums {
        writeln!(out, "{}", line(consumer, *reason, sum))?;
    }
    if !args.yes {
        out.flush()?;
        return Err(Failed::Wrong(NOT_YET.to_owned()));
    }
    let (removed, released) = journal.remove_letters(&filter)?;
    writeln!(out, "removed {}; {} let go", amount_text(removed).replacen("record", "letter", 1), size(released.bytes))?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use prost::Message as _;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        cli::journal_commands::tests::{TRACE, weir, written},
        journal::{Directory, Letter, Origin, Persistence},
        otlp::tests::{request, span},
        signal::{Batch, Context, Signal},
    };

    const FORWARD: &str = "otlp_grpc/forward in pipeline traces";

    /// Two letters of one consumer and one of another; the first is of a record that is still in the journal.
    async fn refused(path: &Path) {
        written(path).await;
        let wish = Persistence {
            directory: path.to_owned(),
            sync: false,
            bytes_max: Some(16 << 20),
            letters_bytes_max: None,
            shards: 1,
            offset_reset: crate::journal::OffsetReset::Latest,
        };
        let (store, _) = Directory::open(&wish, Vec::new(), &[], Clock::system()).unwrap().letters().unwrap();
        let id = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes().to_vec();
        let letter = |consumer: &str, reason, offset, trace_id: &[u8]| {
            let span = opentelemetry_proto::tonic::trace::v1::Span { trace_id: trace_id.to_vec(), ..span("refused") };
            Letter {
                note: Note {
                    consumer: consumer.into(),
                    origin: Origin { topic: "traces".into(), shard: 0, offset },
                    refused: UnixNanos(1_700_000_000_000_000_000 + offset),
                    reason,
                    message: format!("HTTP 400: {offset} is not taken"),
                    attempts: 1,
                    is_processed: true,
                },
                received: UnixNanos(1_600_000_000_000_000_000),
                batch: Batch {
                    signal: Signal::Traces,
                    payload: request(vec![span]).encode_to_vec().into(),
                    items: 1,
                    context: Arc::new(Context::default()),
                    index: None,
                },
            }
        };
        let letters = [
            letter(FORWARD, Refusal::Rejected, 0, &id),
            letter(FORWARD, Refusal::Partial, 7, &[7; 16]),
            letter("gone in pipeline traces", Refusal::Rejected, 8, &[8; 16]),
        ];
        store.append(&letters.iter().collect::<Vec<_>>(), &[], UnixNanos(1)).unwrap();
    }

    #[tokio::test]
    async fn letters_are_summed_up_shown_and_found_by_their_trace() {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        assert_eq!(
            {
                written(path).await;
                weir(path, &["letters"]).unwrap()
            },
            (0, "no dead letters\n".to_owned())
        );
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        refused(path).await;
        let weir = |words: &[&str]| weir(path, words).unwrap().1;
        let all = weir(&["letters"]);
        assert!(all.contains("forward in pipeline traces  rejected  1 letter  1 item  "), "{all}");
        assert!(all.contains("  partial  1 letter") && all.contains("HTTP 400: 7 is not taken"), "{all}");
        assert!(weir(&["ls"]).contains("dead letters  3 letters  3 items"));
        let json: Value = serde_json::from_str(&weir(&["letters", "--json", "--consumer", "gone"])).unwrap();
        assert_eq!((json["letters"].as_array().unwrap().len(), &json["letters"][0]["items"]), (1, &json!(1)));
        assert_eq!(json["letters"][0]["oldest"], "2023-11-14T22:13:20.000000008Z");
        assert_eq!(weir(&["letters", "--since", "2023-11-14T22:13:20.000000008Z"]).matches("letter ").count(), 1);
        assert_eq!(weir(&["letters", "--since", "1h"]), "no dead letters\n");

        let dump = weir(&["dump", "--letters", "--reason", "rejected", "--trace-id", TRACE]);
        let line: Value = serde_json::from_str(&dump).unwrap();
        assert_eq!((&line["letter"]["consumer"], &line["letter"]["record"]), (&json!(FORWARD), &json!(0)));
        assert_eq!(line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"], TRACE);
        assert_eq!(weir(&["dump", "--letters"]).lines().count(), 3);

        let found = weir(&["where", TRACE]);
        assert!(found.contains("traces  rejected: HTTP 400: 0 is not taken (in the dead letters)"), "{found}");
        assert!(found.contains("rejected by otlp_grpc/forward in pipeline traces"), "{found}");
        let gone = weir(&["where", &"07".repeat(16)]);
        assert!(gone.starts_with("dead letter 1  of traces/0 offset 7") && gone.contains("partial: HTTP 400"), "{gone}");
        assert!(weir(&["where", &"07".repeat(16), "--json"]).contains("\"reason\": \"partial\""));
    }

    #[tokio::test]
    async fn a_replay_is_asked_for_once_and_spares_what_was_taken_in_part() {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        refused(path).await;
        let requests = || std::fs::read_dir(path.join("letters/replays")).unwrap().count();
        let dry = weir(path, &["replay", "--dry-run"]).unwrap().1;
        assert!(dry.contains("1 letter with the reason `partial` left out") && dry.ends_with("(--dry-run)\n"), "{dry}");
        assert!(weir(path, &["replay", "--consumer", "nobody"]).unwrap().1.contains("no dead letter to be replayed"));
        assert_eq!(requests(), 0);
        let asked = weir(path, &["replay", "--limit", "1"]).unwrap().1;
        assert!(asked.contains("rejected  1 letter  ") && asked.ends_with("the next start sends them\n"), "{asked}");
        assert_eq!(requests(), 1);
        assert!(weir(path, &["replay", "--reason", "colour"]).unwrap_err().contains("rejected, refused"));
    }

    #[tokio::test]
    async fn who_waits_for_a_replay_is_told_what_became_of_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        refused(path).await;
        let (nobody, told) = weir(path, &["replay", "--reason", "partial", "--wait"]).unwrap();
        assert!(nobody == UNDELIVERED && told.contains("no weir runs"), "{told}");
        // A weir that delivers the first letter, and has the third one back with another offset.
        let replays = path.join("letters/replays");
        std::fs::remove_dir_all(&replays).unwrap();
        let runs = std::thread::spawn({
            let path = path.to_owned();
            move || {
                let asked = loop {
                    let found = std::fs::read_dir(&replays).ok().and_then(|mut found| found.next());
                    if let Some(found) = found.map(|found| found.unwrap().path())
                        && found.extension().is_some_and(|extension| extension == "asked")
                    {
                        break found;
                    }
                    std::thread::yield_now();
                };
                let taken = asked.with_extension("taken");
                std::fs::rename(&asked, &taken).unwrap();
                let wish = Persistence {
                    directory: path,
                    sync: false,
                    bytes_max: Some(16 << 20),
                    letters_bytes_max: None,
                    shards: 1,
                    offset_reset: crate::journal::OffsetReset::Latest,
                };
                let (store, _) = Directory::open(&wish, Vec::new(), &[], Clock::system()).unwrap().letters().unwrap();
                let all = store.read(&mut crate::journal::Reading::default(), 1 << 20, &|_, _| true).unwrap().unwrap();
                let back = &all[2].1;
                store.append(&[back], &[all[0].0, all[2].0], UnixNanos(2)).unwrap();
                std::fs::remove_file(taken).unwrap();
            }
        });
        let (code, told) = weir(path, &["replay", "--wait"]).unwrap();
        runs.join().unwrap();
        assert!(told.ends_with("1 letter delivered, 1 refused again and kept, 0 not sent (see weir's log)\n"), "{told}");
        assert_eq!(code, FAILED);
    }

    #[tokio::test]
    async fn removing_letters_asks_first_and_takes_those_that_are_named() {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        refused(path).await;
        let count = || weir(path, &["dump", "--letters"]).unwrap().1.lines().count();
        assert!(weir(path, &["rm", "--letters"]).unwrap_err().contains("--yes"));
        assert_eq!(count(), 3);
        let done = weir(path, &["rm", "--letters", "--consumer", "otlp_grpc/forward", "--reason", "partial", "--yes"]).unwrap().1;
        assert!(done.contains("removed 1 letter"), "{done}");
        assert_eq!(count(), 2);
        weir(path, &["rm", "--letters", "--yes"]).unwrap();
        assert_eq!(count(), 0);
        assert_eq!(weir(path, &["rm", "--letters", "--yes"]).unwrap().1, "no such dead letter\n");
        assert_eq!(weir(path, &["verify"]).unwrap().0, 0);
    }
}
