//! What a change of an account ends is ended at once, however much it is, because the row of the user says so. The rows
//! of keys and pages follow in the background, in small transactions, and each leaves its own audit entry.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Service;
use super::trail::{Change, log_entry};
use crate::clock::Timestamp;
use crate::db::account_cleanups::{self, Cleanup, Kind};
use crate::db::{self, Conn, api_keys, audit_entries, pages, users};
use crate::domain::audit::{Action, By, Caller, Event, Origin, Outcome, Target};
use crate::domain::id::{EntryId, KeyId, PageId, UserId};
use crate::error::AppError;

/// Rows that the change itself takes along if there are no more, so that most accounts leave nothing to do.
const AT_ONCE: i64 = 100;
/// Rows between two looks at the clock.
const STEP: i64 = 20;
/// How long a transaction works before it commits: as long as the last commit took, within these bounds. Others on SQLite
/// wait for both.
const WORK: [Duration; 2] = [Duration::from_millis(3), Duration::from_millis(15)];
/// Least time between two transactions; otherwise twice what the last one took.
const PAUSE: Duration = Duration::from_millis(10);
/// How often to look for what others have left to do: another replica, or the command line.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long to wait before SQLite's log is emptied again after somebody read from it.
const RETRY: Duration = Duration::from_secs(1);
/// Accounts that are worked on in turn.
const ACCOUNTS: i64 = 100;

/// What wakes the background work.
pub(super) struct Cleanups {
    wake: Notify,
    /// Whether something was deleted since SQLite's log was last emptied; the last process may have died over it.
    log_is_due: AtomicBool,
}

impl Default for Cleanups {
    fn default() -> Self {
        Self { wake: Notify::new(), log_is_due: AtomicBool::new(true) }
    }
}

/// What a change has ended, and what it leaves to the background.
pub(super) struct Begun {
    cleanup: Cleanup,
    is_done: bool,
}

impl Begun {
    /// How much it was, in words.
    pub(super) fn counts(&self) -> String {
        if self.is_done { counts(&self.cleanup) } else { "others are counted later".to_owned() }
    }

    /// Stores what is left, in the name of the change that this entry tells of.
    pub(super) fn store(&self, change: &mut Change<'_>, entry: EntryId) -> Result<(), AppError> {
        if self.is_done { Ok(()) } else { account_cleanups::insert(change.conn, &self.cleanup, entry) }
    }
}

/// Ends what `kind` says of a user, whose row is locked. For the account itself that is all that it owns.
pub(super) fn begin(change: &mut Change<'_>, user: UserId, kind: Kind) -> Result<Begun, AppError> {
    let mut cleanup = Cleanup {
        kind,
        user,
        ended_at: change.now.naive(),
        key_after: KeyId(0),
        key_through: KeyId(i64::MAX),
        page_after: PageId(0),
        keys: 0,
        pages: 0,
    };
    if kind != Kind::Account {
        let acting = kind == Kind::ActingKeys;
        cleanup.key_after = users::issued_ended_through(change.conn, user, acting)?;
        cleanup.key_through = api_keys::last_issued(change.conn, user, acting)?;
        if cleanup.key_through > cleanup.key_after {
            users::end_issued(change.conn, user, acting, cleanup.key_through, change.now)?;
        }
    }
    // What an earlier change has left goes first, and under its name.
    let is_done = if account_cleanups::is_pending(change.conn, user)? {
        kind != Kind::Account && cleanup.key_through <= cleanup.key_after
    } else {
        let are_few = are_few(change.conn, &cleanup)?;
        if are_few {
            let (events, _) = advance(change.conn, &mut cleanup, AT_ONCE)?;
            change.record_each(&events)?;
        }
        are_few
    };
    if kind == Kind::Account {
        if is_done {
            users::delete(change.conn, user)?;
        } else {
            users::mark_deleted(change.conn, user, change.now)?;
        }
    }
    Ok(Begun { cleanup, is_done })
}

/// Whether all rows can be taken along at once.
fn are_few(conn: &mut Conn, cleanup: &Cleanup) -> Result<bool, AppError> {
    let (user, acting) = (cleanup.user, cleanup.kind == Kind::ActingKeys);
    let range = (cleanup.key_after, cleanup.key_through);
    let mut rows = api_keys::issued_within(conn, user, acting, range, AT_ONCE + 1)?.len();
    if cleanup.kind == Kind::Account {
        rows += pages::versions_of(conn, user, cleanup.page_after, AT_ONCE + 1)?.len();
    }
    Ok(number(rows) <= AT_ONCE)
}

/// Writes or removes at most `limit` rows. What is to be told of them, and whether there are no more.
fn advance(conn: &mut Conn, cleanup: &mut Cleanup, limit: i64) -> Result<(Vec<Event>, bool), AppError> {
    let (user, mut events, mut left) = (cleanup.user, Vec::new(), limit);
    if cleanup.kind == Kind::Account {
        let found = pages::versions_of(conn, user, cleanup.page_after, left)?;
        pages::delete_all(conn, found.iter().map(|(page, _)| *page))?;
        cleanup.page_after = found.last().map_or(cleanup.page_after, |(page, _)| *page);
        events.extend(found.iter().map(|(page, version)| {
            Event::of(Action::DeletePage).on(Target::Page(*page)).owned_by(user).versions(Some(*version), None)
        }));
        cleanup.pages += number(found.len());
        left -= number(found.len());
    }
    let range = (cleanup.key_after, cleanup.key_through);
    let found = api_keys::issued_within(conn, user, cleanup.kind == Kind::ActingKeys, range, left)?;
    cleanup.key_after = found.last().map_or(cleanup.key_after, |key| key.id);
    let live: Vec<KeyId> = found.iter().filter(|key| key.live).map(|key| key.id).collect();
    if cleanup.kind == Kind::Account {
        let all: Vec<KeyId> = found.iter().map(|key| key.id).collect();
        api_keys::delete_all(conn, &all)?;
    } else {
        api_keys::revoke_all(conn, &live, cleanup.ended_at)?;
    }
    cleanup.keys += number(live.len());
    events.extend(live.into_iter().map(|key| Event::of(Action::RevokeKey).on(Target::Key(key)).owned_by(user)));
    Ok((events, number(found.len()) < left))
}

fn counts(cleanup: &Cleanup) -> String {
    let keys = format!("{} issued keys", cleanup.keys);
    if cleanup.kind == Kind::Account { format!("{keys}, {} pages", cleanup.pages) } else { keys }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The entries of one transaction of the background.
struct Batch {
    by: By,
    origin: Origin,
    events: Vec<Event>,
    /// How long that took without the commit.
    took: Duration,
    /// Whether the account is gone with it.
    deletes_account: bool,
}

/// Works on one cleanup for about this long; `None` if another process does, or it is done.
fn batch(conn: &mut Conn, id: i64, now: Timestamp, work: Duration) -> Result<Option<Batch>, AppError> {
    let began = Instant::now();
    let Some((mut cleanup, entry)) = account_cleanups::take(conn, id)? else {
        return Ok(None);
    };
    // Who has removed the entry had the database in hand.
    let maker = audit_entries::maker(conn, entry)?;
    let (by, origin) = maker.unwrap_or_else(|| (By::caller(&Caller::CommandLine), Origin::default()));
    let mut events = Vec::new();
    let is_done = loop {
        let (some, is_done) = advance(conn, &mut cleanup, STEP)?;
        audit_entries::insert_all(conn, now, &by, &some, &origin)?;
        events.extend(some);
        if is_done || began.elapsed() >= work {
            break is_done;
        }
    };
    // The end has a transaction of its own, which is short.
    let ends = is_done && events.is_empty();
    let deletes_account = ends && cleanup.kind == Kind::Account;
    if ends {
        let summary = Event::of(Action::CleanUp).on(Target::User(cleanup.user)).detail(counts(&cleanup));
        audit_entries::insert_all(conn, now, &by, std::slice::from_ref(&summary), &origin)?;
        events.push(summary);
        account_cleanups::delete(conn, id)?;
    } else {
        account_cleanups::save(conn, id, &cleanup)?;
    }
    if deletes_account {
        users::delete(conn, cleanup.user)?;
    }
    Ok(Some(Batch { by, origin, events, took: began.elapsed(), deletes_account }))
}

impl Service {
    /// Writes and removes what changes of accounts have left to do, for ever.
    pub async fn keep_cleaning_up(&self) {
        loop {
            if let Err(error) = self.clean_up().await {
                log::warn!("cannot go on with what ended accounts have left: {error}");
            }
            let log_is_emptied = self.erase().await.unwrap_or_else(|error| {
                log::debug!("cannot empty the write-ahead log: {error}");
                false
            });
            let rest = if log_is_emptied { INTERVAL } else { RETRY };
            tokio::select! {
                () = self.cleanups.wake.notified() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Does what is left to do, as far as no other process does it; how many entries that left.
    pub async fn clean_up(&self) -> Result<usize, AppError> {
        let ([least, most], mut written) = (WORK, 0);
        let mut work = least;
        loop {
            let next = self.db.read(|conn| account_cleanups::next_of_each(conn, ACCOUNTS)).await?;
            let mut worked = false;
            for id in next {
                let (began, now) = (Instant::now(), self.clock.now());
                let Some(batch) = self.db.write(move |conn| batch(conn, id, now, work)).await? else { continue };
                written += batch.events.len();
                worked = true;
                self.tell(&batch);
                work = began.elapsed().saturating_sub(batch.took).clamp(least, most);
                tokio::time::sleep(PAUSE.max(began.elapsed() * 2)).await;
            }
            if !worked {
                return Ok(written);
            }
        }
    }

    fn tell(&self, batch: &Batch) {
        for event in &batch.events {
            log_entry(&batch.by, event, Outcome::Success, &batch.origin);
            self.metrics.audit_entry(Outcome::Success.name());
        }
        if batch.deletes_account {
            self.cleanups.log_is_due.store(true, Ordering::SeqCst);
        }
    }

    /// Whether a change of this user's account has left something to do. What has ended has ended all the same.
    pub async fn has_cleanup(&self, user: UserId) -> Result<bool, AppError> {
        self.db.read(move |conn| account_cleanups::is_pending(conn, user)).await
    }

    /// Removes what SQLite's log still holds of what was deleted. Whether nothing is left of it there.
    pub async fn erase(&self) -> Result<bool, AppError> {
        if !self.cleanups.log_is_due.swap(false, Ordering::SeqCst) {
            return Ok(true);
        }
        let emptied = self.db.read(db::empty_log).await;
        if !matches!(emptied, Ok(true)) {
            self.cleanups.log_is_due.store(true, Ordering::SeqCst);
        }
        emptied
    }

    /// Has the background look for what a change has left to do.
    pub(super) fn wake_cleanup(&self) {
        self.cleanups.wake.notify_one();
    }

    /// The same, after something was deleted.
    pub(super) fn wake_erasure(&self) {
        self.cleanups.log_is_due.store(true, Ordering::SeqCst);
        self.wake_cleanup();
    }
}
