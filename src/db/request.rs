//! What the database layer knows of the request that it works for: how long the request may still wait, and who sent it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::domain::id::{KeyId, UserId};
use crate::domain::network::Network;

/// How long a request waits for the database in all. The server ends a statement sooner; this is for a server that does
/// not answer.
pub(super) const REQUEST_BUDGET: Duration = Duration::from_millis(1_800);

/// Who gets one share of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A user, by their token or a key of their own.
    User(UserId),
    /// The holder of an issued key, who is not its owner.
    IssuedKey(KeyId),
    /// The network of a client that has not authenticated; `None` if it has no address.
    Anonymous(Option<Network>),
}

struct Request {
    left: Cell<Duration>,
    /// `None`: the process itself.
    caller: Cell<Option<Caller>>,
}

tokio::task_local! {
    static REQUEST: Request;
}

/// Does the work of one request of `caller`, which waits for the database 1.8 seconds at most, however often it asks.
/// `None` is the process itself, which has no share but all of the database.
pub fn for_one_request<F: Future>(caller: Option<Caller>, work: F) -> impl Future<Output = F::Output> {
    REQUEST.scope(Request { left: Cell::new(REQUEST_BUDGET), caller: Cell::new(caller) }, work)
}

/// From now on the current request is this caller's.
pub fn set_caller(caller: Caller) {
    // Outside a request the process works for itself.
    let _ = REQUEST.try_with(|request| request.caller.set(Some(caller)));
}

/// Whose request this is; `None` for the work of the process itself: commands, background work, health.
pub fn caller() -> Option<Caller> {
    REQUEST.try_with(|request| request.caller.get()).ok().flatten()
}

/// How long the current request may still wait; `None` outside a request.
pub(super) fn time_left() -> Option<Duration> {
    REQUEST.try_with(|request| request.left.get()).ok()
}

/// What `work` answers within `limit`, which the current request has that much less of afterwards.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    if limit.is_zero() {
        return None;
    }
    let began = Instant::now();
    let answer = tokio::time::timeout(limit, work).await;
    let _ = REQUEST.try_with(|request| request.left.set(request.left.get().saturating_sub(began.elapsed())));
    answer.ok()
}
