//! `weir elasticsearch setup`: installs what the exporters of a configuration want of their servers, and says what became of each.

use std::{fmt::Write as _, process::ExitCode};

use super::{FAILED, WRONG, arguments::SetupArgs, run::say, show, start};
use crate::{
    component::{Done, Extent, Installed, Step},
    signal::Signal,
};

pub(super) fn setup(args: &SetupArgs) -> ExitCode {
    let checked = match show::checked(&args.config.with(&args.file)) {
        Err(code) => return code,
        Ok(checked) => checked,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("weir: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    start::show(&checked.loaded.found, &checked.loaded);
    let (mut any, mut failed) = (false, false);
    for built in &checked.built.exporters {
        let consumers = checked.plan.consumers.iter().filter(|consumer| consumer.component == built.id);
        let mut signals: Vec<Signal> = consumers.map(|consumer| consumer.signal).collect();
        signals.sort_unstable();
        signals.dedup();
        let extent = Extent { signals, dry_run: args.dry_run, force: args.force };
        let Some(installing) = built.exporter.install(extent) else { continue };
        any = true;
        match runtime.block_on(installing) {
            Err(reason) => {
                say(&format!("weir: {}: nobody to set up: {reason}", built.id));
                failed = true;
            }
            Ok(installed) => {
                failed |= installed.steps.iter().any(|step| matches!(step.done, Done::Refused(_)));
                if show::put(&told(built.id.as_str(), &installed, args.dry_run)) != ExitCode::SUCCESS {
                    return ExitCode::from(FAILED);
                }
            }
        }
    }
    if !any {
        say(
            "weir: no pipeline of this configuration leads to an `elasticsearch` or `opensearch` exporter: there is nothing to set up",
        );
        return ExitCode::from(WRONG);
    }
    if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

fn told(exporter: &str, installed: &Installed, is_dry: bool) -> String {
    let mut out = format!("{exporter} ({})\n", installed.backend);
    let would = if is_dry { "would be " } else { "" };
    for Step { what, done, request, body } in &installed.steps {
        let line = match done {
            Done::Created => format!("{would}created"),
            Done::Updated => format!("{would}updated"),
            Done::Same => "is as it should be".to_owned(),
            Done::Kept(reason) => format!("kept as it is: {reason} (--force writes over it)"),
            Done::Absent(reason) => format!("left out: {reason}"),
            Done::Refused(reason) => format!("REFUSED: {reason}"),
        };
        let written = writeln!(out, "  {what}: {line}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
        if is_dry && matches!(done, Done::Created | Done::Updated) {
            let indented = body.replace('\n', "\n    ");
            let written = writeln!(out, "    {request}\n    {indented}");
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
        }
    }
    out
}
