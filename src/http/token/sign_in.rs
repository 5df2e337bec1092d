//! The endpoints to sign in, to sign out, and to test a credential.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::domain::audit::Caller;
use crate::domain::password::Password;
use crate::domain::role::BuiltInRole;
use crate::error::{AppError, Reason};
use crate::http::guard::permit::{AnyCaller, Authenticated, IsSignedIn, Permit};
use crate::http::resource::{EXAMPLE_EMAIL, EXAMPLE_PASSWORD, Resource, example_secret};
use crate::http::wire::body::Form;
use crate::http::wire::error::HttpError;
use crate::http::wire::problem::Presentation;
use crate::http::wire::reply::{NoContent, Reply};
use crate::service::Service;

/// The entries of registration, sign-in and tokens in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let token = example_secret("lkt");
    Resource {
        tag: ("Sign-in", "Start here: register, sign in to get a token, test it, and end it"),
        examples: vec![
            (
                "RegisterRequest",
                json!({
                    "name": "Grace", "surname": "Hopper", "email": EXAMPLE_EMAIL,
                    "website": "https://grace.example.org", "password": EXAMPLE_PASSWORD,
                }),
            ),
            ("signIn", json!({ "grant_type": "password", "username": EXAMPLE_EMAIL, "password": EXAMPLE_PASSWORD })),
            (
                "TokenResponse",
                json!({
                    "access_token": token, "token_type": "bearer", "expires_in": 86400,
                    "scope": BuiltInRole::Member.scopes().to_string(),
                }),
            ),
            ("HelloResponse", json!({ "hello": "Grace" })),
            ("introspect", json!({ "token": token })),
            (
                "Introspection",
                json!({
                    "active": true, "scope": "pages:read pages:write", "username": EXAMPLE_EMAIL, "email_verified": false,
                    "token_type": "Bearer", "exp": 1_795_723_200, "iat": 1_795_636_800, "sub": "user:2",
                }),
            ),
            ("revoke", json!({ "token": token })),
        ],
        ..Resource::default()
    }
}

/// The form of the OAuth 2.0 password grant (RFC 6749, section 4.3.2).
#[derive(Deserialize, Apiv2Schema)]
pub struct TokenRequest {
    /// `password`; optional in the status profile `fastapi`
    grant_type: Option<String>,
    /// The e-mail address; surrounding blanks are ignored
    username: String,
    /// The password
    password: String,
    /// Scopes to which the token is narrowed, separated by spaces; all scopes of the user's role if absent
    scope: Option<String>,
    /// Ignored: Latchkey has no OAuth clients
    #[expect(dead_code, reason = "documents a parameter that is accepted and ignored")]
    client_id: Option<String>,
    /// Ignored: Latchkey has no OAuth clients
    #[expect(dead_code, reason = "documents a parameter that is accepted and ignored")]
    client_secret: Option<String>,
}

/// A sign-in token, which is returned only once (RFC 6749, section 5.1).
#[derive(Serialize, Apiv2Schema)]
pub struct TokenResponse {
    /// The token; send it as `Token: …` or as `Authorization: Bearer …`
    access_token: String,
    /// `bearer`
    token_type: &'static str,
    /// Seconds until the token expires
    expires_in: i64,
    /// Scopes of the token, separated by spaces
    scope: String,
}

/// Sign in
///
/// Returns a sign-in token; requires the e-mail address and the password of a user.
///
/// Next, send the token as `Token: …` or as `Authorization: Bearer …`.
///
/// A user has one sign-in token: signing in again replaces it, so use it on one device at a time. Without `scope`, the
/// token holds all scopes of the user's role.
#[api_v2_operation(operation_id = "signIn", tags("Sign-in"), consumes = "application/x-www-form-urlencoded")]
pub async fn sign_in(
    service: web::Data<Service>,
    presentation: web::Data<Presentation>,
    caller: AnyCaller,
    form: Form<TokenRequest>,
) -> Result<Reply<TokenResponse>, HttpError> {
    let form = form.0;
    presentation.check_grant_type(form.grant_type.as_deref())?;
    let password = Password::new(form.password);
    let issued = service.sign_in(caller.0, &form.username, password, form.scope.as_deref()).await?;
    Ok(Reply::new(TokenResponse {
        access_token: issued.secret.reveal(),
        token_type: "bearer",
        expires_in: issued.expires_in,
        scope: issued.scopes.to_string(),
    }))
}

/// Sign out
///
/// Revokes your sign-in token; requires this token or a session, which stays open.
///
/// Sign in again with `POST /token` when you need another one.
#[api_v2_operation(operation_id = "signOut", tags("Sign-out"))]
pub async fn sign_out(service: web::Data<Service>, permit: Permit<IsSignedIn>) -> Result<NoContent, HttpError> {
    service.sign_out(permit.0).await?;
    Ok(NoContent)
}

/// A greeting.
#[derive(Serialize, Apiv2Schema)]
pub struct HelloResponse {
    /// Name of the caller
    hello: String,
}

/// Test a credential
///
/// Returns the name of the caller; requires any valid credential.
///
/// Next, read your account with `GET /me`.
///
/// For an issued key, it is the name of the key. The static key of the configuration is a valid credential, too.
#[api_v2_operation(operation_id = "protectedRoute", tags("Sign-in"))]
pub async fn protected_route(permit: Permit<Authenticated>) -> Result<Reply<HelloResponse>, HttpError> {
    let Caller::Principal(principal) = &permit.0.caller else {
        return Err(AppError::Unauthenticated(Reason::Missing).into());
    };
    Ok(Reply::new(HelloResponse { hello: principal.display_name().to_owned() }))
}
