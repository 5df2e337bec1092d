//! The endpoints for own keys: API keys that users create for themselves.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::Timestamp;
use crate::domain::id::KeyId;
use crate::domain::key::Key;
use crate::http::guard::permit::{Permit, ReadKeys, WriteKeys};
use crate::http::resource::{EXAMPLE_TIME, Resource, example_secret};
use crate::http::wire::body::Json;
use crate::http::wire::error::HttpError;
use crate::http::wire::idempotency::IdempotencyKey;
use crate::http::wire::path::PathId;
use crate::http::wire::reply::{NoContent, Reply};
use crate::service::Service;
use crate::service::key::grant::KeyRequest;
use crate::service::key::own::{FreshKey, KeyEdit};

/// The entries of own keys in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let (name, scopes) = ("Backup of my pages", ["pages:read"]);
    let key = json!({
        "id": 1, "name": name, "scopes": scopes, "hint": "lkk\u{2026}7Qxz", "created_at": EXAMPLE_TIME,
        "expires_at": null, "last_used_at": null, "last_used_ip": null, "previous_expires_at": null,
    });
    let mut fresh = key.clone();
    fresh.as_object_mut().map(|fresh| fresh.insert("key".to_owned(), example_secret("lkk").into()));
    Resource {
        tag: ("My API keys", "API keys that you create for yourself, one for each service or device"),
        lists: vec![("KeyListResponse", "KeyResponse")],
        examples: vec![
            ("KeyCreateRequest", json!({ "name": name, "scopes": scopes })),
            ("KeyPatch", json!({ "name": "Nightly backup of my pages" })),
            ("RotateRequest", json!({ "overlap_seconds": 60 })),
            ("KeyListResponse", json!({ "items": [key] })),
            ("KeyResponse", key),
            ("FreshKeyResponse", fresh),
        ],
        ..Resource::default()
    }
}

/// A new API key.
#[derive(Deserialize, Apiv2Schema)]
pub struct KeyCreateRequest {
    /// Name of the key
    name: String,
    /// Scopes of the key, each once; at most those of your credential
    scopes: Vec<String>,
    /// Time from which the key is expired, within ten years; absent if it does not expire
    expires_at: Option<String>,
}

/// Changes to an API key. Absent fields do not change.
#[derive(Deserialize, Apiv2Schema)]
pub struct KeyPatch {
    /// Name of the key
    name: Option<String>,
    /// Scopes of the key, each once; at most those of your credential
    scopes: Option<Vec<String>>,
    /// Time from which the key is expired, within ten years
    expires_at: Option<String>,
}

/// The options of a rotation.
#[derive(Deserialize, Apiv2Schema)]
pub struct RotateRequest {
    /// Seconds for which the old secret stays valid beside the new one; 0 if absent
    overlap_seconds: Option<i64>,
}

/// An API key, without its secret.
#[derive(Serialize, Apiv2Schema)]
pub struct KeyResponse {
    /// Id of the key, never reused
    id: i64,
    /// Name of the key
    name: String,
    /// Granted scopes; those of Latchkey are in force as far as the owner's role holds them
    scopes: Vec<String>,
    /// Prefix and last four characters of the secret; null until the key is claimed
    hint: Option<String>,
    /// Time of creation
    created_at: Timestamp,
    /// Time from which the key is expired; null if it does not expire
    expires_at: Option<Timestamp>,
    /// Time of the last use, accurate to a minute; null if the key was never used
    last_used_at: Option<Timestamp>,
    /// Client address of the last use; null if the key was never used
    last_used_ip: Option<String>,
    /// Time until which the secret before the last rotation is, or was, valid; null without an overlap
    previous_expires_at: Option<Timestamp>,
}

impl From<Key> for KeyResponse {
    fn from(key: Key) -> Self {
        Self {
            id: key.id.0,
            name: key.name,
            scopes: key.grant.names().into_iter().map(str::to_owned).collect(),
            hint: key.hint,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            last_used_ip: key.last_used_ip.map(|address| address.to_string()),
            previous_expires_at: key.previous_expires_at,
        }
    }
}

impl KeyResponse {
    /// The id of the key.
    pub fn id(&self) -> i64 {
        self.id
    }
}

/// An API key with its secret, which is returned only once.
#[derive(Serialize, Apiv2Schema)]
pub struct FreshKeyResponse {
    #[serde(flatten)]
    record: KeyResponse,
    /// The secret; send it as `Token: …` or as `Authorization: Bearer …`
    key: String,
}

impl From<FreshKey> for FreshKeyResponse {
    fn from(fresh: FreshKey) -> Self {
        Self { record: fresh.key.into(), key: fresh.secret.reveal() }
    }
}

impl FreshKeyResponse {
    /// The secret in plain text.
    pub fn secret(&self) -> &str {
        &self.key
    }
}

/// All own keys of the caller.
#[derive(Serialize, Apiv2Schema)]
pub struct KeyListResponse {
    /// Keys, by id
    items: Vec<KeyResponse>,
}

/// List my API keys
///
/// Returns all your own API keys, at most 100; requires a session, a sign-in token or an own API key with the scope
/// `keys:read`.
///
/// Get one of them with `GET /me/keys/{id}`.
#[api_v2_operation(operation_id = "listKeys", tags("My API keys"))]
pub async fn list(service: web::Data<Service>, permit: Permit<ReadKeys>) -> Result<Reply<KeyListResponse>, HttpError> {
    let items = service.keys(&permit.0).await?.into_iter().map(KeyResponse::from).collect();
    Ok(Reply::new(KeyListResponse { items }))
}

/// Create an API key
///
/// Creates an own API key for one of your services or devices; requires a session, a sign-in token or an own API key
/// with the scope `keys:write`.
///
/// Next, store `key`, which is returned only this once.
///
/// Until the new secret is used, the same request with the same `Idempotency-Key` returns another one, which replaces
/// it.
#[api_v2_operation(operation_id = "createKey", tags("My API keys"))]
pub async fn create(
    service: web::Data<Service>,
    permit: Permit<WriteKeys>,
    idempotency_key: IdempotencyKey,
    body: Json<KeyCreateRequest>,
) -> Result<Reply<FreshKeyResponse, 201>, HttpError> {
    let KeyCreateRequest { name, scopes, expires_at } = body.0;
    let request = KeyRequest { name, scopes, expires_at };
    let fresh = service.create_key(permit.0, request, idempotency_key.into_inner().as_deref()).await?;
    let location = format!("/me/keys/{}", fresh.key.id);
    Ok(Reply::new(FreshKeyResponse::from(fresh)).location(location))
}

/// Get one of my API keys
///
/// Returns one of your own API keys; requires a session, a sign-in token or an own API key with the scope `keys:read`.
///
/// Change it with `PATCH`, or replace its secret with `POST /me/keys/{id}/rotate`.
#[api_v2_operation(operation_id = "readKey", tags("My API keys"))]
pub async fn read(
    service: web::Data<Service>,
    permit: Permit<ReadKeys>,
    id: PathId<KeyId>,
) -> Result<Reply<KeyResponse>, HttpError> {
    Ok(Reply::new(service.key(&permit.0, id.0).await?.into()))
}

/// Change one of my API keys
///
/// Changes the given fields of one of your own API keys; requires a session, a sign-in token or an own API key with the
/// scope `keys:write`.
///
/// The next request of the key has the new scopes.
#[api_v2_operation(operation_id = "editKey", tags("My API keys"))]
pub async fn edit(
    service: web::Data<Service>,
    permit: Permit<WriteKeys>,
    id: PathId<KeyId>,
    body: Json<KeyPatch>,
) -> Result<Reply<KeyResponse>, HttpError> {
    let KeyPatch { name, scopes, expires_at } = body.0;
    let key = service.edit_key(permit.0, id.0, KeyEdit { name, scopes, expires_at }).await?;
    Ok(Reply::new(key.into()))
}

/// Rotate one of my API keys
///
/// Replaces the secret of one of your own API keys; requires a session, a sign-in token or an own API key with the
/// scope `keys:write`.
///
/// Next, store `key`, which is returned only this once.
///
/// The old secret stays valid for `overlap_seconds`. Until the new secret is used, the same request with the same
/// `Idempotency-Key` returns another one, which replaces it. This does not affect the old secret.
#[api_v2_operation(operation_id = "rotateKey", tags("My API keys"))]
pub async fn rotate(
    service: web::Data<Service>,
    permit: Permit<WriteKeys>,
    id: PathId<KeyId>,
    idempotency_key: IdempotencyKey,
    body: Json<RotateRequest>,
) -> Result<Reply<FreshKeyResponse>, HttpError> {
    let fresh =
        service.rotate_key(permit.0, id.0, body.0.overlap_seconds, idempotency_key.into_inner().as_deref()).await?;
    Ok(Reply::new(fresh.into()))
}

/// Revoke one of my API keys
///
/// Revokes one of your own API keys from the next request on; requires a session, a sign-in token or an own API key
/// with the scope `keys:write`.
///
/// Create another one with `POST /me/keys` if you need it.
#[api_v2_operation(operation_id = "revokeKey", tags("My API keys"))]
pub async fn revoke(
    service: web::Data<Service>,
    permit: Permit<WriteKeys>,
    id: PathId<KeyId>,
) -> Result<NoContent, HttpError> {
    service.revoke_key(permit.0, id.0).await?;
    Ok(NoContent)
}
