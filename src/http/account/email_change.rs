//! The endpoints that confirm and undo the change of an e-mail address.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Deserialize;

use crate::http::guard::permit::AnyCaller;
use crate::http::wire::body::Json;
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::NoContent;
use crate::service::Service;

/// The secret of a link about a change of the address.
#[derive(Deserialize, Apiv2Schema)]
pub struct EmailChangeConfirmRequest {
    /// The secret of the link: the text after its last `/`
    secret: String,
}

/// Confirm a new e-mail address
///
/// Changes the address of the account to the one to which the link was sent; requires no credential.
///
/// Next, sign in with the new address.
///
/// It revokes the token and the browser sessions of the user. The old address gets a mail with a link that undoes the
/// change for 7 days. A link that has expired, was used, or whose account has changed returns 410 `link_invalid`.
#[api_v2_operation(operation_id = "confirmEmailChange", tags("E-mail address"))]
pub async fn confirm(
    service: web::Data<Service>,
    caller: AnyCaller,
    body: Json<EmailChangeConfirmRequest>,
) -> Result<NoContent, HttpError> {
    service.confirm_email_change(caller.0, &body.0.secret).await?;
    Ok(NoContent)
}

/// Undo a change of the e-mail address
///
/// Restores the address to which the link was sent; requires no credential.
///
/// Next, set a new password with the link in the mail that is then sent.
///
/// It revokes the token, the browser sessions and the keys that act on the account, and all links. A link that has
/// expired or was used returns 410 `link_invalid`.
#[api_v2_operation(operation_id = "undoEmailChange", tags("E-mail address"))]
pub async fn undo(
    service: web::Data<Service>,
    caller: AnyCaller,
    body: Json<EmailChangeConfirmRequest>,
) -> Result<NoContent, HttpError> {
    service.undo_email_change(caller.0, &body.0.secret).await?;
    Ok(NoContent)
}
