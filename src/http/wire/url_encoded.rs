//! Strict decoder of `application/x-www-form-urlencoded`, for forms and queries. actix-web and `form_urlencoded`
//! replace invalid UTF-8 by U+FFFD, so that two different passwords could become equal.

use crate::http::wire::error::HttpError;

/// Decodes names and values, in their order. Errors: an incomplete percent-escape, or text that is not UTF-8.
pub(crate) fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, HttpError> {
    let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let decoded = pairs.map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let name = percent_decoded(parts.next().unwrap_or_default())?;
        Ok((name, percent_decoded(parts.next().unwrap_or_default())?))
    });
    decoded.collect()
}

fn percent_decoded(text: &[u8]) -> Result<String, HttpError> {
    let malformed = || HttpError::Malformed {
        code: "malformed_encoding",
        detail: "Encode names and values as UTF-8, percent-encoded.".into(),
    };
    let are_escapes_complete = text
        .split(|byte| *byte == b'%')
        .skip(1)
        .all(|escape| matches!(escape, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()));
    if !are_escapes_complete {
        return Err(malformed());
    }
    let with_spaces: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let decoded = percent_encoding::percent_decode(&with_spaces).decode_utf8().map_err(|_not_utf8| malformed())?;
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
    fn invalid_encodings_are_rejected() {
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
        fn text_encoded_by_another_library_decodes_to_the_original(pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..6)) {
            let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
            prop_assert_eq!(read(text.as_bytes()), Some(pairs.clone()));
            // Also with every byte escaped.
            let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let escaped: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
            prop_assert_eq!(read(escaped.join("&").as_bytes()), Some(pairs));
        }

        #[test]
        fn arbitrary_bytes_decode_as_in_another_library_or_are_rejected_for_a_reason(
            text in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"%%=&+ 0cC3a"[..])], 0..40),
        ) {
            let expected: Vec<(String, String)> = form_urlencoded::parse(&text).into_owned().collect();
            match read(&text) {
                Some(read) => prop_assert_eq!(read, expected),
                None => {
                    let replaced = expected.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}'));
                    let escapes = text.iter().enumerate().filter(|(_, byte)| **byte == b'%');
                    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
                    let broken = escapes.clone().any(|(at, _)| !digit(at + 1) || !digit(at + 2));
                    prop_assert!(replaced || broken);
                }
            }
        }
    }
}
