//! The pool of connections, which is replaced when nothing can be had from it.
//!
//! libpq waits for two seconds at least for a server that takes a connection and says nothing, and without end for an
//! answer on one that stood before. A new pool begins anew beside those threads, and so is back as soon as the server.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::conn::Manager;
use super::postgres::ConnectError;

/// How long a request waits for a connection before it is told to come back (standards: F12).
pub(super) const CHECKOUT_WAIT: Duration = Duration::from_secs(1);

/// Connections that were made by one manager.
pub(super) type Connections = Arc<r2d2::Pool<Manager>>;

/// The pool in use.
pub(super) struct Pool {
    manager: Manager,
    size: u32,
    current: RwLock<Connections>,
}

impl Pool {
    pub(super) fn new(manager: Manager, size: u32) -> Self {
        let current = RwLock::new(connections(&manager, size));
        Self { manager, size, current }
    }

    pub(super) fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Connections at most.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn current(&self) -> Connections {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts new connections in the place of these, unless somebody has; whether it did. Those at work end their work.
    pub(super) fn replace(&self, these: &Connections) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let are_current = Arc::ptr_eq(&current, these);
        if are_current {
            *current = connections(&self.manager, self.size);
        }
        are_current
    }
}

fn connections(manager: &Manager, size: u32) -> Connections {
    let pool = r2d2::Pool::builder()
        .max_size(size)
        // None ahead of need: a thread that still connects while the process ends would crash in OpenSSL.
        .min_idle(Some(0))
        .connection_timeout(CHECKOUT_WAIT)
        .error_handler(Box::new(LogPoolError))
        .build_unchecked(manager.clone());
    Arc::new(pool)
}

#[derive(Debug)]
struct LogPoolError;

impl r2d2::HandleError<ConnectError> for LogPoolError {
    fn handle_error(&self, error: ConnectError) {
        // Whoever waits for the connection gets this error, too, and reports it.
        log::debug!("database connection: {error}");
    }
}
