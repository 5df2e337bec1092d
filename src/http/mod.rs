//! The HTTP layer: the only layer that imports actix-web, actix-web-httpauth and paperclip.
//!
//! Import order: [`routes`] → [`openapi`] → endpoints ([`account`], [`audit`], [`console`], [`forward_auth`], [`key`],
//! [`operations`], [`page`], [`session`], [`token`]) → `resource`, `static_file` → [`guard`] → [`transport`] → [`wire`] →
//! [`request`]. A module imports only later ones.

pub mod account;
pub mod audit;
pub mod console;
pub mod forward_auth;
pub mod guard;
pub mod key;
pub mod openapi;
pub mod operations;
pub mod page;
pub mod request;
mod resource;
pub mod routes;
pub mod session;
mod static_file;
pub mod stats;
pub mod token;
pub mod transport;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::App;
pub use actix_web::dev::{Server as RunningServer, ServerHandle};
use actix_web::middleware::from_fn;
use paperclip::actix::OpenApiExt;
use paperclip::actix::web;
use tokio_rustls::TlsAcceptor;

use self::console::PublicSettings;
use self::guard::same_origin::PublicOrigin;
use self::openapi::docs;
use self::operations::index::IndexResponse;
use self::request::access_log::AccessLog;
use self::request::client::Proxies;
use self::request::log_sampling::LogSamples;
use self::token::metadata::{self, Metadata};
use self::transport::connections::{BoundSocket, Connections};
use self::transport::listener::Transport;
use self::transport::{cors, edge};
use self::wire::in_flight::InFlight;
use self::wire::problem::Presentation;
use crate::config::Settings;
use crate::service::Service;

/// Listens on `socket` and starts to serve `service`, over TLS if `tls` is set.
///
/// Returns the local address, and the server future, which the caller must await. Errors: the socket cannot listen, or
/// the server cannot start its workers.
pub fn serve(
    service: Arc<Service>,
    settings: &Settings,
    socket: BoundSocket,
    tls: Option<TlsAcceptor>,
    samples: Arc<LogSamples>,
) -> std::io::Result<(SocketAddr, RunningServer)> {
    let listener = socket.listen()?;
    let address = listener.local_addr()?;
    let document = routes::document(settings);
    let metadata = web::Data::new(Metadata::new(&settings.http, settings.roles.roles()));
    let index = web::Data::new(IndexResponse::new(&settings.http.public_url, settings.registration.mode));
    let console = PublicSettings::new(settings);
    let presentation = web::Data::new(Presentation::new(settings.http.status_codes, document.allowed_methods()));
    let document = web::Data::new(document);
    let service = web::Data::from(service);
    let access_every = settings.log.access_every;
    let connections = Connections::new(settings, service.metrics());
    let in_flight = web::Data::from(InFlight::new(service.metrics()));
    let metrics = settings.metrics.listen.address().map(|_| service.metrics());
    let proxies = web::Data::new(Proxies::new(&settings.http));
    let origins = web::Data::new(settings.http.cors_origins.clone());
    let public_origin = web::Data::new(PublicOrigin::new(&settings.http));
    let transport = Transport {
        workers: settings.server.workers(),
        connections: settings.server.connections,
        shutdown_timeout: settings.server.shutdown_timeout,
        tls,
    };
    let server = transport.serve(listener, connections, move || {
        App::new()
            .app_data(service.clone())
            .app_data(presentation.clone())
            .app_data(document.clone())
            .app_data(metadata.clone())
            .app_data(index.clone())
            .app_data(AccessLog::new(access_every, Arc::clone(&samples), metrics.clone()))
            .app_data(in_flight.clone())
            .app_data(proxies.clone())
            .app_data(origins.clone())
            .app_data(public_origin.clone())
            .wrap(from_fn(edge::catch_panics))
            .wrap(cors::cors(&origins))
            .wrap(from_fn(cors::explain_rejected_preflight))
            .wrap(from_fn(edge::edge))
            .wrap_api()
            .configure(routes::routes)
            .build()
            // Last, because actix-web matches routes in the order of registration.
            .configure(metadata::routes)
            .configure(docs::routes)
            .configure(|config| console.into_iter().for_each(|settings| console::routes(config, settings)))
    });
    Ok((address, server?))
}
