//! Removal of the oldest entries of the `audit_entries` table. Triggers refuse to delete an entry unless an entry
//! `audit.prune` covers it: one with this part of the trail as its target, and with a greater id as `version_after`. On
//! PostgreSQL a function of the owner deletes, so the role that serves needs no `DELETE` on the table.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};

use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::schema::audit_entries;
use crate::domain::audit::{Action, Outcome, TrailPart};
use crate::domain::id::EntryId;
use crate::error::AppError;

/// The condition of the partial index `audit_entries_anonymous_failures`.
const ANONYMOUS_FAILURE: &str = "audit_entries.actor = 'anonymous' AND audit_entries.outcome <> 'success'";

/// The time of at most `limit` entries after `after`, oldest first.
pub fn times(conn: &mut Conn, after: EntryId, limit: i64) -> Result<Vec<(EntryId, Timestamp)>, AppError> {
    let found: Vec<(i64, NaiveDateTime)> = audit_entries::table
        .filter(audit_entries::id.gt(after.0))
        .order(audit_entries::id)
        .limit(limit)
        .select((audit_entries::id, audit_entries::at))
        .load(conn)?;
    Ok(found.into_iter().map(|(id, at)| (EntryId(id), at.into())).collect())
}

/// At most `limit` entries of a part, after `after` and before `below`, oldest first.
pub fn ids(
    conn: &mut Conn,
    part: TrailPart,
    after: EntryId,
    below: EntryId,
    limit: i64,
) -> Result<Vec<EntryId>, AppError> {
    let range = audit_entries::id.gt(after.0).and(audit_entries::id.lt(below.0));
    let mut ids = audit_entries::table.select(audit_entries::id).filter(range).into_boxed();
    if part == TrailPart::AnonymousFailures {
        ids = ids.filter(diesel::dsl::sql::<Bool>(ANONYMOUS_FAILURE));
    }
    let ids: Vec<i64> = ids.order(audit_entries::id).limit(limit).load(conn)?;
    Ok(ids.into_iter().map(EntryId).collect())
}

/// Of the failed attempts of anonymous callers before `below`, the one with this number, counted from the newest, which
/// is 1.
pub fn failure_by_number(conn: &mut Conn, below: EntryId, number: i64) -> Result<Option<EntryId>, AppError> {
    let id: Option<i64> = audit_entries::table
        .select(audit_entries::id)
        .filter(diesel::dsl::sql::<Bool>(ANONYMOUS_FAILURE))
        .filter(audit_entries::id.lt(below.0))
        .order(audit_entries::id.desc())
        .offset(number - 1)
        .limit(1)
        .get_result(conn)
        .optional()?;
    Ok(id.map(EntryId))
}

/// The id below which the newest entry `audit.prune` covers the entries of a part; 0 if there is none.
pub fn recorded_bound(conn: &mut Conn, part: TrailPart) -> Result<EntryId, AppError> {
    let bound: Option<(i64, Option<i64>)> = audit_entries::table
        .filter(audit_entries::target.eq(part.name()))
        .filter(audit_entries::action.eq(Action::Prune.name()))
        .filter(audit_entries::outcome.eq(Outcome::Success.name()))
        .order(audit_entries::id.desc())
        .select((audit_entries::id, audit_entries::version_after))
        .limit(1)
        .get_result(conn)
        .optional()?;
    // An entry never covers itself, as in the triggers.
    Ok(EntryId(bound.map_or(0, |(id, below)| below.unwrap_or_default().min(id))))
}

#[derive(QueryableByName)]
struct Removed {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Deletes the entries of a part after `after`, up to and including `through`. Returns their number.
///
/// Errors: no entry `audit.prune` covers them.
pub fn remove(conn: &mut Conn, part: TrailPart, after: EntryId, through: EntryId) -> Result<u64, AppError> {
    let count = match conn {
        Conn::Postgres(conn) => {
            diesel::sql_query("SELECT remove_audit_entries($1, $2, $3) AS count")
                .bind::<Text, _>(part.name())
                .bind::<BigInt, _>(after.0)
                .bind::<BigInt, _>(through.0)
                .get_result::<Removed>(conn)?
                .count
        }
        Conn::Sqlite(conn) => {
            let rows = audit_entries::table.filter(audit_entries::id.gt(after.0));
            let rows = rows.filter(audit_entries::id.le(through.0));
            let deleted = match part {
                TrailPart::All => diesel::delete(rows).execute(conn)?,
                TrailPart::AnonymousFailures => {
                    diesel::delete(rows.filter(diesel::dsl::sql::<Bool>(ANONYMOUS_FAILURE))).execute(conn)?
                }
            };
            i64::try_from(deleted).unwrap_or(i64::MAX)
        }
    };
    Ok(u64::try_from(count).unwrap_or_default())
}
