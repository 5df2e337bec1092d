//! Responses with files that are embedded in the binary.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING};

use crate::http::wire::in_flight::StaticBody;

/// `Content-Type` of scripts.
pub(crate) const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
/// `Content-Type` of style sheets.
pub(crate) const CSS: &str = "text/css; charset=utf-8";
/// `Content-Type` of pages.
pub(crate) const HTML: &str = "text/html; charset=utf-8";

/// A file that is embedded in the binary.
#[derive(Clone, Copy)]
pub(crate) struct StaticFile {
    content_type: &'static str,
    bytes: &'static [u8],
    is_gzip: bool,
    cache_control: Option<&'static str>,
}

impl StaticFile {
    /// A file that browsers do not store.
    pub(crate) const fn new(content_type: &'static str, bytes: &'static [u8]) -> Self {
        Self { content_type, bytes, is_gzip: false, cache_control: None }
    }

    /// A compressed file. It is sent compressed to every client, because all browsers accept gzip.
    pub(crate) const fn gzip(content_type: &'static str, bytes: &'static [u8]) -> Self {
        Self { is_gzip: true, ..Self::new(content_type, bytes) }
    }

    /// The file with this `Cache-Control`.
    pub(crate) const fn cached(self, cache_control: &'static str) -> Self {
        Self { cache_control: Some(cache_control), ..self }
    }

    /// The response with the file. Its body is shared by all requests and takes no memory of its own.
    pub(crate) fn response(self) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        response.content_type(self.content_type);
        if self.is_gzip {
            response.insert_header((CONTENT_ENCODING, "gzip"));
        }
        if let Some(cache_control) = self.cache_control {
            response.insert_header((CACHE_CONTROL, cache_control));
        }
        let mut response = response.body(self.bytes);
        response.extensions_mut().insert(StaticBody);
        response
    }
}
