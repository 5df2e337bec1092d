//! The endpoint for OAuth 2.0 token introspection (RFC 7662).

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::domain::principal::Identity;
use crate::http::guard::permit::{IntrospectTokens, Permit};
use crate::http::token::metadata::Metadata;
use crate::http::wire::body::Form;
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::Reply;
use crate::service::Service;

/// The form of an introspection request (RFC 7662, section 2.1).
#[derive(Deserialize, Apiv2Schema)]
pub struct IntrospectRequest {
    /// A sign-in token or an API key
    token: String,
    /// Ignored: the prefix of the token shows its kind
    #[expect(dead_code, reason = "documents a parameter that is accepted and ignored")]
    token_type_hint: Option<String>,
}

/// The state, owner and scopes of a token (RFC 7662, section 2.2). For an inactive token, only `active` is present.
#[derive(Default, Serialize, Apiv2Schema)]
#[serde(default)]
pub struct Introspection {
    /// Whether a guarded route would accept the credential now
    active: bool,
    /// The scopes in force, including external scopes, separated by spaces; absent if there are none
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// The user's e-mail address in canonical form; for an issued key, the name of the key
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Whether the user proved to receive mails at this address; absent for an issued key
    #[serde(skip_serializing_if = "Option::is_none")]
    email_verified: Option<bool>,
    /// `Bearer`
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// When it expires, in seconds since 1970; absent if it does not expire
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// When the user signed in, or the key was created, in seconds since 1970
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    /// `user:ID`, or `key:ID`, as in the audit trail
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// The setting `http.public_url`; absent if it is empty
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
}

impl Introspection {
    fn active(identity: &Identity, issuer: Option<&str>) -> Self {
        let scope = identity.scope_names();
        Self {
            active: true,
            scope: (!scope.is_empty()).then_some(scope),
            username: Some(identity.email.as_ref().unwrap_or(&identity.name).clone()),
            email_verified: identity.email.is_some().then_some(identity.email_verified),
            token_type: Some("Bearer"),
            exp: identity.expires_at.map(Timestamp::seconds),
            iat: Some(identity.issued_at.seconds()),
            sub: Some(identity.subject()),
            iss: issuer.map(str::to_owned),
        }
    }
}

/// Introspect a token or key
///
/// Returns the state, the owner and the scopes in force of a token or key; requires the scope `tokens:introspect`.
///
/// Accept the token only if `active` is true.
///
/// The scopes include external ones such as `translate:use`. The caller's credential can also be the password of
/// `Basic`, as OAuth libraries send it.
#[api_v2_operation(operation_id = "introspect", tags("Sign-in"), consumes = "application/x-www-form-urlencoded")]
pub async fn introspect(
    service: web::Data<Service>,
    metadata: web::Data<Metadata>,
    _permit: Permit<IntrospectTokens>,
    form: Form<IntrospectRequest>,
) -> Result<Reply<Introspection>, HttpError> {
    let identity = service.introspect(&form.0.token).await?;
    let introspection = identity.map(|identity| Introspection::active(&identity, metadata.issuer()));
    Ok(Reply::new(introspection.unwrap_or_default()))
}
