//! Health, for orchestrators.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::Serialize;

use super::problem::Fault;
use super::reply::Reply;
use crate::service::Service;

/// The state of the server.
#[derive(Serialize, Apiv2Schema)]
pub struct HealthResponse {
    /// Always `ok`; anything else is an error answer.
    status: &'static str,
}

impl HealthResponse {
    const OK: Self = Self { status: "ok" };
}

/// Whether the process is up
///
/// Answers as long as the process can answer at all; restart it when it does not.
#[api_v2_operation(operation_id = "healthLive", tags(health))]
pub async fn live() -> Result<Reply<HealthResponse>, Fault> {
    Ok(Reply::new(HealthResponse::OK))
}

/// Whether requests can be served
///
/// The database answers and its schema is up to date; send no traffic here when it is not.
#[api_v2_operation(operation_id = "healthReady", tags(health))]
pub async fn ready(service: web::Data<Service>) -> Result<Reply<HealthResponse>, Fault> {
    service.ready().await?;
    Ok(Reply::new(HealthResponse::OK))
}
