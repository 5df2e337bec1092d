//! Rules about values that several use cases share.

use validator::{Validate, ValidationError};

use crate::domain::text::{self, Flaw};
use crate::error::{FieldError, broken_rules};

/// Longest name, and other short text, in characters.
pub const TEXT_MAX: u64 = 255;

/// All that the rules of `input` say against it.
pub(super) fn broken(input: &impl Validate) -> Vec<FieldError> {
    input.validate().map_or_else(|errors| broken_rules(&errors), |()| Vec::new())
}

/// For a line of text that people read, such as a name. It may be empty, not blank.
pub(super) fn readable(text: &str) -> Result<(), ValidationError> {
    let (code, message) = match text::flaw(text) {
        None => return Ok(()),
        Some(Flaw::Blank) => ("blank", "Use at least one visible character.".to_owned()),
        Some(Flaw::Control(found)) => ("control", format!("Remove the control character {}.", code_point(found))),
        Some(Flaw::Invisible(found)) => ("invisible", format!("Remove the invisible character {}.", code_point(found))),
    };
    Err(ValidationError::new(code).with_message(message.into()))
}

/// As Unicode writes it: `U+200B`.
pub(super) fn code_point(character: char) -> String {
    format!("U+{:04X}", u32::from(character))
}

pub(super) fn no_nul(text: &str) -> Result<(), ValidationError> {
    if text.contains('\0') {
        return Err(ValidationError::new("nul").with_message("The NUL character is not allowed.".into()));
    }
    Ok(())
}
