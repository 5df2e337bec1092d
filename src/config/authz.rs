//! `[authz]`: rules and audit of forward authentication.

use serde::{Deserialize, Serialize};

use super::choice::choice;
use super::{ConfigError, HttpSettings};
use crate::domain::forward::{Access, Host, Method, PlainPath, Rule, Rules, scope_list};

/// `[authz]`: forward authentication, which `docs/forward-auth.md` describes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthzSettings {
    /// The decisions that are recorded in the audit trail, besides refusals of authenticated callers.
    pub audit: ForwardAudit,
    /// The rules, in order of evaluation.
    pub rules: ForwardRules,
}

impl AuthzSettings {
    /// Whether decisions depend on the original request, which the proxy must then state.
    pub fn requires_original_request(&self) -> bool {
        self.audit == ForwardAudit::Writes || !self.rules.rules().is_empty()
    }

    /// Errors: the original request is required and there is no trusted proxy, so that every request would be refused.
    pub(super) fn check(&self, http: &HttpSettings) -> Result<(), ConfigError> {
        if self.requires_original_request() && http.trusted_proxies.is_empty() {
            let subject = if self.rules.rules().is_empty() { "authz.audit" } else { "authz.rules" };
            let message = "This setting requires a trusted proxy that states the original request. Name the proxy in \
                http.trusted_proxies.";
            return Err(ConfigError::new(subject, message));
        }
        Ok(())
    }
}

choice! {
    /// The decisions that are recorded in the audit trail.
    pub enum ForwardAudit {
        /// No decisions.
        Off = "off",
        /// Decisions about POST, PUT, PATCH and DELETE requests.
        Writes = "writes",
    }
}

/// `[[authz.rules]]`, as written and as parsed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "Vec<RuleText>", into = "Vec<RuleText>")]
pub struct ForwardRules {
    written: Vec<RuleText>,
    parsed: Rules,
}

impl ForwardRules {
    /// The parsed rules.
    pub fn rules(&self) -> &Rules {
        &self.parsed
    }
}

/// A rule as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    methods: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public: Option<bool>,
}

impl From<ForwardRules> for Vec<RuleText> {
    fn from(rules: ForwardRules) -> Self {
        rules.written
    }
}

impl TryFrom<Vec<RuleText>> for ForwardRules {
    type Error = String;

    fn try_from(written: Vec<RuleText>) -> Result<Self, String> {
        let parse = |(at, text): (usize, &RuleText)| text.parse().map_err(|error| format!("rule {}: {error}.", at + 1));
        let parsed = written.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { written, parsed: Rules::new(parsed) })
    }
}

impl RuleText {
    fn parse(&self) -> Result<Rule, &'static str> {
        let host = self.host.as_deref().map(|host| Host::read(host).ok_or("host: use a name such as api.example.com"));
        let methods =
            self.methods.iter().flatten().map(|method| Method::read(method).ok_or("methods: use names such as GET"));
        let methods = methods.collect::<Result<Vec<_>, _>>()?;
        if self.methods.is_some() && methods.is_empty() {
            return Err("methods: omit the key to match all methods");
        }
        if self.path.as_deref().is_some_and(|path| path.contains(['*', '{', '}'])) {
            return Err("path: patterns are not supported; a path also matches all paths below it");
        }
        let path = self.path.as_deref().map(|path| {
            let plain = Some(path).filter(|path| !path.contains('?')).and_then(PlainPath::read);
            plain.ok_or("path: it must begin with / and must not be ambiguous, see docs/forward-auth.md")
        });
        Ok(Rule { host: host.transpose()?, methods, path: path.transpose()?, access: self.access()? })
    }

    fn access(&self) -> Result<Access, &'static str> {
        match (&self.scopes, self.public.unwrap_or(false)) {
            (None, true) => Ok(Access::Public),
            (Some(scopes), false) if scopes.iter().all(|scope| scope_list(scope).is_some_and(|one| one.len() == 1)) => {
                Ok(Access::Scopes(scopes.clone()))
            }
            (Some(_), false) => Err("scopes: use names such as \"translate:use\""),
            _ => Err("write either scopes = [...] or public = true"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    /// Loads a settings file with these lines.
    fn load(lines: &str) -> Result<Settings, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("[http]\ntrusted_proxies = [\"10.0.0.1\"]\n{lines}")).unwrap();
        Settings::load(Some(file.path()), []).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_read_and_printed_as_they_are_written() {
        let rules = "[[authz.rules]]\nhost = \"a.example.com\"\nmethods = [\"GET\"]\npath = \"/a\"\npublic = true\n\n\
                     [[authz.rules]]\nscopes = [\"translate:use\"]\n";
        let printed = load(rules).unwrap().to_string();
        assert!(printed.contains(rules), "{printed}");
        assert!(Settings::defaults().unwrap().authz.rules.rules().is_empty());
    }

    #[test]
    fn an_invalid_rule_is_an_error_that_names_it() {
        for (rule, says) in [
            ("", "scopes"),
            ("public = false", "scopes"),
            ("public = true\nscopes = []", "either"),
            ("scopes = [\"two words\"]", "scopes"),
            ("scopes = [\"\"]", "scopes"),
            ("public = true\nhost = \"a b\"", "host"),
            ("public = true\nmethods = []", "methods"),
            ("public = true\nmethods = [\"G E T\"]", "methods"),
            ("public = true\npath = \"a\"", "path"),
            ("public = true\npath = \"/a/../b\"", "path"),
            ("public = true\npath = \"/a?b\"", "path"),
            ("public = true\npath = \"/a/*\"", "patterns"),
            ("public = true\npath = \"/a/{id}\"", "patterns"),
            ("public = true\nhost = \"*.example.com\"", "host"),
            ("public = true\nport = 1", "port"),
        ] {
            let error = load(&format!("[[authz.rules]]\nscopes = []\n[[authz.rules]]\n{rule}\n")).unwrap_err();
            assert!(error.contains("authz.rules") && error.contains(says), "{rule:?}: {error}");
            assert!(error.contains("rule 2") || says == "port", "{rule:?}: {error}");
        }
    }

    #[test]
    fn audit_requires_a_trusted_proxy() {
        let environment = [("LATCHKEY__AUTHZ__AUDIT".to_owned(), "writes".to_owned())];
        let error = Settings::load(None, environment).unwrap_err().to_string();
        assert!(error.contains("http.trusted_proxies"), "{error}");
    }
}
