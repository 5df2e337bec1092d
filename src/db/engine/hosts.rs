//! Connects to one of the hosts that a URL names, and detects that another server has taken over.
//!
//! libpq tries hosts in the order of the URL. It waits for a host that does not answer at every attempt, ends with the
//! first host that rejects the connection, and returns to a former primary that is still running. Latchkey therefore
//! tries each host by itself, and begins with the host that it reached last.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::PostgresUri;
use crate::db::engine::postgres::{ConnectError, is_set};

/// A host that fails only after this time counts as one that does not answer. Other attempts then begin with the next.
const SLOW: Duration = Duration::from_secs(1);

/// The position of the host with which an attempt begins. All connections of a manager share it.
#[derive(Debug, Default)]
pub(crate) struct PreferredHost(AtomicUsize);

impl PreferredHost {
    /// Calls `connect` with the URL of one host after the other, until one succeeds. If the URL names several hosts,
    /// only one that accepts changes is suitable, unless the URL sets `target_session_attrs`.
    ///
    /// Errors: those of all hosts; temporary if one of them is.
    pub(crate) fn connect<T>(
        &self,
        uri: &PostgresUri,
        connect: impl Fn(&PostgresUri) -> Result<T, ConnectError>,
    ) -> Result<T, ConnectError> {
        let hosts = uri.split_hosts();
        if hosts.len() == 1 {
            return connect(uri);
        }
        let first = self.0.load(Ordering::Relaxed);
        let mut errors = Vec::new();
        let in_order = hosts.iter().enumerate().cycle().skip(first).take(hosts.len());
        for (position, host) in in_order {
            let (began, host) = (Instant::now(), only_read_write(host));
            match connect(&host) {
                Ok(connection) => {
                    self.0.store(position, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => {
                    if began.elapsed() >= SLOW {
                        let next = (position + 1) % hosts.len();
                        // Fails if another attempt has already chosen another host.
                        let _ = self.0.compare_exchange(position, next, Ordering::Relaxed, Ordering::Relaxed);
                    }
                    errors.push(error);
                }
            }
        }
        Err(ConnectError::of_hosts(&errors))
    }
}

fn only_read_write(host: &PostgresUri) -> PostgresUri {
    if is_set("PGTARGETSESSIONATTRS") { host.clone() } else { host.with_default("target_session_attrs", "read-write") }
}

/// The server from which the change log is read. When it changes, older connections are no longer used: they may lead
/// to a former primary, on which revoked credentials are still valid.
#[derive(Debug, Default)]
pub(crate) struct CurrentServer {
    /// The time at which the server was started, as its identity.
    started: Mutex<Option<String>>,
    generation: AtomicU64,
}

impl CurrentServer {
    /// Records the start time of the server from which the change log was read.
    pub(crate) fn set(&self, started: &str) {
        let mut current = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != Some(started) && current.replace(started.to_owned()).is_some() {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of changes of the server.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::thread::sleep;

    use super::*;

    const URI: &str = "postgres://a,b,c/x";

    /// Connects to the first host for which `outcome` returns `Ok`. Returns the hosts that were tried.
    fn tried(preferred: &PreferredHost, outcome: impl Fn(&str) -> Result<(), ConnectError>) -> String {
        let tried = RefCell::new(Vec::new());
        let _ = preferred.connect(&PostgresUri::read(URI).unwrap(), |host| {
            tried.borrow_mut().push(host.hosts().into_owned());
            assert_eq!(host.parameter("target_session_attrs").as_deref(), Some("read-write"));
            outcome(&host.hosts())
        });
        tried.into_inner().join(" ")
    }

    fn only(host: &'static str) -> impl Fn(&str) -> Result<(), ConnectError> {
        move |tried| if tried == host { Ok(()) } else { Err(ConnectError::temporary("session is read-only")) }
    }

    #[test]
    fn an_attempt_begins_with_the_host_that_was_reached_last() {
        let preferred = PreferredHost::default();
        assert_eq!(tried(&preferred, only("b")), "a b");
        assert_eq!(tried(&preferred, only("b")), "b");
        assert_eq!(tried(&preferred, only("a")), "b c a");
        assert_eq!(tried(&preferred, only("none")), "a b c");
        assert_eq!(tried(&preferred, only("a")), "a");
    }

    #[test]
    fn a_host_that_does_not_answer_is_tried_last() {
        let preferred = PreferredHost::default();
        let hangs = |tried: &str| {
            if tried == "a" {
                sleep(Duration::from_secs(1));
            }
            Err(ConnectError::temporary("timeout expired"))
        };
        assert_eq!(tried(&preferred, hangs), "a b c");
        assert_eq!(tried(&preferred, hangs), "b c a");
        assert_eq!(tried(&preferred, only("c")), "b c");
    }

    #[test]
    fn another_start_time_is_another_server() {
        let server = CurrentServer::default();
        let generations = ["1", "1", "2", "2", "1"].map(|started| {
            server.set(started);
            server.generation()
        });
        assert_eq!(generations, [0, 0, 1, 1, 2]);
    }

    #[test]
    fn an_error_of_all_hosts_is_temporary_if_that_of_one_host_is() {
        let connect = |last_is_temporary| {
            let failed =
                PreferredHost::default().connect(&PostgresUri::read(URI).unwrap(), |host| match &*host.hosts() {
                    "c" if last_is_temporary => Err::<(), _>(ConnectError::temporary("Connection refused")),
                    _ => Err(ConnectError::permanent("does not exist")),
                });
            failed.unwrap_err()
        };
        let error = connect(true);
        assert_eq!((error.is_temporary, error.to_string().lines().count()), (true, 3), "{error}");
        assert!(error.rejection().is_none());
        let error = connect(false);
        assert_eq!((error.is_temporary, error.to_string().lines().count()), (false, 3), "{error}");
        assert!(error.rejection().is_some());
    }
}
