//! Everything that must be true before "OK": limits, scan, admission, append.

mod status;

pub use status::{BudgetWish, Refusal};
