//! The readiness check. Its result is shared for 100 ms, so frequent checks cause few queries.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::db::engine::migrate::{SchemaState, newer_schema};
use crate::db::{Db, for_one_request};
use crate::error::{AppError, NotReady};

/// How long a result is reused.
const REUSE_FOR: Duration = Duration::from_millis(100);

pub(crate) const STOPPING: NotReady = NotReady { code: "stopping", detail: "The server is about to stop." };
const OUTDATED: NotReady =
    NotReady { code: "schema_outdated", detail: "The database schema is not up to date: run `latchkey migrate up`." };
const UNKNOWN: NotReady =
    NotReady { code: "schema_unknown", detail: "The database schema was migrated by a newer version of this program." };
const BUSY: NotReady = NotReady { code: "busy", detail: "The database does not answer." };

/// The last result and its time.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, Result<(), NotReady>)>>);

impl Readiness {
    /// Checks whether the database answers, accepts changes and has the schema of this version. Logs a new reason once.
    ///
    /// Errors: [`AppError::NotReady`] with the reason.
    pub(crate) async fn check(&self, db: &Db) -> Result<(), AppError> {
        let mut last = self.0.lock().await;
        if let Some((at, found)) = *last
            && at.elapsed() < REUSE_FOR
        {
            return found.map_err(AppError::NotReady);
        }
        let (found, cause) = match for_one_request(None, query_state(db)).await {
            Ok(()) => (Ok(()), String::new()),
            Err((reason, cause)) => (Err(reason), cause),
        };
        if found.is_err() && last.is_none_or(|(_, before)| before != found) {
            log::warn!("not ready: {cause}");
        }
        *last = Some((Instant::now(), found));
        found.map_err(AppError::NotReady)
    }
}

/// Queries the database.
///
/// Errors: the reason for the response, and the cause for the log.
async fn query_state(db: &Db) -> Result<(), (NotReady, String)> {
    let no_answer = |error: AppError| (BUSY, error.to_string());
    let schema = match db.schema_state().await {
        Ok(schema) => schema,
        // A known defect may have caused the failure.
        Err(error) => {
            let defect = db.defect().await.ok().flatten();
            return Err(defect.map_or_else(|| no_answer(error), |defect| (defect.not_ready, defect.cause)));
        }
    };
    match schema {
        SchemaState::Current => {}
        SchemaState::Outdated(pending) => return Err((OUTDATED, format!("pending: {}", pending.join(", ")))),
        SchemaState::Unknown(unknown) => return Err((UNKNOWN, newer_schema(&unknown))),
    }
    match db.defect().await.map_err(no_answer)? {
        None => Ok(()),
        Some(defect) => Err((defect.not_ready, defect.cause)),
    }
}
