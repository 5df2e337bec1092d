//! Follows what others change, so that the cache of identities stays true.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::Service;
use crate::db::feed::Feed;
use crate::error::AppError;

/// How often the feed is looked at: what others change is typically seen within this time.
const PAUSE: Duration = Duration::from_millis(15);
/// How long to wait before a feed that broke is opened again.
const RETRY: Duration = Duration::from_millis(250);
/// How long one look may take. Meanwhile the cache has long ceased to be trusted.
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

/// Has somebody follow. Who hangs over an answer that never comes is left behind, and somebody else takes their place.
fn watch(service: &Weak<Service>) {
    while service.strong_count() > 0 {
        let (sign, signs) = sync_channel(1);
        let followed = Weak::clone(service);
        if let Err(error) = spawn("feed", move || follow(&followed, &sign)) {
            log::warn!("cannot start to follow what changes: {error}");
            thread::sleep(LOST_AFTER);
        }
        let ended = loop {
            if let Err(ended) = signs.recv_timeout(LOST_AFTER) {
                break ended;
            }
        };
        if ended == RecvTimeoutError::Timeout {
            log::warn!("the connection that tells what changes does not answer and is given up");
        }
    }
}

/// Follows until the service has ended, or nobody wants a sign any more.
fn follow(service: &Weak<Service>, sign: &SyncSender<()>) {
    let mut feed: Option<Feed> = None;
    let mut deaf = false;
    while let Some(service) = service.upgrade() {
        let pause = match step(&service, feed.take()) {
            Ok(followed) => {
                if std::mem::take(&mut deaf) {
                    log::info!("listens again to what changes");
                }
                feed = Some(followed);
                PAUSE
            }
            Err(error) => {
                service.cache.distrust();
                service.db.recheck_connections();
                if !std::mem::replace(&mut deaf, true) {
                    log::warn!("cannot hear what changes, so every credential is looked up: {error}");
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

/// One look at the feed; a new one begins with an empty cache.
fn step(service: &Service, feed: Option<Feed>) -> Result<Feed, AppError> {
    let mut feed = match feed {
        Some(feed) => feed,
        None => {
            let feed = service.db.feed()?;
            service.cache.forget_all();
            feed
        }
    };
    let news = feed.look()?;
    match news.changed {
        Some(users) => users.into_iter().for_each(|user| service.cache.forget(user)),
        None => service.cache.forget_all(),
    }
    if let Some(certain) = news.certain {
        service.cache.trust(certain);
    }
    Ok(feed)
}
