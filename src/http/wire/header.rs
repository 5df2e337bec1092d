//! Parsers of header fields (RFC 9110): tokens, quoted strings, lists, media types, weights and entity tags.

use actix_web::http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

/// Whether a byte is allowed in a token (section 5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// `text` without leading and trailing optional white space (section 5.6.3).
pub(crate) fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The trimmed parts of a text between separators outside of quoted strings, without empty ones (section 5.6.1.2).
/// `None` if a quoted string does not end.
fn split_unquoted(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|character| {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => return character == separator && !is_quoted,
        }
        false
    });
    let parts: Vec<&str> = parts.map(trimmed).filter(|part| !part.is_empty()).collect();
    (!is_quoted).then_some(parts)
}

/// The value of a parameter: a token, or the content of a quoted string (section 5.6.4). `None` if it is malformed.
fn parameter_value(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else {
        return is_token(text).then(|| text.to_owned());
    };
    let (mut value, mut characters) = (String::new(), quoted.strip_suffix('"')?.chars());
    while let Some(character) = characters.next() {
        value.push(match character {
            '\\' => characters.next()?,
            '"' => return None,
            other => other,
        });
    }
    Some(value)
}

/// A media type or media range with its parameters (sections 8.3.1 and 12.5.1).
#[derive(Debug, PartialEq)]
pub(crate) struct MediaType<'h> {
    /// The type and subtype.
    pub(crate) essence: &'h str,
    parameters: Vec<(&'h str, String)>,
}

impl<'h> MediaType<'h> {
    /// Parses a media type; `None` if it is malformed.
    pub(crate) fn read(text: &'h str) -> Option<Self> {
        let parts = split_unquoted(text, ';')?;
        let (essence, parameters) = parts.split_first()?;
        let (kind, subtype) = essence.split_once('/')?;
        let parameters = parameters.iter().map(|pair| {
            let (name, text) = pair.split_once('=')?;
            Some((name, parameter_value(text)?)).filter(|_| is_token(name))
        });
        let parameters = parameters.collect::<Option<Vec<_>>>()?;
        (is_token(kind) && is_token(subtype)).then_some(Self { essence, parameters })
    }

    /// The values of a parameter. Its name is case-insensitive.
    pub(crate) fn parameters(&self, name: &str) -> impl Iterator<Item = &str> {
        let matching = self.parameters.iter().filter(move |(given, _)| given.eq_ignore_ascii_case(name));
        matching.map(|(_, value)| value.as_str())
    }

    /// How specifically a range matches `offered`; `None` if it does not match. A parameter that `offered` does not
    /// have, such as `escaping` of Prometheus, is ignored.
    fn specificity(&self, offered: &MediaType<'_>) -> Option<usize> {
        let (kind, _) = offered.essence.split_once('/')?;
        let of_essence = match self.essence.split_once('/')? {
            ("*", "*") => 0,
            (given, "*") if given.eq_ignore_ascii_case(kind) => 1,
            _ if self.essence.eq_ignore_ascii_case(offered.essence) => 2,
            _ => return None,
        };
        let mut specificity = of_essence;
        for (name, value) in &self.parameters {
            if let Some(offered) = offered.parameters(name).next() {
                specificity += 1;
                if !offered.eq_ignore_ascii_case(value) {
                    return None;
                }
            }
        }
        Some(specificity)
    }

    /// The weight in thousandths (section 12.4.2); `None` if it is malformed.
    fn weight(&self) -> Option<u32> {
        let Some(text) = self.parameters("q").next() else {
            return Some(1000);
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_number = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
        let thousandths = format!("{fraction:0<3}").parse::<u32>().ok().filter(|_| is_number)?;
        match whole {
            "0" => Some(thousandths),
            "1" if thousandths == 0 => Some(1000),
            _ => None,
        }
    }
}

/// The media type in `offers` that `Accept` prefers: the one with the highest weight, then the one that is matched most
/// specifically, then the first. Malformed ranges are ignored. `None` if none is acceptable, or without `Accept`.
pub(crate) fn preferred(headers: &HeaderMap, offers: &[&'static str]) -> Option<&'static str> {
    // Repeated header lines are one list (section 5.3).
    let lines = headers.get_all(ACCEPT).filter_map(|line| line.to_str().ok());
    let ranges = lines.filter_map(|line| split_unquoted(line, ',')).flatten().filter_map(MediaType::read);
    let ranges: Vec<(MediaType<'_>, u32)> = ranges.filter_map(|range| range.weight().map(|q| (range, q))).collect();
    let mut best: Option<((u32, usize), &'static str)> = None;
    for offer in offers {
        let media_type = MediaType::read(offer)?;
        let matching =
            ranges.iter().filter_map(|(range, q)| range.specificity(&media_type).map(|specificity| (specificity, *q)));
        // The most specific range that matches decides; if it is repeated, the highest weight.
        let Some((specificity, weight)) = matching.max() else { continue };
        let rank = (weight, specificity);
        if weight > 0 && best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, offer));
        }
    }
    best.map(|(_, offer)| offer)
}

/// The tags of `If-Match` or `If-None-Match` (sections 13.1.1 and 13.1.2).
#[derive(Debug, PartialEq)]
pub(crate) enum EntityTags {
    /// `*`
    Any,
    /// One or more tags.
    List(Vec<EntityTag>),
}

/// An entity tag (section 8.8.3).
#[derive(Debug, PartialEq)]
pub(crate) struct EntityTag {
    /// Whether the tag is weak (`W/`).
    pub(crate) is_weak: bool,
    /// The content between the quotation marks.
    pub(crate) opaque: Vec<u8>,
}

impl EntityTags {
    /// Parses the tags in the header `name`; `Ok(None)` if the header is absent. Errors: the tags are malformed.
    pub(crate) fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, ()> {
        let mut lines = headers.get_all(name).map(HeaderValue::as_bytes).peekable();
        if lines.peek().is_none() {
            return Ok(None);
        }
        Self::read(&lines.collect::<Vec<_>>().join(&b','.to_owned())).map(Some).ok_or(())
    }

    fn read(list: &[u8]) -> Option<Self> {
        if list.trim_ascii() == b"*" {
            return Some(Self::Any);
        }
        let (mut tags, mut remaining) = (Vec::new(), list);
        loop {
            // Empty elements are ignored.
            while let [b' ' | b'\t' | b',', after @ ..] = remaining {
                remaining = after;
            }
            if remaining.is_empty() {
                return (!tags.is_empty()).then_some(Self::List(tags));
            }
            let is_weak = remaining.starts_with(b"W/");
            let quoted = if is_weak { remaining.get(2..)? } else { remaining };
            let opened = quoted.strip_prefix(b"\"")?;
            let end = opened.iter().position(|byte| *byte == b'"')?;
            let (opaque, after) = (opened.get(..end)?, opened.get(end + 1..)?);
            if !opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)) {
                return None;
            }
            tags.push(EntityTag { is_weak, opaque: opaque.to_vec() });
            remaining = after.trim_ascii_start();
            if !matches!(remaining, [] | [b',', ..]) {
                return None;
            }
        }
    }
}

/// Splits `Authorization` into the scheme, which is case-insensitive (section 11.1), and the credentials.
pub(crate) fn split_scheme(authorization: &str) -> (&str, &str) {
    let (scheme, credentials) = authorization.split_once(' ').unwrap_or((authorization, ""));
    (scheme, trimmed(credentials))
}

/// Whether the request uses the scheme `Basic`.
pub(crate) fn is_basic(headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| split_scheme(value).0.eq_ignore_ascii_case("basic"))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::IF_MATCH;
    use proptest::prelude::*;

    use super::*;
    use crate::http::wire::arbitrary::header_value;

    const JSON: &str = "application/json";
    const LINES: &str = "application/x-ndjson";
    const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

    fn headers<'a>(name: &HeaderName, lines: impl IntoIterator<Item = &'a str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn accept_supports_weights_and_wildcards() {
        for (accept, expected) in [
            ("", None),
            ("*/*", Some(JSON)),
            ("application/*", Some(JSON)),
            ("APPLICATION/X-NDJSON", Some(LINES)),
            ("application/x-ndjson, */*", Some(LINES)),
            ("application/x-ndjson;q=0.5, */*", Some(JSON)),
            ("application/x-ndjson;q=0.5, application/json;q=0.4", Some(LINES)),
            ("application/x-ndjson;q=0.5, application/json;q=0.50", Some(JSON)),
            ("application/x-ndjson;q=0.001, application/json;q=0", Some(LINES)),
            ("application/x-ndjson;q=0, */*;q=0.1", Some(JSON)),
            ("application/json;q=0, */*;q=0.1", Some(LINES)),
            ("application/x-ndjson;q=0", None),
            ("application/x-ndjson ; q=0.000", None),
            ("*/*;q=0, application/x-ndjson", Some(LINES)),
            ("application/*;q=0.1, application/x-ndjson;Q=0.2", Some(LINES)),
            ("text/csv, application/xml", None),
            ("text/csv;x=\"a, application/x-ndjson\", application/json", Some(JSON)),
            ("application/x-ndjson;q=1.5, application/json;q=0.1", Some(JSON)),
            ("application/x-ndjson;q=0.1234, application/json;q=0.1", Some(JSON)),
            ("application/x-ndjson;q=-1", None),
            ("application/x-ndjson;q=nan", None),
            ("application/x-ndjson;q=\"0.5\"", Some(LINES)),
            (", ,application/x-ndjson,", Some(LINES)),
            ("application/x-ndjson;", Some(LINES)),
            ("application", None),
            ("application/x-ndjson;profile=x", Some(LINES)),
        ] {
            assert_eq!(preferred(&headers(&ACCEPT, [accept]), &[JSON, LINES]), expected, "{accept}");
        }
        assert_eq!(preferred(&HeaderMap::new(), &[JSON, LINES]), None);
        let two = headers(&ACCEPT, ["application/json;q=0.1", "application/x-ndjson;q=0.2"]);
        assert_eq!(preferred(&two, &[JSON, LINES]), Some(LINES), "two lines are one list");
    }

    #[test]
    fn a_parameter_of_an_offered_type_must_match() {
        for (accept, expected) in [
            ("text/plain", Some(PROMETHEUS)),
            ("text/plain;version=0.0.4", Some(PROMETHEUS)),
            ("text/plain; Version=\"0.0.4\"; charset=UTF-8", Some(PROMETHEUS)),
            ("text/plain;version=1.0.0", None),
            ("text/plain;version=0.0.4;escaping=allow-utf-8;q=0.2", Some(PROMETHEUS)),
        ] {
            assert_eq!(preferred(&headers(&ACCEPT, [accept]), &[PROMETHEUS]), expected, "{accept}");
        }
    }

    #[test]
    fn a_media_type_is_parsed_by_its_grammar() {
        for (text, charsets) in [
            ("application/json", Some(vec![])),
            ("application/json;charset=utf-8", Some(vec!["utf-8"])),
            ("application/json ;\tCHARSET=\"utf-8\" ; ", Some(vec!["utf-8"])),
            ("application/json;charset=\"utf\\-8\"", Some(vec!["utf-8"])),
            ("application/json;charset=a;charset=b", Some(vec!["a", "b"])),
            ("application/json;x=\"a;charset=b\"", Some(vec![])),
            ("application/json;charset", None),
            ("application/json;charset=", None),
            ("application/json;charset = utf-8", None),
            ("application/json;charset=\"utf-8", None),
            ("application/json;charset=utf-8\"", None),
            ("application/json;charset=\"a\"b\"", None),
            ("application/json, text/plain", None),
            ("application /json", None),
            ("/json", None),
            ("application/", None),
            ("", None),
        ] {
            let read = MediaType::read(text);
            let found = read.as_ref().map(|read| read.parameters("charset").collect::<Vec<_>>());
            assert_eq!(found, charsets, "{text:?}");
        }
    }

    #[test]
    fn entity_tags_are_parsed_by_their_grammar() {
        let tag = |is_weak, opaque: &str| EntityTag { is_weak, opaque: opaque.as_bytes().to_vec() };
        for (text, tags) in [
            ("\"1\"", vec![tag(false, "1")]),
            ("\"1\",\"2\"", vec![tag(false, "1"), tag(false, "2")]),
            (" \t\"1\" \t, ,, W/\"2\" ,", vec![tag(false, "1"), tag(true, "2")]),
            ("\"a,b\", \"\\\", \"\"", vec![tag(false, "a,b"), tag(false, "\\"), tag(false, "")]),
            ("\"\u{e9}\"", vec![tag(false, "\u{e9}")]),
        ] {
            assert_eq!(EntityTags::read(text.as_bytes()), Some(EntityTags::List(tags)), "{text}");
        }
        assert_eq!(EntityTags::read(b" * "), Some(EntityTags::Any));
        for text in
            ["", ",", "1", "w/\"1\"", "W/ \"1\"", "W\"1\"", "\"1", "\"1\" \"2\"", "\"1\"2", "*, \"1\"", "\"a b\"", "**"]
        {
            assert_eq!(EntityTags::read(text.as_bytes()), None, "{text:?}");
        }
        let lines = headers(&IF_MATCH, ["\"1\"", "W/\"2\""]);
        assert_eq!(
            EntityTags::of(&lines, &IF_MATCH),
            Ok(Some(EntityTags::List(vec![tag(false, "1"), tag(true, "2")])))
        );
        assert_eq!(EntityTags::of(&headers(&IF_MATCH, ["*", "\"1\""]), &IF_MATCH), Err(()));
    }

    proptest! {
        #[test]
        fn values_written_by_the_grammar_parse_to_the_original(
            tags in prop::collection::vec((any::<bool>(), "[!#-~\u{e9}]{0,6}"), 1..5),
            name in "[a-z0-9+.-]{1,8}", values in prop::collection::vec("[ -~]{0,8}", 0..4),
            between in "[ \t]{0,2}",
        ) {
            let written: Vec<String> = tags.iter().map(|(is_weak, opaque)| {
                format!("{}\"{opaque}\"", if *is_weak { "W/" } else { "" })
            }).collect();
            let read = EntityTags::read(written.join(&format!("{between},{between}")).as_bytes());
            let expected = tags.into_iter().map(|(is_weak, opaque)| EntityTag { is_weak, opaque: opaque.into_bytes() });
            prop_assert_eq!(read, Some(EntityTags::List(expected.collect())));

            let quoted = |text: &str| text.replace('\\', r"\\").replace('"', r#"\""#);
            let parameters: String = values.iter().map(|value| format!("{between};{between}x=\"{}\"", quoted(value))).collect();
            let text = format!("text/{name}{parameters}");
            let read = MediaType::read(&text).unwrap();
            prop_assert_eq!(read.essence, format!("text/{name}"));
            prop_assert_eq!(read.parameters("X").collect::<Vec<_>>(), values);
        }

        #[test]
        fn arbitrary_header_values_are_parsed_without_a_panic(line in header_value(b"\"\\,;=/* \tqW0.1")) {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, line.clone());
            if let Some(offer) = preferred(&headers, &[JSON, LINES]) {
                prop_assert!(line.to_str().unwrap().contains(['*', 'j', 'J']), "{:?} prefers {}", line, offer);
            }
            let _ = EntityTags::read(line.as_bytes());
        }

        #[test]
        fn the_order_of_a_list_does_not_matter(ranges in prop::collection::vec(
            "(application/(json|x-ndjson|\\*)|\\*/\\*|text/csv)(;q=(0|1|0\\.[0-9]{1,3}))?", 1..5,
        ).prop_shuffle()) {
            let backwards: Vec<String> = ranges.iter().rev().cloned().collect();
            let of = |ranges: &[String]| preferred(&headers(&ACCEPT, [ranges.join(", ").as_str()]), &[JSON, LINES]);
            prop_assert_eq!(of(&ranges), of(&backwards));
        }
    }
}
