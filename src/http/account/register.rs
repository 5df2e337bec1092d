//! The endpoint for registration.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use paperclip::actix::{Apiv2Schema, OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DefaultOperationRaw, DefaultSchemaRaw};
use paperclip::v2::schema::Apiv2Schema as Schema;
use serde::Deserialize;

use crate::domain::password::Password;
use crate::http::account::client_language::ClientLanguage;
use crate::http::account::users::UserResponse;
use crate::http::guard::permit::Registrant;
use crate::http::wire::body::Json;
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::{CreatedOrAccepted, Reply};
use crate::service::Service;
use crate::service::account::creation::Person;
use crate::service::account::registration::Registration;

/// A registration.
#[derive(Deserialize, Apiv2Schema)]
pub struct RegisterRequest {
    /// First name
    name: String,
    /// Family name; may be empty
    surname: String,
    /// E-mail address, unique in any spelling; surrounding blanks are ignored
    email: String,
    /// One line of text
    website: Option<String>,
    /// Password, used exactly as sent
    password: String,
}

/// A registration of which only the address is stored. The other fields are accepted, so that a client need not know
/// the settings.
#[derive(Deserialize, Apiv2Schema)]
#[expect(dead_code, reason = "the fields are part of the schema")]
pub struct RegisterAddressRequest {
    email: String,
    name: Option<String>,
    surname: Option<String>,
    website: Option<String>,
    password: Option<String>,
}

/// The body of a registration, by the settings.
pub enum RegistrationBody {
    /// Everything about the user.
    Complete(RegisterRequest),
    /// The address only (`registration.mode = "verified"`).
    Address(RegisterAddressRequest),
}

impl FromRequest for RegistrationBody {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, HttpError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let service = request.app_data::<web::Data<Service>>();
        if service.is_some_and(|service| service.registers_addresses()) {
            let body = Json::<RegisterAddressRequest>::from_request(request, payload);
            return Box::pin(async move { body.await.map(|body| Self::Address(body.0)) });
        }
        let body = Json::<RegisterRequest>::from_request(request, payload);
        Box::pin(async move { body.await.map(|body| Self::Complete(body.0)) })
    }
}

impl Schema for RegistrationBody {}

impl OperationModifier for RegistrationBody {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        Json::<RegisterRequest>::update_parameter(operation);
    }

    fn update_definitions(map: &mut BTreeMap<String, DefaultSchemaRaw>) {
        Json::<RegisterRequest>::update_definitions(map);
    }
}

/// Register an account
///
/// Creates a user with the role `member`; requires no credential.
///
/// Next, sign in with `POST /token`.
///
/// With `registration.mode = "verified"`, the response is 202 for every address, and a mail is sent. Only `email` is
/// required then, and nothing else is stored: the person who opens the link states the rest
/// (`POST /registration/confirm`).
///
/// An e-mail address that is already taken, in any spelling (case, Unicode form, IDNA domain), returns 409. If the
/// settings close registration, the response is 403 `registration_closed`, and an admin can create users with
/// `POST /users`.
#[api_v2_operation(operation_id = "register", tags("Sign-in"))]
pub async fn register(
    service: web::Data<Service>,
    caller: Registrant,
    language: ClientLanguage,
    body: RegistrationBody,
) -> Result<CreatedOrAccepted<UserResponse>, HttpError> {
    match body {
        RegistrationBody::Address(request) => {
            service.register_address(caller.0, &request.email, language.0).await?;
            Ok(CreatedOrAccepted::Accepted)
        }
        RegistrationBody::Complete(request) => {
            let RegisterRequest { name, surname, email, website, password } = request;
            let (website, password) = (website.unwrap_or_default(), Password::new(password));
            let registration = Registration { person: Person { name, surname, website, password }, email };
            let user = service.register(caller.0, registration, language.0).await?;
            Ok(CreatedOrAccepted::Created(Reply::new(UserResponse::from(user)).location("/me".to_owned())))
        }
    }
}
