//! Conversion of database errors to [`AppError`].

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::db::engine::diagnosis::disk::reports_full_disk;
use crate::db::engine::diagnosis::{self, DISK_FULL, SqliteError};
use crate::db::engine::postgres::ConnectError;
use crate::error::AppError;

/// The error of a failed query. Callers handle the constraint violations that they expect, so any other violation is an
/// internal error. Connection problems and errors of unknown kind become [`AppError::Busy`].
impl From<DieselError> for AppError {
    fn from(error: DieselError) -> Self {
        if let DieselError::DatabaseError(_, info) = &error
            && let Some(kind) = diagnosis::classify_sqlite_error(info.message())
        {
            return match kind {
                SqliteError::Full => Self::NotReady(DISK_FULL),
                SqliteError::Io => Self::Busy(error.into()),
                SqliteError::Damaged | SqliteError::ReadOnly | SqliteError::Schema => Self::Internal(error.into()),
            };
        }
        match error {
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, info) if reports_full_disk(info.message()) => {
                Self::NotReady(DISK_FULL)
            }
            DieselError::DatabaseError(
                DatabaseErrorKind::Unknown
                | DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::SerializationFailure
                | DatabaseErrorKind::ReadOnlyTransaction,
                _,
            )
            | DieselError::BrokenTransactionManager => Self::Busy(error.into()),
            _ => Self::Internal(error.into()),
        }
    }
}

impl From<ConnectError> for AppError {
    fn from(error: ConnectError) -> Self {
        if error.is_temporary { Self::Busy(error.into()) } else { Self::Internal(error.into()) }
    }
}
