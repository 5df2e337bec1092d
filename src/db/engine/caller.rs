//! The state of the current request, as a task-local variable: the remaining time for database work, and the caller.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::domain::id::{KeyId, UserId};
use crate::domain::network::Network;

/// The time-out for all database work of one request together. A statement has a shorter time-out in the server, so
/// this one applies if the server does not respond.
pub(crate) const REQUEST_BUDGET: Duration = Duration::from_millis(1_800);

/// The unit that has one share of the database (see [`super::shares`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A user, by an access token or a key of their own.
    User(UserId),
    /// The holder of an issued key, who is another person than its owner.
    IssuedKey(KeyId),
    /// The network of an anonymous client; `None` if its address is unknown.
    Anonymous(Option<Network>),
}

struct RequestState {
    remaining: Cell<Duration>,
    /// `None` for work of the process itself.
    caller: Cell<Option<Caller>>,
}

tokio::task_local! {
    static REQUEST: RequestState;
}

/// Runs `work` as one request of `caller`, with 1.8 seconds for all of its database work together. `None` is the
/// process itself, which is not limited to a share of the database.
pub fn for_one_request<F: Future>(caller: Option<Caller>, work: F) -> impl Future<Output = F::Output> {
    REQUEST.scope(RequestState { remaining: Cell::new(REQUEST_BUDGET), caller: Cell::new(caller) }, work)
}

/// Sets the caller of the current request. Does nothing outside a request.
pub fn set_caller(caller: Caller) {
    // Fails outside a request.
    let _ = REQUEST.try_with(|request| request.caller.set(Some(caller)));
}

/// The caller of the current request; `None` for work of the process itself: commands, background work, health checks.
pub fn caller() -> Option<Caller> {
    REQUEST.try_with(|request| request.caller.get()).ok().flatten()
}

/// The remaining time for database work of the current request; `None` outside a request.
pub(crate) fn time_remaining() -> Option<Duration> {
    REQUEST.try_with(|request| request.remaining.get()).ok()
}

/// Runs `work` with the time-out `limit`, and subtracts the time it took from the remaining time of the current
/// request. Returns `None` on a time-out.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    if limit.is_zero() {
        return None;
    }
    let started = Instant::now();
    let output = tokio::time::timeout(limit, work).await;
    let _ =
        REQUEST.try_with(|request| request.remaining.set(request.remaining.get().saturating_sub(started.elapsed())));
    output.ok()
}
