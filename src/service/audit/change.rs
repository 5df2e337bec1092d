//! A change in progress: what a use case does within the transaction of a change, and the audit entry about it.

use std::net::IpAddr;

use super::draft::AuditDraft;
use crate::clock::Timestamp;
use crate::db::{Conn, audit_entries, users};
use crate::domain::audit::{Action, Actor, Event, Outcome, RequestContext, Target};
use crate::domain::id::{EntryId, UserId};
use crate::domain::principal::Identity;
use crate::domain::roles::Roles;
use crate::error::AppError;
use crate::service::identity::resolve::Resolver;

/// A change in progress: the connection, in a transaction, and the draft of the audit entry.
pub(crate) struct Change<'c> {
    /// The connection, in a transaction.
    pub(crate) conn: &'c mut Conn,
    /// The time of the change.
    pub(crate) now: Timestamp,
    /// The caller as read in this transaction, if the caller is a user or a key.
    pub(crate) caller: Option<Identity>,
    /// The locked row of the caller, in a change that was started by `AuditTrail::change`.
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

impl<'c> Change<'c> {
    pub(super) fn new(
        conn: &'c mut Conn,
        now: Timestamp,
        caller: Option<Identity>,
        resolver: &'c Resolver,
        context: &'c RequestContext,
        draft: AuditDraft,
    ) -> Self {
        let roles = resolver.roles();
        Self { conn, now, caller, caller_row: None, roles, resolver, context, draft, accounted_for: false }
    }

    /// Whether the entry is written, or the change has stated that it needs none.
    pub(super) fn is_accounted_for(&self) -> bool {
        self.accounted_for
    }

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
