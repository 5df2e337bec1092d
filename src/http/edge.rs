//! What happens to every request and every answer: an id, HEAD, errors put into words, headers, one log line.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::Method;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};
use futures_util::FutureExt;

use super::client::{client, is_secure};
use super::problem::{self, Fault};
use crate::domain::audit::Origin;
use crate::domain::network::Network;
use crate::error::AppError;
use crate::metrics::Metrics;
use crate::service::{Caller, Service, for_one_request, set_caller};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a caller, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// The longest path with query, in bytes.
const MAX_TARGET: usize = 8 * 1024;
/// What is logged of the path of a longer one.
const MAX_LOGGED_PATH: usize = 256;

/// What logs of the field call the answer that nobody waited for.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The name of a request in the answer, in every log line about it, and in the audit trail.
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's `X-Request-Id` if it is short and plain, or else a new one.
    fn of(headers: &HeaderMap) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let given = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let given = given.filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain));
        Self(given.map_or_else(|| format!("{:032x}", rand::random::<u128>()).into(), Into::into))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The outermost middleware.
pub async fn edge<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    for_one_request(Some(Caller::Anonymous(None)), answer(request, next)).await
}

async fn answer<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut line = AccessLine {
        log: request.app_data::<AccessLog>().cloned(),
        id: RequestId::of(request.headers()),
        method: request.method().clone(),
        path: request.path().to_owned(),
        route: String::new(),
        status: CLIENT_CLOSED_REQUEST,
        started: Instant::now(),
    };
    let origin = Origin { client: client(request.request()), request_id: Some(Arc::clone(&line.id.0)) };
    set_caller(Caller::Anonymous(origin.client.map(Network::of)));
    request.extensions_mut().insert(origin);
    let secure = is_secure(request.request());
    if line.method == Method::HEAD {
        // Routed as GET (RFC 9110, section 9.1). The connection remembers to leave the body out.
        request.head_mut().method = Method::GET;
    }
    let answered = if target_length(&request) > MAX_TARGET {
        line.path.truncate(line.path.floor_char_boundary(MAX_LOGGED_PATH));
        Ok(request.into_response(HttpResponse::UriTooLong().finish()))
    } else {
        handled(request, next, &line, secure).await
    };
    // Handlers, extractors and the guard answer errors as responses; an `Err` here is the framework's own, or a panic.
    let mut response = match answered {
        Ok(response) => response,
        Err(error) => {
            line.status = error.as_response_error().status_code().as_u16();
            return Err(error);
        }
    };
    if let Some(mut answer) = error_answer(&response, &line.id).await {
        keep_cors(response.headers(), answer.headers_mut());
        response = response.into_response(answer);
    }
    finish(response.headers_mut(), &line.id, secure);
    line.status = response.status().as_u16();
    if line.log.as_ref().is_some_and(|log| log.metrics.is_some()) {
        line.route = response.request().match_pattern().unwrap_or_default();
    }
    Ok(response)
}

/// What the handler answers. If it panics, the request goes down with it, and nobody else is hurt.
async fn handled<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
    line: &AccessLine,
    secure: bool,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match AssertUnwindSafe(next.call(request)).catch_unwind().await {
        Ok(answered) => answered.map(ServiceResponse::map_into_boxed_body),
        Err(_panic) => {
            let mut answer = problem::last_resort(&line.path, &line.id);
            finish(answer.headers_mut(), &line.id, secure);
            Err(InternalError::from_response("the handler panicked", answer).into())
        }
    }
}

fn target_length(request: &ServiceRequest) -> usize {
    request.uri().path_and_query().map_or(0, |target| target.as_str().len())
}

/// The error answer that takes the place of `response`, if it is one. That a known caller was kept out is recorded
/// before it is told.
async fn error_answer(response: &ServiceResponse<BoxBody>, id: &RequestId) -> Option<HttpResponse<BoxBody>> {
    let (asked, status) = (response.request(), response.status());
    match response.response().error().and_then(|error| error.as_error::<Fault>()) {
        Some(Fault::KeptOut(kept_out)) => {
            let route = format!("{} {}", asked.method(), asked.match_pattern().unwrap_or_default());
            let told = match asked.app_data::<web::Data<Service>>() {
                Some(service) => service.keep_out(&kept_out.call, route, kept_out.denial.clone()).await,
                None => AppError::Internal("nobody can record that a caller was kept out".into()),
            };
            Some(problem::present(&Fault::App(told), asked, id))
        }
        Some(fault) => Some(problem::present(fault, asked, id)),
        None if status.is_client_error() || status.is_server_error() => {
            Some(problem::present(&Fault::Bare(status), asked, id))
        }
        None => None,
    }
}

/// Whether a page of another origin may read an answer holds for errors, too.
fn keep_cors(from: &HeaderMap, to: &mut HeaderMap) {
    let cors = |name: &HeaderName| *name == VARY || name.as_str().starts_with("access-control-");
    for (name, value) in from.iter().filter(|(name, _)| cors(name)) {
        to.append(name.clone(), value.clone());
    }
}

/// What browsers are told of every answer. Nothing of ours is a page, but for the documentation, which says so itself.
const SHIELDS: [(HeaderName, HeaderValue); 5] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; base-uri 'none'; frame-ancestors 'none'")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];
/// A year (RFC 6797).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Nothing of ours may be stored by a cache, framed, or read as another type, unless its handler said so.
fn finish(headers: &mut HeaderMap, id: &RequestId, secure: bool) {
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.append(VARY, HeaderValue::from_static("Authorization, Token"));
    }
    for (name, value) in SHIELDS {
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    }
    if secure {
        headers.insert(STRICT_TRANSPORT_SECURITY, HSTS);
    }
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(X_REQUEST_ID, id);
    }
}

/// Who is told of requests. Of those that succeed one of so many has a log line, for each thread by itself.
#[derive(Clone)]
pub struct AccessLog {
    every: u32,
    turn: Rc<Cell<u32>>,
    metrics: Option<Arc<Metrics>>,
}

impl AccessLog {
    /// A line for one of `every`, or none if 0; all are counted in `metrics`, if there are any.
    pub fn new(every: u32, metrics: Option<Arc<Metrics>>) -> Self {
        Self { every, turn: Rc::default(), metrics }
    }

    fn is_due(&self) -> bool {
        let turn = self.turn.get();
        self.turn.set(if turn + 1 < self.every { turn + 1 } else { 0 });
        self.every > 0 && turn == 0
    }
}

/// A method as a label, of which callers may not make up more.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => {
            method.as_str()
        }
        _ => "other",
    }
}

/// The log line about a request. A client that goes away takes the request's future with it; then the line is written
/// as that is dropped, with the status 499.
struct AccessLine {
    log: Option<AccessLog>,
    id: RequestId,
    method: Method,
    /// Without the query, where a careless client may have put a secret.
    path: String,
    /// The pattern, for metrics.
    route: String,
    status: u16,
    started: Instant,
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        if let Some(metrics) = self.log.as_ref().and_then(|log| log.metrics.as_ref()) {
            metrics.request(known(&self.method), &self.route, self.status, took);
        }
        let failed = self.status >= 400;
        if !failed && self.log.as_ref().is_some_and(|log| !log.is_due()) {
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        log::info!(
            target: "latchkey::access",
            request_id = self.id.as_str(), method = self.method.as_str(), path = self.path.as_str(),
            status = self.status, micros = micros;
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::middleware::from_fn;
    use actix_web::{App, test};

    use super::*;

    #[actix_web::test]
    async fn a_handler_that_panics_is_an_internal_error_of_its_request_alone() {
        async fn panics() -> HttpResponse {
            panic!("the password was hunter2")
        }
        let app = App::new()
            .wrap(from_fn(edge))
            .route("/page/", web::get().to(panics))
            .route("/token", web::get().to(panics))
            .route("/fine", web::get().to(HttpResponse::Ok));
        let app = test::init_service(app).await;
        for (path, media_type, code) in [
            ("/page/", "application/problem+json", "\"code\":\"internal\""),
            ("/token", "application/json", "\"error\":\"server_error\""),
        ] {
            let request = test::TestRequest::get().uri(path).insert_header(("X-Request-Id", "a-name")).to_request();
            let error = test::try_call_service(&app, request).await.unwrap_err();
            let answer = error.error_response();
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(answer.headers().get("x-request-id").unwrap(), "a-name");
            assert_eq!(answer.headers().get("cache-control").unwrap(), "no-store");
            assert_eq!(answer.headers().get("content-type").unwrap(), media_type);
            let body = actix_web::body::to_bytes(answer.into_body()).await.unwrap();
            let body = std::str::from_utf8(&body).unwrap();
            assert!(body.contains(code) && !body.contains("hunter2"), "{body}");
        }
        let request = test::TestRequest::get().uri("/fine").to_request();
        assert_eq!(test::call_service(&app, request).await.status(), StatusCode::OK);
    }
}
