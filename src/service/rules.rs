//! Rules about values that several use cases share.

use validator::{Validate, ValidationError};

use crate::error::{FieldError, broken_rules};

/// Longest name, and other short text, in characters.
pub const TEXT_MAX: u64 = 255;

/// All that the rules of `input` say against it.
pub(super) fn broken(input: &impl Validate) -> Vec<FieldError> {
    input.validate().map_or_else(|errors| broken_rules(&errors), |()| Vec::new())
}

pub(super) fn no_control_characters(text: &str) -> Result<(), ValidationError> {
    if text.chars().any(char::is_control) {
        return Err(ValidationError::new("control").with_message("Control characters are not allowed.".into()));
    }
    Ok(())
}

pub(super) fn no_nul(text: &str) -> Result<(), ValidationError> {
    if text.contains('\0') {
        return Err(ValidationError::new("nul").with_message("The NUL character is not allowed.".into()));
    }
    Ok(())
}
