//! The connection pool, which is replaced when its connections do not respond.
//!
//! libpq waits at least two seconds for a server that accepts a connection and sends nothing, and without limit for a
//! reply on an existing connection. A new pool does not depend on the blocked threads, so it works as soon as the
//! server does.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::db::engine::manager::Manager;
use crate::db::engine::postgres::ConnectError;

/// How long a request waits for a connection. After that it fails with 503.
pub(crate) const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);

/// A pool of r2d2, with connections from one manager.
pub(crate) type Connections = Arc<r2d2::Pool<Manager>>;

/// The current pool of connections.
pub(crate) struct Pool {
    manager: Manager,
    size: u32,
    current: RwLock<Connections>,
}

impl Pool {
    pub(crate) fn new(manager: Manager, size: u32) -> Self {
        let current = RwLock::new(new_pool(&manager, size));
        Self { manager, size, current }
    }

    pub(crate) fn manager(&self) -> &Manager {
        &self.manager
    }

    /// The maximum number of connections.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn current(&self) -> Connections {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the pool `old` by a new one, unless another call has already replaced it. Returns whether it did. Work
    /// on connections of `old` continues.
    pub(crate) fn replace(&self, old: &Connections) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_current = Arc::ptr_eq(&current, old);
        if is_current {
            *current = new_pool(&self.manager.for_new_pool(), self.size);
        }
        is_current
    }

    /// Closes all idle connections, and opens no more. Connections in use are closed when they are returned.
    pub(crate) fn close(&self) {
        self.manager.close();
        self.replace(&self.current());
    }
}

fn new_pool(manager: &Manager, size: u32) -> Connections {
    let pool = r2d2::Pool::builder()
        .max_size(size)
        // Connects on demand only: a thread that still connects while the process exits would crash in OpenSSL.
        .min_idle(Some(0))
        .connection_timeout(CHECKOUT_TIMEOUT)
        .error_handler(Box::new(NoteConnectError(manager.clone())))
        .build_unchecked(manager.clone());
    Arc::new(pool)
}

/// Records whether the server rejects connections. r2d2 itself passes on the message only.
#[derive(Debug)]
struct NoteConnectError(Manager);

impl r2d2::HandleError<ConnectError> for NoteConnectError {
    fn handle_error(&self, error: ConnectError) {
        // The work that waits for the connection also receives this error, and logs it.
        log::debug!("database connection: {error}");
        if self.0.is_current() {
            self.0.diagnosis().set_rejection(error.rejection().as_deref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseUrl;

    #[test]
    fn a_replaced_pool_opens_no_more_connections() {
        let home = tempfile::tempdir().unwrap();
        let manager = Manager::connected(DatabaseUrl::Sqlite(home.path().join("test.db"))).unwrap();
        let pool = Pool::new(manager, 2);
        let old = pool.current();
        let in_use = old.get().unwrap();
        assert!(pool.replace(&old));
        assert!(old.get_timeout(Duration::from_millis(50)).is_err());
        assert!(pool.current().get().is_ok());
        drop(in_use);
        assert!(!pool.replace(&old), "it is replaced only once");
    }
}
