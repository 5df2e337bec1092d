//! Transactions, and who decides whether one is committed.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use diesel::connection::{AnsiTransactionManager, TransactionManager, TransactionManagerStatus};
use diesel::prelude::*;
use diesel::result::Error as DieselError;

use super::conn::{Conn, on_backend};
use super::postgres::{Pooler, TRANSACTION_SETUP};
use crate::error::AppError;

/// The one moment at which a change is decided. Its caller is told "not done, try again" only if the commit has not
/// begun, and then it never will; once it has begun, only its outcome may be told.
pub(super) struct CommitGate {
    state: AtomicU8,
    /// No commit begins after this, even if nobody waits any longer to close the gate.
    deadline: Option<Instant>,
}

const OPEN: u8 = 0;
const COMMITTING: u8 = 1;
const CLOSED: u8 = 2;

impl CommitGate {
    /// Open until `deadline`, or without an end.
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self { state: AtomicU8::new(OPEN), deadline }
    }

    /// Whether the commit may begin. Afterwards nobody can close the gate.
    fn enter(&self) -> bool {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.close();
        }
        self.state.compare_exchange(OPEN, COMMITTING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Forbids the commit; whether that came in time.
    pub(super) fn close(&self) -> bool {
        match self.state.compare_exchange(OPEN, CLOSED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => true,
            Err(state) => state == CLOSED,
        }
    }
}

/// Runs `change` in one transaction, which is committed if `gate` is still open then. On SQLite it begins IMMEDIATE: a
/// transaction that reads first and then wants to write fails with "database is locked" at once, however long the busy
/// timeout (DESIGN, decision 4).
pub(super) fn write_transaction<T>(
    conn: &mut Conn,
    pooler: &Pooler,
    gate: &CommitGate,
    change: impl FnOnce(&mut Conn) -> Result<T, AppError>,
) -> Result<T, AppError> {
    begin(conn, pooler, "BEGIN;", "BEGIN IMMEDIATE")?;
    match change(conn) {
        Ok(value) if gate.enter() => commit(conn).map(|()| value),
        Ok(_) => {
            roll_back(conn);
            Err(too_late())
        }
        Err(error) => {
            roll_back(conn);
            Err(error)
        }
    }
}

/// Runs `query` on one snapshot of the database.
pub(super) fn read_transaction<T>(
    conn: &mut Conn,
    pooler: &Pooler,
    query: impl FnOnce(&mut Conn) -> Result<T, AppError>,
) -> Result<T, AppError> {
    begin(conn, pooler, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;", "BEGIN")?;
    let answer = query(conn);
    // There is nothing to keep, and so nothing that could fail.
    roll_back(conn);
    answer
}

/// Runs `work` outside any transaction of its own: each statement by itself, or where sessions are not ours, in one that
/// sees what each statement by itself would see.
pub(super) fn on_its_own<T>(
    conn: &mut Conn,
    pooler: &Pooler,
    work: impl FnOnce(&mut Conn) -> Result<T, AppError>,
) -> Result<T, AppError> {
    match conn {
        Conn::Postgres(_) if pooler.is_present() => write_transaction(conn, pooler, &CommitGate::new(None), work),
        _ => work(conn),
    }
}

/// The error of whoever had no time left, and whose change is not stored.
pub(super) fn too_late() -> AppError {
    AppError::Busy("the database takes too long to answer".into())
}

fn begin(conn: &mut Conn, pooler: &Pooler, postgres: &str, sqlite: &str) -> Result<(), AppError> {
    let begun = match conn {
        Conn::Postgres(conn) if pooler.is_present() => {
            AnsiTransactionManager::begin_transaction_sql(conn, &[postgres, TRANSACTION_SETUP].concat())
        }
        Conn::Postgres(conn) => AnsiTransactionManager::begin_transaction_sql(conn, postgres),
        Conn::Sqlite(conn) => AnsiTransactionManager::begin_transaction_sql(conn, sqlite),
    };
    if begun.is_err()
        && let Conn::Postgres(conn) = conn
    {
        // It may have begun before it failed.
        AnsiTransactionManager::transaction_manager_status_mut(conn).set_in_error();
    }
    Ok(begun?)
}

/// A connection that cannot roll back is thrown away by the pool, and the server rolls back then.
fn roll_back(conn: &mut Conn) {
    let _ = on_backend!(conn => AnsiTransactionManager::rollback_transaction(conn));
}

fn commit(conn: &mut Conn) -> Result<(), AppError> {
    let Err(error) = on_backend!(conn => AnsiTransactionManager::commit_transaction(conn)) else {
        return Ok(());
    };
    let is_undecided = match conn {
        // A server that answers has rolled back; one that is gone may have committed before it went.
        Conn::Postgres(conn) => is_lost(conn),
        // Diesel has rolled back what was not committed for want of a lock or of room. What was half written when the
        // disk failed may come back with the next start.
        Conn::Sqlite(_) => is_disk_error(&error),
    };
    Err(if is_undecided { AppError::OutcomeUnknown(error.into()) } else { error.into() })
}

fn is_disk_error(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(_, told) if told.message() == "disk I/O error")
}

/// Whether the connection is of no more use.
fn is_lost<C>(conn: &mut C) -> bool
where
    C: Connection<TransactionManager = AnsiTransactionManager>,
{
    matches!(AnsiTransactionManager::transaction_manager_status_mut(conn), TransactionManagerStatus::InError)
}

/// Whether the connection is within a transaction, or of no more use.
pub(super) fn is_mid_transaction(conn: &mut Conn) -> bool {
    on_backend!(conn => match AnsiTransactionManager::transaction_manager_status_mut(conn) {
        TransactionManagerStatus::Valid(status) => status.transaction_depth().is_some(),
        TransactionManagerStatus::InError => true,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn either_the_commit_begins_or_the_gate_is_closed_and_never_both() {
        let gate = CommitGate::new(None);
        assert!(gate.enter());
        assert!(!gate.close(), "the commit has begun");

        let gate = CommitGate::new(None);
        assert!(gate.close());
        assert!(gate.close(), "it is closed already");
        assert!(!gate.enter());
    }

    #[test]
    fn no_commit_begins_after_the_deadline() {
        let gate = CommitGate::new(Some(Instant::now()));
        assert!(!gate.enter());
        assert!(gate.close());
        assert!(CommitGate::new(Some(Instant::now() + Duration::from_secs(60))).enter());
    }
}
