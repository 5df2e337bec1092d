//! Authenticated callers and their level.

use std::sync::Arc;

use super::id::{EntryId, KeyId, SessionId, UserId};
use super::role::RoleName;
use super::roles::Role;
use super::scope::{Grant, Scope};
use super::secret::Digest;
use crate::clock::Timestamp;
use crate::error::{CredentialHeader, Denial};

/// The caller of a guarded route.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A user with a sign-in token or a session, or an API key, and the header that carried the credential.
    User(Arc<Identity>, CredentialHeader),
    /// The holder of the static key (`auth.api_key_token`). It stands for no user and has no scopes.
    StaticKey,
}

/// The account, credential and level of a caller.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The id of the user, or of the owner of the key.
    pub user_id: UserId,
    /// The name of the user, or of an issued key.
    pub name: String,
    /// The canonical e-mail address of the user. `None` for an issued key, because its holder must not learn who the
    /// owner is.
    pub email: Option<String>,
    /// Whether the user proved to receive mails at this address.
    pub email_verified: bool,
    /// The presented credential.
    pub credential: Credential,
    /// The digest of its secret.
    pub digest: Digest,
    /// Role and scopes in force.
    pub level: Level,
    /// Whether the credential is deliberately limited: a token that was narrowed at sign-in, or a key.
    pub narrowed: bool,
    /// Whether the secret is that of a key before its last rotation, which is valid until the overlap ends.
    pub replaced: bool,
    /// Whether the secret of the key has not been used yet and its first use must be stored.
    pub unseen: bool,
    /// When the user signed in, or the key was created.
    pub issued_at: Timestamp,
    /// The time from which the credential is expired. `None` if it does not expire.
    pub expires_at: Option<Timestamp>,
    /// The time from which a session is expired unless it is used before. `None` for other credentials.
    pub idle_at: Option<Timestamp>,
}

impl Identity {
    /// The id of the key, own or issued. `None` for a sign-in token or a session.
    pub fn key(&self) -> Option<KeyId> {
        match self.credential {
            Credential::Token(_) | Credential::Session(_) => None,
            Credential::OwnKey(key) | Credential::IssuedKey(key) => Some(key),
        }
    }

    /// The id of the session. `None` for other credentials.
    pub fn session(&self) -> Option<SessionId> {
        match self.credential {
            Credential::Session(session) => Some(session),
            Credential::Token(_) | Credential::OwnKey(_) | Credential::IssuedKey(_) => None,
        }
    }

    /// Whether this caller may change the key `key`. The secret that its last rotation replaced may not, because
    /// someone who found that secret could take over the key.
    ///
    /// Errors: [`Denial::SecretReplaced`].
    pub fn may_change_key(&self, key: KeyId) -> Result<(), Denial> {
        if self.replaced && self.key() == Some(key) { Err(Denial::SecretReplaced) } else { Ok(()) }
    }

    /// The actor in the audit trail and the subject in introspection: `user:<id>` or `key:<id>`.
    pub fn subject(&self) -> String {
        self.key().map_or_else(|| format!("user:{}", self.user_id), |key| format!("key:{key}"))
    }

    /// Whether the scope with this name is in force, whether Latchkey's own or external.
    pub fn holds(&self, scope: &str) -> bool {
        self.level.scopes.holds(scope)
    }

    /// The names of all scopes in force, Latchkey's own first, separated by spaces.
    pub fn scope_names(&self) -> String {
        self.level.scopes.to_string()
    }
}

/// The public id of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A sign-in token, by the audit entry of its sign-in.
    Token(EntryId),
    /// A browser session.
    Session(SessionId),
    /// A key that its owner created for their own use.
    OwnKey(KeyId),
    /// A key that its owner issued to another person.
    IssuedKey(KeyId),
}

/// Role and scopes in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The name of the user's role.
    pub role: RoleName,
    /// The scopes in force, Latchkey's own and external ones.
    pub scopes: Grant,
}

impl Level {
    /// The level of a credential that holds all scopes of `role`.
    pub fn of(role: &Role) -> Self {
        Self { role: role.name().clone(), scopes: role.scopes().clone() }
    }

    /// The level of a credential with the scopes `granted` whose user has `role`: the scopes that both hold. It is
    /// computed whenever the credential is read from the database, so a changed role takes effect at once.
    pub fn limited(role: &Role, granted: &Grant) -> Self {
        Self { role: role.name().clone(), scopes: granted.intersection(role.scopes()) }
    }

    /// The level of an issued key. The role of its owner limits Latchkey's own scopes; the external ones are in force
    /// as issued.
    pub fn of_issued_key(role: &Role, granted: Grant) -> Self {
        let own = granted.own.intersection(role.scopes().own);
        Self { role: role.name().clone(), scopes: Grant { own, ..granted } }
    }
}

impl Principal {
    /// The name of the caller for display.
    pub fn display_name(&self) -> &str {
        match self {
            Self::User(identity, _) => &identity.name,
            Self::StaticKey => "static key",
        }
    }

    /// Accepts a user with a sign-in token, a session or an own key.
    ///
    /// Errors: [`Denial::NeedsUser`].
    pub fn is_user(&self) -> Result<(), Denial> {
        match self {
            Self::User(identity, _) if !matches!(identity.credential, Credential::IssuedKey(_)) => Ok(()),
            Self::User(..) | Self::StaticKey => Err(Denial::NeedsUser),
        }
    }

    /// Accepts a user with a sign-in token or a session.
    ///
    /// Errors: [`Denial::NeedsSignIn`] for a key, [`Denial::NeedsUser`] for the static key.
    pub fn is_signed_in(&self) -> Result<(), Denial> {
        match self {
            Self::User(identity, _) if identity.key().is_none() => Ok(()),
            Self::User(..) => Err(Denial::NeedsSignIn),
            Self::StaticKey => Err(Denial::NeedsUser),
        }
    }

    /// Accepts a user with a session, or with a sign-in token that holds all scopes of the user's role. Changes of the
    /// account itself require one of these.
    ///
    /// Errors: those of [`Self::is_signed_in`], and [`Denial::Narrowed`].
    pub fn is_fully_signed_in(&self) -> Result<(), Denial> {
        self.is_signed_in()?;
        match self {
            Self::User(identity, _) if identity.narrowed => Err(Denial::Narrowed),
            _ => Ok(()),
        }
    }

    /// Accepts a user with a session.
    ///
    /// Errors: [`Denial::NeedsSession`].
    pub fn is_in_session(&self) -> Result<(), Denial> {
        match self {
            Self::User(identity, _) if identity.session().is_some() => Ok(()),
            Self::User(..) | Self::StaticKey => Err(Denial::NeedsSession),
        }
    }

    /// Whether the caller's credential holds the scope with this name, whether Latchkey's own or external.
    pub fn holds(&self, scope: &str) -> bool {
        match self {
            Self::User(identity, _) => identity.holds(scope),
            Self::StaticKey => false,
        }
    }

    /// Whether the caller's credential holds `scope`.
    pub fn has(&self, scope: Scope) -> bool {
        match self {
            Self::User(identity, _) => identity.level.scopes.contains(scope),
            Self::StaticKey => false,
        }
    }
}
