//! HTTP: the only layer that names actix-web, actix-web-httpauth and paperclip.

pub mod body;
pub mod docs;
pub mod edge;
pub mod guard;
pub mod health;
pub mod openapi;
pub mod page;
pub mod path;
pub mod principal;
pub mod problem;
pub mod reply;
pub mod user;

use std::net::SocketAddr;
use std::sync::Arc;

pub use actix_web::dev::{Server as RunningServer, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, guard as matching};
use actix_web_httpauth::middleware::HttpAuthentication;
use paperclip::actix::OpenApiExt;
use paperclip::actix::web::{self, ServiceConfig};

use self::openapi::Document;
use self::problem::Presentation;
use crate::config::Settings;
use crate::service::Service;

/// The whole URL table. A scope that is wrapped in the guard lets nobody in who has no credential; what a credential
/// must be good for is in the argument types of the handlers.
fn routes(config: &mut ServiceConfig<'_>) {
    let guard = || HttpAuthentication::with_fn(guard::guard);
    config
        .service(web::resource("/health/live").route(web::get().to(health::live)))
        .service(web::resource("/health/ready").route(web::get().to(health::ready)))
        // The user scope.
        .service(web::resource("/register").route(web::post().to(user::register)))
        .service(web::resource("/token").guard(matching::Not(matching::Delete())).route(web::post().to(user::sign_in)))
        .service(web::resource("/token").wrap(guard()).route(web::delete().to(user::sign_out)))
        .service(web::resource("/me").wrap(guard()).route(web::get().to(user::me)))
        .service(web::resource("/protected-route").wrap(guard()).route(web::get().to(user::protected_route)))
        // The page scope. The empty path is for `/page`, which answers like `/page/`.
        .service(
            web::scope("/page").wrap(guard()).service(page_list("")).service(page_list("/")).service(
                web::resource("/{id}")
                    .route(web::get().to(page::read))
                    .route(web::put().to(page::replace))
                    .route(web::patch().to(page::edit))
                    .route(web::delete().to(page::delete)),
            ),
        );
}

fn page_list(path: &str) -> web::Resource {
    web::resource(path).route(web::get().to(page::list)).route(web::post().to(page::create))
}

/// Listens and starts to serve `service`: where, and what to await to let it run.
pub fn serve(service: Arc<Service>, settings: &Settings) -> std::io::Result<(SocketAddr, RunningServer)> {
    let document = Document::build(&settings.http, &settings.auth);
    let presentation = web::Data::new(Presentation::new(settings.http.status_codes, &document));
    let document = web::Data::new(document);
    let service = web::Data::from(service);
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(service.clone())
            .app_data(presentation.clone())
            .app_data(document.clone())
            .wrap(from_fn(edge::edge))
            .configure(docs::routes)
            .wrap_api()
            .configure(routes)
            .build()
    })
    .shutdown_timeout(settings.server.shutdown_timeout)
    .bind(settings.server.listen)?;
    if settings.server.workers > 0 {
        server = server.workers(settings.server.workers);
    }
    let address = server.addrs().into_iter().next().unwrap_or(settings.server.listen);
    Ok((address, server.run()))
}
