//! Success responses: JSON with status and headers. Their types document them in the OpenAPI document.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ETAG, HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use actix_web::{HttpRequest, HttpResponse, Responder};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::{DefaultOperationRaw, DefaultSchemaRaw, Either, Response};
use paperclip::v2::schema::Apiv2Schema;
use serde::Serialize;

/// A JSON body with the status `STATUS`.
pub struct Reply<T, const STATUS: u16 = 200> {
    body: T,
    headers: Vec<(HeaderName, String)>,
}

impl<T, const STATUS: u16> Reply<T, STATUS> {
    /// `body` without additional headers.
    pub fn new(body: T) -> Self {
        Self { body, headers: Vec::new() }
    }

    /// Adds the header `Location` with the path of the created object.
    #[must_use]
    pub fn location(mut self, path: String) -> Self {
        self.headers.push((LOCATION, path));
        self
    }

    /// Adds the header `Set-Cookie`.
    #[must_use]
    pub fn cookie(mut self, cookie: String) -> Self {
        self.headers.push((SET_COOKIE, cookie));
        self
    }

    /// Adds the header `ETag` with the version of the object as a strong entity tag (RFC 9110, section 8.8.3).
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

/// A JSON body with the status 201 if this request created the object, and 200 if it repeats a request with the same
/// name.
pub struct ShownOnce<T> {
    body: T,
    /// The path of the object that this request created.
    location: Option<String>,
}

impl<T> ShownOnce<T> {
    /// `location` is the path of the object if this request created it.
    pub fn new(body: T, location: Option<String>) -> Self {
        Self { body, location }
    }
}

impl<T: Serialize> Responder for ShownOnce<T> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse<BoxBody> {
        match self.location {
            Some(location) => Reply::<T, 201>::new(self.body).location(location).respond_to(request),
            None => Reply::<T, 200>::new(self.body).respond_to(request),
        }
    }
}

impl<T: Apiv2Schema> Apiv2Schema for ShownOnce<T> {
    fn name() -> Option<String> {
        T::name()
    }

    fn raw_schema() -> DefaultSchemaRaw {
        T::raw_schema()
    }
}

impl<T: Apiv2Schema> OperationModifier for ShownOnce<T> {
    fn update_response(operation: &mut DefaultOperationRaw) {
        Reply::<T, 200>::update_response(operation);
        Reply::<T, 201>::update_response(operation);
    }
}

/// 200 without a body, where a standard requires it (RFC 7009, section 2.2).
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

/// 303 without a body: the response is at this relative address.
pub struct SeeOther(pub &'static str);

impl Responder for SeeOther {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse<BoxBody> {
        HttpResponse::SeeOther().insert_header((LOCATION, self.0)).finish()
    }
}

impl Apiv2Schema for SeeOther {}

impl OperationModifier for SeeOther {
    fn update_response(operation: &mut DefaultOperationRaw) {
        document(operation, StatusCode::SEE_OTHER.as_u16(), None);
    }
}

/// 202 without a body: the request will be processed later, and its outcome is not returned.
pub struct Accepted;

impl Responder for Accepted {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse<BoxBody> {
        HttpResponse::Accepted().finish()
    }
}

impl Apiv2Schema for Accepted {}

impl OperationModifier for Accepted {
    fn update_response(operation: &mut DefaultOperationRaw) {
        document(operation, StatusCode::ACCEPTED.as_u16(), None);
    }
}

/// A JSON body with the status 200, or 202 if a part of the change will be made later.
pub struct OkOrAccepted<T> {
    /// The body.
    pub body: T,
    /// Whether a part of the change will be made later.
    pub is_pending: bool,
}

impl<T: Serialize> Responder for OkOrAccepted<T> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse<BoxBody> {
        match self.is_pending {
            true => Reply::<T, 202>::new(self.body).respond_to(request),
            false => Reply::<T, 200>::new(self.body).respond_to(request),
        }
    }
}

impl<T: Apiv2Schema> Apiv2Schema for OkOrAccepted<T> {
    fn name() -> Option<String> {
        T::name()
    }

    fn raw_schema() -> DefaultSchemaRaw {
        T::raw_schema()
    }
}

impl<T: Apiv2Schema> OperationModifier for OkOrAccepted<T> {
    fn update_response(operation: &mut DefaultOperationRaw) {
        Reply::<T, 200>::update_response(operation);
        Reply::<T, 202>::update_response(operation);
    }
}

/// 201 with the created object, or 202 without a body.
pub enum CreatedOrAccepted<T> {
    /// The object was created.
    Created(Reply<T, 201>),
    /// The object will be created later, or never.
    Accepted,
}

impl<T: Serialize> Responder for CreatedOrAccepted<T> {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse<BoxBody> {
        match self {
            Self::Created(reply) => reply.respond_to(request),
            Self::Accepted => Accepted.respond_to(request),
        }
    }
}

impl<T: Apiv2Schema> Apiv2Schema for CreatedOrAccepted<T> {
    fn name() -> Option<String> {
        T::name()
    }

    fn raw_schema() -> DefaultSchemaRaw {
        T::raw_schema()
    }
}

impl<T: Apiv2Schema> OperationModifier for CreatedOrAccepted<T> {
    fn update_response(operation: &mut DefaultOperationRaw) {
        Reply::<T, 201>::update_response(operation);
        Accepted::update_response(operation);
    }
}

/// 204 without a body.
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

/// 204 without a body, with these headers.
pub struct NoContentWith(pub Vec<(HeaderName, String)>);

impl Responder for NoContentWith {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse<BoxBody> {
        let mut response = NoContent.respond_to(request);
        for (name, value) in self.0 {
            // The values are those of this server: cookies and constants.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

impl Apiv2Schema for NoContentWith {}

impl OperationModifier for NoContentWith {
    fn update_response(operation: &mut DefaultOperationRaw) {
        NoContent::update_response(operation);
    }
}

fn document(operation: &mut DefaultOperationRaw, status: u16, schema: Option<DefaultSchemaRaw>) {
    let phrase = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let response = Response { description: phrase.map(str::to_owned), schema, ..Response::default() };
    operation.responses.insert(status.to_string(), Either::Right(response));
}
