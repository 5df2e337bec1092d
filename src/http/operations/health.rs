//! The health checks, for orchestrators.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Serialize;
use serde_json::json;

use crate::http::operations::index;
use crate::http::resource::Resource;
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::Reply;
use crate::service::Service;

/// The entries of the health checks in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    Resource {
        tag: ("Health", "The index of the API, and health checks for orchestrators"),
        examples: vec![("HealthResponse", json!({ "status": "ok" })), ("IndexResponse", index::example())],
        ..Resource::default()
    }
}

/// The state of the server.
#[derive(Serialize, Apiv2Schema)]
pub struct HealthResponse {
    /// Always `ok`; otherwise the response is an error
    status: &'static str,
}

impl HealthResponse {
    const OK: Self = Self { status: "ok" };
}

/// Check liveness
///
/// Returns 200 while the process can respond; requires no credential.
///
/// Restart the process if the check fails.
#[api_v2_operation(operation_id = "healthLive", tags("Health"))]
pub async fn live() -> Result<Reply<HealthResponse>, HttpError> {
    Ok(Reply::new(HealthResponse::OK))
}

/// Check readiness
///
/// Returns 200 if the server can serve requests; requires no credential.
///
/// Send no traffic to it while the check fails.
///
/// It can serve requests if it is not shutting down, and the database responds, accepts changes and has the current
/// schema.
#[api_v2_operation(operation_id = "healthReady", tags("Health"))]
pub async fn ready(service: web::Data<Service>) -> Result<Reply<HealthResponse>, HttpError> {
    service.lifecycle().ready().await?;
    Ok(Reply::new(HealthResponse::OK))
}
