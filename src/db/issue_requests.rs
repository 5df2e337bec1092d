//! The `issue_requests` table: the names of the requests that created keys, by which a repeated request is recognized.

use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::api_keys::{self, ApiKey};
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::free_locked;
use crate::db::schema::issue_requests;
use crate::domain::id::{KeyId, UserId};
use crate::error::AppError;

/// The most request names that are stored for one key.
pub const NAMES_MAX: i64 = 100;

/// Stores that the request `name`, whose content has this digest, created `key`.
///
/// Does nothing if [`NAMES_MAX`] names are stored for the key. A further request for the same order still returns the
/// key, because the order identifies it.
pub fn insert(
    conn: &mut Conn,
    owner: UserId,
    name: &str,
    digest: &str,
    key: KeyId,
    now: Timestamp,
) -> Result<(), AppError> {
    let known = issue_requests::table.filter(issue_requests::key_id.eq(key.0)).count();
    if known.get_result::<i64>(conn)? >= NAMES_MAX {
        return Ok(());
    }
    diesel::insert_into(issue_requests::table)
        .values((
            issue_requests::owner_id.eq(owner.0),
            issue_requests::name.eq(name),
            issue_requests::request_digest.eq(digest),
            issue_requests::key_id.eq(key.0),
            issue_requests::created_at.eq(now.naive()),
        ))
        .execute(conn)?;
    Ok(())
}

/// The key that the request `name` of this owner created, and the digest of that request.
pub fn find(conn: &mut Conn, owner: UserId, name: &str) -> Result<Option<(ApiKey, String)>, AppError> {
    let by_name = issue_requests::table.find((owner.0, name));
    let row: Option<(i64, String)> =
        by_name.select((issue_requests::key_id, issue_requests::request_digest)).get_result(conn).optional()?;
    // Two lookups: a planner that estimates one table as small would join by a scan of the other.
    let Some((key, digest)) = row else {
        return Ok(None);
    };
    Ok(api_keys::find(conn, KeyId(key))?.map(|key| (key, digest)))
}

/// Deletes at most `limit` names that were stored at or before `end`, except rows that are locked. Returns the number
/// of deleted rows.
pub fn delete_old(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let old = issue_requests::table.filter(issue_requests::created_at.le(end.naive()));
    let names: Vec<(i64, String)> = free_locked!(conn => old.order(issue_requests::created_at)
        .limit(limit)
        .select((issue_requests::owner_id, issue_requests::name)))?;
    for (owner, name) in &names {
        diesel::delete(issue_requests::table.find((owner, name))).execute(conn)?;
    }
    Ok(names.len())
}
