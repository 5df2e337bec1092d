//! Validation of `RUST_LOG`. `env_filter` itself ignores invalid filters, or interprets them in an unexpected way.

use super::ConfigError;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The variable that holds the filter.
pub(super) const VARIABLE: &str = "RUST_LOG";

/// Checks that the filter is a list of levels and of targets with a level. An empty filter is valid.
pub(super) fn check(filter: &str) -> Result<(), ConfigError> {
    // The text after the slash is a text that messages must contain.
    let (directives, text) = filter.split_once('/').unwrap_or((filter, ""));
    if text.contains('/') {
        return Err(ConfigError::new(
            VARIABLE,
            "Only one slash is allowed. It begins a text that messages must contain.",
        ));
    }
    for directive in directives.split(',').map(str::trim_ascii).filter(|directive| !directive.is_empty()) {
        let is_level = |level: &str| LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        let is_valid = match directive.split_once('=') {
            Some((target, level)) => is_target(target) && is_level(level),
            None => is_level(directive) || directive == "latchkey" || directive.starts_with("latchkey::"),
        };
        if !is_valid {
            return Err(ConfigError::new(
                VARIABLE,
                format!(
                    "{directive:?} is not understood. Write a level ({}), or TARGET=LEVEL, such as \
                     info,latchkey::access=warn.",
                    LEVELS.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

fn is_target(target: &str) -> bool {
    !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
}
