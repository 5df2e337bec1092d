//! The guard: resolves the credential in the headers of a request to a `Principal`.
//!
//! It uses the middleware of actix-web-httpauth, but parses the headers itself: `BearerAuth` of httpauth accepts the
//! first of several headers, distinguishes `bearer` from `Bearer`, and does not know the header `Token`.

pub mod permit;
pub mod same_origin;

use std::borrow::Cow;

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use actix_web::{Error, HttpMessage, HttpRequest, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::audit::ClientInfo;
use crate::domain::principal::Principal;
use crate::error::{AppError, CredentialHeader, Reason};
use crate::http::wire::cookie;
use crate::http::wire::error::HttpError;
use crate::http::wire::header::split_scheme;
use crate::service::Service;
use crate::service::identity::authenticate::Purpose;

const TOKEN: HeaderName = HeaderName::from_static("token");
/// Replaces a credential that is not UTF-8. No valid token equals it, so authentication rejects it.
const UNREADABLE: &str = "\u{fffd}";

/// The headers and schemes in which a route accepts a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialSchemes {
    /// `Token`, or `Authorization: Bearer`.
    TokenOrBearer,
    /// Additionally the password of `Authorization: Basic`, where OAuth libraries send the client secret (RFC 6749,
    /// section 2.3.1). The user name is ignored.
    OrBasic,
    /// Additionally the cookie of a browser session, if there is no credential in the headers above. The request must
    /// come from a page of this server.
    OrSession,
}

/// The credential of a request and the header it came from; `None` if the request has no credential.
type PresentedCredential<'h> = Option<(Cow<'h, str>, CredentialHeader)>;

/// Errors: [`HttpError::AmbiguousCredential`] if the headers hold several credentials, or a list.
fn presented_credential(headers: &HeaderMap, schemes: CredentialSchemes) -> Result<PresentedCredential<'_>, HttpError> {
    let token = single_value(headers, &TOKEN)?.filter(|token| !token.is_empty());
    let (scheme, credentials) = split_scheme(single_value(headers, &AUTHORIZATION)?.unwrap_or_default());
    let basic = schemes == CredentialSchemes::OrBasic && scheme.eq_ignore_ascii_case("basic");
    let authorization = (basic || scheme.eq_ignore_ascii_case("bearer")).then_some(credentials);
    // RFC 6750, section 3.1: one credential per request, so a list is an invalid request.
    if [token, authorization].into_iter().flatten().any(|credential| credential.contains(',')) {
        return Err(HttpError::AmbiguousCredential);
    }
    let authorization = authorization
        .map(|credentials| if basic { basic_password(credentials).into() } else { Cow::Borrowed(credentials) });
    match (token, authorization) {
        // Swagger UI sends every credential it has, so the same credential in both headers is accepted.
        (Some(token), Some(other)) if token != other => Err(HttpError::AmbiguousCredential),
        (Some(token), _) => Ok(Some((token.into(), CredentialHeader::Token))),
        (None, Some(other)) => Ok(Some((other, CredentialHeader::Bearer))),
        (None, None) => Ok(None),
    }
}

/// The secret of the session cookie. Errors: several such cookies, or a request that a page of another site may have
/// sent.
fn presented_session(request: &HttpRequest) -> Result<PresentedCredential<'_>, HttpError> {
    let Some(secret) = cookie::session_secret(request.headers())? else {
        return Ok(None);
    };
    same_origin::check(request)?;
    Ok(Some((secret.into(), CredentialHeader::Cookie)))
}

/// The value of a header that must not be repeated.
fn single_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, HttpError> {
    let mut values = headers.get_all(name);
    let value = values.next();
    if values.next().is_some() {
        return Err(HttpError::AmbiguousCredential);
    }
    Ok(value.map(|value| std::str::from_utf8(value.as_bytes()).unwrap_or(UNREADABLE)))
}

/// The password in the credentials of `Basic` (RFC 7617).
fn basic_password(encoded: &str) -> String {
    let pair = STANDARD.decode(encoded).ok().and_then(|pair| String::from_utf8(pair).ok());
    let password = pair.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, password)| password);
    password.unwrap_or(UNREADABLE).to_owned()
}

/// Authenticates a request for `purpose`. `Ok(None)`: the request has no credential.
///
/// Errors: several credentials, an invalid credential, or a database that is unavailable.
pub async fn identify(
    request: &HttpRequest,
    schemes: CredentialSchemes,
    purpose: Purpose,
) -> Result<Option<Principal>, HttpError> {
    let Some(service) = request.app_data::<web::Data<Service>>() else {
        return Err(AppError::Internal("the guard has no service".into()).into());
    };
    let presented = match presented_credential(request.headers(), schemes)? {
        None if schemes == CredentialSchemes::OrSession => presented_session(request)?,
        presented => presented,
    };
    let Some((credential, header)) = presented else {
        return Ok(None);
    };
    let client = request.extensions().get::<ClientInfo>().and_then(|client_info| client_info.client);
    Ok(Some(service.identities().authenticate(&credential, header, client, purpose).await?))
}

/// Middleware of guarded routes: stores the `Principal` of the caller in the request, or rejects the request.
pub async fn guard(request: ServiceRequest, (): ()) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    // The edge has replaced HEAD by GET.
    let purpose = if request.method() == Method::GET { Purpose::Read } else { Purpose::Change };
    let found = identify(request.request(), CredentialSchemes::OrSession, purpose).await;
    admit(request, found.and_then(require_principal))
}

/// Like [`guard`], for a route that also accepts requests without a session, or with a session that has ended. It
/// rejects every request of another site's page, also one without the cookie.
pub async fn session_or_anonymous(request: ServiceRequest, (): ()) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    const ENDED: Reason = Reason::BadCredential(CredentialHeader::Cookie);
    if same_origin::is_stated(request.request())
        && let Err(error) = same_origin::check(request.request())
    {
        return Err((error.into(), request));
    }
    let is_by_cookie = matches!(presented_credential(request.headers(), CredentialSchemes::OrSession), Ok(None));
    let found = match identify(request.request(), CredentialSchemes::OrSession, Purpose::Change).await {
        Err(HttpError::App(AppError::Unauthenticated(ENDED))) => Ok(None),
        // Only rejected credentials reach this limit.
        Err(HttpError::App(AppError::TooMany { .. })) if is_by_cookie => Ok(None),
        found => found,
    };
    admit(request, found)
}

/// Like [`guard`], for routes where OAuth clients authenticate to introspect a token. Introspection is a read.
pub async fn client(request: ServiceRequest, (): ()) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    let found = identify(request.request(), CredentialSchemes::OrBasic, Purpose::Read).await;
    admit(request, found.and_then(require_principal))
}

/// Like [`client`], for routes that do not require a credential: anonymous requests pass, and an invalid credential is
/// rejected.
pub async fn client_or_anonymous(request: ServiceRequest, (): ()) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    let found = identify(request.request(), CredentialSchemes::OrBasic, Purpose::Change).await;
    admit(request, found)
}

fn require_principal(found: Option<Principal>) -> Result<Option<Principal>, HttpError> {
    match found {
        Some(_) => Ok(found),
        None => Err(AppError::Unauthenticated(Reason::Missing).into()),
    }
}

/// Counts for statistics whether a request was allowed, or refused for its credential. Other errors are not counted.
pub fn count_decision(service: &Service, error: Option<&HttpError>) {
    match error {
        None => service.count_decision(true),
        Some(
            HttpError::AccessDenied(_)
            | HttpError::AmbiguousCredential
            | HttpError::CrossSite
            | HttpError::App(AppError::Unauthenticated(_) | AppError::Forbidden(_) | AppError::TooMany { .. }),
        ) => service.count_decision(false),
        Some(_) => {}
    }
}

fn admit(
    request: ServiceRequest,
    found: Result<Option<Principal>, HttpError>,
) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    match found {
        Ok(principal) => {
            if let Some(principal) = principal {
                request.extensions_mut().insert(principal);
            }
            Ok(request)
        }
        Err(error) => {
            // `Permit` counts the requests that pass.
            if let Some(service) = request.app_data::<web::Data<Service>>() {
                count_decision(service, Some(&error));
            }
            Err((error.into(), request))
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::http::wire::arbitrary::header_value;

    fn value() -> impl Strategy<Value = HeaderValue> {
        let credential =
            "((bearer|Bearer|BEARER|Basic|Digest)( {0,2}))?(secret|other|QTpzZWNyZXQ=|QTphLGI=|secret, other|)";
        prop_oneof![
            4 => credential.prop_map(|text| HeaderValue::from_str(&text).unwrap()),
            1 => header_value(b" ,Bearsict:="),
        ]
    }

    fn headers() -> impl Strategy<Value = HeaderMap> {
        let name = prop::sample::select(vec![TOKEN, AUTHORIZATION]);
        prop::collection::vec((name, value()), 0..4).prop_map(|headers| {
            headers.into_iter().fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
        })
    }

    fn first(headers: &HeaderMap, name: HeaderName) -> Option<String> {
        let bytes = headers.get(name)?.as_bytes();
        Some(String::from_utf8(bytes.to_vec()).unwrap_or(UNREADABLE.to_owned()))
    }

    /// The credentials in `Authorization`, if the header has this scheme.
    fn credentials_of(scheme: &str, headers: &HeaderMap) -> Option<String> {
        let text = first(headers, AUTHORIZATION)?;
        let (given, rest) = text.split_once(' ').unwrap_or((&text, ""));
        given.eq_ignore_ascii_case(scheme).then(|| rest.trim_matches([' ', '\t']).to_owned())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn a_request_has_one_credential_or_none_or_is_rejected(headers in headers(), accepts_basic in any::<bool>()) {
            let schemes = if accepts_basic { CredentialSchemes::OrBasic } else { CredentialSchemes::TokenOrBearer };
            let token = first(&headers, TOKEN).filter(|token| !token.is_empty());
            let bearer = credentials_of("bearer", &headers);
            let encoded = credentials_of("basic", &headers).filter(|_| accepts_basic);
            let basic = encoded.as_deref().map(|encoded| match encoded {
                "QTpzZWNyZXQ=" => "secret".to_owned(),
                "QTphLGI=" => "a,b".to_owned(),
                _ => UNREADABLE.to_owned(),
            });
            let given: Vec<&String> = [&token, &bearer, &basic].into_iter().flatten().collect();
            let repeated = [TOKEN, AUTHORIZATION].iter().any(|name| headers.get_all(name).count() > 1);
            match presented_credential(&headers, schemes) {
                Ok(Some((credential, header))) => {
                    prop_assert!(!repeated && !given.is_empty());
                    prop_assert!(given.iter().all(|one| **one == *credential), "{:?}", given);
                    prop_assert_eq!(header == CredentialHeader::Token, token.is_some());
                    prop_assert!(basic.is_some() || !credential.contains(','));
                }
                Ok(None) => prop_assert!(!repeated && given.is_empty()),
                Err(HttpError::AmbiguousCredential) => {
                    let differ = given.windows(2).any(|pair| pair[0] != pair[1]);
                    let is_list = [&token, &bearer, &encoded].into_iter().flatten().any(|one| one.contains(','));
                    prop_assert!(repeated || differ || is_list);
                }
                Err(error) => prop_assert!(false, "{:?}", error),
            }
        }
    }
}
