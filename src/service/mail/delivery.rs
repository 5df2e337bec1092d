//! The task that sends mails. One part of it decides which of the requested mails are sent; that takes no time of the
//! SMTP server. The other sends those that are due, several at a time. A row is reserved for the time of an attempt, so
//! that several processes send each mail once. A process that is killed between sending and marking leaves a row that is
//! sent once more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::failure::SendError;
use super::links::Links;
use super::outgoing::Outgoing;
use super::pace::{Occupied, Pace};
use super::queue::{self, Attempt, Decision, Next};
use crate::clock::{Clock, Timestamp};
use crate::db::mail::Subject;
use crate::db::mail::outbox::{self, Intent};
use crate::db::mail::secrets;
use crate::db::{Conn, Db, audit_entries};
use crate::domain::audit::{Action, Actor, ClientInfo, Event, Outcome, Target};
use crate::domain::mail::MailKind;
use crate::domain::secret::Digest;
use crate::error::AppError;
use crate::logging::repeated::RepeatedFailure;
use crate::metrics::Metrics;

/// How often to look for mails that another process has requested.
const INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of mails that are sent at the same time. A slow recipient must not delay all others.
const PARALLEL: usize = 4;
/// Failures of the database after which no further mails are looked at in the same run.
const FAILURES_MAX: usize = 3;
/// Seconds before the second attempt. The pause doubles with each attempt.
const FIRST_RETRY: i64 = 30;
/// Longest pause between two attempts, in seconds.
const LAST_RETRY: i64 = 3_600;
/// How much longer a mail is reserved than the longest attempt takes, in seconds: for the database.
const RESERVE_MARGIN: u64 = 30;

/// Sends mails in the background.
pub struct Delivery {
    db: Db,
    clock: Clock,
    metrics: Arc<Metrics>,
    links: Links,
    outgoing: Option<Outgoing>,
    /// Mails were requested.
    requested: Notify,
    /// Mails may be due.
    due: Notify,
    is_stopping: AtomicBool,
    /// The id of the mail after which the next run decides about requests. It is not 0 if the run before has failed.
    accept_after: AtomicI64,
    pace: Pace,
    reserving: tokio::sync::Mutex<()>,
    /// The server cannot be used.
    server: RepeatedFailure,
    /// The requests cannot be decided about.
    accepting: RepeatedFailure,
    /// The mails that are due cannot be read, or an outcome not be stored.
    sending: RepeatedFailure,
}

impl Delivery {
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        metrics: Arc<Metrics>,
        links: Links,
        outgoing: Option<Outgoing>,
    ) -> Arc<Self> {
        let pace = Pace::new(clock.clone());
        Arc::new(Self {
            db,
            clock,
            metrics,
            links,
            outgoing,
            requested: Notify::new(),
            due: Notify::new(),
            is_stopping: AtomicBool::new(false),
            accept_after: AtomicI64::new(0),
            pace,
            reserving: tokio::sync::Mutex::default(),
            server: RepeatedFailure::new("use the SMTP server"),
            accepting: RepeatedFailure::new("decide about requested mails"),
            sending: RepeatedFailure::new("read and mark the mails to send"),
        })
    }

    /// Whether an SMTP server is set.
    pub fn is_configured(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Makes [`run`](Self::run) look for mails now.
    pub fn wake(&self) {
        self.requested.notify_one();
    }

    /// Sends mails whenever some are due. Never returns.
    pub async fn run(&self) {
        let Some(outgoing) = &self.outgoing else {
            return std::future::pending().await;
        };
        let senders = (0..PARALLEL).map(|_| self.send_all(outgoing));
        tokio::join!(self.accept_all(), join_all(senders));
    }

    /// Makes [`run`](Self::run) begin no further attempt.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    /// Completes when no attempt is in progress. Call [`stop`](Self::stop) first.
    pub async fn finished(&self) {
        self.pace.none_running().await;
    }

    /// Decides about all requested mails, again and again. Never returns.
    async fn accept_all(&self) {
        loop {
            note(&self.accepting, self.accept_requests().await);
            self.due.notify_one();
            tokio::select! {
                () = self.requested.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Accepts or drops all requested mails.
    async fn accept_requests(&self) -> Result<(), AppError> {
        let mut after = self.accept_after.swap(0, Ordering::Relaxed);
        let (mut failures, mut first_error) = (0, None);
        loop {
            let clock = self.clock.clone();
            let Some(found) = self.db.read(move |conn| queue::sort_requests(conn, after, &clock)).await? else {
                break;
            };
            let now = found.now;
            after = found.last;
            if !found.refused.is_empty() {
                let deleted = self.db.write(move |conn| outbox::delete_requests(conn, &found.refused)).await?;
                self.metrics.mails("dropped", deleted.iter().filter(|id| found.over_limit.contains(id)).count());
            }
            for id in found.acceptable {
                match self.db.write(move |conn| queue::accept(conn, id, now)).await {
                    Ok(Decision::OverLimit) => self.metrics.mail("dropped"),
                    Ok(Decision::Accepted | Decision::Needless | Decision::Taken) => {}
                    // A row that somebody has locked must not keep the other mails from being sent.
                    Err(error) => {
                        failures += 1;
                        let first = first_error.take().unwrap_or(error);
                        if failures >= FAILURES_MAX {
                            self.accept_after.store(id, Ordering::Relaxed);
                            return Err(first);
                        }
                        first_error = Some(first);
                    }
                }
            }
            self.due.notify_one();
        }
        let waiting = self.db.read(outbox::count_waiting).await?;
        self.metrics.mails_waiting(waiting);
        first_error.map_or(Ok(()), Err)
    }

    /// Sends one mail after the other, whenever some are due. Never returns.
    async fn send_all(&self, outgoing: &Outgoing) {
        loop {
            // Counted first, so that `finished` waits for an attempt that begins at the same time.
            let running = self.pace.count();
            if !self.is_stopping.load(Ordering::SeqCst) && self.pace.may_begin() {
                match self.reserve(outgoing).await {
                    Ok(Some((attempt, _occupied))) => {
                        // Another one may be due.
                        self.due.notify_one();
                        note(&self.sending, self.attempt(outgoing, attempt).await);
                        continue;
                    }
                    Ok(None) => self.sending.succeeded(),
                    Err(error) => self.sending.failed(&error),
                }
            }
            drop(running);
            tokio::select! {
                () = self.due.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Reserves the next mail that is due; `None` if there is none.
    async fn reserve(&self, outgoing: &Outgoing) -> Result<Option<(Attempt, Occupied<'_>)>, AppError> {
        // One at a time, because the domain of a mail is counted when it is reserved.
        let _turn = self.reserving.lock().await;
        let reserved = outgoing.longest_attempt().as_secs().saturating_add(RESERVE_MARGIN);
        let reserved = i64::try_from(reserved).unwrap_or(i64::MAX);
        let (mut passed, mut failures) = (Vec::new(), 0);
        loop {
            let (links, now, except) = (self.links.clone(), self.clock.now(), passed.clone());
            let busy = self.pace.busy_domains();
            let Some(found) = self.db.read(move |conn| outbox::next_due(conn, now, &except, &busy)).await? else {
                return Ok(None);
            };
            let (id, kind) = (found.id, found.kind.clone());
            match self.db.write(move |conn| queue::next(conn, &links, &found, reserved, now)).await {
                Ok(Next::Taken) => passed.push(id),
                Ok(Next::Needless) => {}
                Ok(Next::GivenUp) => {
                    self.metrics.mail("failed");
                    log::warn!("mail {kind} was not sent within a day, and is given up");
                }
                Ok(Next::Attempt(attempt)) => {
                    let occupied = self.pace.occupy(attempt.to.domain());
                    return Ok(Some((*attempt, occupied)));
                }
                // An account that somebody has locked must not keep the other mails from being sent.
                Err(error) => {
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        return Err(error);
                    }
                    let until = now.plus_seconds(FIRST_RETRY);
                    self.db.write(move |conn| outbox::postpone(conn, id, now, until)).await?;
                }
            }
        }
    }

    /// Sends a mail and stores the outcome.
    async fn attempt(&self, outgoing: &Outgoing, attempt: Attempt) -> Result<(), AppError> {
        let Attempt { intent, kind, subject, to, language, link, values } = attempt;
        let (began, now, number) = (Instant::now(), self.clock.now(), intent.attempts + 1);
        // The same for all attempts, so that mail programs can recognize copies.
        let id = Digest::of(&format!("mail {} {}", intent.id, intent.created_at)).to_hex();
        let id = id.get(..32).unwrap_or_default();
        let sent = outgoing.send(kind, language, &to, id, values, now).await;
        let (took, name, whom) = (began.elapsed().as_millis(), kind.name(), describe(subject));
        match &sent {
            Err(SendError::Unavailable(cause)) => {
                self.pace.begin_pause();
                self.server.failed(&format_args!("{}: {cause}", outgoing.server()));
            }
            _ => {
                self.server.succeeded();
                if self.pace.end_pause() {
                    self.due.notify_one();
                }
            }
        }
        match sent {
            Ok(()) => {
                self.mark(&intent, None, kind, subject, Outcome::Success).await?;
                self.metrics.mail("sent");
                log::info!("mail {name} to {whom} sent in {took} ms at attempt {number}");
                Ok(())
            }
            Err(SendError::Unanswered(cause)) if intent.unanswered => {
                self.mark(&intent, None, kind, subject, Outcome::Failure).await?;
                self.metrics.mail("failed");
                log::warn!("mail {name} to {whom} got no answer twice, and is given up; it may have arrived: {cause}");
                Ok(())
            }
            Err(SendError::Final(cause)) => {
                self.mark(&intent, link, kind, subject, Outcome::Failure).await?;
                self.metrics.mail("failed");
                log::warn!("mail {name} to {whom} cannot be delivered, and is given up: {cause}");
                Ok(())
            }
            Err(SendError::Unanswered(cause)) => {
                log::warn!("mail {name} to {whom} got no answer at attempt {number}, will try once more: {cause}");
                self.defer(&intent, None, outbox::defer_unanswered).await
            }
            Err(SendError::Deferred(cause)) => {
                log::warn!("mail {name} to {whom} was not accepted at attempt {number}, will try again: {cause}");
                self.defer(&intent, link, outbox::defer).await
            }
            Err(SendError::Unavailable(_)) => self.defer(&intent, link, outbox::defer).await,
        }
    }

    /// Stores that a mail was sent, or never will be, with an audit entry unless strangers can cause the mail. `unused` is
    /// the link of a mail that was not delivered.
    async fn mark(
        &self,
        intent: &Intent,
        unused: Option<i64>,
        kind: MailKind,
        subject: Subject,
        outcome: Outcome,
    ) -> Result<(), AppError> {
        let (id, now, is_recorded) = (intent.id, self.clock.now(), !kind.is_caused_by_anyone());
        self.db
            .write(move |conn| {
                outbox::mark_done(conn, id, now)?;
                end_link(conn, unused)?;
                if !is_recorded {
                    return Ok(());
                }
                let event = Event::of(Action::SendMail).detail(kind.name());
                let event = match subject {
                    Subject::User(user) => event.on(Target::User(user)),
                    Subject::Invitation(invitation) => event.on(Target::Invitation(invitation)),
                    Subject::Registration(_) => event,
                };
                audit_entries::insert(conn, now, &Actor::server(), &event, outcome, &ClientInfo::default()).map(drop)
            })
            .await?;
        if is_recorded {
            self.metrics.audit_entry(outcome.name());
        }
        Ok(())
    }

    /// Sets the time of the next attempt with `defer`. `unused` is the link of this one, if it was not delivered.
    async fn defer(
        &self,
        intent: &Intent,
        unused: Option<i64>,
        defer: fn(&mut Conn, i64, Timestamp) -> Result<(), AppError>,
    ) -> Result<(), AppError> {
        self.metrics.mail("deferred");
        let doublings = u32::try_from(intent.attempts).unwrap_or(u32::MAX).min(20);
        let delay = FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
        let (id, until) = (intent.id, self.clock.now().plus_seconds(delay));
        self.db
            .write(move |conn| {
                end_link(conn, unused)?;
                defer(conn, id, until)
            })
            .await
    }
}

/// Deletes the link of a mail that was not delivered. Links of attempts must not displace those that users have.
fn end_link(conn: &mut Conn, unused: Option<i64>) -> Result<(), AppError> {
    unused.map_or(Ok(()), |id| secrets::delete(conn, id).map(drop))
}

/// Notes whether work has failed.
fn note(work: &RepeatedFailure, result: Result<(), AppError>) {
    match result {
        Ok(()) => work.succeeded(),
        Err(error) => work.failed(&error),
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
