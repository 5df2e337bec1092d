//! How a line looks. Formatting runs on the thread that logs, so it makes one allocation and formats the time once a
//! second.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;

use chrono::DateTime;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};

use crate::config::LogFormat;

/// What most lines need, in bytes.
const LINE: usize = 320;
/// The longest message, in bytes.
const MESSAGE: usize = 4 * 1024;
/// The longest value beside the message, in bytes.
const VALUE: usize = 512;
/// What stands for the rest of a text that is cut.
const MORE: &str = "\u{2026}";

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

    /// The line of a record, with the time in microseconds since 1970.
    pub(super) fn line(self, record: &Record<'_>, micros: i64) -> Vec<u8> {
        let mut line = Vec::with_capacity(LINE);
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
    // Without `write!`, which takes several times as long: every request has a line.
    for part in ["Z ", begin, padded(record.level()), end, " ", record.target(), "] "] {
        line.extend_from_slice(part.as_bytes());
    }
    push_plain(line, &message(record), MESSAGE);
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
    // A vector takes everything.
    let _ = write!(line, ".{:06}Z\",\"level\":\"{}\"", micros.rem_euclid(1_000_000), record.level());
    push_member(line, "target", record.target(), VALUE);
    push_member(line, "message", &message(record), MESSAGE);
    let _ = record.key_values().visit(&mut JsonFields(line));
    line.push(b'}');
}

/// Most messages are fixed, and need no memory.
fn message<'r>(record: &'r Record<'_>) -> Cow<'r, str> {
    record.args().as_str().map_or_else(|| record.args().to_string().into(), Cow::Borrowed)
}

/// The beginning of a text, and what stands for the rest.
fn shortened(text: &str, most: usize) -> (&str, &'static str) {
    let kept = text.get(..text.floor_char_boundary(most)).unwrap_or(text);
    (kept, if kept.len() < text.len() { MORE } else { "" })
}

/// A text in which nothing begins a line or steers a terminal, but that a message may go on in indented lines.
fn push_plain(line: &mut Vec<u8>, text: &str, most: usize) {
    let (text, more) = shortened(text, most);
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
    line.extend_from_slice(more.as_bytes());
}

fn push_member(line: &mut Vec<u8>, name: &str, value: &str, most: usize) {
    line.push(b',');
    push_json(line, name, "");
    line.push(b':');
    let (value, more) = shortened(value, most);
    push_json(line, value, more);
}

fn push_json(line: &mut Vec<u8>, text: &str, more: &str) {
    // A vector takes everything, and a text is always JSON.
    let _ = serde_json::to_writer(&mut *line, text);
    if !more.is_empty() && line.pop().is_some() {
        line.extend_from_slice(more.as_bytes());
        line.push(b'"');
    }
}

fn push_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes `2026-11-23T21:33:56`, which is made once a second.
fn push_second(line: &mut Vec<u8>, second: i64) {
    thread_local! {
        static LATEST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    LATEST.with_borrow_mut(|(made, text)| {
        if *made != second {
            let time = DateTime::from_timestamp(second, 0).unwrap_or_default();
            (*made, *text) = (second, time.format("%Y-%m-%dT%H:%M:%S").to_string());
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
            // A value is one line, unlike a message.
            (_, Some(text)) if text.contains('\n') => push_plain(self.0, &text.replace('\n', "\\n"), VALUE),
            (_, Some(text)) => push_plain(self.0, text, VALUE),
            _ => push_plain(self.0, &value.to_string().replace('\n', "\\n"), VALUE),
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
            (_, Some(text)) => push_member(self.0, key.as_str(), text, VALUE),
            _ => push_member(self.0, key.as_str(), &value.to_string(), VALUE),
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
    fn no_value_makes_a_line_or_steers_a_terminal_and_no_text_is_longer_than_its_bound() {
        let odd = format!("\u{1b}[31m\n\r\u{2028}\u{85}\"\\{}", "\u{e9}".repeat(10_000));
        let text = line(Format::Text { colours: false }, &odd, &odd);
        assert_eq!(text.matches('\n').count(), 2, "a message may go on in an indented line: {text}");
        assert!(text.lines().nth(1).unwrap().starts_with("    "), "{text}");
        assert!(!text.trim_end().contains(|c: char| (c.is_control() && c != '\n') || c == '\u{2028}'), "{text}");
        let json = line(Format::Json, &odd, &odd);
        let read: Json = serde_json::from_str(&json).unwrap();
        for (member, most) in [("message", 4_096), ("path", 512)] {
            let told = read[member].as_str().unwrap();
            let kept = told.strip_suffix(MORE).unwrap();
            assert!(odd.starts_with(kept) && (most - 1..=most).contains(&kept.len()), "{told}");
        }
        assert!([text, json].iter().all(|line| line.len() < 2 * (4_096 + 512)));
    }
}
