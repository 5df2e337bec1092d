//! The words of the audit trail: who did what to what, with which credential, at what level, and how it ended.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::id::{EntryId, KeyId, PageId, UserId};
use super::principal::{Credential, Identity, Level, Principal};
use super::scope::Scope;
use crate::clock::Timestamp;
use crate::error::{AppError, Denial, Reason};

/// The longest detail of an entry, in bytes. It may name what a caller asked for.
const MAX_DETAIL: usize = 256;

/// Somebody who asks for something, from somewhere.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who.
    pub caller: Caller,
    /// The scope that the thing takes; checked again in the transaction that does it.
    pub demands: Option<Scope>,
    /// From where.
    pub origin: Origin,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Somebody without a credential, or not yet with one.
    Anonymous,
    /// Whoever may run the program.
    CommandLine,
    /// Somebody whom the guard let in.
    Principal(Principal),
}

/// Where a request came from and what it is called.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The request's name in answers and logs.
    pub request_id: Option<Arc<str>>,
}

impl Call {
    /// From somebody unknown.
    pub fn anonymous(origin: Origin) -> Self {
        Self { caller: Caller::Anonymous, demands: None, origin }
    }

    /// From the command line.
    pub fn command_line() -> Self {
        Self { caller: Caller::CommandLine, demands: None, origin: Origin::default() }
    }

    /// The user behind the call, or the key's owner. Errors: [`AppError::Forbidden`] if there is none.
    pub fn user(&self) -> Result<&Identity, AppError> {
        self.identity().ok_or(AppError::Forbidden(Denial::NeedsUser))
    }

    /// What to tell a caller whose credential has died under way.
    pub fn no_longer_known(&self) -> AppError {
        match &self.caller {
            Caller::Principal(Principal::User(_, carrier)) => {
                AppError::Unauthenticated(Reason::BadCredential(*carrier))
            }
            _ => AppError::Unauthenticated(Reason::Missing),
        }
    }

    /// The identity behind the call, if the guard found one.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.caller {
            Caller::Principal(Principal::User(identity, _)) => Some(identity),
            _ => None,
        }
    }
}

/// By whom a change was made, as the entry tells it.
#[derive(Clone, Debug)]
pub struct By {
    /// `user:<id>`, `key:<id>`, `command-line`, `constant-key`, `anonymous`, or `various` for a sum.
    pub actor: String,
    /// The user on whose account that was.
    pub user: Option<UserId>,
    /// What they showed: `token:<id of its sign-in>`, `key:<id>`, `claim:<id of its key>`, or a word.
    pub credential: String,
    /// Role and scopes in force.
    pub level: Option<Level>,
}

impl By {
    /// Nobody we know.
    pub fn anonymous() -> Self {
        Self { actor: "anonymous".into(), user: None, credential: "none".into(), level: None }
    }

    /// Several callers, whose refusals are summed.
    pub fn various() -> Self {
        Self { actor: "various".into(), user: None, credential: "various".into(), level: None }
    }

    /// The caller as the guard saw them.
    pub fn caller(caller: &Caller) -> Self {
        let word = |word: &str| Self { actor: word.into(), user: None, credential: word.into(), level: None };
        match caller {
            Caller::Anonymous => Self::anonymous(),
            Caller::CommandLine => word("command-line"),
            Caller::Principal(Principal::ConstantKey) => word("constant-key"),
            Caller::Principal(Principal::User(identity, _)) => Self::identity(identity),
        }
    }

    /// A user with a token, or a key.
    pub fn identity(identity: &Identity) -> Self {
        let actor = identity.subject();
        let credential = match identity.credential {
            Credential::Token(sign_in) => format!("token:{sign_in}"),
            Credential::OwnKey(_) | Credential::IssuedKey(_) => actor.clone(),
        };
        Self { actor, user: Some(identity.user_id), credential, level: Some(identity.level) }
    }

    /// A user who has just shown their password.
    pub fn password(user: UserId, level: Level) -> Self {
        Self { actor: format!("user:{user}"), user: Some(user), credential: "password".into(), level: Some(level) }
    }

    /// Whoever holds a token or key, and need not be whom it stands for.
    pub fn holder(identity: &Identity) -> Self {
        Self { credential: Self::identity(identity).credential, ..Self::anonymous() }
    }

    /// Whoever holds the claim code of a key.
    pub fn claim(key: KeyId) -> Self {
        Self { credential: format!("claim:{key}"), ..Self::anonymous() }
    }
}

macro_rules! actions {
    ($($variant:ident = $name:literal: $meaning:literal,)*) => {
        /// What was done, or tried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action {
            $(#[doc = $meaning] $variant,)*
        }

        impl Action {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name on the wire and in the database.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

actions! {
    Register = "user.register": "An account was made",
    SignIn = "user.sign_in": "Somebody signed in, or failed to",
    SignOut = "user.sign_out": "A user ended their own token",
    EditUser = "user.update": "Name, surname, website or e-mail changed",
    SetPassword = "user.password": "The password changed",
    SetRole = "user.role": "The role changed",
    Disable = "user.disable": "The user may not sign in any more",
    Enable = "user.enable": "The user may sign in again",
    DeleteUser = "user.delete": "The account was removed with all that belongs to it",
    CleanUp = "user.cleanup": "All that an earlier change of the account ended has its entries, and is counted",
    RevokeToken = "token.revoke": "An operator ended sign-in tokens, or whoever held one ended it",
    CreateKey = "key.create": "A user made a key for themselves",
    IssueKey = "key.issue": "A key was issued to somebody else",
    ClaimKey = "key.claim": "Somebody exchanged a claim code for the key's secret",
    EditKey = "key.update": "Name, scopes or expiry of a key changed",
    RotateKey = "key.rotate": "A key got a new secret",
    RevokeKey = "key.revoke": "A key was ended",
    CreatePage = "page.create": "A page was made",
    EditPage = "page.update": "A page changed",
    DeletePage = "page.delete": "A page was removed",
    Request = "request": "A known caller was kept out of a route",
    Forward = "request.forward": "A request to another service could pass, or could not",
}

impl Action {
    /// Whether it leaves alone whatever a credential is good for that was there before.
    pub const fn spares_credentials(self) -> bool {
        use Action::{CleanUp, CreateKey, CreatePage, DeletePage, EditPage, Forward, IssueKey, Register, Request};
        matches!(
            self,
            CleanUp | CreateKey | CreatePage | DeletePage | EditPage | Forward | IssueKey | Register | Request
        )
    }
}

/// To what it was done.
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
    /// The sign-in tokens of all users.
    AllTokens,
    /// A route, by method and pattern.
    Route(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Page(id) => write!(f, "page:{id}"),
            Self::Token(owner) => write!(f, "token-of-user:{owner}"),
            Self::AllTokens => f.write_str("tokens"),
            Self::Route(route) => f.write_str(route),
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It could not be done; nothing changed.
    Failure,
    /// They may not do it; nothing changed.
    Denied,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Denied];

    /// The name on the wire and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Denied => "denied",
        }
    }
}

/// What an entry tells of a change, or of the attempt at one.
#[derive(Clone, Debug)]
pub struct Event {
    /// What was done.
    pub action: Action,
    /// To what, where there is something.
    pub target: Option<Target>,
    /// The user whom it concerns: the owner of the target.
    pub subject: Option<UserId>,
    /// The version of the target before.
    pub version_before: Option<i64>,
    /// And after.
    pub version_after: Option<i64>,
    /// Names of the fields that changed, never their values.
    pub changed: Vec<&'static str>,
    /// What else there is to know, in one word or two; never anything secret.
    pub detail: Option<String>,
}

impl Event {
    /// Something that is done.
    pub fn of(action: Action) -> Self {
        Self {
            action,
            target: None,
            subject: None,
            version_before: None,
            version_after: None,
            changed: Vec::new(),
            detail: None,
        }
    }

    /// To this.
    #[must_use]
    pub fn on(mut self, target: Target) -> Self {
        if let Target::User(user) | Target::Token(user) = target {
            self.subject = Some(user);
        }
        self.target = Some(target);
        self
    }

    /// Which belongs to this user.
    #[must_use]
    pub fn owned_by(mut self, owner: UserId) -> Self {
        self.subject = Some(owner);
        self
    }

    /// From this version to that one.
    #[must_use]
    pub fn versions(mut self, before: Option<i64>, after: Option<i64>) -> Self {
        (self.version_before, self.version_after) = (before, after);
        self
    }

    /// In those of these fields that differ.
    #[must_use]
    pub fn changed_where<const N: usize>(self, fields: [(&'static str, bool); N]) -> Self {
        self.changed(fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect())
    }

    /// In these fields.
    #[must_use]
    pub fn changed(mut self, fields: Vec<&'static str>) -> Self {
        self.changed = fields;
        self
    }

    /// With this to add.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > MAX_DETAIL {
            detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
            detail.push('\u{2026}');
        }
        self.detail = Some(detail);
        self
    }
}

/// An entry as it is stored. Words stay words: what an older program wrote can always be read.
#[derive(Clone, Debug)]
pub struct Entry {
    /// In the order of writing.
    pub id: EntryId,
    /// When.
    pub at: Timestamp,
    /// See [`By::actor`].
    pub actor: String,
    /// See [`By::user`].
    pub user: Option<UserId>,
    /// See [`By::credential`].
    pub credential: String,
    /// The role in force.
    pub role: Option<String>,
    /// The scopes in force, separated by spaces.
    pub scopes: String,
    /// An [`Action`].
    pub action: String,
    /// A [`Target`].
    pub target: Option<String>,
    /// See [`Event::subject`].
    pub subject: Option<UserId>,
    /// See [`Event::version_before`].
    pub version_before: Option<i64>,
    /// See [`Event::version_after`].
    pub version_after: Option<i64>,
    /// Names separated by spaces.
    pub changed: String,
    /// An [`Outcome`].
    pub outcome: String,
    /// See [`Event::detail`].
    pub detail: Option<String>,
    /// See [`Origin::client`].
    pub client: Option<String>,
    /// See [`Origin::request_id`].
    pub request_id: Option<String>,
}

/// Which entries; what is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// See [`By::actor`].
    pub actor: Option<String>,
    /// On whose account.
    pub user: Option<UserId>,
    /// By or about this user.
    pub concerns: Option<UserId>,
    /// By name.
    pub action: Option<String>,
    /// As written.
    pub target: Option<String>,
    /// By name.
    pub outcome: Option<&'static str>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_has_a_bound_and_is_cut_between_characters() {
        let kept = |detail: &str| Event::of(Action::Request).detail(detail).detail.unwrap_or_default();
        let longest = "a".repeat(256);
        for detail in ["", "a", longest.as_str()] {
            assert_eq!(kept(detail), detail);
        }
        assert_eq!(kept(&format!("{longest}b")), format!("{longest}\u{2026}"));
        let shorter = "a".repeat(255);
        assert_eq!(kept(&format!("{shorter}\u{e9}")), format!("{shorter}\u{2026}"));
    }
}
