//! Copies of whole databases: rows, digests, sequences and manifests, for backups and for moves between SQLite and
//! PostgreSQL.

mod rows;
mod sequences;
mod session;
mod text_check;

pub mod files;
pub mod manifest;
pub mod objects;
pub mod tables;
pub mod target;

pub use self::session::Session;
pub use self::text_check::check_texts;
