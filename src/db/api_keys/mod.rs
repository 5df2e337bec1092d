//! The `api_keys` table.

mod issued;
mod row;
mod secret;

use diesel::prelude::*;

use self::row::{Found, existing, found};
use crate::db::cached::Cached;
use crate::db::engine::connection::{Conn, on_backend};
use crate::db::schema::api_keys;
use crate::domain::id::{KeyId, UserId};
use crate::error::AppError;

pub use self::issued::{
    IssuedKey, clear_expired_claims, end_all, find_by_claim, find_by_order, issued_within, last_issued, revoke_all,
};
pub use self::row::{ApiKey, KeyChange, NewKey};
pub use self::secret::{Resolved, StoredUse, lock_last_use, note_first_use, resolve, touch};

/// Inserts a key.
pub fn insert(conn: &mut Conn, new: &NewKey) -> Result<ApiKey, AppError> {
    Ok(on_backend!(conn => diesel::insert_into(api_keys::table)
        .values(new)
        .returning(ApiKey::as_returning())
        .get_result(conn))?)
}

/// The key with this id.
pub fn find(conn: &mut Conn, id: KeyId) -> Result<Option<ApiKey>, AppError> {
    let by_id = existing().filter(api_keys::id.eq(id.0));
    Ok(by_id.select(Found::as_select()).get_result(conn).optional()?.map(found))
}

/// At most `limit` keys of a user with higher ids than `after`, in the order of their ids: the issued ones if `issued`,
/// otherwise those that the user made for their own use.
pub fn list_of(
    conn: &mut Conn,
    owner: UserId,
    issued: bool,
    after: KeyId,
    limit: i64,
) -> Result<Vec<ApiKey>, AppError> {
    let rows = existing()
        .filter(api_keys::owner_id.eq(owner.0))
        .filter(api_keys::issued.eq(issued))
        .filter(api_keys::id.gt(after.0));
    let rows: Vec<Found> = rows.order(api_keys::id).limit(limit).select(Found::as_select()).load(conn)?;
    Ok(rows.into_iter().map(found).collect())
}

/// At most `limit` keys of all users with higher ids than `after`, in the order of their ids.
pub fn list(conn: &mut Conn, after: KeyId, limit: i64) -> Result<Vec<ApiKey>, AppError> {
    let rows = existing().filter(api_keys::id.gt(after.0)).order(api_keys::id).limit(limit);
    let rows: Vec<Found> = rows.select(Found::as_select()).load(conn)?;
    Ok(rows.into_iter().map(found).collect())
}

/// The number of keys that a user has made for their own use.
pub fn count_own(conn: &mut Conn, owner: UserId) -> Result<i64, AppError> {
    let own = api_keys::table.filter(api_keys::owner_id.eq(owner.0)).filter(api_keys::issued.eq(false));
    Ok(own.count().get_result(conn)?)
}

/// The ids of all keys that a user made for their own use. Their number is limited.
pub fn own_ids(conn: &mut Conn, owner: UserId) -> Result<Vec<KeyId>, AppError> {
    let own = api_keys::table.filter(api_keys::owner_id.eq(owner.0)).filter(api_keys::issued.eq(false));
    let ids: Vec<i64> = own.order(api_keys::id).select(api_keys::id).load(conn)?;
    Ok(ids.into_iter().map(KeyId).collect())
}

/// Updates a key and returns the new row.
pub fn update(conn: &mut Conn, id: KeyId, change: &KeyChange) -> Result<ApiKey, AppError> {
    Ok(on_backend!(conn => Cached(diesel::update(api_keys::table.find(id.0))
        .set(change)
        .returning(ApiKey::as_returning()))
        .get_result(conn))?)
}

/// Updates a key whose secret has not been used, and returns the new row; `None` if the secret has been used.
pub fn replace_unseen(conn: &mut Conn, id: KeyId, change: &KeyChange) -> Result<Option<ApiKey>, AppError> {
    Ok(on_backend!(conn => diesel::update(api_keys::table.find(id.0).filter(api_keys::secret_unseen))
        .set(change)
        .returning(ApiKey::as_returning())
        .get_result(conn)
        .optional())?)
}

/// Deletes a key.
pub fn delete(conn: &mut Conn, id: KeyId) -> Result<(), AppError> {
    diesel::delete(api_keys::table.find(id.0)).execute(conn)?;
    Ok(())
}

/// Deletes keys.
pub fn delete_all(conn: &mut Conn, ids: &[KeyId]) -> Result<(), AppError> {
    diesel::delete(api_keys::table.filter(api_keys::id.eq_any(ids.iter().map(|id| id.0)))).execute(conn)?;
    Ok(())
}
