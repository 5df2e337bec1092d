//! Parsing of requests and construction of responses.

pub mod allowed_methods;
#[cfg(test)]
pub(crate) mod arbitrary;
pub mod body;
pub(crate) mod cookie;
mod distinct;
pub mod error;
pub mod fields;
pub(crate) mod header;
pub(crate) mod idempotency;
pub mod in_flight;
pub mod incoming;
pub(crate) mod list;
pub mod path;
pub mod problem;
pub(crate) mod problem_answers;
pub mod reply;
pub(crate) mod url_encoded;
