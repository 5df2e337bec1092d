//! Connections to PostgreSQL, and whether a pooler stands in front of it.
//!
//! A pooler in transaction mode gives each transaction another session of the server. Named statements and session
//! settings of one client then meet those of another, and wrong statements run. So each new connection is told a random
//! mark as a setting of its session. A session that knows the mark is ours alone. A pooler rejects the setting or drops it,
//! and then nothing that outlives a transaction is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{CacheSize, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};

use crate::config::PostgresUri;
use crate::domain::secret::hex;

/// A statement that takes too long is ended by the server, before its caller gives up.
const SESSION_SETUP: &str = "SET TIME ZONE 'UTC'; SET statement_timeout = '1500ms'; SET lock_timeout = '1200ms';
     SET idle_in_transaction_session_timeout = '10s';";

/// The same for one transaction, where the session is not ours.
pub(super) const TRANSACTION_SETUP: &str = "SET LOCAL statement_timeout = '1500ms'; SET LOCAL lock_timeout = '1200ms';
     SET LOCAL idle_in_transaction_session_timeout = '10s';";

/// So that a vanished server is noticed: seconds, and milliseconds for the last.
const TIMEOUTS: [(&str, &str); 5] = [
    ("connect_timeout", "2"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "2"),
    ("keepalives_count", "2"),
    ("tcp_user_timeout", "5000"),
];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct ConnectError {
    message: String,
    /// Whether a server that is about to start may be the cause.
    pub(super) is_temporary: bool,
}

impl ConnectError {
    pub(super) fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_temporary: false }
    }

    pub(super) fn temporary(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_temporary: true }
    }
}

/// Whether sessions are another's after each transaction. Once it is known it stays: without sessions of our own
/// everything works everywhere, a little slower.
#[derive(Clone, Debug, Default)]
pub(super) struct Pooler(Arc<AtomicBool>);

impl Pooler {
    /// Whether nothing may be used that outlives a transaction.
    pub(super) fn is_present(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn is_found(&self, sign: &str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            log::info!("PostgreSQL is reached through a pooler ({sign}), so statements are prepared for each use");
        }
    }
}

/// The setting that only a session of our own knows, with a value that only we know.
#[derive(Debug)]
pub(super) struct Mark(String);

const IS_MARKED: &str = "current_setting('latchkey.direct', true)";

impl Mark {
    fn random() -> Self {
        Self(hex(&rand::random::<[u8; 16]>()))
    }

    /// Whether the session of this connection is still the one that was marked.
    pub(super) fn is_on(&self, conn: &mut PgConnection) -> QueryResult<bool> {
        let found: Option<String> = diesel::select(diesel::dsl::sql::<Nullable<Text>>(IS_MARKED)).get_result(conn)?;
        Ok(found.as_ref() == Some(&self.0))
    }
}

/// A new connection, and its mark if its session is ours alone.
pub(super) fn connect(uri: &PostgresUri, pooler: &Pooler) -> Result<(PgConnection, Option<Mark>), ConnectError> {
    // Options of a service file would be lost if the address had some.
    let may_mark = !pooler.is_present() && uri.parameter("service").is_none() && !is_set("PGSERVICE");
    if may_mark {
        let mark = Mark::random();
        let options = options(uri, &mark);
        match establish(&uri.with(&[("options", &options)], &TIMEOUTS)) {
            Ok(mut conn) => {
                if mark.is_on(&mut conn).map_err(|error| set_up(&error))? {
                    conn.batch_execute(SESSION_SETUP).map_err(|error| set_up(&error))?;
                    return Ok((conn, Some(mark)));
                }
                pooler.is_found("it drops the parameter options");
                if uri.parameter("options").is_some() || is_set("PGOPTIONS") {
                    return Err(ConnectError::permanent(OPTIONS_DROPPED));
                }
            }
            Err(error) if is_about_parameters(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let mut conn = establish(&uri.with(&[], &TIMEOUTS))?;
    conn.set_prepared_statement_cache_size(CacheSize::Disabled);
    pooler.is_found(if may_mark { "it rejects the parameter options" } else { "or by a service file" });
    Ok((conn, None))
}

const OPTIONS_DROPPED: &str = "a connection pooler in front of PostgreSQL drops the parameter options of the address. \
    Remove it from the address, and set what it set with ALTER ROLE … SET …";

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// The options of the address, or of the environment in their place as libpq has it, and the mark.
fn options(uri: &PostgresUri, mark: &Mark) -> String {
    let own = uri.parameter("options").map(std::borrow::Cow::into_owned);
    let own = own.or_else(|| std::env::var("PGOPTIONS").ok()).unwrap_or_default();
    format!("{own} -c latchkey.direct={}", mark.0).trim_start().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "this is the one place for PostgreSQL")]
fn establish(uri: &str) -> Result<PgConnection, ConnectError> {
    PgConnection::establish(uri).map_err(|error| match error {
        ConnectionError::CouldntSetupConfiguration(error) => set_up(&error),
        error => told(&error.to_string()),
    })
}

fn set_up(error: &diesel::result::Error) -> ConnectError {
    ConnectError::temporary(format!("the new connection does not work: {error}"))
}

/// Whether the server, or a pooler in its place, refused a parameter of ours.
fn is_about_parameters(error: &ConnectError) -> bool {
    let message = error.message.to_ascii_lowercase();
    ["startup parameter", "options", "unrecognized configuration parameter"].iter().any(|text| message.contains(text))
}

/// What libpq and servers say while a server is not there yet.
const TEMPORARY: [&str; 14] = [
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "No such file or directory",
    "No route to host",
    "Network is unreachable",
    "timeout expired",
    "closed the connection unexpectedly",
    "could not translate host name",
    "is starting up",
    "is shutting down",
    "not yet accepting connections",
    "in recovery mode",
    "too many clients",
];

/// libpq's words about a server that it could not reach. Its words about an address that it could not read quote
/// pieces of it, and so, it may be, of the password.
fn told(said: &str) -> ConnectError {
    if said.contains("could not translate host name") {
        return ConnectError::temporary("the name of the server's host cannot be resolved");
    }
    if !said.starts_with("connection to server") {
        return ConnectError::permanent(
            "libpq cannot read the address: look at its parameters, and write special characters as %XX",
        );
    }
    let is_temporary = TEMPORARY.iter().any(|text| said.contains(text));
    ConnectError { message: said.trim_end().to_owned(), is_temporary }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_is_not_there_yet_is_waited_for() {
        for (said, is_temporary) in [
            (
                "connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n\tIs the server running?",
                true,
            ),
            ("connection to server on socket \"/run/.s.PGSQL.5432\" failed: No such file or directory", true),
            ("connection to server at \"db\" (10.0.0.1), port 5432 failed: timeout expired", true),
            ("connection to server at \"db\" failed: FATAL:  the database system is starting up", true),
            ("could not translate host name \"db\" to address: Name or service not known", true),
            ("connection to server at \"db\" failed: FATAL:  password authentication failed for user \"ada\"", false),
            ("connection to server at \"db\" failed: FATAL:  database \"latchkey\" does not exist", false),
            ("connection to server at \"db\" failed: SSL error: certificate verify failed", false),
            ("connection to server at \"db\" failed: server does not support SSL, but SSL was required", false),
            ("invalid port number: \"canary\"", false),
        ] {
            let error = told(said);
            assert_eq!(error.is_temporary, is_temporary, "{said}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn the_mark_comes_after_the_options_of_the_address() {
        let mark = Mark("00ff".to_owned());
        for (query, expected) in [
            ("", "-c latchkey.direct=00ff"),
            ("?options=-csearch_path%3Dtest", "-csearch_path=test -c latchkey.direct=00ff"),
        ] {
            let uri = PostgresUri::read(&format!("postgres://db/x{query}")).unwrap();
            assert_eq!(options(&uri, &mark), expected);
        }
    }
}
