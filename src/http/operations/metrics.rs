//! The metrics endpoint. It has its own listener, because the listener of the API is public.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::http::header::VARY;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpRequest, HttpResponse, Responder, web};

use crate::config::Settings;
use crate::http::request::access_log::AccessLog;
use crate::http::request::log_sampling::LogSamples;
use crate::http::transport::connections::{BoundSocket, Connections};
use crate::http::transport::edge;
use crate::http::transport::listener::Transport;
use crate::http::wire::header;
use crate::metrics::TextFormat;
use crate::service::Service;

/// The text formats of Prometheus and OpenMetrics. The first one is the default.
const FORMATS: [(&str, TextFormat); 2] = [
    ("text/plain; version=0.0.4; charset=utf-8", TextFormat::Prometheus),
    ("application/openmetrics-text; version=1.0.0; charset=utf-8", TextFormat::OpenMetrics),
];

async fn metrics(request: HttpRequest, service: web::Data<Service>) -> impl Responder {
    let preferred = header::preferred(request.headers(), &FORMATS.map(|(media_type, _)| media_type));
    let [default, _] = FORMATS;
    let accepted = FORMATS.into_iter().find(|(media_type, _)| Some(*media_type) == preferred);
    let (media_type, format) = accepted.unwrap_or(default);
    match service.metrics_text(format).await {
        Ok(text) => HttpResponse::Ok().content_type(media_type).insert_header((VARY, "Accept")).body(text),
        Err(error) => {
            log::error!("cannot write metrics: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Maximum number of connections to the metrics listener.
const MAX_CONNECTIONS: usize = 64;

/// Listens on `socket` and serves `GET /metrics` only. Returns the address and the server, which runs when it is
/// awaited.
pub fn serve(
    service: Arc<Service>,
    settings: &Settings,
    socket: BoundSocket,
    samples: Arc<LogSamples>,
) -> std::io::Result<(SocketAddr, Server)> {
    let listener = socket.listen()?;
    let address = listener.local_addr()?;
    let transport = Transport { workers: 1, connections: MAX_CONNECTIONS, shutdown_timeout: 0, tls: None };
    let connections = Connections::new(settings, service.metrics());
    let service = web::Data::from(service);
    let access_every = settings.log.access_every;
    let application = move || {
        App::new()
            .app_data(service.clone())
            .app_data(AccessLog::new(access_every, Arc::clone(&samples), None))
            .wrap(from_fn(edge::catch_panics))
            .wrap(from_fn(edge::edge))
            .route("/metrics", web::get().to(metrics))
    };
    Ok((address, transport.serve(listener, connections, application)?))
}
