//! The `issue_requests` table: what the requests were called that issued keys.

use diesel::prelude::*;

use super::Conn;
use super::api_keys::{self, ApiKey};
use super::schema::issue_requests;
use crate::domain::id::{KeyId, UserId};
use crate::error::AppError;

/// Remembers that the request of this name, with this digest, was answered with this key.
pub fn insert(conn: &mut Conn, owner: UserId, name: &str, digest: &str, key: KeyId) -> Result<(), AppError> {
    diesel::insert_into(issue_requests::table)
        .values((
            issue_requests::owner_id.eq(owner.0),
            issue_requests::name.eq(name),
            issue_requests::request_digest.eq(digest),
            issue_requests::key_id.eq(key.0),
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
