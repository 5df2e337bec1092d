//! The `known_networks` table: the networks from which users have signed in, and wider ones (places) for notices.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{free_locked, on_backend};
use crate::db::schema::known_networks;
use crate::domain::id::UserId;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// Maximum number of known networks per user, and of known places.
const MAX: i64 = 20;

/// When a user last signed in from this network; `None` if the network is unknown.
pub fn seen_at(conn: &mut Conn, network: Digest) -> Result<Option<Timestamp>, AppError> {
    let by_network = known_networks::table.find(network.to_hex()).select(known_networks::seen_at);
    let found: Option<NaiveDateTime> = by_network.get_result(conn).optional()?;
    Ok(found.map(Timestamp::from))
}

/// Records that `user` signed in from this network, at most 20 for each user. With `is_place`, it is a place, of
/// which there are as many.
pub fn record(conn: &mut Conn, user: UserId, network: Digest, now: Timestamp, is_place: bool) -> Result<(), AppError> {
    let row = (
        known_networks::is_place.eq(is_place),
        known_networks::network.eq(network.to_hex()),
        known_networks::user_id.eq(user.0),
        known_networks::seen_at.eq(now.naive()),
    );
    on_backend!(conn => diesel::insert_into(known_networks::table)
        .values(row)
        .on_conflict(known_networks::network)
        .do_update()
        .set(known_networks::seen_at.eq(now.naive()))
        .execute(conn))?;
    let of_kind = of(user).filter(known_networks::is_place.eq(is_place));
    let newest_first = of_kind.order((known_networks::seen_at.desc(), known_networks::network));
    // SQLite allows OFFSET only after LIMIT.
    let too_many: Vec<String> = newest_first.offset(MAX).limit(i64::MAX).select(known_networks::network).load(conn)?;
    if !too_many.is_empty() {
        diesel::delete(known_networks::table.filter(known_networks::network.eq_any(too_many))).execute(conn)?;
    }
    Ok(())
}

/// The networks of a user, without places, as hex digests.
pub fn list(conn: &mut Conn, user: UserId) -> Result<Vec<String>, AppError> {
    Ok(of(user).filter(known_networks::is_place.eq(false)).select(known_networks::network).load(conn)?)
}

/// Whether any network or place of a user is known.
pub fn is_any_known(conn: &mut Conn, user: UserId) -> Result<bool, AppError> {
    let found: Option<String> = of(user).select(known_networks::network).get_result(conn).optional()?;
    Ok(found.is_some())
}

/// Deletes the networks of a user.
pub fn delete_of(conn: &mut Conn, user: UserId) -> Result<(), AppError> {
    diesel::delete(of(user)).execute(conn)?;
    Ok(())
}

/// Deletes at most `limit` networks that were last seen at or before `end`, except rows that are locked. Returns the
/// number of deleted rows.
pub fn delete_old(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let old = known_networks::table.filter(known_networks::seen_at.le(end.naive()));
    let networks: Vec<String> = free_locked!(conn => old.order(known_networks::seen_at)
        .limit(limit)
        .select(known_networks::network))?;
    let expired = known_networks::table.filter(known_networks::network.eq_any(networks));
    Ok(diesel::delete(expired).execute(conn)?)
}

#[diesel::dsl::auto_type(no_type_alias)]
fn of(user: UserId) -> _ {
    let id: i64 = user.0;
    known_networks::table.filter(known_networks::user_id.eq(id))
}
