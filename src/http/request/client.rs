//! The client address and scheme of a request: those of the connection, or those that a trusted proxy states.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web;

use crate::config::{ClientHeader, HttpSettings, Networks};
use crate::http::request::activity::Activity;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// The trusted proxies, and the header in which they state the client.
pub struct Proxies {
    trusted: Networks,
    header: ClientHeader,
}

impl Proxies {
    /// `http.trusted_proxies` and `http.client_header` of the settings.
    pub fn new(settings: &HttpSettings) -> Self {
        Self { trusted: settings.trusted_proxies.clone(), header: settings.client_header }
    }
}

/// The address of the client; `None` if the peer address is unknown.
///
/// Proxies append to the right. The list is therefore read from the right, up to the first address that is not a
/// trusted proxy: the entries to its left can be forged.
pub fn client(request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    let Some(proxies) = proxies_if_trusted(request, peer) else {
        return Some(peer);
    };
    let mut client = peer;
    let name = match proxies.header {
        ClientHeader::XForwardedFor => X_FORWARDED_FOR,
        ClientHeader::Forwarded => FORWARDED,
    };
    let values: Vec<&[u8]> = request.headers().get_all(name).map(HeaderValue::as_bytes).collect();
    for hop in values.iter().rev().flat_map(|value| elements_from_right(value)) {
        let node = match proxies.header {
            ClientHeader::XForwardedFor => Some(Cow::Borrowed(hop)),
            ClientHeader::Forwarded => parameter(hop, "for"),
        };
        // An entry without an address, such as `unknown` or an obfuscated name (RFC 7239, section 6), ends the list.
        let Some(address) = node.and_then(|node| address(&node)) else {
            break;
        };
        client = address;
        if !proxies.trusted.contains(client) {
            break;
        }
    }
    Some(client)
}

/// Whether the client uses TLS: to this server, or to a trusted proxy that states it.
pub fn is_secure(request: &HttpRequest) -> bool {
    if request.conn_data::<Rc<Activity>>().is_some_and(|activity| activity.is_secure) {
        return true;
    }
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
    let Some(proxies) = peer.and_then(|peer| proxies_if_trusted(request, peer)) else {
        return false;
    };
    let last = |name| {
        let values: Vec<&[u8]> = request.headers().get_all(name).map(HeaderValue::as_bytes).collect();
        values.into_iter().rev().flat_map(elements_from_right).next()
    };
    let scheme = match proxies.header {
        ClientHeader::XForwardedFor => last(X_FORWARDED_PROTO).map(Cow::Borrowed),
        ClientHeader::Forwarded => last(FORWARDED).and_then(|hop| parameter(hop, "proto")),
    };
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
}

/// Whether the peer of the connection is a trusted proxy.
pub fn is_from_trusted_proxy(request: &HttpRequest) -> bool {
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
    peer.is_some_and(|peer| proxies_if_trusted(request, peer).is_some())
}

/// The settings of the trusted proxies, if `peer` is one of them.
fn proxies_if_trusted(request: &HttpRequest, peer: IpAddr) -> Option<&Proxies> {
    let proxies = request.app_data::<web::Data<Proxies>>()?;
    (!proxies.trusted.is_empty() && proxies.trusted.contains(peer)).then_some(proxies)
}

/// The elements of a list from right to left, without empty ones (RFC 9110, section 5.6.1.2).
fn elements_from_right(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    split_from_right(list, b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// The parts of a list from right to left. Separators in quoted strings do not count: a proxy quotes values of its
/// client there, such as the host. What a client wrote further left, such as an open quote, does not change the parts
/// to its right.
fn split_from_right(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut remaining = Some(list);
    std::iter::from_fn(move || {
        let list = remaining.take()?;
        let mut is_quoted = false;
        let cut = list.iter().enumerate().rev().find(|(at, byte)| {
            is_quoted ^= **byte == b'"' && !is_escaped(list, *at);
            !is_quoted && **byte == separator
        });
        let Some((before, after)) = cut.and_then(|(at, _)| Some((list.get(..at)?, list.get(at + 1..)?))) else {
            return Some(list);
        };
        remaining = Some(before);
        Some(after)
    })
}

fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.iter().take(at).rev();
    before.take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The unquoted value of a parameter of an element of `Forwarded`; `None` if it is absent or repeated (RFC 7239,
/// section 4).
fn parameter<'h>(element: &'h [u8], name: &str) -> Option<Cow<'h, [u8]>> {
    let mut values = split_from_right(element, b';').filter_map(|pair| {
        let (key, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        key.trim_ascii().eq_ignore_ascii_case(name.as_bytes()).then(|| value.strip_prefix(b"="))?
    });
    let value = values.next().filter(|_| values.next().is_none())?.trim_ascii();
    Some(match value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) {
        Some(quoted) if quoted.contains(&b'\\') => Cow::Owned(unescaped(quoted)),
        Some(quoted) => Cow::Borrowed(quoted),
        None => Cow::Borrowed(value),
    })
}

/// The content of a quoted string without its escapes: `\x` stands for `x` (RFC 9110, section 5.6.4).
fn unescaped(quoted: &[u8]) -> Vec<u8> {
    let (mut text, mut bytes) = (Vec::with_capacity(quoted.len()), quoted.iter());
    while let Some(byte) = bytes.next() {
        text.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    text
}

/// Parses an address as proxies write it: with or without a port, which may be obfuscated (RFC 7239, section 6), and
/// IPv6 with or without brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let (name, port) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').filter(|(name, _)| name.parse::<Ipv6Addr>().is_ok())?,
        None => match text.split_once(':') {
            Some((name, _)) if name.parse::<Ipv4Addr>().is_ok() => text.split_at(name.len()),
            _ => (text, ""),
        },
    };
    let has_good_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    has_good_port.then(|| name.parse().ok()).flatten().map(|address: IpAddr| address.to_canonical())
}

fn is_port(text: &str) -> bool {
    let is_obfuscated = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    match text.strip_prefix('_') {
        Some(name) => !name.is_empty() && is_obfuscated(name),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;
    use crate::http::wire::arbitrary::header_value;

    fn request<V: AsRef<[u8]>>(header: ClientHeader, headers: &[(&str, V)]) -> HttpRequest {
        let mut settings = crate::config::Settings::defaults().unwrap().http;
        settings.trusted_proxies = serde_json::from_str(r#"["10.0.0.0/8", "2001:db8::1"]"#).unwrap();
        settings.client_header = header;
        let request = TestRequest::default().app_data(web::Data::new(Proxies::new(&settings)));
        let mut request = request.peer_addr("[::ffff:10.0.0.1]:4711".parse().unwrap());
        for (name, value) in headers {
            request = request.append_header((*name, HeaderValue::from_bytes(value.as_ref()).unwrap()));
        }
        request.to_http_request()
    }

    /// The bytes that delimit the parts of forwarded headers.
    const DELIMITERS: &[u8] = b"\"\\,;=: []for1.";

    #[test]
    fn x_forwarded_for_is_read_from_right_to_left_up_to_the_first_untrusted_address() {
        for (value, client) in [
            ("", "10.0.0.1"),
            ("192.0.2.7", "192.0.2.7"),
            ("1.2.3.4, 192.0.2.7", "192.0.2.7"),
            ("1.2.3.4,192.0.2.7 , 10.0.0.2", "192.0.2.7"),
            ("1.2.3.4, 192.0.2.7:80, 2001:db8::1", "192.0.2.7"),
            ("[2001:db8::7]:80", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, unknown", "10.0.0.1"),
            ("192.0.2.7, unknown, 10.0.0.3", "10.0.0.3"),
            ("10.0.0.9", "10.0.0.9"),
            (",,", "10.0.0.1"),
            ("192.0.2.7,, 10.0.0.2,", "192.0.2.7"),
            ("192.0.2.7:99999", "192.0.2.7"),
            ("192.0.2.7:", "10.0.0.1"),
            ("[2001:db8::7]:x", "10.0.0.1"),
            ("[192.0.2.7]", "10.0.0.1"),
            ("2001:db8::7%eth0", "10.0.0.1"),
        ] {
            let request =
                request(ClientHeader::XForwardedFor, &[("X-Forwarded-For", value), ("Forwarded", "for=6.6.6.6")]);
            assert_eq!(super::client(&request), Some(client.parse().unwrap()), "{value:?}");
        }
        let two_lines = [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "192.0.2.7")];
        let request = request(ClientHeader::XForwardedFor, &two_lines);
        assert_eq!(client(&request), Some("192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn forwarded_is_read_where_the_settings_name_it() {
        for (value, client, secure) in [
            ("for=192.0.2.7", "192.0.2.7", false),
            ("for=1.2.3.4, For=\"192.0.2.7:99\";proto=https", "192.0.2.7", true),
            ("for=\"[2001:db8::7]:4711\" ; proto=HTTPS;by=10.0.0.1", "2001:db8::7", true),
            ("for=_hidden", "10.0.0.1", false),
            ("proto=https", "10.0.0.1", true),
            ("for=192.0.2.7;host=\"a,for=6.6.6.6\"", "192.0.2.7", false),
            ("host=\"a;for=6.6.6.6;proto=https\";for=192.0.2.7", "192.0.2.7", false),
            ("for=192.0.2.7;for=6.6.6.6", "10.0.0.1", false),
            ("for=\"192.0.2\\.7\";proto=\"h\\ttps\"", "192.0.2.7", true),
            ("for=\"192.0.2.7:_a.b-c\"", "192.0.2.7", false),
            ("for=\"[2001:db8::7]:_a\"", "2001:db8::7", false),
            ("for=192.0.2.7;;proto=https,, ,", "192.0.2.7", true),
            ("for=unknown", "10.0.0.1", false),
            ("for=\"unknown:80\"", "10.0.0.1", false),
            ("for=\"192.0.2.7:_\"", "10.0.0.1", false),
            ("for=\"192.0.2.7:123456\"", "10.0.0.1", false),
            ("for=\"_192.0.2.7\"", "10.0.0.1", false),
        ] {
            let request = request(ClientHeader::Forwarded, &[("Forwarded", value), ("X-Forwarded-For", "6.6.6.6")]);
            assert_eq!(super::client(&request), Some(client.parse().unwrap()), "{value:?}");
            assert_eq!(is_secure(&request), secure, "{value:?}");
        }
    }

    #[test]
    fn headers_of_untrusted_peers_are_ignored() {
        let request = TestRequest::default()
            .app_data(web::Data::new(Proxies::new(&crate::config::Settings::defaults().unwrap().http)));
        let request = request.peer_addr("192.0.2.1:1".parse().unwrap());
        let request =
            request.append_header(("X-Forwarded-For", "6.6.6.6")).append_header(("X-Forwarded-Proto", "https"));
        let request = request.to_http_request();
        assert_eq!(client(&request), Some("192.0.2.1".parse().unwrap()));
        assert!(!is_secure(&request));
    }

    proptest! {
        #[test]
        fn an_address_is_read_in_every_spelling(ip in any::<IpAddr>(), port in "(:([0-9]{1,5}|_[A-Za-z0-9._-]{1,8}))?") {
            let named = if ip.is_ipv6() { format!("[{ip}]{port}") } else { format!("{ip}{port}") };
            prop_assert_eq!(address(named.as_bytes()), Some(ip.to_canonical()));
            prop_assert_eq!(address(ip.to_string().as_bytes()), Some(ip.to_canonical()));
            let quoted: String = named.chars().map(|character| format!("\\{character}")).collect();
            let element = format!("for=\"{quoted}\"");
            prop_assert_eq!(&*parameter(element.as_bytes(), "for").unwrap(), named.as_bytes());
        }

        #[test]
        fn headers_that_a_client_sends_do_not_change_what_its_proxy_states(
            lines in prop::collection::vec(header_value(DELIMITERS), 0..3),
            before in header_value(DELIMITERS),
            host in r#"([,;"\\]|for=6\.6\.6\.6|proto=https){0,5}"#,
            is_secure in any::<bool>(),
        ) {
            let after = |proxys: &str| HeaderValue::from_bytes(&[before.as_bytes(), b", ", proxys.as_bytes()].concat()).unwrap();
            let scheme = if is_secure { "https" } else { "http" };
            let host = host.replace('\\', r"\\").replace('"', r#"\""#);
            let forwarded = format!("host=\"{host}\";for=\"192.0.2.7:4711\";proto={scheme}");
            for (header, names, proxys) in [
                (ClientHeader::XForwardedFor, ["X-Forwarded-For", "X-Forwarded-Proto"], ["192.0.2.7", scheme]),
                (ClientHeader::Forwarded, ["Forwarded", "X-Forwarded-For"], [forwarded.as_str(), "6.6.6.6"]),
            ] {
                let mut headers: Vec<(&str, HeaderValue)> =
                    lines.iter().flat_map(|line| names.map(|name| (name, line.clone()))).collect();
                headers.extend(names.into_iter().zip(proxys.map(after)));
                let request = request(header, &headers);
                prop_assert_eq!(client(&request), Some("192.0.2.7".parse().unwrap()), "{:?}", headers);
                prop_assert_eq!(super::is_secure(&request), is_secure, "{:?}", headers);
            }
        }

        #[test]
        fn a_client_is_found_whatever_the_headers_contain(values in prop::collection::vec(header_value(DELIMITERS), 1..3)) {
            for (header, name) in
                [(ClientHeader::XForwardedFor, "X-Forwarded-For"), (ClientHeader::Forwarded, "Forwarded")]
            {
                let headers: Vec<_> = values.iter().map(|value| (name, value.clone())).collect();
                prop_assert!(client(&request(header, &headers)).is_some());
            }
        }
    }
}
