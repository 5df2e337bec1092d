//! The endpoints for issued keys: API keys that are issued to others, for example to buyers.

use std::collections::BTreeMap;

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::domain::id::KeyId;
use crate::domain::key::Key;
use crate::domain::secret::SecretKind;
use crate::http::guard::permit::{AnyCaller, IssueKeys, Permit};
use crate::http::key::own::{FreshKeyResponse, KeyResponse};
use crate::http::resource::{EXAMPLE_TIME, Resource, example, example_secret};
use crate::http::wire::body::{self, Json, Query};
use crate::http::wire::error::HttpError;
use crate::http::wire::idempotency::IdempotencyKey;
use crate::http::wire::path::PathId;
use crate::http::wire::reply::{NoContent, Reply, ShownOnce};
use crate::http::wire::{fields, list};
use crate::service::Service;
use crate::service::key::grant::KeyRequest;
use crate::service::key::issued::{Delivery, IssueRequest, Issued, IssuedQuery, LIMIT_DEFAULT};

/// The entries of issued keys in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let (name, scopes, order, plan) =
        ("Ada\u{2019}s subscription", ["translate:use"], "order-1042", json!({ "plan": "basic" }));
    let claim = example_secret("lkc");
    let key = json!({
        "id": 3, "name": name, "scopes": scopes, "hint": null, "created_at": EXAMPLE_TIME, "expires_at": null,
        "last_used_at": null, "last_used_ip": null, "previous_expires_at": null, "order": order, "metadata": plan,
        "claim_expires_at": "2026-11-28T20:00:00.000000Z", "claimed_at": null, "revoked_at": null,
    });
    let mut issued = key.clone();
    if let Some(issued) = issued.as_object_mut() {
        issued.extend([("key".to_owned(), Value::Null), ("claim".to_owned(), claim.as_str().into())]);
    }
    Resource {
        tag: ("Issued keys", "API keys that you issue to others, for example to buyers"),
        parameters: vec![
            ("listIssuedKeys", "order", example(order)),
            ("readIssuedKey", "id", example(3)),
            ("revokeIssuedKey", "id", example(3)),
        ],
        lists: vec![("IssuedKeyListResponse", "IssuedKeyResponse")],
        examples: vec![
            (
                "KeyIssueRequest",
                json!({ "name": name, "scopes": scopes, "order": order, "metadata": plan, "delivery": "claim" }),
            ),
            ("ClaimRequest", json!({ "claim": claim })),
            ("IssuedKeyListResponse", json!({ "items": [key], "next": null })),
            ("IssuedKeyResponse", key),
            ("KeyIssueResponse", issued),
        ],
        ..Resource::default()
    }
}

/// An API key to issue to another person or service.
#[derive(Deserialize, Apiv2Schema)]
pub struct KeyIssueRequest {
    /// Name of the key
    name: String,
    /// Scopes of the key, each once: external scopes of any name, and scopes of Latchkey that your credential holds
    scopes: Vec<String>,
    /// Time from which the key is expired, within ten years; absent if it does not expire
    expires_at: Option<String>,
    /// Your identifier of the purchase; the same order returns the same key
    order: Option<String>,
    /// An object with any members, at most 4,096 bytes of JSON, which is returned with the key
    metadata: Option<BTreeMap<String, Value>>,
    /// `secret` (default) returns the secret; `claim` returns a code that its holder exchanges for the secret
    delivery: Option<String>,
}

/// An issued key, without its secret.
#[derive(Serialize, Apiv2Schema)]
pub struct IssuedKeyResponse {
    #[serde(flatten)]
    record: KeyResponse,
    /// Your identifier of the purchase
    order: Option<String>,
    /// The metadata that you sent
    metadata: BTreeMap<String, Value>,
    /// Time until which the key can be claimed; null with `secret`
    claim_expires_at: Option<Timestamp>,
    /// Time of the claim; null if the key was not claimed
    claimed_at: Option<Timestamp>,
    /// Time of the revocation; null if the key was not revoked
    revoked_at: Option<Timestamp>,
}

impl From<Key> for IssuedKeyResponse {
    fn from(mut key: Key) -> Self {
        let issue = key.issue.take();
        Self {
            claim_expires_at: issue.as_ref().and_then(|issue| issue.claim_expires_at),
            claimed_at: issue.as_ref().and_then(|issue| issue.claimed_at),
            revoked_at: issue.as_ref().and_then(|issue| issue.revoked_at),
            order: issue.as_ref().and_then(|issue| issue.order.clone()),
            metadata: issue.map(|issue| issue.metadata).unwrap_or_default(),
            record: key.into(),
        }
    }
}

/// An issued key with its secret or claim code, which is returned only once.
#[derive(Serialize, Apiv2Schema)]
pub struct KeyIssueResponse {
    #[serde(flatten)]
    issued: IssuedKeyResponse,
    /// The secret, returned only once; null with `claim`, and in the response to a repetition that returns none
    key: Option<String>,
    /// The claim code, valid for 72 hours; null with `secret`, and in the response to a repetition that returns none
    claim: Option<String>,
}

impl KeyIssueResponse {
    /// The secret or the claim code; `None` if the response contains neither.
    pub fn shown_once(&self) -> Option<&str> {
        self.key.as_deref().or(self.claim.as_deref())
    }
}

impl From<Issued> for KeyIssueResponse {
    fn from(issued: Issued) -> Self {
        match issued {
            Issued::Existing(key) => Self { issued: key.into(), key: None, claim: None },
            Issued::New { key, secret } | Issued::Repeated { key, secret } => {
                let is_claim = secret.kind() == SecretKind::Claim;
                let secret = secret.reveal();
                let (key_secret, claim) = if is_claim { (None, Some(secret)) } else { (Some(secret), None) };
                Self { issued: key.into(), key: key_secret, claim }
            }
        }
    }
}

/// The filter and the part of the list of issued keys.
#[derive(Deserialize, Apiv2Schema)]
pub struct IssuedKeyListQuery {
    /// Only the key for this order
    order: Option<String>,
    /// The `next` of the previous response
    after: Option<i64>,
    /// Maximum number of items in the response
    limit: Option<i64>,
}

/// A part of the list of issued keys.
#[derive(Serialize, Apiv2Schema)]
pub struct IssuedKeyListResponse {
    /// Keys, by id
    items: Vec<IssuedKeyResponse>,
    /// Pass it as `after` to get the following part; null at the end
    next: Option<i64>,
}

/// A claim code to be exchanged.
#[derive(Deserialize, Apiv2Schema)]
pub struct ClaimRequest {
    /// The claim code
    claim: String,
}

/// Issue an API key
///
/// Issues an API key on your account to another person or service; requires the scope `keys:issue`.
///
/// Next, pass on `key`, or the claim code for `POST /keys/claim`.
///
/// The same `order` or `Idempotency-Key` with the same body returns the same key with 200, and with another body it
/// returns 409. Until the new secret or claim code is used, the same request with the same `Idempotency-Key` returns
/// another one, which replaces it.
#[api_v2_operation(operation_id = "issueKey", tags("Issued keys"))]
pub async fn issue(
    service: web::Data<Service>,
    permit: Permit<IssueKeys>,
    idempotency_key: IdempotencyKey,
    body: Json<KeyIssueRequest, { body::ISSUE }>,
) -> Result<ShownOnce<KeyIssueResponse>, HttpError> {
    let KeyIssueRequest { name, scopes, expires_at, order, metadata, delivery } = body.0;
    let delivery = delivery.map(|name| fields::one_of("delivery", &name, Delivery::ALL, Delivery::name)).transpose()?;
    let request = IssueRequest {
        key: KeyRequest { name, scopes, expires_at },
        order,
        metadata: metadata.unwrap_or_default(),
        delivery: delivery.unwrap_or(Delivery::Secret),
        idempotency_key: idempotency_key.into_inner(),
    };
    let issued = service.issue_key(permit.0, request).await?;
    let location = match &issued {
        Issued::New { key, .. } => Some(format!("/keys/{}", key.id)),
        Issued::Repeated { .. } | Issued::Existing(_) => None,
    };
    Ok(ShownOnce::new(issued.into(), location))
}

/// Claim an API key
///
/// Exchanges a claim code for the secret of its key; requires no other credential.
///
/// Next, store `key`, which is returned only this once.
///
/// Until the new secret is used, the same request with the same `Idempotency-Key` returns another one, which replaces
/// it.
#[api_v2_operation(operation_id = "claimKey", tags("Issued keys"))]
pub async fn claim(
    service: web::Data<Service>,
    caller: AnyCaller,
    idempotency_key: IdempotencyKey,
    body: Json<ClaimRequest>,
) -> Result<Reply<FreshKeyResponse>, HttpError> {
    let fresh = service.claim_key(caller.0, &body.0.claim, idempotency_key.into_inner().as_deref()).await?;
    Ok(Reply::new(fresh.into()))
}

/// List issued API keys
///
/// Returns the API keys issued on your account, including revoked ones; requires the scope `keys:issue`.
///
/// Continue with `next` as `after`.
#[api_v2_operation(operation_id = "listIssuedKeys", tags("Issued keys"))]
pub async fn list(
    service: web::Data<Service>,
    permit: Permit<IssueKeys>,
    query: Query<IssuedKeyListQuery>,
) -> Result<Reply<IssuedKeyListResponse>, HttpError> {
    let IssuedKeyListQuery { order, after, limit } = query.0;
    let query = IssuedQuery { order, after: after.unwrap_or(0), limit: limit.unwrap_or(LIMIT_DEFAULT) };
    let list = service.issued_keys(&permit.0, query).await?;
    let mut items: Vec<_> = list.items.into_iter().map(IssuedKeyResponse::from).collect();
    let next = list::truncate(&mut items, list.next.map(|id| id.0), |item| item.record.id());
    Ok(Reply::new(IssuedKeyListResponse { items, next }))
}

/// Get an issued API key
///
/// Returns one API key issued on your account; requires the scope `keys:issue`.
///
/// Revoke it with `DELETE /keys/{id}`.
#[api_v2_operation(operation_id = "readIssuedKey", tags("Issued keys"))]
pub async fn read(
    service: web::Data<Service>,
    permit: Permit<IssueKeys>,
    id: PathId<KeyId>,
) -> Result<Reply<IssuedKeyResponse>, HttpError> {
    Ok(Reply::new(service.issued_key(&permit.0, id.0).await?.into()))
}

/// Revoke an issued API key
///
/// Revokes an API key issued on your account from the next request on; requires the scope `keys:issue`.
///
/// `GET /keys/{id}` still returns its record. The record stays, so that the same order does not issue a second key.
#[api_v2_operation(operation_id = "revokeIssuedKey", tags("Issued keys"))]
pub async fn revoke(
    service: web::Data<Service>,
    permit: Permit<IssueKeys>,
    id: PathId<KeyId>,
) -> Result<NoContent, HttpError> {
    service.revoke_issued_key(permit.0, id.0).await?;
    Ok(NoContent)
}
