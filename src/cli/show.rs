//! Commands that look and do not run: validate, plan, components, print-config, scrape-config, completion.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{
    Arguments, WRONG,
    arguments::{ConfigArgs, ConfigForm, Mode, PlanArgs, PlanForm, PrintConfigArgs, ScrapeConfigArgs, ValidateArgs},
    run::say,
    scrape_config as job,
    start::{self, Checked, TABLES},
};
use crate::{
    component::{Naming, Stability},
    config::{DumpFormat, DumpMode, Level, dump},
    pipeline::Form,
    signal::Signal,
};

/// What was asked for, to stdout; a reader that went away has seen enough.
pub(super) fn put(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("weir: stdout: {error}"));
            ExitCode::from(super::FAILED)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Loads and checks; draws whatever was found when it does not load.
pub(super) fn checked(args: &ConfigArgs) -> Result<Box<Checked>, ExitCode> {
    let loaded = start::load_inputs(args).map_err(|error| {
        say(&format!("weir: {error}"));
        ExitCode::from(WRONG)
    })?;
    start::check(loaded).map_err(|loaded| {
        start::show(&loaded.found, &loaded);
        ExitCode::from(WRONG)
    })
}

pub(super) fn validate(args: &ValidateArgs) -> ExitCode {
    match checked(&args.config.with(&args.file)) {
        Err(code) => code,
        Ok(checked) => {
            start::show(&checked.loaded.found, &checked.loaded);
            let count = |level| checked.loaded.found.found.iter().filter(|found| found.level == level).count();
            let (warnings, ineffective) = (count(Level::Warning), count(Level::Ineffective));
            put(&format!(
                "valid: {}, {}; {}, {} without effect\n",
                counted(checked.file.pipelines.len(), "pipeline"),
                counted(checked.plan.consumers.len(), "consumer"),
                counted(warnings, "warning"),
                counted(ineffective, "key"),
            ))
        }
    }
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

pub(super) fn plan(args: &PlanArgs) -> ExitCode {
    let form = match args.format {
        PlanForm::Text => Form::Text,
        PlanForm::Dot => Form::Dot,
        PlanForm::Mermaid => Form::Mermaid,
        PlanForm::Json => {
            say("weir: --format json goes with --live; a plan is drawn as text, dot or mermaid");
            return ExitCode::from(WRONG);
        }
    };
    match checked(&args.config.with(&args.file)) {
        Err(code) => code,
        Ok(checked) => put(&checked.plan.draw(form)),
    }
}

pub(super) fn scrape_config(args: &ScrapeConfigArgs) -> ExitCode {
    let checked = match checked(&args.config.with(&args.file)) {
        Err(code) => return code,
        Ok(checked) => checked,
    };
    let mut jobs = job::jobs(&checked.file, &checked.plan.exporters);
    jobs.extend(checked.telemetry.page().map(|page| job::own_job(&page.endpoint)));
    if jobs.is_empty() {
        say(
            "weir: no pipeline of this configuration leads to a `prometheus` exporter, and its own metrics are off: there is no page to scrape",
        );
        return ExitCode::from(WRONG);
    }
    put(&job::write(&jobs))
}

pub(super) fn print_config(args: &PrintConfigArgs) -> ExitCode {
    match start::load_inputs(&args.config.with(&args.file)) {
        Err(error) => {
            say(&format!("weir: {error}"));
            ExitCode::from(WRONG)
        }
        Ok(loaded) if loaded.found.has_errors() => {
            start::show(&loaded.found, &loaded);
            ExitCode::from(WRONG)
        }
        Ok(loaded) => {
            let form = match args.format {
                ConfigForm::Yaml => DumpFormat::Yaml,
                ConfigForm::Json => DumpFormat::Json,
            };
            let mode = if args.mode == Mode::Redacted { DumpMode::Redacted } else { DumpMode::Unredacted };
            put(&dump(&loaded.node, mode, form))
        }
    }
}

/// As a Collector lists them.
pub(super) fn components() -> ExitCode {
    let mut out = format!("buildinfo:\n  command: weir\n  version: {}\n", env!("CARGO_PKG_VERSION"));
    let signals = |signals: &[Signal], stability: Stability| -> Vec<String> {
        signals.iter().map(|signal| format!("      {signal}: {}\n", word(stability))).collect()
    };
    section(&mut out, "receivers", TABLES.receivers.iter().map(|row| (row.naming, signals(row.signals, row.naming.stability))));
    section(&mut out, "processors", TABLES.processors.iter().map(|row| (row.naming, signals(row.signals, row.naming.stability))));
    section(&mut out, "exporters", TABLES.exporters.iter().map(|row| (row.naming, signals(row.signals, row.naming.stability))));
    section(
        &mut out,
        "connectors",
        TABLES.connectors.iter().map(|row| {
            let pairs = row.pairs.iter().map(|(from, to)| format!("      {from}-to-{to}: {}\n", word(row.naming.stability)));
            (row.naming, pairs.collect())
        }),
    );
    section(
        &mut out,
        "extensions",
        TABLES.extensions.iter().map(|row| (row.naming, vec![format!("      extension: {}\n", word(row.naming.stability))])),
    );
    put(&out)
}

fn section(out: &mut String, title: &str, rows: impl Iterator<Item = (Naming, Vec<String>)>) {
    writeln!(out, "{title}:").expect("writing to a string does not fail");
    for (naming, stability) in rows {
        writeln!(out, "  - name: {}", naming.type_name).expect("writing to a string does not fail");
        if !naming.aliases.is_empty() {
            writeln!(out, "    aliases: [{}]", naming.aliases.join(", ")).expect("writing to a string does not fail");
        }
        out.push_str("    stability:\n");
        for line in stability {
            out.push_str(&line);
        }
    }
}

const fn word(stability: Stability) -> &'static str {
    match stability {
        Stability::Development => "Development",
        Stability::Alpha => "Alpha",
        Stability::Beta => "Beta",
        Stability::Stable => "Stable",
    }
}

pub(super) fn completion(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "weir", &mut script);
    put(&String::from_utf8_lossy(&script))
}
