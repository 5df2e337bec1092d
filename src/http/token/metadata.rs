//! The endpoint for OAuth 2.0 authorization server metadata (RFC 8414): the endpoint addresses and what they accept.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, ServiceConfig};
use serde_json::json;

use crate::config::HttpSettings;
use crate::domain::roles::Roles;
use crate::http::wire::error::HttpError;

/// The metadata of this server, built once from the settings. Nothing in it comes from a request.
pub struct Metadata(Option<MetadataDocument>);

struct MetadataDocument {
    issuer: String,
    json: String,
}

impl Metadata {
    /// Builds the metadata from `http.public_url` and the scopes of all roles. Without that setting there is no
    /// metadata.
    pub fn new(settings: &HttpSettings, roles: &Roles) -> Self {
        let issuer = settings.public_url.trim_end_matches('/');
        Self((!issuer.is_empty()).then(|| MetadataDocument { issuer: issuer.to_owned(), json: render(issuer, roles) }))
    }

    /// The issuer identifier: `http.public_url` without a trailing slash. `None` if the setting is empty.
    pub fn issuer(&self) -> Option<&str> {
        self.0.as_ref().map(|document| document.issuer.as_str())
    }
}

/// The document as JSON. It contains the members whose values differ from their defaults. `response_types_supported` is
/// absent: it describes an authorization endpoint, which does not exist, and a list must not be empty (section 3.2).
fn render(issuer: &str, roles: &Roles) -> String {
    let scopes = roles.known_scopes();
    let document = json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/token"),
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint": format!("{issuer}/revoke"),
        "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
        "introspection_endpoint": format!("{issuer}/introspect"),
        "introspection_endpoint_auth_methods_supported": ["Bearer", "client_secret_basic"],
        "grant_types_supported": ["password"],
        "scopes_supported": scopes,
        "service_documentation": format!("{issuer}/docs/"),
    });
    format!("{document:#}\n")
}

/// Registers the metadata route. The OpenAPI document omits it, because it also describes the server.
pub fn routes(config: &mut ServiceConfig) {
    config.service(web::resource("/.well-known/oauth-authorization-server").get(metadata));
}

async fn metadata(metadata: web::Data<Metadata>) -> Result<HttpResponse, HttpError> {
    let document = metadata.0.as_ref().ok_or(HttpError::NotConfigured("http.public_url"))?;
    let mut response = HttpResponse::Ok();
    response.insert_header((CACHE_CONTROL, "max-age=3600")).content_type("application/json");
    Ok(response.body(document.json.clone()))
}
