//! When the next attempt to send a mail may begin: how many are in progress, and whether the SMTP server can be used.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;

/// Maximum number of mails to one domain that are sent at the same time.
const PARALLEL_TO_DOMAIN: usize = 2;
/// Pauses of all mails after the server could not be used, first and at most.
const PAUSE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// The attempts of this process.
pub(super) struct Pace {
    clock: Clock,
    /// The number of attempts in progress.
    running: watch::Sender<usize>,
    /// The domains of the mails that are being sent.
    domains: Mutex<Vec<String>>,
    pause: Mutex<Pause>,
}

/// No mail is sent for some time after the server could not be used. Afterwards, one at a time is sent until one has
/// reached it.
#[derive(Default)]
struct Pause {
    length: Duration,
    /// The uptime of the process at which the pause ends.
    until: Option<Duration>,
}

/// An attempt in progress.
pub(super) struct Running<'p>(&'p watch::Sender<usize>);

/// A mail to this domain is being sent.
pub(super) struct Occupied<'p> {
    pace: &'p Pace,
    domain: String,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        let mut domains = lock(&self.pace.domains);
        if let Some(index) = domains.iter().position(|domain| *domain == self.domain) {
            domains.swap_remove(index);
        }
    }
}

impl Pace {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, running: watch::Sender::new(0), domains: Mutex::default(), pause: Mutex::default() }
    }

    /// Counts an attempt until the result is dropped.
    pub(super) fn count(&self) -> Running<'_> {
        self.running.send_modify(|running| *running += 1);
        Running(&self.running)
    }

    /// Completes when no attempt is in progress.
    pub(super) async fn none_running(&self) {
        // The sender exists as long as this does.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Whether the server can be used by an attempt, which is counted already.
    pub(super) fn may_begin(&self) -> bool {
        let pause = lock(&self.pause);
        let is_over = pause.until.is_none_or(|until| self.clock.uptime() >= until);
        is_over && (pause.length.is_zero() || *self.running.borrow() == 1)
    }

    /// Counts a mail to `domain` until the result is dropped.
    pub(super) fn occupy(&self, domain: &str) -> Occupied<'_> {
        lock(&self.domains).push(domain.to_owned());
        Occupied { pace: self, domain: domain.to_owned() }
    }

    /// The domains to which no further mail is sent now.
    pub(super) fn busy_domains(&self) -> Vec<String> {
        let domains = lock(&self.domains);
        let is_busy = |domain: &&String| domains.iter().filter(|other| other == domain).count() >= PARALLEL_TO_DOMAIN;
        domains.iter().filter(is_busy).cloned().collect()
    }

    /// Begins a pause, unless another attempt has just begun one.
    pub(super) fn begin_pause(&self) {
        let [first, longest] = PAUSE;
        let (mut pause, now) = (lock(&self.pause), self.clock.uptime());
        if pause.until.is_none_or(|until| now >= until) {
            pause.length = (pause.length * 2).clamp(first, longest);
            pause.until = Some(now + pause.length);
        }
    }

    /// Ends the pause. Returns whether there was one.
    pub(super) fn end_pause(&self) -> bool {
        let ended = std::mem::take(&mut *lock(&self.pause));
        !ended.length.is_zero()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
