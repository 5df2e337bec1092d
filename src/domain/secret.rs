//! Tokens: random secrets that their holder shows, and that we keep as digests only.
//!
//! A token is `<prefix>_` + 43 base62 characters (32 random bytes) + 6 base62 characters (CRC-32 of all before them).
//! A double click selects it whole, a secret scanner finds it by its prefix, and a mistyped one is refused by its
//! checksum before the database is asked. The checksum is a courtesy, not a defence.

use std::fmt;
use std::hash::{Hash, Hasher};

use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 > 2^256: the least number of characters that holds 32 bytes.
const BODY_LENGTH: usize = 43;
/// 62^6 > 2^32.
const CHECKSUM_LENGTH: usize = 6;

/// What a token is for; it shows in the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// One per user, made by signing in.
    SignIn,
    /// For services and devices, as many as needed.
    ApiKey,
    /// Exchanged once for the secret of an API key.
    Claim,
}

impl SecretKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::SignIn, Self::ApiKey, Self::Claim];

    /// The part before the underscore. To change one is to revoke every token that carries it.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::SignIn => "lkt",
            Self::ApiKey => "lkk",
            Self::Claim => "lkc",
        }
    }

    /// A regular expression that finds such tokens in any text, for secret scanners. It takes nothing that the engines of
    /// the field do not have alike.
    pub fn pattern(self) -> String {
        format!(r"\b{}_[0-9A-Za-z]{{{}}}\b", self.prefix(), BODY_LENGTH + CHECKSUM_LENGTH)
    }

    /// What a token that somebody presents is for; `None` unless prefix, length, alphabet and checksum are right.
    pub fn of(text: &str) -> Option<Self> {
        let (signed, given) = text.split_at_checked(text.len().checked_sub(CHECKSUM_LENGTH)?)?;
        let (prefix, body) = signed.split_once('_')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.prefix() == prefix)?;
        let well_formed = body.len() == BODY_LENGTH && body.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (well_formed && given.as_bytes() == checksum(signed)).then_some(kind)
    }
}

/// Two lower-case hexadecimal digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |number| char::from_digit(u32::from(number), 16).unwrap_or_default();
    let mut digits = String::with_capacity(2 * bytes.len());
    digits.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    digits
}

/// A token in clear. It prints as `***` and can only be shown once ([`Secret::reveal`]) or turned into a [`Digest`].
pub struct Secret {
    kind: SecretKind,
    text: String,
}

impl Secret {
    /// A new token from the operating system's random source, which is the only thing that can fail.
    pub fn generate(kind: SecretKind) -> Result<Self, rand::rngs::SysError> {
        let mut bytes = [0; 32];
        SysRng.try_fill_bytes(&mut bytes)?;
        let mut text = format!("{}_", kind.prefix());
        text.extend(base62::<32, BODY_LENGTH>(bytes).map(char::from));
        let checksum = checksum(&text);
        text.extend(checksum.map(char::from));
        Ok(Self { kind, text })
    }

    /// What it is for.
    pub fn kind(&self) -> SecretKind {
        self.kind
    }

    /// The prefix and the last four characters, to tell secrets apart.
    pub fn hint(&self) -> String {
        let end = self.text.len().checked_sub(4).and_then(|start| self.text.get(start..)).unwrap_or_default();
        format!("{}_\u{2026}{end}", self.kind.prefix())
    }

    /// What is stored, and what is looked up.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.text)
    }

    /// The token in clear, for the one answer that delivers it.
    pub fn reveal(self) -> String {
        self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// SHA-256 of a secret. Unsalted is right for 256 random bits (ASVS 5.0, 6.5.2). Compared in constant time.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of any secret text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// 64 lower-case hexadecimal digits, as the database holds it.
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

/// For tables in memory; equal digests have equal hashes.
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

/// A big-endian number in `WIDTH` base62 digits, most significant first.
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

/// The CRC-32 of what stands before it.
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

    /// The bytes of a secret: 43 digits to the base 62 after its prefix.
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
    fn a_token_has_its_documented_form_and_reads_back() {
        let token = sign_in_token();
        assert_eq!(token.len(), 4 + 43 + 6);
        assert!(token.starts_with("lkt_"));
        assert!(token.bytes().skip(4).all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(SecretKind::of(&token), Some(SecretKind::SignIn));
        let secret = Secret::generate(SecretKind::SignIn).unwrap();
        assert_eq!(secret.digest(), Digest::of(&secret.reveal()));
    }

    #[test]
    fn kinds_are_told_apart_by_their_prefixes() {
        for (kind, prefix) in [(SecretKind::SignIn, "lkt_"), (SecretKind::ApiKey, "lkk_"), (SecretKind::Claim, "lkc_")]
        {
            let secret = Secret::generate(kind).unwrap();
            let hint = secret.hint();
            let text = secret.reveal();
            assert!(text.starts_with(prefix));
            assert_eq!(hint, format!("{prefix}\u{2026}{}", &text[text.len() - 4..]));
            assert_eq!(SecretKind::of(&text), Some(kind));
        }
    }

    #[test]
    fn base62_is_exact_at_its_ends() {
        assert_eq!(&base62([0xff; 4]), b"4gfFC3"); // 4294967295 in base 62
        assert_eq!(base62([0; 32]), [b'0'; 43]);
    }

    #[test]
    fn any_single_changed_character_is_noticed() {
        let token = sign_in_token();
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(SecretKind::of(&changed), None, "position {position}");
        }
    }

    #[test]
    fn what_has_another_length_or_alphabet_is_no_secret_although_its_checksum_is_right() {
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
    fn ten_thousand_tokens_are_ten_thousand_different_ones() {
        let tokens: HashSet<String> = (0..10_000).map(|_| sign_in_token()).collect();
        assert_eq!(tokens.len(), 10_000);
    }

    #[test]
    fn each_bit_of_a_secret_varies() {
        for kind in SecretKind::ALL {
            let secrets: Vec<_> = (0..100).map(|_| bytes_of(&Secret::generate(kind).unwrap().reveal())).collect();
            for bit in 0..256 {
                let ones = secrets.iter().filter(|bytes| bytes[bit / 8] & (1 << (bit % 8)) != 0).count();
                assert!((10..=90).contains(&ones), "bit {bit} is set in {ones} of 100");
            }
        }
    }

    #[test]
    fn a_secret_and_its_digest_never_print() {
        let secret = Secret::generate(SecretKind::SignIn).unwrap();
        assert_eq!(format!("{secret:?} {:?}", secret.digest()), "*** ***");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(lk[tkc]_)?([0-9A-Za-z]{40,60}|\\PC{0,80})") {
            prop_assert_eq!(SecretKind::of(&text), None);
        }
    }
}
