//! The task that sends mails. First it decides which of the requested mails are sent; that takes no time of the SMTP
//! server. Then it sends those that are due, one after the other. A row is reserved for the time of an attempt, so that
//! several processes send each mail once. A process that is killed between sending and marking leaves a row that is
//! sent once more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::links::Links;
use super::outgoing::Outgoing;
use super::queue::{self, Attempt, Next};
use super::smtp::SendError;
use crate::clock::Clock;
use crate::db::mail::Subject;
use crate::db::mail::outbox::{self, Intent};
use crate::db::{Db, audit_entries};
use crate::domain::audit::{Action, Actor, ClientInfo, Event, Outcome, Target};
use crate::domain::secret::Digest;
use crate::error::AppError;
use crate::logging::repeated::RepeatedFailure;
use crate::metrics::Metrics;

/// How often to look for mails that another process has requested.
const INTERVAL: Duration = Duration::from_secs(5);
/// Seconds before the second attempt. The pause doubles with each attempt.
const FIRST_RETRY: i64 = 30;
/// Longest pause between two attempts, in seconds.
const LAST_RETRY: i64 = 3_600;
/// Pauses of all mails after the server could not be used, first and at most.
const PAUSE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];
/// The number of waiting mails that the metrics can show.
const WAITING_MAX: i64 = 100_000;

/// Sends mails in the background.
pub struct Delivery {
    db: Db,
    clock: Clock,
    metrics: Arc<Metrics>,
    links: Links,
    outgoing: Option<Outgoing>,
    wake: Notify,
    pause: Mutex<Pause>,
    /// The server cannot be used.
    server: RepeatedFailure,
    /// The database cannot be used.
    failure: RepeatedFailure,
}

/// No mail is sent for some time after the server could not be used.
#[derive(Default)]
struct Pause {
    length: Duration,
    /// The uptime of the process at which the pause ends.
    until: Option<Duration>,
}

impl Delivery {
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        metrics: Arc<Metrics>,
        links: Links,
        outgoing: Option<Outgoing>,
    ) -> Arc<Self> {
        Arc::new(Self {
            db,
            clock,
            metrics,
            links,
            outgoing,
            wake: Notify::new(),
            pause: Mutex::default(),
            server: RepeatedFailure::new("use the SMTP server"),
            failure: RepeatedFailure::new("read the mails to send"),
        })
    }

    /// Whether an SMTP server is set.
    pub fn is_configured(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Makes [`run`](Self::run) look for mails now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Sends mails whenever some are due. Never returns.
    pub async fn run(&self) {
        if self.outgoing.is_none() {
            return std::future::pending().await;
        }
        loop {
            match self.run_once().await {
                Ok(_) => self.failure.succeeded(),
                Err(error) => self.failure.failed(&error),
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Decides about all requested mails, and sends those that are due. Returns the number of sent mails.
    ///
    /// Errors: the database cannot be used.
    pub async fn run_once(&self) -> Result<usize, AppError> {
        let Some(outgoing) = &self.outgoing else {
            return Ok(0);
        };
        let mut sent = 0;
        loop {
            self.accept_requests().await?;
            let now = self.clock.now();
            if self.is_paused() || self.db.read(move |conn| outbox::next_due(conn, now)).await?.is_none() {
                break;
            }
            let links = self.links.clone();
            match self.db.write(move |conn| queue::next(conn, &links, now)).await? {
                Next::Nothing => break,
                Next::Dropped => self.metrics.mail("dropped"),
                Next::GivenUp(intent) => {
                    self.metrics.mail("failed");
                    log::warn!("mail {} was not sent within a day, and is given up", intent.kind);
                }
                Next::Attempt(attempt) => sent += usize::from(self.attempt(outgoing, *attempt).await?),
            }
        }
        let waiting = self.db.read(|conn| outbox::count_waiting(conn, WAITING_MAX)).await?;
        self.metrics.mails_waiting(waiting);
        Ok(sent)
    }

    /// Accepts or drops all requested mails.
    async fn accept_requests(&self) -> Result<(), AppError> {
        while self.db.read(outbox::has_requests).await? {
            let now = self.clock.now();
            let (decided, dropped) = self.db.write(move |conn| queue::accept_batch(conn, now)).await?;
            (0..dropped).for_each(|_| self.metrics.mail("dropped"));
            if decided == 0 {
                // Another process decides about them.
                break;
            }
        }
        Ok(())
    }

    /// Sends a mail and stores the outcome. Returns whether it was sent.
    async fn attempt(&self, outgoing: &Outgoing, attempt: Attempt) -> Result<bool, AppError> {
        let Attempt { intent, kind, subject, to, language, values } = attempt;
        let (began, now, number) = (Instant::now(), self.clock.now(), intent.attempts + 1);
        let id = Digest::of(&format!("mail {} {number} {}", intent.id, intent.created_at)).to_hex();
        let id = id.get(..32).unwrap_or_default();
        let sent = outgoing.send(kind, language, &to, id, values, now).await;
        let (took, name, whom) = (began.elapsed().as_millis(), kind.name(), describe(subject));
        match sent {
            Ok(()) => {
                self.end_pause();
                self.mark(&intent, subject, Outcome::Success).await?;
                self.metrics.mail("sent");
                log::info!("mail {name} to {whom} sent in {took} ms at attempt {number}");
                Ok(true)
            }
            Err(SendError::Final(cause)) => {
                self.mark(&intent, subject, Outcome::Failure).await?;
                self.metrics.mail("failed");
                log::warn!("mail {name} to {whom} cannot be delivered, and is given up: {cause}");
                Ok(false)
            }
            Err(SendError::Deferred(cause)) => {
                self.defer(&intent).await?;
                log::warn!("mail {name} to {whom} was not accepted at attempt {number}, will try again: {cause}");
                Ok(false)
            }
            Err(SendError::Unavailable(cause)) => {
                self.begin_pause();
                self.server.failed(&cause);
                self.defer(&intent).await?;
                Ok(false)
            }
        }
    }

    /// Stores that a mail was sent, or never will be, with an audit entry.
    async fn mark(&self, intent: &Intent, subject: Subject, outcome: Outcome) -> Result<(), AppError> {
        let (id, kind, now) = (intent.id, intent.kind.clone(), self.clock.now());
        self.db
            .write(move |conn| {
                outbox::mark_done(conn, id, now)?;
                let event = Event::of(Action::SendMail).detail(kind);
                let event = match subject {
                    Subject::User(user) => event.on(Target::User(user)),
                    Subject::Invitation(invitation) => event.on(Target::Invitation(invitation)),
                    Subject::Registration(_) => event,
                };
                audit_entries::insert(conn, now, &Actor::server(), &event, outcome, &ClientInfo::default()).map(drop)
            })
            .await?;
        self.metrics.audit_entry(outcome.name());
        Ok(())
    }

    /// Sets the time of the next attempt.
    async fn defer(&self, intent: &Intent) -> Result<(), AppError> {
        self.metrics.mail("deferred");
        let doublings = u32::try_from(intent.attempts).unwrap_or(u32::MAX).min(20);
        let delay = FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
        let (id, until) = (intent.id, self.clock.now().plus_seconds(delay));
        self.db.write(move |conn| outbox::defer(conn, id, until)).await
    }

    fn is_paused(&self) -> bool {
        self.pause().until.is_some_and(|until| self.clock.uptime() < until)
    }

    fn begin_pause(&self) {
        let [first, longest] = PAUSE;
        let mut pause = self.pause();
        pause.length = (pause.length * 2).clamp(first, longest);
        pause.until = Some(self.clock.uptime() + pause.length);
    }

    fn end_pause(&self) {
        self.server.succeeded();
        *self.pause() = Pause::default();
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The recipient in log lines, which contain no addresses.
fn describe(subject: Subject) -> String {
    match subject {
        Subject::User(user) => format!("user:{user}"),
        Subject::Registration(id) => format!("registration {id}"),
        Subject::Invitation(id) => format!("invitation:{id}"),
    }
}
