//! Readiness, shutdown, and background work of the process.

pub mod cleanup;
pub mod purge;
mod readiness;
pub mod shutdown;

use std::sync::Arc;

use self::cleanup::Cleanups;
use self::purge::Purge;
use self::readiness::Readiness;
use self::shutdown::Shutdown;
use crate::clock::Clock;
use crate::db::Db;
use crate::error::AppError;
use crate::metrics::Metrics;

/// The state and the background work of the process.
pub struct Lifecycle {
    db: Db,
    readiness: Readiness,
    shutdown: Shutdown,
    purge: Purge,
    cleanups: Arc<Cleanups>,
}

impl Lifecycle {
    pub(crate) fn new(db: Db, clock: Clock, metrics: Arc<Metrics>, purge: Purge) -> Self {
        Self {
            readiness: Readiness::default(),
            shutdown: Shutdown::new(),
            purge,
            cleanups: Arc::new(Cleanups::new(db.clone(), clock, metrics)),
            db,
        }
    }

    /// The phases of the shutdown.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The removal of expired data.
    pub fn purge(&self) -> &Purge {
        &self.purge
    }

    /// The background cleanup after changes of accounts.
    pub fn cleanups(&self) -> &Arc<Cleanups> {
        &self.cleanups
    }

    /// Checks whether requests can be served: the process is not stopping, and the database answers, accepts changes
    /// and has the schema of this version.
    ///
    /// Errors: [`AppError::NotReady`] with the reason.
    pub async fn ready(&self) -> Result<(), AppError> {
        if self.shutdown.is_draining() {
            return Err(AppError::NotReady(readiness::STOPPING));
        }
        self.readiness.check(&self.db).await
    }
}
