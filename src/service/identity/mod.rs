//! Authentication: resolves credentials to users and keys, with a cache in front of the database.

pub mod authenticate;
pub mod cache;
pub mod follow;
pub mod last_use;
pub(crate) mod lookup;
pub(crate) mod outage;
pub(crate) mod resolve;
