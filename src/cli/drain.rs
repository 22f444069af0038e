//! `weir drain`: has a running weir take no more data, and waits until nothing is held for anyone.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    FAILED, UNDELIVERED, WRONG,
    admin_socket::{find, unanswered},
    arguments::DrainArgs,
    live::ask,
    run::say,
    tap::refusal,
};
use crate::{admin::Report, transport::local};

/// How often is looked what is held.
const LOOK: Duration = Duration::from_millis(200);
/// How often is said who is waited for.
const SAY: Duration = Duration::from_secs(5);

pub(super) fn drain(args: &DrainArgs) -> ExitCode {
    let socket = match find(&args.place) {
        Ok(socket) => socket,
        Err(message) => {
            say(&format!("weir: {message}"));
            return ExitCode::from(WRONG);
        }
    };
    match wait(&socket, args.timeout) {
        Ok(None) => {
            // Where nobody reads it, the exit code says it.
            drop(writeln!(io::stdout(), "drained: nothing is held for anyone, and nothing comes in"));
            ExitCode::SUCCESS
        }
        Ok(Some(left)) => {
            say(&format!("weir: not drained in time, and it goes on: {left}"));
            ExitCode::from(UNDELIVERED)
        }
        Err(message) => {
            say(&format!("weir: {message}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Asks for the drain and waits for its end. `Some`: who is still waited for when time is up.
fn wait(socket: &Path, timeout: Duration) -> Result<Option<String>, String> {
    let begun = Instant::now();
    let answer = local::ask(socket, "/v1/drain", Some(b"{}")).map_err(|error| unanswered(socket, &error))?;
    if answer.status != 200 {
        return Err(refusal(answer));
    }
    let mut said = begun;
    loop {
        let Some(left) = left(&ask(socket)?) else { return Ok(None) };
        if begun.elapsed() >= timeout {
            return Ok(Some(left));
        }
        if said.elapsed() >= SAY {
            said = Instant::now();
            say(&format!("weir: {left}"));
        }
        sleep(LOOK);
    }
}

/// What is waited for; `None`: it is drained.
fn left(report: &Report) -> Option<String> {
    if report.drain.as_deref() != Some("closed") {
        return Some("receivers and connectors are closing".to_owned());
    }
    let holding = report.consumers.iter().filter(|consumer| consumer.lag.records > 0);
    let told: Vec<String> = holding
        .map(|consumer| {
            let error = consumer.destination.as_ref().and_then(|destination| destination.error.as_ref());
            let error = error.or(consumer.requests.error.as_ref()).map(|error| format!(" ({error})"));
            format!("{} items for {}{}", consumer.lag.items, consumer.name, error.unwrap_or_default())
        })
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::Amount, cli::live::tests::report};

    #[test]
    fn drained_is_who_takes_nothing_and_holds_nothing() {
        let mut report = report();
        assert!(left(&report).unwrap().contains("closing"), "nobody asked yet");
        report.drain = Some("closed".to_owned());
        let told = left(&report).unwrap();
        let behind = report.consumers.iter().find(|consumer| consumer.lag.records > 0).unwrap();
        assert!(told.contains(&behind.name) && told.contains(&format!("{} items", behind.lag.items)), "{told}");
        report.consumers.iter_mut().for_each(|consumer| consumer.lag = Amount::default());
        assert_eq!(left(&report), None);
        report.drain = Some("closing".to_owned());
        assert!(left(&report).is_some(), "more may come in");
    }
}
