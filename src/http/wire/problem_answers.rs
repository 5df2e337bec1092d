//! The status, code and text of each error response. This is the only module that maps errors to status codes,
//! including the status profile.

use std::borrow::Cow;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde_json::{Value, json};

use crate::config::StatusProfile;
use crate::error::{AppError, Denial, FieldError, Reason};
use crate::http::request::request_id::RequestId;
use crate::http::wire::error::HttpError;
use crate::http::wire::header::is_basic;

/// The paths whose errors have the format of OAuth 2.0 (RFC 6749, section 5.2).
pub(crate) const OAUTH_PATHS: [&str; 3] = ["/token", REVOKE, INTROSPECT];
const SESSION: &str = "/session";
const REVOKE: &str = "/revoke";
const INTROSPECT: &str = "/introspect";

/// An error response, independent of its format.
pub(crate) struct ErrorResponse {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    pub(crate) challenge: Option<String>,
}

impl ErrorResponse {
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

    /// As problem details (RFC 9457), with a stable `code`, the request id, and the invalid fields.
    pub(crate) fn problem(self, response: &mut HttpResponseBuilder, id: &RequestId) -> HttpResponse<BoxBody> {
        let body = self.problem_body(id.as_str());
        response.content_type("application/problem+json").body(body.to_string())
    }

    pub(crate) fn problem_body(&self, request_id: &str) -> Value {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        });
        if let Some(body) = body.as_object_mut().filter(|_| !self.errors.is_empty()) {
            let errors = self
                .errors
                .iter()
                .map(|error| json!({ "field": error.field, "code": error.code, "message": error.message }));
            body.insert("errors".to_owned(), errors.collect());
        }
        body
    }

    /// As an OAuth 2.0 error (RFC 6749, section 5.2), with the additional member `detail`.
    pub(crate) fn oauth(self, response: &mut HttpResponseBuilder) -> HttpResponse<BoxBody> {
        let (status, body) = self.oauth_body();
        response.status(status).content_type("application/json").body(body.to_string())
    }

    /// The status and the body as an OAuth 2.0 error.
    pub(crate) fn oauth_body(self) -> (StatusCode, Value) {
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
            // Only 400 and 401 are statuses of the token endpoint (RFC 6749, section 5.2).
            (_, "email_not_verified") => (StatusCode::BAD_REQUEST, self.code),
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
                let messages = errors.iter().map(|error| format!("{}: {}", error.field, error.message));
                messages.collect::<Vec<_>>().join(" ").into()
            }
        };
        (status, json!({ "error": error, "error_description": error_description(&detail), "detail": detail }))
    }
}

/// The text reduced to the characters that `error_description` allows: printable ASCII without `"` and `\` (RFC 6749,
/// section 5.2).
fn error_description(detail: &str) -> String {
    detail.chars().filter(|character| matches!(character, ' '..='~') && !matches!(character, '"' | '\\')).collect()
}

/// The response to an error under a status profile.
pub(crate) fn error_response(error: &HttpError, profile: StatusProfile) -> ErrorResponse {
    match error {
        HttpError::App(error) => app_error(error, profile),
        HttpError::AccessDenied(denied) => forbidden(&denied.denial),
        HttpError::Malformed { code, detail } => ErrorResponse::new(StatusCode::BAD_REQUEST, code, detail.clone()),
        HttpError::AmbiguousCredential => {
            let detail = "Send one credential, in one header: Token, Authorization: Bearer, or one session cookie.";
            ErrorResponse::new(StatusCode::BAD_REQUEST, "ambiguous_credential", detail)
                .challenge(", error=\"invalid_request\"")
        }
        HttpError::CrossSite => {
            let detail = "The request did not come from a page of this server (Sec-Fetch-Site, Origin). Programs send a \
                          token or an API key instead of the session cookie.";
            ErrorResponse::new(StatusCode::FORBIDDEN, "cross_site_request", detail)
        }
        HttpError::TooLarge(limit) => {
            let detail = format!("The body is larger than {limit} bytes.");
            ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
        }
        HttpError::WrongMediaType(expected) => {
            let detail =
                format!("Send the body as {expected} in UTF-8, with one Content-Type header that names this type.");
            ErrorResponse::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
        }
        HttpError::ContentEncoding(coding) => {
            let detail =
                format!("The content encoding {coding} is not supported. Send the body without Content-Encoding.");
            ErrorResponse::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding", detail)
        }
        HttpError::WeakIfMatch => {
            let detail = "Weak tags never match in If-Match. A proxy that compresses makes tags weak. Send the `version` in \
                          the body instead, or in the query of DELETE.";
            ErrorResponse::new(StatusCode::PRECONDITION_FAILED, "weak_if_match", detail)
        }
        HttpError::SlowBody => {
            ErrorResponse::new(StatusCode::REQUEST_TIMEOUT, "slow_body", "The body did not arrive in time.")
        }
        HttpError::TooMuchInFlight => {
            let detail =
                "You have too many requests or responses of more than 8 KiB in flight. Wait until some have finished.";
            ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, "too_much_in_flight", detail)
        }
        HttpError::RejectedPreflight { code, detail } => {
            ErrorResponse::new(StatusCode::BAD_REQUEST, code, detail.clone())
        }
        HttpError::NotConfigured(setting) => {
            let detail = format!("This requires the setting {setting}, which is not set.");
            ErrorResponse::new(StatusCode::NOT_FOUND, "not_configured", detail)
        }
        HttpError::Framework(status) => framework_error(*status),
    }
}

/// The response to an error of actix-web.
pub(crate) fn framework_error(status: StatusCode) -> ErrorResponse {
    match status {
        StatusCode::NOT_FOUND => ErrorResponse::new(status, "no_such_route", "No route has this path."),
        StatusCode::METHOD_NOT_ALLOWED => {
            ErrorResponse::new(status, "method_not_allowed", "This path supports only the methods in the Allow header.")
        }
        StatusCode::URI_TOO_LONG => {
            ErrorResponse::new(status, "uri_too_long", "The path with its query is longer than 8 KiB.")
        }
        status if status.is_server_error() => internal(),
        status => {
            ErrorResponse::new(status, "bad_request", status.canonical_reason().unwrap_or("The request was rejected."))
        }
    }
}

/// The response to a request head that is malformed, too large or too slow: 400, 431 or 408.
pub(crate) fn early_error(status: StatusCode) -> ErrorResponse {
    match status {
        StatusCode::BAD_REQUEST => {
            ErrorResponse::new(status, "malformed_request", "The request is not a valid HTTP/1.1 request.")
        }
        StatusCode::REQUEST_TIMEOUT => {
            ErrorResponse::new(status, "slow_request", "The head of the request did not arrive in time.")
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ErrorResponse::new(status, "head_too_large", "The head of the request is too large.")
        }
        status => framework_error(status),
    }
}

fn app_error(error: &AppError, profile: StatusProfile) -> ErrorResponse {
    match error {
        AppError::NotFound(what) => {
            ErrorResponse::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}."))
        }
        AppError::Conflict { code, detail } => ErrorResponse::new(StatusCode::CONFLICT, code, *detail),
        AppError::Invalid(errors) => {
            let detail = match errors.as_slice() {
                [whole] if whole.field.is_empty() => whole.message.clone(),
                errors => {
                    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
                    format!("Change these fields: {}.", fields.join(", "))
                }
            };
            let response = ErrorResponse::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
            ErrorResponse { errors: errors.clone(), ..response }
        }
        AppError::Unauthenticated(reason) => unauthenticated(*reason, profile),
        AppError::Forbidden(denial) => forbidden(denial),
        AppError::Gone { code, detail } => ErrorResponse::new(StatusCode::GONE, code, *detail),
        AppError::Stale => {
            let detail = "The object has changed since you read it. Read it again and repeat your change.";
            ErrorResponse::new(StatusCode::PRECONDITION_FAILED, "stale", detail)
        }
        AppError::TooMany { retry_after, .. } => {
            let detail = format!("You have sent too many requests of this kind. Try again in {retry_after} s.");
            ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
        }
        AppError::Busy(_) => {
            ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "The server is busy. Try again.")
        }
        AppError::NotReady(reason) => ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, reason.code, reason.detail),
        AppError::OutcomeUnknown(_) => {
            let detail = "The database did not confirm whether the change was stored. Check before you repeat it.";
            ErrorResponse::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", detail)
        }
        AppError::Internal(_) => internal(),
    }
}

/// The response to an internal error; it does not reveal the cause.
pub(crate) fn internal() -> ErrorResponse {
    ErrorResponse::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "An internal error occurred. The server log has its cause under the request id.",
    )
}

/// The response to a missing or invalid credential, which depends on the status profile (`http.status_codes`).
fn unauthenticated(reason: Reason, profile: StatusProfile) -> ErrorResponse {
    use crate::error::CredentialHeader::{Bearer, Cookie, Token};
    let status = match (profile, reason) {
        (StatusProfile::Fastapi, Reason::Missing | Reason::BadCredential(Token)) => StatusCode::FORBIDDEN,
        (StatusProfile::Fastapi, Reason::BadCredential(Bearer | Cookie) | Reason::BadPassword) => {
            StatusCode::UNAUTHORIZED
        }
        (StatusProfile::Rfc, Reason::Missing | Reason::BadCredential(_)) => StatusCode::UNAUTHORIZED,
        (StatusProfile::Rfc, Reason::BadPassword) => StatusCode::BAD_REQUEST,
    };
    match reason {
        Reason::Missing => ErrorResponse::new(status, "not_authenticated", "Not authenticated").challenge(""),
        Reason::BadCredential(Token) => {
            ErrorResponse::new(status, "invalid_token", "Not authenticated").challenge(", error=\"invalid_token\"")
        }
        Reason::BadCredential(Bearer) => {
            let detail = "The token is malformed, unknown, expired or revoked. Sign in again.";
            ErrorResponse::new(status, "invalid_token", detail).challenge(", error=\"invalid_token\"")
        }
        Reason::BadCredential(Cookie) => {
            let detail = "The session has ended. Sign in again.";
            ErrorResponse::new(status, "invalid_token", detail).challenge(", error=\"invalid_token\"")
        }
        Reason::BadPassword => {
            let response = ErrorResponse::new(
                status,
                "invalid_grant",
                "Incorrect e-mail or password. After several failures, wait before you try again.",
            );
            if status == StatusCode::UNAUTHORIZED { response.challenge("") } else { response }
        }
    }
}

/// The response to a caller without permission.
fn forbidden(denial: &Denial) -> ErrorResponse {
    let response = |detail| ErrorResponse::new(StatusCode::FORBIDDEN, denial.code(), detail);
    let insufficient = ", error=\"insufficient_scope\"";
    match denial {
        Denial::Scopes(scopes) => {
            let detail = Cow::Owned(format!("The credential lacks the scope {scopes}."));
            response(detail).challenge(&format!("{insufficient}, scope=\"{scopes}\""))
        }
        Denial::NotOwner => response("Only the owner can do this.".into()),
        Denial::MissingOriginalRequest => response(
            "No trusted proxy states the original request: its method, its path, and its host if a rule has one."
                .into(),
        ),
        Denial::Ambiguous => {
            response("The original request can be read in two ways, or its headers contradict each other.".into())
        }
        Denial::NoRule => response("No rule matches this request.".into()),
        Denial::NeedsUser => {
            let detail = "This requires a user. The static key and issued keys do not represent one.";
            response(detail.into()).challenge(insufficient)
        }
        Denial::NeedsSignIn => {
            response("This requires a sign-in token. API keys are not accepted.".into()).challenge(insufficient)
        }
        Denial::NeedsSession => {
            response("This requires the cookie of a browser session, and no other credential.".into())
                .challenge(insufficient)
        }
        Denial::Narrowed => {
            let detail = "This requires a token with all scopes of your role. Sign in again without `scope`.";
            response(detail.into()).challenge(insufficient)
        }
        Denial::SecretReplaced => {
            response("A rotation replaced this secret. Use the current secret of the key to change the key.".into())
        }
        Denial::WrongPassword => response("The current password is wrong.".into()),
        Denial::EmailNotVerified => {
            response("Open the link in the mail that was sent to your address, then sign in again.".into())
        }
        Denial::RegistrationClosed => {
            response("Registration is closed (registration.mode). Ask an admin to create an account.".into())
        }
    }
}

/// The response to a client error of `/session`, `/revoke` and `/introspect`, in both status profiles; `None` for other
/// errors and paths.
///
/// At `/session`, a wrong password is 401, because 400 is a rule of OAuth 2.0 only.
///
/// At the others, a missing or invalid credential, or one without permission, is `invalid_client` (RFC 6749, section
/// 5.2; RFC 7662, section 2.3). A token of another account is `unauthorized_client` (RFC 7009, section 2.1).
pub(crate) fn client_error(error: &HttpError, request: &HttpRequest, pattern: &str) -> Option<ErrorResponse> {
    let error = match (error, pattern) {
        (HttpError::App(AppError::Unauthenticated(reason @ Reason::BadPassword)), SESSION) => {
            return Some(unauthenticated(*reason, StatusProfile::Fastapi));
        }
        (HttpError::App(error), REVOKE | INTROSPECT) => error,
        _ => return None,
    };
    let challenge = match error {
        AppError::Forbidden(Denial::NotOwner) => {
            let detail =
                "The credential of the request belongs to another account than the token. Send the token alone.";
            return Some(ErrorResponse::new(StatusCode::BAD_REQUEST, "unauthorized_client", detail));
        }
        AppError::Forbidden(denial) => forbidden(denial).challenge,
        AppError::Unauthenticated(reason) => unauthenticated(*reason, StatusProfile::Rfc).challenge,
        _ => return None,
    };
    let response = invalid_client();
    // A challenge for Basic makes a browser prompt for a password, so it is sent only to clients that used Basic.
    Some(if is_basic(request.headers()) {
        response.challenge_by("Basic", "")
    } else {
        ErrorResponse { challenge, ..response }
    })
}

/// The response of `/revoke` and `/introspect` to a caller who is not authenticated, or has no permission.
pub(crate) fn invalid_client() -> ErrorResponse {
    let detail = "Send a valid credential with the required permission, as Token, Bearer, or the password of Basic.";
    ErrorResponse::new(StatusCode::UNAUTHORIZED, "invalid_client", detail)
}
