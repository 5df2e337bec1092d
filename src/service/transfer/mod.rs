//! Backups, their verification and restore, and copies from one database to another. They run in commands, on
//! connections of their own, and block the thread.

mod background;
pub mod backup;
mod checksum;
pub mod copy;
mod part;
pub mod restore;
mod target;

pub use crate::db::transfer::manifest::Manifest;
pub use crate::db::transfer::tables::{OnProgress, Progress, TableSummary};

use crate::db::engine::migrate::{SchemaState, newer_schema};
use crate::db::transfer::Session;
use crate::error::AppError;

/// An error whose message says what to do.
fn failed(message: impl Into<String>) -> AppError {
    AppError::Internal(message.into().into())
}

/// Fails if the schema of a source is not the one of this program.
fn require_current(source: &mut Session) -> Result<(), AppError> {
    match source.schema_state()? {
        SchemaState::Current => Ok(()),
        SchemaState::Outdated(_) => {
            Err(failed("the schema of the source is not up to date: run `latchkey migrate up` on it, and try again"))
        }
        SchemaState::Unknown(unknown) => Err(failed(newer_schema(&unknown))),
    }
}
