//! Secrets: tokens, API keys, claim codes, and those of browser sessions and links in mails. They are random, and the
//! database stores only their digests.
//!
//! A secret is `<prefix>_` + 43 base62 characters (32 random bytes) + 6 base62 characters (CRC-32 of everything
//! before). A double click selects the whole secret, and secret scanners find it by its prefix. The checksum rejects
//! mistyped secrets without a query. It is not a security measure.

use std::fmt;
use std::hash::{Hash, Hasher};

use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::error::AppError;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The number of base62 characters for 32 bytes: 62^43 > 2^256.
const BODY_LENGTH: usize = 43;
/// The number of base62 characters for 4 bytes: 62^6 > 2^32.
const CHECKSUM_LENGTH: usize = 6;

/// The kind of a secret, which its prefix shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// A sign-in token. A user has at most one.
    SignIn,
    /// The secret of an API key.
    ApiKey,
    /// A claim code, which can be exchanged once for the secret of an API key.
    Claim,
    /// The secret of a browser session, which only its cookie carries.
    Session,
    /// The secret of a link in a mail, which can be used once.
    Mail,
}

impl SecretKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::SignIn, Self::ApiKey, Self::Claim, Self::Session, Self::Mail];

    /// The part before the underscore. A changed prefix invalidates all existing secrets of the kind.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::SignIn => "lkt",
            Self::ApiKey => "lkk",
            Self::Claim => "lkc",
            Self::Session => "lks",
            Self::Mail => "lkm",
        }
    }

    /// A regular expression that finds such secrets in text, for secret scanners. It uses only syntax that common
    /// engines share.
    pub fn pattern(self) -> String {
        format!(r"\b{}_[0-9A-Za-z]{{{}}}\b", self.prefix(), BODY_LENGTH + CHECKSUM_LENGTH)
    }

    /// The kind of a presented secret. Returns `None` unless prefix, length, alphabet and checksum are valid.
    pub fn of(text: &str) -> Option<Self> {
        let (signed, given) = text.split_at_checked(text.len().checked_sub(CHECKSUM_LENGTH)?)?;
        let (prefix, body) = signed.split_once('_')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.prefix() == prefix)?;
        let well_formed = body.len() == BODY_LENGTH && body.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (well_formed && given.as_bytes() == checksum(signed)).then_some(kind)
    }
}

/// Encodes bytes as lower-case hexadecimal digits, two for each byte.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |number| char::from_digit(u32::from(number), 16).unwrap_or_default();
    let mut digits = String::with_capacity(2 * bytes.len());
    digits.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    digits
}

/// A secret in clear text. It prints as `***`. [`Secret::reveal`] returns the text and consumes the secret.
pub struct Secret {
    kind: SecretKind,
    text: String,
}

impl Secret {
    /// Generates a secret from 32 random bytes of the operating system.
    ///
    /// Errors: [`AppError::Internal`] if the operating system returns no random bytes.
    pub fn generate(kind: SecretKind) -> Result<Self, AppError> {
        let mut bytes = [0; 32];
        SysRng.try_fill_bytes(&mut bytes).map_err(|error| AppError::Internal(error.into()))?;
        let mut text = format!("{}_", kind.prefix());
        text.extend(base62::<32, BODY_LENGTH>(bytes).map(char::from));
        let checksum = checksum(&text);
        text.extend(checksum.map(char::from));
        Ok(Self { kind, text })
    }

    /// The kind of the secret.
    pub fn kind(&self) -> SecretKind {
        self.kind
    }

    /// The prefix and the last four characters, to distinguish secrets.
    pub fn hint(&self) -> String {
        let end = self.text.len().checked_sub(4).and_then(|start| self.text.get(start..)).unwrap_or_default();
        format!("{}_\u{2026}{end}", self.kind.prefix())
    }

    /// The digest that the database stores and by which it finds the secret.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.text)
    }

    /// The secret in clear text, for the one response that delivers it.
    pub fn reveal(self) -> String {
        self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The SHA-256 digest of a secret. 256 random bits need no salt (ASVS 5.0, 6.5.2). Digests are compared in constant
/// time.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of any secret text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// 64 lower-case hexadecimal digits, as the database stores the digest.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

/// For hash tables in memory. Equal digests have equal hashes.
impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Encodes a big-endian number in `WIDTH` base62 digits, most significant digit first.
fn base62<const N: usize, const WIDTH: usize>(mut number: [u8; N]) -> [u8; WIDTH] {
    let mut digits = [b'0'; WIDTH];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u16;
        for byte in &mut number {
            let value = (remainder << 8) | u16::from(*byte);
            // Always fits: the remainder is below 62, so the quotient is below 256.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *digit = ALPHABET.get(usize::from(remainder)).copied().unwrap_or(b'0');
    }
    digits
}

/// The CRC-32 of the prefix and the body, in base62.
fn checksum(signed: &str) -> [u8; CHECKSUM_LENGTH] {
    base62(crc32fast::hash(signed.as_bytes()).to_be_bytes())
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "ASCII")]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn sign_in_token() -> String {
        Secret::generate(SecretKind::SignIn).unwrap().reveal()
    }

    /// The bytes of a secret: the 43 base62 digits after its prefix.
    fn bytes_of(secret: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        for digit in secret[4..47].bytes() {
            let mut carry = u16::from(match digit {
                b'0'..=b'9' => digit - b'0',
                b'A'..=b'Z' => digit - b'A' + 10,
                _ => digit - b'a' + 36,
            });
            for byte in bytes.iter_mut().rev() {
                let [high, low] = (u16::from(*byte) * 62 + carry).to_be_bytes();
                *byte = low;
                carry = u16::from(high);
            }
        }
        bytes
    }

    #[test]
    fn a_token_has_the_documented_form_and_is_recognised() {
        let token = sign_in_token();
        assert_eq!(token.len(), 4 + 43 + 6);
        assert!(token.starts_with("lkt_"));
        assert!(token.bytes().skip(4).all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(SecretKind::of(&token), Some(SecretKind::SignIn));
        let secret = Secret::generate(SecretKind::SignIn).unwrap();
        assert_eq!(secret.digest(), Digest::of(&secret.reveal()));
    }

    #[test]
    fn kinds_are_distinguished_by_their_prefixes() {
        let prefixes = [
            (SecretKind::SignIn, "lkt_"),
            (SecretKind::ApiKey, "lkk_"),
            (SecretKind::Claim, "lkc_"),
            (SecretKind::Session, "lks_"),
            (SecretKind::Mail, "lkm_"),
        ];
        for (kind, prefix) in prefixes {
            let secret = Secret::generate(kind).unwrap();
            let hint = secret.hint();
            let text = secret.reveal();
            assert!(text.starts_with(prefix));
            assert_eq!(hint, format!("{prefix}\u{2026}{}", &text[text.len() - 4..]));
            assert_eq!(SecretKind::of(&text), Some(kind));
        }
    }

    #[test]
    fn base62_is_correct_for_the_smallest_and_largest_numbers() {
        assert_eq!(&base62([0xff; 4]), b"4gfFC3"); // 4294967295 in base 62
        assert_eq!(base62([0; 32]), [b'0'; 43]);
    }

    #[test]
    fn any_single_changed_character_is_detected() {
        let token = sign_in_token();
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(SecretKind::of(&changed), None, "position {position}");
        }
    }

    #[test]
    fn a_secret_of_another_length_or_alphabet_is_rejected_even_if_its_checksum_is_valid() {
        let text = |body: &str| {
            let signed = format!("lkt_{body}");
            let checksum = checksum(&signed);
            signed + std::str::from_utf8(&checksum).unwrap()
        };
        let body = "a".repeat(43);
        assert_eq!(SecretKind::of(&text(&body)), Some(SecretKind::SignIn));
        for other in [&body[1..], &format!("{body}a"), &body.replacen('a', "-", 1), ""] {
            assert_eq!(SecretKind::of(&text(other)), None, "{other}");
        }
    }

    #[test]
    fn ten_thousand_tokens_are_all_different() {
        let tokens: HashSet<String> = (0..10_000).map(|_| sign_in_token()).collect();
        assert_eq!(tokens.len(), 10_000);
    }

    #[test]
    fn each_bit_of_a_secret_is_random() {
        for kind in SecretKind::ALL {
            let secrets: Vec<_> = (0..100).map(|_| bytes_of(&Secret::generate(kind).unwrap().reveal())).collect();
            for bit in 0..256 {
                let ones = secrets.iter().filter(|bytes| bytes[bit / 8] & (1 << (bit % 8)) != 0).count();
                assert!((10..=90).contains(&ones), "bit {bit} is set in {ones} of 100");
            }
        }
    }

    #[test]
    fn secrets_and_digests_are_printed_as_asterisks() {
        let secret = Secret::generate(SecretKind::SignIn).unwrap();
        assert_eq!(format!("{secret:?} {:?}", secret.digest()), "*** ***");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(lk[tkcsm]_)?([0-9A-Za-z]{40,60}|\\PC{0,80})") {
            prop_assert_eq!(SecretKind::of(&text), None);
        }
    }
}
