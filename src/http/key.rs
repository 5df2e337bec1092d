//! API keys that users make for themselves.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};

use super::body::Json;
use super::idempotency::IdempotencyKey;
use super::path::PathId;
use super::principal::{Permit, ReadKeys, WriteKeys};
use super::problem::Fault;
use super::reply::{NoContent, Reply};
use crate::clock::Timestamp;
use crate::domain::id::KeyId;
use crate::domain::key::Key;
use crate::service::Service;
use crate::service::grant::KeyRequest;
use crate::service::key::{FreshKey, KeyEdit};

/// A key to be.
#[derive(Deserialize, Apiv2Schema)]
pub struct KeyCreateRequest {
    /// What you call it
    name: String,
    /// What it may do, each scope once; at most what your own credential may
    scopes: Vec<String>,
    /// The first moment at which it is dead, within ten years; never if absent
    expires_at: Option<String>,
}

/// Parts of a key; what is absent stays as it is.
#[derive(Deserialize, Apiv2Schema)]
pub struct KeyPatch {
    /// What you call it
    name: Option<String>,
    /// What it may do, each scope once; at most what your own credential may
    scopes: Option<Vec<String>>,
    /// The first moment at which it is dead, within ten years
    expires_at: Option<String>,
}

/// How to replace the secret.
#[derive(Deserialize, Apiv2Schema)]
pub struct RotateRequest {
    /// How long the old secret works beside the new one; not at all if absent
    overlap_seconds: Option<i64>,
}

/// A key, without its secret.
#[derive(Serialize, Apiv2Schema)]
pub struct KeyResponse {
    /// Never reused
    id: i64,
    /// What its owner calls it
    name: String,
    /// What it was granted; Latchkey's own scopes count as far as its owner's role goes
    scopes: Vec<String>,
    /// The beginning and the end of the secret; null until it is claimed
    hint: Option<String>,
    /// When it was made
    created_at: Timestamp,
    /// The first moment at which it is dead; null if there is none
    expires_at: Option<Timestamp>,
    /// When it was last used, known within a minute; null if never
    last_used_at: Option<Timestamp>,
    /// From where; null if never
    last_used_ip: Option<String>,
    /// Until when the secret before the last rotation works, or worked; null without an overlap
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

/// A key with its secret, which is shown this once.
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
    /// The secret in clear.
    pub fn secret(&self) -> &str {
        &self.key
    }
}

/// All keys of one's own.
#[derive(Serialize, Apiv2Schema)]
pub struct KeyListResponse {
    /// By id
    items: Vec<KeyResponse>,
}

/// List my API keys
///
/// Those that you made for yourself, at most 100.
#[api_v2_operation(operation_id = "listKeys", tags(key))]
pub async fn list(service: web::Data<Service>, permit: Permit<ReadKeys>) -> Result<Reply<KeyListResponse>, Fault> {
    let items = service.keys(&permit.0).await?.into_iter().map(KeyResponse::from).collect();
    Ok(Reply::new(KeyListResponse { items }))
}

/// Create an API key
///
/// For a service or a device of yours. The secret is shown this once, as `key`. The same request with the same
/// `Idempotency-Key` shows another secret of the same key in its place, until one is used.
#[api_v2_operation(operation_id = "createKey", tags(key))]
pub async fn create(
    service: web::Data<Service>,
    permit: Permit<WriteKeys>,
    idempotency_key: IdempotencyKey,
    body: Json<KeyCreateRequest>,
) -> Result<Reply<FreshKeyResponse, 201>, Fault> {
    let KeyCreateRequest { name, scopes, expires_at } = body.0;
    let request = KeyRequest { name, scopes, expires_at };
    let fresh = service.create_key(permit.0, request, idempotency_key.into_inner().as_deref()).await?;
    let location = format!("/me/keys/{}", fresh.key.id);
    Ok(Reply::new(FreshKeyResponse::from(fresh)).location(location))
}

/// See one of my API keys
#[api_v2_operation(operation_id = "readKey", tags(key))]
pub async fn read(
    service: web::Data<Service>,
    permit: Permit<ReadKeys>,
    id: PathId<KeyId>,
) -> Result<Reply<KeyResponse>, Fault> {
    Ok(Reply::new(service.key(&permit.0, id.0).await?.into()))
}

/// Change one of my API keys
#[api_v2_operation(operation_id = "editKey", tags(key))]
pub async fn edit(
    service: web::Data<Service>,
    permit: Permit<WriteKeys>,
    id: PathId<KeyId>,
    body: Json<KeyPatch>,
) -> Result<Reply<KeyResponse>, Fault> {
    let KeyPatch { name, scopes, expires_at } = body.0;
    let key = service.edit_key(permit.0, id.0, KeyEdit { name, scopes, expires_at }).await?;
    Ok(Reply::new(key.into()))
}

/// Give one of my API keys a new secret
///
/// It is shown this once, as `key`. The old one works for `overlap_seconds` more. The same request with the same
/// `Idempotency-Key` shows another new secret in its place, until one is used, and leaves the old one alone.
#[api_v2_operation(operation_id = "rotateKey", tags(key))]
pub async fn rotate(
    service: web::Data<Service>,
    permit: Permit<WriteKeys>,
    id: PathId<KeyId>,
    idempotency_key: IdempotencyKey,
    body: Json<RotateRequest>,
) -> Result<Reply<FreshKeyResponse>, Fault> {
    let fresh =
        service.rotate_key(permit.0, id.0, body.0.overlap_seconds, idempotency_key.into_inner().as_deref()).await?;
    Ok(Reply::new(fresh.into()))
}

/// Revoke one of my API keys
///
/// It is dead for the very next request.
#[api_v2_operation(operation_id = "revokeKey", tags(key))]
pub async fn revoke(
    service: web::Data<Service>,
    permit: Permit<WriteKeys>,
    id: PathId<KeyId>,
) -> Result<NoContent, Fault> {
    service.revoke_key(permit.0, id.0).await?;
    Ok(NoContent)
}
