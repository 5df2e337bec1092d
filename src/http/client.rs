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
    let values: Vec<&str> = request.headers().get_all(name).map(text).collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
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
    let last = |name| request.headers().get_all(name).last().and_then(|value| text(value).rsplit(',').next());
    let scheme = match proxies.header {
        ClientHeader::XForwardedFor => last(X_FORWARDED_PROTO).map(str::trim),
        ClientHeader::Forwarded => last(FORWARDED).and_then(|hop| parameter(hop, "proto")),
    };
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
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

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

/// The value of a parameter of an element of `Forwarded`, out of its quotes (RFC 7239, section 4).
fn parameter<'h>(element: &'h str, name: &str) -> Option<&'h str> {
    element.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// An address as proxies write it: with or without a port, an IPv6 address in brackets or not.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::*;

    fn request(header: ClientHeader, headers: &[(&str, &str)]) -> HttpRequest {
        let mut settings = crate::config::Settings::defaults().unwrap().http;
        settings.trusted_proxies = serde_json::from_str("\"10.0.0.0/8, 2001:db8::1\"").unwrap();
        settings.client_header = header;
        let request = TestRequest::default().app_data(web::Data::new(Proxies::new(&settings)));
        let mut request = request.peer_addr("[::ffff:10.0.0.1]:4711".parse().unwrap());
        for (name, value) in headers {
            request = request.append_header((*name, *value));
        }
        request.to_http_request()
    }

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
        fn whatever_is_told_there_is_an_answer(told in "\\PC{0,60}") {
            let told: String = told.chars().filter(|character| HeaderValue::from_str(&character.to_string()).is_ok()).collect();
            for header in [ClientHeader::XForwardedFor, ClientHeader::Forwarded] {
                prop_assert!(client(&request(header, &[("X-Forwarded-For", &told), ("Forwarded", &told)])).is_some());
            }
        }
    }
}
