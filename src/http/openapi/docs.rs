//! Serves `/openapi.json` and Swagger UI, whose files are embedded in the binary.

use actix_web::http::header::{CONTENT_SECURITY_POLICY, LOCATION};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};

use crate::http::openapi::Document;
use crate::http::static_file::{CSS, HTML, JAVASCRIPT, StaticFile};
use crate::http::wire::in_flight::StaticBody;

const INDEX: &str = include_str!("docs/index.html");
/// `Cache-Control` of the files of Swagger UI, which change only with its version.
const DAY: &str = "max-age=86400";
const START: StaticFile = StaticFile::new(JAVASCRIPT, include_bytes!("docs/start.js"));
const PAGE_STYLE: StaticFile = StaticFile::new(CSS, include_bytes!("docs/page.css"));
const BUNDLE: StaticFile =
    StaticFile::gzip(JAVASCRIPT, include_bytes!("../../../assets/swagger-ui/swagger-ui-bundle.js.gz")).cached(DAY);
const STYLE: StaticFile =
    StaticFile::gzip(CSS, include_bytes!("../../../assets/swagger-ui/swagger-ui.css.gz")).cached(DAY);
const ICON: StaticFile =
    StaticFile::new("image/png", include_bytes!("../../../assets/swagger-ui/favicon-32x32.png")).cached(DAY);

/// Registers the routes of the documentation, which are not part of the OpenAPI document.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/openapi.json").get(openapi))
        .service(web::resource("/docs").get(redirect))
        .service(web::resource("/docs/").get(index))
        .service(web::resource("/docs/start.js").get(|| async { START.response() }))
        .service(web::resource("/docs/page.css").get(|| async { PAGE_STYLE.response() }))
        .service(web::resource("/docs/swagger-ui-bundle.js").get(|| async { BUNDLE.response() }))
        .service(web::resource("/docs/swagger-ui.css").get(|| async { STYLE.response() }))
        .service(web::resource("/docs/favicon-32x32.png").get(|| async { ICON.response() }));
}

async fn openapi(document: web::Data<Document>) -> impl Responder {
    let mut response = HttpResponse::Ok().content_type("application/json").body(document.bytes());
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
    HttpResponse::Ok().content_type(HTML).insert_header((CONTENT_SECURITY_POLICY, policy)).body(INDEX)
}
