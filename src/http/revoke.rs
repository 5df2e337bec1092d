//! OAuth 2.0 token revocation (RFC 7009).

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Deserialize;

use super::body::Form;
use super::principal::Anybody;
use super::problem::Fault;
use super::reply::Empty;
use crate::service::Service;

/// The form of a revocation (RFC 7009, section 2.1).
#[derive(Deserialize, Apiv2Schema)]
pub struct RevokeRequest {
    /// A sign-in token, an API key or a claim code
    token: String,
    /// Ignored: the token itself tells what it is
    #[expect(dead_code, reason = "documents what is tolerated")]
    token_type_hint: Option<String>,
}

/// End a token, a key or a claim code by showing it
///
/// Whoever holds it may end it; no other credential is needed. The answer is 200 also for what is unknown or has ended
/// already. A credential that comes along (`Token`, `Bearer`, or a key as the password of `Basic`) must be good, and of
/// the same account.
#[api_v2_operation(operation_id = "revoke", tags(oauth), consumes = "application/x-www-form-urlencoded")]
pub async fn revoke(service: web::Data<Service>, anybody: Anybody, form: Form<RevokeRequest>) -> Result<Empty, Fault> {
    service.revoke_secret(anybody.0, &form.0.token).await?;
    Ok(Empty)
}
