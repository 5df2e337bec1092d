//! The path parameter `{id}`.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::DefaultOperationRaw;
use paperclip::v2::schema::Apiv2Schema;

use crate::domain::id::ResourceId;
use crate::error::AppError;
use crate::http::wire::error::HttpError;

/// A positive identifier in its canonical decimal form. Any other text is 404.
pub struct PathId<T>(pub T);

impl<T: ResourceId> FromRequest for PathId<T> {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().query("id");
        let id = text.parse::<i64>().ok().filter(|id| *id >= 1 && id.to_string() == text);
        ready(id.map(|id| Self(id.into())).ok_or_else(|| AppError::NotFound(T::KIND).into()))
    }
}

impl<T> Apiv2Schema for PathId<T> {}

impl<T> OperationModifier for PathId<T> {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        web::Path::<i64>::update_parameter(operation);
    }
}
