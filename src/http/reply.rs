//! Success answers: JSON with its status and headers, documented by their type.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ETAG, HeaderName, LOCATION};
use actix_web::{HttpRequest, HttpResponse, Responder};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::{DefaultOperationRaw, DefaultSchemaRaw, Either, Response};
use paperclip::v2::schema::Apiv2Schema;
use serde::Serialize;

/// A JSON body under `STATUS`.
pub struct Reply<T, const STATUS: u16 = 200> {
    body: T,
    headers: Vec<(HeaderName, String)>,
}

impl<T, const STATUS: u16> Reply<T, STATUS> {
    /// `body` without headers of its own.
    pub fn new(body: T) -> Self {
        Self { body, headers: Vec::new() }
    }

    /// Says where what was created is found.
    #[must_use]
    pub fn location(mut self, path: String) -> Self {
        self.headers.push((LOCATION, path));
        self
    }

    /// Says which version of an object this is, as a strong entity tag (RFC 9110, section 8.8.3).
    #[must_use]
    pub fn version(mut self, version: i64) -> Self {
        self.headers.push((ETAG, format!("\"{version}\"")));
        self
    }
}

impl<T: Serialize, const STATUS: u16> Responder for Reply<T, STATUS> {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(StatusCode::from_u16(STATUS).unwrap_or(StatusCode::OK));
        for header in self.headers {
            response.insert_header(header);
        }
        response.json(self.body)
    }
}

impl<T: Apiv2Schema, const STATUS: u16> Apiv2Schema for Reply<T, STATUS> {
    fn name() -> Option<String> {
        T::name()
    }

    fn raw_schema() -> DefaultSchemaRaw {
        T::raw_schema()
    }
}

impl<T: Apiv2Schema, const STATUS: u16> OperationModifier for Reply<T, STATUS> {
    fn update_response(operation: &mut DefaultOperationRaw) {
        let mut schema = T::schema_with_ref();
        schema.retain_ref();
        document(operation, STATUS, Some(schema));
    }
}

/// A JSON body under 201 for what this request made, and under 200 for what an earlier one of the same name did.
pub struct Once<T> {
    body: T,
    /// Where what was created is found.
    location: Option<String>,
}

impl<T> Once<T> {
    /// The answer, and where it is found if this request made it.
    pub fn new(body: T, location: Option<String>) -> Self {
        Self { body, location }
    }
}

impl<T: Serialize> Responder for Once<T> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse<BoxBody> {
        match self.location {
            Some(location) => Reply::<T, 201>::new(self.body).location(location).respond_to(request),
            None => Reply::<T, 200>::new(self.body).respond_to(request),
        }
    }
}

impl<T: Apiv2Schema> Apiv2Schema for Once<T> {
    fn name() -> Option<String> {
        T::name()
    }

    fn raw_schema() -> DefaultSchemaRaw {
        T::raw_schema()
    }
}

impl<T: Apiv2Schema> OperationModifier for Once<T> {
    fn update_response(operation: &mut DefaultOperationRaw) {
        Reply::<T, 200>::update_response(operation);
        Reply::<T, 201>::update_response(operation);
    }
}

/// 200 without a body, where a standard asks for it.
pub struct Empty;

impl Responder for Empty {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse<BoxBody> {
        HttpResponse::Ok().finish()
    }
}

impl Apiv2Schema for Empty {}

impl OperationModifier for Empty {
    fn update_response(operation: &mut DefaultOperationRaw) {
        document(operation, StatusCode::OK.as_u16(), None);
    }
}

/// 204: done, and nothing to say.
pub struct NoContent;

impl Responder for NoContent {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse<BoxBody> {
        HttpResponse::NoContent().finish()
    }
}

impl Apiv2Schema for NoContent {}

impl OperationModifier for NoContent {
    fn update_response(operation: &mut DefaultOperationRaw) {
        document(operation, StatusCode::NO_CONTENT.as_u16(), None);
    }
}

fn document(operation: &mut DefaultOperationRaw, status: u16, schema: Option<DefaultSchemaRaw>) {
    let phrase = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let response = Response { description: phrase.map(str::to_owned), schema, ..Response::default() };
    operation.responses.insert(status.to_string(), Either::Right(response));
}
