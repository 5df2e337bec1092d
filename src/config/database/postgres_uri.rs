//! PostgreSQL addresses, split exactly as libpq splits them, so that the same part is recognised as the password.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Parameters that are printed. They identify the database, the user and the `sslmode`. All others are omitted: a value
/// can be a secret, and a name can be part of a secret that contains a `&`.
const PRINTED: [&str; 6] = ["host", "hostaddr", "port", "dbname", "user", "sslmode"];

/// A libpq URI. It prints without secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUri {
    /// The part before the query, as written.
    address: String,
    /// Names and values of the query parameters, as written.
    parameters: Vec<(String, String)>,
    /// The hosts with their ports, as written.
    hosts: String,
    /// The part before the query with a masked password, for printing.
    printed: String,
}

impl PostgresUri {
    /// Parses an address that begins with `SCHEME://`. Returns `None` if the address is ambiguous: libpq could
    /// interpret part of the password as a host, a port or a name, which are printed.
    pub fn read(uri: &str) -> Option<Self> {
        let (scheme, rest) = uri.split_once("://")?;
        let (credentials, rest) = match rest.split_once('@') {
            Some((credentials, rest)) if !credentials.contains('/') => (Some(credentials), rest),
            _ => (None, rest),
        };
        if rest.contains('@') || credentials.is_some_and(|credentials| credentials.contains('?')) {
            return None;
        }
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let hosts = location.split('/').next().unwrap_or_default();
        if !hosts.split(',').all(has_valid_port) {
            return None;
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let parameters = pairs.map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (!value.contains('=')).then(|| (name.to_owned(), value.to_owned()))
        });
        let before_query = |credentials: Option<String>| match credentials {
            Some(credentials) => format!("{scheme}://{credentials}@{location}"),
            None => format!("{scheme}://{location}"),
        };
        Some(Self {
            address: before_query(credentials.map(str::to_owned)),
            parameters: parameters.collect::<Option<_>>()?,
            hosts: hosts.to_owned(),
            printed: before_query(credentials.map(|credentials| match credentials.split_once(':') {
                Some((user, _)) => format!("{user}:***"),
                None => credentials.to_owned(),
            })),
        })
    }

    /// The URI for libpq with additional parameters. Parameters that the URI already states are kept.
    pub fn with_defaults(&self, defaults: &[(&str, &str)]) -> String {
        self.with(&[], defaults)
    }

    /// The URI for libpq, with the parameters in `set` replacing its own, and those in `defaults` added if absent.
    pub fn with(&self, set: &[(&str, &str)], defaults: &[(&str, &str)]) -> String {
        let is_set = |name: &str| set.iter().any(|(other, _)| *other == name);
        let own = self.parameters.iter().filter(|(name, _)| !is_set(&decoded(name)));
        let own = own.map(|(name, value)| format!("{name}={value}"));
        let set = set.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        let others = defaults.iter().filter(|(name, _)| self.parameter(name).is_none());
        let others = others.map(|(name, value)| format!("{name}={value}"));
        with_query(&self.address, own.chain(set).chain(others))
    }

    /// The URI with this parameter, unless it states one of this name.
    pub fn with_default(&self, name: &str, value: &str) -> Self {
        let mut extended = self.clone();
        if self.parameter(name).is_none() {
            extended.parameters.push((name.to_owned(), value.to_owned()));
        }
        extended
    }

    /// The value of a parameter. If it occurs several times, the last one applies, as in libpq.
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        self.parameters.iter().rev().find(|(given, _)| decoded(given) == name).map(|(_, value)| decoded(value))
    }

    /// One URI for each host before the path. A URI with one host, or with hosts in its parameters, is returned as it
    /// is.
    pub fn split_hosts(&self) -> Vec<Self> {
        let is_split = self.hosts.contains(',')
            && ["host", "hostaddr", "port"].iter().all(|parameter| self.parameter(parameter).is_none());
        if !is_split {
            return vec![self.clone()];
        }
        let one = |host: &str| Self {
            address: replace_hosts(&self.address, &self.hosts, host),
            parameters: self.parameters.clone(),
            hosts: host.to_owned(),
            printed: replace_hosts(&self.printed, &self.hosts, host),
        };
        self.hosts.split(',').map(one).collect()
    }

    /// The hosts before the path with their ports, separated by commas. Empty if there are none.
    pub fn hosts(&self) -> Cow<'_, str> {
        decoded(&self.hosts)
    }
}

/// Whether the text is `HOST` or `HOST:PORT` with a numeric port. The host can be an address in brackets.
fn has_valid_port(host: &str) -> bool {
    let after = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map(|(_, after)| after),
        None => host.find(':').map_or(Some(""), |colon| host.get(colon..)),
    };
    let is_number = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    after.is_some_and(|after| after.is_empty() || after.strip_prefix(':').is_some_and(is_number))
}

/// Decodes as libpq does: surrounding spaces are removed, and `+` is not a space.
fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text.trim_matches(' ')).decode_utf8_lossy()
}

/// Replaces the hosts of an address without a query. At most one `@` is in it, before the hosts.
fn replace_hosts(address: &str, hosts: &str, by: &str) -> String {
    let delimiter = if address.contains('@') { "@" } else { "://" };
    let parts = address.split_once(delimiter).and_then(|(before, rest)| Some((before, rest.strip_prefix(hosts)?)));
    parts.map_or_else(|| address.to_owned(), |(before, path)| format!("{before}{delimiter}{by}{path}"))
}

fn with_query(address: &str, parameters: impl Iterator<Item = String>) -> String {
    let query = parameters.collect::<Vec<_>>().join("&");
    if query.is_empty() { address.to_owned() } else { format!("{address}?{query}") }
}

impl fmt::Display for PostgresUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printed = self.parameters.iter().filter_map(|(name, value)| match decoded(name) {
            name if PRINTED.contains(&&*name) => Some(format!("{name}={value}")),
            name if name == "password" => Some("password=***".to_owned()),
            _ => None,
        });
        f.write_str(&with_query(&self.printed, printed))
    }
}

impl fmt::Debug for PostgresUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANARY: &str = "canary";

    /// Generates passwords that contain the canary between characters that can delimit parts of an address.
    fn passwords() -> impl Strategy<Value = String> {
        let delimiters = r"([@/?#:%&=+, \[\]a0-9]|%40|%2F|\PC){0,4}";
        (delimiters, delimiters).prop_map(|(before, after)| format!("{before}{CANARY}{after}"))
    }

    /// Positions of a password in an address, valid or not.
    fn places() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "postgres://ada:{}@localhost/x",
            "postgres://ada:{}@localhost:5432/x?sslmode=require",
            "postgresql://:{}@/x",
            "postgres://ada:{}@[::1]:5432,db:1/x",
            "postgres://ada:1{}@localhost/x",
            "postgres://localhost/x?password={}",
            "postgres://localhost/x?p%61ssword={}&user=ada",
            "postgres://localhost?user=ada& password={}",
            "postgres://localhost/x?sslpassword={}",
            "postgres://localhost/x?pwd={}",
            "postgres://localhost/x?passwd={}#",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_password_is_never_printed_whatever_it_contains(password in passwords(), place in places()) {
            if let Some(uri) = PostgresUri::read(&place.replace("{}", &password)) {
                let printed = format!("{uri} {uri:?}");
                prop_assert!(!printed.contains(CANARY), "{}", printed);
            }
        }

        #[test]
        fn an_accepted_address_is_passed_to_libpq_unchanged(
            credentials in "([a-z#+%40]{0,5}(:[a-z:#+&=]{0,8})?@)?",
            place in r"(localhost|[a-z,.]{0,9}|\[::1\])(:[0-9]{0,4})?(/[a-z%#+]{0,5})?",
            query in r"(\?[a-z%4]{1,5}=[a-z/?#+]{0,5}(&[a-z]{1,5}=[a-z]{0,5}){0,3})?",
        ) {
            let uri = format!("postgres://{credentials}{place}{query}");
            prop_assert_eq!(PostgresUri::read(&uri).unwrap().with_defaults(&[]), uri);
        }

        #[test]
        fn reading_never_panics(text in r"(postgres://)?([@/?#:%&=,\[\]a0-9]|\PC){0,40}") {
            if let Some(uri) = PostgresUri::read(&text) {
                let _ = (uri.to_string(), uri.hosts(), uri.parameter("host"), uri.with_defaults(&[("a", "b")]));
            }
        }
    }

    #[test]
    fn ambiguous_addresses_are_rejected() {
        for uri in [
            "postgres://ada:p@ss@db/x",
            "postgres://ada:12/ss@db/x",
            "postgres://ada:p?ss@db/x",
            "postgres://ada:password",
            "postgres://ada:password/x",
            "postgres://db:54321000/x",
            "postgres://[::1/x",
            "postgres://[::1]y/x",
            "postgres://db?password=p@ss",
            "postgres://db/x?password=p&ss",
            "postgres://db/x?password=p=ss",
            "postgres:/db/x",
        ] {
            assert_eq!(PostgresUri::read(uri), None, "{uri}");
        }
    }

    #[test]
    fn an_address_with_several_hosts_is_split_into_one_for_each() {
        let split = |uri: &str| -> Vec<String> {
            PostgresUri::read(uri).unwrap().split_hosts().iter().map(|one| one.with_defaults(&[])).collect()
        };
        assert_eq!(
            split("postgres://ada:p,w@a:1,[::1]:2,c/a:1,b?sslmode=require"),
            [
                "postgres://ada:p,w@a:1/a:1,b?sslmode=require",
                "postgres://ada:p,w@[::1]:2/a:1,b?sslmode=require",
                "postgres://ada:p,w@c/a:1,b?sslmode=require"
            ]
        );
        assert_eq!(split("postgresql://a,b"), ["postgresql://a", "postgresql://b"]);
        for whole in ["postgres://a/x", "postgres:///x?host=a,b", "postgres://a,b/x?port=1,2", "postgres:///a,b"] {
            assert_eq!(split(whole), [whole]);
        }
        let one = &PostgresUri::read("postgres://ada:secret@a,b/x").unwrap().split_hosts()[1];
        assert_eq!((one.to_string().as_str(), &*one.hosts()), ("postgres://ada:***@b/x", "b"));
    }

    #[test]
    fn parameters_are_those_that_libpq_uses() {
        let uri = PostgresUri::read("postgres://a,b%2Cc:1/x?ssl%6Dode=prefer&&sslmode= require &x=a+b%20c").unwrap();
        assert_eq!(uri.hosts(), "a,b,c:1");
        assert_eq!(uri.parameter("sslmode").as_deref(), Some("require"), "the last one, without spaces around");
        assert_eq!(uri.parameter("x").as_deref(), Some("a+b c"));
        assert_eq!(uri.parameter("connect_timeout"), None);
        let uri = PostgresUri::read("postgres://ada:p#ss@db/x?connect_timeout=9").unwrap();
        let with_defaults = uri.with_defaults(&[("connect_timeout", "2"), ("keepalives_idle", "5")]);
        assert_eq!(with_defaults, "postgres://ada:p#ss@db/x?connect_timeout=9&keepalives_idle=5");
    }
}
