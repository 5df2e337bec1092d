//! Background cleanup after changes of accounts. Disabling a user, deleting a user or changing a password can end many
//! keys and owned objects. All of them end at once, because the row of the user records it. Their own rows are updated
//! or deleted in the background, in small transactions, with an audit entry for each row.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::db::account_cleanups::{self, Cleanup, Kind, Progress};
use crate::db::engine::migrate::SchemaState;
use crate::db::{self, Conn, Db, OWNED, api_keys, audit_entries, users};
use crate::domain::audit::{Action, Actor, Caller, ClientInfo, Event, Outcome, Target};
use crate::domain::id::{EntryId, KeyId, UserId};
use crate::error::AppError;
use crate::logging::repeated::{LongFailure, RepeatedFailure};
use crate::metrics::Metrics;
use crate::service::audit::change::Change;
use crate::service::audit::entry_log::log_entry;

/// A change handles up to this many rows itself, so most accounts need no background work.
const MAX_INLINE: i64 = 100;
/// Rows that are processed before the time is checked.
const ROWS_PER_STEP: i64 = 20;
/// Bounds of the time that a transaction works before it commits. Within them it works for as long as the last commit
/// took. On SQLite other writers wait for both.
const WORK_TIME: [Duration; 2] = [Duration::from_millis(3), Duration::from_millis(15)];
/// Minimum pause between two transactions. The pause is twice the duration of the last one if that is longer.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// How often to look for work from other processes, such as a replica or the command line.
const INTERVAL: Duration = Duration::from_secs(5);
/// Delay before another attempt to empty SQLite's write-ahead log, after a reader has prevented it.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Why the write-ahead log cannot be emptied for long, and what to do.
const OPEN_READER: &str = "another program keeps a transaction open, such as a backup or a session of sqlite3. End it";
/// A run ends after more than this many failures if the last one is a time-out: the database does not respond.
const MAX_BUSY: usize = 2;
/// Maximum number of accounts that are processed in turn.
const MAX_ACCOUNTS: i64 = 100;

/// Runs the background cleanup.
pub struct Cleanups {
    db: Db,
    clock: Clock,
    metrics: Arc<Metrics>,
    wake: Notify,
    /// Whether an account was deleted since SQLite's write-ahead log was last emptied. True at start, because the
    /// previous process may not have emptied it.
    must_empty_log: AtomicBool,
    failure: RepeatedFailure,
    erasure: LongFailure,
}

/// The cleanup of a change: complete, or to be continued in the background.
pub(crate) struct StartedCleanup {
    cleanup: Cleanup,
    is_done: bool,
}

impl StartedCleanup {
    /// The number of ended rows, for the detail of the audit entry.
    pub(crate) fn counts(&self) -> String {
        if self.is_done { counts(&self.cleanup) } else { "others are counted later".to_owned() }
    }

    /// Stores the remaining work. Its audit entries will have the actor of `entry`.
    pub(crate) fn store(&self, change: &mut Change<'_>, entry: EntryId) -> Result<(), AppError> {
        if self.is_done { Ok(()) } else { account_cleanups::insert(change.conn, &self.cleanup, entry) }
    }
}

/// Ends the rows of a user that `kind` selects. The row of the user must be locked. [`Kind::Account`] selects
/// everything that the account owns.
pub(crate) fn begin(change: &mut Change<'_>, user: UserId, kind: Kind) -> Result<StartedCleanup, AppError> {
    let mut cleanup = Cleanup {
        kind,
        user,
        ended_at: change.now.naive(),
        key_after: KeyId(0),
        key_through: KeyId(i64::MAX),
        keys: 0,
        objects: [Progress::default(); OWNED.len()],
    };
    if kind != Kind::Account {
        let acting = kind == Kind::ActingKeys;
        cleanup.key_after = users::issued_ended_through(change.conn, user, acting)?;
        cleanup.key_through = api_keys::last_issued(change.conn, user, acting)?;
        if cleanup.key_through > cleanup.key_after {
            users::end_issued(change.conn, user, acting, cleanup.key_through, change.now)?;
        }
    }
    // The work of an earlier change is done first, with its actor in the audit entries.
    let is_done = if account_cleanups::is_pending(change.conn, user)? {
        kind != Kind::Account && cleanup.key_through <= cleanup.key_after
    } else {
        let fits_inline = fits_inline(change.conn, &cleanup)?;
        if fits_inline {
            let (events, _) = advance(change.conn, &mut cleanup, MAX_INLINE)?;
            change.record_each(&events)?;
        }
        fits_inline
    };
    if kind == Kind::Account {
        if is_done {
            users::delete(change.conn, user)?;
        } else {
            users::mark_deleted(change.conn, user, change.now)?;
        }
    }
    Ok(StartedCleanup { cleanup, is_done })
}

/// Whether the change can handle all rows itself.
fn fits_inline(conn: &mut Conn, cleanup: &Cleanup) -> Result<bool, AppError> {
    let (user, acting) = (cleanup.user, cleanup.kind == Kind::ActingKeys);
    let range = (cleanup.key_after, cleanup.key_through);
    let mut rows = api_keys::issued_within(conn, user, acting, range, MAX_INLINE + 1)?.len();
    if cleanup.kind == Kind::Account {
        for (kind, progress) in OWNED.iter().zip(&cleanup.objects) {
            rows += (kind.of_user)(conn, user, progress.after, MAX_INLINE + 1)?.len();
        }
    }
    Ok(number(rows) <= MAX_INLINE)
}

/// Updates or deletes at most `limit` rows. Returns their audit events, and whether no rows are left.
fn advance(conn: &mut Conn, cleanup: &mut Cleanup, limit: i64) -> Result<(Vec<Event>, bool), AppError> {
    let (user, mut events, mut remaining) = (cleanup.user, Vec::new(), limit);
    if cleanup.kind == Kind::Account {
        for (kind, progress) in OWNED.iter().zip(&mut cleanup.objects) {
            let found = (kind.of_user)(conn, user, progress.after, remaining)?;
            let ids: Vec<i64> = found.iter().map(|(id, _)| *id).collect();
            (kind.delete)(conn, &ids)?;
            progress.after = ids.last().copied().unwrap_or(progress.after);
            progress.count += number(ids.len());
            remaining -= number(ids.len());
            events.extend(found.iter().map(|(id, version)| {
                Event::of(kind.action).on((kind.target)(*id)).owned_by(user).versions(*version, None)
            }));
        }
    }
    let range = (cleanup.key_after, cleanup.key_through);
    let found = api_keys::issued_within(conn, user, cleanup.kind == Kind::ActingKeys, range, remaining)?;
    cleanup.key_after = found.last().map_or(cleanup.key_after, |key| key.id);
    let active: Vec<KeyId> = found.iter().filter(|key| key.active).map(|key| key.id).collect();
    if cleanup.kind == Kind::Account {
        let all: Vec<KeyId> = found.iter().map(|key| key.id).collect();
        api_keys::delete_all(conn, &all)?;
    } else {
        api_keys::revoke_all(conn, &active, cleanup.ended_at)?;
    }
    cleanup.keys += number(active.len());
    events.extend(active.into_iter().map(|key| Event::of(Action::RevokeKey).on(Target::Key(key)).owned_by(user)));
    Ok((events, number(found.len()) < remaining))
}

/// The number of keys, and of each kind of objects of which there were any.
fn counts(cleanup: &Cleanup) -> String {
    let keys = format!("{} issued keys", cleanup.keys);
    let objects = OWNED.iter().zip(&cleanup.objects).filter(|(_, progress)| progress.count > 0);
    objects.fold(keys, |counts, (kind, progress)| format!("{counts}, {} {}", progress.count, kind.table))
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The result of one background transaction.
struct Batch {
    by: Actor,
    client_info: ClientInfo,
    events: Vec<Event>,
    /// When the work ended and the commit began.
    ended: Instant,
    /// Whether the row of the account was deleted.
    deletes_account: bool,
}

/// Continues one cleanup for about `work_time`. Returns `None` if another process works on it, or if it is complete.
fn batch(conn: &mut Conn, id: i64, now: Timestamp, work_time: Duration) -> Result<Option<Batch>, AppError> {
    let began = Instant::now();
    let Some((mut cleanup, entry)) = account_cleanups::try_lock(conn, id)? else {
        return Ok(None);
    };
    // The entry of the change is missing only if it was removed by hand in the database.
    let actor = audit_entries::find_actor(conn, entry)?;
    let (by, client_info) = actor.unwrap_or_else(|| (Actor::caller(&Caller::CommandLine), ClientInfo::default()));
    let mut events = Vec::new();
    let is_done = loop {
        let (step_events, is_done) = advance(conn, &mut cleanup, ROWS_PER_STEP)?;
        audit_entries::insert_all(conn, now, &by, &step_events, &client_info)?;
        events.extend(step_events);
        if is_done || began.elapsed() >= work_time {
            break is_done;
        }
    };
    // The last step has a short transaction of its own.
    let is_last = is_done && events.is_empty();
    let deletes_account = is_last && cleanup.kind == Kind::Account;
    if is_last {
        let summary = Event::of(Action::CleanUp).on(Target::User(cleanup.user)).detail(counts(&cleanup));
        audit_entries::insert_all(conn, now, &by, std::slice::from_ref(&summary), &client_info)?;
        events.push(summary);
        account_cleanups::delete(conn, id)?;
    } else {
        account_cleanups::save(conn, id, &cleanup)?;
    }
    if deletes_account {
        users::delete(conn, cleanup.user)?;
    }
    Ok(Some(Batch { by, client_info, events, ended: Instant::now(), deletes_account }))
}

impl Cleanups {
    pub(crate) fn new(db: Db, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let failure = RepeatedFailure::new("continue the cleanup of ended accounts");
        let erasure = LongFailure::new("erase deleted data from SQLite's write-ahead log");
        Self { db, clock, metrics, wake: Notify::new(), must_empty_log: AtomicBool::new(true), failure, erasure }
    }

    /// Runs the cleanup whenever there is work. Never returns.
    pub async fn run(&self) {
        loop {
            match self.run_once().await {
                Ok(_) => self.failure.succeeded(),
                Err(error) => self.failure.failed(&error),
            }
            let erased = self.erase().await;
            match &erased {
                Ok(true) => self.erasure.succeeded(),
                Ok(false) => self.erasure.failed(&OPEN_READER),
                Err(error) => self.erasure.failed(error),
            }
            let delay = if matches!(erased, Ok(true)) { INTERVAL } else { RETRY_DELAY };
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Completes all cleanups that no other process works on. Returns the number of audit entries that it has written.
    /// Does nothing while the schema is not that of this version: another version may store objects of kinds that this
    /// one does not know, and would delete without audit entries.
    ///
    /// Errors: the first one of a cleanup, after all others were continued. Work that is committed is not repeated.
    pub async fn run_once(&self) -> Result<usize, AppError> {
        if self.db.schema_state().await? != SchemaState::Current {
            return Ok(0);
        }
        let ([min_work, max_work], mut written) = (WORK_TIME, 0);
        let (mut work_time, mut failed, mut first_error) = (min_work, HashSet::new(), None);
        loop {
            let next = self.db.read(|conn| account_cleanups::next_of_each(conn, MAX_ACCOUNTS)).await?;
            let mut worked = false;
            for id in next.into_iter().filter(|id| !failed.contains(id)).collect::<Vec<_>>() {
                let (began, now) = (Instant::now(), self.clock.now());
                let batch = match self.db.write(move |conn| batch(conn, id, now, work_time)).await {
                    Ok(Some(batch)) => batch,
                    Ok(None) => continue,
                    // One cleanup that cannot be continued must not keep the others from being done.
                    Err(error) => {
                        failed.insert(id);
                        let is_away = matches!(error, AppError::Busy(_)) && failed.len() > MAX_BUSY;
                        let first = first_error.take().unwrap_or(error);
                        if is_away {
                            return Err(first);
                        }
                        first_error = Some(first);
                        continue;
                    }
                };
                written += batch.events.len();
                worked = true;
                self.report(&batch);
                work_time = batch.ended.elapsed().clamp(min_work, max_work);
                tokio::time::sleep(MIN_PAUSE.max(began.elapsed() * 2)).await;
            }
            if !worked {
                return first_error.map_or(Ok(written), Err);
            }
        }
    }

    fn report(&self, batch: &Batch) {
        for event in &batch.events {
            log_entry(&batch.by, event, Outcome::Success, &batch.client_info);
            self.metrics.audit_entry(Outcome::Success.name());
        }
        if batch.deletes_account {
            self.must_empty_log.store(true, Ordering::SeqCst);
        }
    }

    /// Whether background work remains for this user. The keys and owned objects concerned have ended in any case.
    pub async fn is_pending(&self, user: UserId) -> Result<bool, AppError> {
        self.db.read(move |conn| account_cleanups::is_pending(conn, user)).await
    }

    /// Empties SQLite's write-ahead log, if an account was deleted since the last time. Returns whether it contains
    /// nothing of deleted accounts any more.
    pub async fn erase(&self) -> Result<bool, AppError> {
        if !self.must_empty_log.swap(false, Ordering::SeqCst) {
            return Ok(true);
        }
        let emptied = self.db.read(db::truncate_wal).await;
        if !matches!(emptied, Ok(true)) {
            self.must_empty_log.store(true, Ordering::SeqCst);
        }
        emptied
    }

    /// Starts a run of the background cleanup without delay.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Like [`wake`](Self::wake), after an account was deleted. The run also empties the write-ahead log.
    pub(crate) fn wake_erasure(&self) {
        self.must_empty_log.store(true, Ordering::SeqCst);
        self.wake();
    }
}
