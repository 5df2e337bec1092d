//! HTTP: the only layer that names actix-web, actix-web-httpauth and paperclip.

pub mod access;
pub mod account;
#[cfg(test)]
mod arbitrary;
pub mod audit;
pub mod authz;
pub mod body;
pub mod client;
pub mod connections;
pub mod cors;
mod distinct;
pub mod docs;
pub mod early;
pub mod edge;
pub mod fields;
pub mod guard;
mod header;
pub mod health;
mod idempotency;
pub mod in_flight;
pub mod incoming;
pub mod introspect;
pub mod issue;
pub mod key;
mod list;
pub mod metadata;
pub mod metrics;
pub mod openapi;
pub mod original;
pub mod page;
pub mod path;
pub mod principal;
pub mod problem;
pub mod refusals;
pub mod reply;
pub mod revoke;
pub mod stream;
pub mod token;
pub mod transport;
mod url_encoded;
pub mod user;

use std::net::SocketAddr;
use std::sync::Arc;

pub use actix_web::dev::{Server as RunningServer, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::{App, guard as matching};
use actix_web_httpauth::middleware::HttpAuthentication;
use paperclip::actix::OpenApiExt;
use paperclip::actix::web::{self, ServiceConfig};
use tokio_rustls::TlsAcceptor;

use self::access::AccessLog;
use self::client::Proxies;
use self::connections::{Bound, Connections};
use self::in_flight::InFlight;
use self::metadata::Metadata;
use self::openapi::Document;
use self::problem::Presentation;
use self::refusals::Samples;
use self::transport::Transport;
use crate::config::Settings;
use crate::service::Service;

/// The whole URL table. What is wrapped in the guard lets nobody in who has no credential; what a credential must be
/// good for is in the argument types of the handlers.
fn routes(config: &mut ServiceConfig<'_>) {
    let guard = || HttpAuthentication::with_fn(guard::guard);
    let client = || HttpAuthentication::with_fn(guard::client);
    let client_or_stranger = || HttpAuthentication::with_fn(guard::client_or_stranger);
    config
        .service(web::resource("/health/live").route(web::get().to(health::live)))
        .service(web::resource("/health/ready").route(web::get().to(health::ready)))
        // The user scope.
        .service(web::resource("/register").route(web::post().to(user::register)))
        .service(web::resource("/token").guard(matching::Not(matching::Delete())).route(web::post().to(token::sign_in)))
        .service(web::resource("/token").wrap(guard()).route(web::delete().to(token::sign_out)))
        .service(web::resource("/revoke").wrap(client_or_stranger()).route(web::post().to(revoke::revoke)))
        .service(web::resource("/introspect").wrap(client()).route(web::post().to(introspect::introspect)))
        // Proxies may ask with any method; the document shows one of them.
        .service(
            web::resource("/authz")
                .route(web::get().to(authz::authorize))
                .default_service(actix_web::web::to(authz::authorize)),
        )
        .service(web::resource("/protected-route").wrap(guard()).route(web::get().to(token::protected_route)))
        .service(
            web::resource("/me")
                .wrap(guard())
                .route(web::get().to(account::read))
                .route(web::patch().to(account::edit))
                .route(web::delete().to(account::delete)),
        )
        .service(web::resource("/me/password").wrap(guard()).route(web::put().to(account::set_password)))
        .service(web::resource("/me/activity").wrap(guard()).route(web::get().to(audit::activity)))
        .service(
            web::resource("/me/keys").wrap(guard()).route(web::get().to(key::list)).route(web::post().to(key::create)),
        )
        .service(
            web::resource("/me/keys/{id}")
                .wrap(guard())
                .route(web::get().to(key::read))
                .route(web::patch().to(key::edit))
                .route(web::delete().to(key::revoke)),
        )
        .service(web::resource("/me/keys/{id}/rotate").wrap(guard()).route(web::post().to(key::rotate)))
        .service(web::resource("/keys/claim").route(web::post().to(issue::claim)))
        .service(
            web::resource("/keys").wrap(guard()).route(web::get().to(issue::list)).route(web::post().to(issue::issue)),
        )
        .service(
            web::resource("/keys/{id}")
                .wrap(guard())
                .route(web::get().to(issue::read))
                .route(web::delete().to(issue::revoke)),
        )
        .service(web::resource("/users").wrap(guard()).route(web::get().to(user::list)))
        .service(
            web::resource("/users/{id}")
                .wrap(guard())
                .route(web::get().to(user::read))
                .route(web::patch().to(user::edit))
                .route(web::delete().to(user::delete)),
        )
        .service(web::resource("/users/{id}/token").wrap(guard()).route(web::delete().to(user::revoke_token)))
        .service(web::resource("/audit").wrap(guard()).route(web::get().to(audit::read)))
        // The page scope. The empty path is for `/page`, which answers like `/page/`.
        .service(
            web::scope("/page")
                .wrap(guard())
                .service(page_list(""))
                .service(page_list("/"))
                .service(
                    web::resource("/{id}")
                        .route(web::get().to(page::read))
                        .route(web::put().to(page::replace))
                        .route(web::patch().to(page::edit))
                        .route(web::delete().to(page::delete)),
                )
                .service(web::resource("/{id}/history").route(web::get().to(audit::page_history))),
        );
}

fn page_list(path: &str) -> web::Resource {
    web::resource(path).route(web::get().to(page::list)).route(web::post().to(page::create))
}

/// Listens and starts to serve `service`, over TLS if there is a `tls`: where, and what to await to let it run.
pub fn serve(
    service: Arc<Service>,
    settings: &Settings,
    socket: Bound,
    tls: Option<TlsAcceptor>,
    samples: Arc<Samples>,
) -> std::io::Result<(SocketAddr, RunningServer)> {
    let listener = socket.listen()?;
    let address = listener.local_addr()?;
    let document = Document::build(&settings.http, &settings.auth);
    let metadata = web::Data::new(Metadata::new(&settings.http));
    let presentation = web::Data::new(Presentation::new(settings.http.status_codes, &document));
    let document = web::Data::new(document);
    let service = web::Data::from(service);
    let access_every = settings.log.access_every;
    let connections = Connections::new(settings, service.metrics());
    let in_flight = web::Data::from(InFlight::new(service.metrics()));
    let metrics = settings.metrics.listen.address().map(|_| service.metrics());
    let proxies = web::Data::new(Proxies::new(&settings.http));
    let origins = settings.http.cors_origins.clone();
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
            .app_data(AccessLog::new(access_every, Arc::clone(&samples), metrics.clone()))
            .app_data(in_flight.clone())
            .app_data(proxies.clone())
            .wrap(from_fn(edge::contain))
            .wrap(cors::cors(&origins))
            .wrap(from_fn(edge::edge))
            .wrap_api()
            .configure(routes)
            .build()
            // Last, because routes are tried in this order.
            .configure(metadata::routes)
            .configure(docs::routes)
    });
    Ok((address, server?))
}
