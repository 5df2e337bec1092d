//! The `account_cleanups` table: background work that changes of accounts have left, such as to update the rows of
//! revoked keys, or to delete the rows of a deleted account.

use chrono::NaiveDateTime;
use diesel::dsl::{exists, min, select};
use diesel::prelude::*;

use crate::db::OWNED;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::free_locked;
use crate::db::schema::account_cleanups;
use crate::domain::id::{EntryId, KeyId, UserId};
use crate::error::AppError;

/// What an account change has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All keys that the user issued.
    IssuedKeys,
    /// The keys that the user issued with scopes of Latchkey's own.
    ActingKeys,
    /// The account, with its keys and owned objects.
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

/// A cleanup and its progress.
#[derive(Clone, Debug)]
pub struct Cleanup {
    /// What has ended.
    pub kind: Kind,
    /// The owner of the rows.
    pub user: UserId,
    /// When the change ended them.
    pub ended_at: NaiveDateTime,
    /// The last key that has been processed.
    pub key_after: KeyId,
    /// The last key to process. Later keys have not ended.
    pub key_through: KeyId,
    /// The number of keys that have been processed.
    pub keys: i64,
    /// The progress for each kind of owned objects, in the order of [`OWNED`].
    pub objects: [Progress; OWNED.len()],
}

/// The progress for one kind of owned objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last object that has been processed.
    pub after: i64,
    /// The number of objects that have been processed.
    pub count: i64,
}

/// The database format: table, id and count of each kind, separated by spaces.
fn stored(objects: &[Progress; OWNED.len()]) -> String {
    let kinds = OWNED.iter().zip(objects);
    let kinds = kinds.map(|(kind, progress)| format!("{} {} {}", kind.table, progress.after, progress.count));
    kinds.collect::<Vec<_>>().join(" ")
}

/// Parses the format of [`stored`]. A kind that is missing has not begun.
fn from_stored(text: &str) -> [Progress; OWNED.len()] {
    let words: Vec<&str> = text.split(' ').collect();
    let mut objects = [Progress::default(); OWNED.len()];
    for (kind, progress) in OWNED.iter().zip(&mut objects) {
        if let Some([_, after, count]) = words.chunks_exact(3).find(|words| words.first() == Some(&kind.table)) {
            let number = |word: &str| word.parse().unwrap_or_default();
            *progress = Progress { after: number(after), count: number(count) };
        }
    }
    objects
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = account_cleanups)]
struct Row {
    user_id: i64,
    kind: String,
    entry_id: i64,
    ended_at: NaiveDateTime,
    key_after: i64,
    key_through: i64,
    keys: i64,
    objects: String,
}

/// Stores the cleanup of the change that `entry` records.
pub fn insert(conn: &mut Conn, cleanup: &Cleanup, entry: EntryId) -> Result<(), AppError> {
    diesel::insert_into(account_cleanups::table)
        .values((
            account_cleanups::user_id.eq(cleanup.user.0),
            account_cleanups::kind.eq(cleanup.kind.name()),
            account_cleanups::entry_id.eq(entry.0),
            account_cleanups::ended_at.eq(cleanup.ended_at),
            account_cleanups::key_after.eq(cleanup.key_after.0),
            account_cleanups::key_through.eq(cleanup.key_through.0),
            account_cleanups::keys.eq(cleanup.keys),
            account_cleanups::objects.eq(stored(&cleanup.objects)),
        ))
        .execute(conn)?;
    Ok(())
}

/// Whether a cleanup of this user is pending.
pub fn is_pending(conn: &mut Conn, user: UserId) -> Result<bool, AppError> {
    let pending = account_cleanups::table.filter(account_cleanups::user_id.eq(user.0));
    Ok(select(exists(pending)).get_result(conn)?)
}

/// The oldest audit entry that a pending cleanup refers to.
pub fn oldest_entry(conn: &mut Conn) -> Result<Option<EntryId>, AppError> {
    let oldest: Option<i64> = account_cleanups::table.select(min(account_cleanups::entry_id)).get_result(conn)?;
    Ok(oldest.map(EntryId))
}

/// The id of the oldest cleanup of each user, for at most `limit` users, oldest first.
pub fn next_of_each(conn: &mut Conn, limit: i64) -> Result<Vec<i64>, AppError> {
    let first = account_cleanups::table.group_by(account_cleanups::user_id).select(min(account_cleanups::id));
    let first: Vec<Option<i64>> = first.order(min(account_cleanups::id)).limit(limit).load(conn)?;
    Ok(first.into_iter().flatten().collect())
}

/// Locks the cleanup with this id until the transaction ends. Returns it with the audit entry of its change, or `None`
/// if it is done or another process has locked it.
pub fn try_lock(conn: &mut Conn, id: i64) -> Result<Option<(Cleanup, EntryId)>, AppError> {
    let rows: Vec<Row> = free_locked!(conn => account_cleanups::table.find(id).select(Row::as_select()))?;
    let Some(row) = rows.into_iter().next() else {
        return Ok(None);
    };
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == row.kind);
    let cleanup = Cleanup {
        kind: kind.ok_or_else(|| AppError::Internal(format!("unknown kind of cleanup: {}", row.kind).into()))?,
        user: UserId(row.user_id),
        ended_at: row.ended_at,
        key_after: KeyId(row.key_after),
        key_through: KeyId(row.key_through),
        keys: row.keys,
        objects: from_stored(&row.objects),
    };
    Ok(Some((cleanup, EntryId(row.entry_id))))
}

/// Stores the progress of a cleanup.
pub fn save(conn: &mut Conn, id: i64, cleanup: &Cleanup) -> Result<(), AppError> {
    diesel::update(account_cleanups::table.find(id))
        .set((
            account_cleanups::key_after.eq(cleanup.key_after.0),
            account_cleanups::keys.eq(cleanup.keys),
            account_cleanups::objects.eq(stored(&cleanup.objects)),
        ))
        .execute(conn)?;
    Ok(())
}

/// Deletes a cleanup that is done.
pub fn delete(conn: &mut Conn, id: i64) -> Result<(), AppError> {
    diesel::delete(account_cleanups::table.find(id)).execute(conn)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_it_was_stored_and_an_unknown_kind_is_ignored() {
        let [pages, ..] = from_stored("pages 17 3");
        assert_eq!(pages, Progress { after: 17, count: 3 });
        assert_eq!(from_stored("rockets 1 2 pages 17 3"), from_stored("pages 17 3"));
        assert_eq!(from_stored(&stored(&from_stored("pages 17 3"))), from_stored("pages 17 3"));
        for unreadable in ["", "pages", "rockets 1 2"] {
            assert_eq!(from_stored(unreadable), [Progress::default(); OWNED.len()], "{unreadable:?}");
        }
    }
}
