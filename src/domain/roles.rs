//! The roles that are defined: the built-in ones, and those of the settings.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::role::{BuiltInRole, RoleName};
use super::scope::{Grant, Scope};

/// A role: a named set of scopes. At each use, the scopes of a user's token and own keys are limited to those of the
/// user's role. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    name: RoleName,
    description: Arc<str>,
    scopes: Grant,
    kind: RoleKind,
}

/// Where a role is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// By Latchkey. The settings can add external scopes.
    BuiltIn,
    /// By the settings.
    Own,
    /// Nowhere: users have the role, but the settings do not define it. It holds no scopes.
    Undefined,
}

impl RoleKind {
    /// The name in the output of commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::Own => "own",
            Self::Undefined => "undefined",
        }
    }
}

impl Role {
    /// A built-in role with these external scopes.
    pub fn built_in(role: BuiltInRole, external: BTreeSet<String>) -> Self {
        let scopes = Grant { external: external.into(), ..Grant::from(role.scopes()) };
        let (name, description) = (role.name().into(), role.description().into());
        Self { name, description, scopes, kind: RoleKind::BuiltIn }
    }

    /// A role of the settings.
    pub fn own(name: &str, description: &str, scopes: Grant) -> Self {
        Self { name: name.into(), description: description.into(), scopes, kind: RoleKind::Own }
    }

    fn undefined(name: &str) -> Self {
        Self { name: name.into(), description: "".into(), scopes: Grant::default(), kind: RoleKind::Undefined }
    }

    /// The name in JSON and in the database.
    pub fn name(&self) -> &RoleName {
        &self.name
    }

    /// A description in one line; may be empty.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What the role may do.
    pub fn scopes(&self) -> &Grant {
        &self.scopes
    }

    /// Where the role is defined.
    pub fn kind(&self) -> RoleKind {
        self.kind
    }

    /// Whether the role is defined. An undefined role grants nothing and cannot be assigned.
    pub fn is_defined(&self) -> bool {
        self.kind != RoleKind::Undefined
    }
}

/// All roles that are defined. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roles(Arc<[Role]>);

impl Default for Roles {
    /// The built-in roles, without external scopes.
    fn default() -> Self {
        Self::new(BuiltInRole::ALL.map(|role| Role::built_in(role, BTreeSet::new())).to_vec())
    }
}

impl Roles {
    /// These roles, whose names must be different. The built-in ones must be among them.
    pub fn new(roles: Vec<Role>) -> Self {
        Self(roles.into())
    }

    /// All roles: the built-in ones first.
    pub fn all(&self) -> &[Role] {
        &self.0
    }

    /// The role with this name, if it is defined.
    pub fn find(&self, name: &str) -> Option<&Role> {
        self.0.iter().find(|role| role.name.as_str() == name)
    }

    /// The role with a name from the database. A name that is not defined becomes a role without scopes.
    pub fn get(&self, name: &str) -> Role {
        self.find(name).cloned().unwrap_or_else(|| Role::undefined(name))
    }

    /// The names of all roles.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|role| role.name.as_str()).collect()
    }

    /// The external scopes of all roles.
    pub fn external(&self) -> BTreeSet<&str> {
        self.0.iter().flat_map(|role| role.scopes.external.iter()).map(String::as_str).collect()
    }

    /// The names of all scopes that roles can hold: Latchkey's own, and then the external ones.
    pub fn known_scopes(&self) -> Vec<&str> {
        Scope::ALL.iter().map(|scope| scope.name()).chain(self.external()).collect()
    }

    /// The first external scope of `grant` that no role holds.
    pub fn unknown_scope<'g>(&self, grant: &'g Grant) -> Option<&'g str> {
        let is_known = |name: &&String| self.0.iter().any(|role| role.scopes.external.contains(*name));
        grant.external.iter().find(|name| !is_known(name)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_defined_becomes_a_role_without_scopes() {
        let roles = Roles::default();
        assert_eq!(roles.names(), ["member", "auditor", "admin"]);
        let gone = roles.get("editor");
        assert_eq!((gone.name().as_str(), gone.is_defined(), gone.scopes()), ("editor", false, &Grant::default()));
        assert!(roles.find("editor").is_none() && roles.get("member").is_defined());
    }
}
