//! Commands and flags.

use std::{ffi::OsString, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::config::GoDuration;

/// Receives OpenTelemetry, measures it, passes all of it on.
///
/// Without a command it runs. Without a configuration it takes OTLP on 127.0.0.1:4317 (gRPC) and :4318 (HTTP), shows request rates,
/// errors and durations on http://127.0.0.1:8889/metrics, and forwards to wherever --forward says.
#[derive(Debug, Parser)]
#[command(name = "weir", version, args_conflicts_with_subcommands = true, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

impl Arguments {
    /// The process's arguments; where they are wrong, it says how and ends.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Self {
        let words: Vec<OsString> = words.into_iter().collect();
        Self::try_parse_from(&words).unwrap_or_else(|error| match misplaced_names(&words) {
            Some(names) if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                let message = format!("names of components stand behind `=`: --skip-unsupported={names}\n");
                Self::command().error(ErrorKind::UnknownArgument, message).exit()
            }
            _ => error.exit(),
        })
    }
}

/// What stands behind `--skip-unsupported` with a space between, where it cannot be a command.
pub(super) fn misplaced_names(words: &[OsString]) -> Option<&str> {
    let at = words.iter().position(|word| word == "--skip-unsupported")?;
    let next = words.get(at + 1)?.to_str().filter(|next| !next.starts_with('-'))?;
    Arguments::command().find_subcommand(next).is_none().then_some(next)
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the pipelines (the same as no command).
    Run(RunCommand),
    /// Check a configuration and say what is wrong, old, or without effect.
    Validate(ValidateArgs),
    /// Draw what a configuration becomes: topics, consumers, exporters.
    Plan(PlanArgs),
    /// List the components there are, as YAML.
    Components,
    /// Print the configuration as it is after merging, secrets redacted.
    #[command(alias = "print-initial-config")]
    PrintConfig(PrintConfigArgs),
    /// Print the Prometheus job that scrapes the pages of a configuration.
    ScrapeConfig(ScrapeConfigArgs),
    /// Print the largest part of a Collector file that runs here, and what was left out.
    Migrate(MigrateArgs),
    /// Send the telemetry of an emulated shop, made by the official SDK.
    Demo(crate::demo::DemoArgs),
    /// Print a completion script.
    Completion { shell: clap_complete::Shell },
}

/// Which configuration.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// A file, or file:…, env:…, yaml:…; given several times they are merged, later ones win.
    #[arg(long = "config", short = 'c', value_name = "URI", env = "WEIR_CONFIG", hide_env_values = true, value_delimiter = None)]
    pub config: Vec<String>,
    /// Sets one value after all files: `exporters::otlp::endpoint=host:4317` (dots work too).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Passes everything on to an OTLP backend: `host:4317` and grpc://… by gRPC, http://…:4318 by HTTP. Repeatable.
    #[arg(long, value_name = "URL", env = "WEIR_FORWARD", hide_env_values = true, value_delimiter = ',')]
    pub forward: Vec<String>,
    /// A header for what --forward sends: `Authorization=Bearer …`. Repeatable.
    #[arg(long, value_name = "NAME=VALUE", env = "WEIR_FORWARD_HEADER", hide_env_values = true, value_delimiter = ',')]
    pub forward_header: Vec<String>,
    /// Where accepted data lies until it is delivered: `durable` (synced before the answer, the default), `buffered` (outlives the process)
    /// or `memory`.
    #[arg(long, value_name = "MODE", env = "WEIR_JOURNAL")]
    pub journal: Option<String>,
    /// The directory of what outlives the process.
    #[arg(long, value_name = "DIRECTORY", env = "WEIR_DATA_DIR")]
    pub data_dir: Option<String>,
    /// How much of the disk the journal may take: `10GiB`. Default: half of what is free at the start.
    #[arg(long, value_name = "SIZE", env = "WEIR_JOURNAL_MAX_SIZE")]
    pub journal_max_size: Option<String>,
    /// The Collector's feature gates: accepted, without effect.
    #[arg(long, value_name = "GATES", hide = true)]
    pub feature_gates: Vec<String>,
}

impl ConfigArgs {
    /// With files that were named without a flag, behind those that were named with one.
    pub fn with(&self, files: &[String]) -> Self {
        let mut all = self.clone();
        all.config.extend(files.iter().cloned());
        all
    }
}

#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How long a stop may take to deliver what is held.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = drain_timeout, env = "WEIR_DRAIN_TIMEOUT")]
    pub drain_timeout: Duration,
    /// Leave out what weir does not have and run the rest. Components that remove or mask data must be named to be left out:
    /// `--skip-unsupported=redaction,filter/health`.
    #[arg(long, value_name = "IDS", num_args = 0..=1, require_equals = true, default_missing_value = "", value_delimiter = ',')]
    pub skip_unsupported: Option<Vec<String>>,
}

#[derive(Debug, Clone, Args)]
pub struct RunCommand {
    #[command(flatten)]
    pub run: RunArgs,
    /// A file to run (as --config).
    #[arg(value_name = "FILE")]
    pub file: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// A Collector file, or several to be merged.
    #[arg(value_name = "FILE", required = true)]
    pub file: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A file to check (as --config).
    #[arg(value_name = "FILE")]
    pub file: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct ScrapeConfigArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A file (as --config).
    #[arg(value_name = "FILE")]
    pub file: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A file to draw (as --config).
    #[arg(value_name = "FILE")]
    pub file: Vec<String>,
    #[arg(long, value_enum, default_value_t = PlanForm::Text)]
    pub format: PlanForm,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PlanForm {
    Text,
    Dot,
    Mermaid,
}

#[derive(Debug, Clone, Args)]
pub struct PrintConfigArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A file to print (as --config).
    #[arg(value_name = "FILE")]
    pub file: Vec<String>,
    #[arg(long, value_enum, default_value_t = ConfigForm::Yaml)]
    pub format: ConfigForm,
    /// Print secrets too.
    #[arg(long, value_enum, default_value_t = Mode::Redacted)]
    pub mode: Mode,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ConfigForm {
    Yaml,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Redacted,
    Unredacted,
}

/// A variable that is set to nothing, as compose files do, is one that is not set.
fn drain_timeout(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Ok(Duration::from_secs(30));
    }
    GoDuration::parse(text).ok_or_else(|| "expected a duration such as 500ms, 30s or 2m".to_owned())
}
