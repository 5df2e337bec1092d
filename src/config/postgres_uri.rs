//! A PostgreSQL address, cut where libpq cuts it: what libpq takes for a password must be one here, too.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Parameters that say which database it is, by whom and how safely. No other is printed: its value may be a secret,
/// and its name a piece of one that holds a `&`.
const PRINTED: [&str; 6] = ["host", "hostaddr", "port", "dbname", "user", "sslmode"];

/// A libpq URI. It prints without its secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUri {
    /// All before the query, as written.
    address: String,
    /// Names and values of the query, as written.
    parameters: Vec<(String, String)>,
    /// With their ports, as written.
    hosts: String,
    /// All before the query, as it may be printed.
    printed: String,
}

impl PostgresUri {
    /// Reads an address that begins with `SCHEME://`; `None` if people could read it in another way than libpq, which
    /// would take a piece of a password for a host, a port or a name. All of those show.
    pub fn read(uri: &str) -> Option<Self> {
        let (scheme, rest) = uri.split_once("://")?;
        let (credentials, rest) = match rest.split_once('@') {
            Some((credentials, rest)) if !credentials.contains('/') => (Some(credentials), rest),
            _ => (None, rest),
        };
        if rest.contains('@') || credentials.is_some_and(|credentials| credentials.contains('?')) {
            return None;
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let hosts = place.split('/').next().unwrap_or_default();
        if !hosts.split(',').all(has_a_number_for_port) {
            return None;
        }
        let pieces = query.split('&').filter(|piece| !piece.is_empty());
        let parameters = pieces.map(|piece| {
            let (name, value) = piece.split_once('=')?;
            (!value.contains('=')).then(|| (name.to_owned(), value.to_owned()))
        });
        let before_query = |credentials: Option<String>| match credentials {
            Some(credentials) => format!("{scheme}://{credentials}@{place}"),
            None => format!("{scheme}://{place}"),
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

    /// The URI for libpq, with more parameters, except where it states its own.
    pub fn with_defaults(&self, defaults: &[(&str, &str)]) -> String {
        self.with(&[], defaults)
    }

    /// The same, with the parameters of `set` in the place of its own.
    pub fn with(&self, set: &[(&str, &str)], defaults: &[(&str, &str)]) -> String {
        let is_set = |name: &str| set.iter().any(|(other, _)| *other == name);
        let own = self.parameters.iter().filter(|(name, _)| !is_set(&decoded(name)));
        let own = own.map(|(name, value)| format!("{name}={value}"));
        let set = set.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        let others = defaults.iter().filter(|(name, _)| self.parameter(name).is_none());
        let others = others.map(|(name, value)| format!("{name}={value}"));
        with_query(&self.address, own.chain(set).chain(others))
    }

    /// The same, with this name for the connection unless it states one.
    pub fn with_application_name(&self, name: &str) -> Self {
        let mut named = self.clone();
        if self.parameter("application_name").is_none() {
            named.parameters.push(("application_name".to_owned(), name.to_owned()));
        }
        named
    }

    /// The value of a parameter. Of several, libpq takes the last.
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        self.parameters.iter().rev().find(|(given, _)| decoded(given) == name).map(|(_, value)| decoded(value))
    }

    /// Hosts before the path, with their ports, separated by commas; empty if there are none.
    pub fn hosts(&self) -> Cow<'_, str> {
        decoded(&self.hosts)
    }
}

/// `HOST`, `HOST:PORT` or the same with an address in brackets.
fn has_a_number_for_port(host: &str) -> bool {
    let after = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map(|(_, after)| after),
        None => host.find(':').map_or(Some(""), |colon| host.get(colon..)),
    };
    let is_number = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    after.is_some_and(|after| after.is_empty() || after.strip_prefix(':').is_some_and(is_number))
}

/// As libpq decodes: spaces around are dropped, and `+` is no space.
fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text.trim_matches(' ')).decode_utf8_lossy()
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

    /// A password that holds the canary anywhere, between what could end or begin something.
    fn passwords() -> impl Strategy<Value = String> {
        let piece = r"([@/?#:%&=+, \[\]a0-9]|%40|%2F|\PC){0,4}";
        (piece, piece).prop_map(|(before, after)| format!("{before}{CANARY}{after}"))
    }

    /// Where a password may stand, rightly or not.
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
        fn a_password_is_printed_nowhere_whatever_it_holds(password in passwords(), place in places()) {
            if let Some(uri) = PostgresUri::read(&place.replace("{}", &password)) {
                let printed = format!("{uri} {uri:?}");
                prop_assert!(!printed.contains(CANARY), "{}", printed);
            }
        }

        #[test]
        fn what_is_read_reaches_libpq_as_it_was_written(
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
    fn what_libpq_would_cut_elsewhere_than_people_is_not_read() {
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
    fn parameters_are_those_that_libpq_takes() {
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
