//! Credentials that the cache does not know are looked up in the database: those that come together share a connection,
//! because to hand work to another thread and back costs more than the query.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::auth::identify;
use crate::db::{Conn, Db, LOST_AFTER, Shares};
use crate::domain::principal::Identity;
use crate::domain::secret::{Digest, SecretKind};
use crate::error::AppError;

/// As many must wait for each connection at work before one more is taken,
const CROWD: usize = 4;
/// or one for so long: a connection may hang.
const STALL: Duration = Duration::from_millis(20);
/// More than so many that wait are turned away.
const LINE: usize = 10_000;
/// Of one client no more than so many wait at once; the others queue up before the line, so that nobody fills it alone.
const LINE_OF_ONE: usize = 32;
/// How long a connection is kept while others may want it.
const TURN: Duration = Duration::from_millis(100);
/// What came of a lookup.
type Found = Result<Option<Arc<Identity>>, AppError>;

/// Lookups that wait, and the connections at work on them.
pub(super) struct Lookups {
    db: Db,
    /// Connections at most: half of the pool, so that others get some, too.
    most: usize,
    shares: Arc<Shares>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    line: VecDeque<Asked>,
    /// The connections at work.
    shifts: HashSet<Shift>,
    latest: Shift,
}

/// The work of one connection, and of those that take its place.
type Shift = u64;

struct Asked {
    kind: SecretKind,
    digest: Digest,
    since: Instant,
    /// Connections have failed over it: after one, the next one tells whether it was the connection's fault; after two it
    /// is answered with the error.
    failures: u8,
    answer: oneshot::Sender<Found>,
}

/// Why a connection is given back.
enum Served {
    /// Nobody waits any more.
    All,
    /// Its turn is over.
    Some,
}

impl Lookups {
    pub(super) fn new(db: Db) -> Arc<Self> {
        let most = (db.pool_size() / 2).max(2);
        Arc::new(Self { db, most, shares: Shares::new(LINE_OF_ONE), waiting: Mutex::default() })
    }

    /// Whose secret this is, expired or not, by what the database holds at some time during this call.
    pub(super) async fn find(self: &Arc<Self>, kind: SecretKind, digest: Digest) -> Found {
        let found = async {
            let _share = self.shares.take().await;
            let (answer, found) = oneshot::channel();
            if let Some(shift) = self.join(Asked { kind, digest, since: Instant::now(), failures: 0, answer })? {
                // On its own: whoever asked first may go away while others wait.
                tokio::spawn(Arc::clone(self).work(shift));
            }
            found.await.unwrap_or_else(|_| Err(AppError::Busy("the lookup was given up".into())))
        };
        self.db.in_time(found).await
    }

    /// Joins those who wait; one more shift if that is due.
    fn join(&self, asked: Asked) -> Result<Option<Shift>, AppError> {
        let mut waiting = self.waiting();
        if waiting.line.len() >= LINE {
            waiting.line.retain(|asked| !asked.answer.is_closed());
            if waiting.line.len() >= LINE {
                return Err(AppError::Busy("too many credentials wait to be looked up".into()));
            }
        }
        let stalled = waiting.line.front().is_some_and(|first| first.since.elapsed() > STALL);
        let crowded = waiting.line.len() >= CROWD * waiting.shifts.len();
        waiting.line.push_back(asked);
        if waiting.shifts.len() >= self.most || !(crowded || stalled) {
            return Ok(None);
        }
        waiting.latest += 1;
        let shift = waiting.latest;
        waiting.shifts.insert(shift);
        Ok(Some(shift))
    }

    /// Takes connections, one after the other, until nobody waits.
    async fn work(self: Arc<Self>, shift: Shift) {
        loop {
            let lookups = Arc::clone(&self);
            let lent = self.db.with_connection(move |conn| lookups.serve(shift, conn));
            let served = tokio::time::timeout(LOST_AFTER, lent).await;
            match served.unwrap_or_else(|_| Err(AppError::Busy("the database does not answer".into()))) {
                Ok(Served::All) => return,
                Ok(Served::Some) => {}
                Err(error) => {
                    if !self.goes_on_after(shift, &error) {
                        return;
                    }
                }
            }
        }
    }

    /// Serves those who wait. An error says that the connection is no good.
    fn serve(&self, shift: Shift, conn: &mut Conn) -> Result<Served, AppError> {
        let began = Instant::now();
        while began.elapsed() < TURN {
            let Some(asked) = self.next(shift) else {
                return Ok(Served::All);
            };
            if asked.answer.is_closed() {
                continue;
            }
            match identify(conn, asked.kind, asked.digest) {
                Err(AppError::Busy(cause)) => {
                    self.waiting().line.push_front(Asked { failures: asked.failures + 1, ..asked });
                    return Err(AppError::Busy(cause));
                }
                found => drop(asked.answer.send(found.map(|found| found.map(Arc::new)))),
            }
        }
        Ok(Served::Some)
    }

    /// The next in line. Without one the shift is over, before anybody can join a line that nobody serves. So it is for a
    /// connection that was given up and answers after all.
    fn next(&self, shift: Shift) -> Option<Asked> {
        let mut waiting = self.waiting();
        if !waiting.shifts.contains(&shift) {
            return None;
        }
        let next = waiting.line.pop_front();
        if next.is_none() {
            waiting.shifts.remove(&shift);
        }
        next
    }

    /// Whether to try another connection, for somebody who has a second try. Otherwise those who wait are left to the
    /// connections that are at work; if there are none, they are turned away rather than left to wait in vain.
    fn goes_on_after(&self, shift: Shift, error: &AppError) -> bool {
        let mut waiting = self.waiting();
        match waiting.line.front().map_or(0, |first| first.failures) {
            0 => {}
            1 => return true,
            _ => {
                if let Some(first) = waiting.line.pop_front() {
                    drop(first.answer.send(Err(copy(error))));
                }
            }
        }
        waiting.shifts.remove(&shift);
        if waiting.shifts.is_empty() {
            for asked in waiting.line.drain(..) {
                drop(asked.answer.send(Err(copy(error))));
            }
        }
        false
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same error for another who waits.
fn copy(error: &AppError) -> AppError {
    match error {
        AppError::Internal(cause) => AppError::Internal(cause.to_string().into()),
        error => AppError::Busy(error.to_string().into()),
    }
}
