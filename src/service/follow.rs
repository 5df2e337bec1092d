//! Follows what others change, so that the cache of identities stays true.

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

impl Service {
    /// Starts to follow, on a thread of its own that ends with this service.
    pub fn follow_changes(self: &Arc<Self>) -> Result<(), AppError> {
        if !self.cache.is_on() {
            return Ok(());
        }
        let service = Arc::downgrade(self);
        let follow = move || follow(&service);
        thread::Builder::new()
            .name("follower".to_owned())
            .spawn(follow)
            .map(drop)
            .map_err(|error| AppError::Internal(error.into()))
    }
}

fn follow(service: &Weak<Service>) {
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
                service.db.doubt();
                if !std::mem::replace(&mut deaf, true) {
                    log::warn!("cannot hear what changes, so every credential is looked up: {error}");
                }
                RETRY
            }
        };
        // Not while the service is held: it may end meanwhile.
        drop(service);
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
