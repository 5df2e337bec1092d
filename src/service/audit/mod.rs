//! The audit trail: writes it with every change, sums repeated refusals, reads it, and removes old entries.

pub(crate) mod change;
mod draft;
pub(crate) mod entry_log;
mod failure;
pub mod filters;
pub mod pruning;
pub mod read;
mod refusal_counts;
pub mod refusals;
pub mod trail;
