//! The `sign_in_failures` table: consecutive failed sign-ins per account, or per account and known network.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{free_locked, on_backend};
use crate::db::schema::{known_networks, sign_in_failures};
use crate::domain::id::UserId;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// A row of `sign_in_failures`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// The number of consecutive failures.
    pub count: i64,
    /// When the first of them occurred; `None` in rows from before this column existed, which count as old.
    pub first_at: Option<Timestamp>,
    /// When the last counted failure occurred.
    pub last_at: Timestamp,
}

type Columns = (i64, Option<NaiveDateTime>, NaiveDateTime);

impl From<Columns> for Failures {
    fn from((count, first_at, last_at): Columns) -> Self {
        Self { count, first_at: first_at.map(Timestamp::from), last_at: last_at.into() }
    }
}

/// The failures of this account; `None` if there is no row for it.
pub fn find(conn: &mut Conn, account: Digest) -> Result<Option<Failures>, AppError> {
    let found: Option<Columns> = sign_in_failures::table
        .find(account.to_hex())
        .select((sign_in_failures::failures, sign_in_failures::first_at, sign_in_failures::last_at))
        .get_result(conn)
        .optional()?;
    Ok(found.map(Failures::from))
}

/// The failures of those of these accounts that have at least `least` failures.
pub fn with_at_least(conn: &mut Conn, accounts: &[Digest], least: i64) -> Result<Vec<(String, Failures)>, AppError> {
    let accounts: Vec<String> = accounts.iter().copied().map(Digest::to_hex).collect();
    let found: Vec<(String, Columns)> = sign_in_failures::table
        .filter(sign_in_failures::account.eq_any(accounts))
        .filter(sign_in_failures::failures.ge(least))
        .select((
            sign_in_failures::account,
            (sign_in_failures::failures, sign_in_failures::first_at, sign_in_failures::last_at),
        ))
        .load(conn)?;
    Ok(found.into_iter().map(|(account, failures)| (account, failures.into())).collect())
}

/// The failures that were counted for known networks of these users, where there are at least `least`.
pub fn in_known_networks(conn: &mut Conn, users: &[UserId], least: i64) -> Result<Vec<(UserId, Failures)>, AppError> {
    let ids: Vec<i64> = users.iter().map(|user| user.0).collect();
    let counted = known_networks::network.eq(sign_in_failures::account);
    let found: Vec<(i64, Columns)> = known_networks::table
        .inner_join(sign_in_failures::table.on(counted))
        .filter(known_networks::user_id.eq_any(ids))
        .filter(sign_in_failures::failures.ge(least))
        .select((
            known_networks::user_id,
            (sign_in_failures::failures, sign_in_failures::first_at, sign_in_failures::last_at),
        ))
        .load(conn)?;
    Ok(found.into_iter().map(|(user, failures)| (UserId(user), failures.into())).collect())
}

/// The failures of this account, with the row locked until the transaction ends. Inserts a row with 0 failures if there
/// is none, so that parallel attempts are serialized from the first one on, and every account costs the same work.
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

/// Updates the failures of an account whose row is locked (see [`lock`]).
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

/// Deletes the failures of this account. Returns whether there was a row.
pub fn delete(conn: &mut Conn, account: Digest) -> Result<bool, AppError> {
    delete_all(conn, vec![account.to_hex()])
}

/// Deletes the failures of these accounts, which are hex digests. Returns whether there was a row.
pub fn delete_all(conn: &mut Conn, accounts: Vec<String>) -> Result<bool, AppError> {
    let rows = sign_in_failures::table.filter(sign_in_failures::account.eq_any(accounts));
    Ok(diesel::delete(rows).execute(conn)? > 0)
}

/// Deletes the failures of at most `limit` accounts, except rows that are locked. Accounts with fewer than `stop`
/// failures must have last failed at or before `end`, other accounts at or before `stopped_end`. Returns the number of
/// deleted rows.
pub fn delete_old(
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
    let rows = sign_in_failures::table.filter(sign_in_failures::account.eq_any(accounts));
    Ok(diesel::delete(rows).execute(conn)?)
}
