//! Limits the connections of each client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::network::Network;

/// The number of open connections of each client.
pub struct ConnectionCounts {
    limit: usize,
    open: Mutex<HashMap<Network, usize>>,
}

/// An open connection. It counts for its client until this is dropped.
pub struct CountedConnection {
    counts: Arc<ConnectionCounts>,
    client: Network,
}

impl ConnectionCounts {
    /// No connections yet. Each client can open `limit` connections.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: Mutex::default() })
    }

    /// Counts a new connection of this client; `None` if the client has reached the limit.
    pub fn add(self: &Arc<Self>, client: Network) -> Option<CountedConnection> {
        let mut open = self.open();
        let count = open.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(CountedConnection { counts: Arc::clone(self), client })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Network, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut open = self.counts.open();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}
