//! The guard: headers → credential → `Principal`.
//!
//! It is actix-web-httpauth's middleware with an eye of our own for headers, because httpauth's `BearerAuth` takes the
//! first of several, tells `bearer` from `Bearer`, and does not know `Token`.

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use actix_web::{Error, HttpMessage, web};

use super::problem::Fault;
use crate::domain::audit::Origin;
use crate::error::{AppError, Carrier, Reason};
use crate::service::Service;

const TOKEN: HeaderName = HeaderName::from_static("token");

/// The one credential of a request, if it has one.
type Presented<'h> = Option<(&'h str, Carrier)>;

fn presented(headers: &HeaderMap) -> Result<Presented<'_>, Fault> {
    let token = only(headers, &TOKEN)?.filter(|token| !token.is_empty());
    let bearer = only(headers, &AUTHORIZATION)?.and_then(bearer);
    // Neither may be a list (RFC 6750, section 3.1).
    if [&token, &bearer].into_iter().flatten().any(|credential| credential.contains(',')) {
        return Err(Fault::AmbiguousCredential);
    }
    match (token, bearer) {
        // Swagger UI sends every credential it has been given, so the same one twice is one.
        (Some(token), Some(bearer)) if token != bearer => Err(Fault::AmbiguousCredential),
        (Some(token), _) => Ok(Some((token, Carrier::Token))),
        (None, Some(bearer)) => Ok(Some((bearer, Carrier::Bearer))),
        (None, None) => Ok(None),
    }
}

/// The value of a header that may stand once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Fault> {
    let mut values = headers.get_all(name);
    let value = values.next();
    if values.next().is_some() {
        return Err(Fault::AmbiguousCredential);
    }
    // What is not text is no token of ours, and U+FFFD is none either.
    Ok(value.map(|value| std::str::from_utf8(value.as_bytes()).unwrap_or("\u{fffd}")))
}

/// What follows `Bearer`, in any case (RFC 9110, section 11.1). Other schemes are somebody else's.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Lets a request pass with its caller's `Principal`, or answers for it.
pub async fn guard(request: ServiceRequest, (): ()) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    let Some(service) = request.app_data::<web::Data<Service>>() else {
        return Err((Fault::App(AppError::Internal("the guard has no service".into())).into(), request));
    };
    let answer = match presented(request.headers()) {
        Ok(Some((credential, carrier))) => {
            let client = request.extensions().get::<Origin>().and_then(|origin| origin.client);
            let authenticated = service.authenticate(credential, carrier, client).await;
            authenticated.map_err(Fault::App)
        }
        Ok(None) => Err(Fault::App(AppError::Unauthenticated(Reason::Missing))),
        Err(fault) => Err(fault),
    };
    match answer {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            Ok(request)
        }
        Err(fault) => Err((fault.into(), request)),
    }
}
