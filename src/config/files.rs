//! Settings files, and files that hold one secret.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::ConfigError;

/// Maximum size of a settings file in bytes.
const SETTINGS_MAX: u64 = 1024 * 1024;
/// Maximum size of a file with a secret in bytes.
const SECRET_MAX: u64 = 64 * 1024;

/// Reads the text of a settings file.
pub(super) fn settings(file: &Path) -> Result<String, ConfigError> {
    read(file, SETTINGS_MAX).map_err(|message| {
        let hint = "The file is the one that --config or LATCHKEY_CONFIG names.";
        ConfigError::new(file.display().to_string(), format!("{message} {hint}"))
    })
}

/// Reads the only line of the file that `variable` names. Messages do not quote the file name, because the variable may
/// contain the secret by mistake.
pub(super) fn secret(variable: &str, file: &str) -> Result<String, ConfigError> {
    let invalid = |message: String| ConfigError::new(variable, message);
    let file = file.trim_ascii();
    if file.is_empty() {
        return Err(invalid("The variable is empty. Name a file, or unset the variable.".to_owned()));
    }
    let text = read(Path::new(file), SECRET_MAX).map_err(|message| {
        let setting = variable.trim_end_matches("_FILE");
        let hint = format!("This variable requires the name of a file. Set the value itself in {setting}.");
        invalid(format!("{message} {hint}"))
    })?;
    let line = text.trim_ascii();
    match line.lines().count() {
        0 => Err(invalid("The file is empty. Write the value into it, or unset the variable.".to_owned())),
        1 => Ok(line.to_owned()),
        lines => Err(invalid(format!("The file contains {lines} lines. It must contain one line with the value."))),
    }
}

/// Reads the text of a file of at most `limit` bytes, without a byte order mark.
fn read(file: &Path, limit: u64) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("The file cannot be read: {error}.");
    if file.is_dir() {
        return Err("This is a directory, not a file.".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(file).map_err(cannot)?.take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(format!("The file is larger than {limit} bytes."));
    }
    let text = String::from_utf8(bytes).map_err(|error| match error.as_bytes() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "The file is in UTF-16. Save it as UTF-8.",
        _ => "The file is not text in UTF-8.",
    })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}
