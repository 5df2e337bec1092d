//! The rules that decide which requests may pass.

use super::request::{Host, Method, OriginalRequest, PlainPath, TargetPath};
use crate::domain::scope::is_scope_token;
use crate::error::Denial;

/// The callers whose requests may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every caller, without a credential.
    Public,
    /// Callers with a valid credential that holds all of these scopes, own or external.
    Scopes(Vec<String>),
}

/// A rule for requests to other services.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The host that the rule matches. `None` matches every host.
    pub host: Option<Host>,
    /// The methods that the rule matches. An empty list matches every method, and GET also matches HEAD.
    pub methods: Vec<Method>,
    /// The path that the rule matches, with all paths below it. `None` matches every path.
    pub path: Option<PlainPath>,
    /// The callers whose requests may pass.
    pub access: Access,
}

impl Rule {
    /// Errors: [`Denial::Ambiguous`] if the rule has a path and the path of the request is ambiguous.
    fn matches(&self, original: &OriginalRequest) -> Result<bool, Denial> {
        let effective = if original.method.0 == "HEAD" { "GET" } else { &original.method.0 };
        let matches_method = |method: &Method| method.0 == effective || *method == original.method;
        let applies = (self.host.is_none() || self.host == original.host)
            && (self.methods.is_empty() || self.methods.iter().any(matches_method));
        match (&self.path, &original.path) {
            (Some(prefix), TargetPath::Plain(path)) => Ok(applies && path.is_within(prefix)),
            (Some(_), TargetPath::Ambiguous(_)) if applies => Err(Denial::Ambiguous),
            _ => Ok(applies),
        }
    }
}

/// The rules, in order.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Creates a list of rules that are evaluated in this order.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the access of the first rule that matches the request.
    ///
    /// Errors: [`Denial::NoRule`] if no rule matches; [`Denial::MissingOriginalRequest`] if any rule has a host and the
    /// proxy did not state it; [`Denial::Ambiguous`] if the path is ambiguous and the first rule that matches host and
    /// method has a path.
    pub fn access(&self, original: &OriginalRequest) -> Result<&Access, Denial> {
        // If such a rule just did not match, a later rule could allow the request with fewer scopes.
        if original.host.is_none() && self.0.iter().any(|rule| rule.host.is_some()) {
            return Err(Denial::MissingOriginalRequest);
        }
        for rule in &self.0 {
            if rule.matches(original)? {
                return Ok(&rule.access);
            }
        }
        Err(Denial::NoRule)
    }
}

/// Parses a list of scopes that are separated by single spaces. Returns `None` if one of them is not a valid scope
/// name.
pub fn scope_list(text: &str) -> Option<Vec<String>> {
    text.split(' ').map(|name| is_scope_token(name).then(|| name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn original(method: &str, host: &str, target: &str) -> OriginalRequest {
        OriginalRequest {
            method: Method::read(method).unwrap(),
            host: Host::read(host),
            path: TargetPath::read(target).unwrap(),
        }
    }

    fn rule(host: &str, methods: &[&str], prefix: &str, access: Access) -> Rule {
        let methods = methods.iter().map(|method| Method::read(method).unwrap()).collect();
        Rule { host: Host::read(host), methods, path: PlainPath::read(prefix), access }
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_without_one_no_request_passes() {
        let scopes = |scope: &str| Access::Scopes(vec![scope.to_owned()]);
        let rules = Rules::new(vec![
            rule("api.example.com", &["GET"], "/public", Access::Public),
            rule("api.example.com", &[], "/public/x", scopes("never:reached_by_get")),
            rule("api.example.com", &["POST", "DELETE"], "", scopes("api:write")),
            rule("api.example.com", &[], "/", scopes("api:read")),
            rule("git.example.com", &[], "", scopes("git:read")),
            rule("", &["GET"], "/status/", Access::Public),
        ]);
        for (method, host, target, access) in [
            ("GET", "api.example.com", "/public", Ok(Access::Public)),
            ("get", "API.example.com:443", "/public/x?y", Ok(Access::Public)),
            ("HEAD", "api.example.com", "/public/x", Ok(Access::Public)),
            ("POST", "api.example.com", "/public/x", Ok(scopes("never:reached_by_get"))),
            ("GET", "api.example.com", "/publicity", Ok(scopes("api:read"))),
            ("delete", "api.example.com", "/public", Ok(scopes("api:write"))),
            ("GET", "other.example.com", "/status", Ok(Access::Public)),
            ("GET", "other.example.com", "/", Err(Denial::NoRule)),
            ("PUT", "other.example.com", "/status", Err(Denial::NoRule)),
            ("GET", "", "/status", Err(Denial::MissingOriginalRequest)),
            // A rule without a path accepts ambiguous paths.
            ("GET", "git.example.com", "/api/v4/projects/a%2Fb/..//;x?y", Ok(scopes("git:read"))),
            ("GET", "git.example.com", "*", Ok(scopes("git:read"))),
            ("DELETE", "api.example.com", "/a%2Fb", Err(Denial::Ambiguous)),
            ("GET", "other.example.com", "//status", Err(Denial::Ambiguous)),
            ("PUT", "other.example.com", "//status", Err(Denial::NoRule)),
        ] {
            let found = rules.access(&original(method, host, target)).cloned();
            assert_eq!(found, access, "{method} {host} {target}");
        }
        assert_eq!(Rules::default().access(&original("GET", "", "/")), Err(Denial::NoRule));
    }

    proptest! {
        #[test]
        fn reading_a_list_of_scopes_never_panics(text in "\\PC{0,40}") {
            let _ = scope_list(&text);
        }
    }
}
