//! The URL table: all routes of the API.

use actix_web::guard as matching;
use actix_web_httpauth::middleware::HttpAuthentication;
use paperclip::actix::web::{self, ServiceConfig};

use crate::config::Settings;
use crate::http::account::{acceptance, email_change, invitations, me, password_reset, register, users, verification};
use crate::http::forward_auth::authz;
use crate::http::key::{issued, own};
use crate::http::openapi::Document;
use crate::http::operations::{health, index};
use crate::http::resource::Resource;
use crate::http::token::{introspect, revoke, sign_in};
use crate::http::{audit, guard, page, session, stats};

/// The OpenAPI document of these routes.
pub fn document(settings: &Settings) -> Document {
    Document::build(routes, &resources(), settings)
}

/// The resources, in the order of the page: from the first request of a new user to what ends their account.
fn resources() -> Vec<Resource> {
    vec![
        sign_in::resource(),
        session::resource(),
        password_reset::resource(),
        verification::resource(),
        me::resource(),
        own::resource(),
        issued::resource(),
        users::resource(),
        invitations::resource(),
        audit::resource(),
        stats::resource(),
        page::resource(),
        authz::resource(),
        health::resource(),
        me::sign_out_resource(),
    ]
}

/// Registers all documented routes.
///
/// A route wrapped in the guard requires a credential. The argument types of the handlers state the required
/// permission.
pub(crate) fn routes(config: &mut ServiceConfig<'_>) {
    let guard = || HttpAuthentication::with_fn(guard::guard);
    let client = || HttpAuthentication::with_fn(guard::client);
    let session_or_anonymous = || HttpAuthentication::with_fn(guard::session_or_anonymous);
    let client_or_anonymous = || HttpAuthentication::with_fn(guard::client_or_anonymous);
    config
        .service(web::resource("/").route(web::get().to(index::index)))
        .service(web::resource("/health/live").route(web::get().to(health::live)))
        .service(web::resource("/health/ready").route(web::get().to(health::ready)))
        // The user scope.
        .service(web::resource("/register").route(web::post().to(register::register)))
        .service(
            web::resource("/token").guard(matching::Not(matching::Delete())).route(web::post().to(sign_in::sign_in)),
        )
        .service(web::resource("/token").wrap(guard()).route(web::delete().to(sign_in::sign_out)))
        .service(web::resource("/session").guard(matching::Get()).wrap(guard()).route(web::get().to(session::read)))
        .service(
            web::resource("/session")
                .guard(matching::Delete())
                .wrap(session_or_anonymous())
                .route(web::delete().to(session::sign_out)),
        )
        .service(web::resource("/session").route(web::post().to(session::create)))
        .service(web::resource("/password-reset").route(web::post().to(password_reset::request)))
        .service(web::resource("/password-reset/confirm").route(web::post().to(password_reset::confirm)))
        .service(web::resource("/email-verification").route(web::post().to(verification::request)))
        .service(web::resource("/email-verification/confirm").route(web::post().to(verification::confirm)))
        .service(web::resource("/email-change/confirm").route(web::post().to(email_change::confirm)))
        .service(web::resource("/email-change/undo").route(web::post().to(email_change::undo)))
        .service(web::resource("/registration/confirm").route(web::post().to(acceptance::confirm_registration)))
        .service(web::resource("/revoke").wrap(client_or_anonymous()).route(web::post().to(revoke::revoke)))
        .service(web::resource("/introspect").wrap(client()).route(web::post().to(introspect::introspect)))
        // Proxies may use any method; the document shows GET only.
        .service(
            web::resource("/authz")
                .route(web::get().to(authz::authorize))
                .default_service(actix_web::web::to(authz::authorize)),
        )
        .service(web::resource("/protected-route").wrap(guard()).route(web::get().to(sign_in::protected_route)))
        .service(
            web::resource("/me")
                .wrap(guard())
                .route(web::get().to(me::read))
                .route(web::patch().to(me::edit))
                .route(web::delete().to(me::delete)),
        )
        .service(web::resource("/me/password").wrap(guard()).route(web::put().to(me::set_password)))
        .service(web::resource("/me/sessions").wrap(guard()).route(web::get().to(session::list)))
        .service(web::resource("/me/sessions/{id}").wrap(guard()).route(web::delete().to(session::end)))
        .service(web::resource("/me/activity").wrap(guard()).route(web::get().to(audit::activity)))
        .service(
            web::resource("/me/keys").wrap(guard()).route(web::get().to(own::list)).route(web::post().to(own::create)),
        )
        .service(
            web::resource("/me/keys/{id}")
                .wrap(guard())
                .route(web::get().to(own::read))
                .route(web::patch().to(own::edit))
                .route(web::delete().to(own::revoke)),
        )
        .service(web::resource("/me/keys/{id}/rotate").wrap(guard()).route(web::post().to(own::rotate)))
        .service(web::resource("/keys/claim").route(web::post().to(issued::claim)))
        .service(
            web::resource("/keys")
                .wrap(guard())
                .route(web::get().to(issued::list))
                .route(web::post().to(issued::issue)),
        )
        .service(
            web::resource("/keys/{id}")
                .wrap(guard())
                .route(web::get().to(issued::read))
                .route(web::delete().to(issued::revoke)),
        )
        .service(
            web::resource("/users")
                .wrap(guard())
                .route(web::get().to(users::list))
                .route(web::post().to(users::create)),
        )
        .service(web::resource("/invitations/accept").route(web::post().to(acceptance::accept_invitation)))
        .service(
            web::resource("/users/invitations")
                .wrap(guard())
                .route(web::get().to(invitations::list))
                .route(web::post().to(invitations::create)),
        )
        .service(web::resource("/users/invitations/{id}").wrap(guard()).route(web::delete().to(invitations::revoke)))
        .service(
            web::resource("/users/invitations/{id}/resend").wrap(guard()).route(web::post().to(invitations::resend)),
        )
        .service(
            web::resource("/users/{id}")
                .wrap(guard())
                .route(web::get().to(users::read))
                .route(web::patch().to(users::edit))
                .route(web::delete().to(users::delete)),
        )
        .service(web::resource("/users/{id}/token").wrap(guard()).route(web::delete().to(users::revoke_token)))
        .service(web::resource("/audit").wrap(guard()).route(web::get().to(audit::read)))
        .service(web::resource("/stats").wrap(guard()).route(web::get().to(stats::read)))
        // The page scope. The empty path serves `/page`, an alias of `/page/`.
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
