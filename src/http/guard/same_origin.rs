//! Which requests may use the session cookie: those of pages of this server.
//!
//! A browser sends the cookie by itself, also with a request that a page on another port of the same host makes. It
//! states in `Sec-Fetch-Site` where the page is from, and in `Origin` for most requests, and no page can set these
//! headers.

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use actix_web::web;
use url::Url;

use crate::config::HttpSettings;
use crate::http::request::client::is_secure;
use crate::http::wire::error::HttpError;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The origin of `http.public_url`, if it is set.
pub struct PublicOrigin(Option<String>);

impl PublicOrigin {
    /// Reads the settings.
    pub fn new(settings: &HttpSettings) -> Self {
        Self(origin_of(&settings.public_url))
    }
}

/// Whether the request states where it comes from.
pub(crate) fn is_stated(request: &HttpRequest) -> bool {
    [SEC_FETCH_SITE, ORIGIN].iter().any(|name| request.headers().contains_key(name))
}

/// Checks that a page of this server sent the request: by `Sec-Fetch-Site`, and by `Origin` for browsers that do not
/// send it.
///
/// Errors: [`HttpError::CrossSite`], also if the request states nothing.
pub(crate) fn check(request: &HttpRequest) -> Result<(), HttpError> {
    let is_own = match values(request.headers(), &SEC_FETCH_SITE).as_slice() {
        [] => match values(request.headers(), &ORIGIN).as_slice() {
            [origin] => own_origin(request).is_some_and(|own| own.as_bytes() == *origin),
            _ => false,
        },
        values => *values == [b"same-origin"],
    };
    if is_own { Ok(()) } else { Err(HttpError::CrossSite) }
}

fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h [u8]> {
    headers.get_all(name).map(HeaderValue::as_bytes).collect()
}

/// The origin of this server: that of `http.public_url`, otherwise the scheme that the client uses and the host that it
/// asked for.
fn own_origin(request: &HttpRequest) -> Option<String> {
    if let Some(PublicOrigin(Some(origin))) = request.app_data::<web::Data<PublicOrigin>>().map(|origin| &***origin) {
        return Some(origin.clone());
    }
    let scheme = if is_secure(request) { "https" } else { "http" };
    match values(request.headers(), &HOST).as_slice() {
        [host] => origin_of(&format!("{scheme}://{}", std::str::from_utf8(host).ok()?)),
        _ => None,
    }
}

/// The origin of a URL in the form in which browsers write it.
fn origin_of(url: &str) -> Option<String> {
    let origin = Url::parse(url).ok()?.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn is_accepted(public_url: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let mut settings = crate::config::Settings::defaults().unwrap().http;
        settings.public_url = public_url.to_owned();
        let request = TestRequest::default().app_data(web::Data::new(PublicOrigin::new(&settings)));
        let request = headers.iter().fold(request, |request, header| request.append_header(*header));
        check(&request.to_http_request()).is_ok()
    }

    #[test]
    fn only_pages_of_this_server_are_accepted() {
        let host = ("host", "localhost:8080");
        for (headers, expected) in [
            (vec![], false),
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("sec-fetch-site", "")], false),
            (vec![("sec-fetch-site", "Same-Origin")], false),
            (vec![("sec-fetch-site", "same-origin, same-origin")], false),
            (vec![("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], false),
            // The stronger header decides.
            (vec![("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], true),
            (vec![("sec-fetch-site", "cross-site"), ("origin", "http://localhost:8080")], false),
            (vec![("origin", "http://localhost:8080")], true),
            (vec![("origin", "http://localhost:8081")], false),
            (vec![("origin", "http://localhost")], false),
            (vec![("origin", "https://localhost:8080")], false),
            (vec![("origin", "http://localhost:8080.evil.example")], false),
            (vec![("origin", "http://localhost:8080/")], false),
            (vec![("origin", "null")], false),
            (vec![("origin", "")], false),
            (vec![("origin", "http://localhost:8080"), ("origin", "http://localhost:8080")], false),
        ] {
            let headers: Vec<_> = [host].into_iter().chain(headers).collect();
            assert_eq!(is_accepted("", &headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn the_public_url_replaces_the_host_of_the_request() {
        let public = "https://auth.example.com/latchkey";
        for (origin, expected) in [
            ("https://auth.example.com", true),
            ("https://auth.example.com:443", false),
            ("http://auth.example.com", false),
            ("http://localhost:8080", false),
        ] {
            assert_eq!(is_accepted(public, &[("host", "localhost:8080"), ("origin", origin)]), expected, "{origin}");
        }
    }

    #[test]
    fn a_default_port_is_no_part_of_an_origin_and_an_ambiguous_host_has_none() {
        for (hosts, expected) in [
            (vec!["EXAMPLE.com:80"], true),
            (vec!["example.com"], true),
            (vec!["example.com:8080"], false),
            (vec!["example.com", "example.com"], false),
            (vec!["exa mple.com"], false),
            (vec![""], false),
            (vec![], false),
        ] {
            let headers = hosts.iter().map(|host| ("host", *host)).chain([("origin", "http://example.com")]);
            assert_eq!(is_accepted("", &headers.collect::<Vec<_>>()), expected, "{hosts:?}");
        }
    }
}
