//! Mails: their kinds and languages.

mod language;

pub use self::language::Language;

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
    EmailUndo = "email_undo": "A link that restores an old address, for somebody who asked for a new password there.",
    EmailRestored = "email_restored": "A link to set a new password after a change of the address was undone.",
    Invitation = "invitation": "A link that creates an account.",
    KeyCreated = "key_created": "A notice that an API key was created.",
    AccountStopped = "account_stopped": "A notice that failed sign-ins have stopped the account.",
    SignInAfterFailures = "sign_in_after_failures": "A notice of a sign-in after several failed ones.",
    SignInFromNewNetwork = "sign_in_from_new_network": "A notice of a sign-in from a network that is new for the user.",
}

/// Mails that callers can request for any address: one in a minute, 5 in an hour, 20 in a day.
const REQUESTED: &[(i64, usize)] = &[(60, 1), (3_600, 5), (86_400, 20)];
/// Mails that callers with a right request: 5 in an hour, 20 in a day.
const INVITED: &[(i64, usize)] = &[(3_600, 5), (86_400, 20)];
/// Notices: one in an hour.
const NOTICE: &[(i64, usize)] = &[(3_600, 1)];

impl MailKind {
    /// How many mails of this kind an address gets: in each of these numbers of seconds at most so many. Further ones
    /// are not sent.
    pub const fn limits(self) -> &'static [(i64, usize)] {
        match self {
            // Only the owner of the password, or of a link, can cause them.
            Self::Test | Self::EmailChanged | Self::EmailRestored => &[],
            Self::PasswordReset
            | Self::EmailVerification
            | Self::Registration
            | Self::EmailChange
            | Self::EmailUndo => REQUESTED,
            Self::Invitation => INVITED,
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
            Self::PasswordReset | Self::EmailRestored => Some(LinkPurpose::PasswordReset),
            Self::EmailVerification => Some(LinkPurpose::EmailVerification),
            Self::Registration => Some(LinkPurpose::Registration),
            Self::EmailChange => Some(LinkPurpose::EmailChange),
            Self::EmailChanged | Self::EmailUndo => Some(LinkPurpose::EmailUndo),
            Self::Invitation => Some(LinkPurpose::Invitation),
            _ => None,
        }
    }

    /// Whether people without an account can cause such a mail, or a user one for any address. The audit trail has no
    /// entries of these mails: the number of entries would show whether an address has an account.
    pub const fn is_caused_by_anyone(self) -> bool {
        matches!(
            self,
            Self::PasswordReset
                | Self::EmailVerification
                | Self::Registration
                | Self::AccountExists
                | Self::EmailChange
                | Self::EmailUndo
                | Self::AccountStopped
        )
    }

    /// Whether users can turn these mails off. Notices of changes to an account cannot be turned off (NIST SP
    /// 800-63B-4, section 4.6; ASVS 5.0, 6.3.7).
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
    use super::*;

    #[test]
    fn kinds_are_found_by_their_names() {
        assert!(MailKind::ALL.iter().all(|kind| MailKind::of(kind.name()) == Some(*kind)));
        assert_eq!(MailKind::of(""), None);
    }
}
