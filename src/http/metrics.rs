//! Metrics, on a listener of their own: they are for operators, and the API's listener is for everybody.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::{App, HttpResponse, HttpServer, Responder, web};

use crate::service::Service;

/// The text format of OpenMetrics, as Prometheus asks for it.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn metrics(service: web::Data<Service>) -> impl Responder {
    match service.metrics_text() {
        Ok(text) => HttpResponse::Ok().content_type(TEXT).body(text),
        Err(error) => {
            log::error!("cannot write metrics: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Listens on `address`, and answers `GET /metrics` and nothing else.
pub fn serve(service: Arc<Service>, address: SocketAddr) -> std::io::Result<(SocketAddr, Server)> {
    let service = web::Data::from(service);
    let app = move || App::new().app_data(service.clone()).route("/metrics", web::get().to(metrics));
    let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(0).bind(address)?;
    let address = server.addrs().into_iter().next().unwrap_or(address);
    Ok((address, server.run()))
}
