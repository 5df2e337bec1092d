//! The endpoints for the verification of e-mail addresses.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Deserialize;
use serde_json::json;

use crate::domain::email;
use crate::domain::password::Password;
use crate::http::guard::permit::{AnyCaller, MailRequester};
use crate::http::resource::{EXAMPLE_EMAIL, EXAMPLE_PASSWORD, NO_NUL, Resource, example_secret};
use crate::http::wire::body::{self, Json};
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::{Accepted, NoContent};
use crate::service::Service;

/// The entries of verifications in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let secret = json!({ "maxLength": body::SMALL, "pattern": NO_NUL, "format": "password" });
    let confirmation = json!({ "secret": secret, "password": secret });
    let confirmation_example = json!({ "secret": example_secret("lkm"), "password": EXAMPLE_PASSWORD });
    Resource {
        tag: ("E-mail address", "Prove that you receive mails at your address"),
        bodies: vec![
            ("EmailVerificationRequest", json!({ "email": { "maxLength": email::MAX_LENGTH, "format": "email" } })),
            ("EmailVerificationConfirmRequest", confirmation.clone()),
            ("EmailChangeConfirmRequest", confirmation),
            ("EmailUndoRequest", json!({ "secret": secret })),
        ],
        examples: vec![
            ("EmailVerificationRequest", json!({ "email": EXAMPLE_EMAIL })),
            ("EmailVerificationConfirmRequest", confirmation_example.clone()),
            ("EmailChangeConfirmRequest", confirmation_example),
            ("EmailUndoRequest", json!({ "secret": example_secret("lkm") })),
            ("EmailUndoResponse", json!({ "secret": example_secret("lkm"), "expires_in": 1_800 })),
        ],
        ..Resource::default()
    }
}

/// A request for a link.
#[derive(Deserialize, Apiv2Schema)]
pub struct EmailVerificationRequest {
    /// E-mail address of an account or of a registration; surrounding blanks are ignored
    email: String,
}

/// The secret of a link, and the password.
#[derive(Deserialize, Apiv2Schema)]
pub struct EmailVerificationConfirmRequest {
    /// The secret of the link: the text after its last `/`
    secret: String,
    /// The current password of the account
    password: String,
}

/// Request a verification
///
/// Sends a link to the address if it is that of an account and not verified; requires no credential.
///
/// Next, open the link in the mail, or send its secret to `POST /email-verification/confirm`.
///
/// The response is the same for every address. An address gets at most one such mail in a minute, 5 in an hour and 20
/// in a day. If a registration waits for the proof of the address, its link is sent again. Without an SMTP server
/// (`mail.url`), the response is 404 `not_configured`.
#[api_v2_operation(operation_id = "requestEmailVerification", tags("E-mail address"))]
pub async fn request(
    service: web::Data<Service>,
    caller: MailRequester,
    body: Json<EmailVerificationRequest>,
) -> Result<Accepted, HttpError> {
    service.request_verification(caller.0, &body.0.email).await?;
    Ok(Accepted)
}

/// Verify an e-mail address
///
/// States that you receive mails at the address of your account; requires no credential.
///
/// Next, sign in if you have not.
///
/// The password proves that the account is yours: a stranger may have registered your address. A wrong one returns 403
/// `wrong_password`, counts as a failed sign-in, and does not use up the link. If you do not know it, reset it with
/// `POST /password-reset`, which verifies the address, too. A link that has expired, was used, or whose account has
/// changed returns 410 `link_invalid`.
#[api_v2_operation(operation_id = "confirmEmailVerification", tags("E-mail address"))]
pub async fn confirm(
    service: web::Data<Service>,
    caller: AnyCaller,
    body: Json<EmailVerificationConfirmRequest>,
) -> Result<NoContent, HttpError> {
    let EmailVerificationConfirmRequest { secret, password } = body.0;
    service.verify_email(caller.0, &secret, Password::new(password)).await?;
    Ok(NoContent)
}
