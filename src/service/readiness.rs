//! Whether the server is ready, asked of the database once for all who ask at the same time: whoever asks often takes no
//! more of it than whoever asks once.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::db::migrate::{SchemaState, newer_schema};
use crate::db::{Db, for_one_request};
use crate::error::{AppError, NotReady};

/// How long an answer is the answer of others, too.
const FRESH: Duration = Duration::from_millis(100);

pub(super) const STOPPING: NotReady = NotReady { code: "stopping", detail: "The server is about to stop." };
const OUTDATED: NotReady =
    NotReady { code: "schema_outdated", detail: "The database schema is not up to date: run `latchkey migrate up`." };
const UNKNOWN: NotReady =
    NotReady { code: "schema_unknown", detail: "The database schema was migrated by a newer version of this program." };
const BUSY: NotReady = NotReady { code: "busy", detail: "The database does not answer." };

/// What was found last, and when.
#[derive(Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Result<(), NotReady>)>>);

impl Readiness {
    /// Whether the database answers, may be changed, and has our schema.
    pub(super) async fn check(&self, db: &Db) -> Result<(), AppError> {
        let mut last = self.0.lock().await;
        if let Some((at, found)) = *last
            && at.elapsed() < FRESH
        {
            return found.map_err(AppError::NotReady);
        }
        let (found, cause) = match for_one_request(None, look(db)).await {
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

/// Errors: the reason for everybody, and the cause for the log.
async fn look(db: &Db) -> Result<(), (NotReady, String)> {
    let no_answer = |error: AppError| (BUSY, error.to_string());
    let schema = match db.schema_state().await {
        Ok(schema) => schema,
        // It may have failed for a reason that has a name.
        Err(error) => {
            let defect = db.defect().await.ok().flatten();
            return Err(defect.map_or_else(|| no_answer(error), |defect| (defect.told, defect.cause)));
        }
    };
    match schema {
        SchemaState::Current => {}
        SchemaState::Outdated(pending) => return Err((OUTDATED, format!("pending: {}", pending.join(", ")))),
        SchemaState::Unknown(unknown) => return Err((UNKNOWN, newer_schema(&unknown))),
    }
    match db.defect().await.map_err(no_answer)? {
        None => Ok(()),
        Some(defect) => Err((defect.told, defect.cause)),
    }
}
