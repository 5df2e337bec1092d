//! Follows the change log, so that the cache of identities stays true whoever changes something.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::Service;
use crate::db::change_log::{ChangeBatch, ChangeLogReader, Changed};
use crate::error::AppError;

/// How long to wait before a reader that could not be opened is opened again.
const RETRY: Duration = Duration::from_millis(250);
/// How long one read may take before another reader takes over. No entry of the cache is fresh by then.
const LOST_AFTER: Duration = Duration::from_secs(10);

impl Service {
    /// Starts to follow, on threads of its own that end with this service.
    pub fn follow_changes(self: &Arc<Self>) -> Result<(), AppError> {
        if !self.cache.is_on() {
            return Ok(());
        }
        let service = Arc::downgrade(self);
        spawn("follower", move || watch(&service)).map_err(|error| AppError::Internal(error.into()))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// Keeps a thread that follows. One that hangs over a read is left behind, and another takes its place.
fn watch(service: &Weak<Service>) {
    while service.strong_count() > 0 {
        let (sign, signs) = sync_channel(1);
        let followed = Weak::clone(service);
        if let Err(error) = spawn("change-log", move || follow(&followed, &sign)) {
            log::warn!("cannot start to follow the change log: {error}");
            thread::sleep(LOST_AFTER);
        }
        let ended = loop {
            if let Err(ended) = signs.recv_timeout(LOST_AFTER) {
                break ended;
            }
        };
        if ended == RecvTimeoutError::Timeout {
            log::warn!("the connection that reads the change log does not answer and is given up");
        }
    }
}

/// Follows until the service has ended, or until another thread has taken over.
fn follow(service: &Weak<Service>, sign: &SyncSender<()>) {
    let mut reader: Option<ChangeLogReader> = None;
    let mut is_lost = false;
    while let Some(service) = service.upgrade() {
        let was_open = reader.is_some();
        let pause = match step(&service, reader.take()) {
            Ok(followed) => {
                if std::mem::take(&mut is_lost) {
                    log::info!("reads the change log again");
                }
                reader = Some(followed);
                service.db.change_log_interval()
            }
            Err(error) => {
                service.db.recheck_connections();
                // The connection may be lost although the database is there: only a new one tells.
                if was_open {
                    continue;
                }
                if !std::mem::replace(&mut is_lost, true) {
                    log::warn!("cannot read the change log, so every credential is looked up: {error}");
                }
                RETRY
            }
        };
        // Not while the service is held: it may end meanwhile.
        drop(service);
        if let Err(TrySendError::Disconnected(())) = sign.try_send(()) {
            return;
        }
        thread::sleep(pause);
    }
}

/// One read of the log, by a new reader if there is none.
fn step(service: &Service, reader: Option<ChangeLogReader>) -> Result<ChangeLogReader, AppError> {
    let mut reader = reader.map_or_else(|| service.db.change_log_reader(), Ok)?;
    let ChangeBatch { changed, certain } = reader.read()?;
    match changed {
        Changed::Users(users) => users.into_iter().for_each(|user| service.cache.invalidate(user)),
        Changed::Everybody => service.cache.invalidate_all(),
        Changed::Unknown => {
            service.cache.begin_generation();
            service.outage.end();
        }
    }
    service.cache.is_certain_since(certain);
    service.outage.settle();
    Ok(reader)
}
