//! The task that sends mails. First it decides which of the requested mails are sent; that takes no time of the SMTP
//! server. Then it sends those that are due, one after the other. A row is reserved for the time of an attempt, so that
//! several processes send each mail once. A process that is killed between sending and marking leaves a row that is sent
//! once more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::links::Links;
use super::outgoing::{MailValues, Outgoing};
use super::smtp::SendError;
use crate::clock::{Clock, Timestamp};
use crate::db::outbox::{self, Intent};
use crate::db::{Conn, Db, audit_entries, users};
use crate::domain::audit::{Action, Actor, ClientInfo, Event, Outcome, Target};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::mail::{Language, MailKind};
use crate::domain::secret::Digest;
use crate::error::AppError;
use crate::logging::repeated::RepeatedFailure;
use crate::metrics::Metrics;

/// How often to look for mails that another process has requested.
const INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of requests per transaction.
const BATCH: i64 = 20;
/// Seconds for which a mail is reserved. This is longer than the longest attempt.
const RESERVED_SECONDS: i64 = 360;
/// Seconds after the request at which a mail is given up.
const GIVE_UP_SECONDS: i64 = 86_400;
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
    until: Option<Duration>,
}

/// A mail that is reserved for an attempt.
struct Attempt {
    intent: Intent,
    kind: MailKind,
    user: UserId,
    to: EmailAddress,
    language: Language,
    values: MailValues,
}

/// The next mail that is due.
enum Next {
    /// There is none.
    Nothing,
    /// It is no longer to be sent.
    Dropped,
    /// It was not sent within a day.
    GivenUp(Intent),
    /// It is to be sent.
    Attempt(Box<Attempt>),
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
            if self.is_paused() {
                break;
            }
            let (links, now) = (self.links.clone(), self.clock.now());
            match self.db.write(move |conn| next(conn, &links, now)).await? {
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
        loop {
            let now = self.clock.now();
            if !self.db.read(outbox::has_requests).await? {
                return Ok(());
            }
            let (decided, dropped) = self.db.write(move |conn| accept_batch(conn, now)).await?;
            (0..dropped).for_each(|_| self.metrics.mail("dropped"));
            if decided == 0 {
                return Ok(());
            }
        }
    }

    /// Sends a mail and stores the outcome. Returns whether it was sent.
    async fn attempt(&self, outgoing: &Outgoing, attempt: Attempt) -> Result<bool, AppError> {
        let Attempt { intent, kind, user, to, language, values } = attempt;
        let (began, now, number) = (Instant::now(), self.clock.now(), intent.attempts + 1);
        let id = Digest::of(&format!("mail {} {number} {}", intent.id, intent.created_at)).to_hex();
        let id = id.get(..32).unwrap_or_default();
        let sent = outgoing.send(kind, language, &to, id, values, now).await;
        let (took, name) = (began.elapsed().as_millis(), kind.name());
        match sent {
            Ok(()) => {
                self.end_pause();
                self.mark(&intent, user, Outcome::Success).await?;
                self.metrics.mail("sent");
                log::info!("mail {name} to user:{user} sent in {took} ms at attempt {number}");
                Ok(true)
            }
            Err(SendError::Final(cause)) => {
                self.mark(&intent, user, Outcome::Failure).await?;
                self.metrics.mail("failed");
                log::warn!("mail {name} to user:{user} cannot be delivered, and is given up: {cause}");
                Ok(false)
            }
            Err(SendError::Deferred(cause)) => {
                self.defer(&intent).await?;
                log::warn!("mail {name} to user:{user} was not accepted at attempt {number}, will try again: {cause}");
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
    async fn mark(&self, intent: &Intent, user: UserId, outcome: Outcome) -> Result<(), AppError> {
        let (id, kind, now) = (intent.id, intent.kind.clone(), self.clock.now());
        self.db
            .write(move |conn| {
                match outcome {
                    Outcome::Success => outbox::mark_sent(conn, id, now)?,
                    Outcome::Failure | Outcome::Denied => outbox::delete(conn, id)?,
                }
                let event = Event::of(Action::SendMail).on(Target::User(user)).detail(kind);
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

/// Accepts or drops some requested mails. Returns how many were decided, and how many of them were dropped.
fn accept_batch(conn: &mut Conn, now: Timestamp) -> Result<(usize, usize), AppError> {
    let requested = outbox::lock_requested(conn, BATCH)?;
    let mut dropped = 0;
    for intent in &requested {
        if is_wanted(conn, intent, now)? {
            outbox::accept(conn, intent.id, now)?;
        } else {
            outbox::delete(conn, intent.id)?;
            dropped += 1;
        }
    }
    Ok((requested.len(), dropped))
}

/// Whether a requested mail has a recipient, who did not get too many of its kind.
fn is_wanted(conn: &mut Conn, intent: &Intent, now: Timestamp) -> Result<bool, AppError> {
    let Some(kind) = MailKind::of(&intent.kind) else {
        return Ok(false);
    };
    if recipient(conn, intent)?.is_none() {
        return Ok(false);
    }
    let longest = kind.limits().iter().map(|(seconds, _)| *seconds).max().unwrap_or_default();
    let accepted = outbox::accepted_since(conn, intent, now.plus_seconds(-longest))?;
    let is_within = |(seconds, most): &(i64, usize)| {
        let since = now.plus_seconds(-*seconds);
        accepted.iter().filter(|at| **at > since).count() < *most
    };
    Ok(kind.limits().iter().all(is_within))
}

/// The user whom a mail is for: the one that the request named, or the one with the address. Disabled users get no mail.
fn recipient(conn: &mut Conn, intent: &Intent) -> Result<Option<users::User>, AppError> {
    let user = match intent.user() {
        Some(user) => users::find(conn, user)?,
        None => users::find_by_email(conn, &intent.address_key)?,
    };
    Ok(user.filter(|user| user.disabled_at.is_none()))
}

/// Reserves the next mail that is due, and makes its link.
fn next(conn: &mut Conn, links: &Links, now: Timestamp) -> Result<Next, AppError> {
    let Some(found) = outbox::next_due(conn, now)? else {
        return Ok(Next::Nothing);
    };
    // The row of the user is locked first, as in every other change of a user.
    let user = match recipient(conn, &found)? {
        Some(user) => users::lock(conn, user.id)?.filter(|user| user.disabled_at.is_none()),
        None => None,
    };
    let Some(intent) = outbox::lock_due(conn, found.id, now)? else {
        // Another process sends it.
        return Ok(Next::Nothing);
    };
    if now >= intent.created_at.plus_seconds(GIVE_UP_SECONDS) {
        outbox::delete(conn, intent.id)?;
        return Ok(Next::GivenUp(intent));
    }
    let (kind, to) = (MailKind::of(&intent.kind), user.as_ref().and_then(|user| EmailAddress::parse(&user.email)));
    let (Some(user), Some(kind), Some(to)) = (user, kind, to) else {
        outbox::delete(conn, intent.id)?;
        return Ok(Next::Dropped);
    };
    let mut values =
        MailValues { requested_at: Some(intent.created_at), client: intent.client.clone(), ..MailValues::default() };
    if let Some(purpose) = kind.purpose() {
        let link = links.create(conn, purpose, &user, now)?;
        (values.valid_seconds, values.link) = (link.valid_seconds, link.reveal());
    }
    outbox::reserve(conn, intent.id, now.plus_seconds(RESERVED_SECONDS))?;
    let language = Language::of(&user.locale).unwrap_or_default();
    Ok(Next::Attempt(Box::new(Attempt { intent, kind, user: user.id, to, language, values })))
}
