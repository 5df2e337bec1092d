//! The original request, about which a reverse proxy asks, read from the headers that proxies set.

use actix_web::HttpRequest;
use actix_web::http::header::HeaderName;

use crate::domain::forward::{Host, Method, OriginalRequest, TargetPath};
use crate::error::Denial;
use crate::http::request::client::is_from_trusted_proxy;

// Traefik and Caddy set the first header of each list; nginx and HAProxy conventionally set the second one.
static METHOD: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-method"), HeaderName::from_static("x-original-method")];
static TARGET: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-uri"), HeaderName::from_static("x-original-uri")];
static HOST: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-host"), HeaderName::from_static("x-original-host")];
/// Host and target in one header.
static URL: [HeaderName; 1] = [HeaderName::from_static("x-original-url")];

/// Reads the original request.
///
/// A proxy sets some of these headers and can forward others from its client. So all headers that are present must
/// agree: a client that adds one can only get a denial.
///
/// Errors: [`Denial::MissingOriginalRequest`] if the request is not from a trusted proxy, or has no method or path;
/// [`Denial::Ambiguous`] if a header is malformed or two headers disagree.
pub fn original(request: &HttpRequest) -> Result<OriginalRequest, Denial> {
    if !is_from_trusted_proxy(request) {
        return Err(Denial::MissingOriginalRequest);
    }
    let urls = values(request, &URL).map(|url| url.and_then(split_url).ok_or(Denial::Ambiguous));
    let urls = urls.collect::<Result<Vec<_>, _>>()?;
    let methods = values(request, &METHOD).map(|text| text.and_then(Method::read));
    let targets = values(request, &TARGET).chain(urls.iter().map(|(_, target)| Some(*target)));
    let hosts = values(request, &HOST).chain(urls.iter().map(|(host, _)| Some(*host)));
    Ok(OriginalRequest {
        method: agreed(methods)?.ok_or(Denial::MissingOriginalRequest)?,
        host: agreed(hosts.map(|text| text.and_then(Host::read)))?,
        path: agreed(targets.map(|text| text.and_then(TargetPath::read)))?.ok_or(Denial::MissingOriginalRequest)?,
    })
}

/// The values of these headers; `None` for each that is not visible ASCII.
fn values<'r>(request: &'r HttpRequest, names: &'static [HeaderName]) -> impl Iterator<Item = Option<&'r str>> {
    names.iter().flat_map(|name| request.headers().get_all(name)).map(|value| value.to_str().ok())
}

/// Host and target of a URL with the scheme `http` or `https`, in any case.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let (scheme, remainder) = url.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    remainder.split_at_checked(remainder.find('/')?).filter(|_| is_http)
}

/// The value on which all headers agree; `None` if there are no headers.
fn agreed<T: PartialEq>(candidates: impl Iterator<Item = Option<T>>) -> Result<Option<T>, Denial> {
    let mut agreed = None;
    for value in candidates {
        let value = value.ok_or(Denial::Ambiguous)?;
        if agreed.as_ref().is_some_and(|other| *other != value) {
            return Err(Denial::Ambiguous);
        }
        agreed = Some(value);
    }
    Ok(agreed)
}
