//! The cookie of a browser session.

use actix_web::http::header::{COOKIE, HeaderMap};

use crate::domain::secret::Secret;
use crate::http::wire::error::HttpError;
use crate::http::wire::header::trimmed;

/// The name of the cookie. Browsers accept this prefix only with `Secure`, with `Path=/` and without `Domain`, so no
/// other host can set the cookie (RFC 6265bis, section 4.1.3.2).
pub(crate) const SESSION_COOKIE: &str = "__Host-latchkey";
/// The cookie is sent over TLS only, hidden from scripts, and not sent with requests of pages of other sites.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

/// The value of the session cookie of a request; `None` if it is absent or empty. Text that is not visible ASCII is an
/// invalid secret.
///
/// Errors: [`HttpError::AmbiguousCredential`] if the request has several of these cookies.
pub(crate) fn session_secret(headers: &HeaderMap) -> Result<Option<&str>, HttpError> {
    let mut found = None;
    for header in headers.get_all(COOKIE) {
        for pair in header.as_bytes().split(|byte| *byte == b';') {
            let Some(at) = pair.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            let (name, value) = pair.split_at(at);
            if name.trim_ascii() != SESSION_COOKIE.as_bytes() {
                continue;
            }
            if found.is_some() {
                return Err(HttpError::AmbiguousCredential);
            }
            found = Some(std::str::from_utf8(value.get(1..).unwrap_or_default()).unwrap_or("\u{fffd}"));
        }
    }
    Ok(found.map(trimmed).filter(|value| !value.is_empty()))
}

/// The cookie with this secret, until the browser is closed.
pub(crate) fn with_secret(secret: Secret) -> String {
    format!("{SESSION_COOKIE}={}; {ATTRIBUTES}", secret.reveal())
}

/// The cookie that makes a browser remove it.
pub(crate) fn removed() -> String {
    format!("{SESSION_COOKIE}=; {ATTRIBUTES}; Max-Age=0")
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::http::wire::arbitrary::header_value;

    fn read(values: &[HeaderValue]) -> Option<Option<String>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(COOKIE, value.clone());
        }
        session_secret(&headers).ok().map(|found| found.map(str::to_owned))
    }

    #[test]
    fn the_cookie_is_found_among_others_and_a_second_one_is_rejected() {
        let found = |text: &str| Some(Some(text.to_owned()));
        for (values, expected) in [
            (vec![], Some(None)),
            (vec![""], Some(None)),
            (vec!["__Host-latchkey"], Some(None)),
            (vec!["__Host-latchkey="], Some(None)),
            (vec!["__Host-latchkey=a"], found("a")),
            (vec!["x=1; __Host-latchkey=a; y=2"], found("a")),
            (vec!["x=1;__Host-latchkey=a=b;y"], found("a=b")),
            (vec!["x=1", "__Host-latchkey=a"], found("a")),
            (vec!["__host-latchkey=a; latchkey=b; x__Host-latchkey=c"], Some(None)),
            (vec!["__Host-latchkey=\"a\""], found("\"a\"")),
            (vec!["__Host-latchkey=a; __Host-latchkey=a"], None),
            (vec!["__Host-latchkey=a; __Host-latchkey="], None),
            (vec!["__Host-latchkey=a", "__Host-latchkey=b"], None),
        ] {
            let headers: Vec<_> = values.iter().map(|value| HeaderValue::from_static(value)).collect();
            assert_eq!(read(&headers), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reading_fail_otherwise(values in prop::collection::vec(header_value(b"=; _Host-latchkey"), 0..3)) {
            if let Some(Some(found)) = read(&values) {
                prop_assert!(!found.is_empty() && !found.contains(';'));
            }
        }
    }
}
