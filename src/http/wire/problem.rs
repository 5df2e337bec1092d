//! Conversion of errors to responses. `problem_answers` holds the status and text of each error.
//!
//! Handlers, extractors and the guard return an [`HttpError`]. The edge converts it with [`present`], because it knows
//! the request id and the status profile. The format is RFC 9457, and RFC 6749, section 5.2 on `OAUTH_PATHS`, except
//! for preflight requests.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_ENCODING, ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};

use crate::config::StatusProfile;
use crate::domain::audit::ClientInfo;
use crate::error::AppError;
use crate::http::request::access_log::AccessLog;
use crate::http::request::request_id::RequestId;
use crate::http::wire::allowed_methods::AllowedMethods;
use crate::http::wire::error::HttpError;
use crate::http::wire::problem_answers::{
    OAUTH_PATHS, client_error, early_error, error_response, framework_error, internal,
};

const RATE_LIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
/// The value of `Retry-After` for 503 and `too_much_in_flight`, in seconds.
const RETRY_SECONDS: u32 = 1;

/// The configuration of [`present`].
pub struct Presentation {
    profile: StatusProfile,
    allowed: AllowedMethods,
}

impl Presentation {
    /// Errors have the status codes of `profile`; 405 lists the methods in `allowed`.
    pub fn new(profile: StatusProfile, allowed: AllowedMethods) -> Self {
        Self { profile, allowed }
    }

    /// Checks the grant type at the token endpoint. The profile `fastapi` does not require `grant_type`.
    ///
    /// Errors: `invalid_request` if it is missing, `unsupported_grant_type` if it is not `password`.
    pub fn check_grant_type(&self, grant_type: Option<&str>) -> Result<(), HttpError> {
        let (code, detail) = match (grant_type, self.profile) {
            (Some("password"), _) | (None, StatusProfile::Fastapi) => return Ok(()),
            (None, StatusProfile::Rfc) => ("invalid_request", "Send grant_type=password."),
            (Some(_), _) => ("unsupported_grant_type", "The only grant type is password."),
        };
        Err(HttpError::Malformed { code, detail: detail.into() })
    }
}

/// The response to `request` for `error`. The cause is logged with the request id, and is not in the response.
pub fn present(error: &HttpError, request: &HttpRequest, id: &RequestId) -> HttpResponse<BoxBody> {
    let presentation = request.app_data::<web::Data<Presentation>>();
    let profile = presentation.map_or(StatusProfile::Fastapi, |presentation| presentation.profile);
    let pattern = request.match_pattern().unwrap_or_default();
    let allowed = presentation.and_then(|presentation| presentation.allowed.of(&pattern));

    // An unsupported method is 405 also without a credential.
    let is_unauthenticated = matches!(error, HttpError::App(AppError::Unauthenticated(_)));
    let is_unsupported_method =
        is_unauthenticated && allowed.is_some_and(|allowed| !allowed.contains(request.method()));
    let details = match client_error(error, request, &pattern) {
        _ if is_unsupported_method => framework_error(StatusCode::METHOD_NOT_ALLOWED),
        Some(details) => details,
        None => error_response(error, profile),
    };
    log_cause(error, request, id);

    let mut response = HttpResponse::build(details.status);
    if let Some(challenge) = &details.challenge {
        response.insert_header((WWW_AUTHENTICATE, challenge.as_str()));
    }
    if details.status == StatusCode::SERVICE_UNAVAILABLE || matches!(error, HttpError::TooMuchInFlight) {
        response.insert_header((RETRY_AFTER, RETRY_SECONDS));
    }
    if let HttpError::App(AppError::TooMany { limit, retry_after }) = error {
        response.insert_header((RETRY_AFTER, *retry_after));
        response.insert_header((RATE_LIMIT_LIMIT, *limit));
        response.insert_header((RATE_LIMIT_REMAINING, 0));
        response.insert_header((RATE_LIMIT_RESET, *retry_after));
    }
    if matches!(error, HttpError::ContentEncoding(_)) {
        response.insert_header((ACCEPT_ENCODING, "identity"));
    }
    if details.status == StatusCode::METHOD_NOT_ALLOWED {
        response.insert_header((ALLOW, allowed.map_or_else(|| "GET, HEAD".to_owned(), ToString::to_string)));
    }
    // A preflight request comes from a browser, not from an OAuth client.
    if OAUTH_PATHS.contains(&pattern.as_str()) && !matches!(error, HttpError::RejectedPreflight { .. }) {
        details.oauth(&mut response)
    } else {
        details.problem(&mut response, id)
    }
}

/// The response to a request whose handler panicked.
pub fn panic_response(is_oauth: bool, id: &RequestId) -> HttpResponse<BoxBody> {
    let details = internal();
    let mut response = HttpResponse::build(details.status);
    if is_oauth { details.oauth(&mut response) } else { details.problem(&mut response, id) }
}

/// The response to a request head that is malformed, too large or too slow: 400, 431 or 408.
pub fn early_response(status: StatusCode, id: &RequestId) -> HttpResponse<BoxBody> {
    let details = early_error(status);
    let mut response = HttpResponse::build(details.status);
    details.problem(&mut response, id)
}

fn log_cause(error: &HttpError, request: &HttpRequest, id: &RequestId) {
    let client = request.extensions().get::<ClientInfo>().and_then(|client_info| client_info.client);
    let should_log = || request.app_data::<AccessLog>().is_none_or(|log| log.should_log_cause(client));
    match error {
        HttpError::App(AppError::Internal(source)) if should_log() => {
            log::error!(request_id = id.as_str(); "internal: {source}");
        }
        HttpError::App(AppError::OutcomeUnknown(source)) if should_log() => {
            log::error!(request_id = id.as_str(); "outcome unknown: {source}");
        }
        HttpError::App(AppError::Busy(source)) if should_log() => {
            log::warn!(request_id = id.as_str(); "busy: {source}");
        }
        HttpError::Framework(status) if status.is_server_error() && should_log() => {
            log::error!(request_id = id.as_str(); "the framework returned {status}");
        }
        HttpError::RejectedPreflight { detail, .. }
            if request.app_data::<AccessLog>().is_none_or(|log| log.should_log_preflight(client)) =>
        {
            log::warn!(request_id = id.as_str(); "preflight request rejected: {detail}");
        }
        _ => {}
    }
}
