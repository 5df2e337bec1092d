//! Conversion of written values to the types of settings, and error messages that state what to write instead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Deserializer};
use toml::Value;

use crate::domain::text;

/// The only setting that is a list of tables.
const RULES: &str = "authz.rules";
/// Parts of the names of settings whose unit is the second.
const IN_SECONDS: [&str; 6] = ["_ttl", "_timeout", "_delay", "_delay_max", "_seconds", "keep_alive"];

/// Converts `value` to the type of `default`. Values of environment variables are always text.
///
/// Errors: a message that states what to write instead.
pub(super) fn of_type_of(default: &Value, key: &str, value: Value) -> Result<Value, String> {
    let value = cleaned(value)?;
    match (default, value) {
        (_, Value::Table(_)) => Err("This is a setting, not a section. Write it as NAME = VALUE.".to_owned()),
        (Value::Integer(default), value) => integer(*default, key, &value),
        (Value::Boolean(_), value) => boolean(&value).ok_or_else(|| "Write true or false.".to_owned()),
        (Value::Array(_), Value::Array(members)) if key == RULES || members.iter().all(Value::is_str) => {
            Ok(Value::Array(members))
        }
        (Value::Array(_), Value::String(_)) if key == RULES => {
            Err("Rules can be set in a settings file only, as [[authz.rules]].".to_owned())
        }
        (Value::Array(_), Value::String(list)) => Ok(members(&list)),
        (Value::Array(_), _) => Err("Write a list of strings: [\"…\", \"…\"].".to_owned()),
        (Value::String(_), value @ Value::String(_)) => Ok(value),
        (Value::String(_), _) => Err("Write text in quotes: \"…\".".to_owned()),
        (_, value) => Ok(value),
    }
}

/// Splits a list that is separated by commas.
fn members(list: &str) -> Value {
    let members = list.split(',').map(str::trim_ascii).filter(|member| !member.is_empty());
    Value::Array(members.map(|member| Value::String(member.to_owned())).collect())
}

/// Trims all texts in a value.
///
/// Errors: a text contains an invisible character, or was not UTF-8.
fn cleaned(value: Value) -> Result<Value, String> {
    match value {
        Value::String(written) => {
            let written = written.trim_ascii();
            match written.chars().find(|character| text::is_invisible(*character) || *character == '\u{fffd}') {
                None => Ok(Value::String(written.to_owned())),
                Some('\u{fffd}') => Err("The value is not text in UTF-8.".to_owned()),
                Some(invisible) => Err(format!(
                    "The value contains the invisible character U+{:04X}. Remove it.",
                    u32::from(invisible)
                )),
            }
        }
        Value::Array(members) => members.into_iter().map(cleaned).collect::<Result<_, _>>().map(Value::Array),
        Value::Table(table) => {
            let cleaned = table.into_iter().map(|(name, value)| Ok((name, cleaned(value)?)));
            cleaned.collect::<Result<_, _>>().map(Value::Table)
        }
        value => Ok(value),
    }
}

fn integer(default: i64, key: &str, value: &Value) -> Result<Value, String> {
    let read = match value {
        Value::Integer(number) => Some(*number),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let (kind, without_unit) = match IN_SECONDS.iter().any(|part| key.ends_with(part)) {
        true => ("a whole number of seconds", " without a unit"),
        false => ("a whole number", ""),
    };
    let or_unset = if value.as_str() == Some("") { ", or remove the setting to use the default" } else { "" };
    let is_empty = if value.as_str() == Some("") { "The value is empty. " } else { "" };
    read.map(Value::Integer)
        .ok_or_else(|| format!("{is_empty}Write {kind}{without_unit}, such as the default {default}{or_unset}."))
}

fn boolean(value: &Value) -> Option<Value> {
    let read = match value {
        Value::Boolean(value) => Some(*value),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    };
    read.map(Value::Boolean)
}

/// Explains the error `message` of the TOML parser about `line`, with the likely cause.
pub(super) fn explain_syntax(message: &str, line: &str) -> String {
    let is_value = |value: &str| format!("value = {value}").parse::<toml::Table>().is_ok();
    let unquoted = line.split_once('=').map(|(name, value)| (name.trim(), value.trim())).filter(|(name, value)| {
        let is_name = !name.is_empty() && !name.starts_with(['#', '[', '"']);
        is_name && !value.is_empty() && !value.starts_with(['"', '\'', '[', '{']) && !is_value(value)
    });
    let is_missing = line.split_once('=').is_some_and(|(_, value)| value.trim().is_empty());
    match unquoted {
        None if is_missing => "The value is missing. Write it after the =, or remove the line.".to_owned(),
        Some((name, _)) => format!(
            "This is not TOML. Write text in quotes ({name} = \"…\"), a number without a unit, and true or false in \
             lower case."
        ),
        None => format!("This is not TOML: {}.", message.lines().next().unwrap_or_default().trim_end_matches('.')),
    }
}

/// The error `message` of a type about an invalid value, without the value, which may be a secret in the wrong setting.
pub(super) fn explain(message: &str) -> String {
    let is_of_serde = message.starts_with("invalid ");
    match message.rsplit_once(", expected ").filter(|_| is_of_serde) {
        Some((_, "u32" | "u64" | "usize")) => {
            "This number is negative or too large. config/default.toml states its range.".to_owned()
        }
        Some((_, expected)) => format!("This must be {}.", expected.lines().next().unwrap_or_default()),
        None => message.trim_end().to_owned(),
    }
}

/// Deserializes the address and port of a listener.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    read_address(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Parses an IP address with a port.
///
/// Errors: a message that states what to write instead.
pub(super) fn read_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_no_address| {
        let bare = text.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
        let (host, port) = bare.rsplit_once(':').unwrap_or((bare, ""));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if text.is_empty() {
            "The address is empty. Write an IP address and a port, such as 127.0.0.1:8080.".to_owned()
        } else if bare != text && bare.parse::<SocketAddr>().is_ok() {
            format!("Write the address without a scheme: {bare}.")
        } else if let Ok(ip) = bare.parse::<Ipv4Addr>() {
            format!("The port is missing. Write {ip}:8080.")
        } else if bare.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
            "Write an IPv6 address in brackets, and its port, such as [::1]:8080.".to_owned()
        } else if is_number(bare) || (host.is_empty() && is_number(port)) {
            let port = if is_number(bare) { bare } else { port };
            format!("The IP address is missing. Write 127.0.0.1:{port} for this machine, or 0.0.0.0:{port} for all.")
        } else if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            "The port must be a number from 0 to 65535.".to_owned()
        } else {
            let port = if is_number(port) { port } else { "8080" };
            format!(
                "Write an IP address and a port, not a host name: 127.0.0.1:{port} for this machine, or \
                 0.0.0.0:{port} for all."
            )
        }
    })
}
