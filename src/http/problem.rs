//! Errors in HTTP. This is the one place that turns an error into an answer; the file beside it says which.
//!
//! Handlers, extractors and the guard answer a [`Fault`]. [`present`] puts it into words at the edge, where the request
//! id and the status profile are known: RFC 9457 everywhere but under [`OAUTH_PATHS`], which speak RFC 6749, section
//! 5.2.

mod answers;

use std::borrow::Cow;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_ENCODING, ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, ResponseError, web};
use paperclip::v2::schema::Apiv2Errors;

use self::answers::{bare, client_refused, early_answer, internal, words};
use super::access::AccessLog;
use super::edge::RequestId;
use super::openapi::{AllowedMethods, Document};
use super::principal::KeptOut;
use crate::config::StatusProfile;
use crate::domain::audit::Origin;
use crate::error::AppError;

const RATE_LIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
/// Seconds after which to try again.
const RETRY_SECONDS: u32 = 1;
/// Paths whose errors are OAuth 2.0's.
pub const OAUTH_PATHS: [&str; 3] = ["/token", REVOKE, INTROSPECT];
const REVOKE: &str = "/revoke";
const INTROSPECT: &str = "/introspect";

/// What went wrong, on its way to the edge.
#[derive(Debug)]
pub enum Fault {
    /// In a use case.
    App(AppError),
    /// The request cannot be read.
    Malformed {
        /// Stable, for programs.
        code: &'static str,
        /// For people.
        detail: Cow<'static, str>,
    },
    /// A known caller may not pass.
    KeptOut(Box<KeptOut>),
    /// More than one credential, or one that is a list.
    AmbiguousCredential,
    /// The body is larger than this many bytes.
    TooLarge(usize),
    /// The body is not of this media type.
    WrongMediaType(&'static str),
    /// The body has this content coding.
    ContentEncoding(String),
    /// `If-Match` holds weak tags only.
    WeakIfMatch,
    /// The body did not arrive in time.
    SlowBody,
    /// The client has too many bytes in flight.
    TooMuchInFlight,
    /// The setting that this takes has no value.
    Unset(&'static str),
    /// What the framework refused without a word.
    Bare(StatusCode),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<AppError> for Fault {
    fn from(error: AppError) -> Self {
        Self::App(error)
    }
}

/// Only a carrier: the edge puts the real answer in place of this one.
impl ResponseError for Fault {
    fn status_code(&self) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::new(self.status_code())
    }
}

/// Error answers are documented in `openapi`, operation by operation.
impl Apiv2Errors for Fault {}

/// What [`present`] needs to know beside the fault.
pub struct Presentation {
    profile: StatusProfile,
    allowed: AllowedMethods,
}

impl Presentation {
    /// Answers in `profile`; `document` knows the methods of each path.
    pub fn new(profile: StatusProfile, document: &Document) -> Self {
        Self { profile, allowed: document.allowed_methods() }
    }

    /// Whether the token endpoint serves this grant. In the profile `fastapi` it may go unsaid.
    pub fn check_grant_type(&self, grant_type: Option<&str>) -> Result<(), Fault> {
        let (code, detail) = match (grant_type, self.profile) {
            (Some("password"), _) | (None, StatusProfile::Fastapi) => return Ok(()),
            (None, StatusProfile::Rfc) => ("invalid_request", "Send grant_type=password."),
            (Some(_), _) => ("unsupported_grant_type", "The only grant type is password."),
        };
        Err(Fault::Malformed { code, detail: detail.into() })
    }
}

/// The answer that tells `request`'s sender of `fault`. Causes are logged under the request id and stay here.
pub fn present(fault: &Fault, request: &HttpRequest, id: &RequestId) -> HttpResponse<BoxBody> {
    let presentation = request.app_data::<web::Data<Presentation>>();
    let profile = presentation.map_or(StatusProfile::Fastapi, |presentation| presentation.profile);
    let pattern = request.match_pattern().unwrap_or_default();
    let allowed = presentation.and_then(|presentation| presentation.allowed.of(&pattern));

    // A method that nobody has here is not allowed, whoever asks.
    let unknown_caller = matches!(fault, Fault::App(AppError::Unauthenticated(_)));
    let not_allowed = unknown_caller && allowed.is_some_and(|allowed| !allowed.contains(request.method()));
    let answer = match client_refused(fault, request, &pattern) {
        _ if not_allowed => bare(StatusCode::METHOD_NOT_ALLOWED),
        Some(answer) => answer,
        None => words(fault, profile),
    };
    log_cause(fault, request, id);

    let mut response = HttpResponse::build(answer.status);
    if let Some(challenge) = &answer.challenge {
        response.insert_header((WWW_AUTHENTICATE, challenge.as_str()));
    }
    if answer.status == StatusCode::SERVICE_UNAVAILABLE || matches!(fault, Fault::TooMuchInFlight) {
        response.insert_header((RETRY_AFTER, RETRY_SECONDS));
    }
    if let Fault::App(AppError::TooMany { limit, retry_after }) = fault {
        response.insert_header((RETRY_AFTER, *retry_after));
        response.insert_header((RATE_LIMIT_LIMIT, *limit));
        response.insert_header((RATE_LIMIT_REMAINING, 0));
        response.insert_header((RATE_LIMIT_RESET, *retry_after));
    }
    if matches!(fault, Fault::ContentEncoding(_)) {
        response.insert_header((ACCEPT_ENCODING, "identity"));
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        response.insert_header((ALLOW, allowed.map_or_else(|| "GET, HEAD".to_owned(), ToString::to_string)));
    }
    if OAUTH_PATHS.contains(&pattern.as_str()) {
        answer.oauth(&mut response)
    } else {
        answer.problem(&mut response, id)
    }
}

/// The answer to a request whose handler panicked.
pub fn last_resort(is_oauth: bool, id: &RequestId) -> HttpResponse<BoxBody> {
    let answer = internal();
    let mut response = HttpResponse::build(answer.status);
    if is_oauth { answer.oauth(&mut response) } else { answer.problem(&mut response, id) }
}

/// The answer to what is no request that could be routed.
pub fn early(status: StatusCode, id: &RequestId) -> HttpResponse<BoxBody> {
    let answer = early_answer(status);
    let mut response = HttpResponse::build(answer.status);
    answer.problem(&mut response, id)
}

fn log_cause(fault: &Fault, request: &HttpRequest, id: &RequestId) {
    let client = request.extensions().get::<Origin>().and_then(|origin| origin.client);
    let has_line = || request.app_data::<AccessLog>().is_none_or(|log| log.has_cause(client));
    match fault {
        Fault::App(AppError::Internal(source)) if has_line() => {
            log::error!(request_id = id.as_str(); "internal: {source}");
        }
        Fault::App(AppError::OutcomeUnknown(source)) if has_line() => {
            log::error!(request_id = id.as_str(); "outcome unknown: {source}");
        }
        Fault::App(AppError::Busy(source)) if has_line() => log::warn!(request_id = id.as_str(); "busy: {source}"),
        Fault::Bare(status) if status.is_server_error() && has_line() => {
            log::error!(request_id = id.as_str(); "bare {status}");
        }
        _ => {}
    }
}
