//! Follows the change log, so that changes by other processes invalidate cached identities.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::db::Db;
use crate::db::engine::change_log::{ChangeBatch, ChangeLogReader, Changed};
use crate::error::AppError;
use crate::service::identity::authenticate::Identities;

/// Delay before another attempt to open a reader.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Time-out of one read. After it, a new reader replaces the old one. By then no cache entry is fresh.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How often [`Follower::stop`] checks whether the threads have ended.
const STOP_INTERVAL: Duration = Duration::from_millis(2);

/// The threads that follow the change log. They continue if this value is dropped.
pub struct Follower {
    identities: FollowedIdentities,
    supervisor: JoinHandle<()>,
}

impl Follower {
    /// Ends the threads, and waits until their connection is closed. The caller must limit the time, because a database
    /// that does not respond delays the end of a read.
    pub async fn stop(self) {
        self.identities.must_stop.store(true, Ordering::Relaxed);
        while !self.supervisor.is_finished() {
            tokio::time::sleep(STOP_INTERVAL).await;
        }
    }
}

/// The identities whose cache the threads update.
#[derive(Clone)]
struct FollowedIdentities {
    identities: Weak<Identities>,
    must_stop: Arc<AtomicBool>,
}

impl FollowedIdentities {
    /// The identities, unless they are dropped or the threads must end.
    fn get(&self) -> Option<Arc<Identities>> {
        if self.must_stop.load(Ordering::Relaxed) { None } else { self.identities.upgrade() }
    }
}

impl Identities {
    /// Starts the threads that follow the change log of `db`. They end when `self` is dropped, or by
    /// [`Follower::stop`]. Returns `None` if the cache is off and there is one database server: the reader also detects
    /// that another server has taken over.
    ///
    /// Errors: [`AppError::Internal`] if the system cannot start a thread.
    pub fn follow_changes(self: &Arc<Self>, db: &Db) -> Result<Option<Follower>, AppError> {
        if !self.cache().is_on() && !db.has_several_hosts() {
            return Ok(None);
        }
        let identities = FollowedIdentities { identities: Arc::downgrade(self), must_stop: Arc::default() };
        let (followed, db) = (identities.clone(), db.clone());
        let supervisor = spawn("follower", move || supervise(&followed, &db));
        let supervisor = supervisor.map_err(|error| AppError::Internal(error.into()))?;
        Ok(Some(Follower { identities, supervisor }))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Runs a thread that follows the log, and replaces it if a read hangs.
fn supervise(identities: &FollowedIdentities, db: &Db) {
    while identities.get().is_some() {
        let (heartbeat, heartbeats) = sync_channel(1);
        let (followed, log) = (identities.clone(), db.clone());
        if let Err(error) = spawn("change-log", move || follow(&followed, &log, &heartbeat)) {
            log::warn!("cannot start the thread that reads the change log: {error}");
            thread::sleep(READ_TIMEOUT);
        }
        let ended = loop {
            if let Err(ended) = heartbeats.recv_timeout(READ_TIMEOUT) {
                break ended;
            }
        };
        if ended == RecvTimeoutError::Timeout {
            log::warn!("the connection that reads the change log does not answer: opening another one");
        }
    }
}

/// Follows the log until the threads must end, or until another thread has replaced this one.
fn follow(identities: &FollowedIdentities, db: &Db, heartbeat: &SyncSender<()>) {
    let mut reader: Option<ChangeLogReader> = None;
    let mut is_failing = false;
    while let Some(identities) = identities.get() {
        let was_open = reader.is_some();
        let pause = match step(&identities, db, reader.take()) {
            Ok(followed) => {
                if std::mem::take(&mut is_failing) {
                    log::info!("the change log can be read again");
                }
                reader = Some(followed);
                db.change_log_interval()
            }
            Err(error) => {
                db.recheck_connections();
                // Only the connection may be lost: try a new one at once.
                if was_open {
                    continue;
                }
                if !std::mem::replace(&mut is_failing, true) {
                    log::warn!("cannot read the change log: every credential is looked up in the database: {error}");
                }
                RETRY_DELAY
            }
        };
        // Dropped before the pause, so that this thread does not keep the identities alive.
        drop(identities);
        if let Err(TrySendError::Disconnected(())) = heartbeat.try_send(()) {
            return;
        }
        thread::sleep(pause);
    }
}

/// Reads the log once and updates the cache. Opens a new reader if there is none.
fn step(identities: &Identities, db: &Db, reader: Option<ChangeLogReader>) -> Result<ChangeLogReader, AppError> {
    let mut reader = reader.map_or_else(|| db.change_log_reader(), Ok)?;
    let ChangeBatch { changed, certain } = reader.read()?;
    match changed {
        Changed::Users(users) => users.into_iter().for_each(|user| identities.cache().invalidate(user)),
        Changed::AllUsers => identities.cache().invalidate_all(),
        Changed::Unknown => {
            identities.cache().begin_generation();
            identities.outage().end();
        }
    }
    identities.cache().set_certain_since(certain);
    identities.outage().log_end_if_stable();
    Ok(reader)
}
