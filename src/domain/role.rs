//! The built-in roles, and names of roles.

use std::fmt;
use std::sync::Arc;

/// A role that is built in. The settings can define other roles: see [`super::roles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltInRole {
    /// Manages their own pages and API keys.
    Member,
    /// Reads all pages, users and audit entries, and changes nothing.
    Auditor,
    /// Holds every scope of Latchkey.
    Admin,
}

impl BuiltInRole {
    /// Every built-in role, from the least to the most privileged.
    pub const ALL: [Self; 3] = [Self::Member, Self::Auditor, Self::Admin];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// A description in one line.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Member => "Manages their own pages and API keys",
            Self::Auditor => "Reads all pages, users and audit entries",
            Self::Admin => "Holds every scope of Latchkey",
        }
    }

    /// The built-in role with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for BuiltInRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a role, which need not be defined: the database can contain the name of a role that the settings no
/// longer define.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleName(Arc<str>);

impl RoleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RoleName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
