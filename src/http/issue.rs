//! API keys that are issued to others: a purchase becomes a key.

use std::collections::BTreeMap;

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{self, Json, Query};
use super::idempotency::IdempotencyKey;
use super::key::{FreshKeyResponse, KeyResponse};
use super::path::PathId;
use super::principal::{Anybody, IssueKeys, Permit};
use super::problem::Fault;
use super::reply::{NoContent, Once, Reply};
use super::{fields, list};
use crate::clock::Timestamp;
use crate::domain::id::KeyId;
use crate::domain::key::Key;
use crate::domain::secret::SecretKind;
use crate::service::Service;
use crate::service::grant::KeyRequest;
use crate::service::issue::{Delivery, IssueRequest, Issued, IssuedQuery, LIMIT_DEFAULT};

/// A key to be issued.
#[derive(Deserialize, Apiv2Schema)]
pub struct KeyIssueRequest {
    /// What the key is called
    name: String,
    /// What it may do, each scope once: any names of your own, and of Latchkey's what your credential may
    scopes: Vec<String>,
    /// The first moment at which it is dead, within ten years; never if absent
    expires_at: Option<String>,
    /// Your own name for the purchase; the same again is the same key
    order: Option<String>,
    /// Whatever you want to remember, at most 4,096 bytes of JSON
    metadata: Option<BTreeMap<String, Value>>,
    /// `secret` (if absent): you get the secret. `claim`: you get a code that its holder exchanges for the secret
    delivery: Option<String>,
}

/// A key that was issued, without its secret.
#[derive(Serialize, Apiv2Schema)]
pub struct IssuedKeyResponse {
    #[serde(flatten)]
    record: KeyResponse,
    /// Your own name for the purchase
    order: Option<String>,
    /// Whatever you wanted to remember
    metadata: BTreeMap<String, Value>,
    /// Until when it can be claimed; null if you got the secret yourself
    claim_expires_at: Option<Timestamp>,
    /// When it was claimed; null if it was not
    claimed_at: Option<Timestamp>,
    /// When it was revoked; null if it was not
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

/// A key that was issued, with what is shown once.
#[derive(Serialize, Apiv2Schema)]
pub struct KeyIssueResponse {
    #[serde(flatten)]
    issued: IssuedKeyResponse,
    /// The secret, shown this once; null with `claim`, and when the request was a repetition that shows none
    key: Option<String>,
    /// The claim code, shown this once, good for 72 hours; null with `secret`, and when the request was a repetition
    claim: Option<String>,
}

impl KeyIssueResponse {
    /// The secret or the claim code, if this is the one answer that shows it.
    pub fn shown_once(&self) -> Option<&str> {
        self.key.as_deref().or(self.claim.as_deref())
    }
}

impl From<Issued> for KeyIssueResponse {
    fn from(issued: Issued) -> Self {
        match issued {
            Issued::Already(key) => Self { issued: key.into(), key: None, claim: None },
            Issued::New { key, secret } | Issued::Again { key, secret } => {
                let is_claim = secret.kind() == SecretKind::Claim;
                let secret = secret.reveal();
                let (key_secret, claim) = if is_claim { (None, Some(secret)) } else { (Some(secret), None) };
                Self { issued: key.into(), key: key_secret, claim }
            }
        }
    }
}

/// Which issued keys.
#[derive(Deserialize, Apiv2Schema)]
pub struct IssuedKeyListQuery {
    /// Those for this order
    order: Option<String>,
    /// What `next` said
    after: Option<i64>,
    /// Items in the answer
    limit: Option<i64>,
}

/// Some issued keys.
#[derive(Serialize, Apiv2Schema)]
pub struct IssuedKeyListResponse {
    /// By id
    items: Vec<IssuedKeyResponse>,
    /// Send it as `after` for what follows; null at the end
    next: Option<i64>,
}

/// A claim.
#[derive(Deserialize, Apiv2Schema)]
pub struct ClaimRequest {
    /// The claim code
    claim: String,
}

/// Issue an API key
///
/// For whoever bought access. The same `order` or `Idempotency-Key` again answers the same record with 200 and makes
/// no other key; with another body it is a conflict. The same `Idempotency-Key` shows another secret in its place, until
/// one is used.
#[api_v2_operation(operation_id = "issueKey", tags(issue))]
pub async fn issue(
    service: web::Data<Service>,
    permit: Permit<IssueKeys>,
    idempotency_key: IdempotencyKey,
    body: Json<KeyIssueRequest, { body::ISSUE }>,
) -> Result<Once<KeyIssueResponse>, Fault> {
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
        Issued::Again { .. } | Issued::Already(_) => None,
    };
    Ok(Once::new(issued.into(), location))
}

/// Claim an API key
///
/// Exchanges a claim code for the key's secret, which is shown this once, as `key`. The code is the only credential. The
/// same request with the same `Idempotency-Key` shows another secret in its place, until one is used.
#[api_v2_operation(operation_id = "claimKey", tags(issue))]
pub async fn claim(
    service: web::Data<Service>,
    anybody: Anybody,
    idempotency_key: IdempotencyKey,
    body: Json<ClaimRequest>,
) -> Result<Reply<FreshKeyResponse>, Fault> {
    let fresh = service.claim_key(anybody.0, &body.0.claim, idempotency_key.into_inner().as_deref()).await?;
    Ok(Reply::new(fresh.into()))
}

/// List issued API keys
///
/// Those that were issued on your account, revoked ones included.
#[api_v2_operation(operation_id = "listIssuedKeys", tags(issue))]
pub async fn list(
    service: web::Data<Service>,
    permit: Permit<IssueKeys>,
    query: Query<IssuedKeyListQuery>,
) -> Result<Reply<IssuedKeyListResponse>, Fault> {
    let IssuedKeyListQuery { order, after, limit } = query.0;
    let query = IssuedQuery { order, after: after.unwrap_or(0), limit: limit.unwrap_or(LIMIT_DEFAULT) };
    let list = service.issued_keys(&permit.0, query).await?;
    let mut items: Vec<_> = list.items.into_iter().map(IssuedKeyResponse::from).collect();
    let next = list::end_early(&mut items, list.next.map(|id| id.0), |item| item.record.id());
    Ok(Reply::new(IssuedKeyListResponse { items, next }))
}

/// See an issued API key
#[api_v2_operation(operation_id = "readIssuedKey", tags(issue))]
pub async fn read(
    service: web::Data<Service>,
    permit: Permit<IssueKeys>,
    id: PathId<KeyId>,
) -> Result<Reply<IssuedKeyResponse>, Fault> {
    Ok(Reply::new(service.issued_key(&permit.0, id.0).await?.into()))
}

/// Revoke an issued API key
///
/// It is dead for the very next request. Its record stays, so that its order is not filled twice.
#[api_v2_operation(operation_id = "revokeIssuedKey", tags(issue))]
pub async fn revoke(
    service: web::Data<Service>,
    permit: Permit<IssueKeys>,
    id: PathId<KeyId>,
) -> Result<NoContent, Fault> {
    service.revoke_issued_key(permit.0, id.0).await?;
    Ok(NoContent)
}
