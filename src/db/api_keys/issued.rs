//! Queries for issued keys: by order, by claim code, and for the cleanup of keys that ended in bulk.

use chrono::NaiveDateTime;
use diesel::dsl::{max, sql};
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::row::{ApiKey, Found, existing, found};
use crate::clock::Timestamp;
use crate::db::engine::connection::{Conn, free_locked};
use crate::db::schema::api_keys;
use crate::domain::id::{KeyId, UserId};
use crate::domain::secret::Digest;
use crate::error::AppError;

/// The key with the claim code of this digest.
pub fn find_by_claim(conn: &mut Conn, code: Digest) -> Result<Option<ApiKey>, AppError> {
    let by_code = existing().filter(api_keys::claim_digest.eq(code.to_hex()));
    Ok(by_code.select(Found::as_select()).get_result(conn).optional()?.map(found))
}

/// The key that this owner issued for this order.
pub fn find_by_order(conn: &mut Conn, owner: UserId, order: &str) -> Result<Option<ApiKey>, AppError> {
    let by_order = existing().filter(api_keys::owner_id.eq(owner.0)).filter(api_keys::order_id.eq(order));
    Ok(by_order.select(Found::as_select()).get_result(conn).optional()?.map(found))
}

/// The state of an issued key, for the cleanup.
pub struct IssuedKey {
    /// The key.
    pub id: KeyId,
    /// Whether the row of the key is not marked as revoked.
    pub active: bool,
}

/// Issued keys with scopes of Latchkey's own. The condition is literally that of the partial index.
#[diesel::dsl::auto_type]
fn acting_keys() -> _ {
    let holds_own_scopes: SqlLiteral<Bool> = sql::<Bool>("issued AND scopes <> ''");
    api_keys::table.filter(holds_own_scopes)
}

/// The highest id of the keys that a user issued, with `acting` of those with scopes of Latchkey's own. 0 if there is
/// none.
pub fn last_issued(conn: &mut Conn, owner: UserId, acting: bool) -> Result<KeyId, AppError> {
    let last: Option<i64> = if acting {
        acting_keys().filter(api_keys::owner_id.eq(owner.0)).select(max(api_keys::id)).get_result(conn)?
    } else {
        let issued = api_keys::table.filter(api_keys::owner_id.eq(owner.0)).filter(api_keys::issued.eq(true));
        issued.select(max(api_keys::id)).get_result(conn)?
    };
    Ok(KeyId(last.unwrap_or(0)))
}

/// At most `limit` keys that a user issued, in the order of their ids, with `acting` of those with scopes of Latchkey's
/// own. The ids are above `after` and not above `through`.
pub fn issued_within(
    conn: &mut Conn,
    owner: UserId,
    acting: bool,
    (after, through): (KeyId, KeyId),
    limit: i64,
) -> Result<Vec<IssuedKey>, AppError> {
    let within = api_keys::owner_id.eq(owner.0).and(api_keys::id.gt(after.0)).and(api_keys::id.le(through.0));
    let columns = (api_keys::id, api_keys::revoked_at.is_null());
    let rows: Vec<(i64, bool)> = if acting {
        acting_keys().filter(within).order(api_keys::id).limit(limit).select(columns).load(conn)?
    } else {
        let issued = api_keys::table.filter(within).filter(api_keys::issued.eq(true));
        issued.order(api_keys::id).limit(limit).select(columns).load(conn)?
    };
    Ok(rows.into_iter().map(|(id, active)| IssuedKey { id: KeyId(id), active }).collect())
}

/// Marks keys as revoked at `at`, unless they already are.
pub fn revoke_all(conn: &mut Conn, ids: &[KeyId], at: NaiveDateTime) -> Result<(), AppError> {
    let active =
        api_keys::table.filter(api_keys::id.eq_any(ids.iter().map(|id| id.0))).filter(api_keys::revoked_at.is_null());
    diesel::update(active).set(api_keys::revoked_at.eq(at)).execute(conn)?;
    Ok(())
}

/// Ends all keys at `at`: deletes those of users themselves, and revokes issued ones. Returns their number.
pub fn end_all(conn: &mut Conn, at: Timestamp) -> Result<usize, AppError> {
    let own = diesel::delete(api_keys::table.filter(api_keys::issued.eq(false))).execute(conn)?;
    let active = api_keys::table.filter(api_keys::revoked_at.is_null());
    Ok(own + diesel::update(active).set(api_keys::revoked_at.eq(at.naive())).execute(conn)?)
}

/// Clears at most `limit` claim codes that expired at or before `end`, except in rows that are locked. Returns the
/// number of cleared codes.
pub fn clear_expired_claims(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired =
        api_keys::table.filter(api_keys::claim_digest.is_not_null()).filter(api_keys::claim_expires_at.le(end.naive()));
    let keys: Vec<i64> = free_locked!(conn => expired.order(api_keys::claim_expires_at)
        .limit(limit)
        .select(api_keys::id))?;
    let expired_rows = diesel::update(api_keys::table.filter(api_keys::id.eq_any(keys)));
    Ok(expired_rows.set(api_keys::claim_digest.eq(None::<String>)).execute(conn)?)
}
