//! The audit record of an attempt that failed.

use super::refusal_counts::Refusal;
use crate::domain::audit::{Actor, Event, Outcome};
use crate::domain::secret::Digest;
use crate::error::{AppError, Denial, Reason};

/// The audit record of an attempt that failed with `error`; `None` if the error is not about the caller, such as a busy
/// database.
pub(super) fn refusal_from(by: Actor, event: Event, account: Option<Digest>, error: &AppError) -> Option<Refusal> {
    let (outcome, reason) = audit_outcome(error)?;
    let event = match event.detail {
        Some(_) => event,
        None => event.detail(reason),
    };
    Some(Refusal { by, event, outcome, account })
}

/// The outcome and the detail of an error in the audit trail; `None` if the error is not about the caller.
fn audit_outcome(error: &AppError) -> Option<(Outcome, String)> {
    let failure = |reason: &str| Some((Outcome::Failure, reason.to_owned()));
    match error {
        AppError::Forbidden(denial @ (Denial::WrongPassword | Denial::EmailNotVerified)) => failure(denial.code()),
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
