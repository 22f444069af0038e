//! A socket file for this user alone.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{SocketAddr, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::net::UnixSocket;

use super::{
    Bound,
    accept::Caps,
    connection::Shared,
    listen::{Listener, SocketFile},
    settings::Limits,
};

/// Read and written by its owner, nobody else.
const MODE: u32 = 0o600;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 16;

/// Why nothing listens on a socket file.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("{path} is longer than the name of a socket may be (107 bytes on Linux)")]
    TooLong { path: PathBuf },
    #[error("another process listens on {path}")]
    InUse { path: PathBuf },
    #[error("{path} is there already, and it is no socket")]
    NoSocket { path: PathBuf },
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
}

impl Bound {
    /// Listens on a socket file that only its owner can open. One that a process left behind is replaced. It is removed with the listener.
    ///
    /// At most so many connections are open at once; a new one takes the place of one that asks for nothing, or is closed.
    pub fn bind_local(path: &Path, connections: usize) -> Result<Self, LocalError> {
        let io = |cause| LocalError::Io { path: path.to_owned(), cause };
        if SocketAddr::from_pathname(path).is_err() {
            return Err(LocalError::TooLong { path: path.to_owned() });
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
            Ok(found) if !found.file_type().is_socket() => return Err(LocalError::NoSocket { path: path.to_owned() }),
            Ok(_) if StdUnixStream::connect(path).is_ok() => return Err(LocalError::InUse { path: path.to_owned() }),
            Ok(_) => fs::remove_file(path).map_err(io)?,
        }
        let socket = UnixSocket::new_stream().map_err(io)?;
        // On Linux the file is made with the mode that the socket has, so that there is no moment at which others can open it.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(MODE)).unwrap_or_default();
        socket.bind(path).map_err(io)?;
        let file = SocketFile::of(path);
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(io)?;
        let listener = socket.listen(BACKLOG).map_err(io)?;
        let limits = Limits {
            head: Duration::from_secs(5),
            idle: Duration::from_mins(1),
            // Who reads slowly may be a person with a pager.
            write: Duration::from_mins(10),
            ..Limits::default()
        };
        Ok(Self {
            listeners: vec![Arc::new(Listener::Unix(listener, file))],
            shared: Shared::new(&path.display().to_string(), limits, None),
            caps: Caps { connections, per_ip: connections },
            wants_auth: false,
            gate: None,
            http: None,
        })
    }
}
