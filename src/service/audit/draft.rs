//! The draft of an audit entry, which use cases complete while their change is in progress.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry_log::log_entry;
use crate::domain::audit::{Actor, ClientInfo, Event, Outcome};
use crate::service::identity::cache::IdentityCache;

/// What is known about an attempt so far. It outlives the transaction, so a failed attempt can be recorded, too.
#[derive(Clone)]
pub(super) struct AuditDraft(Arc<Mutex<DraftState>>);

struct DraftState {
    by: Actor,
    event: Event,
    /// The events of the entries that the transaction has written.
    written: Vec<Event>,
    /// What to run once the transaction is or may be stored.
    after_commit: Vec<Box<dyn FnOnce() + Send>>,
}

impl AuditDraft {
    pub(super) fn new(by: Actor, event: Event) -> Self {
        Self(Arc::new(Mutex::new(DraftState { by, event, written: Vec::new(), after_commit: Vec::new() })))
    }

    pub(super) fn update_draft(&self, update: impl FnOnce(&mut Actor, &mut Event)) {
        let DraftState { by, event, .. } = &mut *self.state();
        update(by, event);
    }

    pub(super) fn add_written(&self, event: Event) {
        self.state().written.push(event);
    }

    pub(super) fn after_commit(&self, run: impl FnOnce() + Send + 'static) {
        self.state().after_commit.push(Box::new(run));
    }

    /// Runs what [`after_commit`](Self::after_commit) has collected, once.
    pub(super) fn run_after_commit(&self) {
        let collected = std::mem::take(&mut self.state().after_commit);
        collected.into_iter().for_each(|run| run());
    }

    /// Invalidates the cached identities of the user whose credentials this may have changed.
    pub(super) fn invalidate_identities(&self, cache: &IdentityCache) {
        let (_, event) = self.snapshot();
        match event.subject {
            _ if event.action.keeps_cached_credentials() => {}
            Some(user) => cache.invalidate(user),
            None => cache.invalidate_all(),
        }
    }

    pub(super) fn snapshot(&self) -> (Actor, Event) {
        let state = self.state();
        (state.by.clone(), state.event.clone())
    }

    /// Logs the entries of a committed transaction. Returns their number.
    pub(super) fn log_written(&self, client_info: &ClientInfo) -> usize {
        let state = self.state();
        state.written.iter().for_each(|event| log_entry(&state.by, event, Outcome::Success, client_info));
        state.written.len()
    }

    fn state(&self) -> MutexGuard<'_, DraftState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Action;
    use crate::service::identity::cache::tests::{ADA, EVE, current_cache, identity};

    /// The beginnings of the names of actions that can change credentials.
    const CREDENTIAL_ACTIONS: [&str; 4] = ["user.", "session.", "key.", "token."];
    /// Those after which cached identities stay valid.
    const KEEP_CACHE: [&str; 5] = ["user.register", "user.unlock", "user.cleanup", "key.create", "key.issue"];

    fn keeps_cache(name: &str) -> bool {
        KEEP_CACHE.contains(&name) || !CREDENTIAL_ACTIONS.iter().any(|of| name.starts_with(of))
    }

    #[test]
    fn every_action_except_those_listed_invalidates_the_cached_identities_of_its_user() {
        for action in Action::ALL {
            for (subject, invalidated) in [(Some(ADA), [true, false]), (None, [true, true])] {
                let cache = current_cache();
                for user in [ADA, EVE] {
                    let (digest, identity) = identity(user);
                    cache.put(cache.ticket(), digest, Some(&identity));
                }
                let event = Event { subject, ..Event::of(*action) };
                AuditDraft::new(Actor::anonymous(), event).invalidate_identities(&cache);
                let missing = [ADA, EVE].map(|user| cache.get(&identity(user).0).is_none());
                let expected = if keeps_cache(action.name()) { [false, false] } else { invalidated };
                assert_eq!(missing, expected, "{} of {subject:?}", action.name());
            }
        }
    }
}
