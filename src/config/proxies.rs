//! Trusted proxies, allowed origins and the public URL.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::choice::choice;

/// A list of IP addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>")]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether the address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<String>> for Networks {
    type Error = String;

    fn try_from(list: Vec<String>) -> Result<Self, String> {
        let network = |(at, text): (usize, String)| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse().or_else(|_| address()).map(canonical).map_err(|_neither| {
                format!(
                    "Entry {} is neither an address nor a network. Write, for example, 10.0.0.7, 10.0.0.0/8 or \
                     2001:db8::/32.",
                    at + 1
                )
            })
        };
        list.into_iter().enumerate().map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// Converts an IPv4-mapped IPv6 network (RFC 4291, section 2.5.5.2) to the IPv4 network, because clients are compared
/// by their IPv4 addresses.
fn canonical(network: IpNet) -> IpNet {
    let mapped = |length: u8| length.checked_sub(96);
    match (network.addr().to_canonical(), mapped(network.prefix_len())) {
        (address @ IpAddr::V4(_), Some(length)) if matches!(network, IpNet::V6(_)) => {
            IpNet::new(address, length).unwrap_or(network)
        }
        _ => network,
    }
}

choice! {
    /// The header in which trusted proxies report the client.
    pub enum ClientHeader {
        /// `X-Forwarded-For`, with `X-Forwarded-Proto`.
        XForwardedFor = "x-forwarded-for",
        /// `Forwarded` (RFC 7239).
        Forwarded = "forwarded",
    }
}

/// A list of origins of web pages, as browsers send them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>")]
pub struct Origins(Vec<String>);

impl Origins {
    /// All origins.
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Origins {
    type Error = String;

    fn try_from(list: Vec<String>) -> Result<Self, String> {
        let checked = |(at, text): (usize, String)| {
            origin(&text).map_err(|reason| format!("Entry {}: {reason}", at + 1)).map(|()| text)
        };
        list.into_iter().enumerate().map(checked).collect::<Result<_, _>>().map(Self)
    }
}

/// Checks that `text` is an origin exactly as browsers send it.
fn origin(text: &str) -> Result<(), String> {
    if text.contains('*') {
        return Err("Patterns are not supported. Name each origin, such as https://app.example.com.".to_owned());
    }
    let url = url::Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && has_only_host_and_path(url));
    let Some(url) = url.filter(has_plain_host) else {
        return Err("This is not an origin. Write scheme and host, such as https://app.example.com.".to_owned());
    };
    match url.origin().ascii_serialization() {
        exact if exact == text => Ok(()),
        exact => Err(format!("Browsers send this origin as {exact}. Write it in this form, without a path.")),
    }
}

/// Checks `http.public_url`. Errors name the setting.
pub(super) fn check_public_url(text: &str) -> Result<(), ConfigError> {
    check_url("http.public_url", text)
}

/// Checks that the setting `key` is empty, or an HTTP URL of a host and a path.
pub(super) fn check_url(key: &str, text: &str) -> Result<(), ConfigError> {
    let url = url::Url::parse(text).ok();
    let is_usable = url.is_some_and(|url| {
        let has_http = matches!(url.scheme(), "http" | "https");
        has_http && has_only_host_and_path(&url) && has_plain_host(&url) && !text.contains(' ')
    });
    if text.is_empty() || is_usable {
        return Ok(());
    }
    let rule =
        "Write http(s)://HOST[/PATH], such as https://auth.example.com, without credentials, query and fragment.";
    Err(ConfigError::new(key, rule))
}

/// Whether the URL has no credentials, no query and no fragment.
fn has_only_host_and_path(url: &url::Url) -> bool {
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    !has_credentials && url.query().is_none() && url.fragment().is_none()
}

/// Whether the host is a name or an address. The URL parser accepts other characters, which no host name contains.
fn has_plain_host(url: &url::Url) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    url.host_str().is_some_and(|host| !host.is_empty() && host.bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_mapped_network_equals_the_ipv4_network() {
        for (written, inside, outside) in [
            ("::ffff:10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
            ("10.0.0.0/8", "10.9.9.9", "11.0.0.1"),
            ("2001:db8::/32", "2001:db8::1", "2001:db9::1"),
        ] {
            let networks = Networks::try_from(vec![written.to_owned()]).unwrap();
            assert!(networks.contains(inside.parse().unwrap()), "{written}");
            assert!(!networks.contains(outside.parse().unwrap()), "{written}");
        }
    }

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for good in
            ["https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "https://xn--bcher-kva.example"]
        {
            assert_eq!(origin(good), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("*", "Patterns"),
            ("https://*.example.com", "Patterns"),
            ("https://App.example.com", "https://app.example.com"),
            ("https://app.example.com/", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("https://app.example.com/path", "https://app.example.com"),
            ("https://b\u{fc}cher.example", "https://xn--bcher-kva.example"),
            ("https:app.example.com", "https://app.example.com"),
            ("https://ada:x@app.example.com", "not an origin"),
            ("https://app.example.com?x", "not an origin"),
            ("https://{tenant}.example.com", "not an origin"),
            ("app.example.com", "not an origin"),
            ("ftp://example.com", "not an origin"),
            ("null", "not an origin"),
            ("https://", "not an origin"),
        ] {
            let error = origin(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
