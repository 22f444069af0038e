//! `weir run`: loads, starts, says where to send and where to look, and stops on a signal.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};
use tracing::{error, info, warn};

use super::{
    FAILED, UNDELIVERED, WRONG, admin_socket,
    arguments::{RunArgs, RunCommand},
    journal, migrate,
    reload::Reload,
    start::{self, Checked},
};
use crate::{
    config::{Diagnostics, Level, Loaded, Node, Origin, Value},
    internal_telemetry,
    journal::Directory,
    runtime::{Shutdown, State},
    service::{Ended, Running, Unstarted, serve_page},
};

pub(super) fn run(args: &RunArgs) -> ExitCode {
    let checked = match load(args) {
        Ok(checked) => checked,
        Err(code) => return code,
    };
    let Some(runtime) = runtime() else { return ExitCode::from(FAILED) };
    let code = runtime.block_on(serve(*checked, args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// `weir run FILE`
pub(super) fn run_files(command: &RunCommand) -> ExitCode {
    let mut args = command.run.clone();
    if let (Some([name]), [only]) = (args.skip_unsupported.as_deref(), command.file.as_slice())
        && name.is_empty()
        && !Path::new(only).exists()
    {
        say(&format!("weir: there is no file `{only}`; names of components stand behind `=`: --skip-unsupported={only}"));
        return ExitCode::from(WRONG);
    }
    args.config = args.config.with(&command.file);
    run(&args)
}

pub(super) fn demo(args: crate::demo::DemoArgs) -> ExitCode {
    let Some(runtime) = runtime() else { return ExitCode::from(FAILED) };
    match runtime.block_on(crate::demo::run(args, &mut io::stdout())) {
        Ok(totals) if totals.complete() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(UNDELIVERED),
        Err(error) => {
            say(&format!("weir demo: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

fn runtime() -> Option<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .inspect_err(|error| say(&format!("weir: the runtime does not start: {error}")))
        .ok()
}

/// To a person at the terminal; a closed stderr is no reason to stop.
pub(super) fn say(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// What the arguments name, without what they say to leave out.
///
/// # Errors
/// What is wrong with the arguments.
pub(super) fn load_run(args: &RunArgs) -> Result<Loaded, String> {
    let loaded = start::load_inputs(&args.config).map_err(|error| error.to_string())?;
    match &args.skip_unsupported {
        Some(named) => migrate::skip(loaded, named),
        None => Ok(loaded),
    }
}

/// Loads and checks, and draws what was found.
fn load(args: &RunArgs) -> Result<Box<Checked>, ExitCode> {
    let wrong = |message: String| {
        say(&format!("weir: {message}"));
        ExitCode::from(WRONG)
    };
    match start::check(load_run(args).map_err(wrong)?) {
        Ok(checked) => {
            for line in start::warnings(&checked.loaded) {
                say(&format!("weir: warning: {line}"));
            }
            if let Some(line) = ineffective(&checked.loaded) {
                say(&format!("weir: {line}"));
            }
            Ok(checked)
        }
        Err(loaded) => {
            let mut found = loaded.found.clone();
            found.found.retain(|found| found.level != Level::Ineffective);
            start::show(&found, &loaded);
            Err(ExitCode::from(WRONG))
        }
    }
}

/// How many keys do nothing, if any.
pub(super) fn ineffective(loaded: &Loaded) -> Option<String> {
    let count = loaded.found.found.iter().filter(|found| found.level == Level::Ineffective).count();
    (count > 0).then(|| format!("{count} keys have no effect here; `weir validate` lists them and says what happens instead"))
}

async fn serve(checked: Checked, args: &RunArgs) -> ExitCode {
    let around = &checked.around;
    let own = match internal_telemetry::start(&checked.telemetry, &around.telemetry, around.clock.clone()) {
        Ok(own) => own,
        Err(error) => {
            say(&format!("weir: {error}"));
            return ExitCode::from(WRONG);
        }
    };
    around.telemetry.watch_process();
    let ended = match begin(checked, &own, args).await {
        Ok(ended) => ended,
        Err(reasons) => {
            for reason in reasons {
                error!("{reason}");
            }
            own.finish().await;
            return ExitCode::from(FAILED);
        }
    };
    own.finish().await;
    if ended.hangs {
        #[expect(clippy::exit, reason = "whatever else wants to end in order would wait for the disk, too")]
        std::process::exit(i32::from(FAILED));
    }
    if ended.broken {
        ExitCode::from(FAILED)
    } else if ended.undelivered.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(UNDELIVERED)
    }
}

async fn begin(checked: Checked, own: &internal_telemetry::OwnExport, args: &RunArgs) -> Result<Ended, Vec<String>> {
    let unheard = |error: io::Error| vec![format!("signals cannot be heard: {error}")];
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(unheard)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
    let lines = greeting(&checked);
    let Checked { built, around, telemetry: settings, loaded, file, .. } = checked;
    let mut unstarted = Diagnostics::default();
    let persistence = journal::persistence(&file).map_err(|message| vec![message])?;
    if let Some(wish) = &persistence {
        // First, and alone: whoever has the directory has the socket in it and the ports, too.
        Directory::look_free(&wish.directory).map_err(|error| vec![error.to_string()])?;
    }
    let stop_pages = Shutdown::new();
    let mut pages = tokio::task::JoinSet::new();
    let mut own_page = None;
    if let Some(reader) = settings.page() {
        let key = "service::telemetry::metrics::readers";
        let page = serve_page(reader, key, around.telemetry.clone(), settings.identity.clone(), stop_pages.clone()).await;
        match page {
            Ok((addresses, task)) => {
                own_page = addresses.first().copied();
                pages.spawn(task);
            }
            Err(fault) => {
                let written = file.telemetry.as_ref().and_then(|telemetry| telemetry.get("metrics")?.get("readers"));
                let origin = written.map_or_else(Origin::nowhere, |readers| readers.origin);
                unstarted.error(origin, fault.message(), fault.help());
            }
        }
    }
    if let Some(task) = own.task(stop_pages.clone()) {
        pages.spawn(task);
    }
    let directory = persistence.as_ref().map(|persistence| persistence.directory.as_path());
    let drain = Shutdown::new();
    let admin = admin_socket::serve(&file, directory, &around, &drain, stop_pages.clone()).map_err(|message| vec![message])?;
    let admin = admin.map(|(socket, task)| {
        pages.spawn(task);
        socket.display().to_string()
    });
    let mut running = match Running::start(built, &around, persistence.as_ref()).await {
        Ok(running) if !unstarted.has_errors() => running,
        Err(Unstarted::Connect(error)) => return Err(vec![error.to_string()]),
        started => {
            if let Err(Unstarted::Failed(failed)) = started {
                for failed in failed {
                    failed.tell(&file, &mut unstarted);
                }
            }
            return Err(start::lines(&unstarted, &loaded.sources, Level::Error));
        }
    };
    let mut reload = Reload::new(args, &around, file, &loaded);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        own_metrics = own_page.map(|at| format!("http://{at}/metrics")),
        admin_socket = admin,
        "weir is ready"
    );
    for line in lines {
        info!("{line}");
    }
    let mut is_draining = false;
    let broke = loop {
        tokio::select! {
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            broken = running.broke() => break Some(broken),
            () = drain.cancelled(), if !is_draining => {
                is_draining = true;
                tokio::select! {
                    () = running.drain() => continue,
                    _ = interrupt.recv() => break None,
                    _ = terminate.recv() => break None,
                }
            }
            _ = hangup.recv() => info!("SIGHUP: the configuration is read again"),
            file = reload.file_changed() => info!(file, "a file of the configuration changed: it is read again"),
        }
        if is_draining {
            warn!("weir is being drained: another configuration needs a restart");
            continue;
        }
        // Another SIGHUP meanwhile waits until this one is through; a signal to stop hurries it.
        let hurry = Shutdown::new();
        let mut reloading = std::pin::pin!(reload.reload(&mut running, &hurry));
        let is_stopping = loop {
            tokio::select! {
                () = &mut reloading => break hurry.is_cancelled(),
                _ = interrupt.recv() => hurry.cancel(),
                _ = terminate.recv() => hurry.cancel(),
            }
        };
        if is_stopping {
            break None;
        }
    };
    if let Some(broken) = &broke {
        error!(reason = broken, "a part of weir ended: stopping the rest in order");
        around.health.set_whole(State::Fatal(broken.clone()));
    }
    let hurry = Shutdown::new();
    let stopping = running.stop(args.drain_timeout, hurry.clone());
    let mut stopping = std::pin::pin!(stopping);
    let mut ended = loop {
        tokio::select! {
            ended = &mut stopping => break ended,
            _ = interrupt.recv() => warn!("a second signal: stopping now"),
            _ = terminate.recv() => warn!("a second signal: stopping now"),
        }
        hurry.cancel();
    };
    ended.broken |= broke.is_some();
    stop_pages.cancel();
    drop(tokio::time::timeout(Duration::from_secs(1), async { while pages.join_next().await.is_some() {} }).await);
    Ok(ended)
}

/// Where to send, where to look, how to scrape and forward.
fn greeting(checked: &Checked) -> Vec<String> {
    let endpoint = |node: &Node, path: &str, default: &str| match &node.nearest(path).value {
        Value::String(text) => text.to_string(),
        _ => default.to_owned(),
    };
    let mut lines = Vec::new();
    for declared in checked.file.receivers.iter().filter(|declared| declared.id.type_name() == "otlp") {
        if !checked.plan.receivers.contains(&declared.id) {
            continue;
        }
        let protocols = declared.node.nearest("protocols");
        let mut ways = Vec::new();
        if protocols.get("grpc").is_some() {
            ways.push(format!("{} (gRPC)", endpoint(&declared.node, "protocols::grpc::endpoint", "localhost:4317")));
        }
        if protocols.get("http").is_some() {
            ways.push(format!("http://{} (HTTP)", endpoint(&declared.node, "protocols::http::endpoint", "localhost:4318")));
        }
        lines.push(format!("send OTLP to {}", ways.join(" or ")));
    }
    for declared in checked.file.exporters.iter().filter(|declared| declared.id.type_name() == "prometheus") {
        if checked.plan.exporters.contains(&declared.id) {
            let at = endpoint(&declared.node, "endpoint", "");
            lines.push(format!("look at http://{at}/metrics; `weir scrape-config` prints the Prometheus job for it"));
        }
    }
    let onward: Vec<&str> = checked
        .plan
        .exporters
        .iter()
        .filter(|id| !matches!(id.type_name(), "prometheus" | "nop" | "debug"))
        .map(crate::signal::ComponentId::as_str)
        .collect();
    if onward.is_empty() {
        lines.push("nothing is forwarded; `weir --forward host:4317` sends all three signals on".to_owned());
    } else {
        lines.push(format!("forwarding to {}", onward.join(", ")));
    }
    lines
}
