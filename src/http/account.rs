//! One's own account.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Deserialize;

use super::body::Json;
use super::principal::{BeUser, ManageAccount, Permit};
use super::problem::Fault;
use super::reply::{NoContent, Reply};
use super::user::UserResponse;
use crate::domain::password::Password;
use crate::service::Service;
use crate::service::account::AccountEdit;

/// What a user sets of their own; what is absent stays as it is.
#[derive(Deserialize, Apiv2Schema)]
pub struct AccountPatch {
    /// First name
    name: Option<String>,
    /// Family name; may be empty
    surname: Option<String>,
    /// E-mail address; unique in any spelling. Blanks around it do not count. Takes `current_password`
    email: Option<String>,
    /// One line of text
    website: Option<String>,
    /// Needed to change the e-mail
    current_password: Option<String>,
}

/// A new password.
#[derive(Deserialize, Apiv2Schema)]
pub struct PasswordRequest {
    /// The password so far
    current_password: String,
    /// The password from now on, taken exactly as it is
    new_password: String,
    /// Whether to end the user's own API keys, too; true if absent
    revoke_keys: Option<bool>,
}

/// Who I am
///
/// For a sign-in token, or a key that its user made for themselves.
#[api_v2_operation(operation_id = "me", tags(account))]
pub async fn read(service: web::Data<Service>, permit: Permit<BeUser>) -> Result<Reply<UserResponse>, Fault> {
    Ok(Reply::new(service.me(&permit.0).await?.into()))
}

/// Change my data
///
/// For a sign-in token that was not narrowed. A new e-mail takes the current password.
#[api_v2_operation(operation_id = "editMe", tags(account))]
pub async fn edit(
    service: web::Data<Service>,
    permit: Permit<ManageAccount>,
    body: Json<AccountPatch>,
) -> Result<Reply<UserResponse>, Fault> {
    let AccountPatch { name, surname, email, website, current_password } = body.0;
    let current_password = current_password.map(Password::new);
    let edit = AccountEdit { name, surname, email, website, current_password };
    Ok(Reply::new(service.edit_account(permit.0, edit).await?.into()))
}

/// Change my password
///
/// For a sign-in token that was not narrowed. Ends it, and the user's own API keys unless `revoke_keys` is false. Keys
/// that were issued to others with foreign scopes alone stay.
#[api_v2_operation(operation_id = "changePassword", tags(account))]
pub async fn set_password(
    service: web::Data<Service>,
    permit: Permit<ManageAccount>,
    body: Json<PasswordRequest>,
) -> Result<NoContent, Fault> {
    let PasswordRequest { current_password, new_password, revoke_keys } = body.0;
    let (current, new) = (Password::new(current_password), Password::new(new_password));
    service.change_password(permit.0, current, new, revoke_keys.unwrap_or(true)).await?;
    Ok(NoContent)
}

/// Delete my account
///
/// With all that belongs to it. For a sign-in token that was not narrowed. The last admin cannot.
#[api_v2_operation(operation_id = "deleteMe", tags(account))]
pub async fn delete(service: web::Data<Service>, permit: Permit<ManageAccount>) -> Result<NoContent, Fault> {
    service.delete_account(permit.0).await?;
    Ok(NoContent)
}
