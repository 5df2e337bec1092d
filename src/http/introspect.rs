//! OAuth 2.0 token introspection (RFC 7662).

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};

use super::body::Form;
use super::metadata::Metadata;
use super::principal::{IntrospectTokens, Permit};
use super::problem::Fault;
use super::reply::Reply;
use crate::clock::Timestamp;
use crate::domain::principal::Identity;
use crate::service::Service;

/// The form of an introspection (RFC 7662, section 2.1).
#[derive(Deserialize, Apiv2Schema)]
pub struct IntrospectRequest {
    /// A sign-in token or an API key
    token: String,
    /// Ignored: the token itself tells what it is
    #[expect(dead_code, reason = "documents what is tolerated")]
    token_type_hint: Option<String>,
}

/// What a token is good for (RFC 7662, section 2.2). Of one that is not active there is nothing but that.
#[derive(Default, Serialize, Apiv2Schema)]
#[serde(default)]
pub struct Introspection {
    /// Whether the guard would let it in now
    active: bool,
    /// The scopes in force, separated by spaces, also those that a key was issued with for others; absent if there are none
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// The user's e-mail address; of a key that was issued to somebody else, the key's name
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// `Bearer`
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// When it dies, in seconds since 1970; absent if it does not
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// When the user signed in, or the key was made, in seconds since 1970
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    /// `user:ID`, or `key:ID`, as in the audit trail
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// Where the server is reached; absent unless the setting `http.public_url` says so
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
}

impl Introspection {
    fn of(identity: &Identity, issuer: Option<&str>) -> Self {
        let scope = identity.scope_names();
        Self {
            active: true,
            scope: (!scope.is_empty()).then_some(scope),
            username: Some(identity.email.as_ref().unwrap_or(&identity.name).clone()),
            token_type: Some("Bearer"),
            exp: identity.expires_at.map(Timestamp::seconds),
            iat: Some(identity.issued_at.seconds()),
            sub: Some(identity.subject()),
            iss: issuer.map(str::to_owned),
        }
    }
}

/// Ask whose a token or key is, and what it is good for
///
/// For services that let its holder in: they see the scopes in force, also their own, such as `translate:use`. The caller's
/// key may also come as the password of `Basic`, as OAuth libraries send it.
#[api_v2_operation(operation_id = "introspect", tags(oauth), consumes = "application/x-www-form-urlencoded")]
pub async fn introspect(
    service: web::Data<Service>,
    metadata: web::Data<Metadata>,
    _permit: Permit<IntrospectTokens>,
    form: Form<IntrospectRequest>,
) -> Result<Reply<Introspection>, Fault> {
    let found = service.introspect(&form.0.token).await?;
    let told = found.map(|identity| Introspection::of(&identity, metadata.issuer()));
    Ok(Reply::new(told.unwrap_or_default()))
}
