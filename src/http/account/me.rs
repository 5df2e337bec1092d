//! The endpoints under `/me` that read, change and delete the caller's account.

use actix_web::http::header::SET_COOKIE;
use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Deserialize;
use serde_json::json;

use crate::domain::password::Password;
use crate::http::account::users::UserResponse;
use crate::http::guard::permit::{IsUser, ManageAccount, Permit};
use crate::http::resource::{EXAMPLE_PASSWORD, Resource};
use crate::http::wire::body::Json;
use crate::http::wire::cookie;
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::{NoContent, NoContentWith, OkOrAccepted, Reply};
use crate::service::Service;
use crate::service::account::me::AccountEdit;

/// The entries of the caller's account in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    Resource {
        tag: ("My account", "Your own account, and what was done with it"),
        examples: vec![("AccountPatch", json!({ "website": "https://www.example.org" }))],
        ..Resource::default()
    }
}

/// The entries of the operations that end the caller's token in the OpenAPI document.
pub(crate) fn sign_out_resource() -> Resource {
    Resource {
        tag: ("Sign-out", "What ends your token or session: sign-out, a new password, the deletion of your account"),
        examples: vec![(
            "PasswordRequest",
            // The same password, so that the example does not change it.
            json!({ "current_password": EXAMPLE_PASSWORD, "new_password": EXAMPLE_PASSWORD, "revoke_keys": false }),
        )],
        ..Resource::default()
    }
}

/// Changes to the caller's account. Absent fields do not change.
#[derive(Deserialize, Apiv2Schema)]
pub struct AccountPatch {
    /// First name
    name: Option<String>,
    /// Family name; may be empty
    surname: Option<String>,
    /// E-mail address, unique in any spelling; surrounding blanks are ignored. Requires `current_password`
    email: Option<String>,
    /// One line of text
    website: Option<String>,
    /// Language of mails to you
    language: Option<String>,
    /// Whether you get mails about sign-ins after failed ones and from new networks. False requires `current_password`
    sign_in_notices: Option<bool>,
    /// The current password; required to change the e-mail address and to turn notices off
    current_password: Option<String>,
}

/// A change of password.
#[derive(Deserialize, Apiv2Schema)]
pub struct PasswordRequest {
    /// The current password
    current_password: String,
    /// The new password, used exactly as sent
    new_password: String,
    /// Whether to revoke the API keys that act on the account, too; true if absent
    revoke_keys: Option<bool>,
}

/// Get my account
///
/// Returns your account; requires a session, a sign-in token or an own API key.
///
/// Change it with `PATCH /me`.
#[api_v2_operation(operation_id = "me", tags("My account"))]
pub async fn read(service: web::Data<Service>, permit: Permit<IsUser>) -> Result<Reply<UserResponse>, HttpError> {
    Ok(Reply::new(service.me(&permit.0).await?.into()))
}

/// Change my account
///
/// Changes the given fields of your account; requires a session or a full sign-in token.
///
/// The response is the changed account. A sign-in token is full if the sign-in requested no scopes.
///
/// An e-mail address requires the current password, and so does turning the notices off. If the server sends mails, a
/// new address returns 202, whether or not it is taken: it is `pending_email` until the link in the mail to it is
/// confirmed. The present address ends a change that is pending.
#[api_v2_operation(operation_id = "editMe", tags("My account"))]
pub async fn edit(
    service: web::Data<Service>,
    permit: Permit<ManageAccount>,
    body: Json<AccountPatch>,
) -> Result<OkOrAccepted<UserResponse>, HttpError> {
    let AccountPatch { name, surname, email, website, language, sign_in_notices, current_password } = body.0;
    let current_password = current_password.map(Password::new);
    let sends_link = email.is_some();
    let edit = AccountEdit { name, surname, email, website, language, sign_in_notices, current_password };
    let user = service.edit_account(permit.0, edit).await?;
    let is_pending = sends_link && user.pending_email.is_some();
    Ok(OkOrAccepted { body: user.into(), is_pending })
}

/// Change my password
///
/// Sets a new password and revokes your token; requires a session or a full sign-in token, and the current password.
///
/// Next, sign in again with `POST /token`.
///
/// It also ends all of your browser sessions. If you make the request with one of them, that session continues with a
/// new cookie.
///
/// Unless `revoke_keys` is false, it also revokes the API keys that act on the account: all that you created for
/// yourself, and those issued to others with scopes of Latchkey. Issued keys with external scopes only stay valid.
#[api_v2_operation(operation_id = "changePassword", tags("Sign-out"))]
pub async fn set_password(
    service: web::Data<Service>,
    permit: Permit<ManageAccount>,
    body: Json<PasswordRequest>,
) -> Result<NoContentWith, HttpError> {
    let PasswordRequest { current_password, new_password, revoke_keys } = body.0;
    let (current, new) = (Password::new(current_password), Password::new(new_password));
    let renewed = service.change_password(permit.0, current, new, revoke_keys.unwrap_or(true)).await?;
    Ok(NoContentWith(renewed.map(|secret| (SET_COOKIE, cookie::with_secret(secret))).into_iter().collect()))
}

/// Delete my account
///
/// Deletes your account with its token, sessions, keys and pages; requires a session or a full sign-in token.
///
/// Afterwards, `POST /register` accepts the e-mail address again. The last admin gets 409.
#[api_v2_operation(operation_id = "deleteMe", tags("Sign-out"))]
pub async fn delete(service: web::Data<Service>, permit: Permit<ManageAccount>) -> Result<NoContent, HttpError> {
    service.delete_account(permit.0).await?;
    Ok(NoContent)
}
