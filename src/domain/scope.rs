//! What a credential may be used for.

use std::collections::BTreeSet;
use std::fmt;

macro_rules! scopes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal: $description:literal,)*) => {
        /// One permission of Latchkey's own, spelled as in OAuth 2.0 (RFC 6749, section 3.3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Scope {
            $(#[doc = $description] $variant,)*
        }

        impl Scope {
            /// Every scope, in the order in which scope strings list them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name on the wire and in the database.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// One line for people.
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $description,)*
                }
            }

            const fn bit(self) -> u32 {
                let mut bit = 1;
                $(
                    if matches!(self, Self::$variant) {
                        return bit;
                    }
                    bit <<= 1;
                )*
                bit
            }
        }
    };
}

scopes! {
    PagesRead = "pages:read": "Read pages",
    PagesWrite = "pages:write": "Create, change and delete one's own pages",
    KeysRead = "keys:read": "See one's own API keys",
    KeysWrite = "keys:write": "Create, change, rotate and revoke one's own API keys",
    KeysIssue = "keys:issue": "Issue API keys to others, with scopes of any name",
    UsersRead = "users:read": "See all users",
    UsersWrite = "users:write": "Change roles, disable and delete users, end their tokens",
    AuditRead = "audit:read": "Read the audit trail",
    TokensIntrospect = "tokens:introspect": "Ask whose a token is",
}

impl Scope {
    /// The scope of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scope| scope.name() == name)
    }
}

/// A set of Latchkey's own scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// The set of all scopes.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether `scope` is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The scopes of this set that `other` lacks.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is no scope in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reads names separated by single spaces (RFC 6749, section 3.3); `None` if one is unknown or stands twice.
    pub fn parse(names: &str) -> Option<Self> {
        names.split(' ').try_fold(Self::default(), |set, name| {
            let scope = Scope::named(name)?;
            (!set.contains(scope)).then_some(set.with(scope))
        })
    }

    /// Reads what [`fmt::Display`] wrote into the database. A scope that no longer exists grants nothing.
    pub fn from_stored(names: &str) -> Self {
        names.split(' ').filter_map(Scope::named).collect()
    }

    /// This set and `scope`.
    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | scope.bit())
    }

    fn names(self) -> impl Iterator<Item = &'static str> + use<> {
        Scope::ALL.iter().filter(move |scope| self.contains(**scope)).map(|scope| scope.name())
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(" "))
    }
}

/// What an API key was granted: scopes of Latchkey's own, and foreign ones that mean something to somebody else's
/// service, such as `translate:use`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Latchkey's own.
    pub own: ScopeSet,
    /// All others, by name.
    pub foreign: BTreeSet<String>,
}

impl Grant {
    /// Reads the two columns in which the database holds it.
    pub fn from_stored(own: &str, foreign: &str) -> Self {
        Self { own: ScopeSet::from_stored(own), foreign: foreign.split_whitespace().map(str::to_owned).collect() }
    }

    /// The foreign scopes, separated by spaces.
    pub fn foreign_names(&self) -> String {
        self.foreign.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Adds the scope of this name; `false` if it was in already.
    pub fn add(&mut self, name: &str) -> bool {
        match Scope::named(name) {
            Some(scope) if self.own.contains(scope) => false,
            Some(scope) => {
                self.own = self.own.with(scope);
                true
            }
            None => self.foreign.insert(name.to_owned()),
        }
    }

    /// The names, Latchkey's own first.
    pub fn names(&self) -> Vec<&str> {
        all_names(self.own, &self.foreign)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" "))
    }
}

/// The names of scopes, Latchkey's own first.
pub fn all_names(own: ScopeSet, foreign: &BTreeSet<String>) -> Vec<&str> {
    let mut names: Vec<&str> = own.names().collect();
    names.extend(foreign.iter().map(String::as_str));
    names
}

/// Whether `name` could be a scope anywhere: visible ASCII but `"` and `\` (RFC 6749, section 3.3).
pub fn is_scope_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_strings_survive_a_round_trip() {
        let all = ScopeSet::all().to_string();
        assert_eq!(all.split(' ').count(), Scope::ALL.len());
        for names in ["pages:read", "pages:write", "pages:read pages:write", "audit:read tokens:introspect", &all] {
            assert_eq!(ScopeSet::parse(names).unwrap().to_string(), names);
            assert_eq!(ScopeSet::from_stored(names).to_string(), names);
        }
        for (own, foreign) in [("", ""), ("", "translate:use"), ("pages:read keys:issue", "translate:use zzz")] {
            let grant = Grant::from_stored(own, foreign);
            assert_eq!((grant.own.to_string(), grant.foreign_names()), (own.to_owned(), foreign.to_owned()));
            assert_eq!(grant.to_string(), format!("{own} {foreign}").trim());
        }
    }

    #[test]
    fn unknown_repeated_or_oddly_spaced_scopes_are_refused() {
        for names in ["", " ", "admin", "pages:read pages:read", "pages:read  pages:write", "pages:read ", "PAGES:READ"]
        {
            assert_eq!(ScopeSet::parse(names), None, "{names:?}");
        }
    }

    #[test]
    fn a_scope_that_no_longer_exists_grants_nothing() {
        assert_eq!(ScopeSet::from_stored("pages:read rockets:launch").to_string(), "pages:read");
    }

    #[test]
    fn a_scope_token_is_visible_ascii_without_quotation_mark_and_backslash() {
        for name in ["translate:use", "a", "https://example.org/scope", "!"] {
            assert!(is_scope_token(name), "{name:?}");
        }
        for name in ["", "two words", "quote\"", "back\\slash", "caf\u{e9}", "tab\t", "nul\0"] {
            assert!(!is_scope_token(name), "{name:?}");
        }
    }
}
