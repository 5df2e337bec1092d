//! Writes the audit trail. A change and its entry are in the same transaction, so a change without an entry is not
//! stored. A rejected attempt has an entry in a transaction of its own.
//!
//! Use cases write to the database only through this module (`tests/arch.rs` checks it).

use std::net::IpAddr;
use std::sync::Arc;

use super::draft::AuditDraft;
use super::entry_log::log_entry;
use super::failure::refusal_from;
use super::refusal_counts::Refusal;
use super::refusals::Refusals;
use crate::clock::{Clock, Timestamp};
use crate::db::{Conn, Db, audit_entries, users};
use crate::domain::audit::{Action, Actor, Event, Outcome, RequestContext, Target};
use crate::domain::id::{EntryId, UserId};
use crate::domain::principal::{Credential, Identity};
use crate::domain::roles::Roles;
use crate::domain::secret::Digest;
use crate::error::{AppError, Denial};
use crate::metrics::Metrics;
use crate::service::identity::authenticate::Identities;
use crate::service::identity::resolve::Resolver;
use crate::service::limits::Limits;

/// A change in progress: the connection, in a transaction, and the draft of the audit entry.
pub(crate) struct Change<'c> {
    /// The connection, in a transaction.
    pub(crate) conn: &'c mut Conn,
    /// The time of the change.
    pub(crate) now: Timestamp,
    /// The caller as read in this transaction, if the caller is a user or a key.
    pub(crate) caller: Option<Identity>,
    /// The locked row of the caller, in a change that was started by [`AuditTrail::change`].
    pub(crate) caller_row: Option<users::User>,
    /// The roles that are defined.
    pub(crate) roles: &'c Roles,
    /// What resolves secrets to identities.
    pub(crate) resolver: &'c Resolver,
    context: &'c RequestContext,
    draft: AuditDraft,
    /// Whether the entry is written, or the change has stated that it needs none.
    accounted_for: bool,
}

impl Change<'_> {
    /// Sets the user that the entry concerns: the owner of the target.
    pub(crate) fn set_subject(&mut self, owner: UserId) {
        self.draft.update_draft(|_, event| event.subject = Some(owner));
    }

    /// Sets the target, if it was not known before.
    pub(crate) fn set_target(&mut self, target: Target) {
        self.draft.update_draft(|_, event| *event = event.clone().on(target));
    }

    /// Sets the action, if it was not known before.
    pub(crate) fn set_action(&mut self, action: Action) {
        self.draft.update_draft(|_, event| event.action = action);
    }

    /// Sets the detail: more about the change, or the reason of a failure that the error must not reveal.
    pub(crate) fn set_detail(&mut self, detail: &'static str) {
        self.draft.update_draft(|_, event| event.detail = Some(detail.to_owned()));
    }

    /// Sets the actor, once an anonymous caller has proved an identity.
    pub(crate) fn set_actor(&mut self, actor: Actor) {
        self.draft.update_draft(|by, _| *by = actor);
    }

    /// Writes the entry: the draft, completed by `complete`.
    pub(crate) fn record(&mut self, complete: impl FnOnce(Event) -> Event) -> Result<EntryId, AppError> {
        let (by, event) = self.draft.snapshot();
        let client_info = &self.context.client_info;
        let event = complete(event);
        let entry = audit_entries::insert(self.conn, self.now, &by, &event, Outcome::Success, client_info)?;
        self.draft.add_written(event);
        self.accounted_for = true;
        Ok(entry)
    }

    /// Writes additional entries, for example one for each key that the change revokes.
    pub(crate) fn record_each(&mut self, events: &[Event]) -> Result<(), AppError> {
        let (by, _) = self.draft.snapshot();
        audit_entries::insert_all(self.conn, self.now, &by, events, &self.context.client_info)?;
        events.iter().cloned().for_each(|event| self.draft.add_written(event));
        Ok(())
    }

    /// States that the change needs no entry, because it stores nothing that a response shows.
    pub(crate) fn needs_no_entry(&mut self) {
        self.accounted_for = true;
    }

    /// The address of the client.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.context.client_info.client
    }

    /// Runs `run` once the change is or may be stored, even if the request has been cancelled.
    pub(crate) fn after_commit(&self, run: impl FnOnce() + Send + 'static) {
        self.draft.after_commit(run);
    }
}

/// The rows of users that a change locks first, always in the order of their ids.
enum RowLocks {
    /// The caller's row.
    Caller,
    /// The rows of the caller, of this user, and of all admins, so that parallel changes cannot remove the last admin.
    Administration(UserId),
}

/// Writes the audit trail. Use cases change the database only through this type.
pub struct AuditTrail {
    db: Db,
    clock: Clock,
    metrics: Arc<Metrics>,
    limits: Arc<Limits>,
    identities: Arc<Identities>,
    refusals: Refusals,
}

impl AuditTrail {
    pub(crate) fn new(
        db: Db,
        clock: Clock,
        metrics: Arc<Metrics>,
        limits: Arc<Limits>,
        identities: &Arc<Identities>,
    ) -> Self {
        let refusals = Refusals::new(db.clone(), clock.clone(), Arc::clone(&metrics));
        Self { db, clock, metrics, limits, identities: Arc::clone(identities), refusals }
    }

    /// The counts of repeated refusals.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Runs `work` in one transaction, after it has checked the caller's credential and level again in the same
    /// transaction. The guard checked them before the request body arrived; since then the token may have been revoked,
    /// or the role changed.
    ///
    /// Errors: those of `work`, [`AppError::Unauthenticated`] if the credential is no longer valid, and
    /// [`AppError::Forbidden`] if it lacks the required scope. The failure is recorded. [`AppError::TooMany`] replaces
    /// the error if the caller has had too many refusals.
    pub(crate) async fn change<T, F>(&self, context: RequestContext, attempt: Event, work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Change<'_>) -> Result<T, AppError> + Send + 'static,
    {
        let work = |change: &mut Change<'_>, locked: Vec<users::User>| {
            change.caller_row = locked.into_iter().next();
            work(change)
        };
        self.transact(context, attempt, RowLocks::Caller, work).await
    }

    /// Like [`change`](Self::change), for the account `user`. `work` receives its row and the number of other enabled
    /// admins.
    ///
    /// Errors: also [`AppError::NotFound`] if the user does not exist.
    pub(crate) async fn administer<T, F>(
        &self,
        context: RequestContext,
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
        self.transact(context, attempt, RowLocks::Administration(user), administer).await
    }

    async fn transact<T, F>(
        &self,
        context: RequestContext,
        attempt: Event,
        locks: RowLocks,
        work: F,
    ) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Change<'_>, Vec<users::User>) -> Result<T, AppError> + Send + 'static,
    {
        let draft = AuditDraft::new(Actor::caller(&context.caller), attempt);
        let (outer_draft, outer_context, clock) = (draft.clone(), context.clone(), self.clock.clone());
        let user = context.identity().map(|identity| identity.user_id);
        let issued_key = context.identity().and_then(|identity| match identity.credential {
            Credential::IssuedKey(key) => Some(key),
            Credential::Token(_) | Credential::Session(_) | Credential::OwnKey(_) => None,
        });
        let (resolver, cache) = (self.identities.resolver().clone(), Arc::clone(self.identities.cache()));
        let (stored_draft, client_info, metrics) =
            (draft.clone(), context.client_info.clone(), Arc::clone(&self.metrics));
        let change = move |conn: &mut Conn| {
            let locked = locks.acquire(conn, &context)?;
            let now = clock.now();
            let caller = confirm(conn, &resolver, &context, now)?;
            if let Some(caller) = &caller {
                draft.update_draft(|by, _| *by = Actor::identity(caller));
            }
            let mut change = Change {
                conn,
                now,
                caller,
                caller_row: None,
                roles: resolver.roles(),
                resolver: &resolver,
                context: &context,
                draft,
                accounted_for: false,
            };
            let value = work(&mut change, locked)?;
            if change.accounted_for {
                Ok(value)
            } else {
                Err(AppError::Internal("the change has no audit entry".into()))
            }
        };
        // Runs after the commit, even if the client has gone. A change that is not stored leaves the cache unchanged.
        let on_stored = move |stored: Option<&T>| {
            stored_draft.invalidate_identities(&cache);
            stored_draft.run_after_commit();
            if stored.is_some() {
                let written = stored_draft.log_written(&client_info);
                (0..written).for_each(|_| metrics.audit_entry(Outcome::Success.name()));
            }
        };
        match self.db.write_then(self.limits.user_locks().lock(user, issued_key), change, on_stored).await {
            Ok(value) => Ok(value),
            Err(error) => {
                if let AppError::OutcomeUnknown(_) = error {
                    // The thread that would invalidate the cache may hang for a long time.
                    outer_draft.invalidate_identities(self.identities.cache());
                }
                let (by, event) = outer_draft.snapshot();
                Err(self.record_failure_by(&outer_context, by, event, error).await)
            }
        }
    }

    /// Records that `attempt` failed with `error`. Returns the error for the response: `error`, [`AppError::TooMany`],
    /// or the error of the write if the entry cannot be stored.
    pub(crate) async fn record_failure(&self, context: &RequestContext, attempt: Event, error: AppError) -> AppError {
        self.record_failure_by(context, Actor::caller(&context.caller), attempt, error).await
    }

    /// Like [`record_failure`](Self::record_failure), for an attempt to sign in to an account. `extra_write` runs in
    /// the same transaction and may return another reason for the entry.
    pub(crate) async fn record_account_failure<F>(
        &self,
        context: &RequestContext,
        account: Digest,
        attempt: Event,
        error: AppError,
        extra_write: F,
    ) -> AppError
    where
        F: FnOnce(&mut Conn, Timestamp) -> Result<Option<&'static str>, AppError> + Send + 'static,
    {
        let by = Actor::caller(&context.caller);
        let Some(refusal) = refusal_from(by, attempt, Some(account), &error) else {
            return error;
        };
        self.write_refusal(context, refusal, extra_write).await.err().unwrap_or(error)
    }

    /// Records a failure and counts it for the caller. Returns [`AppError::TooMany`] beyond the limit.
    async fn record_failure_by(&self, context: &RequestContext, by: Actor, event: Event, error: AppError) -> AppError {
        let Some(refusal) = refusal_from(by, event, None, &error) else {
            return error;
        };
        self.record_refusal(context, refusal).await.err().unwrap_or(error)
    }

    /// Records a decision that changes no data, such as that of forward-auth.
    ///
    /// Errors: [`AppError::TooMany`] if the caller has had too many refusals; the error of the write if the entry
    /// cannot be stored.
    pub(crate) async fn record_decision(
        &self,
        context: &RequestContext,
        event: Event,
        outcome: Outcome,
    ) -> Result<(), AppError> {
        let by = Actor::caller(&context.caller);
        if outcome == Outcome::Success {
            return self.write_entry(context, by, event, outcome, |_, _| Ok(None)).await.map(drop);
        }
        self.record_refusal(context, Refusal { by, event, outcome, account: None }).await
    }

    /// Counts a refusal for the caller and writes it. Errors: [`AppError::TooMany`] beyond the limit.
    async fn record_refusal(&self, context: &RequestContext, refusal: Refusal) -> Result<(), AppError> {
        if let Err(too_many) = self.limits.throttle().count_refusal(context) {
            self.refusals.add(&refusal, &context.client_info);
            return Err(too_many);
        }
        self.write_refusal(context, refusal, |_, _| Ok(None)).await
    }

    /// Writes an entry about a refusal, or counts it if its group has too many entries. `extra_write` runs if the entry
    /// is written, and for every attempt on an account.
    async fn write_refusal<F>(&self, context: &RequestContext, refusal: Refusal, extra_write: F) -> Result<(), AppError>
    where
        F: FnOnce(&mut Conn, Timestamp) -> Result<Option<&'static str>, AppError> + Send + 'static,
    {
        if self.refusals.has_own_entry(&refusal) {
            let Refusal { by, event, outcome, .. } = refusal;
            return self.write_entry(context, by, event, outcome, extra_write).await;
        }
        let mut refusal = refusal;
        if refusal.account.is_some() {
            let now = self.clock.now();
            if let Some(reason) = self.write_for_refusal(move |conn| extra_write(conn, now), |_| ()).await? {
                refusal.event.detail = Some(reason.to_owned());
            }
        }
        self.refusals.add(&refusal, &context.client_info);
        Ok(())
    }

    /// Writes an entry in a transaction of its own, together with `extra_write`.
    async fn write_entry<F>(
        &self,
        context: &RequestContext,
        by: Actor,
        event: Event,
        outcome: Outcome,
        extra_write: F,
    ) -> Result<(), AppError>
    where
        F: FnOnce(&mut Conn, Timestamp) -> Result<Option<&'static str>, AppError> + Send + 'static,
    {
        let (client_info, now) = (context.client_info.clone(), self.clock.now());
        let (logged_info, metrics) = (client_info.clone(), Arc::clone(&self.metrics));
        let record = move |conn: &mut Conn| {
            let event = match extra_write(conn, now)? {
                Some(reason) => event.detail(reason),
                None => event,
            };
            audit_entries::insert(conn, now, &by, &event, outcome, &client_info)?;
            Ok((by, event))
        };
        let on_stored = move |stored: Option<&(Actor, Event)>| {
            if let Some((by, event)) = stored {
                log_entry(by, event, outcome, &logged_info);
                metrics.audit_entry(outcome.name());
            }
        };
        self.write_for_refusal(record, on_stored).await.map(drop)
    }

    /// Calls `on_stored` as [`Db::write_then`] does.
    async fn write_for_refusal<T, F, A>(&self, record: F, on_stored: A) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, AppError> + Send + 'static,
        A: FnOnce(Option<&T>) + Send + 'static,
    {
        self.db.write_then(std::future::ready(()), record, on_stored).await.map_err(|error| match error {
            // The request was rejected, so nothing was changed, whether or not the entry was stored.
            AppError::OutcomeUnknown(source) => AppError::Busy(source),
            error => error,
        })
    }

    /// Records that an authenticated caller was denied a route. Returns the error for the response:
    /// [`AppError::Forbidden`], [`AppError::TooMany`], or the error of the write if the entry cannot be stored.
    pub async fn record_denial(&self, context: &RequestContext, route: String, denial: Denial) -> AppError {
        let attempt = Event::of(Action::Request).on(Target::Route(route));
        self.record_failure(context, attempt, AppError::Forbidden(denial)).await
    }
}

impl RowLocks {
    fn acquire(self, conn: &mut Conn, context: &RequestContext) -> Result<Vec<users::User>, AppError> {
        let caller = context.identity().map(|identity| identity.user_id);
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

/// Reads the caller again. Fails if the credential is no longer valid or lacks the scope that the change requires.
fn confirm(
    conn: &mut Conn,
    resolver: &Resolver,
    context: &RequestContext,
    now: Timestamp,
) -> Result<Option<Identity>, AppError> {
    let Some(presented) = context.identity() else {
        return Ok(None);
    };
    let found = resolver.identify(conn, presented.kind(), presented.digest)?.filter(|found| found.is_valid_at(now));
    let identity = found.ok_or_else(|| context.credential_ended())?;
    match context.required_scope {
        Some(scope) if !identity.level.scopes.contains(scope) => Err(AppError::Forbidden(Denial::scope(scope))),
        _ => Ok(Some(identity)),
    }
}
