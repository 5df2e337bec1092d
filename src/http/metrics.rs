//! Metrics, on a listener of their own: they are for operators, and the API's listener is for everybody.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::http::header::VARY;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Responder, web};

use super::connections::Bound;
use super::header;
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

/// Listens, and answers `GET /metrics` and nothing else.
pub fn serve(service: Arc<Service>, socket: Bound) -> std::io::Result<(SocketAddr, Server)> {
    let listener = socket.listen()?;
    let address = listener.local_addr()?;
    let service = web::Data::from(service);
    let app = move || App::new().app_data(service.clone()).route("/metrics", web::get().to(metrics));
    let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(0).listen(listener)?;
    Ok((address, server.run()))
}
