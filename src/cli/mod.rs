//! The command line: what was asked for, and the exit code.
//!
//! Exit codes: 0 done; 1 it could not start or it failed while running; 2 the command line or the configuration is wrong;
//! 3 it stopped, and some accepted data was not delivered (the log says which).

mod admin_socket;
pub mod arguments;
mod default_config;
mod drain;
mod health;
mod journal;
mod journal_commands;
mod journal_letters;
mod live;
mod loops;
mod migrate;
mod reload;
mod run;
mod scrape_config;
mod setup;
mod show;
mod start;
mod tap;
#[cfg(test)]
mod tests;
mod watch;

use std::process::ExitCode;

pub use arguments::Arguments;

/// It could not start, or failed while running.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub const WRONG: u8 = 2;
/// Stopped with undelivered data.
pub const UNDELIVERED: u8 = 3;

/// Does what the arguments say.
pub fn execute(arguments: Arguments) -> ExitCode {
    use arguments::Command;
    let Arguments { command, run } = arguments;
    match command {
        None => run::run(&run),
        Some(Command::Run(command)) => run::run_files(&command),
        Some(Command::Validate(args)) => show::validate(&args),
        Some(Command::Plan(args)) if args.live => live::live(&args),
        Some(Command::Plan(args)) => show::plan(&args),
        Some(Command::Components) => show::components(),
        Some(Command::PrintConfig(args)) => show::print_config(&args),
        Some(Command::ScrapeConfig(args)) => show::scrape_config(&args),
        Some(Command::Migrate(args)) => migrate::migrate(&args),
        Some(Command::Journal(args)) => journal_commands::journal(&args),
        Some(Command::Tap(args)) => tap::tap(&args),
        Some(Command::Health(args)) => health::health(&args),
        Some(Command::Drain(args)) => drain::drain(&args),
        Some(Command::Elasticsearch(arguments::ElasticsearchCommand::Setup(args))) => setup::setup(&args),
        Some(Command::Demo(args)) => run::demo(args),
        Some(Command::Completion { shell }) => show::completion(shell),
    }
}
