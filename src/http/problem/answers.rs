//! Which status and which words each error has: the one place where they are decided, the status profile included.

use std::borrow::Cow;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde_json::json;

use super::super::edge::RequestId;
use super::super::guard;
use super::{Fault, INTROSPECT, REVOKE};
use crate::config::StatusProfile;
use crate::error::{AppError, Denial, FieldError, Reason};

/// One error, before it takes either shape.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    pub(super) challenge: Option<String>,
}

impl Answer {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), challenge: None }
    }

    fn challenge(self, parameters: &str) -> Self {
        self.challenge_by("Bearer", parameters)
    }

    fn challenge_by(mut self, scheme: &str, parameters: &str) -> Self {
        self.challenge = Some(format!("{scheme} realm=\"latchkey\"{parameters}"));
        self
    }

    /// RFC 9457, with a stable `code`, the request id, and the fields that are wrong.
    pub(super) fn problem(self, response: &mut HttpResponseBuilder, id: &RequestId) -> HttpResponse<BoxBody> {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "request_id": id.as_str(),
        });
        if let Some(body) = body.as_object_mut().filter(|_| !self.errors.is_empty()) {
            let errors = self
                .errors
                .iter()
                .map(|error| json!({ "field": error.field, "code": error.code, "message": error.message }));
            body.insert("errors".to_owned(), errors.collect());
        }
        response.content_type("application/problem+json").body(body.to_string())
    }

    /// RFC 6749, section 5.2, with a `detail` for people.
    pub(super) fn oauth(self, response: &mut HttpResponseBuilder) -> HttpResponse<BoxBody> {
        let (status, error) = match (self.status, self.code) {
            (
                _,
                "invalid_grant"
                | "invalid_token"
                | "unsupported_grant_type"
                | "insufficient_scope"
                | "invalid_client"
                | "unauthorized_client",
            ) => (self.status, self.code),
            (_, "user_required" | "sign_in_required") => (self.status, "insufficient_scope"),
            (StatusCode::UNPROCESSABLE_ENTITY, _) => {
                let scope = self.errors.iter().any(|error| error.code == "invalid_scope");
                (StatusCode::BAD_REQUEST, if scope { "invalid_scope" } else { "invalid_request" })
            }
            (StatusCode::TOO_MANY_REQUESTS, code) => (self.status, code),
            (StatusCode::SERVICE_UNAVAILABLE, _) => (self.status, "temporarily_unavailable"),
            (StatusCode::INTERNAL_SERVER_ERROR | StatusCode::GATEWAY_TIMEOUT, _) => (self.status, "server_error"),
            _ => (self.status, "invalid_request"),
        };
        let detail = match self.errors.as_slice() {
            [] => self.detail,
            errors => {
                let complaints = errors.iter().map(|error| format!("{}: {}", error.field, error.message));
                complaints.collect::<Vec<_>>().join(" ").into()
            }
        };
        let body = json!({ "error": error, "error_description": description(&detail), "detail": detail });
        response.status(status).content_type("application/json").body(body.to_string())
    }
}

/// `error_description` takes printable ASCII without quotation mark and backslash (RFC 6749, section 5.2).
fn description(detail: &str) -> String {
    detail.chars().filter(|character| matches!(character, ' '..='~') && !matches!(character, '"' | '\\')).collect()
}

pub(super) fn words(fault: &Fault, profile: StatusProfile) -> Answer {
    match fault {
        Fault::App(error) => app_error(error, profile),
        Fault::KeptOut(kept_out) => forbidden(&kept_out.denial),
        Fault::Malformed { code, detail } => Answer::new(StatusCode::BAD_REQUEST, code, detail.clone()),
        Fault::AmbiguousCredential => {
            let detail = "Send one credential, in one header: Token, or Authorization: Bearer.";
            Answer::new(StatusCode::BAD_REQUEST, "ambiguous_credential", detail)
                .challenge(", error=\"invalid_request\"")
        }
        Fault::TooLarge(limit) => {
            let detail = format!("The body is larger than {limit} bytes.");
            Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
        }
        Fault::WrongMediaType(expected) => {
            let detail = format!("Send the body as {expected} in UTF-8, and say so in one Content-Type header.");
            Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
        }
        Fault::ContentEncoding(coding) => {
            let detail =
                format!("The content encoding {coding} is not supported. Send the body without Content-Encoding.");
            Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding", detail)
        }
        Fault::WeakIfMatch => {
            let detail = "A weak tag never matches in If-Match. A proxy that compresses makes tags weak: name the `version` in \
                          the body, or in the query of DELETE.";
            Answer::new(StatusCode::PRECONDITION_FAILED, "weak_if_match", detail)
        }
        Fault::SlowBody => Answer::new(StatusCode::REQUEST_TIMEOUT, "slow_body", "The body did not arrive in time."),
        Fault::TooMuchInFlight => {
            let detail = "You have too many requests or answers of more than 8 KiB under way. Wait for some of them.";
            Answer::new(StatusCode::TOO_MANY_REQUESTS, "too_much_in_flight", detail)
        }
        Fault::Unset(setting) => {
            let detail = format!("This takes the setting {setting}, which has no value here.");
            Answer::new(StatusCode::NOT_FOUND, "not_configured", detail)
        }
        Fault::Bare(status) => bare(*status),
    }
}

pub(super) fn bare(status: StatusCode) -> Answer {
    match status {
        StatusCode::NOT_FOUND => Answer::new(status, "no_such_route", "There is nothing at this address."),
        StatusCode::METHOD_NOT_ALLOWED => {
            Answer::new(status, "method_not_allowed", "This address takes the methods in the Allow header.")
        }
        StatusCode::URI_TOO_LONG => {
            Answer::new(status, "uri_too_long", "The path with its query is longer than 8 KiB.")
        }
        status if status.is_server_error() => internal(),
        status => Answer::new(status, "bad_request", status.canonical_reason().unwrap_or("The request was refused.")),
    }
}

/// What is told of a request that never reached a route.
pub(super) fn early_answer(status: StatusCode) -> Answer {
    match status {
        StatusCode::BAD_REQUEST => Answer::new(status, "malformed_request", "This is no HTTP/1.1 request."),
        StatusCode::REQUEST_TIMEOUT => {
            Answer::new(status, "slow_request", "The head of the request did not arrive in time.")
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            Answer::new(status, "head_too_large", "The head of the request is too large.")
        }
        status => bare(status),
    }
}

fn app_error(error: &AppError, profile: StatusProfile) -> Answer {
    match error {
        AppError::NotFound(what) => {
            Answer::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}."))
        }
        AppError::Conflict { code, detail } => Answer::new(StatusCode::CONFLICT, code, *detail),
        AppError::Invalid(errors) => {
            let detail = match errors.as_slice() {
                [whole] if whole.field.is_empty() => whole.message.clone(),
                errors => {
                    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
                    format!("Change these fields: {}.", fields.join(", "))
                }
            };
            let answer = Answer::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
            Answer { errors: errors.clone(), ..answer }
        }
        AppError::Unauthenticated(reason) => unauthenticated(*reason, profile),
        AppError::Forbidden(denial) => forbidden(denial),
        AppError::Gone { code, detail } => Answer::new(StatusCode::GONE, code, *detail),
        AppError::Stale => {
            let detail = "The object has changed since you read it. Read it again and repeat your change.";
            Answer::new(StatusCode::PRECONDITION_FAILED, "stale", detail)
        }
        AppError::TooMany { retry_after, .. } => {
            let detail = format!("There were too many requests of this kind from you. Try again in {retry_after} s.");
            Answer::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
        }
        AppError::Busy(_) => {
            Answer::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "The server cannot do this just now. Try again.")
        }
        AppError::NotReady(reason) => Answer::new(StatusCode::SERVICE_UNAVAILABLE, reason.code, reason.detail),
        AppError::OutcomeUnknown(_) => {
            let detail = "The server cannot tell whether the change was stored. Look before you repeat it.";
            Answer::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", detail)
        }
        AppError::Internal(_) => internal(),
    }
}

pub(super) fn internal() -> Answer {
    Answer::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed. The request id leads to its log.")
}

/// The status profile (DESIGN, section 2): what a caller gets whom we do not know.
fn unauthenticated(reason: Reason, profile: StatusProfile) -> Answer {
    use crate::error::Carrier::{Bearer, Token};
    let status = match (profile, reason) {
        (StatusProfile::Fastapi, Reason::Missing | Reason::BadCredential(Token)) => StatusCode::FORBIDDEN,
        (StatusProfile::Fastapi, Reason::BadCredential(Bearer) | Reason::BadPassword) => StatusCode::UNAUTHORIZED,
        (StatusProfile::Rfc, Reason::Missing | Reason::BadCredential(_)) => StatusCode::UNAUTHORIZED,
        (StatusProfile::Rfc, Reason::BadPassword) => StatusCode::BAD_REQUEST,
    };
    match reason {
        Reason::Missing => Answer::new(status, "not_authenticated", "Not authenticated").challenge(""),
        Reason::BadCredential(Token) => {
            Answer::new(status, "invalid_token", "Not authenticated").challenge(", error=\"invalid_token\"")
        }
        Reason::BadCredential(Bearer) => {
            let detail = "The token is malformed, unknown, expired or revoked. Sign in again.";
            Answer::new(status, "invalid_token", detail).challenge(", error=\"invalid_token\"")
        }
        Reason::BadPassword => {
            let answer = Answer::new(
                status,
                "invalid_grant",
                "Incorrect e-mail or password. After several failures, wait before you try again.",
            );
            if status == StatusCode::UNAUTHORIZED { answer.challenge("") } else { answer }
        }
    }
}

fn forbidden(denial: &Denial) -> Answer {
    let answer = |detail| Answer::new(StatusCode::FORBIDDEN, denial.code(), detail);
    let insufficient = ", error=\"insufficient_scope\"";
    match denial {
        Denial::Scopes(scopes) => {
            let detail = Cow::Owned(format!("The credential lacks the scope {scopes}."));
            answer(detail).challenge(&format!("{insufficient}, scope=\"{scopes}\""))
        }
        Denial::NotOwner => answer("Only its owner may do this.".into()),
        Denial::Untold => answer(
            "No trusted proxy says which request this is about, by method, path and, if rules name it, host.".into(),
        ),
        Denial::Ambiguous => answer(
            "The request that this is about can be read in two ways, or its headers contradict each other.".into(),
        ),
        Denial::NoRule => answer("No rule lets anybody pass with this request.".into()),
        Denial::NeedsUser => {
            let detail = "This takes a user; the constant key and keys that were issued to others stand for none.";
            answer(detail.into()).challenge(insufficient)
        }
        Denial::NeedsSignIn => answer("This takes a sign-in token, not an API key.".into()).challenge(insufficient),
        Denial::Narrowed => {
            let detail = "This takes a token with all your scopes. Sign in again without `scope`.";
            answer(detail.into()).challenge(insufficient)
        }
        Denial::SecretReplaced => {
            answer("A rotation replaced this secret. Use the current secret of the key to change the key.".into())
        }
        Denial::WrongPassword => answer("The current password is wrong.".into()),
    }
}

/// Where clients authenticate, whoever is not known or may not ask is an invalid client, in both profiles (RFC 6749,
/// section 5.2; RFC 7662, section 2.3), and whoever would end what is another's is an unauthorized one (RFC 7009).
pub(super) fn client_refused(fault: &Fault, request: &HttpRequest, pattern: &str) -> Option<Answer> {
    let (Fault::App(error), REVOKE | INTROSPECT) = (fault, pattern) else {
        return None;
    };
    let challenge = match error {
        AppError::Forbidden(Denial::NotOwner) => {
            let detail = "The credential that came along is of another account than the token. Send the token alone.";
            return Some(Answer::new(StatusCode::BAD_REQUEST, "unauthorized_client", detail));
        }
        AppError::Forbidden(denial) => forbidden(denial).challenge,
        AppError::Unauthenticated(reason) => unauthenticated(*reason, StatusProfile::Rfc).challenge,
        _ => return None,
    };
    let detail = "Authenticate with a credential that may ask this: as Token, Bearer, or the password of Basic.";
    let answer = Answer::new(StatusCode::UNAUTHORIZED, "invalid_client", detail);
    // A browser asks its user for a password when it is challenged by Basic, so only who began with that is.
    Some(if guard::is_basic(request.headers()) {
        answer.challenge_by("Basic", "")
    } else {
        Answer { challenge, ..answer }
    })
}
