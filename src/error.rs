//! Errors of use cases. `http::wire::problem_answers` maps them to HTTP responses.

use std::borrow::Cow;
use std::error::Error;

use validator::{ValidationError, ValidationErrors};

use crate::domain::scope::Scope;

/// The error of every use case.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The named object does not exist, or the caller must not learn that it exists.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The request contradicts what is stored.
    #[error("conflict: {detail}")]
    Conflict {
        /// The error code, which never changes.
        code: &'static str,
        /// What is wrong and what to do.
        detail: &'static str,
    },
    /// Well-formed input with invalid values.
    #[error("invalid input in {} field(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// The caller is not authenticated.
    #[error("unauthenticated: {0:?}")]
    Unauthenticated(Reason),
    /// The caller is not allowed to do this.
    #[error("forbidden: {0:?}")]
    Forbidden(Denial),
    /// The object existed, and is gone permanently.
    #[error("gone: {detail}")]
    Gone {
        /// The error code, which never changes.
        code: &'static str,
        /// What is wrong and what to do.
        detail: &'static str,
    },
    /// The condition of the request (`If-Match`) is not met.
    #[error("the object has changed since it was read")]
    Stale,
    /// A limit of the client, user or account is reached.
    #[error("too many requests")]
    TooMany {
        /// The number of requests that the limit allows at once.
        limit: u32,
        /// Seconds until one more request is allowed.
        retry_after: u64,
    },
    /// Temporarily impossible: the database is not available or a queue is full. The caller may retry.
    #[error("{0}")]
    Busy(Source),
    /// Impossible until an operator fixes the cause. Nothing was changed.
    #[error("{}", .0.detail)]
    NotReady(NotReady),
    /// The connection failed during a commit, so it is unknown whether the change was stored.
    #[error("it is unknown whether the change was stored; check before you repeat it: {0}")]
    OutcomeUnknown(Source),
    /// A defect or a broken installation.
    #[error("{0}")]
    Internal(Source),
}

/// Why the server is not ready. The texts are public: they are returned to every caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// The error code, which never changes.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub detail: &'static str,
}

/// The cause of a failure. It is logged and never returned to the caller (ASVS 5.0, 16.5.1).
pub type Source = Box<dyn Error + Send + Sync>;

/// An error in one field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The name of the field in the request. Empty for an error about the whole body.
    pub field: String,
    /// The error code, which never changes.
    pub code: &'static str,
    /// What to change.
    pub message: String,
}

impl FieldError {
    /// Creates an error about `field`.
    pub fn new(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), code, message: message.into() }
    }
}

impl From<ValidationErrors> for AppError {
    fn from(errors: ValidationErrors) -> Self {
        Self::Invalid(field_errors(&errors))
    }
}

/// The errors that `validator` found, sorted by field.
pub fn field_errors(errors: &ValidationErrors) -> Vec<FieldError> {
    let mut found: Vec<FieldError> = Vec::new();
    for (field, errors) in errors.field_errors() {
        // `validator` uses this name for rules about the whole body.
        let field = if field == "__all__" { "" } else { field.as_ref() };
        found.extend(errors.iter().map(|error| {
            // The codes of all rules are literals.
            let code = if let Cow::Borrowed(code) = error.code { code } else { "value" };
            FieldError::new(field, code, error.message.as_deref().map_or_else(|| bounds(error), str::to_owned))
        }));
    }
    found.sort_by(|one, other| one.field.cmp(&other.field));
    found
}

/// The message of a rule about length or range, from its bounds.
fn bounds(error: &ValidationError) -> String {
    let unit = if error.code == "length" { " characters" } else { "" };
    match (error.params.get("min"), error.params.get("max")) {
        (Some(min), Some(max)) => format!("Use {min} to {max}{unit}."),
        (Some(min), None) => format!("Use {min} or more{unit}."),
        (None, Some(max)) => format!("Use at most {max}{unit}."),
        _ => "This value is not allowed.".to_owned(),
    }
}

impl From<FieldError> for AppError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

/// Why a caller is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request has no credential.
    Missing,
    /// The credential is malformed, unknown, expired or revoked.
    BadCredential(CredentialHeader),
    /// Unknown e-mail address or wrong password. Callers must not learn which (ASVS 5.0, 6.3.1).
    BadPassword,
}

/// The header that carried a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialHeader {
    /// `Token: …`
    Token,
    /// `Authorization: Bearer …`. At routes where OAuth clients authenticate, also `Authorization: Basic …`.
    Bearer,
    /// `Cookie: …` with the secret of a browser session.
    Cookie,
}

/// Why a caller is denied. Except for [`Denial::RegistrationClosed`] and [`Denial::EmailNotVerified`], the caller is
/// authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The credential lacks these scopes, separated by spaces (RFC 6750, section 3.1: `insufficient_scope`).
    Scopes(Cow<'static, str>),
    /// Only the owner may do this.
    NotOwner,
    /// A user is required. The static key and issued keys do not represent a user.
    NeedsUser,
    /// The sign-in token of a user is required, not an API key.
    NeedsSignIn,
    /// A browser session is required.
    NeedsSession,
    /// A sign-in token with all scopes of its user is required.
    Narrowed,
    /// The secret was replaced by a rotation and must not change its key.
    SecretReplaced,
    /// No trusted proxy states the original request.
    MissingOriginalRequest,
    /// The original request is ambiguous, or its headers contradict each other.
    Ambiguous,
    /// No rule matches the original request.
    NoRule,
    /// The current password in the request is wrong.
    WrongPassword,
    /// The settings do not allow registration.
    RegistrationClosed,
    /// The settings require a verified e-mail address for a sign-in.
    EmailNotVerified,
}

impl Denial {
    /// Denial because the credential lacks this scope of Latchkey's own.
    pub const fn scope(scope: Scope) -> Self {
        Self::Scopes(Cow::Borrowed(scope.name()))
    }

    /// The error code, which never changes.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Scopes(_) | Self::Narrowed => "insufficient_scope",
            Self::NotOwner => "not_owner",
            Self::SecretReplaced => "secret_replaced",
            Self::MissingOriginalRequest => "missing_original_request",
            Self::Ambiguous => "ambiguous_request",
            Self::NoRule => "no_rule",
            Self::NeedsUser => "user_required",
            Self::NeedsSignIn => "sign_in_required",
            Self::NeedsSession => "session_required",
            Self::WrongPassword => "wrong_password",
            Self::RegistrationClosed => "registration_closed",
            Self::EmailNotVerified => "email_not_verified",
        }
    }
}
