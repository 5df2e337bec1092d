//! Reads files of the repository, and reports the lines where entries are missing.

use std::path::Path;

/// The text of a file, by its path in the repository.
pub fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The place after the last line that contains `text`, as `file:line`.
pub fn place_after(file: &str, text: &str) -> String {
    let line = read(file).lines().enumerate().filter(|(_, line)| line.contains(text)).last().map(|(at, _)| at + 2);
    format!("{file}:{}", line.unwrap_or_else(|| panic!("{file} has no line with {text}")))
}

/// Panics with all messages, one per line, if there are any.
pub fn assert_complete(missing: &[String]) {
    assert!(missing.is_empty(), "incomplete (docs/adding-a-resource.md):\n{}", missing.join("\n"));
}
