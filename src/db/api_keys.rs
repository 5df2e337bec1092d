//! The `api_keys` table.

use std::net::IpAddr;

use chrono::NaiveDateTime;
use diesel::dsl::{max, sql};
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use super::Conn;
use super::cached::Cached;
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
    /// When it was revoked, or ended with others of its owner's; issued keys only.
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
    /// Of the request that made the secret, if its caller named it: its name, in hex.
    pub secret_request: Option<String>,
    /// And what it asked for, in hex.
    pub secret_request_body: Option<String>,
    /// When that was.
    pub secret_made_at: Option<NaiveDateTime>,
    /// Whether that request can be repeated, because the secret has not been used.
    pub secret_unseen: bool,
}

impl ApiKey {
    /// What it was granted.
    pub fn grant(&self) -> Grant {
        Grant::from_stored(&self.scopes, &self.foreign_scopes)
    }
}

/// Which issued keys of a user have ended, whether or not their rows say so already.
#[derive(Clone, Copy, Debug, Queryable, Selectable)]
#[diesel(table_name = users)]
struct Endings {
    issued_ended_through: i64,
    issued_ended_at: Option<NaiveDateTime>,
    acting_ended_through: i64,
    acting_ended_at: Option<NaiveDateTime>,
}

impl Endings {
    /// The key as it is: one that ended with others is revoked.
    fn apply(self, mut key: ApiKey) -> ApiKey {
        if key.issued && key.revoked_at.is_none() {
            let issued = self.issued_ended_at.filter(|_| key.id.0 <= self.issued_ended_through);
            let acts = key.id.0 <= self.acting_ended_through && !key.scopes.is_empty();
            key.revoked_at = [issued, self.acting_ended_at.filter(|_| acts)].into_iter().flatten().min();
        }
        key
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
    /// Of the request that made the secret or the claim code, if its caller named it.
    pub secret_request: Option<String>,
    /// And what it asked for.
    pub secret_request_body: Option<String>,
    /// Now, then.
    pub secret_made_at: Option<NaiveDateTime>,
    /// Whether that request can be repeated.
    pub secret_unseen: bool,
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
            secret_request: None,
            secret_request_body: None,
            secret_made_at: None,
            secret_unseen: false,
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
    /// Of the claim code, in hex.
    pub claim_digest: Option<String>,
    /// Of the request that made the secret.
    pub secret_request: Option<Option<String>>,
    /// And what it asked for.
    pub secret_request_body: Option<Option<String>>,
    /// When that was.
    pub secret_made_at: Option<Option<NaiveDateTime>>,
    /// Whether it can be repeated.
    pub secret_unseen: Option<bool>,
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
    /// Whether it is the current one and has not been used before, as far as that matters.
    pub unseen: bool,
    /// The first moment at which the secret that was shown is dead.
    pub expires_at: Option<Timestamp>,
}

/// All keys of users who exist, with what their owners' rows say of them. Every query for keys begins here, or it would
/// miss what has ended (`tests/arch.rs`).
#[diesel::dsl::auto_type]
fn existing() -> _ {
    api_keys::table.inner_join(users::table).filter(users::deleted_at.is_null())
}

/// What such a query selects.
type Found = (ApiKey, Endings);

fn found((key, endings): Found) -> ApiKey {
    endings.apply(key)
}

/// The live or expired key with a secret of this digest, and its owner unless disabled: one query, each side of the OR
/// by its index.
pub fn resolve(conn: &mut Conn, digest: Digest) -> Result<Option<Resolved>, AppError> {
    let digest = digest.to_hex();
    let row: Option<(Found, String, String, String)> = existing()
        .filter(api_keys::digest.eq(&digest).or(api_keys::previous_digest.eq(&digest)))
        .filter(users::disabled_at.is_null())
        .select((Found::as_select(), users::name, users::email, users::role))
        .get_result(conn)
        .optional()?;
    let row = row.map(|(key, name, email, role)| (found(key), name, email, role));
    Ok(row.filter(|(key, ..)| key.revoked_at.is_none()).map(|(key, owner_name, owner_email, role)| {
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
            unseen: key.secret_unseen && !replaced,
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
    let by_id = existing().filter(api_keys::id.eq(id.0));
    Ok(by_id.select(Found::as_select()).get_result(conn).optional()?.map(found))
}

/// The key that this claim code is for.
pub fn find_by_claim(conn: &mut Conn, code: Digest) -> Result<Option<ApiKey>, AppError> {
    let by_code = existing().filter(api_keys::claim_digest.eq(code.to_hex()));
    Ok(by_code.select(Found::as_select()).get_result(conn).optional()?.map(found))
}

/// The key that this owner issued for this order.
pub fn find_by_order(conn: &mut Conn, owner: UserId, order: &str) -> Result<Option<ApiKey>, AppError> {
    let by_order = existing().filter(api_keys::owner_id.eq(owner.0)).filter(api_keys::order_id.eq(order));
    Ok(by_order.select(Found::as_select()).get_result(conn).optional()?.map(found))
}

/// The keys of a user, those that were issued or the others, after `after`, by id, at most `limit`.
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

/// All keys after `after`, by id, at most `limit`.
pub fn list(conn: &mut Conn, after: KeyId, limit: i64) -> Result<Vec<ApiKey>, AppError> {
    let rows = existing().filter(api_keys::id.gt(after.0)).order(api_keys::id).limit(limit);
    let rows: Vec<Found> = rows.select(Found::as_select()).load(conn)?;
    Ok(rows.into_iter().map(found).collect())
}

/// How many keys a user has made for themselves.
pub fn count_own(conn: &mut Conn, owner: UserId) -> Result<i64, AppError> {
    let own = api_keys::table.filter(api_keys::owner_id.eq(owner.0)).filter(api_keys::issued.eq(false));
    Ok(own.count().get_result(conn)?)
}

/// A key that a user issued, as far as its end goes.
pub struct IssuedKey {
    /// Which one.
    pub id: KeyId,
    /// Whether it was not revoked yet by itself.
    pub live: bool,
}

/// In the words of the index that holds such keys alone.
#[diesel::dsl::auto_type]
fn acting() -> _ {
    let holds_own_scopes: SqlLiteral<Bool> = sql::<Bool>("issued AND scopes <> ''");
    api_keys::table.filter(holds_own_scopes)
}

/// The id of the last key that a user issued, of those with scopes of Latchkey's own if `acts`; 0 if there is none.
pub fn last_issued(conn: &mut Conn, owner: UserId, acts: bool) -> Result<KeyId, AppError> {
    let last: Option<i64> = if acts {
        acting().filter(api_keys::owner_id.eq(owner.0)).select(max(api_keys::id)).get_result(conn)?
    } else {
        let issued = api_keys::table.filter(api_keys::owner_id.eq(owner.0)).filter(api_keys::issued.eq(true));
        issued.select(max(api_keys::id)).get_result(conn)?
    };
    Ok(KeyId(last.unwrap_or(0)))
}

/// The keys that a user issued after the first of `range` up to the second, likewise; by id, at most `limit`.
pub fn issued_within(
    conn: &mut Conn,
    owner: UserId,
    acts: bool,
    (after, through): (KeyId, KeyId),
    limit: i64,
) -> Result<Vec<IssuedKey>, AppError> {
    let within = api_keys::owner_id.eq(owner.0).and(api_keys::id.gt(after.0)).and(api_keys::id.le(through.0));
    let columns = (api_keys::id, api_keys::revoked_at.is_null());
    let rows: Vec<(i64, bool)> = if acts {
        acting().filter(within).order(api_keys::id).limit(limit).select(columns).load(conn)?
    } else {
        let issued = api_keys::table.filter(within).filter(api_keys::issued.eq(true));
        issued.order(api_keys::id).limit(limit).select(columns).load(conn)?
    };
    Ok(rows.into_iter().map(|(id, live)| IssuedKey { id: KeyId(id), live }).collect())
}

/// The ids of the keys that a user made for themselves, of which there are few.
pub fn own_ids(conn: &mut Conn, owner: UserId) -> Result<Vec<KeyId>, AppError> {
    let own = api_keys::table.filter(api_keys::owner_id.eq(owner.0)).filter(api_keys::issued.eq(false));
    let ids: Vec<i64> = own.order(api_keys::id).select(api_keys::id).load(conn)?;
    Ok(ids.into_iter().map(KeyId).collect())
}

/// Changes a key and answers what it has become.
pub fn update(conn: &mut Conn, id: KeyId, change: &KeyChange) -> Result<ApiKey, AppError> {
    Ok(on_backend!(conn => Cached(diesel::update(api_keys::table.find(id.0))
        .set(change)
        .returning(ApiKey::as_returning()))
        .get_result(conn))?)
}

/// The same if the key's secret is unused; `None` if it has been used.
pub fn replace_unseen(conn: &mut Conn, id: KeyId, change: &KeyChange) -> Result<Option<ApiKey>, AppError> {
    Ok(on_backend!(conn => diesel::update(api_keys::table.find(id.0).filter(api_keys::secret_unseen))
        .set(change)
        .returning(ApiKey::as_returning())
        .get_result(conn)
        .optional())?)
}

/// Removes a key.
pub fn delete(conn: &mut Conn, id: KeyId) -> Result<(), AppError> {
    diesel::delete(api_keys::table.find(id.0)).execute(conn)?;
    Ok(())
}

/// Removes keys.
pub fn delete_all(conn: &mut Conn, ids: &[KeyId]) -> Result<(), AppError> {
    diesel::delete(api_keys::table.filter(api_keys::id.eq_any(numbers(ids)))).execute(conn)?;
    Ok(())
}

/// Writes into the rows of keys when they ended.
pub fn revoke_all(conn: &mut Conn, ids: &[KeyId], at: NaiveDateTime) -> Result<(), AppError> {
    let live = api_keys::table.filter(api_keys::id.eq_any(numbers(ids))).filter(api_keys::revoked_at.is_null());
    diesel::update(live).set(api_keys::revoked_at.eq(at)).execute(conn)?;
    Ok(())
}

fn numbers(ids: &[KeyId]) -> impl Iterator<Item = i64> {
    ids.iter().map(|id| id.0)
}

/// Notes that the current secret with this digest is used, so that the request that made it is repeated no more;
/// whether there is such a secret still.
pub fn note_first_use(conn: &mut Conn, digest: Digest) -> Result<bool, AppError> {
    let by_digest = api_keys::table.filter(api_keys::digest.eq(digest.to_hex()));
    Ok(diesel::update(by_digest).set(api_keys::secret_unseen.eq(false)).execute(conn)? > 0)
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
