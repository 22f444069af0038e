//! Commands and flags.

use std::{ffi::OsString, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::{config::GoDuration, journal::Refusal, signal::UnixNanos};

/// Receives OpenTelemetry, measures it, passes all of it on.
///
/// Without a command it runs. Without a configuration it takes OTLP on 127.0.0.1:4317 (gRPC) and :4318 (HTTP), shows request rates,
/// errors and durations, and the machine it runs on, at http://127.0.0.1:8889/metrics, and forwards to wherever --forward says.
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
    /// Draw what a configuration becomes: topics, consumers, exporters; or, with --live, how a running one does.
    Plan(PlanArgs),
    /// List the components there are, as YAML.
    Components,
    /// Print the configuration as it is after merging, secrets redacted.
    #[command(alias = "print-initial-config")]
    PrintConfig(PrintConfigArgs),
    /// Print the Prometheus job that scrapes the pages of a configuration.
    ScrapeConfig(ScrapeConfigArgs),
    /// Print the largest part of a Collector file that runs here, and what was left out.
    ///
    /// Exit code 0: what is printed validates, and every pipeline is in it. 1: it validates, and whole pipelines were left out; each is said.
    /// 2: nothing is left, or what is printed does not validate and has to be changed by hand; what is wrong with it is said.
    Migrate(MigrateArgs),
    /// Look at the journal on disk, also while weir runs on it.
    Journal(JournalArgs),
    /// Show what passes through a running weir: at the door, or what is delivered or dropped and why.
    ///
    /// At the door it shows data as it came in, before processors mask or change it, and only to the user that weir runs as. weir never waits for it:
    /// what passes faster than it can be shown is left out, and that is said.
    Tap(TapArgs),
    /// Say how a running weir is, by the exit code too: 0 it is well, 1 it is not.
    Health(HealthArgs),
    /// Have a running weir take no more data, and wait until all that it holds is delivered: before its machine or volume goes for good.
    ///
    /// It closes its receivers, so that senders go elsewhere, and goes on delivering until a signal ends it; only a restart takes data again.
    /// Exit code 0: nothing is held any more. 3: something still is (the last line says for whom), and it goes on. 1: no weir answers.
    Drain(DrainArgs),
    /// What the `elasticsearch` and `opensearch` exporters of a configuration want of their servers.
    #[command(subcommand)]
    Elasticsearch(ElasticsearchCommand),
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
    /// Files of which the first that is there is run, where no --config is given; separated by `:`, and `*` stands for a part of a name.
    #[arg(long, value_name = "FILES", env = "WEIR_DEFAULT_CONFIG")]
    pub default_config: Option<String>,
    /// Where the embedded default listens, instead of localhost: `0.0.0.0` in a container. A file says its addresses itself.
    #[arg(long, value_name = "HOST", env = "WEIR_LISTEN")]
    pub listen: Option<String>,
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
    /// How much of that may be dead letters, what a backend refused for good; the oldest go first. Default: a tenth.
    #[arg(long, value_name = "SIZE", env = "WEIR_JOURNAL_MAX_LETTERS")]
    pub journal_max_letters: Option<String>,
    /// The socket for `weir tap` and `weir plan --live`; `off` for none. Default: `admin.sock` in the data directory.
    #[arg(long, value_name = "PATH|off", env = "WEIR_ADMIN_SOCKET")]
    pub admin_socket: Option<String>,
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
    /// Read the configuration again when one of its files changes (SIGHUP does it once).
    #[arg(long, env = "WEIR_WATCH", value_parser = clap::builder::FalseyValueParser::new())]
    pub watch: bool,
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

#[derive(Debug, Subcommand)]
pub enum ElasticsearchCommand {
    /// Install index templates and the lifecycle of indices; what is there already as it should be stays, and so does what a person changed.
    Setup(SetupArgs),
}

#[derive(Debug, Clone, Args)]
pub struct SetupArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A file (as --config).
    #[arg(value_name = "FILE")]
    pub file: Vec<String>,
    /// Ask the servers and say what would be done, with the requests; write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Write over what a person changed, too.
    #[arg(long)]
    pub force: bool,
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
    /// `json` goes with --live.
    #[arg(long, value_enum, default_value_t = PlanForm::Text)]
    pub format: PlanForm,
    /// Ask the weir that runs instead: how far behind each consumer is, how its destination does, and whether the books balance.
    #[arg(long)]
    pub live: bool,
    /// With --live: again and again, each second.
    #[arg(long, requires = "live")]
    pub watch: bool,
    /// With --live: the admin socket of the weir that is meant. Default: found as `weir run` finds its data directory.
    #[arg(long, value_name = "PATH", requires = "live")]
    pub socket: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PlanForm {
    Text,
    Dot,
    Mermaid,
    Json,
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

/// Where the journal lies, found as `weir run` finds it, and what to do with it.
#[derive(Debug, Clone, Args)]
pub struct JournalArgs {
    #[command(flatten)]
    pub place: JournalPlace,
    #[command(subcommand)]
    pub command: JournalCommand,
}

/// Which journal.
#[derive(Debug, Clone, Default, Args)]
pub struct JournalPlace {
    /// The directory of the journal. Default: what the configuration says, else the first of the usual places that holds one.
    #[arg(long, value_name = "DIRECTORY", env = "WEIR_DATA_DIR", global = true)]
    pub data_dir: Option<String>,
    /// The configuration that weir runs: tells where the journal lies, and which consumer reads which receiver.
    #[arg(long = "config", short = 'c', value_name = "URI", env = "WEIR_CONFIG", hide_env_values = true, global = true)]
    pub config: Vec<String>,
    /// Sets one value after all files, as for `run`.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum JournalCommand {
    /// What lies in each topic, and where each consumer stands.
    Ls {
        #[arg(long)]
        json: bool,
    },
    /// One line a record: offset, time received, source, items, bytes, and the keys of the context that came with it.
    Inspect(InspectArgs),
    /// Check every record and every file; exit code 1 when something is damaged.
    Verify {
        /// A topic alone.
        #[arg(value_name = "TOPIC")]
        topic: Option<String>,
    },
    /// Print records as lines of OTLP/JSON, one a record.
    Dump(DumpArgs),
    /// Where a trace is: the records that hold parts of it, and which consumers have them.
    ///
    /// A record is gone from the journal once every consumer has passed it, and a little later its segment is deleted. What is not found here was
    /// delivered to all, was dropped with a reason that `weir journal ls` counts, or never came in.
    Where {
        /// 32 hexadecimal digits.
        #[arg(value_name = "TRACE_ID", value_parser = trace_id)]
        trace_id: TraceId,
        #[arg(long)]
        json: bool,
    },
    /// What backends refused for good: how much of it, of whom, and why.
    Letters {
        #[command(flatten)]
        which: LetterArgs,
        #[arg(long)]
        json: bool,
    },
    /// Deliver dead letters once more, each to the consumer that refused it.
    ///
    /// A weir that runs on the directory does it at once, otherwise the next start. A letter is gone once it is delivered; one that is refused
    /// again is kept, with one more attempt. `partial` letters hold what the backend took, too, and are meant only by `--reason partial`.
    Replay(ReplayArgs),
    /// Let go what is held for a consumer that is no longer in the configuration, a whole topic, or dead letters.
    ///
    /// A weir that runs lets go what it holds for a --consumer itself, asked through its admin socket: done when that is on disk, refused where
    /// the configuration has the consumer, and counted `dropped{removed}` in its books. For a --topic or --letters no weir may run on the
    /// directory.
    Rm(RmArgs),
}

/// Which dead letters.
#[derive(Debug, Clone, Default, Args)]
pub struct LetterArgs {
    /// A consumer, as `weir journal letters` names it, or its component alone.
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// rejected, refused, too_large, partial, given_up, denied or panic.
    #[arg(long, value_name = "REASON", value_parser = refusal)]
    pub reason: Option<Refusal>,
    /// Refused since then: `2h` ago, or a time such as `2026-01-31T12:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
}

#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    pub which: LetterArgs,
    /// At most so many letters, the oldest first; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub limit: u64,
    /// Say which, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// End when all of them were tried. Exit code 0: all were delivered; 1: some were refused again or could not be sent; 3: not all were tried in
    /// time, or no weir runs.
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// How long --wait waits at most.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = some_time, requires = "wait")]
    pub timeout: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// As `weir journal ls` names it.
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// The first offset.
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub from: u64,
    /// At most so many records; 0: all.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: u64,
}

#[derive(Debug, Clone, Args)]
pub struct DumpArgs {
    /// A topic alone.
    #[arg(value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only of resources with this service.name.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only spans and log records of this trace, and data points with an exemplar of it.
    #[arg(long, value_name = "TRACE_ID", value_parser = trace_id)]
    pub trace_id: Option<TraceId>,
    /// The first offset.
    #[arg(long, value_name = "OFFSET", default_value_t = 0, requires = "topic")]
    pub from: u64,
    /// At most so many lines; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub limit: u64,
    /// Dead letters instead of records: each line has why it is one under `letter`.
    #[arg(long, conflicts_with_all = ["topic", "from"])]
    pub letters: bool,
    /// Of the dead letters only those of this consumer, or component.
    #[arg(long, value_name = "NAME", requires = "letters")]
    pub consumer: Option<String>,
    /// Of the dead letters only those with this reason.
    #[arg(long, value_name = "REASON", value_parser = refusal, requires = "letters")]
    pub reason: Option<Refusal>,
    /// Of the dead letters only those refused since then: `2h` ago, or a time.
    #[arg(long, value_name = "TIME", value_parser = since, requires = "letters")]
    pub since: Option<Since>,
}

#[derive(Debug, Clone, Args)]
pub struct RmArgs {
    /// A consumer, as `weir journal ls` names it.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["topic", "letters"], conflicts_with = "topic")]
    pub consumer: Option<String>,
    /// Dead letters: all of them, or of a --consumer, with a --reason.
    #[arg(long, conflicts_with = "topic")]
    pub letters: bool,
    /// Of the dead letters only those with this reason.
    #[arg(long, value_name = "REASON", value_parser = refusal, requires = "letters")]
    pub reason: Option<Refusal>,
    /// A topic with all its records and places.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Do it; without it only what would go is said.
    #[arg(long)]
    pub yes: bool,
}

/// A moment, as a person says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Ago(Duration),
    At(UnixNanos),
}

fn since(text: &str) -> Result<Since, String> {
    if let Some(ago) = GoDuration::parse(text) {
        return Ok(Since::Ago(ago));
    }
    let at = text.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_nanosecond()).ok());
    at.map(|at| Since::At(UnixNanos(at)))
        .ok_or_else(|| "expected how long ago, such as 2h, or a time such as 2026-01-31T12:00:00Z".to_owned())
}

fn refusal(text: &str) -> Result<Refusal, String> {
    Refusal::parse(text).ok_or_else(|| format!("expected one of {}", Refusal::ALL.map(Refusal::as_str).join(", ")))
}

/// Which running weir: found as `weir run` finds its directory.
#[derive(Debug, Clone, Default, Args)]
pub struct SocketPlace {
    /// Its admin socket.
    #[arg(long, value_name = "PATH", env = "WEIR_ADMIN_SOCKET")]
    pub socket: Option<String>,
    /// Its data directory.
    #[arg(long, value_name = "DIRECTORY", env = "WEIR_DATA_DIR")]
    pub data_dir: Option<String>,
    /// The configuration that it runs: tells where its socket lies.
    #[arg(long = "config", short = 'c', value_name = "URI", env = "WEIR_CONFIG", hide_env_values = true)]
    pub config: Vec<String>,
    /// Sets one value after all files, as for `run`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    #[command(flatten)]
    pub place: SocketPlace,
    /// Whether it takes data, too: not with a full disk, nor while it is drained. That is no reason for a restart.
    #[arg(long)]
    pub ready: bool,
}

#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    pub place: SocketPlace,
    /// How long to wait at most.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = some_time)]
    pub timeout: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct TapArgs {
    #[command(flatten)]
    pub place: SocketPlace,
    /// Where to look: what the door took, what it refused, what consumers delivered or dropped. Several with commas. Default: ingest.
    #[arg(long, value_enum, value_name = "WHERE", value_delimiter = ',')]
    pub at: Vec<TapAt>,
    /// Only these signals.
    #[arg(long, value_enum, value_name = "SIGNAL", value_delimiter = ',')]
    pub signal: Vec<TapSignal>,
    /// Only of resources with this service.name.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only spans and log records of this trace, and metrics with an exemplar of it.
    #[arg(long, value_name = "TRACE_ID", value_parser = trace_id)]
    pub trace_id: Option<TraceId>,
    /// Only spans and metrics with this in their name, log records with this in their text.
    #[arg(long, value_name = "PART")]
    pub name: Option<String>,
    /// Only spans with an error status, and log records of severity ERROR and above.
    #[arg(long)]
    pub errors: bool,
    /// End after so many lines; 0: never.
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<u64>,
    /// End after so long: `30s`, `5m`.
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    pub duration: Option<Duration>,
    /// `text`: one line an item. `json`: one line of OTLP/JSON for what came together, with the rest under the key `weir`.
    #[arg(long, value_enum, default_value_t = TapForm::Text)]
    pub format: TapForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TapAt {
    Ingest,
    Refused,
    Delivered,
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TapSignal {
    Traces,
    Metrics,
    Logs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TapForm {
    Text,
    Json,
}

fn some_time(text: &str) -> Result<Duration, String> {
    let duration = GoDuration::parse(text).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "expected a duration such as 500ms, 30s or 2m".to_owned())
}

/// 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

fn trace_id(text: &str) -> Result<TraceId, String> {
    let digits = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32 && !text.starts_with('+'));
    digits.map(|id| TraceId(id.to_be_bytes())).ok_or_else(|| "expected 32 hexadecimal digits".to_owned())
}

/// A variable that is set to nothing, as compose files do, is one that is not set.
fn drain_timeout(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Ok(Duration::from_secs(30));
    }
    GoDuration::parse(text).ok_or_else(|| "expected a duration such as 500ms, 30s or 2m".to_owned())
}
