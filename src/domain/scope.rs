//! What a credential may be used for.

use std::fmt;

/// One permission, spelled as in OAuth 2.0 (RFC 6749, section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Read pages.
    PagesRead,
    /// Create, change and delete one's own pages.
    PagesWrite,
}

impl Scope {
    /// Every scope, in the order in which scope strings list them.
    pub const ALL: [Self; 2] = [Self::PagesRead, Self::PagesWrite];

    /// The name on the wire and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PagesRead => "pages:read",
            Self::PagesWrite => "pages:write",
        }
    }

    /// One line for people.
    pub const fn description(self) -> &'static str {
        match self {
            Self::PagesRead => "Read pages",
            Self::PagesWrite => "Create, change and delete one's own pages",
        }
    }

    const fn bit(self) -> u32 {
        match self {
            Self::PagesRead => 1,
            Self::PagesWrite => 1 << 1,
        }
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// The set of all scopes.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether `scope` is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Reads names separated by single spaces (RFC 6749, section 3.3); `None` if one is unknown or stands twice.
    pub fn parse(names: &str) -> Option<Self> {
        names.split(' ').try_fold(Self::default(), |set, name| {
            let scope = Scope::ALL.into_iter().find(|scope| scope.name() == name)?;
            (!set.contains(scope)).then_some(Self(set.0 | scope.bit()))
        })
    }

    /// Reads what [`fmt::Display`] wrote into the database. A scope that no longer exists grants nothing.
    pub fn from_stored(names: &str) -> Self {
        Scope::ALL.into_iter().filter(|scope| names.split(' ').any(|name| name == scope.name())).collect()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Scope::ALL.into_iter().filter(|scope| self.contains(*scope)).map(Scope::name);
        f.write_str(&held.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_strings_survive_a_round_trip() {
        for names in ["pages:read", "pages:write", "pages:read pages:write"] {
            assert_eq!(ScopeSet::parse(names).unwrap().to_string(), names);
            assert_eq!(ScopeSet::from_stored(names).to_string(), names);
        }
    }

    #[test]
    fn unknown_repeated_or_oddly_spaced_scopes_are_refused() {
        for names in ["", " ", "admin", "pages:read pages:read", "pages:read  pages:write", "pages:read ", "PAGES:READ"]
        {
            assert_eq!(ScopeSet::parse(names), None, "{names:?}");
        }
    }
}
