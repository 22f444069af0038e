//! Where the admin socket lies: beside the journal, or where a person said; and what to tell who does not find one.

use std::{
    fs::DirBuilder,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{
    arguments::{ConfigArgs, SocketPlace},
    journal::{self, usual},
    start::{self, TABLES},
};
use crate::{
    admin::{Admin, SOCKET},
    config::{Environment, Machine},
    pipeline::{File, Surroundings, file::JournalMode},
    runtime::{Shutdown, Task},
    transport::server::LocalError,
};

/// Where a weir in memory mode has its socket.
fn in_memory(environment: &impl Environment) -> Option<PathBuf> {
    let runtime = environment.variable("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty())?;
    Some(PathBuf::from(runtime).join("weir"))
}

/// Listens on the admin socket of this configuration; `drain` fires when someone asks there for one. `Ok(None)`: it is off, or cannot be had and nobody asked for it by name.
///
/// # Errors
/// The socket that was asked for by name cannot be had.
pub(super) fn serve(
    file: &File,
    directory: Option<&Path>,
    around: &Surroundings,
    drain: &Shutdown,
    stop: Shutdown,
) -> Result<Option<(PathBuf, Task)>, String> {
    if file.admin.is_off() {
        return Ok(None);
    }
    let is_named = file.admin.socket.is_some();
    let socket = match (&file.admin.socket, directory) {
        (Some(socket), _) => Ok(PathBuf::from(socket)),
        (None, Some(directory)) => Ok(directory.join(SOCKET)),
        (None, None) => memory_directory().map(|directory| directory.join(SOCKET)),
    };
    let admin = Admin {
        board: around.board.clone(),
        taps: around.taps.clone(),
        health: around.health.clone(),
        clock: around.clock.clone(),
        drain: drain.clone(),
    };
    let served = socket.and_then(|socket| match admin.serve(&socket, stop) {
        Ok(task) => Ok((socket, task)),
        Err(error) => Err(format!("{error}; {}", remedy(&error))),
    });
    match served {
        Ok(served) => Ok(Some(served)),
        Err(message) if is_named => Err(format!("the admin socket: {message}")),
        Err(message) => {
            tracing::warn!(
                "there is no admin socket, so `weir tap` and `weir plan --live` do not work here: {message} (--admin-socket off says that none is wanted)"
            );
            Ok(None)
        }
    }
}

fn remedy(error: &LocalError) -> &'static str {
    match error {
        LocalError::TooLong { .. } => "name a shorter one, such as --admin-socket /run/weir.sock",
        LocalError::InUse { .. } => "give this weir one of its own with --admin-socket",
        LocalError::NoSocket { .. } => "name another path with --admin-socket",
        LocalError::Io { .. } => "name one that this user can make with --admin-socket",
    }
}

/// The first of the usual places that can be made and written to.
fn memory_directory() -> Result<PathBuf, String> {
    let mut tried = Vec::new();
    for directory in in_memory(&Machine).into_iter().chain(usual(&Machine)) {
        match DirBuilder::new().recursive(true).mode(0o700).create(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) => tried.push(format!("{}: {error}", directory.display())),
        }
    }
    Err(format!("no directory for it can be made ({}); name one with --admin-socket", tried.join("; ")))
}

/// The socket of the weir that a person means.
///
/// # Errors
/// It cannot be told which.
pub(super) fn find(place: &SocketPlace) -> Result<PathBuf, String> {
    let named = |text: &Option<String>| text.clone().filter(|text| !text.is_empty()).map(PathBuf::from);
    if let Some(socket) = named(&place.socket) {
        return if socket == Path::new("off") {
            Err("the admin socket is off here (WEIR_ADMIN_SOCKET=off): name the one of the weir that you mean with --socket"
                .to_owned())
        } else {
            Ok(socket)
        };
    }
    if let Some(directory) = named(&place.data_dir) {
        return Ok(directory.join(SOCKET));
    }
    let config: Vec<String> = place.config.iter().filter(|uri| !uri.is_empty()).cloned().collect();
    if !config.is_empty() || !place.set.is_empty() {
        let args = ConfigArgs { config, set: place.set.clone(), ..ConfigArgs::default() };
        let mut loaded = start::load_inputs(&args).map_err(|error| error.to_string())?;
        let mut found = std::mem::take(&mut loaded.found);
        let file = File::check(&loaded.node, &TABLES, &mut found).filter(|_| !found.has_errors());
        let Some(file) = file else {
            start::show(&found, &loaded);
            return Err("the configuration does not load".to_owned());
        };
        if file.admin.is_off() {
            return Err("this configuration has no admin socket (`admin: {socket: off}`)".to_owned());
        }
        if let Some(socket) = &file.admin.socket {
            return Ok(socket.into());
        }
        if file.journal.mode != JournalMode::Memory {
            return journal::directory(&file).map(|directory| directory.join(SOCKET));
        }
    }
    let places: Vec<PathBuf> =
        usual(&Machine).into_iter().chain(in_memory(&Machine)).map(|directory| directory.join(SOCKET)).collect();
    let tried: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
    places.into_iter().find(|path| path.exists()).ok_or_else(|| {
        format!(
            "no running weir was found: there is no {}; start it, or name its directory with --data-dir, its socket with --socket, or its file with --config",
            tried.join(", no ")
        )
    })
}

/// What to tell who asked in vain.
pub(super) fn unanswered(socket: &Path, error: &io::Error) -> String {
    let path = socket.display();
    match error.kind() {
        ErrorKind::NotFound => format!(
            "there is no admin socket at {path}: either weir does not run there, or it runs with --admin-socket off or elsewhere; name its directory with --data-dir, or its socket with --socket"
        ),
        ErrorKind::ConnectionRefused => {
            format!("nobody listens on {path} any more: the weir that made it is gone; start it again")
        }
        ErrorKind::PermissionDenied => {
            format!("{path} belongs to another user: only the one that weir runs as may look (sudo -u USER weir …)")
        }
        ErrorKind::InvalidInput => {
            format!(
                "{path} is longer than the name of a socket may be: start weir with a shorter --admin-socket and name that with --socket"
            )
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("{path} does not answer"),
        _ => format!("{path}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> SocketPlace {
        SocketPlace::default()
    }

    #[test]
    fn a_socket_is_found_by_name_by_directory_or_by_file() {
        let text = |text: &str| Some(text.to_owned());
        let found = |place: SocketPlace| find(&place).map(|path| path.display().to_string());
        assert_eq!(found(SocketPlace { socket: text("/s"), data_dir: text("/d"), ..place() }).unwrap(), "/s");
        assert_eq!(found(SocketPlace { data_dir: text("/d"), socket: text(""), ..place() }).unwrap(), "/d/admin.sock");
        assert!(found(SocketPlace { socket: text("off"), ..place() }).unwrap_err().contains("--socket"));
        let file = |admin: &str| {
            let rest = "receivers: {otlp: {protocols: {grpc: }}}, exporters: {nop: }, service: {pipelines: {traces: {receivers: [otlp], exporters: [nop]}}}";
            SocketPlace { config: vec![format!("yaml:{{{admin}, {rest}}}")], ..place() }
        };
        assert_eq!(found(file("admin: {socket: /a/b}")).unwrap(), "/a/b");
        assert_eq!(found(file("journal: {directory: /j}")).unwrap(), "/j/admin.sock");
        assert!(found(file("admin: {socket: off}")).unwrap_err().contains("no admin socket"));
        assert!(found(file("admin: {sockt: /a}")).unwrap_err().contains("does not load"));
    }

    #[test]
    fn who_asks_in_vain_is_told_what_to_do() {
        let told = |kind: ErrorKind| unanswered(Path::new("/x"), &kind.into());
        assert!(told(ErrorKind::NotFound).contains("--data-dir"));
        assert!(told(ErrorKind::ConnectionRefused).contains("start it again"));
        assert!(told(ErrorKind::PermissionDenied).contains("another user"));
        assert!(told(ErrorKind::InvalidInput).contains("--admin-socket"));
    }
}
