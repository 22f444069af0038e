//! Why something could not be built or started.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

/// A component could not be built or started. The message names the configuration key where there is one.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A key has a value that cannot work; `path` is inside the component (`protocols::grpc::endpoint`).
    #[error("{path}: {message}")]
    Setting { path: String, message: String, help: Option<String> },
    /// More than one thing is wrong; none of them is `Several` again.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
    #[error("{0}")]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl BuildError {
    pub fn setting(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Setting { path: path.into(), message: message.into(), help: None }
    }

    /// Names the remedy, of a [`BuildError::Setting`].
    #[must_use]
    pub fn helped(mut self, remedy: impl Into<String>) -> Self {
        if let Self::Setting { help, .. } = &mut self {
            *help = Some(remedy.into());
        }
        self
    }

    /// Puts `block` in front of every path: where the part that failed lies in the whole.
    #[must_use]
    pub fn under(self, block: &str) -> Self {
        match self {
            Self::Setting { path, message, help } => Self::Setting { path: format!("{block}::{path}"), message, help },
            Self::Several(faults) => Self::Several(faults.into_iter().map(|fault| fault.under(block)).collect()),
            Self::Other(cause) => Self::Other(cause),
        }
    }

    /// The same about another key.
    #[must_use]
    pub fn at(mut self, key: &str) -> Self {
        if let Self::Setting { path, .. } = &mut self {
            key.clone_into(path);
        }
        self
    }

    /// What is wrong, without the key that says where.
    pub fn message(&self) -> String {
        match self {
            Self::Setting { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }

    /// The key that is wrong; nothing where none is.
    pub fn key(&self) -> &str {
        match self {
            Self::Setting { path, .. } => path,
            _ => "",
        }
    }

    /// The remedy, where one is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Setting { help, .. } => help.clone(),
            _ => None,
        }
    }

    /// Each thing that is wrong, by itself.
    pub fn faults(self) -> Vec<Self> {
        match self {
            Self::Several(faults) => faults,
            fault => vec![fault],
        }
    }
}

/// Two results, or everything that is wrong with either.
pub fn both<A, B>(one: Result<A, BuildError>, other: Result<B, BuildError>) -> Result<(A, B), BuildError> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(one), Err(other)) => Err(BuildError::Several(one.faults().into_iter().chain(other.faults()).collect())),
        (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => Err(fault),
    }
}

/// Whether a file can be opened to append to it, as far as can be told without making it.
pub fn appendable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        // Opening a pipe would wait for whoever reads it.
        Ok(meta) if meta.is_file() || meta.is_dir() => OpenOptions::new().append(true).open(path).map(drop),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if fs::metadata(directory)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
        }
        Err(error) => Err(error),
    }
}
