//! Connections, transactions, migrations and the change log: everything that differs between the two databases.
//!
//! [`database::Db`] runs closures on connections, on threads for blocking work. A connection must only be held while
//! such a closure runs. In particular, a closure must not hash passwords.

pub mod caller;
pub mod change_log;
pub mod connection;
pub mod database;
pub mod diagnosis;
pub mod erase;
mod error;
mod execution;
mod hosts;
pub mod lease;
pub(crate) mod manager;
pub mod migrate;
mod pool;
pub(crate) mod postgres;
pub mod shares;
pub(crate) mod transaction;
