//! The guard: headers → credential → `Principal`.
//!
//! It is actix-web-httpauth's middleware with an eye of our own for headers, because httpauth's `BearerAuth` takes the
//! first of several, tells `bearer` from `Bearer`, and does not know `Token`.

use std::borrow::Cow;

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use actix_web::{Error, HttpMessage, HttpRequest, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::header::trimmed;
use super::problem::Fault;
use crate::domain::audit::Origin;
use crate::domain::principal::Principal;
use crate::error::{AppError, Carrier, Reason};
use crate::service::Service;
use crate::service::auth::Purpose;

const TOKEN: HeaderName = HeaderName::from_static("token");
/// What is no text is no token of ours, and this is none either.
const UNREADABLE: &str = "\u{fffd}";

/// Where a credential may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    /// `Token`, or `Authorization: Bearer`.
    TokenOrBearer,
    /// Or the password of `Authorization: Basic`, as OAuth libraries send what they call a client secret (RFC 6749,
    /// section 2.3.1). The user name may be any.
    OrBasic,
}

/// The one credential of a request, if it has one.
type Presented<'h> = Option<(Cow<'h, str>, Carrier)>;

fn presented(headers: &HeaderMap, schemes: Schemes) -> Result<Presented<'_>, Fault> {
    let token = only(headers, &TOKEN)?.filter(|token| !token.is_empty());
    let (scheme, rest) = split(only(headers, &AUTHORIZATION)?.unwrap_or_default());
    let basic = schemes == Schemes::OrBasic && scheme.eq_ignore_ascii_case("basic");
    let authorization = (basic || scheme.eq_ignore_ascii_case("bearer")).then_some(rest);
    // Neither may be a list (RFC 6750, section 3.1).
    if [token, authorization].into_iter().flatten().any(|credential| credential.contains(',')) {
        return Err(Fault::AmbiguousCredential);
    }
    let authorization = authorization.map(|rest| if basic { password(rest).into() } else { Cow::Borrowed(rest) });
    match (token, authorization) {
        // Swagger UI sends every credential it has been given, so the same one twice is one.
        (Some(token), Some(other)) if token != other => Err(Fault::AmbiguousCredential),
        (Some(token), _) => Ok(Some((token.into(), Carrier::Token))),
        (None, Some(other)) => Ok(Some((other, Carrier::Bearer))),
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
    Ok(value.map(|value| std::str::from_utf8(value.as_bytes()).unwrap_or(UNREADABLE)))
}

/// A scheme, which stands in any case (RFC 9110, section 11.1), and what follows it.
fn split(authorization: &str) -> (&str, &str) {
    let (scheme, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
    (scheme, trimmed(rest))
}

/// The password of `Basic` (RFC 7617).
fn password(encoded: &str) -> String {
    let pair = STANDARD.decode(encoded).ok().and_then(|pair| String::from_utf8(pair).ok());
    let password = pair.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, password)| password);
    password.unwrap_or(UNREADABLE).to_owned()
}

/// Whether a caller authenticates by `Basic`.
pub fn is_basic(headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| split(value).0.eq_ignore_ascii_case("basic"))
}

/// Whoever sent a request for this purpose; `None` if it has no credential.
pub async fn identify(request: &HttpRequest, schemes: Schemes, purpose: Purpose) -> Result<Option<Principal>, Fault> {
    let Some(service) = request.app_data::<web::Data<Service>>() else {
        return Err(AppError::Internal("the guard has no service".into()).into());
    };
    let Some((credential, carrier)) = presented(request.headers(), schemes)? else {
        return Ok(None);
    };
    let client = request.extensions().get::<Origin>().and_then(|origin| origin.client);
    Ok(Some(service.authenticate(&credential, carrier, client, purpose).await?))
}

/// Lets a request pass with its caller's `Principal`, or answers for it.
pub async fn guard(request: ServiceRequest, (): ()) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    // HEAD has become GET at the edge.
    let purpose = if request.method() == Method::GET { Purpose::Read } else { Purpose::Change };
    let found = identify(request.request(), Schemes::TokenOrBearer, purpose).await;
    admit(request, found.and_then(known))
}

/// The same where OAuth clients authenticate to ask about a token, which is a read.
pub async fn client(request: ServiceRequest, (): ()) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    let found = identify(request.request(), Schemes::OrBasic, Purpose::Read).await;
    admit(request, found.and_then(known))
}

/// The same where they need not: strangers pass, and whoever shows a credential must show a good one.
pub async fn client_or_stranger(request: ServiceRequest, (): ()) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    let found = identify(request.request(), Schemes::OrBasic, Purpose::Change).await;
    admit(request, found)
}

fn known(found: Option<Principal>) -> Result<Option<Principal>, Fault> {
    match found {
        Some(_) => Ok(found),
        None => Err(AppError::Unauthenticated(Reason::Missing).into()),
    }
}

fn admit(
    request: ServiceRequest,
    found: Result<Option<Principal>, Fault>,
) -> Result<ServiceRequest, (Error, ServiceRequest)> {
    match found {
        Ok(principal) => {
            if let Some(principal) = principal {
                request.extensions_mut().insert(principal);
            }
            Ok(request)
        }
        Err(fault) => Err((fault.into(), request)),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::super::arbitrary::header_value;
    use super::*;

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

    /// What follows the scheme, if the header is there and has it.
    fn after(scheme: &str, headers: &HeaderMap) -> Option<String> {
        let text = first(headers, AUTHORIZATION)?;
        let (given, rest) = text.split_once(' ').unwrap_or((&text, ""));
        given.eq_ignore_ascii_case(scheme).then(|| rest.trim_matches([' ', '\t']).to_owned())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn a_request_has_one_credential_or_none_or_is_refused(headers in headers(), takes_basic in any::<bool>()) {
            let schemes = if takes_basic { Schemes::OrBasic } else { Schemes::TokenOrBearer };
            let token = first(&headers, TOKEN).filter(|token| !token.is_empty());
            let bearer = after("bearer", &headers);
            let encoded = after("basic", &headers).filter(|_| takes_basic);
            let basic = encoded.as_deref().map(|encoded| match encoded {
                "QTpzZWNyZXQ=" => "secret".to_owned(),
                "QTphLGI=" => "a,b".to_owned(),
                _ => UNREADABLE.to_owned(),
            });
            let given: Vec<&String> = [&token, &bearer, &basic].into_iter().flatten().collect();
            let repeated = [TOKEN, AUTHORIZATION].iter().any(|name| headers.get_all(name).count() > 1);
            match presented(&headers, schemes) {
                Ok(Some((credential, carrier))) => {
                    prop_assert!(!repeated && !given.is_empty());
                    prop_assert!(given.iter().all(|one| **one == *credential), "{:?}", given);
                    prop_assert_eq!(carrier == Carrier::Token, token.is_some());
                    prop_assert!(basic.is_some() || !credential.contains(','));
                }
                Ok(None) => prop_assert!(!repeated && given.is_empty()),
                Err(Fault::AmbiguousCredential) => {
                    let differ = given.windows(2).any(|pair| pair[0] != pair[1]);
                    let is_list = [&token, &bearer, &encoded].into_iter().flatten().any(|one| one.contains(','));
                    prop_assert!(repeated || differ || is_list);
                }
                Err(fault) => prop_assert!(false, "{:?}", fault),
            }
        }
    }
}
