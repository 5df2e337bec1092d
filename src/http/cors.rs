//! Cross-origin requests: closed, but for the origins that the settings name.

use actix_cors::Cors;
use actix_web::http::Method;
use actix_web::http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::middleware::Condition;

use crate::config::Origins;

/// Seconds for which a browser need not ask again.
const MAX_AGE: usize = 3_600;

/// The middleware; it does nothing without origins. No cookies are used, so none are allowed.
pub fn cors(origins: &Origins) -> Condition<Cors> {
    let name = HeaderName::from_static;
    let allowed = origins.all().iter().fold(Cors::default(), |cors, origin| cors.allowed_origin(origin));
    let allowed = allowed
        .allowed_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allowed_headers([AUTHORIZATION, CONTENT_TYPE, IF_MATCH])
        .allowed_headers(["token", "idempotency-key", "x-request-id", "x-requested-with"].map(name))
        .expose_headers([ETAG, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE, name("x-request-id")])
        .expose_headers(["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(name))
        .block_on_origin_mismatch(false)
        .max_age(MAX_AGE);
    Condition::new(!origins.all().is_empty(), allowed)
}
