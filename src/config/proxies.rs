//! What stands between clients and this server: proxies, and browsers that come from elsewhere.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>")]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether the address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
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
                    "Entry {} is no address and no network. Write such as 10.0.0.7, 10.0.0.0/8 or 2001:db8::/32.",
                    at + 1
                )
            })
        };
        list.into_iter().enumerate().map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// An IPv4 network that is written as one of IPv6 (RFC 4291, section 2.5.5.2) is the IPv4 network: clients are told apart
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

/// The header in which a proxy says where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub enum ClientHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto`.
    #[serde(rename = "x-forwarded-for")]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    #[serde(rename = "forwarded")]
    Forwarded,
}

impl TryFrom<String> for ClientHeader {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err("Write \"x-forwarded-for\" or \"forwarded\"."),
        }
    }
}

/// Origins of web pages, as browsers send them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>")]
pub struct Origins(Vec<String>);

impl Origins {
    /// Each.
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

/// Whether `text` is an origin, byte for byte as browsers send it.
fn origin(text: &str) -> Result<(), String> {
    if text.contains('*') {
        return Err("Patterns are not supported. Name each origin, such as https://app.example.com.".to_owned());
    }
    let url = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && has_no_more(url));
    let Some(url) = url.filter(has_plain_host) else {
        return Err("This is no origin. Write scheme and host, such as https://app.example.com.".to_owned());
    };
    match url.origin().ascii_serialization() {
        exact if exact == text => Ok(()),
        exact => Err(format!("Browsers send this origin as {exact}. Write it so, without a path.")),
    }
}

/// Errors name the key.
pub(super) fn check_public_url(text: &str) -> Result<(), ConfigError> {
    let url = url::Url::parse(text).ok();
    let is_usable = url.is_some_and(|url| {
        matches!(url.scheme(), "http" | "https") && has_no_more(&url) && has_plain_host(&url) && !text.contains(' ')
    });
    if text.is_empty() || is_usable {
        return Ok(());
    }
    let rule =
        "Write http(s)://HOST[/PATH], such as https://auth.example.com, without credentials, query and fragment.";
    Err(ConfigError::new("http.public_url", rule))
}

/// Whether it has neither credentials nor query nor fragment.
fn has_no_more(url: &url::Url) -> bool {
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    !has_credentials && url.query().is_none() && url.fragment().is_none()
}

/// Whether the host is a name or an address. URLs may hold other characters, no name does.
fn has_plain_host(url: &url::Url) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    url.host_str().is_some_and(|host| !host.is_empty() && host.bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_network_is_the_same_in_the_spelling_of_ipv6() {
        for (written, inside, outside) in [
            ("::ffff:10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
            ("10.0.0.0/8", "10.9.9.9", "11.0.0.1"),
            ("2001:db8::/32", "2001:db8::1", "2001:db9::1"),
        ] {
            let networks = Networks::try_from(vec![written.to_owned()]).unwrap();
            assert!(networks.contain(inside.parse().unwrap()), "{written}");
            assert!(!networks.contain(outside.parse().unwrap()), "{written}");
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
            ("https://ada:x@app.example.com", "no origin"),
            ("https://app.example.com?x", "no origin"),
            ("https://{tenant}.example.com", "no origin"),
            ("app.example.com", "no origin"),
            ("ftp://example.com", "no origin"),
            ("null", "no origin"),
            ("https://", "no origin"),
        ] {
            let error = origin(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
