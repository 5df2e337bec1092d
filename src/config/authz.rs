//! `[authz]`: which requests to other services may pass.

use serde::{Deserialize, Serialize};

use super::{ConfigError, HttpSettings};
use crate::domain::forward::{Access, Host, Method, PlainPath, Rule, Rules, scope_list};

/// `[authz]`. `docs/forward-auth.md` says what it is for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthzSettings {
    /// Which decisions are in the audit trail, beside refusals of known callers.
    pub audit: ForwardAudit,
    /// In order.
    pub rules: ForwardRules,
}

impl AuthzSettings {
    /// Whether it matters which request a proxy asks about.
    pub fn look_at_requests(&self) -> bool {
        self.audit == ForwardAudit::Writes || !self.rules.rules().are_none()
    }

    /// Without a proxy that is believed, every request would be refused.
    pub(super) fn check(&self, http: &HttpSettings) -> Result<(), ConfigError> {
        if self.look_at_requests() && http.trusted_proxies.are_none() {
            let subject = if self.rules.rules().are_none() { "authz.audit" } else { "authz.rules" };
            let detail = "This depends on what a proxy says about requests. Name the proxy in http.trusted_proxies.";
            return Err(ConfigError::new(subject, detail));
        }
        Ok(())
    }
}

/// Which decisions are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum ForwardAudit {
    /// None.
    Off,
    /// Those about requests that change something.
    Writes,
}

impl TryFrom<String> for ForwardAudit {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "off" => Ok(Self::Off),
            "writes" => Ok(Self::Writes),
            _ => Err("Write \"off\" or \"writes\"."),
        }
    }
}

/// `[[authz.rules]]`, as they are written and as they are meant.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "Vec<RuleText>", into = "Vec<RuleText>")]
pub struct ForwardRules {
    written: Vec<RuleText>,
    meant: Rules,
}

impl ForwardRules {
    /// As they are meant.
    pub fn rules(&self) -> &Rules {
        &self.meant
    }
}

/// A rule as it is written.
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
        let read = |(at, text): (usize, &RuleText)| text.read().map_err(|wrong| format!("rule {}: {wrong}.", at + 1));
        let meant = written.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { written, meant: Rules::new(meant) })
    }
}

impl RuleText {
    fn read(&self) -> Result<Rule, &'static str> {
        let host = self.host.as_deref().map(|host| Host::read(host).ok_or("host: use a name such as api.example.com"));
        let methods =
            self.methods.iter().flatten().map(|method| Method::read(method).ok_or("methods: use such as GET"));
        let methods = methods.collect::<Result<Vec<_>, _>>()?;
        if self.methods.is_some() && methods.is_empty() {
            return Err("methods: leave it out for all methods");
        }
        if self.path.as_deref().is_some_and(|path| path.contains(['*', '{', '}'])) {
            return Err("path: patterns are not supported; a path stands for all below it, so write its beginning");
        }
        let path = self.path.as_deref().map(|path| {
            let plain = Some(path).filter(|path| !path.contains('?')).and_then(PlainPath::read);
            plain.ok_or("path: begin with /, and use nothing that could be read in two ways")
        });
        Ok(Rule { host: host.transpose()?, methods, path: path.transpose()?, access: self.access()? })
    }

    fn access(&self) -> Result<Access, &'static str> {
        match (&self.scopes, self.public.unwrap_or(false)) {
            (None, true) => Ok(Access::Public),
            (Some(scopes), false) if scopes.iter().all(|scope| scope_list(scope).is_some_and(|one| one.len() == 1)) => {
                Ok(Access::Holders(scopes.clone()))
            }
            (Some(_), false) => Err("scopes: use names such as \"translate:use\""),
            _ => Err("say either scopes = [...] or public = true"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    /// The settings in a file with these lines.
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
        assert!(Settings::defaults().unwrap().authz.rules.rules().are_none());
    }

    #[test]
    fn a_wrong_rule_refuses_to_start_and_is_named() {
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
    fn audit_takes_a_proxy_that_is_believed() {
        let environment = [("LATCHKEY__AUTHZ__AUDIT".to_owned(), "writes".to_owned())];
        let error = Settings::load(None, environment).unwrap_err().to_string();
        assert!(error.contains("http.trusted_proxies"), "{error}");
    }
}
