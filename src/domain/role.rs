//! Roles: named sets of scopes.

use std::fmt;

use super::scope::{Scope, ScopeSet};

/// What a user is. Its scopes bound those of the user's token and keys at every use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pages, and API keys of one's own.
    Member,
    /// Reads everything and changes nothing.
    Auditor,
    /// May do all.
    Admin,
}

impl Role {
    /// Every role, from the least to the most powerful.
    pub const ALL: [Self; 3] = [Self::Member, Self::Auditor, Self::Admin];

    /// The name on the wire and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// What the role may do: the one table of levels.
    pub fn scopes(self) -> ScopeSet {
        use Scope::{AuditRead, KeysRead, KeysWrite, PagesRead, PagesWrite, UsersRead};
        match self {
            Self::Member => [PagesRead, PagesWrite, KeysRead, KeysWrite].into_iter().collect(),
            Self::Auditor => [PagesRead, UsersRead, AuditRead].into_iter().collect(),
            Self::Admin => ScopeSet::all(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
