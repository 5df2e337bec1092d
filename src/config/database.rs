//! `[database]`: which database, and how it is reached.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use super::postgres_uri::PostgresUri;
use super::{ConfigError, Settings, within};

/// `[database]`: which database and how many connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// SQLite or PostgreSQL, by scheme.
    pub url: DatabaseUrl,
    /// Connections at most.
    pub pool_size: u32,
    /// Seconds that the server waits at start for a database that is not there yet.
    pub start_timeout: u64,
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
            _ => Err("Write \"verify\" or \"any\"."),
        }
    }
}

impl DatabaseSettings {
    /// `environment` is what libpq falls back on where the address is silent. Errors name the key.
    pub(super) fn check(&self, environment: &HashMap<String, String>) -> Result<(), ConfigError> {
        within("database.pool_size", self.pool_size, 2, 1024)?;
        within("database.start_timeout", self.start_timeout, 0, 600)?;
        match &self.url {
            DatabaseUrl::Postgres(uri) if self.tls == DatabaseTls::Verify && !is_safe(uri, environment) => {
                Err(ConfigError::new("database.url", NOT_SAFE))
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    /// Whether a SQLite file is there or can be made. Errors say where the directory was looked for.
    pub fn check_database_file(&self) -> Result<(), ConfigError> {
        let DatabaseUrl::Sqlite(path) = &self.database.url else {
            return Ok(());
        };
        let refused = |message: String| Err(self.places.error("database.url", message));
        if path.is_dir() {
            let file = path.join("latchkey.db");
            return refused(format!(
                "{} is a directory. Name a file in it, such as {}.",
                path.display(),
                file.display()
            ));
        }
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        match directory {
            Some(directory) if !directory.is_dir() => {
                let (directory, path) = (directory.display(), path.display());
                let working = std::env::current_dir().unwrap_or_default();
                let relative = format!(
                    " It is relative to {}. For an absolute path write a third slash: sqlite:///{path}.",
                    working.display()
                );
                let hint = if self.database.url.is_absolute() { "" } else { &relative };
                refused(format!("The directory {directory} does not exist. Create it, or name another.{hint}"))
            }
            _ => Ok(()),
        }
    }
}

const NOT_SAFE: &str = "The connection to PostgreSQL on another machine would not be verified. Add \
    ?sslmode=verify-full (and sslrootcert=FILE for a certificate of your own) to the address; or set \
    database.tls = \"any\" (LATCHKEY__DATABASE__TLS=any) if you trust the network.";

/// Whether the connection stays on this machine, or is safe on its way.
fn is_safe(uri: &PostgresUri, environment: &HashMap<String, String>) -> bool {
    let variable = |name| environment.get(name).map(|value| Cow::Borrowed(value.as_str()));
    // A service is a file with parameters, which come before the environment.
    let has_service = uri.parameter("service").or_else(|| variable("PGSERVICE")).is_some();
    let sslmode = || variable("PGSSLMODE").filter(|_| !has_service);
    // libpq takes JDBC's `ssl=true` for `sslmode=require`.
    let may_require = uri.parameter("ssl").is_some();
    if !may_require && uri.parameter("sslmode").or_else(sslmode).as_deref() == Some("verify-full") {
        return true;
    }
    let before_path = Some(uri.hosts()).filter(|hosts| !hosts.is_empty());
    let hosts = uri.parameter("host").or(before_path).or_else(|| variable("PGHOST"));
    let addresses = uri.parameter("hostaddr").or_else(|| variable("PGHOSTADDR"));
    !has_service && [hosts, addresses].into_iter().flatten().all(|hosts| hosts.split(',').all(is_here))
}

/// Whether a host of a libpq address, with or without its port, is this machine.
fn is_here(host: &str) -> bool {
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or_default(),
        None => host,
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
    /// A server, reached through libpq.
    Postgres(PostgresUri),
}

impl TryFrom<String> for DatabaseUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        let (scheme, rest) = match url.split_once(':') {
            Some((scheme, rest)) if !scheme.is_empty() && !scheme.contains('/') => (scheme, rest),
            _ => ("", url.as_str()),
        };
        match scheme {
            "postgres" | "postgresql" if rest.starts_with("//") => {
                PostgresUri::read(&url).map(Self::Postgres).ok_or_else(|| NOT_READ.to_owned())
            }
            "sqlite" => sqlite_file(rest.strip_prefix("//").unwrap_or(rest)),
            // What the diesel command line takes for SQLite, too. A libpq keyword string is not a file name.
            "" if !rest.contains('=') => sqlite_file(rest),
            _ => Err("Write sqlite://FILE, a plain file path, or postgres://USER@HOST/NAME.".to_owned()),
        }
    }
}

const NOT_READ: &str = "Write postgres://USER:PASSWORD@HOST:PORT/NAME?PARAMETER=VALUE&…, and within each part @ as %40, \
    / as %2F, ? as %3F, & as %26, = as %3D, % as %25.";

fn sqlite_file(path: &str) -> Result<DatabaseUrl, String> {
    match path {
        "" => Err("The address is empty. Write sqlite://latchkey.db or postgres://USER@HOST/NAME.".to_owned()),
        path if path.contains(":memory:") => {
            Err("An in-memory database is not possible: each connection would have its own. Name a file.".to_owned())
        }
        path if path.starts_with("file:") => Err("Name the SQLite file itself, not a file: URI.".to_owned()),
        path if path.contains(['?', '#']) => {
            Err("A SQLite address takes no parameters. Name the file only.".to_owned())
        }
        // Such a name is rather the address of a server, and it would be printed.
        path if path.contains("password=") || path.split_once(':').is_some_and(|(_, rest)| rest.contains('@')) => {
            Err("A SQLite address names a file, and has no user and no password.".to_owned())
        }
        path => Ok(DatabaseUrl::Sqlite(PathBuf::from(path))),
    }
}

impl DatabaseUrl {
    /// Whether a SQLite file is named by its whole path.
    fn is_absolute(&self) -> bool {
        matches!(self, Self::Sqlite(path) if path.is_absolute())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(uri) => uri.fmt(f),
        }
    }
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
    use proptest::prelude::*;

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
            ("postgres://localhost,db.example.org/latchkey", false),
            ("postgres://localhost/latchkey?hostaddr=192.0.2.1", false),
            ("postgres://localhost/latchkey?host=db.example.org", false),
            ("postgres://[2001:db8::1]/latchkey", false),
            ("postgres://db/latchkey?sslmode=require", false),
            ("postgres://db/latchkey?sslmode=verify-ca", false),
            ("postgres://db/latchkey?sslmode=verify-full", true),
            ("postgres://db/latchkey?application_name=x&sslmode=verify-full", true),
            ("postgres://db/latchkey?user=sslmode%3Dverify-full", false),
            ("postgres://db/latchkey?sslmode=verify-full&sslmode=disable", false),
            ("postgres://db/latchkey?sslmode=verify-full&ssl=true", false),
            ("postgres://db/latchkey?sslmode=disable&ssl%6Dode=verify-full", true),
            ("postgres://%2Frun%2Cdb.example.org/latchkey", false),
            ("postgres://db.example.org/latchkey?host=localhost", true),
            ("postgres:///latchkey?service=other", false),
            ("postgres://db/latchkey?service=other&sslmode=verify-full", true),
        ] {
            assert_eq!(is_safe(&PostgresUri::read(url).unwrap(), &HashMap::new()), safe, "{url}");
        }
    }

    #[test]
    fn libpqs_environment_counts_where_the_address_is_silent() {
        for (url, variables, safe) in [
            ("postgres://db/latchkey", &[("PGSSLMODE", "verify-full")][..], true),
            ("postgres://db/latchkey?sslmode=disable", &[("PGSSLMODE", "verify-full")], false),
            ("postgres://db/latchkey", &[("PGSSLMODE", "verify-full"), ("PGSERVICE", "other")], false),
            ("postgres:///latchkey", &[("PGHOST", "db.example.org")], false),
            ("postgres:///latchkey", &[("PGHOST", "/run/postgresql")], true),
            ("postgres://localhost/latchkey", &[("PGHOST", "db.example.org")], true),
            ("postgres://localhost/latchkey", &[("PGHOSTADDR", "192.0.2.1")], false),
            ("postgres:///latchkey", &[("PGSERVICE", "other")], false),
        ] {
            let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(is_safe(&PostgresUri::read(url).unwrap(), &environment), safe, "{url} {variables:?}");
        }
    }

    proptest! {
        #[test]
        fn no_slip_in_the_scheme_shows_the_password(
            scheme in "(postgres|postgresql|sqlite|mysql|file)", slip in r"[ :/@?#=A-Za-z.\[\]]{0,2}",
            at in any::<prop::sample::Index>(), dropped in 0..3_usize,
        ) {
            let mut address = format!("{scheme}://");
            let at = at.index(address.len() + 1);
            address.replace_range(at..(at + dropped).min(address.len()), &slip);
            address += "ada:canary@localhost/x?password=canary";
            for address in [address.as_str(), address.split('?').next().unwrap_or_default()] {
                let shown = DatabaseUrl::try_from(address.to_owned()).map_or_else(|refusal| refusal, |url| format!("{url} {url:?}"));
                prop_assert!(!shown.contains("canary"), "{} → {}", address, shown);
            }
        }

        #[test]
        fn reading_an_address_never_panics(text in r"(postgres|sqlite)?:?(//)?([@/?#:%&=]|\PC){0,30}") {
            if let Ok(url) = DatabaseUrl::try_from(text) {
                let _ = url.to_string();
            }
        }
    }
}
