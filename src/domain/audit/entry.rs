//! The columns of entries, and filters for them.

use super::action::{Action, Target};
use super::caller::Caller;
use crate::clock::Timestamp;
use crate::domain::id::{EntryId, KeyId, UserId};
use crate::domain::principal::{Credential, Identity, Level, Principal};

/// Maximum length of the detail of an entry in bytes. A detail can contain text from the request.
const MAX_DETAIL: usize = 256;

/// The columns of an audit entry that describe who acted.
#[derive(Clone, Debug)]
pub struct Actor {
    /// `user:<id>`, `key:<id>`, `command-line`, `server`, `static-key`, `anonymous`, or `various` for a sum.
    pub actor: String,
    /// The account that acted: the user, or the owner of the key.
    pub user: Option<UserId>,
    /// The credential: `token:<id of the sign-in entry>`, `session:<id>`, `key:<id>`, `claim:<id of the key>`,
    /// `password`, `link`, `none`, `static-key`, `command-line`, `server`, or `various` for a sum.
    pub credential: String,
    /// Role and scopes in force. `None` if there is no user.
    pub level: Option<Level>,
}

impl Actor {
    /// A caller without a credential.
    pub fn anonymous() -> Self {
        Self { actor: "anonymous".into(), user: None, credential: "none".into(), level: None }
    }

    /// Several callers whose refusals are summed in one entry.
    pub fn various() -> Self {
        Self { actor: "various".into(), user: None, credential: "various".into(), level: None }
    }

    /// The actor for a caller of a use case.
    pub fn caller(caller: &Caller) -> Self {
        match caller {
            Caller::Anonymous => Self::anonymous(),
            Caller::CommandLine => Self::named("command-line"),
            Caller::Principal(Principal::StaticKey) => Self::named("static-key"),
            Caller::Principal(Principal::User(identity, _)) => Self::identity(identity),
        }
    }

    /// The server, which acts because a setting says so.
    pub fn server() -> Self {
        Self::named("server")
    }

    /// An actor without an account, whose credential has the same name.
    fn named(name: &str) -> Self {
        Self { actor: name.into(), user: None, credential: name.into(), level: None }
    }

    /// A user with a sign-in token or a session, or an API key.
    pub fn identity(identity: &Identity) -> Self {
        let actor = identity.subject();
        let credential = match identity.credential {
            Credential::Token(sign_in) => format!("token:{sign_in}"),
            Credential::Session(session) => format!("session:{session}"),
            Credential::OwnKey(_) | Credential::IssuedKey(_) => actor.clone(),
        };
        Self { actor, user: Some(identity.user_id), credential, level: Some(identity.level.clone()) }
    }

    /// A user who presented the correct password.
    pub fn password(user: UserId, level: Level) -> Self {
        Self { actor: format!("user:{user}"), user: Some(user), credential: "password".into(), level: Some(level) }
    }

    /// The holder of a token, key or session secret at `/revoke`. Possession does not prove that the holder is its user.
    pub fn holder(identity: &Identity) -> Self {
        Self { credential: Self::identity(identity).credential, ..Self::anonymous() }
    }

    /// A user who presented the secret of a link in a mail.
    pub fn link(user: UserId, level: Level) -> Self {
        Self { credential: "link".into(), ..Self::password(user, level) }
    }

    /// The holder of the claim code of a key.
    pub fn claim(key: KeyId) -> Self {
        Self { credential: format!("claim:{key}"), ..Self::anonymous() }
    }
}

/// The columns of an audit entry that describe a change, or an attempt at one.
#[derive(Clone, Debug)]
pub struct Event {
    /// The action.
    pub action: Action,
    /// The object of the action, if there is one.
    pub target: Option<Target>,
    /// The owner of the target.
    pub subject: Option<UserId>,
    /// The version of the target before the change: of a page, or the first id of a part of the trail. `None` if the
    /// target has no versions or did not exist.
    pub version_before: Option<i64>,
    /// The version of the target after the change. `None` if the target has no versions or was deleted.
    pub version_after: Option<i64>,
    /// The names of the changed fields, never their values.
    pub changed: Vec<&'static str>,
    /// Further information, such as the reason of a failure. It never contains a secret.
    pub detail: Option<String>,
}

impl Event {
    /// An event without target and detail.
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

    /// Sets the target. The user of a `User` or `Token` target becomes the subject.
    #[must_use]
    pub fn on(mut self, target: Target) -> Self {
        if let Target::User(user) | Target::Token(user) = target {
            self.subject = Some(user);
        }
        self.target = Some(target);
        self
    }

    /// Sets the owner of the target.
    #[must_use]
    pub fn owned_by(mut self, owner: UserId) -> Self {
        self.subject = Some(owner);
        self
    }

    /// Sets the versions of the target before and after the change.
    #[must_use]
    pub fn versions(mut self, before: Option<i64>, after: Option<i64>) -> Self {
        (self.version_before, self.version_after) = (before, after);
        self
    }

    /// Sets the changed fields: the names that are paired with `true`.
    #[must_use]
    pub fn changed_where<const N: usize>(self, fields: [(&'static str, bool); N]) -> Self {
        self.changed(fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect())
    }

    /// Sets the changed fields.
    #[must_use]
    pub fn changed(mut self, fields: Vec<&'static str>) -> Self {
        self.changed = fields;
        self
    }

    /// Sets the detail. A detail of more than 256 bytes is cut and ends with `…`.
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

/// A stored audit entry. Actors, actions, targets and outcomes are kept as text, so that entries of older versions stay
/// readable.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Grows with every entry. Never reused.
    pub id: EntryId,
    /// When the entry was written.
    pub at: Timestamp,
    /// See [`Actor::actor`].
    pub actor: String,
    /// See [`Actor::user`].
    pub user: Option<UserId>,
    /// See [`Actor::credential`].
    pub credential: String,
    /// The role of `user` at that time.
    pub role: Option<String>,
    /// The scopes in force, separated by spaces.
    pub scopes: String,
    /// The name of an [`Action`].
    pub action: String,
    /// The text of a [`Target`].
    pub target: Option<String>,
    /// See [`Event::subject`].
    pub subject: Option<UserId>,
    /// See [`Event::version_before`].
    pub version_before: Option<i64>,
    /// See [`Event::version_after`].
    pub version_after: Option<i64>,
    /// The names of the changed fields, separated by spaces.
    pub changed: String,
    /// The name of an [`Outcome`](super::Outcome).
    pub outcome: String,
    /// See [`Event::detail`].
    pub detail: Option<String>,
    /// See [`ClientInfo::client`](super::ClientInfo::client).
    pub client: Option<String>,
    /// See [`ClientInfo::request_id`](super::ClientInfo::request_id).
    pub request_id: Option<String>,
}

/// A filter for entries. Criteria that are `None` match every entry.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// See [`Actor::actor`].
    pub actor: Option<String>,
    /// See [`Actor::user`].
    pub user: Option<UserId>,
    /// Entries whose user or subject is this user.
    pub involves: Option<UserId>,
    /// The name of the action.
    pub action: Option<String>,
    /// The text of the target.
    pub target: Option<String>,
    /// The name of the outcome.
    pub outcome: Option<&'static str>,
    /// Entries at or after this time.
    pub since: Option<Timestamp>,
    /// Entries before this time.
    pub until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_detail_is_cut_between_characters() {
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
