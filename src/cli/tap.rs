//! `weir tap`: shows what passes through a running weir.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, BufRead as _, ErrorKind, IsTerminal as _, Write},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::ValueEnum as _;
use jiff::{Timestamp, tz::TimeZone};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    FAILED, WRONG,
    admin_socket::{find, unanswered},
    arguments::{TapArgs, TapAt, TapForm, TapSignal},
    run::say,
};
use crate::{
    tap::{Ask, At, End, Form, Lost, Ready, Row},
    transport::local,
};

/// How often is looked whether the reader of our output has gone.
const LOOK_AT_OUTPUT: Duration = Duration::from_millis(500);

/// After so long without an item it is said that none came.
const QUIET: Duration = Duration::from_secs(5);

/// Why it ends early.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Wrong(String),
    #[error("{0}")]
    Socket(String),
    #[error("stdout: {0}")]
    Out(io::Error),
}

pub(super) fn tap(args: &TapArgs) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads it has seen enough.
        Err(Failed::Out(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("weir: {error}"));
            ExitCode::from(if matches!(error, Failed::Wrong(_)) { WRONG } else { FAILED })
        }
    }
}

fn ask_of(args: &TapArgs) -> Ask {
    let at = |at: &TapAt| match at {
        TapAt::Ingest => At::Ingest,
        TapAt::Refused => At::Refused,
        TapAt::Delivered => At::Delivered,
        TapAt::Dropped => At::Dropped,
    };
    let signal = |signal: &TapSignal| match signal {
        TapSignal::Traces => "traces".to_owned(),
        TapSignal::Metrics => "metrics".to_owned(),
        TapSignal::Logs => "logs".to_owned(),
    };
    Ask {
        at: args.at.iter().map(at).collect(),
        signals: args.signal.iter().map(signal).collect(),
        service: args.service.clone(),
        trace_id: args.trace_id.map(|id| format!("{:032x}", u128::from_be_bytes(id.0))),
        name: args.name.clone(),
        errors: args.errors,
        lines_max: args.limit.filter(|limit| *limit > 0),
        seconds: args.duration.map(|duration| duration.as_secs_f64()),
        form: if args.format == TapForm::Json { Form::Otlp } else { Form::Rows },
    }
}

fn run(args: &TapArgs) -> Result<(), Failed> {
    let socket = find(&args.place).map_err(Failed::Wrong)?;
    let ask = serde_json::to_vec(&ask_of(args)).map_err(|error| Failed::Wrong(error.to_string()))?;
    let answer = local::ask(&socket, "/v1/tap", Some(&ask)).map_err(|error| Failed::Socket(unanswered(&socket, &error)))?;
    if answer.status != 200 {
        return Err(Failed::Socket(refusal(answer)));
    }
    let out = io::stdout();
    let shows_at = args.at.len() > 1;
    let mut shown = Shown { args, shows_at, is_ended: false };
    let mut quiet = Some(Instant::now());
    if args.format == TapForm::Text && out.is_terminal() {
        writeln!(out.lock(), "{}", header(shows_at)).map_err(Failed::Out)?;
    }
    let mut body = answer.body;
    body.get_ref().set_read_timeout(Some(LOOK_AT_OUTPUT)).map_err(|error| Failed::Socket(unanswered(&socket, &error)))?;
    let mut line = Vec::new();
    while next_line(&mut body, &socket, &mut line, &mut || waiting(&mut quiet, args))? {
        if shown.line(&line, &mut out.lock())? {
            quiet = None;
        }
        line.clear();
    }
    if shown.is_ended { Ok(()) } else { Err(Failed::Socket("weir is gone: the connection ended".to_owned())) }
}

/// What a refusal says.
pub(super) fn refusal(answer: local::Answer) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let status = answer.status;
    let body = answer.whole(64 << 10).unwrap_or_default();
    serde_json::from_slice(&body).map_or_else(|_| format!("weir answers with status {status}"), |refusal: Refusal| refusal.error)
}

/// Says once that nothing passed yet, and what is asked for: a filter that fits nothing looks like a service that is silent.
fn waiting(quiet: &mut Option<Instant>, args: &TapArgs) {
    if quiet.is_some_and(|since| since.elapsed() >= QUIET) {
        *quiet = None;
        say(&format!("nothing passed for {} s; still waiting for {}", QUIET.as_secs(), wanted(args)));
    }
}

/// What a tap asks for, in words.
fn wanted(args: &TapArgs) -> String {
    let named = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
    let list = |names: Vec<String>, none: &str| if names.is_empty() { none.to_owned() } else { names.join(",") };
    let at = list(args.at.iter().filter_map(|at| named(at.to_possible_value())).collect(), "ingest");
    let signals = list(args.signal.iter().filter_map(|signal| named(signal.to_possible_value())).collect(), "any signal");
    let mut wanted = format!("{signals} at {at}");
    let ask = ask_of(args);
    let filters = [("--service", &ask.service), ("--trace-id", &ask.trace_id), ("--name", &ask.name)];
    let mut parts: Vec<String> =
        filters.into_iter().filter_map(|(flag, value)| value.as_ref().map(|value| format!("{flag} {value}"))).collect();
    parts.extend(args.errors.then(|| "--errors".to_owned()));
    if parts.is_empty() {
        wanted.push_str(", without a filter: is anything sent here? `weir plan --live` shows what was taken");
    } else {
        write!(wanted, " that fits {}", parts.join(" ")).expect("writing to a string does not fail");
    }
    wanted
}

/// Reads up to the next line end; `idle` is called about twice a second meanwhile. False at the end.
fn next_line(
    body: &mut io::BufReader<UnixStream>,
    socket: &Path,
    line: &mut Vec<u8>,
    idle: &mut dyn FnMut(),
) -> Result<bool, Failed> {
    loop {
        match body.read_until(b'\n', line) {
            Ok(_) => return Ok(line.pop() == Some(b'\n')),
            // What was read of the line so far stays in it.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                idle();
                is_output_there()?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(Failed::Socket(unanswered(socket, &error))),
        }
    }
}

/// A reader that goes while nothing passes is noticed too.
fn is_output_there() -> Result<(), Failed> {
    let out = io::stdout();
    let mut fds = [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, Some(&Timespec::default()));
    let [out] = fds;
    if polled.is_ok() && out.revents().contains(PollFlags::ERR) {
        return Err(Failed::Out(ErrorKind::BrokenPipe.into()));
    }
    Ok(())
}

struct Shown<'a> {
    args: &'a TapArgs,
    shows_at: bool,
    is_ended: bool,
}

/// What is no item.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Notice {
    Ready(Ready),
    Lost(Lost),
    End(End),
}

impl Shown<'_> {
    /// Returns whether it was an item.
    fn line(&mut self, line: &[u8], out: &mut impl Write) -> Result<bool, Failed> {
        let is_notice = [&b"{\"ready\":"[..], b"{\"lost\":", b"{\"end\":"].iter().any(|head| line.starts_with(head));
        if is_notice && let Ok(notice) = serde_json::from_slice(line) {
            self.notice(&notice);
            return Ok(false);
        }
        let written = match self.args.format {
            TapForm::Json => out.write_all(line).and_then(|()| out.write_all(b"\n")),
            TapForm::Text => match serde_json::from_slice::<Row<'_>>(line) {
                Ok(row) => writeln!(out, "{}", text(&row, self.shows_at)),
                // Of a newer weir.
                Err(_) => Ok(()),
            },
        };
        written.and_then(|()| out.flush()).map(|()| true).map_err(Failed::Out)
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Ready(Ready { weir, pid, .. }) => {
                say(&format!("connected to weir {weir} (pid {pid}); waiting for what passes"));
            }
            Notice::Lost(Lost { unseen_items, late_lines }) => {
                if *unseen_items > 0 {
                    say(&format!("weir: {unseen_items} items passed faster than a tap can look, and were not looked at"));
                }
                if *late_lines > 0 {
                    say(&format!("weir: {late_lines} lines were left out: this reader is too slow"));
                }
            }
            Notice::End(End { reason }) => {
                self.is_ended = true;
                if reason == "stopping" {
                    say("weir is stopping");
                }
            }
        }
    }
}

fn header(shows_at: bool) -> String {
    let at = if shows_at { format!("{:<9}  ", "AT") } else { String::new() };
    format!(
        "{:<12}  {at}{:<20}  {:<36}  {:<8}  {:>9}  {:<32}  {:<16}  WAY",
        "TIME", "SERVICE", "NAME", "STATUS", "DURATION", "TRACE", "SPAN"
    )
}

/// One item in one line.
fn text(row: &Row<'_>, shows_at: bool) -> String {
    let time = Timestamp::from_nanosecond(i128::from(row.time_unix_nanos)).unwrap_or_default();
    let time = time.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string();
    let at = if shows_at { format!("{:<9}  ", row.at.as_str()) } else { String::new() };
    let status = row.status.as_ref().or(row.kind.as_ref()).map_or("-", |status| &**status);
    let amount = match (row.duration_nanos, row.value, row.points) {
        (Some(nanos), ..) => duration(nanos),
        (None, Some(value), _) => value.to_string(),
        (None, None, Some(points)) => format!("{points} points"),
        (None, None, None) => "-".to_owned(),
    };
    let mut line = format!(
        "{time}  {at}{:<20}  {:<36}  {:<8}  {amount:>9}  {:<32}  {:<16}  ",
        or_dash(Some(&row.service)),
        or_dash(Some(&row.name)),
        printable(status),
        or_dash(row.trace_id.as_deref()),
        or_dash(row.span_id.as_deref()),
    );
    let way = &row.way;
    match (row.at, &way.peer) {
        (At::Ingest | At::Refused, Some(peer)) => write!(line, "{} → {}", printable(peer), printable(&way.component)),
        (At::Ingest | At::Refused, None) => write!(line, "→ {}", printable(&way.component)),
        (At::Delivered | At::Dropped, _) => {
            write!(line, "{} in pipeline {}", printable(&way.component), or_dash(way.pipeline.as_deref()))
        }
    }
    .expect("writing to a string does not fail");
    if let Some(reason) = &way.reason {
        write!(line, "  {}", printable(reason)).expect("writing to a string does not fail");
    }
    if let Some(message) = &way.message {
        write!(line, ": {}", printable(message)).expect("writing to a string does not fail");
    }
    line
}

fn or_dash(text: Option<&str>) -> Cow<'_, str> {
    printable(text.filter(|text| !text.is_empty()).unwrap_or("-"))
}

/// What a sender wrote must not move the cursor of a terminal.
fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        text.chars().map(|c| if c.is_control() { '·' } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

/// `12ns`, `3.4µs`, `5.6ms`, `7.89s`
fn duration(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{:.1}µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}ms", nanos as f64 / 1e6),
        _ => format!("{:.2}s", nanos as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::Way;

    fn row() -> Row<'static> {
        Row {
            at: At::Dropped,
            signal: "traces".into(),
            time_unix_nanos: 1_700_000_000_123_000_000,
            service: "cart".into(),
            name: "GET /\x1b[2Jcart".into(),
            kind: Some("server".into()),
            status: Some("error".into()),
            duration_nanos: Some(12_345_678),
            points: None,
            value: None,
            trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
            span_id: Some("b7ad6b7169203331".into()),
            way: Way {
                component: "otlp_grpc/eu".into(),
                pipeline: Some("traces".into()),
                reason: Some("rejected".into()),
                message: Some("no such\ntenant".into()),
                ..Way::default()
            },
        }
    }

    #[test]
    fn a_tap_that_sees_nothing_says_what_it_waits_for() {
        use crate::cli::{Arguments, arguments::Command};
        use clap::Parser as _;
        let wanted = |words: &[&str]| {
            let Some(Command::Tap(args)) = Arguments::try_parse_from([&["weir", "tap"], words].concat()).unwrap().command else {
                panic!("another command")
            };
            wanted(&args)
        };
        assert!(wanted(&[]).starts_with("any signal at ingest, without a filter"));
        let told = wanted(&["--at", "delivered,dropped", "--signal", "logs", "--service", "cart", "--errors"]);
        assert_eq!(told, "logs at delivered,dropped that fits --service cart --errors");
    }

    #[test]
    fn a_line_is_one_line_whatever_a_sender_wrote() {
        let line = text(&row(), true);
        assert!(!line.contains(char::is_control), "{line:?}");
        for told in [
            "dropped",
            "cart",
            "GET /·[2Jcart",
            "error",
            "12.3ms",
            "b7ad6b7169203331",
            "otlp_grpc/eu in pipeline traces  rejected: no such·tenant",
        ] {
            assert!(line.contains(told), "{told}: {line}");
        }
    }

    #[test]
    fn columns_stand_under_their_names() {
        for shows_at in [false, true] {
            let (header, line) = (header(shows_at), text(&Row { name: "GET /".into(), ..row() }, shows_at));
            for (name, value) in
                [("SERVICE", "cart"), ("NAME", "GET /"), ("STATUS", "error"), ("TRACE", "0af7651916"), ("SPAN", "b7ad")]
            {
                assert_eq!(header.find(name), line.find(value), "{name}\n{header}\n{line}");
            }
        }
    }

    #[test]
    fn notices_are_told_apart_from_what_passes() {
        let args = <crate::cli::Arguments as clap::Parser>::try_parse_from(["weir", "tap", "--format", "json"]).unwrap();
        let Some(crate::cli::arguments::Command::Tap(args)) = args.command else { panic!("another command") };
        let mut shown = Shown { args: &args, shows_at: false, is_ended: false };
        let mut out = Vec::new();
        for line in [
            &b"{\"ready\":{\"version\":1,\"weir\":\"0\",\"pid\":1}}"[..],
            b"{\"resourceSpans\":[],\"weir\":{}}",
            b"{\"lost\":{\"unseen_items\":1,\"late_lines\":2}}",
            b"{\"end\":{\"reason\":\"lines\"}}",
        ] {
            shown.line(line, &mut out).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), "{\"resourceSpans\":[],\"weir\":{}}\n");
        assert!(shown.is_ended);
    }
}
