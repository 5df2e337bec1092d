//! The guard: headers → credential → `Principal`.
//!
//! It is actix-web-httpauth's middleware around an extractor of our own, because httpauth's `BearerAuth` takes the
//! first of several headers, tells `bearer` from `Bearer`, and does not know `Token`.

use std::future::{Ready, ready};

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, web};

use super::principal::client;
use super::problem::Fault;
use crate::error::{AppError, Carrier, Reason};
use crate::service::Service;

const TOKEN: HeaderName = HeaderName::from_static("token");

/// The one credential of a request, if it has one.
pub struct Presented(Option<(String, Carrier)>);

impl Presented {
    fn read(headers: &HeaderMap) -> Result<Self, Fault> {
        let token = only(headers, &TOKEN)?.filter(|token| !token.is_empty());
        let bearer = only(headers, &AUTHORIZATION)?.and_then(|value| bearer(&value).map(str::to_owned));
        // Neither may be a list (RFC 6750, section 3.1).
        if [&token, &bearer].into_iter().flatten().any(|credential| credential.contains(',')) {
            return Err(Fault::AmbiguousCredential);
        }
        match (token, bearer) {
            // Swagger UI sends every credential it has been given, so the same one twice is one.
            (Some(token), Some(bearer)) if token != bearer => Err(Fault::AmbiguousCredential),
            (Some(token), _) => Ok(Self(Some((token, Carrier::Token)))),
            (None, Some(bearer)) => Ok(Self(Some((bearer, Carrier::Bearer)))),
            (None, None) => Ok(Self(None)),
        }
    }
}

impl FromRequest for Presented {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::read(request.headers()))
    }
}

/// The value of a header that may stand once.
fn only(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Fault> {
    let mut values = headers.get_all(name);
    let value = values.next();
    if values.next().is_some() {
        return Err(Fault::AmbiguousCredential);
    }
    // Bytes beyond ASCII become U+FFFD, which no token contains.
    Ok(value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()))
}

/// What follows `Bearer`, in any case (RFC 9110, section 11.1). Other schemes are somebody else's.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Lets a request pass with its caller's `Principal`, or answers for it.
pub async fn guard(request: ServiceRequest, presented: Presented) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    let Presented(Some((credential, carrier))) = presented else {
        return refuse(request, AppError::Unauthenticated(Reason::Missing));
    };
    let Some(service) = request.app_data::<web::Data<Service>>().cloned() else {
        return refuse(request, AppError::Internal("the guard has no service".into()));
    };
    match service.authenticate(&credential, carrier, client(request.request())).await {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            Ok(request)
        }
        Err(error) => refuse(request, error),
    }
}

fn refuse(request: ServiceRequest, error: AppError) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    Err((Fault::App(error).into(), request))
}
