//! Whoever the guard resolved.

use super::id::UserId;
use super::scope::{Scope, ScopeSet};
use super::secret::Digest;
use crate::error::Carrier;

/// The caller of a guarded route.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A user, by a sign-in token.
    User(SignedIn),
    /// Whoever holds the constant key of the configuration. It stands for no user and has no scopes.
    ConstantKey,
}

/// A user who presented a live sign-in token.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// Who.
    pub user_id: UserId,
    /// The user's first name, for greetings.
    pub name: String,
    /// The token presented.
    pub token: Digest,
    /// How it was presented.
    pub carrier: Carrier,
    /// What the token may be used for.
    pub scopes: ScopeSet,
}

impl Principal {
    /// The name to greet the caller by.
    pub fn display_name(&self) -> &str {
        match self {
            Self::User(user) => &user.name,
            Self::ConstantKey => "constant key",
        }
    }

    /// Whether the caller's credential holds `scope`.
    pub fn has(&self, scope: Scope) -> bool {
        match self {
            Self::User(user) => user.scopes.contains(scope),
            Self::ConstantKey => false,
        }
    }
}
