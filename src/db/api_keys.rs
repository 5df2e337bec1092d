//! The `api_keys` table.

use std::net::IpAddr;

use chrono::NaiveDateTime;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::Conn;
use super::conn::{free_locked, on_backend};
use super::schema::{api_keys, users};
use super::users::stored_role;
use crate::clock::Timestamp;
use crate::domain::id::{KeyId, UserId};
use crate::domain::key::{Issue, Key};
use crate::domain::role::Role;
use crate::domain::scope::Grant;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// A row of `api_keys`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = api_keys)]
pub struct ApiKey {
    /// Never reused.
    #[diesel(deserialize_as = i64)]
    pub id: KeyId,
    /// On whose account it acts.
    #[diesel(deserialize_as = i64)]
    pub owner_id: UserId,
    /// Whether it was issued to somebody else.
    pub issued: bool,
    /// What its owner calls it.
    pub name: String,
    /// Names of Latchkey's own scopes, separated by spaces.
    pub scopes: String,
    /// Names of all others.
    pub foreign_scopes: String,
    /// The prefix and the last four characters of the secret.
    pub hint: Option<String>,
    /// Of the secret, in hex.
    pub digest: Option<String>,
    /// Of the secret before the last rotation, in hex.
    pub previous_digest: Option<String>,
    /// When that one dies.
    pub previous_expires_at: Option<NaiveDateTime>,
    /// When it was made.
    pub created_at: NaiveDateTime,
    /// The first moment at which it is dead.
    pub expires_at: Option<NaiveDateTime>,
    /// When it was last used.
    pub last_used_at: Option<NaiveDateTime>,
    /// From where.
    pub last_used_ip: Option<String>,
    /// When it was revoked; issued keys only.
    pub revoked_at: Option<NaiveDateTime>,
    /// The shop's own name for the purchase.
    pub order_id: Option<String>,
    /// Of the request that issued it.
    pub request_digest: Option<String>,
    /// A JSON object.
    pub metadata: Option<String>,
    /// Of the claim code, in hex.
    pub claim_digest: Option<String>,
    /// Until when it can be claimed.
    pub claim_expires_at: Option<NaiveDateTime>,
    /// When it was claimed.
    pub claimed_at: Option<NaiveDateTime>,
}

impl ApiKey {
    /// What it was granted.
    pub fn grant(&self) -> Grant {
        Grant::from_stored(&self.scopes, &self.foreign_scopes)
    }
}

impl From<ApiKey> for Key {
    fn from(row: ApiKey) -> Self {
        let grant = row.grant();
        let issue = row.issued.then(|| Issue {
            order: row.order_id,
            // What is no object was not written by us.
            metadata: row.metadata.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            revoked_at: row.revoked_at.map(Timestamp::from),
            claim_expires_at: row.claim_expires_at.map(Timestamp::from),
            claimed_at: row.claimed_at.map(Timestamp::from),
        });
        Self {
            id: row.id,
            owner: row.owner_id,
            name: row.name,
            grant,
            hint: row.hint,
            previous_expires_at: row.previous_expires_at.map(Timestamp::from),
            created_at: row.created_at.into(),
            expires_at: row.expires_at.map(Timestamp::from),
            last_used_at: row.last_used_at.map(Timestamp::from),
            last_used_ip: row.last_used_ip.and_then(|address| address.parse().ok()),
            issue,
        }
    }
}

/// A row to be.
#[derive(Insertable)]
#[diesel(table_name = api_keys)]
pub struct NewKey {
    /// On whose account it acts.
    pub owner_id: i64,
    /// Whether it is issued to somebody else.
    pub issued: bool,
    /// What its owner calls it.
    pub name: String,
    /// Names of Latchkey's own scopes, separated by spaces.
    pub scopes: String,
    /// Names of all others.
    pub foreign_scopes: String,
    /// Of the secret, unless it is to be claimed.
    pub hint: Option<String>,
    /// Of the secret in hex, unless it is to be claimed.
    pub digest: Option<String>,
    /// Now.
    pub created_at: NaiveDateTime,
    /// The first moment at which it is dead.
    pub expires_at: Option<NaiveDateTime>,
    /// The shop's own name for the purchase; unique for the owner.
    pub order_id: Option<String>,
    /// Of the request.
    pub request_digest: Option<String>,
    /// A JSON object.
    pub metadata: Option<String>,
    /// Of the claim code in hex, if it is to be claimed.
    pub claim_digest: Option<String>,
    /// Until when.
    pub claim_expires_at: Option<NaiveDateTime>,
}

impl NewKey {
    /// A key of this owner's for themselves, with nothing in it yet.
    pub fn blank(owner: UserId, now: Timestamp) -> Self {
        Self {
            owner_id: owner.0,
            issued: false,
            name: String::new(),
            scopes: String::new(),
            foreign_scopes: String::new(),
            hint: None,
            digest: None,
            created_at: now.naive(),
            expires_at: None,
            order_id: None,
            request_digest: None,
            metadata: None,
            claim_digest: None,
            claim_expires_at: None,
        }
    }
}

/// What a change writes; `None` leaves a column as it is, `Some(None)` empties it.
#[derive(AsChangeset, Default)]
#[diesel(table_name = api_keys)]
pub struct KeyChange {
    /// What its owner calls it.
    pub name: Option<String>,
    /// Names of Latchkey's own scopes, separated by spaces.
    pub scopes: Option<String>,
    /// The first moment at which it is dead.
    pub expires_at: Option<NaiveDateTime>,
    /// Of the secret.
    pub hint: Option<String>,
    /// Of the secret, in hex.
    pub digest: Option<Option<String>>,
    /// Of the secret before.
    pub previous_digest: Option<Option<String>>,
    /// When that one dies.
    pub previous_expires_at: Option<Option<NaiveDateTime>>,
    /// When it was revoked.
    pub revoked_at: Option<NaiveDateTime>,
    /// When it was claimed.
    pub claimed_at: Option<NaiveDateTime>,
}

/// A key with what the guard needs to know of its owner.
pub struct Resolved {
    /// The key.
    pub id: KeyId,
    /// Its owner.
    pub owner_id: UserId,
    /// Whether it was issued to somebody else.
    pub issued: bool,
    /// Its own name.
    pub key_name: String,
    /// Its owner's first name.
    pub owner_name: String,
    /// Its owner's address.
    pub owner_email: String,
    /// Its owner's role.
    pub role: Role,
    /// What it was granted.
    pub grant: Grant,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether the secret that was shown is the one before the last rotation.
    pub replaced: bool,
    /// The first moment at which the secret that was shown is dead.
    pub expires_at: Option<Timestamp>,
}

/// The live or expired key with a secret of this digest, and its owner unless disabled: one query, each side of the OR
/// by its index.
pub fn resolve(conn: &mut Conn, digest: Digest) -> Result<Option<Resolved>, AppError> {
    let digest = digest.to_hex();
    let row: Option<(ApiKey, String, String, String)> = api_keys::table
        .inner_join(users::table)
        .filter(api_keys::digest.eq(&digest).or(api_keys::previous_digest.eq(&digest)))
        .filter(api_keys::revoked_at.is_null())
        .filter(users::disabled_at.is_null())
        .select((ApiKey::as_select(), users::name, users::email, users::role))
        .get_result(conn)
        .optional()?;
    Ok(row.map(|(key, owner_name, owner_email, role)| {
        let replaced = key.digest.as_ref() != Some(&digest);
        let ends = [key.expires_at, key.previous_expires_at.filter(|_| replaced)];
        Resolved {
            id: key.id,
            owner_id: key.owner_id,
            issued: key.issued,
            grant: key.grant(),
            created_at: key.created_at.into(),
            key_name: key.name,
            owner_name,
            owner_email,
            role: stored_role(&role),
            replaced,
            expires_at: ends.into_iter().flatten().min().map(Timestamp::from),
        }
    }))
}

/// Stores a key.
pub fn insert(conn: &mut Conn, new: &NewKey) -> Result<ApiKey, AppError> {
    Ok(on_backend!(conn => diesel::insert_into(api_keys::table)
        .values(new)
        .returning(ApiKey::as_returning())
        .get_result(conn))?)
}

/// The key with this id.
pub fn find(conn: &mut Conn, id: KeyId) -> Result<Option<ApiKey>, AppError> {
    Ok(api_keys::table.find(id.0).select(ApiKey::as_select()).get_result(conn).optional()?)
}

/// The key that this claim code is for.
pub fn find_by_claim(conn: &mut Conn, code: Digest) -> Result<Option<ApiKey>, AppError> {
    let by_code = api_keys::table.filter(api_keys::claim_digest.eq(code.to_hex()));
    Ok(by_code.select(ApiKey::as_select()).get_result(conn).optional()?)
}

/// The key that this owner issued for this order.
pub fn find_by_order(conn: &mut Conn, owner: UserId, order: &str) -> Result<Option<ApiKey>, AppError> {
    let by_order = api_keys::table.filter(api_keys::owner_id.eq(owner.0)).filter(api_keys::order_id.eq(order));
    Ok(by_order.select(ApiKey::as_select()).get_result(conn).optional()?)
}

/// Which keys.
#[derive(Clone, Copy, Debug)]
pub enum Selection {
    /// Those that a user made for themselves.
    OwnedBy(UserId),
    /// Those that a user issued to others.
    IssuedBy(UserId),
    /// Those that a user issued to others and that live.
    LiveIssuedBy(UserId),
    /// Those of them that hold scopes of Latchkey's own, and so act on its data on the user's account.
    ActingFor(UserId),
    /// All of a user's.
    Of(UserId),
    /// All.
    Everyone,
}

type Condition = Box<dyn BoxableExpression<api_keys::table, <Conn as Connection>::Backend, SqlType = Bool>>;

impl Selection {
    fn condition(self) -> Condition {
        let live = api_keys::issued.eq(true).and(api_keys::revoked_at.is_null());
        match self {
            Self::OwnedBy(user) => Box::new(api_keys::owner_id.eq(user.0).and(api_keys::issued.eq(false))),
            Self::IssuedBy(user) => Box::new(api_keys::owner_id.eq(user.0).and(api_keys::issued.eq(true))),
            Self::LiveIssuedBy(user) => Box::new(api_keys::owner_id.eq(user.0).and(live)),
            Self::ActingFor(user) => Box::new(api_keys::owner_id.eq(user.0).and(live).and(api_keys::scopes.ne(""))),
            Self::Of(user) => Box::new(api_keys::owner_id.eq(user.0)),
            Self::Everyone => Box::new(api_keys::id.gt(0)),
        }
    }
}

/// The keys after `after`, by id, at most `limit`.
pub fn list(conn: &mut Conn, which: Selection, after: KeyId, limit: i64) -> Result<Vec<ApiKey>, AppError> {
    let rows = api_keys::table.filter(which.condition()).filter(api_keys::id.gt(after.0));
    Ok(rows.order(api_keys::id).limit(limit).select(ApiKey::as_select()).load(conn)?)
}

/// The ids of the keys.
pub fn ids(conn: &mut Conn, which: Selection) -> Result<Vec<KeyId>, AppError> {
    let ids: Vec<i64> =
        api_keys::table.filter(which.condition()).order(api_keys::id).select(api_keys::id).load(conn)?;
    Ok(ids.into_iter().map(KeyId).collect())
}

/// How many keys there are.
pub fn count(conn: &mut Conn, which: Selection) -> Result<i64, AppError> {
    Ok(api_keys::table.filter(which.condition()).count().get_result(conn)?)
}

/// Changes a key and answers what it has become.
pub fn update(conn: &mut Conn, id: KeyId, change: &KeyChange) -> Result<ApiKey, AppError> {
    Ok(on_backend!(conn => diesel::update(api_keys::table.find(id.0))
        .set(change)
        .returning(ApiKey::as_returning())
        .get_result(conn))?)
}

/// Removes a key.
pub fn delete(conn: &mut Conn, id: KeyId) -> Result<(), AppError> {
    diesel::delete(api_keys::table.find(id.0)).execute(conn)?;
    Ok(())
}

/// Removes keys.
pub fn delete_all(conn: &mut Conn, which: Selection) -> Result<(), AppError> {
    diesel::delete(api_keys::table.filter(which.condition())).execute(conn)?;
    Ok(())
}

/// Ends keys and keeps their rows.
pub fn revoke_all(conn: &mut Conn, which: Selection, now: Timestamp) -> Result<(), AppError> {
    diesel::update(api_keys::table.filter(which.condition()))
        .set(api_keys::revoked_at.eq(now.naive()))
        .execute(conn)?;
    Ok(())
}

/// Notes that a key was used, unless a later use is known.
pub fn touch(conn: &mut Conn, id: KeyId, at: Timestamp, from: Option<IpAddr>) -> Result<(), AppError> {
    let earlier = api_keys::last_used_at.is_null().or(api_keys::last_used_at.lt(at.naive()));
    diesel::update(api_keys::table.find(id.0).filter(earlier.assume_not_null()))
        .set((api_keys::last_used_at.eq(at.naive()), api_keys::last_used_ip.eq(from.map(|from| from.to_string()))))
        .execute(conn)?;
    Ok(())
}

/// Forgets the codes of at most `limit` claims that had expired at `end`, except those that somebody else is changing;
/// how many.
pub fn forget_claims(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let expired =
        api_keys::table.filter(api_keys::claim_digest.is_not_null()).filter(api_keys::claim_expires_at.le(end.naive()));
    let keys: Vec<i64> = free_locked!(conn => expired.order(api_keys::claim_expires_at)
        .limit(limit)
        .select(api_keys::id))?;
    let forgotten = diesel::update(api_keys::table.filter(api_keys::id.eq_any(keys)));
    Ok(forgotten.set(api_keys::claim_digest.eq(None::<String>)).execute(conn)?)
}
