//! The `hourly_counts` table: what all processes have counted in each hour.

use chrono::NaiveDateTime;
use diesel::dsl::case_when;
use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::clock::Timestamp;
use crate::db::engine::connection::{Conn, free_locked, on_backend};
use crate::db::schema::hourly_counts::{self, dsl};
use crate::domain::stats::Counts;
use crate::error::AppError;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = hourly_counts)]
struct Row {
    hour: NaiveDateTime,
    sign_ins_succeeded: i64,
    sign_ins_failed: i64,
    sign_ins_throttled: i64,
    registrations: i64,
    requests_authorized: i64,
    requests_refused: i64,
    keys_used: i64,
    keys_new_in_day: i64,
    hash_queue_max: i64,
}

/// Adds counts to those of the hour that begins at `hour`.
pub fn add(conn: &mut Conn, hour: Timestamp, counts: Counts) -> Result<(), AppError> {
    let Counts {
        sign_ins_succeeded,
        sign_ins_failed,
        sign_ins_throttled,
        registrations,
        requests_authorized,
        requests_refused,
        keys_used,
        keys_new_in_day,
        hash_queue_max,
    } = counts;
    let row = Row {
        hour: hour.naive(),
        sign_ins_succeeded,
        sign_ins_failed,
        sign_ins_throttled,
        registrations,
        requests_authorized,
        requests_refused,
        keys_used,
        keys_new_in_day,
        hash_queue_max,
    };
    let longest = excluded(dsl::hash_queue_max);
    on_backend!(conn => diesel::insert_into(hourly_counts::table)
        .values(row)
        .on_conflict(dsl::hour)
        .do_update()
        .set((
            dsl::sign_ins_succeeded.eq(dsl::sign_ins_succeeded + excluded(dsl::sign_ins_succeeded)),
            dsl::sign_ins_failed.eq(dsl::sign_ins_failed + excluded(dsl::sign_ins_failed)),
            dsl::sign_ins_throttled.eq(dsl::sign_ins_throttled + excluded(dsl::sign_ins_throttled)),
            dsl::registrations.eq(dsl::registrations + excluded(dsl::registrations)),
            dsl::requests_authorized.eq(dsl::requests_authorized + excluded(dsl::requests_authorized)),
            dsl::requests_refused.eq(dsl::requests_refused + excluded(dsl::requests_refused)),
            dsl::keys_used.eq(dsl::keys_used + excluded(dsl::keys_used)),
            dsl::keys_new_in_day.eq(dsl::keys_new_in_day + excluded(dsl::keys_new_in_day)),
            dsl::hash_queue_max.eq(case_when(longest.gt(dsl::hash_queue_max), longest).otherwise(dsl::hash_queue_max)),
        ))
        .execute(conn))?;
    Ok(())
}

/// The counts of the hours that begin at or after `from` and before `end`, oldest first, each with its start. Hours in
/// which nothing happened are missing.
pub fn list(conn: &mut Conn, from: Timestamp, end: Timestamp) -> Result<Vec<(Timestamp, Counts)>, AppError> {
    let rows = dsl::hourly_counts.filter(dsl::hour.ge(from.naive())).filter(dsl::hour.lt(end.naive()));
    let rows: Vec<Row> = rows.order(dsl::hour).select(Row::as_select()).load(conn)?;
    Ok(rows.into_iter().map(|row| (row.hour.into(), row.into())).collect())
}

/// Deletes at most `limit` hours that begin before `end`, except rows that are locked. Returns the number of deleted
/// rows.
pub fn delete_old(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let old = dsl::hourly_counts.filter(dsl::hour.lt(end.naive()));
    let hours: Vec<NaiveDateTime> = free_locked!(conn => old.order(dsl::hour).limit(limit).select(dsl::hour))?;
    Ok(diesel::delete(dsl::hourly_counts.filter(dsl::hour.eq_any(hours))).execute(conn)?)
}

impl From<Row> for Counts {
    fn from(row: Row) -> Self {
        Self {
            sign_ins_succeeded: row.sign_ins_succeeded,
            sign_ins_failed: row.sign_ins_failed,
            sign_ins_throttled: row.sign_ins_throttled,
            registrations: row.registrations,
            requests_authorized: row.requests_authorized,
            requests_refused: row.requests_refused,
            keys_used: row.keys_used,
            keys_new_in_day: row.keys_new_in_day,
            hash_queue_max: row.hash_queue_max,
        }
    }
}
