//! Tests of the audit trail.

mod export;
mod history;
mod periods;
mod retention;
mod trail;

use latchkey::clock::Timestamp;

use crate::support::database::Database;

/// Adds entries about updates of a page, with this actor, outcome and time.
async fn add_entries(database: &Database, number: usize, actor: &str, outcome: &str, at: Timestamp) {
    let at = at.utc().format("%Y-%m-%d %H:%M:%S");
    database
        .execute(format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number})
             INSERT INTO audit_entries (at, actor, credential, scopes, action, target, changed, outcome)
             SELECT '{at}', '{actor}', 'none', '', 'page.update', 'page:1', '', '{outcome}' FROM n"
        ))
        .await;
}
