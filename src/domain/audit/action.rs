//! The names that entries use: actions, their targets, and outcomes.

use std::fmt;

use crate::domain::id::{InvitationId, KeyId, PageId, SessionId, UserId};

macro_rules! actions {
    ($($variant:ident = $name:literal, $effect:ident: $description:literal,)*) => {
        /// What was done or attempted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action {
            $(#[doc = $description] $variant,)*
        }

        impl Action {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in JSON and in the database.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What becomes of cached credentials.
            const fn cache_effect(self) -> CacheEffect {
                match self {
                    $(Self::$variant => CacheEffect::$effect,)*
                }
            }
        }
    };
}

/// What an action does to the credentials of its subject that processes have cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CacheEffect {
    /// Existing credentials keep their validity and scopes.
    Keeps,
    /// Existing credentials can end or change their scopes. Cached ones are invalidated.
    Ends,
}

// Name, effect on cached credentials, and meaning.
actions! {
    Register = "user.register", Keeps: "An account was created",
    SignIn = "user.sign_in", Ends: "A user signed in, or a sign-in failed",
    SignOut = "user.sign_out", Ends: "A user ended their own token",
    EditUser = "user.update", Ends: "Name, surname, website or e-mail changed",
    SetPassword = "user.password", Ends: "The password changed",
    ResetPassword = "user.password_reset", Ends: "A user set a new password with a link",
    ChangeEmail = "user.email", Ends: "The e-mail address was changed with a link, or restored",
    VerifyEmail = "user.verify_email", Ends: "The user proved to receive mails at the address",
    Invite = "invitation.create", Keeps: "An address was invited, or an invitation was sent again",
    RevokeInvitation = "invitation.revoke", Keeps: "An invitation was revoked",
    CreateLink = "link.create", Keeps: "An operator made a link that acts on an account",
    SendMail = "mail.send", Keeps: "A mail was sent to a user, or cannot be delivered",
    SetRole = "user.role", Ends: "The role changed",
    Disable = "user.disable", Ends: "The user was disabled and can no longer sign in",
    Enable = "user.enable", Ends: "The user was enabled and can sign in again",
    Unlock = "user.unlock", Keeps: "A lockout after failed sign-ins was ended",
    DeleteUser = "user.delete", Ends: "The account and everything it owns were deleted",
    CleanUp = "user.cleanup", Keeps: "The background work of an earlier change of the account is complete",
    RevokeToken = "token.revoke", Ends: "An operator or admin ended sign-in tokens, or the holder of a token ended it",
    CreateSession = "session.create", Ends: "A user signed in to a browser session",
    EndSession = "session.end", Ends: "A browser session ended before its time",
    CreateKey = "key.create", Keeps: "A user created a key for themselves",
    IssueKey = "key.issue", Keeps: "A key was issued to another person or service",
    ClaimKey = "key.claim", Ends: "A claim code was exchanged for the secret of the key",
    EditKey = "key.update", Ends: "Name, scopes or expiry of a key changed",
    RotateKey = "key.rotate", Ends: "A key got a new secret",
    RevokeKey = "key.revoke", Ends: "A key was revoked",
    RestoreDatabase = "database.restore", Keeps: "An operator restored a backup into this database",
    CopyDatabase = "database.copy", Keeps: "An operator copied another database into this one",
    CreatePage = "page.create", Keeps: "A page was created",
    EditPage = "page.update", Keeps: "A page changed",
    DeletePage = "page.delete", Keeps: "A page was deleted",
    Request = "request", Keeps: "An authenticated caller was denied access to a route",
    Forward = "request.forward", Keeps: "A request to another service was allowed or denied",
    Prune = "audit.prune", Keeps: "Old entries of the audit trail were removed",
}

impl Action {
    /// Whether the action leaves the validity, scopes and owner of all existing credentials unchanged, so that cached
    /// identities stay valid.
    pub const fn keeps_cached_credentials(self) -> bool {
        matches!(self.cache_effect(), CacheEffect::Keeps)
    }
}

/// The object of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A user.
    User(UserId),
    /// An API key.
    Key(KeyId),
    /// A page.
    Page(PageId),
    /// The sign-in token of a user.
    Token(UserId),
    /// A browser session.
    Session(SessionId),
    /// An invitation.
    Invitation(InvitationId),
    /// The sign-in tokens of all users.
    AllTokens,
    /// A route: method and pattern, or method and path of a forwarded request.
    Route(String),
    /// A part of the audit trail.
    Trail(TrailPart),
}

/// A part of the audit trail from which the oldest entries can be removed. Triggers of the database and partial indexes
/// know the parts, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrailPart {
    /// All entries.
    All,
    /// The entries of failed and denied attempts of anonymous callers.
    AnonymousFailures,
}

impl TrailPart {
    /// The name as a target.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "audit",
            Self::AnonymousFailures => "audit:anonymous-failures",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Page(id) => write!(f, "page:{id}"),
            Self::Token(owner) => write!(f, "token-of-user:{owner}"),
            Self::Session(id) => write!(f, "session:{id}"),
            Self::Invitation(id) => write!(f, "invitation:{id}"),
            Self::AllTokens => f.write_str("tokens"),
            Self::Route(route) => f.write_str(route),
            Self::Trail(part) => f.write_str(part.name()),
        }
    }
}

/// The outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The action was carried out.
    Success,
    /// The action could not be carried out. Nothing changed.
    Failure,
    /// The actor is not allowed to do it. Nothing changed.
    Denied,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Denied];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Denied => "denied",
        }
    }
}
