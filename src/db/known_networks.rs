//! The `known_networks` table: the networks from which users have signed in.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use super::conn::{free_locked, on_backend};
use super::schema::known_networks;
use crate::clock::Timestamp;
use crate::domain::id::UserId;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// When this network was last seen, if it is known.
pub fn seen_at(conn: &mut Conn, network: Digest) -> Result<Option<Timestamp>, AppError> {
    let by_network = known_networks::table.find(network.to_hex()).select(known_networks::seen_at);
    let found: Option<NaiveDateTime> = by_network.get_result(conn).optional()?;
    Ok(found.map(Timestamp::from))
}

/// Notes that `user` signed in from this network. Of more than `most` networks the user loses the oldest.
pub fn remember(conn: &mut Conn, user: UserId, network: Digest, now: Timestamp, most: i64) -> Result<(), AppError> {
    let row = (
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
    let newest_first = of(user).order((known_networks::seen_at.desc(), known_networks::network));
    // SQLite takes an OFFSET with a LIMIT only.
    let too_many: Vec<String> = newest_first.offset(most).limit(i64::MAX).select(known_networks::network).load(conn)?;
    if !too_many.is_empty() {
        diesel::delete(known_networks::table.filter(known_networks::network.eq_any(too_many))).execute(conn)?;
    }
    Ok(())
}

/// The networks of a user, as digests in hex.
pub fn list(conn: &mut Conn, user: UserId) -> Result<Vec<String>, AppError> {
    Ok(of(user).select(known_networks::network).load(conn)?)
}

/// Forgets the networks of a user.
pub fn forget(conn: &mut Conn, user: UserId) -> Result<(), AppError> {
    diesel::delete(of(user)).execute(conn)?;
    Ok(())
}

/// Forgets at most `limit` networks that were last seen before `end`; how many.
pub fn forget_old(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let old = known_networks::table.filter(known_networks::seen_at.le(end.naive()));
    let networks: Vec<String> = free_locked!(conn => old.order(known_networks::seen_at)
        .limit(limit)
        .select(known_networks::network))?;
    let forgotten = known_networks::table.filter(known_networks::network.eq_any(networks));
    Ok(diesel::delete(forgotten).execute(conn)?)
}

#[diesel::dsl::auto_type(no_type_alias)]
fn of(user: UserId) -> _ {
    let id: i64 = user.0;
    known_networks::table.filter(known_networks::user_id.eq(id))
}
