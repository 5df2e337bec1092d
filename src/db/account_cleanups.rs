//! The `account_cleanups` table: what a change of an account has ended, and what is still to be written or removed.

use chrono::NaiveDateTime;
use diesel::dsl::{exists, min, select};
use diesel::prelude::*;

use super::Conn;
use super::conn::free_locked;
use super::schema::account_cleanups;
use crate::domain::id::{EntryId, KeyId, PageId, UserId};
use crate::error::AppError;

/// What has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The keys that a user issued.
    IssuedKeys,
    /// Those of them that hold scopes of Latchkey's own.
    ActingKeys,
    /// The account with all that belongs to it.
    Account,
}

impl Kind {
    const ALL: [Self; 3] = [Self::IssuedKeys, Self::ActingKeys, Self::Account];

    const fn name(self) -> &'static str {
        match self {
            Self::IssuedKeys => "issued-keys",
            Self::ActingKeys => "acting-keys",
            Self::Account => "account",
        }
    }
}

/// What has ended, and how far its rows follow.
#[derive(Clone, Debug)]
pub struct Cleanup {
    /// What.
    pub kind: Kind,
    /// Whose.
    pub user: UserId,
    /// When.
    pub ended_at: NaiveDateTime,
    /// Keys up to this one are done.
    pub key_after: KeyId,
    /// Keys after this one have not ended.
    pub key_through: KeyId,
    /// Pages up to this one are done.
    pub page_after: PageId,
    /// How many keys so far.
    pub keys: i64,
    /// How many pages so far.
    pub pages: i64,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = account_cleanups)]
struct Row {
    user_id: i64,
    kind: String,
    entry_id: i64,
    ended_at: NaiveDateTime,
    key_after: i64,
    page_after: i64,
    key_through: i64,
    keys: i64,
    pages: i64,
}

/// Stores what is left to do after the change that this audit entry tells of.
pub fn insert(conn: &mut Conn, cleanup: &Cleanup, entry: EntryId) -> Result<(), AppError> {
    diesel::insert_into(account_cleanups::table)
        .values((
            account_cleanups::user_id.eq(cleanup.user.0),
            account_cleanups::kind.eq(cleanup.kind.name()),
            account_cleanups::entry_id.eq(entry.0),
            account_cleanups::ended_at.eq(cleanup.ended_at),
            account_cleanups::key_after.eq(cleanup.key_after.0),
            account_cleanups::page_after.eq(cleanup.page_after.0),
            account_cleanups::key_through.eq(cleanup.key_through.0),
            account_cleanups::keys.eq(cleanup.keys),
            account_cleanups::pages.eq(cleanup.pages),
        ))
        .execute(conn)?;
    Ok(())
}

/// Whether something is left to do for this user.
pub fn is_pending(conn: &mut Conn, user: UserId) -> Result<bool, AppError> {
    let pending = account_cleanups::table.filter(account_cleanups::user_id.eq(user.0));
    Ok(select(exists(pending)).get_result(conn)?)
}

/// What is to be done next for each of at most `limit` users, the oldest first.
pub fn next_of_each(conn: &mut Conn, limit: i64) -> Result<Vec<i64>, AppError> {
    let first = account_cleanups::table.group_by(account_cleanups::user_id).select(min(account_cleanups::id));
    let first: Vec<Option<i64>> = first.order(min(account_cleanups::id)).limit(limit).load(conn)?;
    Ok(first.into_iter().flatten().collect())
}

/// This one and the audit entry of its change, unless it is done or another process is at it. It is locked.
pub fn take(conn: &mut Conn, id: i64) -> Result<Option<(Cleanup, EntryId)>, AppError> {
    let rows: Vec<Row> = free_locked!(conn => account_cleanups::table.find(id).select(Row::as_select()))?;
    let Some(row) = rows.into_iter().next() else {
        return Ok(None);
    };
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == row.kind);
    let cleanup = Cleanup {
        kind: kind.ok_or_else(|| AppError::Internal(format!("no such cleanup: {}", row.kind).into()))?,
        user: UserId(row.user_id),
        ended_at: row.ended_at,
        key_after: KeyId(row.key_after),
        key_through: KeyId(row.key_through),
        page_after: PageId(row.page_after),
        keys: row.keys,
        pages: row.pages,
    };
    Ok(Some((cleanup, EntryId(row.entry_id))))
}

/// Stores how far it is.
pub fn save(conn: &mut Conn, id: i64, cleanup: &Cleanup) -> Result<(), AppError> {
    diesel::update(account_cleanups::table.find(id))
        .set((
            account_cleanups::key_after.eq(cleanup.key_after.0),
            account_cleanups::page_after.eq(cleanup.page_after.0),
            account_cleanups::keys.eq(cleanup.keys),
            account_cleanups::pages.eq(cleanup.pages),
        ))
        .execute(conn)?;
    Ok(())
}

/// It is done.
pub fn delete(conn: &mut Conn, id: i64) -> Result<(), AppError> {
    diesel::delete(account_cleanups::table.find(id)).execute(conn)?;
    Ok(())
}
