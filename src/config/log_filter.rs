//! `RUST_LOG`: a filter that would be read in another way than it is meant, or not at all, is refused.

use super::ConfigError;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The variable that holds it.
pub(super) const VARIABLE: &str = "RUST_LOG";

/// Whether `RUST_LOG` is a list of levels, and of targets with a level each. An empty one is like none.
pub(super) fn check(filter: &str) -> Result<(), ConfigError> {
    // Behind the slash stands text that messages must contain.
    let (directives, text) = filter.split_once('/').unwrap_or((filter, ""));
    if text.contains('/') {
        return Err(ConfigError::new(
            VARIABLE,
            "One slash may stand before a text that messages must contain, not two.",
        ));
    }
    for directive in directives.split(',').map(str::trim_ascii).filter(|directive| !directive.is_empty()) {
        let is_level = |level: &str| LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        let is_good = match directive.split_once('=') {
            Some((target, level)) => is_target(target) && is_level(level),
            None => is_level(directive) || directive == "latchkey" || directive.starts_with("latchkey::"),
        };
        if !is_good {
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
