//! E-mail addresses and the canonical form that decides whether two spellings are one address.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use validator::ValidateEmail;

use super::text;

/// The longest address in characters (RFC 5321, section 4.5.3.1.3, less the angle brackets).
pub const MAX_LENGTH: usize = 254;
/// The longest part before the `@` in bytes (RFC 5321, section 4.5.3.1.1).
const MAX_LOCAL_BYTES: usize = 64;

/// A valid e-mail address: as its owner wrote it, and in canonical form.
#[derive(Clone, Debug)]
pub struct EmailAddress {
    given: String,
    key: String,
}

impl EmailAddress {
    /// Checks `given`; `None` if it is no address (HTML's definition, plus the lengths of RFC 5321). Blanks around it,
    /// which nobody sees, do not count; what cannot be seen within it is never part of one.
    pub fn parse(given: &str) -> Option<Self> {
        let given = given.trim_ascii();
        if given.chars().any(text::is_unseen) {
            return None;
        }
        let (local, domain) = given.rsplit_once('@')?;
        let local = canonical_local(local);
        let domain =
            Uts46::new().to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Verify).ok()?;
        let key = format!("{local}@{domain}");
        let within_bounds =
            given.chars().count() <= MAX_LENGTH && key.chars().count() <= MAX_LENGTH && local.len() <= MAX_LOCAL_BYTES;
        // `validator` knows ASCII; beyond it, letters, digits and their marks may stand where a letter may (RFC 6531).
        let in_ascii: String =
            key.chars().map(|character| if is_international(character) { 'x' } else { character }).collect();
        (within_bounds && in_ascii.validate_email()).then(|| Self { given: given.to_owned(), key })
    }

    /// The address as its owner wrote it, for display and for mail.
    pub fn as_given(&self) -> &str {
        &self.given
    }

    /// The canonical form: the local part in NFC and lower case, the domain in lower-case ASCII (IDNA, UTS 46).
    /// Addresses are equal exactly when their keys are.
    pub fn key(&self) -> &str {
        &self.key
    }
}

fn is_international(character: char) -> bool {
    !character.is_ascii() && (character.is_alphanumeric() || is_combining_mark(character))
}

/// Lower case character by character (so a final sigma is like any other), between two rounds of NFC because each
/// step can undo the other's form.
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
    fn what_is_no_address_is_refused() {
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

    proptest! {
        #[test]
        fn parsing_never_panics_and_a_key_is_its_own_key(given in "\\PC{0,40}@?\\PC{0,40}") {
            if let Some(found) = key(&given) {
                prop_assert_eq!(key(&found), Some(found.clone()));
            }
        }
    }
}
