//! Removes expired data, in small batches, by one process at a time. No check depends on it: expired credentials are
//! rejected whether or not their rows are removed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::config::Settings;
use crate::db::engine::change_log::{self, Horizon};
use crate::db::{
    self, Conn, Db, access_tokens, api_keys, hourly_counts, issue_requests, known_networks, mail, sessions,
    sign_in_failures,
};
use crate::error::AppError;
use crate::service::audit::pruning::Pruning;

/// Delay of the first run after the start of the process.
const FIRST_DELAY: Duration = Duration::from_secs(60);
/// Pause between two runs.
const INTERVAL: Duration = Duration::from_secs(600);
/// Maximum number of rows of each table per transaction.
const BATCH_SIZE: i64 = 500;
/// Maximum number of rows of the change log per transaction. These rows are small.
const LOG_BATCH_SIZE: i64 = 5_000;
/// Minimum age of rows of the change log that are removed. By then every reader has read them, or must begin a
/// generation.
const LOG_RETENTION: Duration = Duration::from_secs(300);
/// Pause between two transactions, so that other writers are not blocked.
const PAUSE: Duration = Duration::from_millis(50);
/// Seconds for which an expired token, session or link is kept: 1 day. So a clock that is wrong for less than a day
/// does not end valid ones permanently.
const TOKEN_RETENTION: i64 = 86_400;
/// Seconds for which the failed sign-ins of an account are kept if they did not stop it: 1 day.
const FAILURES_RETENTION: i64 = 86_400;
/// Seconds for which the failed sign-ins of a stopped account are kept: 30 days. Accounts that do not exist can be
/// stopped, too, so this bounds the number of rows.
const STOPPED_RETENTION: i64 = 30 * 86_400;
/// Seconds for which a known network is kept after the last sign-in: 90 days.
pub(crate) const NETWORK_RETENTION: i64 = 90 * 86_400;
/// Seconds for which an expired claim code is kept: 30 days. During this time a claim fails with 410 instead of 404.
const CLAIM_RETENTION: i64 = 30 * 86_400;
/// Seconds for which a mail is kept after it was requested: 25 hours. Within a day it is sent or given up, and counts
/// for the limits of its address.
const MAIL_RETENTION: i64 = 25 * 3_600;
/// Seconds for which an expired invitation is kept: 30 days. It can be sent again.
const INVITATION_RETENTION: i64 = 30 * 86_400;
/// Seconds for which the name of a request (`Idempotency-Key`) is kept: 7 days.
const REQUEST_RETENTION: i64 = 7 * 86_400;

/// The rows of the change log to remove, and the uptime of the process at which they were found.
#[derive(Default)]
struct PurgeHorizon(Mutex<Option<(Duration, Horizon)>>);

impl PurgeHorizon {
    fn get(&self) -> Option<(Duration, Horizon)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, horizon: Option<(Duration, Horizon)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = horizon;
    }
}

/// Removes expired data.
pub struct Purge {
    db: Db,
    clock: Clock,
    /// The number of failed sign-ins that stops an account.
    stop_after: i64,
    /// The seconds for which statistics are kept.
    stats_retention: i64,
    horizon: PurgeHorizon,
    pruning: Arc<Pruning>,
}

impl Purge {
    /// The number of failures that stops an account also applies while limits are off, so that accounts are still stopped
    /// when they are on again.
    pub(crate) fn new(db: Db, clock: Clock, settings: &Settings, pruning: Arc<Pruning>) -> Self {
        let (stop_after, stats_retention) = (settings.limits.account_stop, settings.stats.retention_days * 86_400);
        Self { db, clock, stop_after, stats_retention, horizon: PurgeHorizon::default(), pruning }
    }

    /// Removes expired data and old audit entries every ten minutes. Never returns.
    pub async fn run(&self) {
        tokio::time::sleep(FIRST_DELAY).await;
        loop {
            match self.run_once().await {
                Ok(0) => {}
                Ok(removed) => {
                    log::info!("removed {removed} rows of expired data");
                }
                Err(error) => log::warn!("cannot remove expired data: {error}"),
            }
            match self.pruning.run_once().await {
                Ok(0) => {}
                Ok(removed) => log::info!("removed {removed} audit entries"),
                Err(error) => log::warn!("cannot remove old audit entries: {error}"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Removes expired data, and returns the number of rows outside the change log. Does nothing while another process
    /// does it.
    ///
    /// Errors: [`AppError::Busy`] if the database does not answer. Rows of earlier batches stay removed, and a failure
    /// in the change log does not keep other data.
    pub async fn run_once(&self) -> Result<usize, AppError> {
        let purged_log = self.purge_change_log().await;
        let removed = self.purge_rows().await?;
        purged_log.map(|()| removed)
    }

    async fn purge_rows(&self) -> Result<usize, AppError> {
        let mut removed = 0;
        loop {
            let now = self.clock.now();
            let (stop_after, stats_end) = (self.stop_after, now.plus_seconds(-self.stats_retention));
            let batch = self.db.write(move |conn| purge_batch(conn, now, stop_after, stats_end)).await?;
            if batch == 0 {
                return Ok(removed);
            }
            removed += batch;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Removes the rows of the change log that an earlier call found, at least [`LOG_RETENTION`] ago.
    async fn purge_change_log(&self) -> Result<(), AppError> {
        let now = self.clock.uptime();
        if let Some((since, horizon)) = self.horizon.get() {
            if now.saturating_sub(since) < LOG_RETENTION {
                return Ok(());
            }
            let batch = |horizon: Horizon| self.db.write(move |conn| purge_log_batch(conn, &horizon));
            while batch(horizon.clone()).await? > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let horizon = self.db.read(change_log::horizon).await?;
        self.horizon.set(horizon.map(|horizon| (now, horizon)));
        Ok(())
    }
}

fn purge_log_batch(conn: &mut Conn, horizon: &Horizon) -> Result<usize, AppError> {
    if db::try_purge_lock(conn)? { change_log::purge(conn, horizon, LOG_BATCH_SIZE) } else { Ok(0) }
}

fn purge_batch(conn: &mut Conn, now: Timestamp, stop_after: i64, stats_end: Timestamp) -> Result<usize, AppError> {
    if !db::try_purge_lock(conn)? {
        return Ok(0);
    }
    let tokens = access_tokens::delete_expired(conn, now.plus_seconds(-TOKEN_RETENTION), BATCH_SIZE)?;
    let ended_sessions = sessions::delete_expired(conn, now.plus_seconds(-TOKEN_RETENTION), BATCH_SIZE)?;
    let claims = api_keys::clear_expired_claims(conn, now.plus_seconds(-CLAIM_RETENTION), BATCH_SIZE)?;
    let (failed, stopped) = (now.plus_seconds(-FAILURES_RETENTION), now.plus_seconds(-STOPPED_RETENTION));
    let failures = sign_in_failures::delete_old(conn, failed, stopped, stop_after, BATCH_SIZE)?;
    let networks = known_networks::delete_old(conn, now.plus_seconds(-NETWORK_RETENTION), BATCH_SIZE)?;
    let requests = issue_requests::delete_old(conn, now.plus_seconds(-REQUEST_RETENTION), BATCH_SIZE)?;
    let hours = hourly_counts::delete_old(conn, stats_end, BATCH_SIZE)?;
    let mails = mail::outbox::delete_old(conn, now.plus_seconds(-MAIL_RETENTION), BATCH_SIZE)?;
    let links = mail::secrets::delete_expired(conn, now.plus_seconds(-TOKEN_RETENTION), BATCH_SIZE)?;
    let registrations = mail::registrations::delete_expired(conn, now.plus_seconds(-TOKEN_RETENTION), BATCH_SIZE)?;
    let replaced = mail::replaced_emails::delete_expired(conn, now.plus_seconds(-TOKEN_RETENTION), BATCH_SIZE)?;
    let invitations = mail::invitations::delete_expired(conn, now.plus_seconds(-INVITATION_RETENTION), BATCH_SIZE)?;
    Ok(tokens
        + ended_sessions
        + claims
        + failures
        + networks
        + requests
        + hours
        + mails
        + links
        + registrations
        + replaced
        + invitations)
}
