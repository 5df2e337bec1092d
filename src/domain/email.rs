//! E-mail addresses, and the canonical form by which two spellings are compared.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use validator::ValidateEmail;

use super::text;

/// Maximum length of an address in characters (RFC 5321, section 4.5.3.1.3, without the angle brackets).
pub const MAX_LENGTH: usize = 254;
/// Maximum length of the part before the `@` in bytes (RFC 5321, section 4.5.3.1.1).
const MAX_LOCAL_BYTES: usize = 64;

/// A valid e-mail address, as entered and in canonical form.
#[derive(Clone, Debug)]
pub struct EmailAddress {
    given: String,
    key: String,
}

impl EmailAddress {
    /// Parses an address as HTML defines it, with the lengths of RFC 5321 and international letters (RFC 6531).
    ///
    /// Leading and trailing ASCII white space is removed. Returns `None` for anything that is not an address, and for
    /// text that contains an invisible character.
    pub fn parse(given: &str) -> Option<Self> {
        let given = given.trim_ascii();
        if given.chars().any(text::is_invisible) {
            return None;
        }
        let (local, domain) = given.rsplit_once('@')?;
        let local = canonical_local(local);
        let domain =
            Uts46::new().to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Verify).ok()?;
        let key = format!("{local}@{domain}");
        let within_bounds =
            given.chars().count() <= MAX_LENGTH && key.chars().count() <= MAX_LENGTH && local.len() <= MAX_LOCAL_BYTES;
        // `validator` accepts ASCII only. RFC 6531 allows other letters, digits and their marks wherever a letter is
        // allowed.
        let in_ascii: String =
            key.chars().map(|character| if is_international(character) { 'x' } else { character }).collect();
        (within_bounds && in_ascii.validate_email()).then(|| Self { given: given.to_owned(), key })
    }

    /// The address as entered, for display and for sending mail.
    pub fn as_given(&self) -> &str {
        &self.given
    }

    /// The canonical form: the local part in NFC and lower case, the domain in lower-case ASCII (IDNA, UTS 46). Two
    /// spellings are the same address if and only if their keys are equal.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The address for a mail: with the local part in canonical form if only that is ASCII. A spelling that SMTP cannot
    /// transport must not keep mails from their receiver.
    #[must_use]
    pub fn for_smtp(self) -> Self {
        match (self.given.rsplit_once('@'), self.key.rsplit_once('@')) {
            (Some((given, domain)), Some((local, _))) if local.is_ascii() && !given.is_ascii() => {
                Self { given: format!("{local}@{domain}"), key: self.key }
            }
            _ => self,
        }
    }

    /// The domain in canonical form.
    pub fn domain(&self) -> &str {
        self.key.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

fn is_international(character: char) -> bool {
    !character.is_ascii() && (character.is_alphanumeric() || is_combining_mark(character))
}

/// Lower-cases character by character, so that a final sigma equals any other sigma. NFC is applied before and after,
/// because each step can undo the other.
fn canonical_local(local: &str) -> String {
    local.nfc().flat_map(char::to_lowercase).nfc().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(given: &str) -> Option<String> {
        EmailAddress::parse(given).map(|email| email.key)
    }

    #[test]
    fn equivalent_spellings_share_one_key() {
        for (one, other) in [
            ("ada@example.org", "ADA@EXAMPLE.ORG"),
            ("ada@example.org", " ada@example.org\t\r\n"),
            ("caf\u{e9}@example.org", "cafe\u{301}@example.org"),
            ("CAF\u{c9}@example.org", "cafe\u{301}@EXAMPLE.org"),
            ("kelvin@example.org", "\u{212a}elvin@example.org"),
            ("ada@b\u{fc}cher.example", "ada@xn--bcher-kva.example"),
            ("ada@B\u{dc}CHER.example", "ada@xn--bcher-kva.example"),
            ("ada@\u{ff45}xample.org", "ada@example.org"),
        ] {
            assert!(key(one).is_some(), "{one:?} is an address");
            assert_eq!(key(one), key(other), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn different_addresses_have_different_keys() {
        for (one, other) in [
            ("ada@example.org", "\u{430}da@example.org"), // Cyrillic а
            ("ada@example.org", "ada+tag@example.org"),
            ("ada@example.org", "ada@example.com"),
            ("ada@example.org", "a.da@example.org"),
        ] {
            assert_ne!(key(one), key(other), "{one:?} and {other:?}");
        }
    }

    #[test]
    fn invalid_addresses_are_refused() {
        let long_local = format!("{}@example.org", "a".repeat(65));
        let long = format!("a@{}.org", vec!["a".repeat(60); 5].join("."));
        for given in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "a@b@c",
            "ada @example.org",
            "ada@exa mple.org",
            "ada@-example.org",
            "ada@example..org",
            "ada\u{ff20}example.org",
            "ada\u{202e}@example.org",
            "a\u{200d}da@example.org",
            "ada@example.org\r\nBcc: eve@example.org",
            "ada\0@example.org",
            "\"ada\"@example.org",
            "Ada <ada@example.org>",
            "<ada@example.org>",
            "ada@example.org,eve@example.org",
            "ada@example.org;eve@example.org",
            "ada@example.org (Ada)",
            "a\u{3164}da@example.org",
            "ad\u{34f}a@example.org",
            "ada\u{fe0f}@example.org",
            "ada\u{e0100}@example.org",
            "ada@exam\u{ad}ple.org",
            "ada@exam\u{200b}ple.org",
            "\u{feff}ada@example.org",
            "\u{a0}ada@example.org",
            &long_local,
            &long,
        ] {
            assert_eq!(key(given), None, "{given:?}");
        }
        assert!(key(&format!("{}@example.org", "a".repeat(64))).is_some());
        assert_eq!(EmailAddress::parse(" Ada@example.org ").unwrap().as_given(), "Ada@example.org");
    }

    #[test]
    fn mails_go_to_the_canonical_local_part_if_only_that_is_ascii() {
        for (given, sent_to) in [
            ("\u{212a}ate@example.org", "kate@example.org"),
            ("Ada@b\u{fc}cher.example", "Ada@b\u{fc}cher.example"),
            ("Ada@example.org", "Ada@example.org"),
            ("Zo\u{eb}@example.org", "Zo\u{eb}@example.org"),
        ] {
            assert_eq!(EmailAddress::parse(given).unwrap().for_smtp().as_given(), sent_to);
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_the_canonical_form_is_stable(given in "\\PC{0,40}@?\\PC{0,40}") {
            if let Some(found) = key(&given) {
                prop_assert_eq!(key(&found), Some(found.clone()));
            }
        }
    }
}
