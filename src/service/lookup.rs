//! Credentials that the cache does not know are looked up in the database: those that come together share a connection,
//! because to hand work to another thread and back costs more than the query.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::auth::identify;
use crate::db::{Conn, Db};
use crate::domain::principal::Identity;
use crate::domain::secret::{Digest, SecretKind};
use crate::error::AppError;

/// Connections that are at work on lookups at most.
const SHIFTS: usize = 4;
/// As many must wait for each connection at work before one more is taken.
const CROWD: usize = 4;
/// How long a connection is kept while others may want it.
const TURN: Duration = Duration::from_millis(100);
/// How long a lookup may take before its caller is told to come back.
const PATIENCE: Duration = Duration::from_secs(3);

/// What came of a lookup.
type Found = Result<Option<Arc<Identity>>, AppError>;

/// Lookups that wait, and how many connections are at work on them.
#[derive(Default)]
pub(super) struct Lookups(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    asked: VecDeque<Asked>,
    shifts: usize,
}

struct Asked {
    kind: SecretKind,
    digest: Digest,
    answer: oneshot::Sender<Found>,
}

impl Lookups {
    /// Whose secret this is, expired or not, by what the database holds at some time during this call.
    pub(super) async fn find(self: &Arc<Self>, db: &Db, kind: SecretKind, digest: Digest) -> Found {
        let (answer, found) = oneshot::channel();
        if let Some(shift) = self.ask(Asked { kind, digest, answer }) {
            let db = db.clone();
            // On its own: whoever asked first may go away while others wait.
            tokio::spawn(async move {
                let mut at_work = Some(shift);
                while let Some(shift) = at_work.take() {
                    match db.read(move |conn| shift.work(conn)).await {
                        Ok(goes_on) => at_work = goes_on,
                        Err(error) => log::warn!("cannot look up credentials: {error}"),
                    }
                }
            });
        }
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => Err(AppError::Busy("the credential could not be looked up".into())),
            Err(_) => Err(AppError::Busy("the database takes too long to answer".into())),
        }
    }

    /// Joins those who wait; with a shift if one more is due.
    fn ask(self: &Arc<Self>, asked: Asked) -> Option<Shift> {
        let mut waiting = self.waiting();
        let due = waiting.shifts < SHIFTS && waiting.asked.len() >= CROWD * waiting.shifts;
        waiting.asked.push_back(asked);
        if due {
            waiting.shifts += 1;
        }
        due.then(|| Shift { lookups: Arc::clone(self), is_over: false })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection at work, until nobody waits.
struct Shift {
    lookups: Arc<Lookups>,
    is_over: bool,
}

impl Shift {
    /// Serves those who wait; itself if there are still some when its turn with the connection ends.
    fn work(mut self, conn: &mut Conn) -> Result<Option<Self>, AppError> {
        let began = Instant::now();
        while began.elapsed() < TURN {
            let Some(Asked { kind, digest, answer }) = self.next() else {
                return Ok(None);
            };
            if answer.is_closed() {
                continue;
            }
            match identify(conn, kind, digest) {
                Ok(found) => drop(answer.send(Ok(found.map(Arc::new)))),
                Err(error) => {
                    let said = error.to_string();
                    drop(answer.send(Err(error)));
                    return Err(AppError::Busy(said.into()));
                }
            }
        }
        Ok(Some(self))
    }

    /// The next in line. Without one the shift is over, before anybody can join a line that nobody serves.
    fn next(&mut self) -> Option<Asked> {
        let mut waiting = self.lookups.waiting();
        let next = waiting.asked.pop_front();
        if next.is_none() {
            waiting.shifts -= 1;
            self.is_over = true;
        }
        next
    }
}

impl Drop for Shift {
    /// If it ends early there is no connection, or a bad one. Those who wait are turned away, by the loss of their
    /// senders, rather than left to wait for the next to come.
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.lookups.waiting();
            waiting.shifts -= 1;
            waiting.asked.clear();
        }
    }
}
