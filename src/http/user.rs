//! The user scope: registration, signing in and out, and who one is.

use chrono::{DateTime, Utc};
use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};

use super::body::{Form, Json};
use super::principal::{Caller, User};
use super::problem::{Fault, Presentation};
use super::reply::{NoContent, Reply};
use crate::domain::password::Password;
use crate::domain::user::User as Account;
use crate::service::Service;
use crate::service::user::Registration;

/// What it takes to register.
#[derive(Deserialize, Apiv2Schema)]
pub struct RegisterRequest {
    /// First name
    name: String,
    /// Family name; may be empty
    surname: String,
    /// E-mail address; unique in any spelling
    email: String,
    /// Any text
    website: Option<String>,
    /// Password, taken exactly as it is
    password: String,
}

impl From<RegisterRequest> for Registration {
    fn from(request: RegisterRequest) -> Self {
        Self {
            name: request.name,
            surname: request.surname,
            email: request.email,
            website: request.website.unwrap_or_default(),
            password: Password::new(request.password),
        }
    }
}

/// A user, as they may see themselves.
#[derive(Serialize, Apiv2Schema)]
pub struct UserResponse {
    /// Never reused
    id: i64,
    /// First name
    name: String,
    /// Family name
    surname: String,
    /// As the user wrote it
    email: String,
    /// Any text
    website: String,
    /// When the user registered
    created_at: DateTime<Utc>,
    /// When the user last changed
    updated_at: DateTime<Utc>,
}

impl From<Account> for UserResponse {
    fn from(user: Account) -> Self {
        Self {
            id: user.id.0,
            name: user.name,
            surname: user.surname,
            email: user.email,
            website: user.website,
            created_at: user.created_at.utc(),
            updated_at: user.updated_at.utc(),
        }
    }
}

/// Register
///
/// Stores a new user. An e-mail that is already known in any spelling (case, Unicode form, IDNA domain) is a conflict.
#[api_v2_operation(operation_id = "register", tags(user))]
pub async fn register(
    service: web::Data<Service>,
    body: Json<RegisterRequest>,
) -> Result<Reply<UserResponse, 201>, Fault> {
    let user = service.register(body.0.into()).await?;
    Ok(Reply::new(UserResponse::from(user)).location("/me".to_owned()))
}

/// The form of OAuth 2.0's password grant (RFC 6749, section 4.3.2).
#[derive(Deserialize, Apiv2Schema)]
pub struct TokenRequest {
    /// `password`; may be absent in the status profile `fastapi`
    grant_type: Option<String>,
    /// The e-mail address
    username: String,
    /// The password
    password: String,
    /// Scopes to narrow the token to, separated by spaces; all that the user has if absent
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
    form: Form<TokenRequest>,
) -> Result<Reply<TokenResponse>, Fault> {
    let form = form.0;
    presentation.check_grant_type(form.grant_type.as_deref())?;
    let issued = service.sign_in(&form.username, Password::new(form.password), form.scope.as_deref()).await?;
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
pub async fn sign_out(service: web::Data<Service>, caller: User) -> Result<NoContent, Fault> {
    service.sign_out(&caller.0).await?;
    Ok(NoContent)
}

/// Who I am
#[api_v2_operation(operation_id = "me", tags(user))]
pub async fn me(service: web::Data<Service>, caller: User) -> Result<Reply<UserResponse>, Fault> {
    let user = service.me(&caller.0).await?;
    Ok(Reply::new(user.into()))
}

/// A greeting.
#[derive(Serialize, Apiv2Schema)]
pub struct HelloResponse {
    /// The caller's name
    hello: String,
}

/// Try a credential
///
/// Greets the caller. The constant key of the configuration opens this route, too.
#[api_v2_operation(operation_id = "protectedRoute", tags(user))]
pub async fn protected_route(caller: Caller) -> Result<Reply<HelloResponse>, Fault> {
    Ok(Reply::new(HelloResponse { hello: caller.0.display_name().to_owned() }))
}
