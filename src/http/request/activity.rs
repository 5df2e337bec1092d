//! The state that a connection shares with the requests on it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

/// The time-out for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a connection, for its idle time-out and its head time-out.
pub struct Activity {
    /// Whether the connection uses TLS.
    pub is_secure: bool,
    requests: Cell<usize>,
    /// When the last request ended, or the connection was opened.
    idle_since: Cell<Instant>,
    /// When the head time-out started: with the first bytes of the next request, or with the connection.
    head_since: Cell<Option<Instant>>,
}

/// A request in progress. It ends when this is dropped.
pub struct ActiveRequest(Rc<Activity>);

impl Activity {
    /// A new connection. If not `may_wait`, the head time-out starts now, not with the first bytes of a request.
    pub fn new(is_secure: bool, may_wait: bool) -> Self {
        let now = Instant::now();
        let head_since = Cell::new((!may_wait).then_some(now));
        Self { is_secure, requests: Cell::new(0), idle_since: Cell::new(now), head_since }
    }

    /// Starts a request, which is in progress until the returned value is dropped.
    pub fn begin(self: &Rc<Self>) -> ActiveRequest {
        self.requests.set(self.requests.get() + 1);
        self.head_since.set(None);
        ActiveRequest(Rc::clone(self))
    }

    /// Records that bytes have arrived.
    pub fn record_read(&self) {
        if self.requests.get() == 0 && self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// When the connection times out; `None` while a request is in progress.
    pub fn deadline(&self, keep_alive: Duration) -> Option<Instant> {
        let idle = || self.idle_since.get() + keep_alive;
        (self.requests.get() == 0).then(|| self.head_since.get().map_or_else(idle, |since| since + HEAD_TIMEOUT))
    }

    /// Whether the head of a request has begun to arrive, or the head time-out has started.
    pub fn awaits_head(&self) -> bool {
        self.head_since.get().is_some()
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let requests = self.0.requests.get() - 1;
        self.0.requests.set(requests);
        if requests == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}
