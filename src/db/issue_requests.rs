//! The `issue_requests` table: what the requests were called that issued keys.

use diesel::prelude::*;

use super::Conn;
use super::api_keys::ApiKey;
use super::schema::{api_keys, issue_requests};
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
    let by_name = issue_requests::table.find((owner.0, name)).inner_join(api_keys::table);
    Ok(by_name.select((ApiKey::as_select(), issue_requests::request_digest)).first(conn).optional()?)
}
