//! The `issue_requests` table: what the requests were called that issued keys.

use diesel::prelude::*;

use super::Conn;
use super::api_keys::{self, ApiKey};
use super::conn::free_locked;
use super::schema::issue_requests;
use crate::clock::Timestamp;
use crate::domain::id::{KeyId, UserId};
use crate::error::AppError;

/// Most names of requests that one key answers to.
pub const NAMES_MAX: i64 = 100;

/// Remembers that the request of this name, with this digest, was answered with this key.
///
/// A key remembers so many names at most. Whoever repeats an order under one more gets the same answer all the same.
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

/// The key with which the request of this name was answered, and the request's digest.
pub fn find(conn: &mut Conn, owner: UserId, name: &str) -> Result<Option<(ApiKey, String)>, AppError> {
    let by_name = issue_requests::table.find((owner.0, name));
    let found: Option<(i64, String)> =
        by_name.select((issue_requests::key_id, issue_requests::request_digest)).get_result(conn).optional()?;
    // Two lookups: a planner who takes one of the tables for small would join them by walking the other.
    let Some((key, digest)) = found else {
        return Ok(None);
    };
    Ok(api_keys::find(conn, KeyId(key))?.map(|key| (key, digest)))
}

/// Forgets at most `limit` names that had been given at `end`, except those that somebody else is changing; how many.
pub fn forget_old(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let old = issue_requests::table.filter(issue_requests::created_at.le(end.naive()));
    let names: Vec<(i64, String)> = free_locked!(conn => old.order(issue_requests::created_at)
        .limit(limit)
        .select((issue_requests::owner_id, issue_requests::name)))?;
    for (owner, name) in &names {
        diesel::delete(issue_requests::table.find((owner, name))).execute(conn)?;
    }
    Ok(names.len())
}
