//! What has long expired is removed, in small batches, by one process at a time. Nothing depends on it: what has expired
//! is dead, removed or not.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Service;
use super::failures::LockoutPolicy;
use crate::clock::Timestamp;
use crate::db::change_log::{self, Horizon};
use crate::db::{self, Conn, access_tokens, api_keys, issue_requests, known_networks, sign_in_failures};
use crate::error::AppError;

/// When somebody first looks for what is to be removed, and how often after that.
const FIRST: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(600);
/// Rows of one transaction.
const BATCH: i64 = 500;
/// Rows of the change log that are removed at once; they are small.
const LOG_BATCH: i64 = 5_000;
/// Rows of the change log are removed so long after they were there. Every reader has read them by then, or begins anew.
const LOG_REST: Duration = Duration::from_secs(300);
/// Between two of them, so that others come in between.
const PAUSE: Duration = Duration::from_millis(50);
/// Seconds that an expired token is kept: a clock that is set wrong for less than a day signs nobody out for good.
const TOKEN_REST: i64 = 86_400;
/// Seconds that the failed sign-ins of an account are remembered, if they were not enough to stop it.
const FAILURES_REST: i64 = 86_400;
/// Seconds that those of an account are remembered that were enough to stop it: 30 days. Strangers can stop accounts that
/// do not exist, so this bounds how many rows there are.
const STOPPED_REST: i64 = 30 * 86_400;
/// Seconds that the network of a sign-in is known: 90 days.
const NETWORK_REST: i64 = 90 * 86_400;
/// Seconds that the code of a claim is known after it has expired, so that whoever comes too late is told so: 30 days.
const CLAIM_REST: i64 = 30 * 86_400;
/// Seconds that the name of a request is known (`Idempotency-Key`): a week.
const REQUEST_REST: i64 = 7 * 86_400;

/// The rows of the change log that are to be removed, and since when they have been there by the process's own clock.
#[derive(Default)]
pub(super) struct PurgeHorizon(Mutex<Option<(Duration, Horizon)>>);

impl PurgeHorizon {
    fn get(&self) -> Option<(Duration, Horizon)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, horizon: Option<(Duration, Horizon)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = horizon;
    }
}

impl Service {
    /// Removes what becomes due, for ever.
    pub async fn keep_purging(&self) {
        tokio::time::sleep(FIRST).await;
        loop {
            match self.purge().await {
                Ok(0) => {}
                Ok(removed) => {
                    log::info!("removed {removed} expired tokens, claim codes, names of requests and old failures");
                }
                Err(error) => log::warn!("cannot remove what has expired: {error}"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Removes expired tokens, the codes of expired claims and old failures; how many there were. Another process that is at it is
    /// left alone.
    pub async fn purge(&self) -> Result<usize, AppError> {
        self.purge_change_log().await?;
        let mut removed = 0;
        loop {
            let now = self.clock.now();
            let stop = self.lockout.map_or(i64::MAX, LockoutPolicy::stop);
            let batch = self.db.write(move |conn| purge_batch(conn, now, stop)).await?;
            if batch == 0 {
                return Ok(removed);
            }
            removed += batch;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Service {
    /// Removes the rows of the change log that were there when this was called before.
    async fn purge_change_log(&self) -> Result<(), AppError> {
        let now = self.clock.uptime();
        if let Some((since, horizon)) = self.purge_horizon.get() {
            if now.saturating_sub(since) < LOG_REST {
                return Ok(());
            }
            let batch = |horizon: Horizon| self.db.write(move |conn| purge_log_batch(conn, &horizon));
            while batch(horizon.clone()).await? > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let horizon = self.db.read(change_log::horizon).await?;
        self.purge_horizon.set(horizon.map(|horizon| (now, horizon)));
        Ok(())
    }
}

fn purge_log_batch(conn: &mut Conn, horizon: &Horizon) -> Result<usize, AppError> {
    if db::purging_is_ours(conn)? { change_log::purge(conn, horizon, LOG_BATCH) } else { Ok(0) }
}

fn purge_batch(conn: &mut Conn, now: Timestamp, stop: i64) -> Result<usize, AppError> {
    if !db::purging_is_ours(conn)? {
        return Ok(0);
    }
    let tokens = access_tokens::delete_expired(conn, now.plus_seconds(-TOKEN_REST), BATCH)?;
    let claims = api_keys::forget_claims(conn, now.plus_seconds(-CLAIM_REST), BATCH)?;
    let (failed, stopped) = (now.plus_seconds(-FAILURES_REST), now.plus_seconds(-STOPPED_REST));
    let failures = sign_in_failures::forget_old(conn, failed, stopped, stop, BATCH)?;
    let networks = known_networks::forget_old(conn, now.plus_seconds(-NETWORK_REST), BATCH)?;
    let requests = issue_requests::forget_old(conn, now.plus_seconds(-REQUEST_REST), BATCH)?;
    Ok(tokens + claims + failures + networks + requests)
}
