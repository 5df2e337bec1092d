//! The `sign_in_failures` table: failed sign-ins in a row, by account, or by account and known network.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::conn::{free_locked, on_backend};
use super::schema::sign_in_failures;
use crate::clock::Timestamp;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// A row of `sign_in_failures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// In a row.
    pub count: i64,
    /// When the first one was; `None` if that is not known, which is long ago.
    pub first_at: Option<Timestamp>,
    /// When the last one was that counted.
    pub last_at: Timestamp,
}

type Columns = (i64, Option<NaiveDateTime>, NaiveDateTime);

impl From<Columns> for Failures {
    fn from((count, first_at, last_at): Columns) -> Self {
        Self { count, first_at: first_at.map(Timestamp::from), last_at: last_at.into() }
    }
}

/// What is known of this account; nothing if it has not failed since it last succeeded.
pub fn find(conn: &mut Conn, account: Digest) -> Result<Option<Failures>, AppError> {
    let found: Option<Columns> = sign_in_failures::table
        .find(account.to_hex())
        .select((sign_in_failures::failures, sign_in_failures::first_at, sign_in_failures::last_at))
        .get_result(conn)
        .optional()?;
    Ok(found.map(Failures::from))
}

/// The same, which stays as found until the transaction ends. An account without failures gets a row: who fails in
/// parallel takes turns from the first time on, and the work is the same for every account.
pub fn lock(conn: &mut Conn, account: Digest, now: Timestamp) -> Result<Failures, AppError> {
    let none = (
        sign_in_failures::account.eq(account.to_hex()),
        sign_in_failures::failures.eq(0i64),
        sign_in_failures::first_at.eq(Some(now.naive())),
        sign_in_failures::last_at.eq(now.naive()),
    );
    let columns = (sign_in_failures::failures, sign_in_failures::first_at, sign_in_failures::last_at);
    let found: Columns = on_backend!(conn => diesel::insert_into(sign_in_failures::table)
        .values(none)
        .on_conflict(sign_in_failures::account)
        .do_update()
        .set(sign_in_failures::failures.eq(sign_in_failures::failures))
        .returning(columns)
        .get_result(conn))?;
    Ok(found.into())
}

/// Stores what has become of the failures of an account whose row is locked.
pub fn store(conn: &mut Conn, account: Digest, failures: Failures) -> Result<(), AppError> {
    diesel::update(sign_in_failures::table.find(account.to_hex()))
        .set((
            sign_in_failures::failures.eq(failures.count),
            sign_in_failures::first_at.eq(failures.first_at.map(Timestamp::naive)),
            sign_in_failures::last_at.eq(failures.last_at.naive()),
        ))
        .execute(conn)?;
    Ok(())
}

/// Forgets them; whether there were some.
pub fn forget(conn: &mut Conn, account: Digest) -> Result<bool, AppError> {
    forget_all(conn, vec![account.to_hex()])
}

/// Forgets those of these accounts, by their digests in hex; whether there were some.
pub fn forget_all(conn: &mut Conn, accounts: Vec<String>) -> Result<bool, AppError> {
    let forgotten = sign_in_failures::table.filter(sign_in_failures::account.eq_any(accounts));
    Ok(diesel::delete(forgotten).execute(conn)? > 0)
}

/// Forgets those of at most `limit` accounts that last failed before `end`, and if there were `stop` or more, before
/// `stopped_end`; how many.
pub fn forget_old(
    conn: &mut Conn,
    end: Timestamp,
    stopped_end: Timestamp,
    stop: i64,
    limit: i64,
) -> Result<usize, AppError> {
    let few = sign_in_failures::failures.lt(stop).and(sign_in_failures::last_at.le(end.naive()));
    let old = sign_in_failures::table.filter(few.or(sign_in_failures::last_at.le(stopped_end.naive())));
    let accounts: Vec<String> = free_locked!(conn => old.order(sign_in_failures::last_at)
        .limit(limit)
        .select(sign_in_failures::account))?;
    let forgotten = sign_in_failures::table.filter(sign_in_failures::account.eq_any(accounts));
    Ok(diesel::delete(forgotten).execute(conn)?)
}
