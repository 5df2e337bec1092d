//! Passwords, and hashes in the formats of passlib.
//!
//! New hashes are in passlib's `bcrypt_sha256` format, version 2: `$bcrypt-sha256$v=2,t=2b,r=<cost>$<22 characters of
//! salt>$<31 characters of checksum>`, where bcrypt's input is `base64(HMAC-SHA-256(key = the 22 characters of salt,
//! message = the password))`. Therefore every byte of a password of any length counts, while plain bcrypt ignores
//! everything after 72 bytes or a NUL. Plain `$2a$`, `$2b$` and `$2y$` hashes, for example imported ones, can be
//! verified too and are reported as outdated.
//!
//! [`NewHash`] and [`Comparison`] split hashing into preparation, computation and result, because [`checksum`] computes
//! several checksums at once.

pub use bcrypt_lanes as checksum;

use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::BASE_64;
use hmac::{Hmac, KeyInit, Mac};
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use self::checksum::{CHECKSUM_CHARACTERS, Checksum, Input, Salt, Stored};

/// Common passwords of eight or more characters, in lower case and sorted by bytes. `assets/README.md` names the
/// source.
const COMMON: &str = include_str!("../../assets/common-passwords.txt");
const SALT_CHARACTERS: usize = 22;

/// A password in clear text, exactly as received (ASVS 5.0, 6.2.8). It prints as `***`.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Wraps a password without changing it.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether the password contains a NUL character, which is rejected in forms.
    pub fn has_nul(&self) -> bool {
        self.0.contains('\0')
    }

    /// The length in Unicode code points.
    pub fn length(&self) -> usize {
        self.0.chars().count()
    }
}

impl Password {
    /// Whether the password is on the list of common passwords, regardless of case (ASVS 5.0, 6.2.4).
    pub fn is_common(&self) -> bool {
        static SORTED: LazyLock<Vec<&str>> = LazyLock::new(|| COMMON.lines().collect());
        let plain = self.0.to_lowercase();
        SORTED.binary_search(&plain.as_str()).is_ok()
    }

    /// Whether the password equals `text`, regardless of case.
    pub fn is(&self, text: &str) -> bool {
        self.0.to_lowercase() == text.to_lowercase()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A password hash as stored. It prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Hashes `password` with a new salt and 2^`cost` rounds. This blocks the thread for the whole computation.
    pub fn create(password: &Password, cost: u32) -> Result<Self, HashError> {
        let (new, input) = NewHash::of(password, cost)?;
        Ok(new.with(&input.checksum()))
    }

    /// A hash that no password matches and whose comparison takes as long as that of a real one, so that the time of a
    /// response does not reveal whether an e-mail address is known.
    pub fn decoy(cost: u32) -> Self {
        let (salt, checksum) = (".".repeat(SALT_CHARACTERS), ".".repeat(CHECKSUM_CHARACTERS));
        Self(format!("$bcrypt-sha256$v=2,t=2b,r={cost}${salt}${checksum}"))
    }

    /// Whether `password` matches the hash. This blocks the thread for the whole computation.
    ///
    /// Errors: [`HashError::Unreadable`] if the hash has an unknown format.
    pub fn verify(&self, password: &Password) -> Result<bool, HashError> {
        let (comparison, input) = self.compare(password)?;
        Ok(comparison.matches(&input.checksum()))
    }

    /// Prepares the comparison of `password` with the hash: the comparison, and the input of its checksum.
    ///
    /// Errors: [`HashError::Unreadable`] if the hash has an unknown format.
    pub fn compare(&self, password: &Password) -> Result<(Comparison, Input), HashError> {
        match self.parts().ok_or(HashError::Unreadable)? {
            Parts::BcryptSha256 { cost, salt, checksum } => {
                let stored: Stored = format!("$2b${cost:02}${salt}{checksum}").parse()?;
                let input = Input::new(prehash(salt, password)?.as_bytes(), stored.salt, stored.cost)?;
                Ok((Comparison { expected: stored.checksum, may_match: true }, input))
            }
            Parts::Bcrypt => {
                let stored: Stored = self.0.parse()?;
                let input = Input::new(password.0.as_bytes(), stored.salt, stored.cost)?;
                // For plain bcrypt, "ab" and "ab\0ab" are the same password.
                Ok((Comparison { expected: stored.checksum, may_match: !password.has_nul() }, input))
            }
        }
    }

    /// Whether the hash should be replaced: it has another format than new hashes, or another cost than `cost`.
    pub fn is_outdated(&self, cost: u32) -> bool {
        !matches!(self.parts(), Some(Parts::BcryptSha256 { cost: own, .. }) if own == cost)
    }

    /// The stored form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> Option<Parts<'_>> {
        if let Some(rest) = self.0.strip_prefix("$bcrypt-sha256$v=2,t=2b,r=") {
            let mut fields = rest.split('$');
            let (cost, salt, checksum) = (fields.next()?, fields.next()?, fields.next()?);
            let complete =
                salt.len() == SALT_CHARACTERS && checksum.len() == CHECKSUM_CHARACTERS && fields.next().is_none();
            return complete.then_some(Parts::BcryptSha256 { cost: cost.parse().ok()?, salt, checksum });
        }
        ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| self.0.starts_with(prefix)).then_some(Parts::Bcrypt)
    }
}

impl From<String> for PasswordHash {
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A new hash whose checksum is not computed yet.
pub struct NewHash {
    salt: String,
    cost: u32,
}

impl NewHash {
    /// Prepares a hash of `password` with a new salt and 2^`cost` rounds: the hash, and the input of its checksum.
    ///
    /// Errors: the operating system returns no random bytes, or bcrypt rejects the cost.
    pub fn of(password: &Password, cost: u32) -> Result<(Self, Input), HashError> {
        let mut bytes = Salt::default();
        SysRng.try_fill_bytes(&mut bytes)?;
        let salt = BASE_64.encode(bytes);
        let input = Input::new(prehash(&salt, password)?.as_bytes(), bytes, cost)?;
        Ok((Self { salt, cost }, input))
    }

    /// Completes the hash with its checksum.
    pub fn with(&self, checksum: &Checksum) -> PasswordHash {
        let Self { salt, cost } = self;
        PasswordHash(format!("$bcrypt-sha256$v=2,t=2b,r={cost}${salt}${}", BASE_64.encode(checksum)))
    }
}

/// A comparison with a stored hash whose checksum is not computed yet.
pub struct Comparison {
    expected: Checksum,
    may_match: bool,
}

impl Comparison {
    /// Whether the password with this checksum matches. The time does not depend on the checksum.
    pub fn matches(&self, checksum: &Checksum) -> bool {
        bool::from(self.expected.ct_eq(checksum)) && self.may_match
    }
}

enum Parts<'a> {
    BcryptSha256 { cost: u32, salt: &'a str, checksum: &'a str },
    Bcrypt,
}

/// Why a password could not be hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The stored hash has an unknown format.
    #[error("the stored password hash has an unknown format")]
    Unreadable,
    /// bcrypt rejected its input.
    #[error(transparent)]
    Bcrypt(#[from] bcrypt::BcryptError),
    /// The operating system returned no random bytes.
    #[error(transparent)]
    Random(#[from] rand::rngs::SysError),
    /// HMAC rejected its key. It accepts keys of any length, so this does not happen.
    #[error(transparent)]
    Key(#[from] hmac::digest::InvalidLength),
}

/// The input of bcrypt: 44 characters that depend on every byte of the password and contain no NUL.
fn prehash(salt: &str, password: &Password) -> Result<String, hmac::digest::InvalidLength> {
    let mut mac = Hmac::<Sha256>::new_from_slice(salt.as_bytes())?;
    mac.update(password.0.as_bytes());
    Ok(STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(text: &str) -> PasswordHash {
        PasswordHash::create(&Password::new(text.to_owned()), 4).unwrap()
    }

    #[test]
    fn neither_a_password_nor_its_hash_is_printed() {
        let password = Password::new("correct horse".to_owned());
        let printed = format!("{password:?} {:?}", hash("correct horse"));
        assert_eq!(printed, "*** ***");
    }

    fn verifies(hash: &PasswordHash, text: &str) -> bool {
        hash.verify(&Password::new(text.to_owned())).unwrap()
    }

    /// Made by passlib 1.7.4: `bcrypt_sha256.using(rounds=4).hash(…)`, and `bcrypt` for the plain ones.
    #[test]
    fn hashes_made_by_passlib_verify() {
        let emoji = "\u{1f600}".repeat(64);
        let long = "0123456789abcdef".repeat(8);
        for (password, stored) in [
            ("password", "$bcrypt-sha256$v=2,t=2b,r=4$Ezd0yHc/McVzpSb7FLryyO$gt6FcgzQaLx1oYO7LjIEcDyTy/fAOpy"),
            ("abcdefgh", "$bcrypt-sha256$v=2,t=2b,r=4$ifWAvsM0zoxcWRpz08mE7e$1XDDmSknJdwwe5GyCrU7D7SoXAyyARG"),
            (
                "p\u{e4}ssw\u{f6}rd \u{20ac}",
                "$bcrypt-sha256$v=2,t=2b,r=4$R0Cj4w9gXjgRw4GH0CKA3e$ExlCmQRdA7kv6LSxKlerCunD17sZsp.",
            ),
            (&*emoji, "$bcrypt-sha256$v=2,t=2b,r=4$dzL6259tAa7foMgYidc7Hu$HJzWuCeomN5gfYPE/iLX0D4se86HrRW"),
            (&*long, "$bcrypt-sha256$v=2,t=2b,r=4$iot6I5HMO6fS92xlcgQVC.$WL3BwrQB2V/HfVGm8G9WbkS13VWITGO"),
            ("password", "$2b$04$NffPZaD64qB7IaQWoSmKd.RU6ufQfwLC/Uc3LbWxrADycjB8lb8Am"),
            ("password", "$2y$04$eZLoZCMqNPeTd9UOMe1lgOg9B369G9OlatHJwgl29Ofv2lVHAZ6JS"),
            ("password", "$2a$04$Ys10xJaLghmaW2WWAWemtuPFc2921pFfUd/QH24oi0IK2.BVF.sSy"),
        ] {
            let stored = PasswordHash::from(stored.to_owned());
            assert!(verifies(&stored, password), "{password:?}");
            assert!(!verifies(&stored, &format!("{password}x")), "{password:?} and one character more");
            assert!(!verifies(&stored, ""), "nothing instead of {password:?}");
        }
    }

    #[test]
    fn every_byte_of_a_password_counts() {
        for (right, wrong) in [
            ("ab", "ab\0ab"),
            ("\0", "\0\0"),
            (&*"x".repeat(128), &*"x".repeat(127)),
            (&*"\u{1f600}".repeat(64), &*"\u{1f600}".repeat(63)),
            (&*format!("{}a", "y".repeat(72)), &*format!("{}b", "y".repeat(72))),
        ] {
            let stored = hash(right);
            assert!(verifies(&stored, right), "{right:?}");
            assert!(!verifies(&stored, wrong), "{right:?} against {wrong:?}");
        }
    }

    #[test]
    fn a_decoy_is_readable_and_matches_no_password() {
        for text in ["", "password", "correct horse"] {
            assert!(!verifies(&PasswordHash::decoy(4), text));
        }
        for cost in [4, 10, 12, 15] {
            let decoy = PasswordHash::decoy(cost);
            assert!(!decoy.is_outdated(cost) && decoy.is_outdated(cost + 1), "it costs what a real one costs");
        }
    }

    #[test]
    fn plain_bcrypt_hashes_and_hashes_of_another_cost_are_outdated() {
        let current = hash("correct horse");
        assert!(!current.is_outdated(4));
        assert!(current.is_outdated(5));
        let plain = PasswordHash::from(bcrypt::hash("correct horse", 4).unwrap());
        assert!(verifies(&plain, "correct horse"));
        assert!(!verifies(&plain, "correct horse\0correct horse"));
        assert!(plain.is_outdated(4));
    }

    #[test]
    fn a_damaged_hash_is_an_error_and_never_a_match() {
        let whole = hash("correct horse").as_str().to_owned();
        for damaged in
            ["", "plain text", "$2b$99$", "$argon2id$v=19$m=1$x$y", &format!("{whole}."), &format!("{whole}$")]
        {
            let damaged = PasswordHash::from(damaged.to_owned());
            assert!(damaged.verify(&Password::new("correct horse".into())).is_err(), "{}", damaged.as_str());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_password_verifies_against_its_own_hash(text in "\\PC{0,200}") {
            prop_assert!(verifies(&hash(&text), &text));
        }

        #[test]
        fn reading_a_stored_hash_never_panics(stored in "(\\$2b\\$|\\$bcrypt-sha256\\$v=2,t=2b,r=)?\\PC{0,70}") {
            let stored = PasswordHash::from(stored);
            let _ = stored.is_outdated(12);
            let _ = stored.verify(&Password::new("any".to_owned()));
        }
    }
}
