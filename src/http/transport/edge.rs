//! The middleware around every request: request id, HEAD, error responses, headers, and the access log.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::{BodySize, BodyStream, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use actix_web::http::{ConnectionType, Method};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};
use futures_util::{FutureExt, stream};

use crate::domain::audit::ClientInfo;
use crate::domain::network::Network;
use crate::error::AppError;
use crate::http::request::access_log::AccessLine;
use crate::http::request::activity::{ActiveRequest, Activity};
use crate::http::request::client::{client, is_secure};
use crate::http::request::request_id::{RequestId, X_REQUEST_ID};
use crate::http::wire::error::HttpError;
use crate::http::wire::in_flight::{self, InFlight, OutgoingBody, StaticBody};
use crate::http::wire::incoming::IncomingBody;
use crate::http::wire::{problem, problem_answers};
use crate::service::{Caller, Service, for_one_request, set_caller};

/// The longest path with its query, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// The outermost middleware. It completes every response, and writes the access log line.
pub async fn edge<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    for_one_request(Some(Caller::Anonymous(None)), respond(request, next)).await
}

async fn respond<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let active_request = request.conn_data::<Rc<Activity>>().map(Activity::begin);
    let id = RequestId::of(request.headers());
    let client_info = ClientInfo { client: client(request.request()), request_id: Some(id.shared()) };
    let mut line = AccessLine::new(&request, &client_info);
    set_caller(Caller::Anonymous(client_info.client.map(Network::of)));
    request.extensions_mut().insert(client_info);
    let secure = is_secure(request.request());
    let is_head = request.method() == Method::HEAD;
    if is_head {
        // HEAD is routed as GET (RFC 9110, section 9.3.2). actix-http omits the body.
        request.head_mut().method = Method::GET;
    }
    let unread = IncomingBody::of(&mut request);
    // actix-http does not keep a connection open after a request with `Upgrade`.
    let offers_upgrade = request.head().upgrade();
    // Errors of handlers, extractors and the guard are responses here. An `Err` comes from actix-web, or from a panic.
    let mut response = match next.call(request).await {
        Ok(response) => response.map_into_boxed_body(),
        Err(mut error) => {
            line.record_error(&error);
            error.add_response_mapper(move |mut response| {
                finish(response.headers_mut(), &id, secure);
                response.head_mut().set_connection_type(ConnectionType::Close);
                response
            });
            return Err(error);
        }
    };
    if let Some(mut replacement) = error_response(&response, &id).await {
        copy_cors_headers(response.headers(), replacement.headers_mut());
        response = response.into_response(replacement);
    }
    // This runs while the request is active, so that the rest of its body is not taken for the next request.
    let closes = is_left_unread(unread, &response).await || offers_upgrade || is_stopping(&response);
    if is_head {
        response = without_streamed_body(response);
    }
    response = reserve_body(response, active_request, &id);
    finish(response.headers_mut(), &id, secure);
    if closes {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    line.record_response(&response);
    Ok(response)
}

/// Reserves the bytes of a response until they are sent. A read over the limit gets an error response instead; the
/// response to a change is always sent, because the change has been made.
fn reserve_body(
    response: ServiceResponse<BoxBody>,
    active_request: Option<ActiveRequest>,
    id: &RequestId,
) -> ServiceResponse<BoxBody> {
    let bytes = in_flight::counted_size(response.response().body());
    let request = response.request();
    let Some(in_flight) = request.app_data::<web::Data<InFlight>>().filter(|_| bytes > in_flight::UNCOUNTED) else {
        return response;
    };
    let client = request.extensions().get::<ClientInfo>().and_then(|client_info| client_info.client);
    let reserved = if response.response().extensions().contains::<StaticBody>() {
        None
    } else if request.method() == Method::GET {
        match Arc::clone(in_flight).reserve(client, bytes) {
            Ok(reserved) => Some(reserved),
            Err(error) => {
                let mut replacement = problem::present(&error, request, id);
                copy_cors_headers(response.headers(), replacement.headers_mut());
                return response.into_response(replacement);
            }
        }
    } else {
        Some(Arc::clone(in_flight).reserve_unchecked(client, bytes))
    };
    response.map_body(|_, body| BoxBody::new(OutgoingBody::new(body, reserved, active_request)))
}

/// Replaces a streamed body by an empty one. HEAD does not send the body, so nothing would limit the rate of the
/// stream.
fn without_streamed_body(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    response.map_body(|_, body| match body.size() {
        BodySize::Stream => BoxBody::new(BodyStream::new(stream::empty::<Result<web::Bytes, Infallible>>())),
        _ => body,
    })
}

fn is_stopping(response: &ServiceResponse<BoxBody>) -> bool {
    response
        .request()
        .app_data::<web::Data<Service>>()
        .is_some_and(|service| service.lifecycle().shutdown().is_draining())
}

/// Whether a part of the request body is unread, so that the connection cannot serve another request.
async fn is_left_unread(body: Option<IncomingBody>, response: &ServiceResponse<BoxBody>) -> bool {
    match body {
        Some(body) => body.is_long(response.request().head()) || !body.drain().await,
        None => false,
    }
}

/// The innermost middleware: rejects paths that are too long, and converts a panic of a handler to a 500 of its
/// request. It is inside CORS, so that allowed origins can read these responses, too.
pub async fn catch_panics<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if target_length(&request) > MAX_TARGET {
        return Ok(request.into_response(HttpResponse::UriTooLong().finish()));
    }
    let is_oauth = problem_answers::OAUTH_PATHS.contains(&request.path());
    let client_info = request.extensions().get::<ClientInfo>().cloned().unwrap_or_default();
    match AssertUnwindSafe(async { next.call(request).await }).catch_unwind().await {
        Ok(result) => result.map(ServiceResponse::map_into_boxed_body),
        Err(_panic) => {
            let id = RequestId::known(client_info.request_id.unwrap_or_default());
            let response = problem::panic_response(is_oauth, &id);
            Err(InternalError::from_response("the handler panicked", response).into())
        }
    }
}

fn target_length(request: &ServiceRequest) -> usize {
    request.uri().path_and_query().map_or(0, |target| target.as_str().len())
}

/// The error response that replaces `response`, if it is an error. A denial is recorded in the audit trail first.
async fn error_response(response: &ServiceResponse<BoxBody>, id: &RequestId) -> Option<HttpResponse<BoxBody>> {
    let (request, status) = (response.request(), response.status());
    match response.response().error().and_then(|error| error.as_error::<HttpError>()) {
        Some(HttpError::AccessDenied(denied)) => {
            let route = format!("{} {}", request.method(), request.match_pattern().unwrap_or_default());
            let error = match request.app_data::<web::Data<Service>>() {
                // Boxed, because this rare and large future would enlarge the future of every request.
                Some(service) => {
                    Box::pin(service.trail().record_denial(&denied.context, route, denied.denial.clone())).await
                }
                None => AppError::Internal("there is no service to record the denial".into()),
            };
            Some(problem::present(&HttpError::App(error), request, id))
        }
        Some(error) => Some(problem::present(error, request, id)),
        None if status.is_client_error() || status.is_server_error() => {
            Some(problem::present(&HttpError::Framework(status), request, id))
        }
        None => None,
    }
}

/// Copies the CORS headers, so that allowed origins can read error responses.
fn copy_cors_headers(from: &HeaderMap, to: &mut HeaderMap) {
    let cors = |name: &HeaderName| *name == VARY || name.as_str().starts_with("access-control-");
    for (name, value) in from.iter().filter(|(name, _)| cors(name)) {
        to.append(name.clone(), value.clone());
    }
}

/// The security headers of all responses for browsers (ASVS 5.0, 3.4.3 to 3.4.6). The documentation page sets its own.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; base-uri 'none'; frame-ancestors 'none'")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];
/// `Strict-Transport-Security` of one year (RFC 6797; ASVS 5.0, 3.4.1).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the headers that all responses have. `Cache-Control` and security headers that the handler has set are kept.
pub fn finish(headers: &mut HeaderMap, id: &RequestId, secure: bool) {
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.append(VARY, HeaderValue::from_static("Authorization, Cookie, Token"));
    }
    for (name, value) in SECURITY_HEADERS {
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

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::middleware::from_fn;
    use actix_web::{App, test};

    use super::*;
    use crate::http::request::access_log::AccessLog;
    use crate::http::request::log_sampling::LogSamples;
    use crate::metrics::{Durations, Metrics, MetricsSnapshot, TextFormat};

    #[actix_web::test]
    async fn a_panic_in_a_handler_fails_only_its_request() {
        async fn panics() -> HttpResponse {
            panic!("the password was hunter2")
        }
        let metrics = Arc::new(Metrics::new(&Durations::default(), &Durations::default(), Arc::default()));
        let log = AccessLog::new(1, LogSamples::start(), Some(Arc::clone(&metrics)));
        let app = App::new()
            .wrap(from_fn(catch_panics))
            .wrap(from_fn(edge))
            .app_data(log)
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
            let response = error.error_response();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(response.headers().get("x-request-id").unwrap(), "a-name");
            assert_eq!(response.headers().get("cache-control").unwrap(), "no-store");
            assert_eq!(response.headers().get("content-type").unwrap(), media_type);
            let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
            let body = std::str::from_utf8(&body).unwrap();
            assert!(body.contains(code) && !body.contains("hunter2"), "{body}");
        }
        let request = test::TestRequest::get().uri("/fine").to_request();
        assert_eq!(test::call_service(&app, request).await.status(), StatusCode::OK);
        let text = metrics.text(MetricsSnapshot::default(), TextFormat::Prometheus).unwrap();
        assert!(text.contains(r#"_count{method="GET",route="",status="500"} 2"#), "{text}");
        assert!(text.contains(r#"_count{method="GET",route="/fine",status="200"} 1"#), "{text}");
    }

    #[actix_web::test]
    async fn a_streamed_body_is_not_produced_for_head() {
        async fn endless() -> HttpResponse {
            HttpResponse::Ok().streaming(stream::repeat(Ok::<_, Infallible>(web::Bytes::from_static(b"line\n"))))
        }
        let app = App::new().wrap(from_fn(catch_panics)).wrap(from_fn(edge)).route("/audit", web::get().to(endless));
        let app = test::init_service(app).await;
        let request = test::TestRequest::default().method(Method::HEAD).uri("/audit").to_request();
        let response = test::call_service(&app, request).await;
        assert_eq!((response.status(), response.response().body().size()), (StatusCode::OK, BodySize::Stream));
        let sent = actix_web::body::to_bytes_limited(response.into_body(), 1024).await;
        assert!(sent.is_ok_and(|sent| sent.unwrap().is_empty()));
    }
}
