//! Sign-in tokens, and a route to try a credential on.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};

use super::body::Form;
use super::principal::{Anybody, BeSignedIn, Known, Permit};
use super::problem::{Fault, Presentation};
use super::reply::{NoContent, Reply};
use crate::domain::audit::Caller;
use crate::domain::password::Password;
use crate::error::{AppError, Reason};
use crate::service::Service;

/// The form of OAuth 2.0's password grant (RFC 6749, section 4.3.2).
#[derive(Deserialize, Apiv2Schema)]
pub struct TokenRequest {
    /// `password`; may be absent in the status profile `fastapi`
    grant_type: Option<String>,
    /// The e-mail address; blanks around it do not count
    username: String,
    /// The password
    password: String,
    /// Scopes to narrow the token to, separated by spaces; all that the user's role holds if absent
    scope: Option<String>,
    /// Ignored: there are no clients
    #[expect(dead_code, reason = "documents what is tolerated")]
    client_id: Option<String>,
    /// Ignored: there are no clients
    #[expect(dead_code, reason = "documents what is tolerated")]
    client_secret: Option<String>,
}

/// A token, shown this once (RFC 6749, section 5.1).
#[derive(Serialize, Apiv2Schema)]
pub struct TokenResponse {
    /// Send it as `Token: …` or as `Authorization: Bearer …`
    access_token: String,
    /// `bearer`
    token_type: &'static str,
    /// Seconds until the token dies
    expires_in: i64,
    /// What the token may be used for, separated by spaces
    scope: String,
}

/// Sign in
///
/// Takes an OAuth 2.0 password form and answers a token. A user has one: signing in again replaces it, so use it on
/// one device at a time.
#[api_v2_operation(operation_id = "signIn", tags(user), consumes = "application/x-www-form-urlencoded")]
pub async fn sign_in(
    service: web::Data<Service>,
    presentation: web::Data<Presentation>,
    anybody: Anybody,
    form: Form<TokenRequest>,
) -> Result<Reply<TokenResponse>, Fault> {
    let form = form.0;
    presentation.check_grant_type(form.grant_type.as_deref())?;
    let password = Password::new(form.password);
    let issued = service.sign_in(anybody.0, &form.username, password, form.scope.as_deref()).await?;
    Ok(Reply::new(TokenResponse {
        access_token: issued.secret.reveal(),
        token_type: "bearer",
        expires_in: issued.expires_in,
        scope: issued.scopes.to_string(),
    }))
}

/// Sign out
///
/// Ends the token that is presented; the next request with it is refused.
#[api_v2_operation(operation_id = "signOut", tags(user))]
pub async fn sign_out(service: web::Data<Service>, permit: Permit<BeSignedIn>) -> Result<NoContent, Fault> {
    service.sign_out(permit.0).await?;
    Ok(NoContent)
}

/// A greeting.
#[derive(Serialize, Apiv2Schema)]
pub struct HelloResponse {
    /// The caller's name
    hello: String,
}

/// Try a credential
///
/// Greets the caller: a user or a user's own key by the user's name, an issued key by its own. The constant key of the
/// configuration opens this route, too.
#[api_v2_operation(operation_id = "protectedRoute", tags(user))]
pub async fn protected_route(permit: Permit<Known>) -> Result<Reply<HelloResponse>, Fault> {
    let Caller::Principal(principal) = &permit.0.caller else {
        return Err(AppError::Unauthenticated(Reason::Missing).into());
    };
    Ok(Reply::new(HelloResponse { hello: principal.display_name().to_owned() }))
}
