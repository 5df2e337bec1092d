//! Serves the web console, whose files are embedded in the binary. Its sources are in `console/`.

use actix_web::http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, LOCATION};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use serde::Serialize;

use crate::config::{RegistrationMode, Settings};
use crate::http::static_file::{CSS, HTML, JAVASCRIPT, StaticFile};

/// The page. It names the script and the style sheet by the hashes of their contents.
const INDEX: &str = include_str!("../../assets/console/index.html");
/// `Cache-Control` of files whose name changes with their content.
const FOREVER: &str = "public, max-age=31536000, immutable";
const SCRIPT: StaticFile =
    StaticFile::gzip(JAVASCRIPT, include_bytes!("../../assets/console/app.js.gz")).cached(FOREVER);
const STYLE: StaticFile = StaticFile::gzip(CSS, include_bytes!("../../assets/console/app.css.gz")).cached(FOREVER);
const ICON: StaticFile =
    StaticFile::new("image/svg+xml", include_bytes!("../../assets/console/icon.svg")).cached("max-age=86400");
/// Only embedded scripts and styles, no HTML from strings (Trusted Types), and requests to this server only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The settings of the server that the console shows before a sign-in.
#[derive(Clone, Copy, Serialize)]
pub struct PublicSettings {
    registration: RegistrationMode,
    mail: bool,
    /// Whether a sign-in requires a verified address.
    verified_email_required: bool,
    name_min: usize,
    password_min: usize,
    password_max: usize,
}

impl PublicSettings {
    /// The settings, or `None` if the console is disabled.
    pub fn new(settings: &Settings) -> Option<Self> {
        settings.console.enabled.then_some(Self {
            registration: settings.registration.mode,
            mail: settings.mail.url.server().is_some(),
            verified_email_required: settings.auth.require_verified_email,
            name_min: settings.registration.name_min_length,
            password_min: settings.auth.password_min_length,
            password_max: settings.auth.password_max_length,
        })
    }
}

/// Registers the routes of the console, which are not part of the OpenAPI document.
pub fn routes(config: &mut ServiceConfig, settings: PublicSettings) {
    config
        .service(web::resource("/console").get(redirect))
        .service(web::resource("/console/").get(index))
        .service(web::resource("/console/settings.json").get(move || async move { web::Json(settings) }))
        .service(web::resource("/console/icon.svg").get(|| async { ICON.response() }))
        .service(web::resource("/console/{file}").get(hashed_file));
}

/// The script or the style sheet under the name in the page. Other names do not exist: a server of another version must
/// not fill a cache with its own file under this name.
async fn hashed_file(name: web::Path<String>) -> impl Responder {
    let is_in_page = INDEX.split('"').any(|text| text == name.as_str());
    match name.rsplit_once('.') {
        Some((_, "js")) if is_in_page => SCRIPT.response(),
        Some((_, "css")) if is_in_page => STYLE.response(),
        _ => HttpResponse::NotFound().finish(),
    }
}

/// Redirects with a relative URL, which also works behind a path prefix.
async fn redirect() -> impl Responder {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "console/")).finish()
}

async fn index() -> impl Responder {
    HttpResponse::Ok()
        .content_type(HTML)
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        // A window that opened this page, or that this page opens, gets no reference to it (ASVS 5.0, 3.4.8).
        .insert_header((CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin")))
        .body(INDEX)
}
