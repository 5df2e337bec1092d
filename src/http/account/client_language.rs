//! The language that the caller prefers.

use std::convert::Infallible;
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::ACCEPT_LANGUAGE;
use actix_web::{FromRequest, HttpRequest};
use paperclip::actix::OperationModifier;
use paperclip::v2::schema::Apiv2Schema;

use crate::domain::mail::Language;

/// The language of mails that the header `Accept-Language` prefers; `None` if it names none of them.
pub struct ClientLanguage(pub Option<Language>);

impl FromRequest for ClientLanguage {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let header = request.headers().get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        ready(Ok(Self(header.and_then(Language::preferred))))
    }
}

impl Apiv2Schema for ClientLanguage {}

impl OperationModifier for ClientLanguage {}
