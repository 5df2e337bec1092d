//! The audit trail: writes it with every change, sums repeated refusals, and reads it.

mod draft;
pub(crate) mod entry_log;
mod failure;
pub mod filters;
pub mod read;
mod refusal_counts;
pub mod refusals;
pub mod trail;
