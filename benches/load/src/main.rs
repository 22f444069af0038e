//! `otlpload`: load, null sinks and floors for OTLP/gRPC receivers.

mod hist;
mod load;
mod mini;
mod payload;
mod proc;
mod sink;
mod tcp;
mod wire;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send OTLP/gRPC load and charge processes for it.
    Load(load::LoadArgs),
    /// Accept OTLP/gRPC and drop it.
    Sink(sink::SinkArgs),
    /// Send the payloads over bare TCP, to `sink --stack tcp`.
    Tcp(tcp::TcpArgs),
    /// Print a process's CPU use and memory once a second.
    Watch {
        #[arg(long = "pid", required = true)]
        pids: Vec<proc::Target>,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Write one payload to standard output, as protobuf.
    Dump {
        #[command(flatten)]
        shape: load::ShapeArgs,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Load(a) => load::run(&a),
        Command::Sink(a) => sink::run(&a),
        Command::Tcp(a) => tcp::run(&a),
        Command::Watch { pids, seconds } => watch(&pids, seconds),
        Command::Dump { shape } => {
            let set = payload::build(&shape.shape(false));
            std::io::Write::write_all(&mut std::io::stdout(), set.payloads[0].raw()).map_err(Into::into)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("otlpload: {e}");
            ExitCode::FAILURE
        }
    }
}

fn watch(pids: &[proc::Target], seconds: u64) -> Result<(), load::Error> {
    let mut last = Vec::new();
    for t in pids {
        last.push(proc::read(t.pid)?);
    }
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        for (t, last) in pids.iter().zip(&mut last) {
            let now = proc::read(t.pid)?;
            println!(
                "{}: {:.0}% cpu, RSS {:.1} MiB, peak {:.1} MiB",
                t.name,
                (now.cpu - last.cpu) * 100.0,
                now.rss_kib as f64 / 1024.0,
                now.peak_rss_kib as f64 / 1024.0
            );
            *last = now;
        }
    }
    Ok(())
}
