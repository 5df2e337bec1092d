//! Names of settings and of their variables, and what somebody who misspelt one may have meant.

use std::collections::BTreeSet;

use super::sources::SECRETS;

const PREFIX: &str = "LATCHKEY__";
/// The variable that names the settings file; the command line reads it.
const FILE_VARIABLE: &str = "LATCHKEY_CONFIG";
/// The variable by which clients find a server (docs/clients.md). It may stand in the same environment.
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

    /// The setting of a variable, which is spelt exactly.
    pub(super) fn setting_of(&self, variable: &str) -> Option<String> {
        let known = SECRETS.into_iter().find(|(name, _)| *name == variable);
        let by_key = self.0.iter().find(|key| variable_of(key) == variable);
        known.map(|(_, key)| key).or(by_key.copied()).map(str::to_owned)
    }

    /// Why a variable that looks like one of ours is none, and what to write instead.
    pub(super) fn explain_variable(&self, variable: &str) -> String {
        if variable == format!("{FILE_VARIABLE}_FILE") {
            return format!("This variable is not read. Write {FILE_VARIABLE}, with the name of the file.");
        }
        if let Some(name) = self.without_file(variable) {
            let files = SECRETS.map(|(secret, _)| format!("{secret}_FILE")).join(", ");
            return format!("This setting cannot be read from a file. Set {name} itself. Files can hold: {files}.");
        }
        let meant = spelling(variable);
        if let Some(section) = self.sections().into_iter().find(|section| spelling(&variable_of(section)) == meant) {
            let variables: Vec<String> = self.members_of(section).map(variable_of).collect();
            return format!("This names a whole section. Write one of {}.", variables.join(", "));
        }
        let settings = self.0.iter().map(|key| variable_of(key));
        let files = SECRETS.iter().map(|(name, _)| format!("{name}_FILE"));
        let all: Vec<String> = settings.chain(files).chain([FILE_VARIABLE.to_owned()]).collect();
        if let Some(exact) = all.iter().find(|name| spelling(name) == meant) {
            return format!(
                "This variable is not read. Write {exact}: upper case, and two underscores before each part."
            );
        }
        match nearest(&meant, all.iter().map(|name| (spelling(name), name.as_str()))) {
            Some(likely) => format!("There is no such setting. Did you mean {likely}?"),
            None => "There is no such setting. `latchkey config` shows all. Write LATCHKEY__SECTION__KEY, such as \
                LATCHKEY__SERVER__LISTEN, or unset the variable."
                .to_owned(),
        }
    }

    /// The variable of the setting whose `_FILE` this is, if only the setting itself can be set.
    fn without_file(&self, variable: &str) -> Option<String> {
        let name = variable.strip_suffix("_FILE")?;
        self.0.iter().map(|key| variable_of(key)).find(|known| known == name)
    }

    /// Why a key in a file is no setting, and what to write instead.
    pub(super) fn explain_key(&self, key: &str) -> String {
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let lower = key.to_ascii_lowercase();
        let sections = self.sections();
        let elsewhere = sections.iter().filter(|section| self.0.contains(&format!("{section}.{name}").as_str()));
        let elsewhere: Vec<String> = elsewhere.map(|section| format!("[{section}]")).collect();
        if !elsewhere.is_empty() && self.is_section(section) {
            return format!("[{section}] has no such setting. `{name}` stands in {}.", elsewhere.join(" and "));
        }
        if let Some(likely) = nearest(&lower, self.0.iter().map(|known| ((*known).to_owned(), *known))) {
            let (place, name) = likely.rsplit_once('.').unwrap_or(("", likely));
            return format!("There is no such setting. Did you mean `{name}` in [{place}]?");
        }
        if let Some(likely) = nearest(&lower, sections.iter().map(|section| ((*section).to_owned(), *section))) {
            return format!("There is no such section. Did you mean [{likely}]?");
        }
        match self.is_section(section) {
            true => format!("There is no such setting. Settings of [{section}]: {}.", self.list(section)),
            false => format!("There is no such section. There are [{}].", sections.join("], [")),
        }
    }

    /// What to write in the place of a value of a whole section.
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

/// A name as it reads when case and the number of underscores do not count.
fn spelling(name: &str) -> String {
    let parts: Vec<&str> = name.split(['_', '.', '-']).filter(|part| !part.is_empty()).collect();
    parts.join("_").to_ascii_uppercase()
}

/// The name of the known spelling that differs least, if it differs little.
fn nearest<'n>(meant: &str, known: impl Iterator<Item = (String, &'n str)>) -> Option<&'n str> {
    let distances = known.map(|(spelling, name)| (strsim::osa_distance(meant, &spelling), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 2.max(meant.len() / 6)).then_some(name)
}

/// Whether somebody who set this variable meant a setting. Kubernetes sets variables for each service of the namespace
/// (`LATCHKEY_SERVICE_HOST`, `LATCHKEY_PORT=tcp://…`), and for one that is called `latchkey` they begin like ours.
pub(super) fn looks_like_ours(variable: &str, value: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    let is_of_a_service = ["_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|part| upper.contains(part))
        || (upper.contains("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)))
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            ["_PROTO", "_PORT", "_ADDR"].iter().any(|part| upper.ends_with(&format!("{protocol}{part}")))
        });
    let is_ours = upper.starts_with("LATCHKEY_") && ![FILE_VARIABLE, CLIENT_VARIABLE].contains(&variable);
    is_ours && (upper.starts_with(PREFIX) || !is_of_a_service)
}
