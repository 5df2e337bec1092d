//! A request as a proxy received it, and the parsing of its parts.

use std::fmt;
use std::net::Ipv6Addr;

/// Maximum length of a request in the audit trail, in characters.
const DISPLAY_MAX: usize = 256;

/// A request as a proxy received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRequest {
    /// The method.
    pub method: Method,
    /// The host, if the proxy states it.
    pub host: Option<Host>,
    /// The path.
    pub path: TargetPath,
}

impl OriginalRequest {
    /// Whether the method is POST, PUT, PATCH or DELETE, which are unsafe in RFC 9110, section 9.2.1.
    pub fn writes(&self) -> bool {
        ["POST", "PUT", "PATCH", "DELETE"].contains(&self.method.0.as_str())
    }
}

/// Method and path without the query, for the audit trail. A long path is cut after 256 characters in total.
impl fmt::Display for OriginalRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.text().chars();
        let capacity = DISPLAY_MAX.saturating_sub(self.method.0.len() + 2);
        let shown: String = path.clone().take(capacity).collect();
        let more = if path.count() > capacity { "\u{2026}" } else { "" };
        write!(f, "{} {shown}{more}", self.method.0)
    }
}

/// The method of a request (a token of RFC 9110) in upper case, because some services ignore the case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(pub(super) String);

impl Method {
    /// Parses a token of 1 to 32 bytes.
    pub fn read(text: &str) -> Option<Self> {
        let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(is_token_byte);
        fits.then(|| Self(text.to_ascii_uppercase()))
    }
}

/// The host of a request, in lower case, without its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// Parses a name or an address, with or without a port.
    pub fn read(text: &str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            Some((address, "")) => (address, ""),
            Some((address, port)) => (address, port.strip_prefix(':')?),
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let has_good_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
        if !has_good_port {
            return None;
        }
        if text.starts_with('[') {
            // An IPv6 address has several spellings.
            return name.parse::<Ipv6Addr>().ok().map(|address| Self(address.to_string()));
        }
        let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let name = name.strip_suffix('.').unwrap_or(name);
        let fits = name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_label_byte));
        fits.then(|| Self(name.to_ascii_lowercase()))
    }
}

/// The path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPath {
    /// Every server interprets the path in the same way.
    Plain(PlainPath),
    /// Servers interpret the path differently. The text is the path as written, without the query.
    Ambiguous(String),
}

impl TargetPath {
    /// Parses the path of a request target. Returns `None` if the path is empty.
    pub fn read(target: &str) -> Option<Self> {
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        let ambiguous = || Some(Self::Ambiguous(path.to_owned())).filter(|_| !path.is_empty());
        PlainPath::read(target).map(Self::Plain).or_else(ambiguous)
    }

    fn text(&self) -> &str {
        match self {
            Self::Plain(PlainPath(path)) | Self::Ambiguous(path) => path,
        }
    }
}

/// A decoded path that every server interprets in the same way. It has no part that some servers resolve, merge or cut
/// off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainPath(String);

impl PlainPath {
    /// Parses the path of a request target. The query is ignored. Returns `None` for a path that
    ///
    /// - does not begin with `/`, or contains a character that is not visible ASCII
    /// - contains `\`, `;` or `#`, an empty segment other than the last one, or a segment `.` or `..`
    /// - contains a broken escape, or an escape of `/`, `\`, `.`, `;`, `?`, `#` or of a control character
    /// - is not UTF-8 after decoding, or then still contains an escape
    pub fn read(target: &str) -> Option<Self> {
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        let mut decoded = Vec::with_capacity(path.len());
        let mut bytes = path.bytes();
        while let Some(byte) = bytes.next() {
            let (byte, refused) = match byte {
                b'%' => (hex(bytes.next()?)? << 4 | hex(bytes.next()?)?, &b"/\\.;?#"[..]),
                byte if byte.is_ascii_graphic() => (byte, &b"\\;#"[..]),
                _ => return None,
            };
            if refused.contains(&byte) {
                return None;
            }
            decoded.push(byte);
        }
        let decoded = String::from_utf8(decoded).ok()?;
        let mut segments = decoded.strip_prefix('/')?.split('/').peekable();
        while let Some(segment) = segments.next() {
            let is_merged = segment.is_empty() && segments.peek().is_some();
            let is_ambiguous = segment.contains(char::is_control) || contains_escape(segment);
            if is_merged || is_ambiguous || matches!(segment, "." | "..") {
                return None;
            }
        }
        Some(Self(decoded))
    }

    /// Whether the path equals `prefix` or is below it. Whole segments are compared.
    pub(super) fn is_within(&self, prefix: &Self) -> bool {
        let rest = self.0.strip_prefix(prefix.0.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Whether the decoded text contains an escape. A server that decodes twice would interpret it differently.
fn contains_escape(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .any(|rest| matches!(rest.as_bytes(), [high, low, ..] if hex(*high).is_some() && hex(*low).is_some()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::string_slice, reason = "ASCII")]

    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> PlainPath {
        PlainPath::read(text).unwrap_or_else(|| panic!("{text:?}"))
    }

    #[test]
    fn a_plain_path_is_decoded() {
        for (target, read) in [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/a?b=//../%2e", "/a"),
            ("/%61dmin", "/admin"),
            ("/caf%C3%A9", "/caf\u{e9}"),
            ("/100%25", "/100%"),
            ("/a.b/...", "/a.b/..."),
            ("/a%20b", "/a b"),
            ("/~u/a:b@c!$&'()*+,=", "/~u/a:b@c!$&'()*+,="),
        ] {
            assert_eq!(path(target).0, read, "{target}");
        }
    }

    #[test]
    fn ambiguous_paths_are_rejected() {
        for target in [
            "",
            "a",
            "*",
            "http://example.org/a",
            "/..",
            "/a/../b",
            "/a/..",
            "/./a",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/%2e%2e/a",
            "/%2E/a",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0ab",
            "/a%7f",
            "/a%c2%9b",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "/a;b",
            "/..;/a",
            "/a%3bb",
            "/a%3fb",
            "/a%23b",
            "/a#b",
            "/%ff",
            "/%c0%ae",
            "/%252e",
            "/a%2561",
            "/caf\u{e9}",
            "/a b",
            "/a\tb",
        ] {
            assert_eq!(PlainPath::read(target), None, "{target:?}");
        }
    }

    #[test]
    fn hosts_are_compared_without_port_and_case() {
        for (text, host) in [
            ("Api.Example.com", "api.example.com"),
            ("api.example.com.:8443", "api.example.com"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
        ] {
            assert_eq!(Host::read(text).unwrap().0, host, "{text}");
        }
        for text in
            ["", "a b", "a,b", "a/b", "a@b", "a:b", "a:80:80", "[::1", "[x]", "a:123456", "caf\u{e9}", ":80", "*.a"]
        {
            assert_eq!(Host::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_text_for_the_audit_trail_has_no_query_and_a_maximum_length() {
        let shown = |method: &str, target: &str| {
            let (method, path) = (Method::read(method).unwrap(), TargetPath::read(target).unwrap());
            OriginalRequest { method, host: None, path }.to_string()
        };
        assert_eq!(shown("post", "/a%C3%A9?secret"), "POST /a\u{e9}");
        assert_eq!(shown("post", "/a%2F//b?secret"), "POST /a%2F//b");
        let long = shown("POST", &format!("/{}", "a".repeat(5000)));
        assert_eq!((long.chars().count(), long.chars().last()), (256, Some('\u{2026}')));
    }

    proptest! {
        #[test]
        fn an_accepted_path_has_no_part_that_a_server_could_resolve(target in "/?([a-c./%;\\\\?#0-9eE25fF\u{e9}]|%[0-9a-fA-F]{2}){0,20}") {
            if let Some(PlainPath(read)) = PlainPath::read(&target) {
                prop_assert!(read.starts_with('/') && !read.contains("//") && !read.contains(['\\', ';', '\0']));
                prop_assert!(read.split('/').all(|segment| segment != "." && segment != ".."));
                // Browsers and URL libraries decode it in the same way.
                let url = url::Url::parse(&format!("http://example.org{target}")).unwrap();
                let decoded = percent_encoding::percent_decode_str(url.path()).decode_utf8().unwrap();
                prop_assert_eq!(&read, &decoded);
            }
        }

        #[test]
        fn a_path_is_within_each_prefix_of_its_segments(
            path in prop::collection::vec("[ab]{1,2}", 0..4), prefix in prop::collection::vec("[ab]{1,2}", 0..4),
        ) {
            let joined = |segments: &[String]| PlainPath::read(&format!("/{}", segments.join("/"))).unwrap();
            prop_assert_eq!(joined(&path).is_within(&joined(&prefix)), path.starts_with(&prefix));
        }

        #[test]
        fn an_escaped_letter_is_the_letter(plain in "/[a-z]{1,5}(/[a-z]{1,5}){0,3}", at in any::<prop::sample::Index>()) {
            let letters: Vec<usize> = plain.bytes().enumerate().filter(|(_, byte)| *byte != b'/').map(|(at, _)| at).collect();
            let at = *at.get(&letters);
            let (before, rest) = plain.split_at(at);
            let escaped = format!("{before}%{:02x}{}", rest.as_bytes()[0], &rest[1..]);
            prop_assert_eq!(PlainPath::read(&escaped), PlainPath::read(&plain));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,40}") {
            let _ = (PlainPath::read(&text), Host::read(&text), Method::read(&text));
        }
    }
}
