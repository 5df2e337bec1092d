//! `latchkey openapi`.

use super::Outcome;
use crate::config::Settings;
use crate::http::openapi::Document;

pub(super) fn print(settings: &Settings) -> Outcome {
    super::print(Document::build(&settings.http, &settings.auth).json())
}
