//! The decision about a forwarded request, from the settings under `authz`.

use crate::config::{AuthzSettings, ForwardAudit};
use crate::domain::audit::{Action, Event, Target};
use crate::domain::forward::{Access, OriginalRequest, Rules};
use crate::domain::principal::Principal;
use crate::error::Denial;

/// The access without rules: any valid credential.
static ANY_CREDENTIAL: Access = Access::Scopes(Vec::new());

/// A proxy's question about a request.
#[derive(Debug)]
pub struct ForwardRequest {
    /// The original request. An error if no trusted proxy describes it, or the headers contradict each other.
    pub original: Result<OriginalRequest, Denial>,
    /// Scopes that are required in addition to those of the rules.
    pub scopes: Vec<String>,
}

/// The rules and audit settings for forwarded requests.
pub(crate) struct ForwardPolicy {
    rules: Rules,
    needs_original: bool,
    records_writes: bool,
}

impl ForwardPolicy {
    pub(crate) fn new(settings: &AuthzSettings) -> Self {
        Self {
            rules: settings.rules.rules().clone(),
            needs_original: settings.requires_original_request(),
            records_writes: settings.audit == ForwardAudit::Writes,
        }
    }

    /// The access that the rules define for the request. Errors: the original request is unknown, or no rule matches.
    fn access(&self, request: &ForwardRequest) -> Result<&Access, Denial> {
        if !self.needs_original {
            return Ok(&ANY_CREDENTIAL);
        }
        let original = request.original.as_ref().map_err(Clone::clone)?;
        if self.rules.is_empty() { Ok(&ANY_CREDENTIAL) } else { self.rules.access(original) }
    }

    /// Whether the request is allowed without a credential.
    pub(crate) fn is_public(&self, request: &ForwardRequest) -> bool {
        request.scopes.is_empty() && matches!(self.access(request), Ok(Access::Public))
    }

    /// Checks that the principal holds all scopes that the rules and the proxy require.
    pub(crate) fn authorize(&self, request: &ForwardRequest, principal: &Principal) -> Result<(), Denial> {
        let required = match self.access(request)? {
            Access::Public => &[],
            Access::Scopes(scopes) => scopes.as_slice(),
        };
        let mut missing = required.iter().chain(&request.scopes).filter(|scope| !principal.holds(scope)).peekable();
        if missing.peek().is_none() {
            return Ok(());
        }
        let mut missing: Vec<&str> = missing.map(String::as_str).collect();
        missing.dedup();
        Err(Denial::Scopes(missing.join(" ").into()))
    }

    /// The audit event for decisions about this request; `None` if the settings require none.
    pub(crate) fn event(&self, request: &ForwardRequest) -> Option<Event> {
        let original = request.original.as_ref().ok().filter(|original| self.records_writes && original.writes())?;
        Some(Event::of(Action::Forward).on(Target::Route(original.to_string())))
    }
}
