//! Removal of the oldest entries of the audit trail, by a command or because of a setting.
//!
//! An entry `audit.prune` comes first: it states how many entries are removed, and the database deletes no others. They
//! are then deleted in short transactions. If that is interrupted, the next run of any process continues it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{Clock, Timestamp};
use crate::config::AuditSettings;
use crate::db::audit_entries::{self, removals};
use crate::db::{self, Db, account_cleanups};
use crate::domain::audit::{Action, Actor, ClientInfo, Event, Outcome, Target, TrailPart};
use crate::domain::id::EntryId;
use crate::error::AppError;
use crate::metrics::Metrics;

/// Maximum number of entries that one transaction deletes. On SQLite other writers wait for it.
const BATCH_SIZE: i64 = 500;
/// Maximum number of entries that one query reads to find or count those to remove.
const READ_SIZE: i64 = 5_000;
/// Minimum pause between two transactions. The pause is twice the duration of the last one if that is longer.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// Minimum age of an entry that is removed, in seconds. Transactions that began before it have ended, so no entry with a
/// smaller id can still appear.
pub const MIN_AGE: i64 = 60;
/// Beyond the limit, failures of anonymous callers are removed when they exceed it by this part of it, so that few
/// entries `audit.prune` are written.
const SLACK_DIVISOR: i64 = 100;

/// The oldest entries of a part of the trail, which can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldEntries {
    /// The part of the trail.
    pub part: TrailPart,
    /// The first one.
    pub first: EntryId,
    /// They have smaller ids than this.
    pub below: EntryId,
    /// Their number.
    pub count: u64,
}

/// The result of a run that deletes entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The number of deleted entries.
    pub count: u64,
    /// Whether another process holds the lock, so that entries may be left.
    pub is_locked: bool,
}

/// The result of one transaction.
enum Step {
    Removed { last: EntryId, count: u64 },
    Complete,
    Locked,
}

/// Removes old entries.
pub struct Pruning {
    db: Db,
    clock: Clock,
    metrics: Arc<Metrics>,
    settings: AuditSettings,
}

impl Pruning {
    pub(crate) fn new(db: Db, clock: Clock, metrics: Arc<Metrics>, settings: AuditSettings) -> Self {
        Self { db, clock, metrics, settings }
    }

    /// Removes what the settings say, and completes removals that were interrupted. Returns the number of deleted
    /// entries.
    ///
    /// Errors: that of one part of the trail. The other part is removed nevertheless.
    pub async fn run_once(&self) -> Result<u64, AppError> {
        let failures = self.run_part(TrailPart::AnonymousFailures).await;
        Ok(self.run_part(TrailPart::All).await? + failures?)
    }

    async fn run_part(&self, part: TrailPart) -> Result<u64, AppError> {
        let mut count = self.remove_recorded(part).await?.count;
        let (old, setting) = match part {
            TrailPart::All => (self.beyond_retention().await?, "audit.retention_days"),
            TrailPart::AnonymousFailures => (self.beyond_limit().await?, "audit.anonymous_failures_kept"),
        };
        if let Some(old) = old
            && self.record(old, Actor::server(), setting).await?
        {
            count += self.remove_recorded(part).await?.count;
        }
        Ok(count)
    }

    /// The entries from the oldest one up to the first that is not older than `before`. An entry whose time is more than
    /// a day in the future does not end them if an older one follows: then its clock was wrong. If none follows, the
    /// clock of this machine may be behind. The entry that a pending cleanup of an account refers to ends them, too.
    ///
    /// Errors: [`AppError::Busy`] if the database does not answer.
    pub async fn older_than(&self, before: Timestamp) -> Result<Option<OldEntries>, AppError> {
        let latest = self.clock.now().plus_seconds(86_400);
        let pending = self.db.read(account_cleanups::oldest_entry).await?;
        let (mut read, mut number, mut first, mut old) = (EntryId(0), 0, None, None);
        'read: loop {
            let entries = self.db.read(move |conn| removals::times(conn, read, READ_SIZE)).await?;
            if entries.is_empty() {
                break;
            }
            for (id, at) in entries {
                if (before <= at && at <= latest) || pending.is_some_and(|pending| pending <= id) {
                    break 'read;
                }
                let first = *first.get_or_insert(id);
                (read, number) = (id, number + 1);
                if at < before {
                    old = Some(OldEntries { part: TrailPart::All, first, below: EntryId(id.0 + 1), count: number });
                }
            }
        }
        Ok(old)
    }

    async fn beyond_retention(&self) -> Result<Option<OldEntries>, AppError> {
        match self.settings.retention_days {
            0 => Ok(None),
            days => self.older_than(self.clock.now().start_of_day().plus_seconds(-days * 86_400)).await,
        }
    }

    async fn beyond_limit(&self) -> Result<Option<OldEntries>, AppError> {
        let kept = self.settings.anonymous_failures_kept;
        let Some(below) = self.failure_by_number(EntryId(i64::MAX), kept).await? else { return Ok(None) };
        if self.failure_by_number(below, kept / SLACK_DIVISOR).await?.is_none() {
            return Ok(None);
        }
        let part = TrailPart::AnonymousFailures;
        let (mut first, mut last, mut count) = (None, EntryId(0), 0);
        loop {
            let ids = self.db.read(move |conn| removals::ids(conn, part, last, below, READ_SIZE)).await?;
            let Some(end) = ids.last() else { break };
            first = first.or(ids.first().copied());
            (last, count) = (*end, count + number(ids.len()));
        }
        Ok(first.map(|first| OldEntries { part, first, below, count }))
    }

    /// The failure of an anonymous caller before `below` with this number, counted from the newest.
    async fn failure_by_number(&self, mut below: EntryId, mut number: i64) -> Result<Option<EntryId>, AppError> {
        while number > 0 {
            let step = number.min(READ_SIZE);
            let found = self.db.read(move |conn| removals::failure_by_number(conn, below, step)).await?;
            let Some(found) = found else { return Ok(None) };
            (below, number) = (found, number - step);
        }
        Ok(Some(below))
    }

    /// Writes the entry about the removal of these entries, unless one covers them already. `reason` becomes part of
    /// its detail. Returns `false` if another process holds the lock.
    pub async fn record(&self, old: OldEntries, by: Actor, reason: &str) -> Result<bool, AppError> {
        let now = self.clock.now();
        let event = Event::of(Action::Prune)
            .on(Target::Trail(old.part))
            .versions(Some(old.first.0), Some(old.below.0))
            .detail(format!("{} entries, {reason}", old.count));
        let recorded = self.db.write(move |conn| {
            if !db::try_purge_lock(conn)? {
                return Ok(None);
            }
            if removals::recorded_bound(conn, old.part)? >= old.below {
                return Ok(Some(false));
            }
            audit_entries::insert(conn, now, &by, &event, Outcome::Success, &ClientInfo::default())?;
            Ok(Some(true))
        });
        let recorded = recorded.await?;
        if recorded == Some(true) {
            self.metrics.audit_entry(Outcome::Success.name());
        }
        Ok(recorded.is_some())
    }

    /// Deletes the entries of a part whose removal is recorded, until none is left or another process holds the lock.
    pub async fn remove_recorded(&self, part: TrailPart) -> Result<Removed, AppError> {
        let is_left = move |conn: &mut db::Conn| {
            let below = removals::recorded_bound(conn, part)?;
            Ok((below, !removals::ids(conn, part, EntryId(0), below, 1)?.is_empty()))
        };
        let (below, is_left) = self.db.read(is_left).await?;
        let (mut after, mut removed) = (EntryId(0), Removed::default());
        if !is_left {
            return Ok(removed);
        }
        loop {
            let began = Instant::now();
            match self.db.write(move |conn| remove_batch(conn, part, after, below)).await? {
                Step::Removed { last, count } => {
                    after = last;
                    removed.count += count;
                }
                Step::Complete => return Ok(removed),
                Step::Locked => return Ok(Removed { is_locked: true, ..removed }),
            }
            tokio::time::sleep(MIN_PAUSE.max(began.elapsed() * 2)).await;
        }
    }
}

fn remove_batch(conn: &mut db::Conn, part: TrailPart, after: EntryId, below: EntryId) -> Result<Step, AppError> {
    if !db::try_purge_lock(conn)? {
        return Ok(Step::Locked);
    }
    match removals::ids(conn, part, after, below, BATCH_SIZE)?.last() {
        Some(last) => Ok(Step::Removed { last: *last, count: removals::remove(conn, part, after, *last)? }),
        None => Ok(Step::Complete),
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
