//! Tests of the HTTP format of requests and responses: headers, bodies, text and lists.

mod cors;
mod cors_browser;
mod headers;
mod input;
mod lists;
mod text;
