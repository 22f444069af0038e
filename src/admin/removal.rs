//! Lets go what the journal holds for a consumer that the configuration does not have.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Amount;
use crate::pipeline::{Board, RemoveError};

/// The body of `/v1/remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// As `weir journal ls` names it.
    pub consumer: String,
}

/// The answer. All zero: it held nothing, for instance because it was asked for before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// What lay there for it, at most.
    pub held: Amount,
    /// Items that its books had as held, and have as `dropped{removed}` now.
    pub items: u64,
}

/// # Errors
/// Why not, with a status.
pub(super) async fn of(board: &Board, asked: Removal) -> Result<Removed, (StatusCode, String)> {
    let Some(journal) = board.journal() else {
        return Err((StatusCode::NOT_FOUND, "the journal is in memory: nothing is held for a consumer that is gone".to_owned()));
    };
    match journal.remove_orphan(&asked.consumer).await {
        Ok(removed) => Ok(Removed { held: removed.held.into(), items: removed.items }),
        Err(error) => {
            let status = match error {
                RemoveError::Unknown { .. } => StatusCode::NOT_FOUND,
                RemoveError::Configured(_) => StatusCode::CONFLICT,
                RemoveError::Starting | RemoveError::Disk(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            Err((status, error.to_string()))
        }
    }
}
