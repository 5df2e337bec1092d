//! Cross-origin requests (CORS): only web pages of the origins in `http.cors_origins` can read responses.

use actix_cors::Cors;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ETAG, HeaderMap, HeaderName, LOCATION, ORIGIN,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::middleware::{Condition, Next};
use actix_web::{Error, web};

use crate::config::Origins;
use crate::http::wire::allowed_methods::ANY_METHOD_PATH;
use crate::http::wire::error::HttpError;

/// How long browsers cache the result of a preflight request, in seconds.
const MAX_AGE: usize = 3_600;
/// The methods that pages of other origins may use.
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// The request headers that pages of other origins may send. The last five are those that HTTP clients and tracing
/// libraries add on their own. Latchkey ignores them.
const REQUEST_HEADERS: [&str; 11] = [
    "authorization",
    "content-type",
    "idempotency-key",
    "if-match",
    "token",
    "x-request-id",
    "baggage",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "x-requested-with",
];
/// The longest part of a value of the caller in a message, in bytes before it is escaped.
const MAX_SHOWN: usize = 128;

/// The CORS middleware; it is inactive without origins. Credentials are not allowed: the session cookie is for pages of
/// this server only.
pub fn cors(origins: &Origins) -> Condition<Cors> {
    let name = HeaderName::from_static;
    let allowed = origins.all().iter().fold(Cors::default(), |cors, origin| cors.allowed_origin(origin));
    let allowed = allowed
        .allowed_methods(METHODS)
        .allowed_headers(REQUEST_HEADERS.map(name))
        .expose_headers([ETAG, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE, name("x-request-id")])
        .expose_headers(["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(name))
        .block_on_origin_mismatch(false)
        .max_age(MAX_AGE);
    Condition::new(!origins.all().is_empty(), allowed)
}

/// Rejects a preflight request that [`cors`] would reject, with the reason. Without origins it rejects all of them. At
/// [`ANY_METHOD_PATH`] a proxy may ask about a preflight request to another service: its rules decide, as for every
/// other request.
pub async fn explain_rejected_preflight<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let origins = request.app_data::<web::Data<Origins>>().map_or(&[][..], |origins| origins.all());
    if request.path() == ANY_METHOD_PATH {
        // Without it, the middleware of `cors` does not answer the request.
        request.headers_mut().remove(ACCESS_CONTROL_REQUEST_METHOD);
    } else if request.method() == Method::OPTIONS
        && let Some(rejection) = rejection(request.headers(), origins)
    {
        return Ok(request.error_response(rejection));
    }
    next.call(request).await.map(ServiceResponse::map_into_boxed_body)
}

/// Why pages of another origin may not send the request that these headers of a preflight request announce. `None` if
/// they may, or if the request is not a preflight request.
fn rejection(headers: &HeaderMap, origins: &[String]) -> Option<HttpError> {
    let origin = headers.get(ORIGIN)?;
    let method: Method = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()?.parse().ok()?;
    let rejected = |code, detail| Some(HttpError::RejectedPreflight { code, detail });
    if !origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
        let detail = format!(
            "The setting http.cors_origins does not list the origin {}. Add it there to allow its web pages to call \
             the API.",
            shown(origin.as_bytes())
        );
        return rejected("cors_origin", detail);
    }
    if !METHODS.contains(&method) {
        let allowed = METHODS.map(|method| method.to_string()).join(", ");
        let method = shown(method.as_str().as_bytes());
        let detail = format!("Web pages of other origins cannot use the method {method}. They can use: {allowed}.");
        return rejected("cors_method", detail);
    }
    // Without this header, the request has only headers that need no permission.
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_HEADERS)?.as_bytes();
    let is_allowed = |name: &[u8]| REQUEST_HEADERS.iter().any(|allowed| name.eq_ignore_ascii_case(allowed.as_bytes()));
    let refused = wanted.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).find(|name| !is_allowed(name))?;
    let allowed = REQUEST_HEADERS.join(", ");
    let detail = format!(
        "Web pages of other origins cannot send the request header {}. They can send: {allowed}.",
        shown(refused)
    );
    rejected("cors_header", detail)
}

/// A value of the caller as bounded, printable ASCII.
fn shown(value: &[u8]) -> String {
    let (kept, ellipsis) = match value.get(..MAX_SHOWN) {
        Some(kept) if value.len() > MAX_SHOWN => (kept, "..."),
        _ => (value, ""),
    };
    format!("\"{}{ellipsis}\"", kept.escape_ascii())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, HttpResponse};
    use proptest::prelude::*;

    use super::*;
    use crate::http::wire::arbitrary::header_value;

    fn values_of(name: HeaderName) -> impl Strategy<Value = Option<(HeaderName, HeaderValue)>> {
        let known = [
            "https://app.example.com",
            "https://evil.example",
            "null",
            "POST",
            "PATCH",
            "TRACE",
            "post",
            "",
            "token",
            "Authorization,content-type",
            "traceparent, tracestate ,baggage",
            "sentry-trace,x-evil",
            "token,",
        ];
        let value = prop_oneof![
            8 => prop::sample::select(known.to_vec()).prop_map(HeaderValue::from_static),
            1 => header_value(b" ,PATCHtoken-"),
        ];
        prop::option::weighted(0.9, value.prop_map(move |value| (name.clone(), value)))
    }

    proptest! {
        #[test]
        fn the_preflight_requests_that_actix_cors_rejects_are_those_that_are_explained(
            headers in (
                values_of(ORIGIN), values_of(ACCESS_CONTROL_REQUEST_METHOD), values_of(ACCESS_CONTROL_REQUEST_HEADERS),
            ),
        ) {
            let origins = Origins::try_from(vec!["https://app.example.com".to_owned()]).unwrap();
            let (origin, method, names) = headers;
            let has_origin = origin.is_some();
            let mut request = TestRequest::default().method(Method::OPTIONS);
            for header in [origin, method, names].into_iter().flatten() {
                request = request.insert_header(header);
            }
            let request = request.to_request();
            let explained = rejection(&request.head().headers, origins.all()).is_some();
            let rejected = actix_web::rt::System::new().block_on(async move {
                let app = App::new().wrap(cors(&origins)).default_service(web::to(HttpResponse::NoContent));
                call_service(&init_service(app).await, request).await.status().is_client_error()
            });
            // A request without an origin does not come from a web page.
            prop_assert_eq!(explained, rejected && has_origin);
        }
    }

    #[actix_web::test]
    async fn a_preflight_request_about_another_service_reaches_forward_auth_if_cors_is_off() {
        let app = App::new()
            .app_data(web::Data::new(Origins::default()))
            .wrap(from_fn(explain_rejected_preflight))
            .default_service(web::to(HttpResponse::NoContent));
        let app = init_service(app).await;
        for (path, is_rejected) in [(ANY_METHOD_PATH, false), ("/me", true), ("/nowhere", true)] {
            let request = TestRequest::default().method(Method::OPTIONS).uri(path);
            let request = request.insert_header((ORIGIN, "https://app.example.com"));
            let request = request.insert_header((ACCESS_CONTROL_REQUEST_METHOD, "POST")).to_request();
            let response = call_service(&app, request).await;
            assert_eq!(response.response().error().is_some(), is_rejected, "{path}");
        }
    }

    #[test]
    fn a_shown_value_is_bounded_and_printable() {
        assert_eq!(shown(b"https://app.example.com"), "\"https://app.example.com\"");
        assert_eq!(shown("a\n\"\u{1b}[31m\u{e9}".as_bytes()), r#""a\n\"\x1b[31m\xc3\xa9""#);
        assert_eq!(shown(&[b'a'; 128]), format!("\"{}\"", "a".repeat(128)));
        let long = shown(&[b'a'; 129]);
        assert!(long.len() == 128 + 5 && long.ends_with("a...\""), "{long}");
    }
}
