//! The endpoints for a password reset with a link in a mail.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Deserialize;
use serde_json::json;

use crate::domain::email;
use crate::domain::password::Password;
use crate::http::account::client_language::ClientLanguage;
use crate::http::guard::permit::{AnyCaller, MailRequester};
use crate::http::resource::{EXAMPLE_EMAIL, EXAMPLE_PASSWORD, NO_NUL, Resource, example_secret};
use crate::http::wire::body::{self, Json};
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::{Accepted, NoContent};
use crate::service::Service;

/// The entries of password resets in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    Resource {
        tag: ("Password reset", "Set a new password with a link in a mail, if you do not know the old one"),
        bodies: vec![
            ("PasswordResetRequest", json!({ "email": { "maxLength": email::MAX_LENGTH, "format": "email" } })),
            (
                "PasswordResetConfirmRequest",
                json!({ "secret": { "maxLength": body::SMALL, "pattern": NO_NUL, "format": "password" } }),
            ),
        ],
        examples: vec![
            ("PasswordResetRequest", json!({ "email": EXAMPLE_EMAIL })),
            (
                "PasswordResetConfirmRequest",
                json!({ "secret": example_secret("lkm"), "new_password": EXAMPLE_PASSWORD }),
            ),
        ],
        ..Resource::default()
    }
}

/// A request for a link.
#[derive(Deserialize, Apiv2Schema)]
pub struct PasswordResetRequest {
    /// E-mail address of the account; surrounding blanks are ignored
    email: String,
}

/// A new password, with the secret of a link.
#[derive(Deserialize, Apiv2Schema)]
pub struct PasswordResetConfirmRequest {
    /// The secret of the link: the text after its last `/`
    secret: String,
    /// The new password, used exactly as sent
    new_password: String,
}

/// Request a password reset
///
/// Sends a link to the address if it is that of an account; requires no credential.
///
/// Next, open the link in the mail, or send its secret to `POST /password-reset/confirm`.
///
/// The address of an account before a change gets a link that undoes the change (`POST /email-change/undo`).
///
/// The response is the same for every address. An address gets at most one such mail in a minute, 5 in an hour and 20
/// in a day. Without an SMTP server (`mail.url`), the response is 404 `not_configured`; an operator can make a link
/// with `latchkey user reset-link`.
#[api_v2_operation(operation_id = "requestPasswordReset", tags("Password reset"))]
pub async fn request(
    service: web::Data<Service>,
    caller: MailRequester,
    body: Json<PasswordResetRequest>,
) -> Result<Accepted, HttpError> {
    service.request_password_reset(caller.0, &body.0.email).await?;
    Ok(Accepted)
}

/// Reset a password
///
/// Sets a new password with the secret of a link; requires no credential.
///
/// Next, sign in with the new password.
///
/// It revokes the token, the browser sessions and the own API keys of the user, and issued keys with scopes of
/// Latchkey. If the link came with a mail and the address was not verified, it revokes all issued keys, and verifies the
/// address. It ends a lockout, and all other links that reset the password. A link that has expired, was used, or whose
/// account has changed returns 410 `link_invalid`.
#[api_v2_operation(operation_id = "confirmPasswordReset", tags("Password reset"))]
pub async fn confirm(
    service: web::Data<Service>,
    caller: AnyCaller,
    language: ClientLanguage,
    body: Json<PasswordResetConfirmRequest>,
) -> Result<NoContent, HttpError> {
    let PasswordResetConfirmRequest { secret, new_password } = body.0;
    service.reset_password_with_link(caller.0, &secret, Password::new(new_password), language.0).await?;
    Ok(NoContent)
}
