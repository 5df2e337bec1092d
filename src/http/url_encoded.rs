//! `name=value&…`, of which forms and queries are made, decoded strictly: actix and `form_urlencoded` turn broken UTF-8
//! into U+FFFD, so that two different passwords could become one.

use super::problem::Fault;

/// Names and values in their order.
pub(super) fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, Fault> {
    let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let decoded = pairs.map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let name = percent_decoded(parts.next().unwrap_or_default())?;
        Ok((name, percent_decoded(parts.next().unwrap_or_default())?))
    });
    decoded.collect()
}

fn percent_decoded(text: &[u8]) -> Result<String, Fault> {
    let malformed = || Fault::Malformed {
        code: "malformed_encoding",
        detail: "Encode names and values as UTF-8, percent-encoded.".into(),
    };
    let escapes_are_whole = text
        .split(|byte| *byte == b'%')
        .skip(1)
        .all(|escape| matches!(escape, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()));
    if !escapes_are_whole {
        return Err(malformed());
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let decoded = percent_encoding::percent_decode(&spaced).decode_utf8().map_err(|_not_utf8| malformed())?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::form_urlencoded;

    use super::*;

    fn read(text: &[u8]) -> Option<Vec<(String, String)>> {
        pairs(text).ok()
    }

    #[test]
    fn what_is_no_encoding_of_text_is_refused() {
        for text in [&b"a=%"[..], b"a=%4", b"a=%4g", b"%g4=a", b"a=%+1", b"a=%ff", b"a=\xff", b"a=%c3", b"a=%ed%a0%80"]
        {
            assert_eq!(read(text), None, "{}", text.escape_ascii());
        }
        for (text, name, value) in
            [("a", "a", ""), ("=a", "", "a"), ("&a=b=c&", "a", "b=c"), ("a+b=%2B%2525", "a b", "+%25")]
        {
            assert_eq!(read(text.as_bytes()), Some(vec![(name.to_owned(), value.to_owned())]), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_others_encode_is_read_as_it_was(written in prop::collection::vec((any::<String>(), any::<String>()), 0..6)) {
            let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(&written).finish();
            prop_assert_eq!(read(text.as_bytes()), Some(written.clone()));
            // Every byte escaped, too.
            let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let escaped: Vec<String> = written.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
            prop_assert_eq!(read(escaped.join("&").as_bytes()), Some(written));
        }

        #[test]
        fn any_bytes_are_read_as_others_read_them_or_refused_for_a_reason(
            text in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"%%=&+ 0cC3a"[..])], 0..40),
        ) {
            let theirs: Vec<(String, String)> = form_urlencoded::parse(&text).into_owned().collect();
            match read(&text) {
                Some(read) => prop_assert_eq!(read, theirs),
                None => {
                    let replaced = theirs.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}'));
                    let escapes = text.iter().enumerate().filter(|(_, byte)| **byte == b'%');
                    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
                    let broken = escapes.clone().any(|(at, _)| !digit(at + 1) || !digit(at + 2));
                    prop_assert!(replaced || broken);
                }
            }
        }
    }
}
