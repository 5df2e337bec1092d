//! `[database]`: the database and the connections to it.

mod postgres_uri;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

pub use self::postgres_uri::PostgresUri;
use super::choice::choice;
use super::{ConfigError, Places, Settings, within};

/// `[database]`: the database and the connections to it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// The address. Its scheme selects SQLite or PostgreSQL.
    pub url: DatabaseUrl,
    /// Maximum number of connections in the pool.
    pub pool_size: u32,
    /// Seconds that the server waits at start for a database that is not available yet.
    pub start_timeout: u64,
    /// Whether pending migrations are applied at start.
    pub migrate_on_start: bool,
    /// The rule for connections to PostgreSQL on another machine.
    pub tls: DatabaseTls,
}

choice! {
    /// The rule for connections to PostgreSQL on another machine (ASVS 5.0, 12.3.1 and 12.3.2).
    pub enum DatabaseTls {
        /// TLS with a verified certificate and host name is required: `sslmode=verify-full`.
        Verify = "verify",
        /// Any `sslmode` is allowed.
        Any = "any",
    }
}

impl DatabaseSettings {
    /// Checks the settings. libpq uses variables in `environment` for parameters that the address does not state.
    ///
    /// Errors name the setting.
    pub(super) fn check(&self, environment: &HashMap<String, String>) -> Result<(), ConfigError> {
        within("database.pool_size", self.pool_size, 2, 1024)?;
        within("database.start_timeout", self.start_timeout, 0, 600)?;
        match &self.url {
            DatabaseUrl::Postgres(uri)
                if self.tls == DatabaseTls::Verify && !is_local_or_verified(uri, environment) =>
            {
                Err(ConfigError::new("database.url", NOT_VERIFIED))
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    /// These settings with the database at `url`, which `argument` states.
    ///
    /// Errors name the argument.
    pub fn with_database(&self, argument: &str, url: &str) -> Result<Self, ConfigError> {
        let invalid = |message| ConfigError::new(argument, message);
        let mut settings = self.clone();
        settings.database.url = DatabaseUrl::try_from(url.to_owned()).map_err(invalid)?;
        settings.places = Places::default();
        let environment = std::env::vars_os();
        let environment =
            environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        settings.database.check(&environment.collect()).map_err(|error| invalid(error.message))?;
        Ok(settings)
    }

    /// Checks that the directory of a SQLite file exists and that the path is not a directory.
    ///
    /// Errors name the setting and the path.
    pub fn check_database_file(&self) -> Result<(), ConfigError> {
        let DatabaseUrl::Sqlite(path) = &self.database.url else {
            return Ok(());
        };
        let invalid = |message: String| Err(self.places.error("database.url", message));
        if path.is_dir() {
            let file = path.join("latchkey.db");
            return invalid(format!(
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
                invalid(format!("The directory {directory} does not exist. Create it, or name another.{hint}"))
            }
            _ => Ok(()),
        }
    }

    /// As [`Self::check_database_file`], and checks that the SQLite file exists, for commands that must not create it.
    ///
    /// Errors name the absolute path, and what to do.
    pub fn check_database_exists(&self) -> Result<(), ConfigError> {
        self.check_database_file()?;
        let DatabaseUrl::Sqlite(path) = &self.database.url else {
            return Ok(());
        };
        let file = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let file = file.display();
        let message = match path.try_exists() {
            Ok(true) => return Ok(()),
            Ok(false) => format!("There is no database at {file}.{NO_DATABASE}"),
            Err(error) => format!("{file} cannot be opened: {error}."),
        };
        let relative = " This path is relative to the working directory.";
        Err(self.places.error("database.url", message + if self.database.url.is_absolute() { "" } else { relative }))
    }
}

/// What to do if the database does not exist.
const NO_DATABASE: &str = " Name the file of your server in DATABASE_URL, or create a database with \
    `latchkey migrate up`.";

const NOT_VERIFIED: &str = "The connection to PostgreSQL on another machine would not be verified. Add \
    ?sslmode=verify-full (and sslrootcert=FILE for a certificate of your own) to the address; or set \
    database.tls = \"any\" (LATCHKEY__DATABASE__TLS=any) if you trust the network.";

/// Whether the connection stays on this machine, or uses TLS with a verified certificate and host name.
fn is_local_or_verified(uri: &PostgresUri, environment: &HashMap<String, String>) -> bool {
    let variable = |name| environment.get(name).map(|value| Cow::Borrowed(value.as_str()));
    // A service file can set any parameter, and overrides the environment.
    let has_service = uri.parameter("service").or_else(|| variable("PGSERVICE")).is_some();
    let sslmode = || variable("PGSSLMODE").filter(|_| !has_service);
    // libpq interprets `ssl=true`, as JDBC uses it, as `sslmode=require`.
    let has_ssl = uri.parameter("ssl").is_some();
    if !has_ssl && uri.parameter("sslmode").or_else(sslmode).as_deref() == Some("verify-full") {
        return true;
    }
    let before_path = Some(uri.hosts()).filter(|hosts| !hosts.is_empty());
    let hosts = uri.parameter("host").or(before_path).or_else(|| variable("PGHOST"));
    let addresses = uri.parameter("hostaddr").or_else(|| variable("PGHOSTADDR"));
    !has_service && [hosts, addresses].into_iter().flatten().all(|hosts| hosts.split(',').all(is_local))
}

/// Whether a host of a libpq address, with or without its port, is this machine or a socket on it.
fn is_local(host: &str) -> bool {
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or_default(),
        None => host,
    };
    let is_socket = host.is_empty() || host.starts_with(['/', '@']);
    is_socket || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The address of a database. It prints with a masked password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DatabaseUrl {
    /// The path of a SQLite file.
    Sqlite(PathBuf),
    /// The address of a PostgreSQL server, for libpq.
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
                PostgresUri::read(&url).map(Self::Postgres).ok_or_else(|| POSTGRES_SYNTAX.to_owned())
            }
            "sqlite" => sqlite_file(rest.strip_prefix("//").unwrap_or(rest)),
            // The Diesel command line accepts plain paths too. A libpq keyword string (`host=…`) is not a path.
            "" if !rest.contains('=') => sqlite_file(rest),
            _ => Err("Write sqlite://FILE, a plain file path, or postgres://USER@HOST/NAME.".to_owned()),
        }
    }
}

const POSTGRES_SYNTAX: &str = "Write postgres://USER:PASSWORD@HOST:PORT/NAME?PARAMETER=VALUE&…, and within each part \
    @ as %40, / as %2F, ? as %3F, & as %26, = as %3D, % as %25.";

fn sqlite_file(path: &str) -> Result<DatabaseUrl, String> {
    match path {
        "" => Err("The address is empty. Write sqlite://latchkey.db or postgres://USER@HOST/NAME.".to_owned()),
        path if path.contains(":memory:") => {
            Err("An in-memory database is not possible: each connection would have its own. Name a file.".to_owned())
        }
        path if path.starts_with("file:") => Err("Name the SQLite file itself, not a file: URI.".to_owned()),
        path if path.contains(['?', '#']) => {
            Err("A SQLite address must not have parameters. Name the file only.".to_owned())
        }
        // Such a path is probably the address of a server, and its password would be printed.
        path if path.contains("password=") || path.split_once(':').is_some_and(|(_, rest)| rest.contains('@')) => {
            Err("A SQLite address names a file. It must not contain a user or a password.".to_owned())
        }
        path => Ok(DatabaseUrl::Sqlite(PathBuf::from(path))),
    }
}

/// Suffixes of the files that SQLite creates beside a database.
pub const SQLITE_SIDE_FILES: &[&str] = &["-journal", "-wal", "-shm"];

impl DatabaseUrl {
    /// Whether `path` is that of the SQLite file, or of a file that SQLite creates beside it. If the file is reached
    /// through a link, those are beside the file that the link names.
    pub fn owns(&self, path: &Path) -> bool {
        let Self::Sqlite(database) = self else { return false };
        let place = |path: &Path| {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some((directory.canonicalize().ok()?, path.file_name()?.to_owned()))
        };
        let Some(wanted) = place(path) else { return false };
        let databases = [Some(database.clone()), database.canonicalize().ok()];
        databases.iter().flatten().any(|database| {
            SQLITE_SIDE_FILES.iter().chain(&[""]).any(|suffix| {
                let mut name = database.as_os_str().to_owned();
                name.push(suffix);
                place(Path::new(&name)).is_some_and(|place| place == wanted)
            })
        })
    }

    /// Whether this is the absolute path of a SQLite file.
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
    fn connections_to_other_machines_require_a_verified_certificate() {
        for (url, allowed) in [
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
            assert_eq!(is_local_or_verified(&PostgresUri::read(url).unwrap(), &HashMap::new()), allowed, "{url}");
        }
    }

    #[test]
    fn variables_of_libpq_apply_unless_the_address_states_the_parameter() {
        for (url, variables, allowed) in [
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
            let uri = PostgresUri::read(url).unwrap();
            assert_eq!(is_local_or_verified(&uri, &environment), allowed, "{url} {variables:?}");
        }
    }

    proptest! {
        #[test]
        fn an_error_in_the_scheme_does_not_reveal_the_password(
            scheme in "(postgres|postgresql|sqlite|mysql|file)", typo in r"[ :/@?#=A-Za-z.\[\]]{0,2}",
            at in any::<prop::sample::Index>(), dropped in 0..3_usize,
        ) {
            let mut address = format!("{scheme}://");
            let at = at.index(address.len() + 1);
            address.replace_range(at..(at + dropped).min(address.len()), &typo);
            address += "ada:canary@localhost/x?password=canary";
            for address in [address.as_str(), address.split('?').next().unwrap_or_default()] {
                let shown = DatabaseUrl::try_from(address.to_owned()).map_or_else(|error| error, |url| format!("{url} {url:?}"));
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
