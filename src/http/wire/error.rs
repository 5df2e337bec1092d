//! The errors of handlers, extractors and the guard. The edge converts them to responses.

use std::borrow::Cow;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use paperclip::v2::schema::Apiv2Errors;

use crate::domain::audit::RequestContext;
use crate::error::{AppError, Denial};

/// An authenticated caller without the required permission. The edge records it in the audit trail.
#[derive(Clone, Debug)]
pub struct AccessDenied {
    /// The request.
    pub context: RequestContext,
    /// The reason.
    pub denial: Denial,
}

/// The error of a request.
#[derive(Debug)]
pub enum HttpError {
    /// An error of a use case.
    App(AppError),
    /// The request is malformed: 400.
    Malformed {
        /// The stable error code.
        code: &'static str,
        /// The text of the response.
        detail: Cow<'static, str>,
    },
    /// An authenticated caller does not have the required permission.
    AccessDenied(Box<AccessDenied>),
    /// The request has more than one credential, or a list of credentials.
    AmbiguousCredential,
    /// A page of another site sent the request, or nothing shows that none did.
    CrossSite,
    /// The body is larger than this many bytes.
    TooLarge(usize),
    /// The body does not have this media type, which is required.
    WrongMediaType(&'static str),
    /// The body has this content coding, which is not supported.
    ContentEncoding(String),
    /// All tags of `If-Match` are weak.
    WeakIfMatch,
    /// The body did not arrive in time.
    SlowBody,
    /// The client has too many bytes in flight in requests and responses.
    TooMuchInFlight,
    /// A web page of another origin may not send the request that a preflight request (CORS) announces.
    RejectedPreflight {
        /// The stable error code.
        code: &'static str,
        /// What is not allowed. It contains text of the caller, bounded and escaped.
        detail: String,
    },
    /// The route requires this setting, which is not set.
    NotConfigured(&'static str),
    /// actix-web rejected the request with this status.
    Framework(StatusCode),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<AppError> for HttpError {
    fn from(error: AppError) -> Self {
        Self::App(error)
    }
}

/// Required by actix-web. The edge replaces this response by the one of `problem::present`.
impl ResponseError for HttpError {
    fn status_code(&self) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::new(self.status_code())
    }
}

/// Empty: `openapi` documents the error responses of each operation.
impl Apiv2Errors for HttpError {}
