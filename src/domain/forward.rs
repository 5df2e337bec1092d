//! Requests to other services, which a proxy holds back until it is known whether they may pass, and the rules for them.
//!
//! What could be read in two ways is not read at all: the service behind the proxy might read it in the other one.

use std::fmt;
use std::net::Ipv6Addr;

use super::scope::is_scope_token;
use crate::error::Denial;

/// The longest text by which the audit trail tells of a request, in characters.
const TOLD_MAX: usize = 256;

/// A request as a proxy received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// What it wants.
    pub method: Method,
    /// Of whom, if the proxy says so.
    pub host: Option<Host>,
    /// Of what.
    pub path: TargetPath,
}

impl Original {
    /// Whether it is one of those that change something (RFC 9110, section 9.2.1, has them unsafe).
    pub fn writes(&self) -> bool {
        ["POST", "PUT", "PATCH", "DELETE"].contains(&self.method.0.as_str())
    }
}

/// For the audit trail: of a long one its beginning.
impl fmt::Display for Original {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.text().chars();
        let room = TOLD_MAX.saturating_sub(self.method.0.len() + 2);
        let shown: String = path.clone().take(room).collect();
        let more = if path.count() > room { "\u{2026}" } else { "" };
        write!(f, "{} {shown}{more}", self.method.0)
    }
}

/// The method of a request (a token of RFC 9110), in upper case, for some services do not mind the case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(String);

impl Method {
    /// Reads a token of at most 32 bytes.
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
    /// Reads a name or an address, with or without a port.
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
            // The same address has several spellings.
            return name.parse::<Ipv6Addr>().ok().map(|address| Self(address.to_string()));
        }
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let name = name.strip_suffix('.').unwrap_or(name);
        let fits = name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_letter));
        fits.then(|| Self(name.to_ascii_lowercase()))
    }
}

/// The path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPath {
    /// Everybody reads it alike.
    Plain(PlainPath),
    /// Some servers read it as another one than others. It is kept as it was written, without its query.
    Ambiguous(String),
}

impl TargetPath {
    /// The path of a request target; `None` if there is nothing.
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

/// A path that everybody reads alike: decoded, and without what some servers resolve, merge or cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainPath(String);

impl PlainPath {
    /// Reads the path of a request target; its query does not matter.
    ///
    /// None are: what does not begin with `/` or is no ASCII; broken escapes, and those of `/`, `\`, `.`, `;`, `?`, `#`,
    /// control characters and of what is no UTF-8; escapes that hold escapes; `\`, `;`, `#`; empty segments but the last; `.` and `..`.
    pub fn read(target: &str) -> Option<Self> {
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        let mut decoded = Vec::with_capacity(path.len());
        let mut rest = path.bytes();
        while let Some(byte) = rest.next() {
            let (byte, refused) = match byte {
                b'%' => (hex(rest.next()?)? << 4 | hex(rest.next()?)?, &b"/\\.;?#"[..]),
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
            let is_odd = segment.contains(char::is_control) || holds_an_escape(segment);
            if is_merged || is_odd || matches!(segment, "." | "..") {
                return None;
            }
        }
        Some(Self(decoded))
    }

    /// Whether it is `prefix` or below it, segment by segment.
    fn is_within(&self, prefix: &Self) -> bool {
        let rest = self.0.strip_prefix(prefix.0.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Whoever decodes twice would read something else.
fn holds_an_escape(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .any(|rest| matches!(rest.as_bytes(), [high, low, ..] if hex(*high).is_some() && hex(*low).is_some()))
}

/// Who may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Whoever has a good credential with these scopes, of any names.
    Holders(Vec<String>),
}

/// What some requests take.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Of this host; of any if `None`.
    pub host: Option<Host>,
    /// With one of these methods; with any if there are none. GET stands for HEAD, too.
    pub methods: Vec<Method>,
    /// For this path and what is below it; for any if `None`.
    pub path: Option<PlainPath>,
    /// Who may pass.
    pub access: Access,
}

impl Rule {
    /// Errors: [`Denial::Ambiguous`] if the path decides, and can be read in two ways.
    fn matches(&self, original: &Original) -> Result<bool, Denial> {
        let asked = if original.method.0 == "HEAD" { "GET" } else { &original.method.0 };
        let is_one = |method: &Method| method.0 == asked || *method == original.method;
        let concerns = (self.host.is_none() || self.host == original.host)
            && (self.methods.is_empty() || self.methods.iter().any(is_one));
        match (&self.path, &original.path) {
            (Some(prefix), TargetPath::Plain(path)) => Ok(concerns && path.is_within(prefix)),
            (Some(_), TargetPath::Ambiguous(_)) if concerns => Err(Denial::Ambiguous),
            _ => Ok(concerns),
        }
    }
}

/// The rules, in order.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// In this order.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Who may pass with this request, by the first rule that matches.
    ///
    /// Errors: [`Denial::NoRule`] if none does; [`Denial::Untold`] if some rule looks at the host and nobody says which it is;
    /// [`Denial::Ambiguous`] if a rule looks at a path that can be read in two ways.
    pub fn access(&self, original: &Original) -> Result<&Access, Denial> {
        // Not to match such a rule would be to fall to a later one, which may ask for less.
        if original.host.is_none() && self.0.iter().any(|rule| rule.host.is_some()) {
            return Err(Denial::Untold);
        }
        for rule in &self.0 {
            if rule.matches(original)? {
                return Ok(&rule.access);
            }
        }
        Err(Denial::NoRule)
    }
}

/// The scopes in a list that separates them by spaces; `None` unless each could be one.
pub fn scope_list(text: &str) -> Option<Vec<String>> {
    text.split(' ').map(|name| is_scope_token(name).then(|| name.to_owned())).collect()
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "ASCII")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> PlainPath {
        PlainPath::read(text).unwrap_or_else(|| panic!("{text:?}"))
    }

    fn original(method: &str, host: &str, target: &str) -> Original {
        Original {
            method: Method::read(method).unwrap(),
            host: Host::read(host),
            path: TargetPath::read(target).unwrap(),
        }
    }

    fn rule(host: &str, methods: &[&str], prefix: &str, access: Access) -> Rule {
        let methods = methods.iter().map(|method| Method::read(method).unwrap()).collect();
        Rule { host: Host::read(host), methods, path: PlainPath::read(prefix), access }
    }

    #[test]
    fn a_plain_path_is_read_as_everybody_reads_it() {
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
    fn what_could_be_read_in_two_ways_is_not_read() {
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
    fn the_first_rule_that_matches_decides_and_without_one_nobody_passes() {
        let scopes = |scope: &str| Access::Holders(vec![scope.to_owned()]);
        let rules = Rules::new(vec![
            rule("api.example.com", &["GET"], "/public", Access::Public),
            rule("api.example.com", &[], "/public/x", scopes("never:reached_by_get")),
            rule("api.example.com", &["POST", "DELETE"], "", scopes("api:write")),
            rule("api.example.com", &[], "/", scopes("api:read")),
            rule("git.example.com", &[], "", scopes("git:read")),
            rule("", &["GET"], "/status/", Access::Public),
        ]);
        for (method, host, target, access) in [
            ("GET", "api.example.com", "/public", Ok(Access::Public)),
            ("get", "API.example.com:443", "/public/x?y", Ok(Access::Public)),
            ("HEAD", "api.example.com", "/public/x", Ok(Access::Public)),
            ("POST", "api.example.com", "/public/x", Ok(scopes("never:reached_by_get"))),
            ("GET", "api.example.com", "/publicity", Ok(scopes("api:read"))),
            ("delete", "api.example.com", "/public", Ok(scopes("api:write"))),
            ("GET", "other.example.com", "/status", Ok(Access::Public)),
            ("GET", "other.example.com", "/", Err(Denial::NoRule)),
            ("PUT", "other.example.com", "/status", Err(Denial::NoRule)),
            ("GET", "", "/status", Err(Denial::Untold)),
            // Where no rule looks at the path, it may be any.
            ("GET", "git.example.com", "/api/v4/projects/a%2Fb/..//;x?y", Ok(scopes("git:read"))),
            ("GET", "git.example.com", "*", Ok(scopes("git:read"))),
            ("DELETE", "api.example.com", "/a%2Fb", Err(Denial::Ambiguous)),
            ("GET", "other.example.com", "//status", Err(Denial::Ambiguous)),
            ("PUT", "other.example.com", "//status", Err(Denial::NoRule)),
        ] {
            let found = rules.access(&original(method, host, target)).cloned();
            assert_eq!(found, access, "{method} {host} {target}");
        }
        assert_eq!(Rules::default().access(&original("GET", "", "/")), Err(Denial::NoRule));
    }

    #[test]
    fn the_trail_tells_of_a_request_in_bounds() {
        assert_eq!(original("post", "", "/a%C3%A9?secret").to_string(), "POST /a\u{e9}");
        assert_eq!(original("post", "", "/a%2F//b?secret").to_string(), "POST /a%2F//b");
        let long = original("POST", "", &format!("/{}", "a".repeat(5000))).to_string();
        assert_eq!((long.chars().count(), long.chars().last()), (256, Some('\u{2026}')));
    }

    proptest! {
        #[test]
        fn no_path_that_is_read_holds_what_somebody_might_resolve(target in "/?([a-c./%;\\\\?#0-9eE25fF\u{e9}]|%[0-9a-fA-F]{2}){0,20}") {
            if let Some(PlainPath(read)) = PlainPath::read(&target) {
                prop_assert!(read.starts_with('/') && !read.contains("//") && !read.contains(['\\', ';', '\0']));
                prop_assert!(read.split('/').all(|segment| segment != "." && segment != ".."));
                // As browsers and URL libraries read it, too.
                let url = url::Url::parse(&format!("http://example.org{target}")).unwrap();
                let theirs = percent_encoding::percent_decode_str(url.path()).decode_utf8().unwrap();
                prop_assert_eq!(&read, &theirs);
            }
        }

        #[test]
        fn a_path_is_within_those_whose_segments_it_begins_with(
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
            let _ = (PlainPath::read(&text), Host::read(&text), Method::read(&text), scope_list(&text));
        }
    }
}
