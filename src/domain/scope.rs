//! Scopes: the permissions of a credential.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::role::BuiltInRole;

macro_rules! scopes {
    ($($variant:ident = $name:literal, [$($role:ident),*]: $description:literal,)*) => {
        /// One of Latchkey's own scopes, in the syntax of OAuth 2.0 (RFC 6749, section 3.3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Scope {
            $(#[doc = $description] $variant,)*
        }

        impl Scope {
            /// Every scope, in the order in which scope strings list them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in JSON and in the database.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// A description in one line, for the OpenAPI document.
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $description,)*
                }
            }

            /// The built-in roles that hold it.
            pub const fn roles(self) -> &'static [BuiltInRole] {
                match self {
                    $(Self::$variant => &[$(BuiltInRole::$role),*],)*
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

// The one table of levels: name, the built-in roles that hold the scope, and its description.
scopes! {
    PagesRead = "pages:read", [Member, Auditor, Admin]: "Read pages",
    PagesWrite = "pages:write", [Member, Admin]: "Create, change and delete your own pages",
    KeysRead = "keys:read", [Member, Admin]: "Read your own API keys",
    KeysWrite = "keys:write", [Member, Admin]: "Create, change, rotate and revoke your own API keys",
    KeysIssue = "keys:issue", [Admin]: "Issue API keys to others, also with external scopes",
    UsersRead = "users:read", [Auditor, Admin]: "Read all users",
    UsersWrite = "users:write", [Admin]: "Create users, change roles, disable and delete users, revoke their tokens",
    AuditRead = "audit:read", [Auditor, Admin]: "Read the audit trail",
    TokensIntrospect = "tokens:introspect", [Admin]: "Introspect tokens and API keys",
}

impl Scope {
    /// The scope with this name. Returns `None` for external scopes.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scope| scope.name() == name)
    }

    /// The scope that `name`, which is none of Latchkey's own, is probably meant to be: one at an edit distance of 1,
    /// or the nearest one with the same prefix (in the singular or plural).
    pub fn resembled_by(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let stem = |name: &str| name.split_once(':').map(|(prefix, _)| prefix.trim_end_matches('s').to_owned());
        let with_distance = Self::ALL.iter().map(|scope| (strsim::osa_distance(&name, scope.name()), *scope));
        let likely = |(distance, scope): &(usize, Self)| {
            *distance <= 1 || stem(&name).is_some_and(|prefix| stem(scope.name()).as_ref() == Some(&prefix))
        };
        with_distance.filter(likely).min_by_key(|(distance, _)| *distance).map(|(_, scope)| scope)
    }
}

impl BuiltInRole {
    /// The scopes of Latchkey's own that the role holds.
    pub fn scopes(self) -> ScopeSet {
        Scope::ALL.iter().copied().filter(|scope| scope.roles().contains(&self)).collect()
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

    /// The scopes that are in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The scopes that are in at least one of the sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The scopes of this set that `other` lacks.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set has no scopes.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Parses the stored form, which [`fmt::Display`] writes. Names of scopes that no longer exist are ignored.
    pub fn from_stored(names: &str) -> Self {
        names.split(' ').filter_map(Scope::named).collect()
    }

    /// The set with `scope` added.
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

/// The scopes of a role, a token or an API key: Latchkey's own, and external ones that other services interpret, such
/// as `translate:use`. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Latchkey's own scopes.
    pub own: ScopeSet,
    /// The names of the external scopes.
    pub external: Arc<BTreeSet<String>>,
}

impl Grant {
    /// Parses the two columns in which the database stores the scopes of a key.
    pub fn from_stored(own: &str, external: &str) -> Self {
        let external: BTreeSet<String> = external.split_whitespace().map(str::to_owned).collect();
        Self { own: ScopeSet::from_stored(own), external: external.into() }
    }

    /// Parses a stored list of names, which [`fmt::Display`] writes. A name that is not one of Latchkey's own scopes is
    /// an external one.
    pub fn from_stored_list(names: &str) -> Self {
        let mut grant = Self::default();
        for name in names.split_whitespace() {
            grant.add(name);
        }
        grant
    }

    /// Parses names separated by single spaces (RFC 6749, section 3.3). Returns `None` if a name is invalid or
    /// repeated.
    pub fn parse(names: &str) -> Option<Self> {
        let mut grant = Self::default();
        names.split(' ').all(|name| is_scope_token(name) && grant.add(name)).then_some(grant)
    }

    /// Whether `scope` is in the grant.
    pub fn contains(&self, scope: Scope) -> bool {
        self.own.contains(scope)
    }

    /// Whether the scope with this name is in the grant, whether Latchkey's own or external.
    pub fn holds(&self, name: &str) -> bool {
        match Scope::named(name) {
            Some(own) => self.own.contains(own),
            None => self.external.contains(name),
        }
    }

    /// Whether the grant has no scopes.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.external.is_empty()
    }

    /// The scopes that are in both grants.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let external: BTreeSet<String> = self.external.intersection(&other.external).cloned().collect();
        Self { own: self.own.intersection(other.own), external: external.into() }
    }

    /// The scopes that are in at least one of the grants.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let external: BTreeSet<String> = self.external.union(&other.external).cloned().collect();
        Self { own: self.own.union(other.own), external: external.into() }
    }

    /// The scopes of this grant that `other` lacks.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let external: BTreeSet<String> = self.external.difference(&other.external).cloned().collect();
        Self { own: self.own.without(other.own), external: external.into() }
    }

    /// The names of the external scopes, separated by spaces.
    pub fn external_names(&self) -> String {
        self.external.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Adds the scope with this name. Returns `false` if the grant already has it.
    pub fn add(&mut self, name: &str) -> bool {
        match Scope::named(name) {
            Some(scope) if self.own.contains(scope) => false,
            Some(scope) => {
                self.own = self.own.with(scope);
                true
            }
            None => Arc::make_mut(&mut self.external).insert(name.to_owned()),
        }
    }

    /// The names of all scopes, Latchkey's own first.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.own.names().collect();
        names.extend(self.external.iter().map(String::as_str));
        names
    }
}

impl From<ScopeSet> for Grant {
    /// A grant without external scopes.
    fn from(own: ScopeSet) -> Self {
        Self { own, external: Arc::default() }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" "))
    }
}

/// Maximum number of scopes of one key or role.
pub const SCOPES_MAX: usize = 100;
/// Maximum length of a scope, in characters.
pub const SCOPE_MAX: usize = 128;

/// Whether `name` is a valid scope name: visible ASCII without `"` and `\` (RFC 6749, section 3.3).
pub fn is_scope_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_that_resembles_one_of_latchkeys_own_is_recognized() {
        for (name, own) in [
            ("page:read", Some("pages:read")),
            ("pages:edit", Some("pages:write")),
            ("PAGES:WRITE", Some("pages:write")),
            ("users:delete", Some("users:write")),
            ("user:read", Some("users:read")),
            ("key:issue", Some("keys:issue")),
            ("token:introspect", Some("tokens:introspect")),
            ("audit:write", Some("audit:read")),
            ("audits:read", Some("audit:read")),
            ("ages:read", Some("pages:read")),
            ("pages-read", Some("pages:read")),
            ("page:", Some("pages:read")),
            ("wiki:read", None),
            ("translate:use", None),
            ("pager:read", Some("pages:read")),
            ("stages:read", None),
            ("read", None),
        ] {
            assert_eq!(Scope::resembled_by(name).map(Scope::name), own, "{name}");
        }
    }

    #[test]
    fn scope_strings_are_parsed_and_written_unchanged() {
        let all = ScopeSet::all().to_string();
        assert_eq!(all.split(' ').count(), Scope::ALL.len());
        for names in ["pages:read", "pages:write", "pages:read pages:write", "audit:read tokens:introspect", &all] {
            assert_eq!(ScopeSet::from_stored(names).to_string(), names);
        }
        for (own, external) in [("", ""), ("", "translate:use"), ("pages:read keys:issue", "translate:use zzz")] {
            let grant = Grant::from_stored(own, external);
            assert_eq!((grant.own.to_string(), grant.external_names()), (own.to_owned(), external.to_owned()));
            let names = format!("{own} {external}").trim().to_owned();
            assert_eq!(grant.to_string(), names);
            assert_eq!(Grant::from_stored_list(&names), grant);
            assert!(names.is_empty() || Grant::parse(&names) == Some(grant));
        }
    }

    #[test]
    fn repeated_invalid_or_wrongly_separated_scopes_are_refused() {
        for names in
            ["", " ", "pages:read pages:read", "pages:read  pages:write", "pages:read ", "a a", "a\tb", "\"a\""]
        {
            assert_eq!(Grant::parse(names), None, "{names:?}");
        }
    }

    #[test]
    fn grants_are_combined_by_own_and_by_external_scopes() {
        let grant = |names: &str| Grant::from_stored_list(names);
        let (one, other) = (grant("pages:read keys:read a b"), grant("pages:read keys:write b c"));
        assert_eq!(one.intersection(&other), grant("pages:read b"));
        assert_eq!(one.union(&other), grant("pages:read keys:read keys:write a b c"));
        assert_eq!(one.without(&other), grant("keys:read a"));
        assert!(one.without(&one).is_empty() && !grant("a").is_empty() && !grant("pages:read").is_empty());
        assert!(one.holds("a") && one.holds("keys:read") && !one.holds("c") && !one.holds("keys:write"));
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
