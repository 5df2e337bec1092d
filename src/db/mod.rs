//! The database: the only layer that names diesel and r2d2.
//!
//! [`Db`] runs closures on connections, off the async threads. A closure gets a connection and answers; nothing else
//! may hold one, least of all while a password is hashed.

pub mod access_tokens;
mod conn;
pub mod migrate;
pub mod pages;
mod schema;
pub mod users;

use std::sync::Arc;
use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::conn::Conn;
use self::conn::{Manager, write_transaction};
use crate::config::{DatabaseSettings, DatabaseUrl};
use crate::error::AppError;

/// How long a request waits for a connection before it is told to come back (standards: F12).
const CHECKOUT_WAIT: Duration = Duration::from_secs(1);
/// How long a write waits for its turn on SQLite.
const WRITE_WAIT: Duration = Duration::from_secs(2);

/// A pool of connections to one database. Clones share it.
#[derive(Clone)]
pub struct Db {
    pool: r2d2::Pool<Manager>,
    connections: Arc<Semaphore>,
    /// SQLite has one writer at a time. To queue here is fair; to queue in SQLite is to sleep and hope.
    single_writer: Option<Arc<Semaphore>>,
}

impl Db {
    /// A pool for `settings`, after one connection has been made: a wrong address fails here, with its cause.
    pub fn open(settings: &DatabaseSettings) -> Result<Self, AppError> {
        let manager = Manager::new(settings.url.clone());
        r2d2::ManageConnection::connect(&manager).map_err(|error| AppError::Busy(error.into()))?;
        let pool = r2d2::Pool::builder()
            .max_size(settings.pool_size)
            // None ahead of need: a thread that still connects while the process ends would crash in OpenSSL.
            .min_idle(Some(0))
            .connection_timeout(CHECKOUT_WAIT)
            .error_handler(Box::new(LogPoolError))
            .build_unchecked(manager);
        let permits = usize::try_from(settings.pool_size).unwrap_or(Semaphore::MAX_PERMITS);
        let single_writer = matches!(settings.url, DatabaseUrl::Sqlite(_)).then(|| Arc::new(Semaphore::new(1)));
        Ok(Self { pool, connections: Arc::new(Semaphore::new(permits)), single_writer })
    }

    /// Runs `query` on a connection, outside any transaction.
    pub async fn read<T, F>(&self, query: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let permits = vec![permit(&self.connections, CHECKOUT_WAIT, "no free database connection").await?];
        self.on_blocking_pool(permits, query).await
    }

    /// Runs `change` in one transaction: all of it is stored when this answers `Ok`, and none of it otherwise.
    pub async fn write<T, F>(&self, change: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let mut permits = Vec::with_capacity(2);
        if let Some(writer) = &self.single_writer {
            permits.push(permit(writer, WRITE_WAIT, "another write takes too long").await?);
        }
        permits.push(permit(&self.connections, CHECKOUT_WAIT, "no free database connection").await?);
        self.on_blocking_pool(permits, |conn| write_transaction(conn, change)).await
    }

    /// The permits go with the work: it runs to its end even if its caller is gone.
    async fn on_blocking_pool<T, F>(&self, permits: Vec<OwnedSemaphorePermit>, work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        let pool = self.pool.clone();
        let task = tokio::task::spawn_blocking(move || {
            let answer = match pool.get() {
                Ok(mut conn) => work(&mut conn),
                Err(error) => Err(AppError::Busy(error.into())),
            };
            drop(permits);
            answer
        });
        task.await.map_err(|error| AppError::Internal(error.into()))?
    }
}

async fn permit(
    semaphore: &Arc<Semaphore>,
    patience: Duration,
    complaint: &'static str,
) -> Result<OwnedSemaphorePermit, AppError> {
    match tokio::time::timeout(patience, Arc::clone(semaphore).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(closed)) => Err(AppError::Internal(closed.into())),
        Err(_) => Err(AppError::Busy(complaint.into())),
    }
}

/// A failed query, in the words of the house. Constraint violations that have a meaning are caught where the meaning
/// is known, so one that arrives here is a defect; everything else is a database in trouble.
impl From<DieselError> for AppError {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::DatabaseError(
                DatabaseErrorKind::Unknown
                | DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::SerializationFailure
                | DatabaseErrorKind::ReadOnlyTransaction,
                _,
            )
            | DieselError::BrokenTransactionManager => Self::Busy(error.into()),
            _ => Self::Internal(error.into()),
        }
    }
}

#[derive(Debug)]
struct LogPoolError;

impl r2d2::HandleError<diesel::ConnectionError> for LogPoolError {
    fn handle_error(&self, error: diesel::ConnectionError) {
        // Whoever waits for the connection gets this error, too, and reports it.
        log::debug!("database connection: {error}");
    }
}
