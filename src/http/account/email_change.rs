//! The endpoints that confirm and undo the change of an e-mail address.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};

use crate::domain::password::Password;
use crate::http::guard::permit::AnyCaller;
use crate::http::wire::body::Json;
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::{NoContent, Reply};
use crate::service::Service;

/// The secret of a link to a new address, and the password.
#[derive(Deserialize, Apiv2Schema)]
pub struct EmailChangeConfirmRequest {
    /// The secret of the link: the text after its last `/`
    secret: String,
    /// The current password of the account
    password: String,
}

/// The secret of a link to an old address.
#[derive(Deserialize, Apiv2Schema)]
pub struct EmailUndoRequest {
    /// The secret of the link: the text after its last `/`
    secret: String,
}

/// What sets a new password after a change was undone.
#[derive(Serialize, Apiv2Schema)]
pub struct EmailUndoResponse {
    /// The secret for `POST /password-reset/confirm`
    secret: String,
    /// Seconds until it expires
    expires_in: i64,
}

/// Confirm a new e-mail address
///
/// Changes the address of the account to the one to which the link was sent; requires no credential.
///
/// Next, sign in with the new address.
///
/// It revokes the token and the browser sessions of the user. The old address, if it was verified, gets a mail with a
/// link that undoes the change for 7 days. A wrong password returns 403 `wrong_password`, counts as a failed sign-in, and does not use up the
/// link. A link that has expired, was used, or whose account has changed, also by a new password, returns 410
/// `link_invalid`.
#[api_v2_operation(operation_id = "confirmEmailChange", tags("E-mail address"))]
pub async fn confirm(
    service: web::Data<Service>,
    caller: AnyCaller,
    body: Json<EmailChangeConfirmRequest>,
) -> Result<NoContent, HttpError> {
    let EmailChangeConfirmRequest { secret, password } = body.0;
    service.confirm_email_change(caller.0, &secret, Password::new(password)).await?;
    Ok(NoContent)
}

/// Undo a change of the e-mail address
///
/// Restores the address to which the link was sent; requires no credential.
///
/// Next, send the secret of the response with a new password to `POST /password-reset/confirm`.
///
/// The present password is no longer valid, because the person who changed the address may know it. A mail with a link
/// that sets a new one is sent, too. The request revokes the token, the browser sessions and the keys that act on the account, and
/// all links except those that undo earlier changes. A link that has expired or was used returns 410 `link_invalid`.
#[api_v2_operation(operation_id = "undoEmailChange", tags("E-mail address"))]
pub async fn undo(
    service: web::Data<Service>,
    caller: AnyCaller,
    body: Json<EmailUndoRequest>,
) -> Result<Reply<EmailUndoResponse>, HttpError> {
    let link = service.undo_email_change(caller.0, &body.0.secret).await?;
    let expires_in = link.valid_seconds;
    Ok(Reply::new(EmailUndoResponse { secret: link.reveal_secret(), expires_in }))
}
