//! Names of settings and of their variables, and suggestions for misspelt ones.

use std::collections::BTreeSet;

use crate::config::roles;

/// Variables whose value can be read from a file that `<variable>_FILE` names, with their settings. Later ones override
/// earlier ones.
pub(super) const SECRETS: [(&str, &str); 4] = [
    ("DATABASE_URL", "database.url"),
    ("LATCHKEY__DATABASE__URL", "database.url"),
    ("LATCHKEY__AUTH__API_KEY_TOKEN", "auth.api_key_token"),
    ("LATCHKEY__MAIL__URL", "mail.url"),
];
const PREFIX: &str = "LATCHKEY__";
/// The variable that names the settings file. The command line reads it.
const FILE_VARIABLE: &str = "LATCHKEY_CONFIG";
/// The variable from which clients read the URL of the server (`docs/clients.md`). It may be set in the same
/// environment.
const CLIENT_VARIABLE: &str = "LATCHKEY_URL";

/// The keys of all settings, such as `server.listen`.
pub(super) struct Names<'a>(Vec<&'a str>);

impl<'a> Names<'a> {
    pub(super) fn new(keys: Vec<&'a str>) -> Self {
        Self(keys)
    }

    pub(super) fn is_section(&self, key: &str) -> bool {
        self.members_of(key).next().is_some()
    }

    fn members_of(&self, section: &str) -> impl Iterator<Item = &'a str> {
        let is_member = move |key: &&str| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        self.0.iter().copied().filter(is_member)
    }

    /// The setting of a variable, if the name of the variable is exact.
    pub(super) fn setting_of(&self, variable: &str) -> Option<String> {
        let known = SECRETS.into_iter().find(|(name, _)| *name == variable);
        let by_key = self.0.iter().find(|key| variable_of(key) == variable);
        known.map(|(_, key)| key).or(by_key.copied()).map(str::to_owned).or_else(|| roles::setting_of(variable))
    }

    /// Why a variable with Latchkey's prefix is not valid, and what to write instead.
    pub(super) fn explain_variable(&self, variable: &str) -> String {
        if variable == format!("{FILE_VARIABLE}_FILE") {
            return format!("This variable is not read. Write {FILE_VARIABLE}, with the name of the file.");
        }
        if let Some(name) = self.not_from_file(variable) {
            let files = SECRETS.map(|(secret, _)| format!("{secret}_FILE")).join(", ");
            return format!("This setting cannot be read from a file. Set {name} itself. Files can hold: {files}.");
        }
        let normalized = normalize(variable);
        if let Some(section) =
            self.sections().into_iter().find(|section| normalize(&variable_of(section)) == normalized)
        {
            let variables: Vec<String> = self.members_of(section).map(variable_of).collect();
            return format!("This names a whole section. Write one of {}.", variables.join(", "));
        }
        let settings = self.0.iter().map(|key| variable_of(key));
        let files = SECRETS.iter().map(|(name, _)| format!("{name}_FILE"));
        let all: Vec<String> = settings.chain(files).chain([FILE_VARIABLE.to_owned()]).collect();
        if let Some(exact) = all.iter().find(|name| normalize(name) == normalized) {
            return format!(
                "This variable is not read. Write {exact}: upper case, and two underscores before each part."
            );
        }
        if let Some(explained) = roles::explain_variable(variable) {
            return explained;
        }
        let likely = match nearest(&normalized, all.iter().map(|name| (normalize(name), name.as_str()))) {
            Some(likely) => vec![likely.to_owned()],
            None => self.without_section(&normalized),
        };
        if likely.is_empty() {
            return "There is no such setting. `latchkey config` shows all. Write LATCHKEY__SECTION__KEY, such as \
                LATCHKEY__SERVER__LISTEN, or unset the variable."
                .to_owned();
        }
        format!("There is no such setting. Did you mean {}?", likely.join(" or "))
    }

    /// The variables of the settings whose name is in this normalized variable, without their section.
    fn without_section(&self, normalized: &str) -> Vec<String> {
        let is_named = |key: &&&str| {
            let name = key.rsplit('.').next().map(normalize);
            name.as_deref() == normalized.strip_prefix("LATCHKEY_")
        };
        self.0.iter().filter(is_named).map(|key| variable_of(key)).collect()
    }

    /// For a `<variable>_FILE` of a setting that cannot be read from a file: the variable of that setting.
    fn not_from_file(&self, variable: &str) -> Option<String> {
        let name = variable.strip_suffix("_FILE")?;
        self.0.iter().map(|key| variable_of(key)).find(|known| known == name)
    }

    /// Why a key in a file is not a setting, and what to write instead.
    pub(super) fn explain_key(&self, key: &str) -> String {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let lower = key.to_ascii_lowercase();
        let sections = self.sections();
        let elsewhere = sections.iter().filter(|section| self.0.contains(&format!("{section}.{name}").as_str()));
        let elsewhere: Vec<String> = elsewhere.map(|section| format!("[{section}]")).collect();
        if !elsewhere.is_empty() && self.is_section(section) {
            return format!("[{section}] has no such setting. `{name}` is a setting of {}.", elsewhere.join(" and "));
        }
        if let Some(likely) = nearest(&lower, self.0.iter().map(|known| ((*known).to_owned(), *known))) {
            let (section, name) = likely.rsplit_once('.').unwrap_or(("", likely));
            return format!("There is no such setting. Did you mean `{name}` in [{section}]?");
        }
        if let Some(likely) = nearest(&lower, sections.iter().map(|section| ((*section).to_owned(), *section))) {
            return format!("There is no such section. Did you mean [{likely}]?");
        }
        match self.is_section(section) {
            true => format!("There is no such setting. Settings of [{section}]: {}.", self.list(section)),
            false => format!("There is no such section. There are [{}].", sections.join("], [")),
        }
    }

    /// What to write instead of a value for a whole section.
    pub(super) fn explain_section(&self, section: &str) -> String {
        format!("This is a section. Write [{section}], and below it its settings: {}.", self.list(section))
    }

    fn list(&self, section: &str) -> String {
        let names = self.members_of(section).filter_map(|key| key.strip_prefix(section)?.strip_prefix('.'));
        names.collect::<Vec<_>>().join(", ")
    }

    fn sections(&self) -> Vec<&'a str> {
        let sections: BTreeSet<&str> = self.0.iter().filter_map(|key| Some(key.rsplit_once('.')?.0)).collect();
        sections.into_iter().collect()
    }
}

/// The variable of a setting: `LATCHKEY__SERVER__LISTEN` for `server.listen`.
fn variable_of(key: &str) -> String {
    PREFIX.to_owned() + &key.to_uppercase().replace('.', "__")
}

/// The name without differences in case and in the number of underscores.
fn normalize(name: &str) -> String {
    let parts: Vec<&str> = name.split(['_', '.', '-']).filter(|part| !part.is_empty()).collect();
    parts.join("_").to_ascii_uppercase()
}

/// Of the `known` pairs of normalized name and name, the name that is most similar to `normalized`, if it is similar
/// enough.
fn nearest<'n>(normalized: &str, known: impl Iterator<Item = (String, &'n str)>) -> Option<&'n str> {
    let distances = known.map(|(other, name)| (strsim::osa_distance(normalized, &other), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 2.max(normalized.len() / 6)).then_some(name)
}

/// Whether the variable is probably intended as a setting. Kubernetes sets variables for each service of the namespace,
/// and those for a service named `latchkey` have the same prefix: `LATCHKEY_SERVICE_HOST`, `LATCHKEY_PORT=tcp://…`.
pub(super) fn is_intended_as_setting(variable: &str, value: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    let is_of_kubernetes = ["_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|part| upper.contains(part))
        || (upper.contains("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)))
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            ["_PROTO", "_PORT", "_ADDR"].iter().any(|part| upper.ends_with(&format!("{protocol}{part}")))
        });
    let has_prefix = upper.starts_with("LATCHKEY_") && ![FILE_VARIABLE, CLIENT_VARIABLE].contains(&variable);
    has_prefix && (upper.starts_with(PREFIX) || !is_of_kubernetes)
}
