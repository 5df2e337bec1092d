//! Whoever the guard resolved, and at what level.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::id::{EntryId, KeyId, UserId};
use super::role::Role;
use super::scope::{Scope, ScopeSet, all_names};
use super::secret::Digest;
use crate::clock::Timestamp;
use crate::error::{Carrier, Denial};

/// The caller of a guarded route.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A user, by a sign-in token or by an API key, and how it was presented.
    User(Arc<Identity>, Carrier),
    /// Whoever holds the constant key of the configuration. It stands for no user and has no scopes.
    ConstantKey,
}

/// On whose account, by what, and at what level somebody acts.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user, or the owner of the key.
    pub user_id: UserId,
    /// The name to greet the caller by.
    pub name: String,
    /// The user's address; `None` for a key that was issued to somebody else, who need not know whose it is.
    pub email: Option<String>,
    /// What was presented.
    pub credential: Credential,
    /// Its digest.
    pub digest: Digest,
    /// What it is good for.
    pub level: Level,
    /// Scopes that mean something to others, as they were issued.
    pub foreign: BTreeSet<String>,
    /// Whether it holds less than its user, by intention: a token that was narrowed at sign-in, or a key.
    pub narrowed: bool,
    /// Whether it is the secret of a key before the last rotation, which works until its overlap ends.
    pub replaced: bool,
    /// Whether it is the secret of a key that has not been used before, as far as that matters.
    pub unseen: bool,
    /// When the user signed in, or the key was made.
    pub issued_at: Timestamp,
    /// The first moment at which it is dead, if there is one.
    pub expires_at: Option<Timestamp>,
}

impl Identity {
    /// The key, of either kind, if it is one.
    pub fn key(&self) -> Option<KeyId> {
        match self.credential {
            Credential::Token(_) => None,
            Credential::OwnKey(key) | Credential::IssuedKey(key) => Some(key),
        }
    }

    /// Refuses to change the key `key` by the secret that its last rotation replaced: whoever found that secret could
    /// take the key away from its owner.
    pub fn may_change_key(&self, key: KeyId) -> Result<(), Denial> {
        if self.replaced && self.key() == Some(key) { Err(Denial::SecretReplaced) } else { Ok(()) }
    }

    /// Who acts, as the audit trail and others call them: `user:<id>`, or `key:<id>`.
    pub fn subject(&self) -> String {
        self.key().map_or_else(|| format!("user:{}", self.user_id), |key| format!("key:{key}"))
    }

    /// Whether the scope of this name is in force, Latchkey's own or not.
    pub fn holds(&self, scope: &str) -> bool {
        match Scope::named(scope) {
            Some(own) => self.level.scopes.contains(own),
            None => self.foreign.contains(scope),
        }
    }

    /// The names of all scopes in force, Latchkey's own first, separated by spaces.
    pub fn scope_names(&self) -> String {
        all_names(self.level.scopes, &self.foreign).join(" ")
    }
}

/// Which credential it is, by its public name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The sign-in token that this audit entry tells of.
    Token(EntryId),
    /// A key that its owner made for themselves.
    OwnKey(KeyId),
    /// A key that was issued to somebody else.
    IssuedKey(KeyId),
}

/// Role and scopes in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The user's role.
    pub role: Role,
    /// What the credential was granted, as far as the role goes.
    pub scopes: ScopeSet,
}

impl Level {
    /// The level of a credential with these scopes in the hands of this role: a changed role counts at once.
    pub fn new(role: Role, granted: ScopeSet) -> Self {
        Self { role, scopes: granted.intersection(role.scopes()) }
    }
}

impl Principal {
    /// The name to greet the caller by.
    pub fn display_name(&self) -> &str {
        match self {
            Self::User(identity, _) => &identity.name,
            Self::ConstantKey => "constant key",
        }
    }

    /// Accepts whoever is a user: by their sign-in token, or by a key that they made for themselves.
    pub fn is_user(&self) -> Result<(), Denial> {
        match self {
            Self::User(identity, _) if !matches!(identity.credential, Credential::IssuedKey(_)) => Ok(()),
            Self::User(..) | Self::ConstantKey => Err(Denial::NeedsUser),
        }
    }

    /// Accepts a user by their sign-in token, and not by a key.
    pub fn is_signed_in(&self) -> Result<(), Denial> {
        match self {
            Self::User(identity, _) if identity.key().is_none() => Ok(()),
            Self::User(..) => Err(Denial::NeedsSignIn),
            Self::ConstantKey => Err(Denial::NeedsUser),
        }
    }

    /// Accepts a user by a sign-in token with all that the user's role holds: what changes the account itself is not
    /// for a token that was narrowed.
    pub fn is_fully_signed_in(&self) -> Result<(), Denial> {
        self.is_signed_in()?;
        match self {
            Self::User(identity, _) if identity.narrowed => Err(Denial::Narrowed),
            _ => Ok(()),
        }
    }

    /// Whether the caller's credential holds the scope of this name, Latchkey's own or not.
    pub fn holds(&self, scope: &str) -> bool {
        match self {
            Self::User(identity, _) => identity.holds(scope),
            Self::ConstantKey => false,
        }
    }

    /// Whether the caller's credential holds `scope`.
    pub fn has(&self, scope: Scope) -> bool {
        match self {
            Self::User(identity, _) => identity.level.scopes.contains(scope),
            Self::ConstantKey => false,
        }
    }
}
