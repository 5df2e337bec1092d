//! `[roles.<name>]`: external scopes of the built-in roles, and own roles.
//!
//! Unlike other sections, these are not all known in advance: each own role is a section.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use toml::Value;

use super::ConfigError;
use crate::domain::role::BuiltInRole;
use crate::domain::roles::{Role, Roles};
use crate::domain::scope::{Grant, SCOPE_MAX, SCOPES_MAX, Scope, is_scope_token};

/// Maximum number of own roles.
const ROLES_MAX: usize = 64;
/// Maximum number of scopes in all lists together.
const ALL_SCOPES_MAX: usize = 200;
/// Maximum length of the name of a role, in characters.
const NAME_MAX: usize = 32;
/// Maximum length of a description, in characters.
const DESCRIPTION_MAX: usize = 255;

/// The section whose members are roles.
pub(super) const SECTION: &str = "roles";
const DESCRIPTION: &str = "description";
const SCOPES: &str = "scopes";
const EXTERNAL: &str = "external";
/// The prefix of the variables.
const VARIABLES: &str = "LATCHKEY__ROLES__";
/// What to write for a role.
const SETTINGS: &str = "description, scopes, external";

/// `[roles.<name>]`, as written and as parsed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(try_from = "BTreeMap<String, RoleText>", into = "BTreeMap<String, RoleText>")]
pub struct RoleSettings {
    written: BTreeMap<String, RoleText>,
    roles: Roles,
}

/// A role as written. Of the built-in roles, only the external scopes can be set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct RoleText {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    external: Vec<String>,
}

impl RoleSettings {
    /// The defined roles: the built-in ones, then the own ones by name.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Checks the limits that concern more than one setting.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let own = self.written.iter().filter(|(name, _)| BuiltInRole::named(name).is_none());
        if let Some((name, text)) = own.clone().nth(ROLES_MAX) {
            let message = format!("There are {} roles. Define at most {ROLES_MAX}.", own.count());
            return Err(ConfigError::new(text.first_key(name), message));
        }
        let mut sum = 0;
        for (name, text) in &self.written {
            let scopes = text.scopes.as_ref().map_or(0, Vec::len);
            for (setting, count) in [(SCOPES, scopes), (EXTERNAL, text.external.len())] {
                sum += count;
                if sum > ALL_SCOPES_MAX {
                    let message = format!("With this list, all roles together have more than {ALL_SCOPES_MAX} scopes.");
                    return Err(ConfigError::new(key(name, setting), message));
                }
            }
            if self.roles.get(name).scopes().names().len() > SCOPES_MAX {
                let message = format!("With this list, the role has more than {SCOPES_MAX} scopes.");
                return Err(ConfigError::new(key(name, EXTERNAL), message));
            }
        }
        Ok(())
    }
}

impl From<RoleSettings> for BTreeMap<String, RoleText> {
    fn from(settings: RoleSettings) -> Self {
        settings.written
    }
}

impl TryFrom<BTreeMap<String, RoleText>> for RoleSettings {
    type Error = String;

    fn try_from(written: BTreeMap<String, RoleText>) -> Result<Self, String> {
        let mut roles = Vec::new();
        for role in BuiltInRole::ALL {
            let external = written.get(role.name()).map(|text| read_external(&text.external)).transpose()?;
            roles.push(Role::built_in(role, external.unwrap_or_default()));
        }
        for (name, text) in written.iter().filter(|(name, _)| BuiltInRole::named(name).is_none()) {
            roles.push(text.parse(name)?);
        }
        Ok(Self { written, roles: Roles::new(roles) })
    }
}

impl RoleText {
    fn parse(&self, name: &str) -> Result<Role, String> {
        let description = self.description.as_deref().unwrap_or_default();
        if description.chars().count() > DESCRIPTION_MAX {
            return Err(format!("Use at most {DESCRIPTION_MAX} characters."));
        }
        let own = read_own(self.scopes.as_deref().unwrap_or_default())?;
        let external = read_external(&self.external)?;
        Ok(Role::own(name, description, Grant { external: external.into(), ..own }))
    }

    /// The key of the first setting of the role `name` that is written.
    fn first_key(&self, name: &str) -> String {
        let setting = match (&self.description, &self.scopes) {
            (Some(_), _) => DESCRIPTION,
            (None, Some(_)) => SCOPES,
            (None, None) => EXTERNAL,
        };
        key(name, setting)
    }
}

/// Parses `scopes`. Errors name the entry by its number, because messages about settings quote no values.
fn read_own(names: &[String]) -> Result<Grant, String> {
    let mut grant = Grant::default();
    for (number, name) in (1..).zip(names) {
        if Scope::named(name).is_none() {
            let known = Scope::ALL.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(", ");
            let likely =
                Scope::resembled_by(name).map(|scope| format!(" Did you mean {}?", scope.name())).unwrap_or_default();
            return Err(format!(
                "Entry {number} is not one of Latchkey's scopes: {known}.{likely} Write scopes of other services to \
                 `{EXTERNAL}`."
            ));
        }
        if !grant.add(name) {
            return Err(format!("Entry {number} repeats an earlier one. Write each scope once."));
        }
    }
    Ok(grant)
}

/// Parses `external`. Errors: as [`read_own`].
fn read_external(names: &[String]) -> Result<BTreeSet<String>, String> {
    let mut external = BTreeSet::new();
    for (number, name) in (1..).zip(names) {
        // A stored `*` means all scopes of the role.
        if !is_scope_token(name) || name.len() > SCOPE_MAX || name == "*" {
            return Err(format!(
                "Entry {number} is not the name of a scope. Use 1 to {SCOPE_MAX} visible ASCII characters without \
                 quotation marks and backslashes, such as wiki:read."
            ));
        }
        if let Some(own) = Scope::named(name) {
            return Err(format!(
                "Entry {number} is Latchkey's own scope {}. Write it to `{SCOPES}` of an own role.",
                own.name()
            ));
        }
        if let Some(likely) = Scope::resembled_by(name) {
            return Err(format!(
                "Entry {number} looks like Latchkey's own scope {}. Write that to `{SCOPES}` of an own role, or use \
                 another prefix for the scope of another service.",
                likely.name()
            ));
        }
        if !external.insert(name.clone()) {
            return Err(format!("Entry {number} repeats an earlier one. Write each scope once."));
        }
    }
    Ok(external)
}

fn key(role: &str, setting: &str) -> String {
    format!("{SECTION}.{role}.{setting}")
}

/// Whether a role can have this name: it consists of lower-case letters, digits, `-` and `_`, and begins with a letter.
fn is_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    name.len() <= NAME_MAX && name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(valid)
}

/// Role and setting in a key. The setting is empty in the key of a whole role.
fn parts(key: &str) -> Option<(&str, &str)> {
    let rest = key.strip_prefix(SECTION)?.strip_prefix('.')?;
    Some(rest.rsplit_once('.').unwrap_or((rest, "")))
}

/// The default of a setting of an own role. `None` if the key is not one.
pub(super) fn default_of(key: &str) -> Option<Value> {
    let (_, setting) = parts(key).filter(|(role, _)| is_name(role) && BuiltInRole::named(role).is_none())?;
    match setting {
        DESCRIPTION => Some(Value::String(String::new())),
        SCOPES | EXTERNAL => Some(Value::Array(Vec::new())),
        _ => None,
    }
}

/// Why a key below `roles` is not a setting, and what to write instead. `None` for other keys.
pub(super) fn explain(key: &str) -> Option<String> {
    if key == SECTION {
        return Some(format!("This is a section. Write [{SECTION}.NAME] for each role, and below it: {SETTINGS}."));
    }
    let (role, setting) = parts(key)?;
    let is_built_in = BuiltInRole::named(role).is_some();
    Some(match setting {
        _ if !is_name(role) => format!(
            "This is not the name of a role. Use 1 to {NAME_MAX} lower-case letters, digits, `-` and `_`, and begin with \
             a letter."
        ),
        DESCRIPTION | SCOPES if is_built_in => format!(
            "The role {role} is built in, and its {setting} cannot be changed. Write only `{EXTERNAL}`, or define a role \
             of another name."
        ),
        "" => format!("This is a section. Write [{key}], and below it: {SETTINGS}."),
        _ if is_built_in => format!("There is no such setting. The only setting of [{SECTION}.{role}] is {EXTERNAL}."),
        _ => format!("There is no such setting. Settings of [{SECTION}.{role}]: {SETTINGS}."),
    })
}

/// The key that a variable sets, if it is one of a role: `roles.editor.scopes` for `LATCHKEY__ROLES__EDITOR__SCOPES`.
pub(super) fn setting_of(variable: &str) -> Option<String> {
    let (role, setting) = variable.strip_prefix(VARIABLES)?.rsplit_once("__")?;
    let is_upper = !variable.contains(|character: char| character.is_ascii_lowercase());
    is_upper.then(|| key(&role.to_ascii_lowercase(), &setting.to_ascii_lowercase()))
}

/// What to write instead of a variable that is not one of a role, but begins like one.
pub(super) fn explain_variable(variable: &str) -> Option<String> {
    let is_similar = variable.to_ascii_uppercase().starts_with("LATCHKEY__ROLE");
    is_similar.then(|| {
        format!(
            "This variable is not read. Write {VARIABLES}NAME__SCOPES, {VARIABLES}NAME__EXTERNAL or \
             {VARIABLES}NAME__DESCRIPTION, with the name of the role in upper case."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_roles_have_1_to_32_characters_and_begin_with_a_letter() {
        for name in ["a", "editor", "team-lead", "team_lead", "a1", &"a".repeat(32)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "1a", "-a", "_a", "Editor", "two words", "a.b", "caf\u{e9}", &"a".repeat(33)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
