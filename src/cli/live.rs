//! `weir plan --live`: how a running weir stands, asked once or again and again.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

use super::{
    FAILED, WRONG,
    admin_socket::{find, unanswered},
    arguments::{PlanArgs, PlanForm, SocketPlace},
    run::say,
    tap::refusal,
};
use crate::{
    admin::{Amount, Consumer, Orphan, Replayed, Report, Room, TopicReport},
    transport::local,
};

/// A page of a few hundred consumers has less.
const REPORT_BYTES_MAX: u64 = 16 << 20;
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) fn live(args: &PlanArgs) -> ExitCode {
    if matches!(args.format, PlanForm::Dot | PlanForm::Mermaid) {
        say("weir: --live is shown as text or json");
        return ExitCode::from(WRONG);
    }
    let mut config = args.config.config.clone();
    config.extend(args.file.iter().cloned());
    let place = SocketPlace {
        socket: args.socket.clone().or_else(|| args.config.admin_socket.clone()),
        data_dir: args.config.data_dir.clone(),
        config,
        set: args.config.set.clone(),
    };
    let socket = match find(&place) {
        Ok(socket) => socket,
        Err(message) => {
            say(&format!("weir: {message}"));
            return ExitCode::from(WRONG);
        }
    };
    loop {
        match once(&socket, args) {
            Ok(()) if args.watch => sleep(WATCH_EVERY),
            Ok(()) => return ExitCode::SUCCESS,
            Err(Failed::Out(error)) if error.kind() == ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("weir: {error}"));
                return ExitCode::from(FAILED);
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Socket(String),
    #[error("stdout: {0}")]
    Out(io::Error),
}

fn once(socket: &Path, args: &PlanArgs) -> Result<(), Failed> {
    let report = ask(socket).map_err(Failed::Socket)?;
    let mut out = io::stdout().lock();
    let text = if matches!(args.format, PlanForm::Json) {
        // It came as such.
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    } else {
        let clear = if args.watch && out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        format!("{clear}{}", text(&report))
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failed::Out)
}

/// What the weir that listens there says of itself.
pub(super) fn ask(socket: &Path) -> Result<Report, String> {
    let answer = local::ask(socket, "/v1/live", None).map_err(|error| unanswered(socket, &error))?;
    if answer.status != 200 {
        return Err(refusal(answer));
    }
    let bytes = answer.whole(REPORT_BYTES_MAX).map_err(|error| unanswered(socket, &error))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("{}: the answer is not understood: {error}", socket.display()))
}

/// Writing to a string does not fail.
macro_rules! line {
    ($out:expr, $($what:tt)*) => {
        writeln!($out, $($what)*).expect("writing to a string does not fail")
    };
}

pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    let up = span(report.uptime_seconds);
    line!(out, "weir {} (pid {}), up {up}: {}", report.weir, report.pid, standing(report));
    if let Some(reason) = &report.refusing {
        line!(out, "takes no data: {reason}");
    }
    match &report.journal {
        Some(journal) => {
            line!(out, "journal {}: {} of {}", journal.directory, size(journal.bytes), size(journal.bytes_max));
            let room = |room: &Room| format!("{} of {}", size(room.bytes), size(room.bytes_max));
            line!(out, "  records      {}; no data is taken when this is used up", room(&journal.records));
            line!(out, "  dead letters {}; the oldest go when this is used up", room(&journal.letters));
            let letters = &journal.dead_letters;
            if letters.records > 0 {
                let (count, items) = (counted(letters.records, "dead letter"), counted(letters.items, "item"));
                line!(out, "  {count}, {items}, {}: `weir journal letters` says of whom and why", size(letters.bytes));
            }
        }
        None => line!(out, "journal in memory"),
    }
    line!(out, "\ntopics, since the start");
    let width = report.topics.iter().map(|topic| topic.name.chars().count()).max().unwrap_or(0);
    for TopicReport { name, accepted, held, .. } in &report.topics {
        line!(out, "  {name:<width$}  accepted {}  held {}", amount(accepted), amount(held));
    }
    line!(out, "\nconsumers");
    for consumer in &report.consumers {
        of_consumer(consumer, &mut out);
    }
    orphans(&report.orphans, &mut out);
    let verdict = if report.balanced {
        "the books balance: accepted = delivered + dropped + held, for every consumer"
    } else {
        "THE BOOKS DO NOT BALANCE: this is a fault of weir; please report it with this page"
    };
    line!(out, "\n{verdict}");
    out
}

/// Names of consumers in the first line.
const NAMED_MAX: usize = 3;

/// In one word, or what is wrong.
pub(super) fn standing(report: &Report) -> String {
    if report.state != "ok" {
        return report.state.clone();
    }
    let mut wrong = Vec::new();
    if report.refusing.is_some() {
        wrong.push("NO DATA IS TAKEN".to_owned());
    }
    let has_destination = report.consumers.iter().filter(|consumer| consumer.destination.is_some()).count();
    let fails = |consumer: &&Consumer| consumer.destination.as_ref().is_some_and(|destination| !destination.up);
    let failing: Vec<&str> = report.consumers.iter().filter(fails).map(|consumer| consumer.name.as_str()).collect();
    if !failing.is_empty() {
        let more = failing.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names = failing.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        let these = if failing.len() == 1 { "DESTINATIONS FAILS" } else { "DESTINATIONS FAIL" };
        wrong.push(format!("{} OF {has_destination} {these} ({names}{more}); their data is held", failing.len()));
    }
    if !report.balanced {
        wrong.push("THE BOOKS DO NOT BALANCE".to_owned());
    }
    if wrong.is_empty() { "ok".to_owned() } else { wrong.join("; ") }
}

/// What is held for nobody who runs, and how to be rid of it.
fn orphans(all: &[Orphan], out: &mut String) {
    let held: Vec<&Orphan> = all.iter().filter(|orphan| orphan.held.records > 0).collect();
    if held.is_empty() {
        return;
    }
    line!(out, "\nheld for consumers that are not in the configuration, until they are back or it is let go");
    let mut before = "";
    for Orphan { consumer, topic, held, .. } in held {
        if consumer != before {
            line!(out, "  {consumer}");
            line!(out, "    let it go    weir journal rm --consumer {} --yes", quoted(consumer));
            before = consumer;
        }
        line!(out, "    in {topic:<9} at most {}", amount(held));
    }
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn of_consumer(consumer: &Consumer, out: &mut String) {
    line!(out, "  {}", consumer.name);
    let oldest = if consumer.lag.items > 0 { format!(", the oldest {} old", span(consumer.lag_seconds)) } else { String::new() };
    line!(out, "    behind       {}{oldest}", amount(&consumer.lag));
    match &consumer.rate {
        Some(rate) => line!(
            out,
            "    rate         {:.1} items/s in, {:.1} items/s out (last {:.0} s)",
            rate.came_in,
            rate.went_out,
            rate.over_seconds
        ),
        None => line!(out, "    rate         not known yet"),
    }
    if let Some(destination) = &consumer.destination {
        if destination.up {
            line!(out, "    destination  up");
        } else {
            let since = destination.failing_seconds.map(span).unwrap_or_default();
            let next = destination.next_attempt_seconds.map(|next| format!(", next in {}", span(next))).unwrap_or_default();
            let error = destination.error.as_deref().unwrap_or("no reason is known");
            line!(
                out,
                "    destination  FAILING for {since}, {} in a row{next}: {error}",
                counted(u64::from(destination.failures), "attempt")
            );
        }
    }
    let requests = &consumer.requests;
    if requests.under_way > 0 {
        let what = counted(requests.under_way, "request");
        line!(out, "    under way    {what}, {}", size(requests.under_way_bytes));
    }
    if requests.waiting > 0 {
        let what = counted(requests.waiting, "request");
        let of_destination = || consumer.destination.as_ref().and_then(|destination| destination.next_attempt_seconds);
        let next = requests.next_try_seconds.or_else(of_destination).map(|next| format!(", next try in {}", span(next)));
        line!(out, "    waiting      {what}, {}{}", size(requests.waiting_bytes), next.unwrap_or_default());
    }
    if requests.parked > 0 {
        let what = counted(requests.parked, "request");
        let next = requests.next_attempt_seconds.map(|next| format!(", next in {}", span(next))).unwrap_or_default();
        let error = requests.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        line!(out, "    parked       {what}, {}{next}{error}", size(requests.parked_bytes));
    }
    let Replayed { delivered, delivered_items, refused } = consumer.replayed;
    if delivered + refused > 0 {
        line!(
            out,
            "    replayed     {} delivered ({}), {refused} refused again and kept, since the start",
            counted(delivered, "dead letter"),
            counted(delivered_items, "item")
        );
    }
    let books = &consumer.books;
    let dropped: u64 = books.dropped.values().sum();
    let mut reasons = String::new();
    for (reason, items) in &books.dropped {
        let separator = if reasons.is_empty() { " (" } else { ", " };
        // What is refused for good.
        let where_to = if reason == "rejected" { ", to the dead letters" } else { "" };
        write!(reasons, "{separator}{reason} {items}{where_to}").expect("writing to a string does not fail");
    }
    if !reasons.is_empty() {
        reasons.push(')');
    }
    let sign = if books.balanced { "=" } else { "≠" };
    line!(
        out,
        "    books        accepted {} {sign} delivered {} + dropped {dropped}{reasons} + held {}",
        books.accepted,
        books.delivered,
        books.held
    );
}

fn amount(amount: &Amount) -> String {
    format!("{}, {}, {}", counted(amount.items, "item"), counted(amount.records, "record"), size(amount.bytes))
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn size(bytes: u64) -> String {
    super::journal_commands::size(bytes)
}

fn span(seconds: f64) -> String {
    super::journal_commands::span(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::admin::{Books, Destination, Flights, Rate};

    pub(in crate::cli) fn report() -> Report {
        let lag = Amount { records: 2, items: 90, bytes: 2048 };
        let consumer = Consumer {
            name: "otlp_grpc/eu in pipeline traces".to_owned(),
            pipeline: "traces".to_owned(),
            component: "otlp_grpc/eu".to_owned(),
            signal: "traces".to_owned(),
            lag,
            lag_seconds: 80.0,
            rate: Some(Rate { came_in: 12.34, went_out: 0.0, over_seconds: 10.0 }),
            books: Books {
                accepted: 100,
                delivered: 7,
                dropped: BTreeMap::from([("rejected".to_owned(), 3)]),
                held: 90,
                balanced: true,
            },
            requests: Flights {
                under_way: 1,
                under_way_bytes: 10,
                waiting: 3,
                waiting_bytes: 2048,
                next_try_seconds: None,
                parked: 2,
                parked_bytes: 1024,
                next_attempt_seconds: Some(1.5),
                error: Some("UNAVAILABLE: try later".to_owned()),
            },
            replayed: Replayed { delivered: 2, delivered_items: 5, refused: 1 },
            destination: Some(Destination {
                up: false,
                failing_seconds: Some(79.0),
                failures: 9,
                error: Some("connection refused".to_owned()),
                next_attempt_seconds: Some(2.0),
            }),
        };
        let topic = TopicReport {
            name: "traces".to_owned(),
            signal: "traces".to_owned(),
            accepted: Amount { records: 3, items: 100, bytes: 3000 },
            held: lag,
        };
        Report {
            version: 1,
            weir: "0.1.0".to_owned(),
            pid: 4711,
            time_unix_nanos: 0,
            uptime_seconds: 100.0,
            state: "ok".to_owned(),
            refusing: None,
            drain: None,
            journal: None,
            topics: vec![topic],
            consumers: vec![consumer],
            orphans: vec![Orphan {
                consumer: "otlp_grpc/old in pipeline traces".to_owned(),
                topic: "traces".to_owned(),
                held: lag,
                removed_items: 0,
            }],
            balanced: true,
        }
    }

    #[test]
    fn a_page_answers_who_is_behind_by_how_much_and_why() {
        let page = text(&report());
        for told in [
            "traces  accepted 100 items, 3 records, 2.9 KiB  held 90 items",
            "behind       90 items, 2 records, 2.0 KiB, the oldest 1m20s old",
            "rate         12.3 items/s in, 0.0 items/s out (last 10 s)",
            "FAILING for 1m19s, 9 attempts in a row, next in 2.0s: connection refused",
            "parked       2 requests, 1.0 KiB, next in 1.5s: UNAVAILABLE: try later",
            "waiting      3 requests, 2.0 KiB, next try in 2.0s",
            "replayed     2 dead letters delivered (5 items), 1 refused again and kept, since the start",
            "up 1m40s: 1 OF 1 DESTINATIONS FAILS (otlp_grpc/eu in pipeline traces); their data is held",
            "accepted 100 = delivered 7 + dropped 3 (rejected 3, to the dead letters) + held 90",
            "weir journal rm --consumer 'otlp_grpc/old in pipeline traces' --yes",
            "in traces    at most 90 items, 2 records, 2.0 KiB",
            "the books balance",
        ] {
            assert!(page.contains(told), "{told}\n{page}");
        }
        let mut wrong = report();
        wrong.balanced = false;
        wrong.consumers[0].books.balanced = false;
        let page = text(&wrong);
        assert!(page.contains("accepted 100 ≠ delivered") && page.matches("DO NOT BALANCE").count() == 2, "{page}");
        let mut well = report();
        well.consumers[0].destination = None;
        assert!(text(&well).contains("up 1m40s: ok\n"));
        well.refusing = Some("the disk is full".to_owned());
        assert!(text(&well).contains("up 1m40s: NO DATA IS TAKEN\ntakes no data: the disk is full\n"));
    }
}
