//! The `sign_in_failures` table: failed sign-ins in a row, by account.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use diesel::upsert::excluded;

use super::Conn;
use super::conn::{free_locked, on_backend};
use super::schema::sign_in_failures;
use crate::clock::Timestamp;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// A row of `sign_in_failures`.
#[derive(Clone, Copy, Debug)]
pub struct Failures {
    /// In a row.
    pub count: i64,
    /// When the last one was.
    pub last_at: Timestamp,
}

/// What is known of this account; nothing if it has not failed since it last succeeded.
pub fn find(conn: &mut Conn, account: Digest) -> Result<Option<Failures>, AppError> {
    let found: Option<(i64, NaiveDateTime)> = sign_in_failures::table
        .find(account.to_hex())
        .select((sign_in_failures::failures, sign_in_failures::last_at))
        .get_result(conn)
        .optional()?;
    Ok(found.map(|(count, last_at)| Failures { count, last_at: last_at.into() }))
}

/// Counts so many more, the last of them at `last_at`. None more is the same work, and changes nothing.
pub fn count(conn: &mut Conn, account: Digest, more: i64, last_at: Timestamp) -> Result<(), AppError> {
    let first = (
        sign_in_failures::account.eq(account.to_hex()),
        sign_in_failures::failures.eq(more),
        sign_in_failures::last_at.eq(last_at.naive()),
    );
    on_backend!(conn => diesel::insert_into(sign_in_failures::table)
        .values(first)
        .on_conflict(sign_in_failures::account)
        .do_update()
        .set((
            sign_in_failures::failures.eq(sign_in_failures::failures + more),
            sign_in_failures::last_at.eq(excluded(sign_in_failures::last_at)),
        ))
        .execute(conn))?;
    Ok(())
}

/// Forgets them; whether there were some.
pub fn forget(conn: &mut Conn, account: Digest) -> Result<bool, AppError> {
    Ok(diesel::delete(sign_in_failures::table.find(account.to_hex())).execute(conn)? > 0)
}

/// Forgets those of at most `limit` accounts that last failed before `end` and have fewer than `stop`; how many.
pub fn forget_old(conn: &mut Conn, end: Timestamp, stop: i64, limit: i64) -> Result<usize, AppError> {
    let old = sign_in_failures::table
        .filter(sign_in_failures::last_at.le(end.naive()))
        .filter(sign_in_failures::failures.lt(stop));
    let accounts: Vec<String> = free_locked!(conn => old.order(sign_in_failures::last_at)
        .limit(limit)
        .select(sign_in_failures::account))?;
    let forgotten = sign_in_failures::table.filter(sign_in_failures::account.eq_any(accounts));
    Ok(diesel::delete(forgotten).execute(conn)?)
}
