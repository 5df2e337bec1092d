//! Serves `/openapi.json` and Swagger UI, whose files are embedded in the binary.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, LOCATION};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};

use crate::http::openapi::Document;
use crate::http::wire::in_flight::StaticBody;

const INDEX: &str = include_str!("docs/index.html");
const START: &str = include_str!("docs/start.js");
const PAGE_STYLE: &str = include_str!("docs/page.css");
const BUNDLE: &[u8] = include_bytes!("../../../assets/swagger-ui/swagger-ui-bundle.js.gz");
const STYLE: &[u8] = include_bytes!("../../../assets/swagger-ui/swagger-ui.css.gz");
const ICON: &[u8] = include_bytes!("../../../assets/swagger-ui/favicon-32x32.png");

/// Registers the routes of the documentation, which are not part of the OpenAPI document.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/openapi.json").get(openapi))
        .service(web::resource("/docs").get(redirect))
        .service(web::resource("/docs/").get(index))
        .service(web::resource("/docs/start.js").get(|| async { text_file("text/javascript; charset=utf-8", START) }))
        .service(web::resource("/docs/page.css").get(|| async { text_file("text/css; charset=utf-8", PAGE_STYLE) }))
        .service(
            web::resource("/docs/swagger-ui-bundle.js")
                .get(|| async { gzip_file("text/javascript; charset=utf-8", BUNDLE) }),
        )
        .service(web::resource("/docs/swagger-ui.css").get(|| async { gzip_file("text/css; charset=utf-8", STYLE) }))
        .service(web::resource("/docs/favicon-32x32.png").get(|| async {
            HttpResponse::Ok().content_type("image/png").insert_header((CACHE_CONTROL, "max-age=86400")).body(ICON)
        }));
}

async fn openapi(document: web::Data<Document>) -> impl Responder {
    with_static_body(HttpResponse::Ok().content_type("application/json").body(document.bytes()))
}

/// Marks a response whose body is shared by all requests and takes no memory of its own.
fn with_static_body(mut response: HttpResponse) -> HttpResponse {
    response.extensions_mut().insert(StaticBody);
    response
}

/// Redirects with a relative URL, which also works behind a path prefix.
async fn redirect() -> impl Responder {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "docs/")).finish()
}

/// The page. Its policy allows only embedded scripts and styles, and requests to the public address of the API.
async fn index(document: web::Data<Document>) -> impl Responder {
    let api = document.origin().unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' {api}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((CONTENT_SECURITY_POLICY, policy))
        .body(INDEX)
}

/// A response with an embedded text file.
fn text_file(content_type: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok().content_type(content_type).body(text)
}

/// A response with an embedded gzip file. It is sent compressed to every client, because all browsers accept gzip.
fn gzip_file(content_type: &'static str, bytes: &'static [u8]) -> HttpResponse {
    let response = HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CONTENT_ENCODING, "gzip"))
        .insert_header((CACHE_CONTROL, "max-age=86400"))
        .body(bytes);
    with_static_body(response)
}
