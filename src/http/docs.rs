//! `/openapi.json` and Swagger UI, from inside the binary.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, LOCATION};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};

use super::in_flight::Static;
use super::openapi::Document;

const INDEX: &str = include_str!("docs/index.html");
const START: &str = include_str!("docs/start.js");
const BUNDLE: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui-bundle.js.gz");
const STYLE: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui.css.gz");
const ICON: &[u8] = include_bytes!("../../assets/swagger-ui/favicon-32x32.png");

/// The routes of the documentation, which it does not describe.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/openapi.json").get(openapi))
        .service(web::resource("/docs").get(redirect))
        .service(web::resource("/docs/").get(index))
        .service(web::resource("/docs/start.js").get(start))
        .service(
            web::resource("/docs/swagger-ui-bundle.js")
                .get(|| async { packed("text/javascript; charset=utf-8", BUNDLE) }),
        )
        .service(web::resource("/docs/swagger-ui.css").get(|| async { packed("text/css; charset=utf-8", STYLE) }))
        .service(web::resource("/docs/favicon-32x32.png").get(|| async {
            HttpResponse::Ok().content_type("image/png").insert_header((CACHE_CONTROL, "max-age=86400")).body(ICON)
        }));
}

async fn openapi(document: web::Data<Document>) -> impl Responder {
    constant(HttpResponse::Ok().content_type("application/json").body(document.bytes()))
}

/// An answer whose bytes are there as long as the program, and not for this request.
fn constant(mut response: HttpResponse) -> HttpResponse {
    response.extensions_mut().insert(Static);
    response
}

/// Relative, so that it holds behind a path prefix.
async fn redirect() -> impl Responder {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "docs/")).finish()
}

/// Scripts and styles of our own only, and requests to the API wherever its clients reach it.
async fn index(settings: web::Data<Document>) -> impl Responder {
    let api = settings.origin().unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' {api}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((CONTENT_SECURITY_POLICY, policy))
        .body(INDEX)
}

async fn start() -> impl Responder {
    HttpResponse::Ok().content_type("text/javascript; charset=utf-8").body(START)
}

/// Stored compressed, sent as stored: whoever opens the page has a browser.
fn packed(content_type: &'static str, bytes: &'static [u8]) -> HttpResponse {
    let response = HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CONTENT_ENCODING, "gzip"))
        .insert_header((CACHE_CONTROL, "max-age=86400"))
        .body(bytes);
    constant(response)
}
