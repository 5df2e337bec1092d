//! The database layer, the only one that imports diesel and r2d2: one module per table, and [`engine`] for connections,
//! transactions, migrations and the change log.

pub mod access_tokens;
pub mod account_cleanups;
pub mod api_keys;
pub mod audit_entries;
mod cached;
pub mod engine;
pub mod hourly_counts;
pub mod issue_requests;
pub mod known_networks;
pub mod mail;
pub mod owned;
pub mod pages;
mod schema;
pub mod sessions;
pub mod sign_in_failures;
pub mod transfer;
pub mod user_roles;
pub mod user_search;
pub mod users;

pub use self::engine::caller::{Caller, caller, for_one_request, set_caller};
pub use self::engine::connection::{Conn, lock_mail_decisions, try_purge_lock};
pub use self::engine::database::Db;
pub use self::engine::diagnosis::{Defect, GRANTS};
pub use self::engine::erase::truncate_wal;
pub use self::engine::lease::LOST_AFTER;
pub use self::engine::shares::CallerShares;

/// Every kind of objects that are deleted with their owner. Issued keys are not among them: they also end without the
/// account.
pub const OWNED: &[owned::Owned] = &[pages::OWNED];
