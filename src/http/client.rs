//! Where a request comes from: the other end of the connection, or, behind proxies that are trusted, what they say.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web;

use crate::config::{ClientHeader, HttpSettings, Networks};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// Whose word is taken, and in which header.
pub struct Proxies {
    trusted: Networks,
    header: ClientHeader,
}

impl Proxies {
    /// As the settings say.
    pub fn new(settings: &HttpSettings) -> Self {
        Self { trusted: settings.trusted_proxies.clone(), header: settings.client_header }
    }
}

/// Who asks. Proxies add to the right, so the list is read from there, and only as long as whoever wrote an entry is
/// trusted: what stands further left, anybody may have written.
pub fn client(request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    let Some(proxies) = trusting(request, peer) else {
        return Some(peer);
    };
    let mut client = peer;
    let name = match proxies.header {
        ClientHeader::XForwardedFor => X_FORWARDED_FOR,
        ClientHeader::Forwarded => FORWARDED,
    };
    let values: Vec<&[u8]> = request.headers().get_all(name).map(HeaderValue::as_bytes).collect();
    for hop in values.iter().rev().flat_map(|value| pieces(value, b',')) {
        let named = match proxies.header {
            ClientHeader::XForwardedFor => Some(hop),
            ClientHeader::Forwarded => parameter(hop, "for"),
        };
        // What is no address ends the list: whom an unknown hop speaks for, nobody can tell.
        let Some(address) = named.and_then(address) else {
            break;
        };
        client = address;
        if !proxies.trusted.contain(client) {
            break;
        }
    }
    Some(client)
}

/// Whether the client speaks TLS: with this server, or with a trusted proxy that says so.
pub fn is_secure(request: &HttpRequest) -> bool {
    if request.app_config().secure() {
        return true;
    }
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
    let Some(proxies) = peer.and_then(|peer| trusting(request, peer)) else {
        return false;
    };
    let last = |name| request.headers().get_all(name).last().and_then(|value| pieces(value.as_bytes(), b',').next());
    let scheme = match proxies.header {
        ClientHeader::XForwardedFor => last(X_FORWARDED_PROTO).map(<[u8]>::trim_ascii),
        ClientHeader::Forwarded => last(FORWARDED).and_then(|hop| parameter(hop, "proto")),
    };
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
}

/// Whether whoever made the connection is a proxy that is trusted.
pub fn is_from_trusted_proxy(request: &HttpRequest) -> bool {
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
    peer.is_some_and(|peer| trusting(request, peer).is_some())
}

/// The proxies that are trusted, if `peer` is one of them.
fn trusting(request: &HttpRequest, peer: IpAddr) -> Option<&Proxies> {
    let proxies = request.app_data::<web::Data<Proxies>>()?;
    (!proxies.trusted.are_none() && proxies.trusted.contain(peer)).then_some(proxies)
}

/// What stands between separators, the last first. Nothing is cut within quotes: there a proxy tells what its client sent,
/// such as the host. Whatever a client wrote further left, quotes or no text, changes nothing of what comes before it here.
fn pieces(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest.take()?;
        let mut is_quoted = false;
        let cut = list.iter().enumerate().rev().find(|(at, byte)| {
            is_quoted ^= **byte == b'"' && !is_escaped(list, *at);
            !is_quoted && **byte == separator
        });
        let Some((before, after)) = cut.and_then(|(at, _)| Some((list.get(..at)?, list.get(at + 1..)?))) else {
            return Some(list);
        };
        rest = Some(before);
        Some(after)
    })
}

fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.iter().take(at).rev();
    before.take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// The value of a parameter of an element of `Forwarded`, out of its quotes. It may stand once (RFC 7239, section 4).
fn parameter<'h>(element: &'h [u8], name: &str) -> Option<&'h [u8]> {
    let mut values = pieces(element, b';').filter_map(|pair| {
        let (key, value) = pair.split_at_checked(pair.iter().position(|byte| *byte == b'=')?)?;
        key.trim_ascii().eq_ignore_ascii_case(name.as_bytes()).then(|| value.strip_prefix(b"="))?
    });
    let value = values.next().filter(|_| values.next().is_none())?.trim_ascii();
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

/// An address as proxies write it: with or without a port, an IPv6 address in brackets or not.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::super::arbitrary::header_value;
    use super::*;

    fn request<V: AsRef<[u8]>>(header: ClientHeader, headers: &[(&str, V)]) -> HttpRequest {
        let mut settings = crate::config::Settings::defaults().unwrap().http;
        settings.trusted_proxies = serde_json::from_str("\"10.0.0.0/8, 2001:db8::1\"").unwrap();
        settings.client_header = header;
        let request = TestRequest::default().app_data(web::Data::new(Proxies::new(&settings)));
        let mut request = request.peer_addr("[::ffff:10.0.0.1]:4711".parse().unwrap());
        for (name, value) in headers {
            request = request.append_header((*name, HeaderValue::from_bytes(value.as_ref()).unwrap()));
        }
        request.to_http_request()
    }

    /// What forwarded headers are cut at.
    const TELLING: &[u8] = b"\"\\,;=: []for1.";

    #[test]
    fn a_trusted_proxy_is_believed_from_right_to_left_and_no_further_than_trust_goes() {
        for (told, client) in [
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
        ] {
            let request =
                request(ClientHeader::XForwardedFor, &[("X-Forwarded-For", told), ("Forwarded", "for=6.6.6.6")]);
            assert_eq!(super::client(&request), Some(client.parse().unwrap()), "{told:?}");
        }
        let two_lines = [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "192.0.2.7")];
        let request = request(ClientHeader::XForwardedFor, &two_lines);
        assert_eq!(client(&request), Some("192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn forwarded_is_read_where_it_is_the_one_that_is_trusted() {
        for (told, client, secure) in [
            ("for=192.0.2.7", "192.0.2.7", false),
            ("for=1.2.3.4, For=\"192.0.2.7:99\";proto=https", "192.0.2.7", true),
            ("for=\"[2001:db8::7]:4711\" ; proto=HTTPS;by=10.0.0.1", "2001:db8::7", true),
            ("for=_hidden", "10.0.0.1", false),
            ("proto=https", "10.0.0.1", true),
            ("for=192.0.2.7;host=\"a,for=6.6.6.6\"", "192.0.2.7", false),
            ("host=\"a;for=6.6.6.6;proto=https\";for=192.0.2.7", "192.0.2.7", false),
            ("for=192.0.2.7;for=6.6.6.6", "10.0.0.1", false),
        ] {
            let request = request(ClientHeader::Forwarded, &[("Forwarded", told), ("X-Forwarded-For", "6.6.6.6")]);
            assert_eq!(super::client(&request), Some(client.parse().unwrap()), "{told:?}");
            assert_eq!(is_secure(&request), secure, "{told:?}");
        }
    }

    #[test]
    fn nobody_else_is_believed() {
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
        fn nothing_that_a_client_writes_changes_what_its_proxy_says(
            lines in prop::collection::vec(header_value(TELLING), 0..3),
            before in header_value(TELLING),
            host in r#"([,;"\\]|for=6\.6\.6\.6|proto=https){0,5}"#,
            is_secure in any::<bool>(),
        ) {
            let after = |proxys: &str| HeaderValue::from_bytes(&[before.as_bytes(), b", ", proxys.as_bytes()].concat()).unwrap();
            let scheme = if is_secure { "https" } else { "http" };
            let host = host.replace('\\', r"\\").replace('"', r#"\""#);
            let told = format!("host=\"{host}\";for=\"192.0.2.7:4711\";proto={scheme}");
            for (header, names, proxys) in [
                (ClientHeader::XForwardedFor, ["X-Forwarded-For", "X-Forwarded-Proto"], ["192.0.2.7", scheme]),
                (ClientHeader::Forwarded, ["Forwarded", "X-Forwarded-For"], [told.as_str(), "6.6.6.6"]),
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
        fn whatever_is_told_there_is_an_answer(told in prop::collection::vec(header_value(TELLING), 1..3)) {
            for (header, name) in
                [(ClientHeader::XForwardedFor, "X-Forwarded-For"), (ClientHeader::Forwarded, "Forwarded")]
            {
                let headers: Vec<_> = told.iter().map(|told| (name, told.clone())).collect();
                prop_assert!(client(&request(header, &headers)).is_some());
            }
        }
    }
}
