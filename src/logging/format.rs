//! The format of log lines. Formatting runs on the thread that logs, so it makes one allocation per line and formats
//! the time once per second.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;

use chrono::DateTime;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};

use crate::config::LogFormat;

/// The initial capacity of a line in bytes, which is enough for most lines.
const LINE_CAPACITY: usize = 320;
/// Maximum length of a message in bytes.
const MESSAGE_MAX: usize = 4 * 1024;
/// Maximum length of each value besides the message in bytes.
const VALUE_MAX: usize = 512;
/// The end of a text that was cut.
const ELLIPSIS: &str = "\u{2026}";

#[derive(Clone, Copy)]
pub(super) enum Format {
    Text { colours: bool },
    Json,
}

impl Format {
    pub(super) fn new(format: LogFormat, is_terminal: bool) -> Self {
        match format {
            LogFormat::Text => Self::Text { colours: is_terminal },
            LogFormat::Json => Self::Json,
        }
    }

    /// Formats a record as a line. `micros` is the time in microseconds since 1970.
    pub(super) fn line(self, record: &Record<'_>, micros: i64) -> Vec<u8> {
        let mut line = Vec::with_capacity(LINE_CAPACITY);
        match self {
            Self::Text { colours } => text(&mut line, record, micros, colours),
            Self::Json => json(&mut line, record, micros),
        }
        line.push(b'\n');
        line
    }
}

fn text(line: &mut Vec<u8>, record: &Record<'_>, micros: i64, colours: bool) {
    line.push(b'[');
    push_second(line, micros.div_euclid(1_000_000));
    let (begin, end) = if colours { (colour(record.level()), "\u{1b}[0m") } else { ("", "") };
    // `write!` takes several times as long, and every request has a line.
    for part in ["Z ", begin, padded(record.level()), end, " ", record.target(), "] "] {
        line.extend_from_slice(part.as_bytes());
    }
    push_plain(line, &message(record), MESSAGE_MAX);
    let _ = record.key_values().visit(&mut TextFields(line));
}

const fn padded(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARN ",
        Level::Info => "INFO ",
        Level::Debug => "DEBUG",
        Level::Trace => "TRACE",
    }
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::Error => "\u{1b}[1;31m",
        Level::Warn => "\u{1b}[33m",
        Level::Info => "\u{1b}[32m",
        Level::Debug => "\u{1b}[34m",
        Level::Trace => "\u{1b}[36m",
    }
}

fn json(line: &mut Vec<u8>, record: &Record<'_>, micros: i64) {
    line.extend_from_slice(b"{\"time\":\"");
    push_second(line, micros.div_euclid(1_000_000));
    // Writing to a vector cannot fail.
    let _ = write!(line, ".{:06}Z\",\"level\":\"{}\"", micros.rem_euclid(1_000_000), record.level());
    push_member(line, "target", record.target(), VALUE_MAX);
    push_member(line, "message", &message(record), MESSAGE_MAX);
    let _ = record.key_values().visit(&mut JsonFields(line));
    line.push(b'}');
}

/// The message of a record. Most messages are constant and need no allocation.
fn message<'r>(record: &'r Record<'_>) -> Cow<'r, str> {
    record.args().as_str().map_or_else(|| record.args().to_string().into(), Cow::Borrowed)
}

/// The first `max` bytes of a text, and the ellipsis if it was cut.
fn truncated(text: &str, max: usize) -> (&str, &'static str) {
    let kept = text.get(..text.floor_char_boundary(max)).unwrap_or(text);
    (kept, if kept.len() < text.len() { ELLIPSIS } else { "" })
}

/// Appends a text with escaped control characters, so that it cannot forge a line or control a terminal (ASVS 5.0,
/// 16.4.1). Lines after the first are indented.
fn push_plain(line: &mut Vec<u8>, text: &str, max: usize) {
    let (text, ellipsis) = truncated(text, max);
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        line.extend_from_slice(text.as_bytes());
    } else {
        for character in text.chars() {
            let _ = match character {
                '\n' => write!(line, "\n    "),
                '\u{2028}' | '\u{2029}' => write!(line, "{}", character.escape_unicode()),
                character if character.is_control() => write!(line, "{}", character.escape_default()),
                character => write!(line, "{character}"),
            };
        }
    }
    line.extend_from_slice(ellipsis.as_bytes());
}

fn push_member(line: &mut Vec<u8>, name: &str, value: &str, max: usize) {
    line.push(b',');
    push_json(line, name, "");
    line.push(b':');
    let (value, ellipsis) = truncated(value, max);
    push_json(line, value, ellipsis);
}

fn push_json(line: &mut Vec<u8>, text: &str, ellipsis: &str) {
    // Writing to a vector and serializing a string cannot fail.
    let _ = serde_json::to_writer(&mut *line, text);
    if !ellipsis.is_empty() && line.pop().is_some() {
        line.extend_from_slice(ellipsis.as_bytes());
        line.push(b'"');
    }
}

fn push_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a time such as `2026-11-23T21:33:56`. The text is formatted once per second.
fn push_second(line: &mut Vec<u8>, second: i64) {
    thread_local! {
        static LATEST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    LATEST.with_borrow_mut(|(formatted, text)| {
        if *formatted != second {
            let time = DateTime::from_timestamp(second, 0).unwrap_or_default();
            (*formatted, *text) = (second, time.format("%Y-%m-%dT%H:%M:%S").to_string());
        }
        line.extend_from_slice(text.as_bytes());
    });
}

struct TextFields<'l>(&'l mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for TextFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push(b' ');
        self.0.extend_from_slice(key.as_str().as_bytes());
        self.0.push(b'=');
        match (value.to_u64(), value.to_borrowed_str()) {
            (Some(number), _) => push_number(self.0, number),
            // Unlike a message, a value must stay on one line.
            (_, Some(text)) if text.contains('\n') => push_plain(self.0, &text.replace('\n', "\\n"), VALUE_MAX),
            (_, Some(text)) => push_plain(self.0, text, VALUE_MAX),
            _ => push_plain(self.0, &value.to_string().replace('\n', "\\n"), VALUE_MAX),
        }
        Ok(())
    }
}

struct JsonFields<'l>(&'l mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for JsonFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        match (value.to_u64(), value.to_borrowed_str()) {
            (Some(number), _) => {
                self.0.push(b',');
                push_json(self.0, key.as_str(), "");
                self.0.push(b':');
                push_number(self.0, number);
            }
            (_, Some(text)) => push_member(self.0, key.as_str(), text, VALUE_MAX),
            _ => push_member(self.0, key.as_str(), &value.to_string(), VALUE_MAX),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;

    /// 2026-11-23T21:33:56.000042Z
    const AT: i64 = 1_795_469_636_000_042;

    fn line(format: Format, message: &str, path: &str) -> String {
        let fields = [("path", path)];
        let mut record = Record::builder();
        record.level(Level::Info).target("latchkey::access").key_values(&fields);
        String::from_utf8(format.line(&record.args(format_args!("{message}")).build(), AT)).unwrap()
    }

    #[test]
    fn a_line_has_time_level_target_message_and_values() {
        let text = line(Format::Text { colours: false }, "request", "/me");
        assert_eq!(text, "[2026-11-23T21:33:56Z INFO  latchkey::access] request path=/me\n");
        let json = r#"{"time":"2026-11-23T21:33:56.000042Z","level":"INFO","target":"latchkey::access","message":"request","path":"/me"}"#;
        assert_eq!(line(Format::Json, "request", "/me"), format!("{json}\n"));
    }

    #[test]
    fn no_text_forges_a_line_or_controls_a_terminal_or_exceeds_its_maximum_length() {
        let odd = format!("\u{1b}[31m\n\r\u{2028}\u{85}\"\\{}", "\u{e9}".repeat(10_000));
        let text = line(Format::Text { colours: false }, &odd, &odd);
        assert_eq!(text.matches('\n').count(), 2, "a message may continue in an indented line: {text}");
        assert!(text.lines().nth(1).unwrap().starts_with("    "), "{text}");
        assert!(!text.trim_end().contains(|c: char| (c.is_control() && c != '\n') || c == '\u{2028}'), "{text}");
        let json = line(Format::Json, &odd, &odd);
        let read: Json = serde_json::from_str(&json).unwrap();
        for (member, max) in [("message", 4_096), ("path", 512)] {
            let text = read[member].as_str().unwrap();
            let kept = text.strip_suffix(ELLIPSIS).unwrap();
            assert!(odd.starts_with(kept) && (max - 1..=max).contains(&kept.len()), "{text}");
        }
        assert!([text, json].iter().all(|line| line.len() < 2 * (4_096 + 512)));
    }
}
