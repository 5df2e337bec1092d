//! The examples of error responses: what the server returns for a typical error of each status.

use serde_json::{Map, Value, json};

use crate::config::StatusProfile;
use crate::domain::scope::Scope;
use crate::error::{AppError, CredentialHeader, Denial, FieldError, Reason};
use crate::http::resource::EXAMPLE_REQUEST_ID;
use crate::http::wire::body;
use crate::http::wire::error::HttpError;
use crate::http::wire::problem_answers::{ErrorResponse, error_response, invalid_client};
use crate::service::account::{creation, users};

/// The examples of the error responses with this status: one, or several by their code.
pub(crate) fn content(is_oauth: bool, status: u16, profile: StatusProfile) -> Value {
    let (bodies, code) = if is_oauth { (oauth_bodies(profile), "error") } else { (problem_bodies(profile), "code") };
    let mut bodies: Vec<Value> = bodies.into_iter().filter(|body| body.0 == status).map(|body| body.1).collect();
    if bodies.len() == 1 {
        return json!({ "example": bodies.remove(0) });
    }
    let named = bodies.into_iter().map(|body| (body[code].as_str().unwrap_or_default().to_owned(), body));
    let examples: Map<String, Value> = named.map(|(code, body)| (code, json!({ "value": body }))).collect();
    json!({ "examples": examples })
}

fn problem_bodies(profile: StatusProfile) -> Vec<(u16, Value)> {
    let malformed = HttpError::Malformed { code: "malformed_json", detail: "The body is not valid JSON.".into() };
    let gone = AppError::Gone {
        code: "claim_used",
        detail: "The key has already been claimed. Its secret is shown only once.",
    };
    let errors = [
        malformed,
        HttpError::AmbiguousCredential,
        AppError::Unauthenticated(Reason::Missing).into(),
        AppError::Unauthenticated(Reason::BadCredential(CredentialHeader::Bearer)).into(),
        AppError::Forbidden(Denial::scope(Scope::UsersRead)).into(),
        HttpError::CrossSite,
        AppError::NotFound("page").into(),
        creation::email_taken().into(),
        users::last_admin().into(),
        gone.into(),
        AppError::Stale.into(),
        HttpError::WrongMediaType("application/json"),
        AppError::from(FieldError::new("password", "length", "Use 8 to 128 characters.")).into(),
    ];
    let errors = errors.into_iter().chain(common_errors());
    let answers = errors.map(|error| error_response(&error, profile));
    answers.map(|answer| (answer.status.as_u16(), answer.problem_body(EXAMPLE_REQUEST_ID))).collect()
}

fn oauth_bodies(profile: StatusProfile) -> Vec<(u16, Value)> {
    let beyond = FieldError::new("scope", "invalid_scope", "Your role does not hold: users:read.");
    let errors = [
        AppError::Unauthenticated(Reason::BadPassword).into(),
        AppError::from(beyond).into(),
        AppError::Unauthenticated(Reason::BadCredential(CredentialHeader::Bearer)).into(),
        AppError::Forbidden(Denial::NeedsSignIn).into(),
        HttpError::WrongMediaType("application/x-www-form-urlencoded"),
    ];
    let errors = errors.into_iter().chain(common_errors());
    let answers = errors.map(|error| error_response(&error, profile)).chain([invalid_client()]);
    answers.map(ErrorResponse::oauth_body).map(|(status, body)| (status.as_u16(), body)).collect()
}

/// The errors that do not depend on the request.
fn common_errors() -> [HttpError; 6] {
    [
        HttpError::SlowBody,
        HttpError::TooLarge(body::SMALL),
        AppError::TooMany { limit: 10, retry_after: 30 }.into(),
        AppError::Internal("example".into()).into(),
        AppError::Busy("example".into()).into(),
        AppError::OutcomeUnknown("example".into()).into(),
    ]
}
