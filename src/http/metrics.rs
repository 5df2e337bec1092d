//! Metrics, on a listener of their own: they are for operators, and the API's listener is for everybody.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::http::header::VARY;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpRequest, HttpResponse, Responder, web};

use super::access::AccessLog;
use super::connections::{Bound, Connections};
use super::edge;
use super::header;
use super::refusals::Samples;
use super::transport::Transport;
use crate::config::Settings;
use crate::metrics::TextFormat;
use crate::service::Service;

/// The text formats of Prometheus and of OpenMetrics. The first is for whoever does not ask for the other one.
const FORMATS: [(&str, TextFormat); 2] = [
    ("text/plain; version=0.0.4; charset=utf-8", TextFormat::Prometheus),
    ("application/openmetrics-text; version=1.0.0; charset=utf-8", TextFormat::OpenMetrics),
];

async fn metrics(request: HttpRequest, service: web::Data<Service>) -> impl Responder {
    let preferred = header::preferred(request.headers(), &FORMATS.map(|(media_type, _)| media_type));
    let [default, _] = FORMATS;
    let known = FORMATS.into_iter().find(|(media_type, _)| Some(*media_type) == preferred);
    let (media_type, format) = known.unwrap_or(default);
    match service.metrics_text(format) {
        Ok(text) => HttpResponse::Ok().content_type(media_type).insert_header((VARY, "Accept")).body(text),
        Err(error) => {
            log::error!("cannot write metrics: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Connections of whoever asks for metrics.
const CONNECTIONS: usize = 64;

/// Listens, and answers `GET /metrics` and nothing else.
pub fn serve(
    service: Arc<Service>,
    settings: &Settings,
    socket: Bound,
    samples: Arc<Samples>,
) -> std::io::Result<(SocketAddr, Server)> {
    let listener = socket.listen()?;
    let address = listener.local_addr()?;
    let transport = Transport { workers: 1, connections: CONNECTIONS, shutdown_timeout: 0, tls: None };
    let connections = Connections::new(settings, service.metrics());
    let service = web::Data::from(service);
    let access_every = settings.log.access_every;
    let application = move || {
        App::new()
            .app_data(service.clone())
            .app_data(AccessLog::new(access_every, Arc::clone(&samples), None))
            .wrap(from_fn(edge::contain))
            .wrap(from_fn(edge::edge))
            .route("/metrics", web::get().to(metrics))
    };
    Ok((address, transport.serve(listener, connections, application)?))
}
