//! The request that a proxy holds back while it asks about it, from the headers in which proxies tell of it.

use actix_web::HttpRequest;
use actix_web::http::header::HeaderName;

use super::client::is_from_trusted_proxy;
use crate::domain::forward::{Host, Method, Original, TargetPath};
use crate::error::Denial;

// The first of each are those of Traefik and Caddy, the others those of nginx and HAProxy by custom.
static METHOD: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-method"), HeaderName::from_static("x-original-method")];
static TARGET: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-uri"), HeaderName::from_static("x-original-uri")];
static HOST: [HeaderName; 2] =
    [HeaderName::from_static("x-forwarded-host"), HeaderName::from_static("x-original-host")];
/// Host and target in one.
static URL: [HeaderName; 1] = [HeaderName::from_static("x-original-url")];

/// What the proxy says.
///
/// A proxy sets some of these headers and may pass others on from its client. So all that are there must agree: a client
/// who adds one reaches nothing but a refusal.
///
/// Errors: [`Denial::Untold`] without a word from a trusted proxy; [`Denial::Ambiguous`].
pub fn original(request: &HttpRequest) -> Result<Original, Denial> {
    if !is_from_trusted_proxy(request) {
        return Err(Denial::Untold);
    }
    let urls = values(request, &URL).map(|url| url.and_then(split_url).ok_or(Denial::Ambiguous));
    let urls = urls.collect::<Result<Vec<_>, _>>()?;
    let methods = values(request, &METHOD).map(|text| text.and_then(Method::read));
    let targets = values(request, &TARGET).chain(urls.iter().map(|(_, target)| Some(*target)));
    let hosts = values(request, &HOST).chain(urls.iter().map(|(host, _)| Some(*host)));
    Ok(Original {
        method: agreed(methods)?.ok_or(Denial::Untold)?,
        host: agreed(hosts.map(|text| text.and_then(Host::read)))?,
        path: agreed(targets.map(|text| text.and_then(TargetPath::read)))?.ok_or(Denial::Untold)?,
    })
}

/// The values of these headers; `None` for one that is no text.
fn values<'r>(request: &'r HttpRequest, names: &'static [HeaderName]) -> impl Iterator<Item = Option<&'r str>> {
    names.iter().flat_map(|name| request.headers().get_all(name)).map(|value| value.to_str().ok())
}

/// Host and target of an address. Its scheme stands in any case.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    rest.split_at_checked(rest.find('/')?).filter(|_| is_http)
}

/// What all say, if anybody says anything.
fn agreed<T: PartialEq>(told: impl Iterator<Item = Option<T>>) -> Result<Option<T>, Denial> {
    let mut agreed = None;
    for one in told {
        let one = one.ok_or(Denial::Ambiguous)?;
        if agreed.as_ref().is_some_and(|other| *other != one) {
            return Err(Denial::Ambiguous);
        }
        agreed = Some(one);
    }
    Ok(agreed)
}
