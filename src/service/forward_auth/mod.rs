//! Forward authentication: decides for a reverse proxy whether a request to another service is allowed.

pub mod policy;

use crate::domain::audit::{Action, Event, Outcome, RequestContext, Target};
use crate::domain::principal::Principal;
use crate::error::{AppError, Reason};
use crate::service::Service;
use crate::service::forward_auth::policy::ForwardRequest;

/// The route that proxies call, as the target of audit entries.
const ROUTE: &str = "/authz";

impl Service {
    /// Whether the request is allowed without a credential.
    pub fn is_public(&self, request: &ForwardRequest) -> bool {
        self.forwarding.is_public(request)
    }

    /// Decides whether a request is allowed, and records the decision if the settings require it. A decision that
    /// cannot be recorded is an error.
    ///
    /// Errors: [`AppError::Forbidden`] if the request is denied. A denial is recorded, as on every route.
    pub async fn forward(
        &self,
        context: &RequestContext,
        principal: Option<&Principal>,
        request: &ForwardRequest,
    ) -> Result<(), AppError> {
        let decision = principal.map_or(Ok(()), |principal| self.forwarding.authorize(request, principal));
        let event = self.forwarding.event(request);
        match (decision, event) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(event)) => self.trail.record_decision(context, event, Outcome::Success).await,
            (Err(denial), event) => {
                let event = event.unwrap_or_else(|| Event::of(Action::Request).on(Target::Route(ROUTE.to_owned())));
                Err(self.trail.record_failure(context, event, AppError::Forbidden(denial)).await)
            }
        }
    }

    /// Records the denial of an unauthenticated caller, if the settings require it. Returns `error`, or the error of
    /// recording.
    pub async fn record_unauthenticated(
        &self,
        context: &RequestContext,
        request: &ForwardRequest,
        error: AppError,
    ) -> AppError {
        let (AppError::Unauthenticated(reason), Some(event)) = (&error, self.forwarding.event(request)) else {
            return error;
        };
        let detail = if *reason == Reason::Missing { "not_authenticated" } else { "invalid_token" };
        let recorded = self.trail.record_decision(context, event.detail(detail), Outcome::Denied).await;
        recorded.err().unwrap_or(error)
    }
}
