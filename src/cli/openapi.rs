//! The command `latchkey openapi`.

use super::Outcome;
use crate::config::Settings;
use crate::http::routes::document;

pub(super) fn print(settings: &Settings) -> Outcome {
    super::print(document(settings).json())
}
