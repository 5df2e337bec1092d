//! What happens to every request and every answer: an id, HEAD, errors put into words, headers, one log line.

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

use super::access::AccessLine;
use super::client::{client, is_secure};
use super::in_flight::{self, InFlight, Outgoing, Static};
use super::incoming::Incoming;
use super::problem::{self, Fault};
use super::stream::{Activity, UnderWay};
use crate::domain::audit::Origin;
use crate::domain::network::Network;
use crate::domain::secret::hex;
use crate::error::AppError;
use crate::service::{Caller, Service, for_one_request, set_caller};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a caller, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// The longest path with query, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// The name of a request in the answer, in every log line about it, and in the audit trail.
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new one.
    pub fn random() -> Self {
        Self(hex(&rand::random::<[u8; 16]>()).into())
    }

    /// The caller's `X-Request-Id` if it is short and plain, or else a new one.
    fn of(headers: &HeaderMap) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let given = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        let given = given.filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain));
        given.map_or_else(Self::random, |given| Self(given.into()))
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
    let under_way = request.conn_data::<Rc<Activity>>().map(Activity::begin);
    let id = RequestId::of(request.headers());
    let origin = Origin { client: client(request.request()), request_id: Some(Arc::clone(&id.0)) };
    let mut line = AccessLine::new(&request, &origin);
    set_caller(Caller::Anonymous(origin.client.map(Network::of)));
    request.extensions_mut().insert(origin);
    let secure = is_secure(request.request());
    let is_head = request.method() == Method::HEAD;
    if is_head {
        // Routed as GET (RFC 9110, section 9.1). The connection remembers to leave the body out.
        request.head_mut().method = Method::GET;
    }
    let unread = Incoming::of(&mut request);
    // A connection that offers something else than HTTP/1.1 is never kept by actix-http.
    let offers_upgrade = request.head().upgrade();
    // Handlers, extractors and the guard answer errors as responses; an `Err` here is the framework's own, or a panic.
    let mut response = match next.call(request).await {
        Ok(response) => response.map_into_boxed_body(),
        Err(mut error) => {
            line.failed(&error);
            error.add_response_mapper(move |mut response| {
                finish(response.headers_mut(), &id, secure);
                response.head_mut().set_connection_type(ConnectionType::Close);
                response
            });
            return Err(error);
        }
    };
    if let Some(mut answer) = error_answer(&response, &id).await {
        keep_cors(response.headers(), answer.headers_mut());
        response = response.into_response(answer);
    }
    // While the request is under way: what still arrives of its body is not the next one.
    let ends = is_left_unread(unread, &response).await || offers_upgrade || is_stopping(&response);
    if is_head {
        response = without_stream(response);
    }
    response = weighed(response, under_way, &id);
    finish(response.headers_mut(), &id, secure);
    if ends {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    line.answered(&response);
    Ok(response)
}

/// Counts the bytes of an answer until they are sent, or answers that there are too many; but what has been done is told
/// in any case.
fn weighed(
    response: ServiceResponse<BoxBody>,
    under_way: Option<UnderWay>,
    id: &RequestId,
) -> ServiceResponse<BoxBody> {
    let bytes = in_flight::size(response.response().body());
    let asked = response.request();
    let Some(in_flight) = asked.app_data::<web::Data<InFlight>>().filter(|_| bytes > in_flight::SMALL) else {
        return response;
    };
    let client = asked.extensions().get::<Origin>().and_then(|origin| origin.client);
    let held = if response.response().extensions().contains::<Static>() {
        None
    } else if asked.method() == Method::GET {
        match Arc::clone(in_flight).take(client, bytes) {
            Ok(held) => Some(held),
            Err(fault) => {
                let mut answer = problem::present(&fault, asked, id);
                keep_cors(response.headers(), answer.headers_mut());
                return response.into_response(answer);
            }
        }
    } else {
        Some(Arc::clone(in_flight).hold(client, bytes))
    };
    response.map_body(|_, body| BoxBody::new(Outgoing::new(body, held, under_way)))
}

/// Replaces a streamed body by an empty one: HEAD sends nothing of it, so no slow client would ever stop the stream.
fn without_stream(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    response.map_body(|_, body| match body.size() {
        BodySize::Stream => BoxBody::new(BodyStream::new(stream::empty::<Result<web::Bytes, Infallible>>())),
        _ => body,
    })
}

fn is_stopping(response: &ServiceResponse<BoxBody>) -> bool {
    response.request().app_data::<web::Data<Service>>().is_some_and(|service| service.is_leaving())
}

/// Whether some of the request's body is still to come, so that the connection cannot serve another one.
async fn is_left_unread(body: Option<Incoming>, response: &ServiceResponse<BoxBody>) -> bool {
    match body {
        Some(body) => body.is_long(response.request().head()) || !body.drain().await,
        None => false,
    }
}

/// The innermost middleware, inside CORS: its answers, too, can be read by the pages that may. If a handler panics, its
/// request fails, and no other.
pub async fn contain<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if target_length(&request) > MAX_TARGET {
        return Ok(request.into_response(HttpResponse::UriTooLong().finish()));
    }
    let is_oauth = problem::OAUTH_PATHS.contains(&request.path());
    let origin = request.extensions().get::<Origin>().cloned().unwrap_or_default();
    match AssertUnwindSafe(async { next.call(request).await }).catch_unwind().await {
        Ok(answered) => answered.map(ServiceResponse::map_into_boxed_body),
        Err(_panic) => {
            let id = RequestId(origin.request_id.unwrap_or_default());
            let answer = problem::last_resort(is_oauth, &id);
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
                // Boxed: it is rare, and large, and the future of every request would have room for it.
                Some(service) => Box::pin(service.keep_out(&kept_out.call, route, kept_out.denial.clone())).await,
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
pub fn finish(headers: &mut HeaderMap, id: &RequestId, secure: bool) {
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

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::middleware::from_fn;
    use actix_web::{App, test};

    use super::*;
    use crate::http::access::AccessLog;
    use crate::http::refusals::Samples;
    use crate::metrics::{Durations, Levels, Metrics, TextFormat};

    #[actix_web::test]
    async fn a_handler_that_panics_is_an_internal_error_of_its_request_alone() {
        async fn panics() -> HttpResponse {
            panic!("the password was hunter2")
        }
        let metrics = Arc::new(Metrics::new(&Durations::default(), &Durations::default()));
        let log = AccessLog::new(1, Samples::start(), Some(Arc::clone(&metrics)));
        let app = App::new()
            .wrap(from_fn(contain))
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
        let told = metrics.text(Levels::default(), TextFormat::Prometheus).unwrap();
        assert!(told.contains(r#"_count{method="GET",route="",status="500"} 2"#), "{told}");
        assert!(told.contains(r#"_count{method="GET",route="/fine",status="200"} 1"#), "{told}");
    }

    #[actix_web::test]
    async fn nothing_is_made_for_head_of_a_body_that_is_made_while_it_is_sent() {
        async fn endless() -> HttpResponse {
            HttpResponse::Ok().streaming(stream::repeat(Ok::<_, Infallible>(web::Bytes::from_static(b"line\n"))))
        }
        let app = App::new().wrap(from_fn(contain)).wrap(from_fn(edge)).route("/audit", web::get().to(endless));
        let app = test::init_service(app).await;
        let request = test::TestRequest::default().method(Method::HEAD).uri("/audit").to_request();
        let response = test::call_service(&app, request).await;
        assert_eq!((response.status(), response.response().body().size()), (StatusCode::OK, BodySize::Stream));
        let sent = actix_web::body::to_bytes_limited(response.into_body(), 1024).await;
        assert!(sent.is_ok_and(|sent| sent.unwrap().is_empty()));
    }
}
