//! The command `latchkey config`.

use super::Outcome;
use crate::config::Settings;

pub(super) fn print(settings: &Settings) -> Outcome {
    super::print(settings)
}
