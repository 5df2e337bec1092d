//! The endpoint for OAuth 2.0 token revocation (RFC 7009).

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Deserialize;

use crate::http::guard::permit::AnyCaller;
use crate::http::wire::body::Form;
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::Empty;
use crate::service::Service;

/// The form of a revocation request (RFC 7009, section 2.1).
#[derive(Deserialize, Apiv2Schema)]
pub struct RevokeRequest {
    /// A sign-in token, an API key, a claim code or the secret of a session
    token: String,
    /// Ignored: the prefix of the token shows its kind
    #[expect(dead_code, reason = "documents a parameter that is accepted and ignored")]
    token_type_hint: Option<String>,
}

/// Revoke a token, key or claim code
///
/// Revokes the sign-in token, API key or claim code in the form; requires no other credential.
///
/// Next, sign in or create a key again if you need one.
///
/// Returns 200 also if the secret is unknown or no longer valid. If the request has a credential (`Token`, `Bearer`, or
/// as the password of `Basic`), it must be valid and of the same account.
#[api_v2_operation(operation_id = "revoke", tags("Sign-in"), consumes = "application/x-www-form-urlencoded")]
pub async fn revoke(
    service: web::Data<Service>,
    caller: AnyCaller,
    form: Form<RevokeRequest>,
) -> Result<Empty, HttpError> {
    service.revoke_secret(caller.0, &form.0.token).await?;
    Ok(Empty)
}
