//! Connections to PostgreSQL, and detection of a pooler in front of it.
//!
//! A pooler in transaction mode can assign another server session to each transaction. Prepared statements and session
//! settings of different clients then mix, and wrong statements run. Each new connection therefore sets a random mark
//! as a session setting. If the session returns the mark, no other client uses it. A pooler rejects or drops the
//! setting; then Latchkey uses nothing that outlives a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{CacheSize, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};

use crate::config::PostgresUri;
use crate::domain::secret::hex;

/// The server cancels a statement that takes too long, before its request times out.
const SESSION_SETUP: &str = "SET TIME ZONE 'UTC'; SET statement_timeout = '1500ms'; SET lock_timeout = '1200ms';
     SET idle_in_transaction_session_timeout = '10s';";

/// The same settings for one transaction, behind a pooler.
pub(crate) const TRANSACTION_SETUP: &str = "SET LOCAL statement_timeout = '1500ms'; SET LOCAL lock_timeout = '1200ms';
     SET LOCAL idle_in_transaction_session_timeout = '10s';";

/// Connection parameters by which libpq detects a server that has vanished. The last one is in milliseconds, the others
/// are in seconds or counts.
const TIMEOUTS: [(&str, &str); 5] = [
    ("connect_timeout", "2"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "2"),
    ("keepalives_count", "2"),
    ("tcp_user_timeout", "5000"),
];

/// An error that prevented a connection.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ConnectError {
    message: String,
    /// Whether another attempt may succeed, for example because the server is starting.
    pub(crate) is_temporary: bool,
}

impl ConnectError {
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_temporary: false }
    }

    pub(crate) fn temporary(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_temporary: true }
    }

    /// The error of an attempt that failed on several hosts. It is temporary if one of them may accept connections
    /// later: a standby can reject them for another reason than the primary, which is down.
    pub(crate) fn of_hosts(errors: &[Self]) -> Self {
        let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
        Self { message: messages.join("\n"), is_temporary: errors.iter().any(|error| error.is_temporary) }
    }
}

/// Parts of messages about connections that fail until an operator changes something, in lower case. libpq reports no
/// SQLSTATE of a failed connection. All other messages count as temporary, also those in other languages than English.
const REJECTIONS: [&str; 24] = [
    "authentication failed",
    "authentication method",
    "no password supplied",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "is not permitted to log in",
    "permission denied",
    // A database, a role, or a file of certificates.
    "does not exist",
    "no such database",
    "no such user",
    // `ALTER DATABASE … ALLOW_CONNECTIONS false`. The database system that starts up has another message.
    "is not currently accepting connections",
    // TLS. A connection that ends during the handshake is temporary.
    "does not support ssl",
    "does not support gssapi",
    "certificate",
    "private key",
    "unknown ca",
    "unsupported protocol",
    "wrong version number",
    "channel binding",
    // Parameters of the connection.
    "startup parameter",
    "configuration parameter",
    "invalid value for parameter",
    "unsupported frontend protocol",
    "is too long",
];

/// Whether an operator must change something before a connection with this error can succeed.
fn is_rejection(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    REJECTIONS.iter().any(|text| message.contains(text))
}

impl ConnectError {
    /// The cause and the remedy, if the server rejects all connections until an operator changes something.
    pub(crate) fn rejection(&self) -> Option<String> {
        (!self.is_temporary && is_rejection(&self.message)).then(|| {
            format!("{}: correct database.url and restart, or allow this connection in PostgreSQL", self.message)
        })
    }
}

/// Whether a pooler was detected, so that sessions can change after each transaction. Once detected, it stays set: the
/// behavior for poolers is also correct without one, only slower.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pooler(Arc<AtomicBool>);

impl Pooler {
    /// Whether a pooler was detected. If so, nothing that outlives a transaction must be used.
    pub(crate) fn is_present(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Records that a pooler was detected, and logs the evidence the first time.
    pub(crate) fn set_present(&self, evidence: &str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            log::info!("PostgreSQL is reached through a pooler ({evidence}); statements are prepared for each use");
        }
    }
}

/// The random value of the session setting `latchkey.direct`, which identifies the session of one connection.
#[derive(Debug)]
pub(crate) struct Mark(String);

const IS_MARKED: &str = "current_setting('latchkey.direct', true)";

impl Mark {
    fn random() -> Self {
        Self(hex(&rand::random::<[u8; 16]>()))
    }

    /// Whether the session of this connection has this mark.
    pub(crate) fn matches(&self, conn: &mut PgConnection) -> QueryResult<bool> {
        let found: Option<String> = diesel::select(diesel::dsl::sql::<Nullable<Text>>(IS_MARKED)).get_result(conn)?;
        Ok(found.as_ref() == Some(&self.0))
    }
}

/// Opens a connection. Returns its mark if no pooler is in between.
pub(crate) fn connect(uri: &PostgresUri, pooler: &Pooler) -> Result<(PgConnection, Option<Mark>), ConnectError> {
    // `options` in the URL would override those of a service file.
    let may_mark = !pooler.is_present() && uri.parameter("service").is_none() && !is_set("PGSERVICE");
    if may_mark {
        let mark = Mark::random();
        let options = options(uri, &mark);
        match establish(&uri.with(&[("options", &options)], &TIMEOUTS)) {
            Ok(mut conn) => {
                if mark.matches(&mut conn).map_err(|error| setup_error(&error))? {
                    conn.batch_execute(SESSION_SETUP).map_err(|error| setup_error(&error))?;
                    return Ok((conn, Some(mark)));
                }
                pooler.set_present("it drops the parameter options");
                if uri.parameter("options").is_some() || is_set("PGOPTIONS") {
                    return Err(ConnectError::permanent(OPTIONS_DROPPED));
                }
            }
            Err(error) if rejects_parameters(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let mut conn = establish(&uri.with(&[], &TIMEOUTS))?;
    conn.set_prepared_statement_cache_size(CacheSize::Disabled);
    pooler.set_present(if may_mark { "it rejects the parameter options" } else { "or through a service file" });
    Ok((conn, None))
}

const OPTIONS_DROPPED: &str = "a connection pooler in front of PostgreSQL drops the parameter options of the URL. \
    Remove it from the URL, and apply its settings with ALTER ROLE … SET …";

/// Whether this variable of the environment has a value.
pub(crate) fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// The options of the URL, followed by the mark. Without options in the URL, those of `PGOPTIONS` apply, as in libpq.
fn options(uri: &PostgresUri, mark: &Mark) -> String {
    let existing = uri.parameter("options").map(std::borrow::Cow::into_owned);
    let existing = existing.or_else(|| std::env::var("PGOPTIONS").ok()).unwrap_or_default();
    format!("{existing} -c latchkey.direct={}", mark.0).trim_start().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "this is the only place that connects to PostgreSQL")]
fn establish(uri: &str) -> Result<PgConnection, ConnectError> {
    PgConnection::establish(uri).map_err(|error| match error {
        ConnectionError::CouldntSetupConfiguration(error) => setup_error(&error),
        error => connect_error(&error.to_string()),
    })
}

fn setup_error(error: &diesel::result::Error) -> ConnectError {
    ConnectError::temporary(format!("the new connection cannot be set up: {error}"))
}

/// Whether the server or a pooler rejected one of the connection parameters.
fn rejects_parameters(error: &ConnectError) -> bool {
    let message = error.message.to_ascii_lowercase();
    ["startup parameter", "options", "unrecognized configuration parameter"].iter().any(|text| message.contains(text))
}

/// The error for a message of libpq. Only messages about a connection attempt are passed on: those about a URL that
/// libpq cannot parse quote parts of the URL, which can contain the password.
fn connect_error(message: &str) -> ConnectError {
    if message.contains("could not translate host name") {
        return ConnectError::temporary("the host name of the database server cannot be resolved");
    }
    if !message.starts_with("connection to server") {
        return ConnectError::permanent(
            "libpq cannot parse the database URL: check its parameters, and write special characters as %XX",
        );
    }
    ConnectError { message: message.trim_end().to_owned(), is_temporary: !is_rejection(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_an_operator_must_correct_are_permanent() {
        let is_temporary = |failed: &str| {
            connect_error(&format!("connection to server at \"db\" (10.0.0.1), port 5432 failed: {failed}"))
                .is_temporary
        };
        for temporary in [
            "Connection refused\n\tIs the server running?",
            "No such file or directory",
            "timeout expired",
            "session is read-only",
            "server is in hot standby mode",
            "server is not in hot standby mode",
            "SSL error: unexpected eof while reading",
            "FATAL:  the database system is starting up",
            "FATAL:  the database system is not yet accepting connections",
            "FATAL:  canceling authentication due to timeout",
            "FATAL:  too many connections for role \"latchkey\"",
            "FATAL:  remaining connection slots are reserved for \u{2026}",
            "FATAL:  terminating connection due to administrator command",
            "FATAL:  das Datenbanksystem startet",
            "a message of a later version",
        ] {
            assert!(is_temporary(temporary), "{temporary}");
        }
        for permanent in [
            "FATAL:  password authentication failed for user \"ada\"",
            "FATAL:  SASL authentication failed",
            "fe_sendauth: no password supplied",
            "FATAL:  database \"latchkey\" does not exist",
            "FATAL:  database \"latchkey\" is not currently accepting connections",
            "FATAL:  no such database: latchkey",
            "FATAL:  role \"latchkey\" is not permitted to log in",
            "FATAL:  permission denied for database \"latchkey\"",
            "Permission denied",
            "FATAL:  no pg_hba.conf entry for host \"10.0.0.2\", user \"ada\", database \"x\", no encryption",
            "FATAL:  pg_hba.conf rejects connection for host \"10.0.0.2\", user \"ada\", database \"x\"",
            "SSL error: certificate verify failed",
            "SSL error: tlsv1 alert unknown ca",
            "server certificate for \"db\" does not match host name \"other\"",
            "server does not support SSL, but SSL was required",
            "channel binding is required, but server did not offer an authentication method that supports it",
            "FATAL:  unrecognized configuration parameter \"serch_path\"",
            // The second address of a host name.
            "Connection refused\nconnection to server at \"db\" failed: FATAL:  role \"ada\" does not exist",
        ] {
            assert!(!is_temporary(permanent), "{permanent}");
        }
        assert!(connect_error("could not translate host name \"db\" to address: unknown").is_temporary);
        let unreadable = connect_error("invalid port number: \"canary\"");
        assert!(!unreadable.is_temporary && !unreadable.to_string().contains("canary"), "{unreadable}");
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
