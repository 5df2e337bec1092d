//! Rows of `api_keys`: what queries return, and what inserts and updates set.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use crate::clock::Timestamp;
use crate::db::schema::{api_keys, users};
use crate::domain::id::{KeyId, UserId};
use crate::domain::key::{Issue, Key};
use crate::domain::scope::Grant;

/// A row of `api_keys`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = api_keys)]
pub struct ApiKey {
    /// The id. Ids are never reused.
    #[diesel(deserialize_as = i64)]
    pub id: KeyId,
    /// The user on whose account the key acts.
    #[diesel(deserialize_as = i64)]
    pub owner_id: UserId,
    /// Whether the key was issued to another person; otherwise its owner made it for their own use.
    pub issued: bool,
    /// The name that the owner gave the key.
    pub name: String,
    /// The names of Latchkey's own scopes, separated by spaces.
    pub scopes: String,
    /// The names of external scopes, separated by spaces.
    pub foreign_scopes: String,
    /// The prefix and the last four characters of the secret.
    pub hint: Option<String>,
    /// The digest of the secret, in hex; `None` until the key is claimed.
    pub digest: Option<String>,
    /// The digest of the secret before the last rotation, in hex.
    pub previous_digest: Option<String>,
    /// When the previous secret expires.
    pub previous_expires_at: Option<NaiveDateTime>,
    /// When the key was created.
    pub created_at: NaiveDateTime,
    /// When the key expires. It is invalid from this moment on.
    pub expires_at: Option<NaiveDateTime>,
    /// When the key was last used.
    pub last_used_at: Option<NaiveDateTime>,
    /// The address of the client that last used the key.
    pub last_used_ip: Option<String>,
    /// When the key was revoked, by itself or together with other keys of its owner. Issued keys only.
    pub revoked_at: Option<NaiveDateTime>,
    /// The owner's name for the purchase. Issued keys only.
    pub order_id: Option<String>,
    /// The digest of the request that issued the key, in hex.
    pub request_digest: Option<String>,
    /// A JSON object.
    pub metadata: Option<String>,
    /// The digest of the claim code, in hex.
    pub claim_digest: Option<String>,
    /// When the claim code expires.
    pub claim_expires_at: Option<NaiveDateTime>,
    /// When the key was claimed.
    pub claimed_at: Option<NaiveDateTime>,
    /// The digest of the name of the request that created the secret, in hex; `None` if that request had no name.
    pub secret_request: Option<String>,
    /// The digest of the content of that request, in hex.
    pub secret_request_body: Option<String>,
    /// When that request created the secret.
    pub secret_made_at: Option<NaiveDateTime>,
    /// Whether that request can be repeated, because the secret has not been used yet.
    pub secret_unseen: bool,
}

impl ApiKey {
    /// The scopes that the key was granted.
    pub fn grant(&self) -> Grant {
        Grant::from_stored(&self.scopes, &self.foreign_scopes)
    }
}

/// The columns of a user that end issued keys in bulk. They apply at once; the cleanup sets `revoked_at` of the keys
/// later.
#[derive(Clone, Copy, Debug, Queryable, Selectable)]
#[diesel(table_name = users)]
pub(super) struct Endings {
    issued_ended_through: i64,
    issued_ended_at: Option<NaiveDateTime>,
    acting_ended_through: i64,
    acting_ended_at: Option<NaiveDateTime>,
}

impl Endings {
    /// Sets `revoked_at` of a key that ended in bulk.
    fn apply(self, mut key: ApiKey) -> ApiKey {
        if key.issued && key.revoked_at.is_none() {
            let issued = self.issued_ended_at.filter(|_| key.id.0 <= self.issued_ended_through);
            let acting = key.id.0 <= self.acting_ended_through && !key.scopes.is_empty();
            key.revoked_at = [issued, self.acting_ended_at.filter(|_| acting)].into_iter().flatten().min();
        }
        key
    }
}

impl From<ApiKey> for Key {
    fn from(row: ApiKey) -> Self {
        let grant = row.grant();
        let issue = row.issued.then(|| Issue {
            order: row.order_id,
            // Latchkey writes JSON objects only. Any other text, written by hand, counts as an empty object.
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

/// A new row of `api_keys`.
#[derive(Insertable)]
#[diesel(table_name = api_keys)]
pub struct NewKey {
    /// The user on whose account the key acts.
    pub owner_id: i64,
    /// Whether the key is issued to another person.
    pub issued: bool,
    /// The name that the owner gives the key.
    pub name: String,
    /// The names of Latchkey's own scopes, separated by spaces.
    pub scopes: String,
    /// The names of external scopes, separated by spaces.
    pub foreign_scopes: String,
    /// The prefix and the last four characters of the secret; `None` if the key is to be claimed.
    pub hint: Option<String>,
    /// The digest of the secret, in hex; `None` if the key is to be claimed.
    pub digest: Option<String>,
    /// The current time.
    pub created_at: NaiveDateTime,
    /// When the key expires. It is invalid from this moment on.
    pub expires_at: Option<NaiveDateTime>,
    /// The owner's name for the purchase; unique per owner.
    pub order_id: Option<String>,
    /// The digest of the request that issues the key, in hex.
    pub request_digest: Option<String>,
    /// A JSON object.
    pub metadata: Option<String>,
    /// The digest of the claim code, in hex, if the key is to be claimed.
    pub claim_digest: Option<String>,
    /// When the claim code expires.
    pub claim_expires_at: Option<NaiveDateTime>,
    /// The digest of the name of the request that creates the secret or the claim code, if it has a name.
    pub secret_request: Option<String>,
    /// The digest of the content of that request.
    pub secret_request_body: Option<String>,
    /// The current time, if the request has a name.
    pub secret_made_at: Option<NaiveDateTime>,
    /// Whether that request can be repeated.
    pub secret_unseen: bool,
}

impl NewKey {
    /// A key that `owner` makes for their own use, with all optional fields empty.
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

/// The columns that an update sets. `None` leaves a column unchanged, `Some(None)` sets it to NULL.
#[derive(AsChangeset, Default)]
#[diesel(table_name = api_keys)]
pub struct KeyChange {
    /// The name that the owner gave the key.
    pub name: Option<String>,
    /// The names of Latchkey's own scopes, separated by spaces.
    pub scopes: Option<String>,
    /// The names of external scopes, separated by spaces.
    pub foreign_scopes: Option<String>,
    /// When the key expires. It is invalid from this moment on.
    pub expires_at: Option<NaiveDateTime>,
    /// The prefix and the last four characters of the secret.
    pub hint: Option<String>,
    /// The digest of the secret, in hex.
    pub digest: Option<Option<String>>,
    /// The digest of the previous secret, in hex.
    pub previous_digest: Option<Option<String>>,
    /// When the previous secret expires.
    pub previous_expires_at: Option<Option<NaiveDateTime>>,
    /// When the key was revoked.
    pub revoked_at: Option<NaiveDateTime>,
    /// When the key was claimed.
    pub claimed_at: Option<NaiveDateTime>,
    /// The digest of the claim code, in hex.
    pub claim_digest: Option<String>,
    /// The digest of the name of the request that created the secret.
    pub secret_request: Option<Option<String>>,
    /// The digest of the content of that request.
    pub secret_request_body: Option<Option<String>>,
    /// When that request created the secret.
    pub secret_made_at: Option<Option<NaiveDateTime>>,
    /// Whether that request can be repeated.
    pub secret_unseen: Option<bool>,
}

/// All keys of users who are not deleted, joined with their owners. Every query for keys must start from this one and
/// apply [`Endings`], because otherwise it would return revoked keys as valid; `tests/arch.rs` checks that.
#[diesel::dsl::auto_type]
pub(super) fn existing() -> _ {
    api_keys::table.inner_join(users::table).filter(users::deleted_at.is_null())
}

/// The columns that a query for keys selects.
pub(super) type Found = (ApiKey, Endings);

/// The row of a key, with the bulk endings of its owner applied.
pub(super) fn found((key, endings): Found) -> ApiKey {
    endings.apply(key)
}
