//! The endpoints for the verification of e-mail addresses, and for registrations that wait for it.

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
    Resource {
        tag: ("E-mail address", "Prove that you receive mails at your address"),
        bodies: vec![
            ("EmailVerificationRequest", json!({ "email": { "maxLength": email::MAX_LENGTH, "format": "email" } })),
            ("EmailVerificationConfirmRequest", json!({ "secret": secret })),
            ("EmailChangeConfirmRequest", json!({ "secret": secret })),
            (
                "RegistrationConfirmRequest",
                json!({
                    "secret": secret,
                    "password": { "maxLength": body::SMALL, "pattern": NO_NUL, "format": "password" },
                }),
            ),
        ],
        examples: vec![
            ("EmailVerificationRequest", json!({ "email": EXAMPLE_EMAIL })),
            ("EmailVerificationConfirmRequest", json!({ "secret": example_secret("lkm") })),
            ("EmailChangeConfirmRequest", json!({ "secret": example_secret("lkm") })),
            ("RegistrationConfirmRequest", json!({ "secret": example_secret("lkm"), "password": EXAMPLE_PASSWORD })),
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

/// The secret of a link.
#[derive(Deserialize, Apiv2Schema)]
pub struct EmailVerificationConfirmRequest {
    /// The secret of the link: the text after its last `/`
    secret: String,
}

/// The secret of a link, and the password of the registration.
#[derive(Deserialize, Apiv2Schema)]
pub struct RegistrationConfirmRequest {
    /// The secret of the link: the text after its last `/`
    secret: String,
    /// The password of the registration, which proves that it was you who registered
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
/// A link that has expired, was used, or whose account has changed returns 410 `link_invalid`.
#[api_v2_operation(operation_id = "confirmEmailVerification", tags("E-mail address"))]
pub async fn confirm(
    service: web::Data<Service>,
    caller: AnyCaller,
    body: Json<EmailVerificationConfirmRequest>,
) -> Result<NoContent, HttpError> {
    service.verify_email(caller.0, &body.0.secret).await?;
    Ok(NoContent)
}

/// Complete a registration
///
/// Creates the account of a registration; requires no credential.
///
/// Next, sign in with `POST /token`.
///
/// This is the second step with `registration.mode = "verified"`. A wrong password returns 403 `wrong_password`; after
/// ten of them the registration ends. A link that has expired or was used, or whose address has an account, returns 410
/// `link_invalid`.
#[api_v2_operation(operation_id = "confirmRegistration", tags("E-mail address"))]
pub async fn confirm_registration(
    service: web::Data<Service>,
    caller: AnyCaller,
    body: Json<RegistrationConfirmRequest>,
) -> Result<NoContent, HttpError> {
    let RegistrationConfirmRequest { secret, password } = body.0;
    service.confirm_registration(caller.0, &secret, Password::new(password)).await?;
    Ok(NoContent)
}
