//! What happens to every request and every answer: an id, HEAD, errors put into words, headers, one log line.

use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse};

use super::problem::{self, Fault};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a caller, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// The name of a request in the answer and in every log line about it.
pub struct RequestId(String);

impl RequestId {
    /// The caller's `X-Request-Id` if it is short and plain, or else a new one.
    fn of(headers: &HeaderMap) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let given = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let given = given.filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain));
        Self(given.map_or_else(|| format!("{:032x}", rand::random::<u128>()), str::to_owned))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The outermost middleware.
pub async fn edge<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    let method = request.method().clone();
    if method == Method::HEAD {
        // Routed as GET (RFC 9110, section 9.1). The connection remembers to leave the body out.
        request.head_mut().method = Method::GET;
    }
    // Handlers, extractors and the guard answer errors as responses; an `Err` here is the framework's own.
    let mut response = next.call(request).await?.map_into_boxed_body();
    if let Some(presented) = presented(&response, &id) {
        response = response.into_response(presented);
    }
    finish(response.headers_mut(), &id);
    log_line(&response, &method, &id, started);
    Ok(response)
}

/// The error answer that takes the place of `response`, if it is one.
fn presented(response: &ServiceResponse<BoxBody>, id: &RequestId) -> Option<HttpResponse<BoxBody>> {
    let (asked, status) = (response.request(), response.status());
    match response.response().error().and_then(|error| error.as_error::<Fault>()) {
        Some(fault) => Some(problem::present(fault, asked, id)),
        None if status.is_client_error() || status.is_server_error() => {
            Some(problem::present(&Fault::Bare(status), asked, id))
        }
        None => None,
    }
}

/// Nothing of ours may be stored by a cache or read as another type, unless its handler said so.
fn finish(headers: &mut HeaderMap, id: &RequestId) {
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("Authorization, Token"));
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(X_REQUEST_ID, id);
    }
}

fn log_line(response: &ServiceResponse<BoxBody>, method: &Method, id: &RequestId, started: Instant) {
    let status = response.status().as_u16();
    // The path without its query, where a careless client may have put a secret.
    let path = response.request().path();
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    log::info!(
        target: "latchkey::access",
        request_id = id.as_str(), method = method.as_str(), path = path, status = status, micros = micros;
        "request"
    );
}
