//! OAuth 2.0 authorization server metadata (RFC 8414): where the endpoints are and what they take, for programs.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, ServiceConfig};
use serde_json::json;

use super::problem::Fault;
use crate::config::HttpSettings;
use crate::domain::scope::Scope;

/// What is told of this server, made once from the settings and from nothing that a request says.
pub struct Metadata(Option<Told>);

struct Told {
    issuer: String,
    json: String,
}

impl Metadata {
    /// Under `http.public_url`; nothing without it.
    pub fn new(settings: &HttpSettings) -> Self {
        let issuer = settings.public_url.trim_end_matches('/');
        Self((!issuer.is_empty()).then(|| Told { issuer: issuer.to_owned(), json: document(issuer) }))
    }

    /// The name of this server, if it knows where it is reached.
    pub fn issuer(&self) -> Option<&str> {
        self.0.as_ref().map(|told| told.issuer.as_str())
    }
}

/// What stands explicitly has another default. `response_types_supported` is for servers with an authorization endpoint,
/// and there is none; an empty list may not stand (section 3.2).
fn document(issuer: &str) -> String {
    let scopes: Vec<&str> = Scope::ALL.iter().map(|scope| scope.name()).collect();
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

/// Its one route, which the OpenAPI document leaves out: it is a document about the server, too.
pub fn routes(config: &mut ServiceConfig) {
    config.service(web::resource("/.well-known/oauth-authorization-server").get(metadata));
}

async fn metadata(metadata: web::Data<Metadata>) -> Result<HttpResponse, Fault> {
    let told = metadata.0.as_ref().ok_or(Fault::Unset("http.public_url"))?;
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "max-age=3600")).content_type("application/json");
    Ok(answer.body(told.json.clone()))
}
