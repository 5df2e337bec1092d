//! The command `latchkey config`.

use super::Outcome;
use crate::config::Settings;
use crate::service::mail::outgoing::Outgoing;

pub(super) fn print(settings: &Settings) -> Outcome {
    // What only a start would find.
    Outgoing::load(settings)?;
    super::print(settings)
}
