//! Why a request is refused, and what that is called on gRPC and HTTP: the one table of statuses.

use std::time::Duration;

/// What a `memory_limiter` in the file asks of the door's byte budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BudgetWish {
    Mib {
        limit: u64,
    },
    /// Of the memory there is (the cgroup's limit, if one is set).
    Percentage {
        limit: f64,
    },
}

/// A request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No room now: memory budget, queue, disk. UNAVAILABLE with RetryInfo / 503 with Retry-After.
    #[error("{reason}")]
    Full { reason: String, retry_after: Duration },
    /// Shutting down. UNAVAILABLE with RetryInfo / 503 with Retry-After.
    #[error("weir is shutting down")]
    Stopping { retry_after: Duration },
    /// Larger than the limit, before or after decompression. RESOURCE_EXHAUSTED without details / 413.
    #[error("{message}")]
    TooLarge { message: String },
    /// Bytes that cannot be parsed: what and where. INVALID_ARGUMENT with BadRequest / 400.
    #[error("{message}")]
    Malformed { message: String },
    /// Nothing takes this signal. UNIMPLEMENTED / 404.
    #[error("{message}")]
    NotTaken { message: String },
}
