//! The endpoints where the holder of a link creates an account.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Deserialize;

use crate::domain::mail::LinkPurpose;
use crate::domain::password::Password;
use crate::http::account::client_language::ClientLanguage;
use crate::http::account::users::UserResponse;
use crate::http::guard::permit::AnyCaller;
use crate::http::wire::body::Json;
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::Reply;
use crate::service::Service;
use crate::service::account::creation::Person;

/// The data of a new user, with the secret of a link that proves the address.
#[derive(Deserialize, Apiv2Schema)]
pub struct AccountFromLinkRequest {
    /// The secret of the link: the text after its last `/`
    secret: String,
    /// First name
    name: String,
    /// Family name
    surname: Option<String>,
    /// One line of text
    website: Option<String>,
    /// Password, used exactly as sent
    password: String,
}

/// Accept an invitation
///
/// Creates the account of an invitation; requires no credential.
///
/// Next, sign in with `POST /token`.
///
/// The address of the invitation is that of the account, and is verified. A link that has expired, was used or revoked,
/// whose address has an account, or whose inviter can no longer assign the role, returns 410 `link_invalid`.
#[api_v2_operation(operation_id = "acceptInvitation", tags("Invitations"))]
pub async fn accept_invitation(
    service: web::Data<Service>,
    caller: AnyCaller,
    language: ClientLanguage,
    body: Json<AccountFromLinkRequest>,
) -> Result<Reply<UserResponse, 201>, HttpError> {
    create(&service, caller, language, LinkPurpose::Invitation, body.0).await
}

/// Complete a registration
///
/// Creates the account of a registration; requires no credential.
///
/// Next, sign in with `POST /token`.
///
/// This is the second step with `registration.mode = "verified"`. The registered address is that of the account, and is
/// verified; everything else is what you send now. If registration was closed since, the response is 403
/// `registration_closed`. A link that has expired or was used, or whose address has an account,
/// returns 410 `link_invalid`.
#[api_v2_operation(operation_id = "confirmRegistration", tags("E-mail address"))]
pub async fn confirm_registration(
    service: web::Data<Service>,
    caller: AnyCaller,
    language: ClientLanguage,
    body: Json<AccountFromLinkRequest>,
) -> Result<Reply<UserResponse, 201>, HttpError> {
    create(&service, caller, language, LinkPurpose::Registration, body.0).await
}

async fn create(
    service: &Service,
    caller: AnyCaller,
    language: ClientLanguage,
    purpose: LinkPurpose,
    request: AccountFromLinkRequest,
) -> Result<Reply<UserResponse, 201>, HttpError> {
    let AccountFromLinkRequest { secret, name, surname, website, password } = request;
    let (surname, website) = (surname.unwrap_or_default(), website.unwrap_or_default());
    let person = Person { name, surname, website, password: Password::new(password) };
    let user = service.create_account_with_link(caller.0, purpose, &secret, person, language.0).await?;
    Ok(Reply::new(UserResponse::from(user)).location("/me".to_owned()))
}
