//! `[database]`: which database, and how it is reached.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use super::{ConfigError, within};

/// `[database]`: which database and how many connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// SQLite or PostgreSQL, by scheme.
    pub url: DatabaseUrl,
    /// Connections at most.
    pub pool_size: u32,
    /// Apply pending migrations at start.
    pub migrate_on_start: bool,
    /// What a connection to another machine takes.
    pub tls: DatabaseTls,
}

/// How safe a connection to PostgreSQL on another machine must be (ASVS 5.0, 12.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum DatabaseTls {
    /// By TLS with a server whose certificate is verified, name and all: `sslmode=verify-full`.
    Verify,
    /// As the address says.
    Any,
}

impl TryFrom<String> for DatabaseTls {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "verify" => Ok(Self::Verify),
            "any" => Ok(Self::Any),
            _ => Err("use \"verify\" or \"any\""),
        }
    }
}

impl DatabaseSettings {
    /// `sslmode` is libpq's from the environment, where the address names none. Errors name the key.
    pub(super) fn check(&self, sslmode: Option<&str>) -> Result<(), ConfigError> {
        within("database.pool_size", self.pool_size, 2, 1024)?;
        match &self.url {
            DatabaseUrl::Postgres(url) if self.tls == DatabaseTls::Verify && !is_safe(url, sslmode) => {
                Err(ConfigError(NOT_SAFE.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

const NOT_SAFE: &str = "database.url: whoever is between here and PostgreSQL on another machine could read and change \
    everything. Add sslmode=verify-full, and sslrootcert=FILE for a certificate of your own, to its parameters; or set \
    database.tls = \"any\" if you trust the network";

/// Whether the connection stays on this machine, or is safe on its way.
fn is_safe(url: &str, sslmode: Option<&str>) -> bool {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let parameter = |name| url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
    let mode = parameter("sslmode").map(|(_, mode)| mode.into_owned());
    if mode.as_deref().or(sslmode) == Some("verify-full") {
        return true;
    }
    let (_, rest) = address.split_once("://").unwrap_or(("", address));
    let authority = rest.split('/').next().unwrap_or_default();
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    let named = ["host", "hostaddr"].into_iter().filter_map(parameter).map(|(_, hosts)| hosts.into_owned());
    named.chain([hosts.to_owned()]).all(|hosts| hosts.split(',').all(is_here))
}

/// Whether a host of a libpq address, with or without its port, is this machine.
fn is_here(host: &str) -> bool {
    let host = percent_encoding::percent_decode_str(host).decode_utf8_lossy();
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or_default(),
        None => &host,
    };
    let is_socket = host.is_empty() || host.starts_with(['/', '@']);
    is_socket || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// A database address whose scheme is known. It prints with its password masked.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DatabaseUrl {
    /// A file.
    Sqlite(PathBuf),
    /// A libpq URI.
    Postgres(String),
}

impl TryFrom<String> for DatabaseUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        let (scheme, rest) = match url.split_once(':') {
            Some((scheme, rest)) if !scheme.is_empty() && !scheme.contains('/') => (scheme, rest),
            _ => ("", url.as_str()),
        };
        match scheme {
            "postgres" | "postgresql" if rest.starts_with("//") => Ok(Self::Postgres(url)),
            "sqlite" => sqlite_file(rest.strip_prefix("//").unwrap_or(rest)),
            // What the diesel command line takes for SQLite, too. A libpq keyword string is not a file name.
            "" if !rest.contains('=') => sqlite_file(rest),
            _ => Err("use sqlite://FILE, a plain file path, or postgres://USER@HOST/NAME".to_owned()),
        }
    }
}

fn sqlite_file(path: &str) -> Result<DatabaseUrl, String> {
    match path {
        "" => Err("the SQLite file name is missing".to_owned()),
        path if path.contains(":memory:") => {
            Err("an in-memory SQLite database would differ in every connection".to_owned())
        }
        path if path.starts_with("file:") => Err("name the SQLite file itself, not a file: URI".to_owned()),
        path if path.contains(['?', '#']) => Err("a SQLite address takes no parameters".to_owned()),
        path => Ok(DatabaseUrl::Sqlite(PathBuf::from(path))),
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => f.write_str(&masked(url)),
        }
    }
}

/// The address without its password, wherever libpq lets one stand: after the user, or as a parameter.
fn masked(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else {
        return "postgres://***".to_owned();
    };
    if parsed.password().is_some() && parsed.set_password(Some("***")).is_err() {
        return "postgres://***".to_owned();
    }
    let shown: Vec<(String, String)> = parsed
        .query_pairs()
        .map(|(key, value)| {
            let value = if key.contains("password") { "***".into() } else { value };
            (key.into_owned(), value.into_owned())
        })
        .collect();
    if !shown.is_empty() {
        parsed.query_pairs_mut().clear().extend_pairs(shown);
    }
    parsed.into()
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_this_machine_must_be_safe_on_its_way() {
        for (url, safe) in [
            ("postgres://latchkey@localhost/latchkey", true),
            ("postgres://latchkey:p%40ss@127.0.0.1:5432/latchkey", true),
            ("postgres://[::1]:5432/latchkey", true),
            ("postgres:///latchkey?host=/run/postgresql&user=latchkey", true),
            ("postgres://%2Frun%2Fpostgresql/latchkey", true),
            ("postgres:///latchkey", true),
            ("postgres://db/latchkey", false),
            ("postgres://a@localhost@db.example.org/latchkey", false),
            ("postgres://localhost,db.example.org/latchkey", false),
            ("postgres://localhost/latchkey?hostaddr=192.0.2.1", false),
            ("postgres://localhost/latchkey?host=db.example.org", false),
            ("postgres://[2001:db8::1]/latchkey", false),
            ("postgres://db/latchkey?sslmode=require", false),
            ("postgres://db/latchkey?sslmode=verify-ca", false),
            ("postgres://db/latchkey?sslmode=verify-full", true),
            ("postgres://db/latchkey?application_name=x&sslmode=verify-full", true),
            ("postgres://db/latchkey?user=sslmode=verify-full", false),
        ] {
            assert_eq!(is_safe(url, None), safe, "{url}");
        }
        assert!(is_safe("postgres://db/latchkey", Some("verify-full")));
        assert!(
            !is_safe("postgres://db/latchkey?sslmode=disable", Some("verify-full")),
            "the address has the last word"
        );
    }
}
