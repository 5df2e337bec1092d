//! Validation rules that several use cases share.

use validator::{Validate, ValidationError};

use crate::domain::text::{self, TextError};
use crate::error::{FieldError, field_errors};

/// Maximum length of names and other short texts, in characters.
pub const TEXT_MAX: u64 = 255;

/// Returns all violations of the validation rules of `input`.
pub(crate) fn validation_errors(input: &impl Validate) -> Vec<FieldError> {
    input.validate().map_or_else(|errors| field_errors(&errors), |()| Vec::new())
}

/// Accepts one line of visible text, such as a name. The text may be empty, but must not consist of blanks only, and
/// must not contain control characters or invisible characters.
pub(crate) fn readable(text: &str) -> Result<(), ValidationError> {
    let (code, message) = match text::first_error(text) {
        None => return Ok(()),
        Some(TextError::Blank) => ("blank", "Use at least one visible character.".to_owned()),
        Some(TextError::Control(found)) => ("control", format!("Remove the control character {}.", code_point(found))),
        Some(TextError::Invisible(found)) => {
            ("invisible", format!("Remove the invisible character {}.", code_point(found)))
        }
    };
    Err(ValidationError::new(code).with_message(message.into()))
}

/// Formats a character in Unicode notation, such as `U+200B`.
pub(crate) fn code_point(character: char) -> String {
    format!("U+{:04X}", u32::from(character))
}

/// Rejects text with a NUL character.
pub(crate) fn no_nul(text: &str) -> Result<(), ValidationError> {
    if text.contains('\0') {
        return Err(ValidationError::new("nul").with_message("The NUL character is not allowed.".into()));
    }
    Ok(())
}
