//! What can go wrong in a use case, in the words of the domain. How it looks in HTTP is decided in `http::problem`.

use std::borrow::Cow;
use std::error::Error;

use validator::{ValidationError, ValidationErrors};

use crate::domain::scope::Scope;

/// The error of every use case.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The named thing does not exist, or the caller may not know that it does.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The request contradicts what is stored.
    #[error("conflict: {detail}")]
    Conflict {
        /// Stable, for programs.
        code: &'static str,
        /// For people.
        detail: &'static str,
    },
    /// Well-formed input with unacceptable values.
    #[error("invalid input in {} field(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// Nobody we know.
    #[error("unauthenticated: {0:?}")]
    Unauthenticated(Reason),
    /// Somebody we know, who may not do this.
    #[error("forbidden: {0:?}")]
    Forbidden(Denial),
    /// It was there once and will not come back.
    #[error("gone: {detail}")]
    Gone {
        /// Stable, for programs.
        code: &'static str,
        /// For people.
        detail: &'static str,
    },
    /// The caller's condition (`If-Match`) does not hold.
    #[error("the object has changed since it was read")]
    Stale,
    /// Too many of the kind by this client.
    #[error("too many requests")]
    TooMany {
        /// As many may come at once.
        limit: u32,
        /// Seconds until one more may come.
        retry_after: u64,
    },
    /// Not now: the database is away or a queue is full. Worth another try.
    #[error("{0}")]
    Busy(Source),
    /// Not until an operator has mended something: nothing was done.
    #[error("{}", .0.detail)]
    NotReady(NotReady),
    /// The database did not say whether it stored a change, so nobody can tell whether it happened.
    #[error("it is unknown whether the change was stored; look before you repeat it: {0}")]
    OutcomeUnknown(Source),
    /// A defect or a broken installation.
    #[error("{0}")]
    Internal(Source),
}

/// Why something cannot be done, and why the server is not ready, in words for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub detail: &'static str,
}

/// The cause of a failure: for the log only, never for the caller.
pub type Source = Box<dyn Error + Send + Sync>;

/// One unacceptable value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's name in the request.
    pub field: String,
    /// Stable, for programs.
    pub code: &'static str,
    /// What to change, for people.
    pub message: String,
}

impl FieldError {
    /// A complaint about `field`.
    pub fn new(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), code, message: message.into() }
    }
}

impl From<ValidationErrors> for AppError {
    fn from(errors: ValidationErrors) -> Self {
        Self::Invalid(broken_rules(&errors))
    }
}

/// All that `validator` found, by field.
pub fn broken_rules(errors: &ValidationErrors) -> Vec<FieldError> {
    let mut broken: Vec<FieldError> = Vec::new();
    for (field, errors) in errors.field_errors() {
        // A rule about the whole has no field.
        let field = if field == "__all__" { "" } else { field.as_ref() };
        broken.extend(errors.iter().map(|error| {
            // Rules name their codes with literals, so none is lost.
            let code = if let Cow::Borrowed(code) = error.code { code } else { "value" };
            FieldError::new(field, code, error.message.as_deref().map_or_else(|| bounds(error), str::to_owned))
        }));
    }
    broken.sort_by(|one, other| one.field.cmp(&other.field));
    broken
}

/// The message of a rule about length or range, from its own bounds.
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

/// Why a caller is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No credential at all.
    Missing,
    /// A credential that resolves to nobody: malformed, unknown, expired or revoked.
    BadCredential(Carrier),
    /// An unknown e-mail or a wrong password; which of them is nobody's business.
    BadPassword,
}

/// The header that carried a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// `Token: …`
    Token,
    /// `Authorization: Bearer …`, and where OAuth clients authenticate also `Basic`.
    Bearer,
}

/// Why a known caller may not do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The credential lacks these scopes, separated by spaces (RFC 6750, section 3.1: `insufficient_scope`).
    Scopes(Cow<'static, str>),
    /// Only the owner may do this.
    NotOwner,
    /// This needs a user: the constant key stands for none, and a key that was issued to somebody else is not its owner.
    NeedsUser,
    /// This needs the user's own sign-in token, not an API key.
    NeedsSignIn,
    /// This needs a token with all scopes of its user.
    Narrowed,
    /// The secret was replaced by a rotation, and changes its key no more.
    SecretReplaced,
    /// No trusted proxy says which request this is about.
    Untold,
    /// The request that this is about can be read in two ways, or is told in two.
    Ambiguous,
    /// No rule lets anybody pass with the request that this is about.
    NoRule,
    /// The current password that was given with the request is wrong.
    WrongPassword,
}

impl Denial {
    /// The credential lacks this scope of Latchkey's own.
    pub const fn scope(scope: Scope) -> Self {
        Self::Scopes(Cow::Borrowed(scope.name()))
    }

    /// Stable, for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Scopes(_) | Self::Narrowed => "insufficient_scope",
            Self::NotOwner => "not_owner",
            Self::SecretReplaced => "secret_replaced",
            Self::Untold => "untold_request",
            Self::Ambiguous => "ambiguous_request",
            Self::NoRule => "no_rule",
            Self::NeedsUser => "user_required",
            Self::NeedsSignIn => "sign_in_required",
            Self::WrongPassword => "wrong_password",
        }
    }
}
