//! The index of the API at `/`: links for programs, and a redirect to the documentation for browsers.

use std::future::{Ready, ready};

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::header::{HeaderValue, VARY};
use actix_web::{FromRequest, HttpRequest, HttpResponse, Responder};
use paperclip::actix::{Apiv2Schema, OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DefaultOperationRaw, DefaultSchemaRaw};
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::RegistrationMode;
use crate::http::wire::error::HttpError;
use crate::http::wire::header;
use crate::http::wire::reply::{Reply, SeeOther};

const HTML: &str = "text/html";

/// The name and version of the program, and links to the entry points of its API.
#[derive(Clone, Serialize, Apiv2Schema)]
pub struct IndexResponse {
    /// Name of the program
    name: &'static str,
    /// Version of the program
    version: &'static str,
    /// Addresses, absolute if the setting `http.public_url` is set, otherwise paths
    links: IndexLinks,
}

/// Addresses of the entry points of the API.
#[derive(Clone, Serialize, Apiv2Schema)]
pub struct IndexLinks {
    /// The documentation for browsers
    docs: String,
    /// The OpenAPI document
    openapi: String,
    /// The health check
    health: String,
    /// The OAuth 2.0 server metadata; absent unless the setting `http.public_url` is set
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    /// Registration; absent if it is closed
    #[serde(skip_serializing_if = "Option::is_none")]
    register: Option<String>,
    /// Sign-in
    token: String,
}

impl IndexResponse {
    /// Builds the index from `http.public_url` and `registration.mode`. Nothing in it comes from a request.
    pub fn new(public_url: &str, registration: RegistrationMode) -> Self {
        let root = public_url.trim_end_matches('/');
        let link = |path: &str| format!("{root}{path}");
        let links = IndexLinks {
            docs: link("/docs/"),
            openapi: link("/openapi.json"),
            health: link("/health/ready"),
            metadata: (!root.is_empty()).then(|| link("/.well-known/oauth-authorization-server")),
            register: matches!(registration, RegistrationMode::Open | RegistrationMode::Verified)
                .then(|| link("/register")),
            token: link("/token"),
        };
        Self { name: "latchkey", version: env!("CARGO_PKG_VERSION"), links }
    }
}

/// The example in the OpenAPI document: the index of a server whose public URL is set.
pub(crate) fn example() -> Value {
    json!(IndexResponse::new("https://auth.example.com", RegistrationMode::Open))
}

/// Whether the caller prefers HTML to JSON, as browsers do.
pub struct PrefersHtml(bool);

impl FromRequest for PrefersHtml {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(header::preferred(request.headers(), &["application/json", HTML]) == Some(HTML))))
    }
}

impl paperclip::v2::schema::Apiv2Schema for PrefersHtml {}

impl OperationModifier for PrefersHtml {}

/// The index, or a redirect to the documentation.
pub enum IndexReply {
    /// The index as JSON.
    Index(Reply<IndexResponse>),
    /// The redirect.
    Docs(SeeOther),
}

impl Responder for IndexReply {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse<BoxBody> {
        let mut response = match self {
            Self::Index(index) => index.respond_to(request),
            Self::Docs(redirect) => redirect.respond_to(request),
        };
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
        response
    }
}

impl paperclip::v2::schema::Apiv2Schema for IndexReply {
    fn name() -> Option<String> {
        IndexResponse::name()
    }

    fn raw_schema() -> DefaultSchemaRaw {
        IndexResponse::raw_schema()
    }
}

impl OperationModifier for IndexReply {
    fn update_response(operation: &mut DefaultOperationRaw) {
        Reply::<IndexResponse>::update_response(operation);
        SeeOther::update_response(operation);
    }
}

/// Get the index
///
/// Returns the name and version of the program with links to the entry points of the API; requires no credential.
///
/// Next, follow one of them.
///
/// If `Accept` prefers `text/html`, as in a browser, the response redirects to the documentation.
#[api_v2_operation(operation_id = "index", tags("Health"))]
pub async fn index(index: web::Data<IndexResponse>, prefers_html: PrefersHtml) -> Result<IndexReply, HttpError> {
    Ok(match prefers_html {
        // A relative address, which also works behind a path prefix.
        PrefersHtml(true) => IndexReply::Docs(SeeOther("docs/")),
        PrefersHtml(false) => IndexReply::Index(Reply::new(IndexResponse::clone(&index))),
    })
}
