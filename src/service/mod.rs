//! Use cases. They own transactions and time, and know neither HTTP nor SQL.

pub mod auth;
pub mod hasher;
pub mod page;
pub mod token;
pub mod user;

use self::hasher::Hasher;
use crate::clock::Clock;
use crate::config::AuthSettings;
use crate::db::Db;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// Everything a use case needs. One per process, shared by all threads.
pub struct Service {
    db: Db,
    clock: Clock,
    hasher: Hasher,
    settings: AuthSettings,
    constant_key: Option<Digest>,
}

impl Service {
    /// The use cases on `db`, at the time of `clock`.
    pub fn new(db: Db, clock: Clock, settings: AuthSettings) -> Result<Self, AppError> {
        let hasher = Hasher::start(settings.hash_threads, settings.hash_queue, settings.bcrypt_cost)?;
        let constant_key = settings.api_key_token.get().map(Digest::of);
        Ok(Self { db, clock, hasher, settings, constant_key })
    }

    /// Whether requests can be served: the database answers and its schema is ours.
    pub async fn ready(&self) -> Result<(), AppError> {
        if self.db.is_migrated().await? {
            Ok(())
        } else {
            Err(AppError::Busy("the database schema is not up to date, run `latchkey migrate up`".into()))
        }
    }
}
