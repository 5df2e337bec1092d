//! Forward-auth: whether a request to another service may pass, for the proxy that holds it back.

use super::Service;
use crate::config::{AuthzSettings, ForwardAudit};
use crate::domain::audit::{Action, Call, Event, Outcome, Target};
use crate::domain::forward::{Access, Original, Rules};
use crate::domain::principal::Principal;
use crate::error::{AppError, Denial, Reason};

/// The route that proxies ask, as the audit trail names it.
const ROUTE: &str = "/authz";
/// Where there are no rules: any good credential will do.
static ANY_HOLDER: Access = Access::Holders(Vec::new());

/// What a proxy asks.
#[derive(Debug)]
pub struct Ask {
    /// About which request; an error if no trusted proxy says, or headers contradict each other.
    pub original: Result<Original, Denial>,
    /// Which scopes it takes, beside those of the rules.
    pub scopes: Vec<String>,
}

/// What the settings say of such requests.
pub(super) struct ForwardPolicy {
    rules: Rules,
    looks_at_requests: bool,
    records_writes: bool,
}

impl ForwardPolicy {
    pub(super) fn new(settings: &AuthzSettings) -> Self {
        Self {
            rules: settings.rules.rules().clone(),
            looks_at_requests: settings.look_at_requests(),
            records_writes: settings.audit == ForwardAudit::Writes,
        }
    }

    fn access(&self, ask: &Ask) -> Result<&Access, Denial> {
        if !self.looks_at_requests {
            return Ok(&ANY_HOLDER);
        }
        let original = ask.original.as_ref().map_err(Clone::clone)?;
        if self.rules.are_none() { Ok(&ANY_HOLDER) } else { self.rules.access(original) }
    }

    fn is_public(&self, ask: &Ask) -> bool {
        ask.scopes.is_empty() && matches!(self.access(ask), Ok(Access::Public))
    }

    fn admits(&self, ask: &Ask, principal: &Principal) -> Result<(), Denial> {
        let ruled = match self.access(ask)? {
            Access::Public => &[],
            Access::Holders(scopes) => scopes.as_slice(),
        };
        let mut missing = ruled.iter().chain(&ask.scopes).filter(|scope| !principal.holds(scope)).peekable();
        if missing.peek().is_none() {
            return Ok(());
        }
        let mut missing: Vec<&str> = missing.map(String::as_str).collect();
        missing.dedup();
        Err(Denial::Scopes(missing.join(" ").into()))
    }

    /// What the trail is to tell of every decision about this request, if anything.
    fn event(&self, ask: &Ask) -> Option<Event> {
        let original = ask.original.as_ref().ok().filter(|original| self.records_writes && original.writes())?;
        Some(Event::of(Action::Forward).on(Target::Route(original.to_string())))
    }
}

impl Service {
    /// Whether everybody may pass, so that nobody need be asked who they are.
    pub fn is_public(&self, ask: &Ask) -> bool {
        self.forwarding.is_public(ask)
    }

    /// Lets a request pass, or not. What is to be recorded and cannot be does not pass.
    ///
    /// Errors: [`AppError::Forbidden`], which is in the trail as everywhere.
    pub async fn forward(&self, call: &Call, principal: Option<&Principal>, ask: &Ask) -> Result<(), AppError> {
        let decided = principal.map_or(Ok(()), |principal| self.forwarding.admits(ask, principal));
        let event = self.forwarding.event(ask);
        match (decided, event) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(event)) => self.record_decision(call, event, Outcome::Success).await,
            (Err(denial), event) => {
                let event = event.unwrap_or_else(|| Event::of(Action::Request).on(Target::Route(ROUTE.to_owned())));
                Err(self.turned_down(call, event, AppError::Forbidden(denial)).await)
            }
        }
    }

    /// Turns somebody away whom nobody knows, because of `error`; answers it, or that it cannot be recorded.
    pub async fn turn_away(&self, call: &Call, ask: &Ask, error: AppError) -> AppError {
        let (AppError::Unauthenticated(reason), Some(event)) = (&error, self.forwarding.event(ask)) else {
            return error;
        };
        let detail = if *reason == Reason::Missing { "not_authenticated" } else { "invalid_token" };
        let recorded = self.record_decision(call, event.detail(detail), Outcome::Denied).await;
        recorded.err().unwrap_or(error)
    }
}
