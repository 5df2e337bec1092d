//! API keys that are issued to others: a purchase becomes a key.

use std::collections::BTreeMap;
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::HeaderName;
use actix_web::{FromRequest, HttpRequest};
use paperclip::actix::{Apiv2Schema, OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DataType, DefaultOperationRaw, Either, Parameter, ParameterIn};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{self, Json, Query};
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
    /// The secret, shown this once; null with `claim`, and when the request was a repetition
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
            Issued::New { key, secret } => {
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

/// The caller's name for a request, from the header `Idempotency-Key`.
pub struct IdempotencyKey(Option<String>);

/// Longest such name in characters.
const IDEMPOTENCY_KEY_MAX: usize = 255;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl FromRequest for IdempotencyKey {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = request.headers().get_all(IDEMPOTENCY_KEY);
        let visible = |text: &&str| {
            (1..=IDEMPOTENCY_KEY_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        ready(match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(value), None) => match value.to_str().ok().map(str::trim).filter(visible) {
                Some(text) => Ok(Self(Some(text.to_owned()))),
                None => Err(malformed_idempotency_key()),
            },
            (Some(_), Some(_)) => Err(malformed_idempotency_key()),
        })
    }
}

fn malformed_idempotency_key() -> Fault {
    let detail = "Send Idempotency-Key once, with 1 to 255 visible ASCII characters.";
    Fault::Malformed { code: "malformed_idempotency_key", detail: detail.into() }
}

impl paperclip::v2::schema::Apiv2Schema for IdempotencyKey {}

impl OperationModifier for IdempotencyKey {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        operation.parameters.push(Either::Right(Parameter {
            name: "Idempotency-Key".to_owned(),
            in_: ParameterIn::Header,
            description: Some("Your name for this request; the same again is the same key".to_owned()),
            data_type: Some(DataType::String),
            ..Parameter::default()
        }));
    }
}

/// Issue an API key
///
/// For whoever bought access. The same `order` or `Idempotency-Key` again answers the same record with 200 and makes
/// nothing; with another body it is a conflict.
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
        idempotency_key: idempotency_key.0,
    };
    let issued = service.issue_key(permit.0, request).await?;
    let location = match &issued {
        Issued::New { key, .. } => Some(format!("/keys/{}", key.id)),
        Issued::Already(_) => None,
    };
    Ok(Once::new(issued.into(), location))
}

/// Claim an API key
///
/// Exchanges a claim code for the key's secret, which is shown this once, as `key`. The code is the only credential.
#[api_v2_operation(operation_id = "claimKey", tags(issue))]
pub async fn claim(
    service: web::Data<Service>,
    anybody: Anybody,
    body: Json<ClaimRequest>,
) -> Result<Reply<FreshKeyResponse>, Fault> {
    let fresh = service.claim_key(anybody.0, &body.0.claim).await?;
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

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;
    use proptest::prelude::*;

    use super::super::arbitrary::header_value;
    use super::*;

    fn read(lines: &[HeaderValue]) -> Result<Option<String>, ()> {
        let request =
            lines.iter().fold(TestRequest::default(), |request, line| request.append_header((IDEMPOTENCY_KEY, line)));
        let key = IdempotencyKey::from_request(&request.to_http_request(), &mut Payload::None).into_inner();
        key.map(|key| key.0).map_err(drop)
    }

    proptest! {
        #[test]
        fn an_idempotency_key_is_taken_as_it_is_written_or_refused(lines in prop::collection::vec(header_value(b" \t\"ab,\x80"), 0..3)) {
            let expected = match lines.as_slice() {
                [] => Ok(None),
                [line] => {
                    let text = line.as_bytes().trim_ascii();
                    let is_printable = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
                    let text = std::str::from_utf8(text).ok().filter(|text| is_printable && !text.is_empty());
                    text.map(|text| Some(text.to_owned())).ok_or(())
                }
                _ => Err(()),
            };
            prop_assert_eq!(read(&lines), expected);
        }
    }

    #[test]
    fn an_idempotency_key_has_at_most_255_characters() {
        let of = |length: usize| read(&[HeaderValue::from_str(&"k".repeat(length)).unwrap()]);
        assert_eq!((of(255), of(256)), (Ok(Some("k".repeat(255))), Err(())));
    }
}
