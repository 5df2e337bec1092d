//! Mails: their kinds and languages.

use serde::{Deserialize, Serialize};

/// Maximum number of languages of an `Accept-Language` header that are considered.
const MAX_LANGUAGES: usize = 32;

/// The language of mails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Language {
    /// English.
    #[default]
    English,
    /// German.
    German,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 2] = [Self::English, Self::German];

    /// The language code (ISO 639-1), as in settings, in the database and in the names of templates.
    pub const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// The language with this code.
    pub fn of(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.code() == code)
    }

    /// The language that a caller prefers, by the text of `Accept-Language` (RFC 9110, section 12.5.4). Returns `None` if
    /// the text names none of them.
    pub fn preferred(accept_language: &str) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        for range in accept_language.split(',').take(MAX_LANGUAGES) {
            let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
            let primary = tag.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let weight = parameters.trim().strip_prefix("q=").map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            let Some(language) = Self::of(&primary).filter(|_| weight > 0.0) else { continue };
            if best.is_none_or(|(highest, _)| weight > highest) {
                best = Some((weight, language));
            }
        }
        best.map(|(_, language)| language)
    }

    /// A duration in whole minutes, hours or days, in words.
    pub fn duration(self, seconds: i64) -> String {
        let (number, unit) = match seconds {
            days if days >= 172_800 && days % 86_400 == 0 => (days / 86_400, 2),
            hours if hours >= 3_600 && hours % 3_600 == 0 => (hours / 3_600, 1),
            other => (other / 60, 0),
        };
        let [minutes, hours, days] = match self {
            Self::English => [["minute", "minutes"], ["hour", "hours"], ["day", "days"]],
            Self::German => [["Minute", "Minuten"], ["Stunde", "Stunden"], ["Tage", "Tage"]],
        };
        let [one, several] = match unit {
            0 => minutes,
            1 => hours,
            _ => days,
        };
        format!("{number} {}", if number == 1 { one } else { several })
    }
}

impl From<Language> for &'static str {
    fn from(language: Language) -> Self {
        language.code()
    }
}

impl TryFrom<String> for Language {
    type Error = String;

    fn try_from(code: String) -> Result<Self, String> {
        Self::of(&code).ok_or_else(|| {
            let codes = Self::ALL.map(|language| format!("\"{}\"", language.code()));
            format!("Write {}.", codes.join(" or "))
        })
    }
}

macro_rules! kinds {
    ($($variant:ident = $name:literal: $description:literal,)*) => {
        /// What a mail is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum MailKind {
            $(#[doc = $description] $variant,)*
        }

        impl MailKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in the database, in the log and in the names of templates.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

kinds! {
    Test = "test": "A mail that an operator sends to test the settings.",
    PasswordReset = "password_reset": "A link to set a new password.",
    PasswordChanged = "password_changed": "A notice that the password has changed.",
    EmailVerification = "email_verification": "A link that proves the address of an account.",
    Registration = "registration": "A link that completes a registration.",
    AccountExists = "account_exists": "A notice that somebody tried to use the address for another account.",
    EmailChange = "email_change": "A link that proves the new address of an account.",
    EmailChangeRequested = "email_change_requested": "A notice that a change of the address was requested.",
    EmailChanged = "email_changed": "A notice to the old address, with a link that restores it.",
    Invitation = "invitation": "A link that creates an account.",
    KeyCreated = "key_created": "A notice that an API key was created.",
    AccountStopped = "account_stopped": "A notice that failed sign-ins have stopped the account.",
    SignInAfterFailures = "sign_in_after_failures": "A notice of a sign-in after several failed ones.",
    SignInFromNewNetwork = "sign_in_from_new_network": "A notice of a sign-in from a network that is new for the user.",
}

/// Mails that callers can request for any address: one in a minute, 5 in an hour, 20 in a day.
const REQUESTED: &[(i64, usize)] = &[(60, 1), (3_600, 5), (86_400, 20)];
/// Notices: one in an hour.
const NOTICE: &[(i64, usize)] = &[(3_600, 1)];

impl MailKind {
    /// How many mails of this kind an address gets: in each of these numbers of seconds at most so many. Further ones
    /// are not sent.
    pub const fn limits(self) -> &'static [(i64, usize)] {
        match self {
            // Only the owner of the password can cause the second one.
            Self::Test | Self::EmailChanged => &[],
            Self::PasswordReset
            | Self::EmailVerification
            | Self::Registration
            | Self::EmailChange
            | Self::Invitation => REQUESTED,
            Self::PasswordChanged
            | Self::AccountExists
            | Self::EmailChangeRequested
            | Self::KeyCreated
            | Self::AccountStopped
            | Self::SignInAfterFailures
            | Self::SignInFromNewNetwork => NOTICE,
        }
    }

    /// What the link in such a mail does, if it has one.
    pub const fn purpose(self) -> Option<LinkPurpose> {
        match self {
            Self::PasswordReset => Some(LinkPurpose::PasswordReset),
            Self::EmailVerification => Some(LinkPurpose::EmailVerification),
            Self::Registration => Some(LinkPurpose::Registration),
            Self::EmailChange => Some(LinkPurpose::EmailChange),
            Self::EmailChanged => Some(LinkPurpose::EmailUndo),
            Self::Invitation => Some(LinkPurpose::Invitation),
            _ => None,
        }
    }

    /// Whether users can turn these mails off. Notices of changes to an account cannot be turned off (NIST SP 800-63B-4,
    /// section 4.6; ASVS 5.0, 6.3.7).
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::SignInAfterFailures | Self::SignInFromNewNetwork)
    }

    /// The kind with this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// What a link does. A secret made for one purpose is of no use for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPurpose {
    /// Sets a new password.
    PasswordReset,
    /// Proves the address of an account.
    EmailVerification,
    /// Completes a registration.
    Registration,
    /// Proves the new address of an account.
    EmailChange,
    /// Restores the old address of an account.
    EmailUndo,
    /// Creates an account.
    Invitation,
}

impl LinkPurpose {
    /// The name in the database and in the audit trail.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PasswordReset => "password_reset",
            Self::EmailVerification => "email_verification",
            Self::Registration => "registration",
            Self::EmailChange => "email_change",
            Self::EmailUndo => "email_undo",
            Self::Invitation => "invitation",
        }
    }

    /// The path in the fragment of the link.
    pub const fn path(self) -> &'static str {
        match self {
            Self::PasswordReset => "password-reset",
            Self::EmailVerification => "email-verification",
            Self::Registration => "registration",
            Self::EmailChange => "email-change",
            Self::EmailUndo => "email-undo",
            Self::Invitation => "invitation",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_preferred_language_is_the_known_one_with_the_highest_weight() {
        for (header, expected) in [
            ("de", Some(Language::German)),
            ("de-AT,de;q=0.9,en;q=0.8", Some(Language::German)),
            ("fr, en;q=0.2, de;q=0.7", Some(Language::German)),
            ("DE;q=0.5, en", Some(Language::English)),
            ("fr", None),
            ("", None),
            ("*", None),
            ("de;q=0", None),
            ("de;q=x", None),
        ] {
            assert_eq!(Language::preferred(header), expected, "{header}");
        }
    }

    #[test]
    fn durations_are_whole_numbers_of_the_largest_unit() {
        for (seconds, english, german) in [
            (1_800, "30 minutes", "30 Minuten"),
            (60, "1 minute", "1 Minute"),
            (3_600, "1 hour", "1 Stunde"),
            (86_400, "24 hours", "24 Stunden"),
            (259_200, "3 days", "3 Tage"),
            (5_400, "90 minutes", "90 Minuten"),
        ] {
            assert_eq!(
                (Language::English.duration(seconds), Language::German.duration(seconds)),
                (english.into(), german.into())
            );
        }
    }

    #[test]
    fn kinds_and_languages_are_found_by_their_names() {
        assert!(MailKind::ALL.iter().all(|kind| MailKind::of(kind.name()) == Some(*kind)));
        assert!(Language::ALL.iter().all(|language| Language::try_from(language.code().to_owned()) == Ok(*language)));
        assert_eq!(Language::try_from("fr".to_owned()).unwrap_err(), "Write \"en\" or \"de\".");
    }

    proptest! {
        #[test]
        fn any_header_has_at_most_one_preferred_language(header in "\\PC{0,300}") {
            let _ = Language::preferred(&header);
        }
    }
}
