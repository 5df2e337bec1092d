//! Every change leaves an entry in the audit trail, in the same transaction, or does not happen. So does every attempt
//! of a caller who was turned down, in a transaction of its own.
//!
//! This is the only way to the database for a use case that writes (`tests/arch.rs`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Service;
use super::auth::identify;
use super::identity_cache::IdentityCache;
use super::refusals::Refusal;
use crate::clock::Timestamp;
use crate::db::{Conn, audit_entries, users};
use crate::domain::audit::{Action, By, Call, Event, Origin, Outcome, Target};
use crate::domain::id::{EntryId, UserId};
use crate::domain::principal::{Credential, Identity};
use crate::domain::secret::Digest;
use crate::error::{AppError, Denial, Reason};

/// A change on its way: the connection, in a transaction, and the entry to be.
pub(super) struct Change<'c> {
    /// Where it happens.
    pub(super) conn: &'c mut Conn,
    /// When it happens.
    pub(super) now: Timestamp,
    /// The caller as they are now, if they are a user or a key.
    pub(super) caller: Option<Identity>,
    /// The caller's row, which is locked, where the change is one of the caller's own.
    pub(super) caller_row: Option<users::User>,
    call: &'c Call,
    story: Story,
    accounted_for: bool,
}

/// What is known about an attempt so far. It outlives the transaction, to be told even if that fails.
#[derive(Clone)]
struct Story(Arc<Mutex<Told>>);

struct Told {
    by: By,
    event: Event,
    /// The events of entries that are written, and stay if the transaction is committed.
    written: Vec<Event>,
}

impl Story {
    fn new(by: By, event: Event) -> Self {
        Self(Arc::new(Mutex::new(Told { by, event, written: Vec::new() })))
    }

    fn goes_on(&self, tell: impl FnOnce(&mut By, &mut Event)) {
        let Told { by, event, .. } = &mut *self.told();
        tell(by, event);
    }

    fn is_written(&self, event: Event) {
        self.told().written.push(event);
    }

    /// Ends what the cache knows of the user whose credentials this may have changed.
    fn is_forgotten_by(&self, cache: &IdentityCache) {
        let (_, event) = self.so_far();
        match event.subject {
            _ if event.action.spares_credentials() => {}
            Some(user) => cache.invalidate(user),
            None => cache.invalidate_all(),
        }
    }

    fn so_far(&self) -> (By, Event) {
        let told = self.told();
        (told.by.clone(), told.event.clone())
    }

    /// Logs the entries of a transaction that was committed.
    fn is_logged(&self, origin: &Origin) {
        let told = self.told();
        told.written.iter().for_each(|event| log_entry(&told.by, event, Outcome::Success, origin));
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log line of an entry: the trail in the log, for those who ship logs. What the command line does is seen by
/// whoever does it.
pub(super) fn log_entry(by: &By, event: &Event, outcome: Outcome, origin: &Origin) {
    let Some(request_id) = &origin.request_id else {
        return;
    };
    let target = event.target.as_ref().map(ToString::to_string).unwrap_or_default();
    log::info!(
        target: "latchkey::audit",
        request_id = request_id.as_ref(), action = event.action.name(), outcome = outcome.name(),
        actor = by.actor.as_str(), credential = by.credential.as_str(), on = target.as_str(),
        detail = event.detail.as_deref().unwrap_or_default();
        "audit"
    );
}

impl Change<'_> {
    /// Whom it concerns: the owner of the target.
    pub(super) fn concerns(&mut self, owner: UserId) {
        self.story.goes_on(|_, event| event.subject = Some(owner));
    }

    /// To what it is done, where that was not known before.
    pub(super) fn is_on(&mut self, target: Target) {
        self.story.goes_on(|_, event| *event = event.clone().on(target));
    }

    /// What is tried, where that was not known before.
    pub(super) fn is_an_attempt_at(&mut self, action: Action) {
        self.story.goes_on(|_, event| event.action = action);
    }

    /// What else there is to know, or why it will not be done where the error is not to tell.
    pub(super) fn adds(&mut self, detail: &'static str) {
        self.story.goes_on(|_, event| event.detail = Some(detail.to_owned()));
    }

    /// By whom, once somebody unknown has shown who they are.
    pub(super) fn is_by(&mut self, who: By) {
        self.story.goes_on(|by, _| *by = who);
    }

    /// Writes the entry: what is known, completed by `tell`.
    pub(super) fn record(&mut self, tell: impl FnOnce(Event) -> Event) -> Result<EntryId, AppError> {
        let (by, event) = self.story.so_far();
        let origin = &self.call.origin;
        let event = tell(event);
        let entry = audit_entries::insert(self.conn, self.now, &by, &event, Outcome::Success, origin)?;
        self.story.is_written(event);
        self.accounted_for = true;
        Ok(entry)
    }

    /// Writes an entry for each thing that goes along with the change.
    pub(super) fn record_each(&mut self, events: &[Event]) -> Result<(), AppError> {
        let (by, _) = self.story.so_far();
        audit_entries::insert_all(self.conn, self.now, &by, events, &self.call.origin)?;
        events.iter().cloned().for_each(|event| self.story.is_written(event));
        Ok(())
    }

    /// States that there was nothing to change, and so nothing to tell.
    pub(super) fn leave_as_is(&mut self) {
        self.accounted_for = true;
    }
}

/// Whose rows a change locks before anything else, always in the order of their ids.
enum Locks {
    /// The caller's.
    Caller,
    /// The caller's, this user's, and those of all admins, so that one of them is always left.
    Administration(UserId),
}

impl Service {
    /// Does `work` in one transaction, after the caller's credential and level have been confirmed in it.
    ///
    /// The guard let the request in before its body arrived; a token may be revoked and a role changed meanwhile.
    pub(super) async fn change<T, F>(&self, call: Call, attempt: Event, work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Change<'_>) -> Result<T, AppError> + Send + 'static,
    {
        let work = |change: &mut Change<'_>, locked: Vec<users::User>| {
            change.caller_row = locked.into_iter().next();
            work(change)
        };
        self.transact(call, attempt, Locks::Caller, work).await
    }

    /// The same for a change of the account `user`, which `work` gets together with the number of other enabled admins.
    pub(super) async fn administer<T, F>(
        &self,
        call: Call,
        attempt: Event,
        user: UserId,
        work: F,
    ) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Change<'_>, users::User, usize) -> Result<T, AppError> + Send + 'static,
    {
        let administer = move |change: &mut Change<'_>, locked: Vec<users::User>| {
            let others = locked.iter().filter(|other| other.id != user && other.is_enabled_admin()).count();
            let user = locked.into_iter().find(|locked| locked.id == user).ok_or(AppError::NotFound("user"))?;
            work(change, user, others)
        };
        self.transact(call, attempt, Locks::Administration(user), administer).await
    }

    async fn transact<T, F>(&self, call: Call, attempt: Event, locks: Locks, work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Change<'_>, Vec<users::User>) -> Result<T, AppError> + Send + 'static,
    {
        let story = Story::new(By::caller(&call.caller), attempt);
        let (told, asked, clock) = (story.clone(), call.clone(), self.clock.clone());
        let user = call.identity().map(|identity| identity.user_id);
        let issued_key = call.identity().and_then(|identity| match identity.credential {
            Credential::IssuedKey(key) => Some(key),
            Credential::Token(_) | Credential::OwnKey(_) => None,
        });
        let (cache, affected) = (Arc::clone(&self.cache), story.clone());
        let change = move |conn: &mut Conn| {
            let locked = locks.take(conn, &call)?;
            let now = clock.now();
            let caller = confirm(conn, &call, now)?;
            if let Some(caller) = &caller {
                story.goes_on(|by, _| *by = By::identity(caller));
            }
            let mut change = Change { conn, now, caller, caller_row: None, call: &call, story, accounted_for: false };
            let answer = work(&mut change, locked)?;
            if change.accounted_for {
                Ok(answer)
            } else {
                Err(AppError::Internal("a change without its audit entry".into()))
            }
        };
        // Whether or not somebody still waits for the answer. A change that is not stored leaves the cache as it is.
        let forget = move || affected.is_forgotten_by(&cache);
        match self.db.write_then(self.user_locks.lock(user, issued_key), change, forget).await {
            Ok(answer) => {
                told.is_logged(&asked.origin);
                self.metrics.audit_entry(Outcome::Success.name());
                Ok(answer)
            }
            Err(error) => {
                if let AppError::OutcomeUnknown(_) = error {
                    // The thread that would forget it may hang for long.
                    told.is_forgotten_by(&self.cache);
                }
                let (by, event) = told.so_far();
                Err(self.record_failure(&asked, by, event, error).await)
            }
        }
    }

    /// Records that `attempt` failed with `error`, and answers the error: this one, or that it cannot be recorded.
    pub(super) async fn turned_down(&self, call: &Call, attempt: Event, error: AppError) -> AppError {
        self.record_failure(call, By::caller(&call.caller), attempt, error).await
    }

    /// The same for an attempt to open an account. `also` happens in the same transaction and may answer another reason.
    pub(super) async fn turned_down_at<F>(
        &self,
        call: &Call,
        account: Digest,
        attempt: Event,
        error: AppError,
        also: F,
    ) -> AppError
    where
        F: FnOnce(&mut Conn, Timestamp) -> Result<Option<&'static str>, AppError> + Send + 'static,
    {
        let by = By::caller(&call.caller);
        let Some(refusal) = refusal(by, attempt, Some(account), &error) else {
            return error;
        };
        self.write_refusal(call, refusal, also).await.err().unwrap_or(error)
    }

    /// Records a failure and counts it against the caller: beyond a limit the answer is [`AppError::TooMany`].
    async fn record_failure(&self, call: &Call, by: By, event: Event, error: AppError) -> AppError {
        let Some(refusal) = refusal(by, event, None, &error) else {
            return error;
        };
        if let Err(too_many) = self.throttle.count_refusal(call) {
            self.sum_refusal(&refusal, &call.origin);
            return too_many;
        }
        self.write_refusal(call, refusal, |_, _| Ok(None)).await.err().unwrap_or(error)
    }

    /// Records a decision that changes nothing here. Errors: it cannot be recorded, or was a refusal too many.
    pub(super) async fn record_decision(&self, call: &Call, event: Event, outcome: Outcome) -> Result<(), AppError> {
        let by = By::caller(&call.caller);
        if outcome == Outcome::Success {
            return self.write_entry(call, by, event, outcome, |_, _| Ok(None)).await.map(drop);
        }
        let refusal = Refusal { by, event, outcome, account: None };
        if let Err(too_many) = self.throttle.count_refusal(call) {
            self.sum_refusal(&refusal, &call.origin);
            return Err(too_many);
        }
        self.write_refusal(call, refusal, |_, _| Ok(None)).await
    }

    /// Writes an entry about a refusal, or counts it if there were many like it, and does `also` in either case.
    async fn write_refusal<F>(&self, call: &Call, refusal: Refusal, also: F) -> Result<(), AppError>
    where
        F: FnOnce(&mut Conn, Timestamp) -> Result<Option<&'static str>, AppError> + Send + 'static,
    {
        if self.has_own_entry(&refusal) {
            let Refusal { by, event, outcome, .. } = refusal;
            return self.write_entry(call, by, event, outcome, also).await;
        }
        let mut refusal = refusal;
        if refusal.account.is_some() {
            let now = self.clock.now();
            if let Some(reason) = self.write_for_refusal(move |conn| also(conn, now)).await? {
                refusal.event.detail = Some(reason.to_owned());
            }
        }
        self.sum_refusal(&refusal, &call.origin);
        Ok(())
    }

    /// Writes an entry in a transaction of its own, with whatever `also` writes.
    async fn write_entry<F>(&self, call: &Call, by: By, event: Event, outcome: Outcome, also: F) -> Result<(), AppError>
    where
        F: FnOnce(&mut Conn, Timestamp) -> Result<Option<&'static str>, AppError> + Send + 'static,
    {
        let (origin, now) = (call.origin.clone(), self.clock.now());
        let record = move |conn: &mut Conn| {
            let event = match also(conn, now)? {
                Some(reason) => event.detail(reason),
                None => event,
            };
            audit_entries::insert(conn, now, &by, &event, outcome, &origin)?;
            Ok((by, event))
        };
        let (by, event) = self.write_for_refusal(record).await?;
        log_entry(&by, &event, outcome, &call.origin);
        self.metrics.audit_entry(outcome.name());
        Ok(())
    }

    async fn write_for_refusal<T, F>(&self, record: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
    {
        self.db.write(record).await.map_err(|error| match error {
            // What the caller asked for was turned down, so it did not happen, whatever became of the entry.
            AppError::OutcomeUnknown(source) => AppError::Busy(source),
            error => error,
        })
    }

    /// Records that a known caller was kept out of a route, and answers the error to tell them: this one, or that it
    /// cannot be recorded.
    pub async fn keep_out(&self, call: &Call, route: String, denial: Denial) -> AppError {
        let attempt = Event::of(Action::Request).on(Target::Route(route));
        self.turned_down(call, attempt, AppError::Forbidden(denial)).await
    }
}

impl Locks {
    fn take(self, conn: &mut Conn, call: &Call) -> Result<Vec<users::User>, AppError> {
        let caller = call.identity().map(|identity| identity.user_id);
        match (self, caller) {
            (Self::Caller, Some(caller)) => Ok(users::lock(conn, caller)?.into_iter().collect()),
            (Self::Caller, None) => Ok(Vec::new()),
            (Self::Administration(user), caller) => {
                let ids: Vec<UserId> = caller.into_iter().chain([user]).collect();
                users::lock_with_admins(conn, &ids)
            }
        }
    }
}

/// The caller as they are now, if their credential still lives and still holds what the change takes.
fn confirm(conn: &mut Conn, call: &Call, now: Timestamp) -> Result<Option<Identity>, AppError> {
    let Some(presented) = call.identity() else {
        return Ok(None);
    };
    let found = identify(conn, presented.kind(), presented.digest)?.filter(|found| found.lives_at(now));
    let identity = found.ok_or_else(|| call.no_longer_known())?;
    match call.demands {
        Some(scope) if !identity.level.scopes.contains(scope) => Err(AppError::Forbidden(Denial::scope(scope))),
        _ => Ok(Some(identity)),
    }
}

/// What the trail tells of an attempt that failed with `error`; `None` if the error says nothing about the caller.
fn refusal(by: By, event: Event, account: Option<Digest>, error: &AppError) -> Option<Refusal> {
    let (outcome, reason) = outcome(error)?;
    let event = match event.detail {
        Some(_) => event,
        None => event.detail(reason),
    };
    Some(Refusal { by, event, outcome, account })
}

/// How the trail tells of an error; `None` for one that says nothing about the caller.
fn outcome(error: &AppError) -> Option<(Outcome, String)> {
    let failure = |reason: &str| Some((Outcome::Failure, reason.to_owned()));
    match error {
        AppError::Forbidden(Denial::WrongPassword) => failure(Denial::WrongPassword.code()),
        AppError::Forbidden(denial @ Denial::Scopes(scopes)) => {
            Some((Outcome::Denied, format!("{} {scopes}", denial.code())))
        }
        AppError::Forbidden(denial) => Some((Outcome::Denied, denial.code().to_owned())),
        AppError::NotFound(_) => failure("not_found"),
        AppError::Conflict { code, .. } | AppError::Gone { code, .. } => failure(code),
        AppError::Stale => failure("stale"),
        AppError::Invalid(errors) => failure(errors.first().map_or("invalid", |error| error.code)),
        AppError::Unauthenticated(Reason::BadPassword) => failure("wrong_password"),
        AppError::Unauthenticated(_) => failure("invalid_token"),
        AppError::TooMany { .. }
        | AppError::Busy(_)
        | AppError::NotReady(_)
        | AppError::OutcomeUnknown(_)
        | AppError::Internal(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity_cache::tests::{ADA, EVE, certain, identity};
    use super::*;

    /// Actions after which every credential is as good as before.
    const SPARE: [&str; 9] = [
        "user.register",
        "user.cleanup",
        "key.create",
        "key.issue",
        "page.create",
        "page.update",
        "page.delete",
        "request",
        "request.forward",
    ];

    #[test]
    fn every_action_but_those_listed_ends_what_the_cache_knows_of_its_user() {
        for action in Action::ALL {
            for (subject, ended) in [(Some(ADA), [true, false]), (None, [true, true])] {
                let cache = certain();
                for user in [ADA, EVE] {
                    let (digest, identity) = identity(user);
                    cache.put(cache.ticket(), digest, Some(&identity));
                }
                let event = Event { subject, ..Event::of(*action) };
                Story::new(By::anonymous(), event).is_forgotten_by(&cache);
                let found = [ADA, EVE].map(|user| cache.get(&identity(user).0).is_none());
                let expected = if SPARE.contains(&action.name()) { [false, false] } else { ended };
                assert_eq!(found, expected, "{} of {subject:?}", action.name());
            }
        }
    }
}
