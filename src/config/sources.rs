//! Settings as they are written: which source holds which, and where.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::names::{self, Names};
use super::{ConfigError, DEFAULTS, Settings, files, values};

/// Variables that may come from a file named by `<variable>_FILE`, with their settings. Later ones win.
pub(super) const SECRETS: [(&str, &str); 3] = [
    ("DATABASE_URL", "database.url"),
    ("LATCHKEY__DATABASE__URL", "database.url"),
    ("LATCHKEY__AUTH__API_KEY_TOKEN", "auth.api_key_token"),
];
/// The setting that has no default.
const UNSET: &str = "auth.api_key_token";

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File { name: String, line: usize },
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}, line {line}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// Where each setting was written that is not a default, by key, such as `server.listen`.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, Place>);

impl Places {
    /// Where the setting of this key was written, unless it is the default.
    pub fn of(&self, key: &str) -> Option<impl fmt::Display> {
        self.0.get(key)
    }

    /// An error about the setting of this key, with the place where it was written.
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        self.locate(ConfigError::new(key, message))
    }

    pub(super) fn locate(&self, error: ConfigError) -> ConfigError {
        match self.0.get(&error.subject) {
            Some(place) => ConfigError { subject: format!("{} ({place})", error.subject), ..error },
            None => error,
        }
    }
}

/// All settings, by key, and where they were written.
pub(super) struct Sources {
    defaults: BTreeMap<String, Value>,
    values: BTreeMap<String, Value>,
    places: Places,
}

impl Sources {
    /// The built-in defaults.
    pub(super) fn defaults() -> Result<Self, ConfigError> {
        let table = DEFAULTS.parse::<toml::Table>().map_err(|error| ConfigError::new("defaults", error.message()))?;
        let mut defaults = BTreeMap::from([(UNSET.to_owned(), Value::String(String::new()))]);
        flatten("", table, &mut defaults);
        Ok(Self { values: defaults.clone(), defaults, places: Places::default() })
    }

    /// On top of what there is, the settings in `file`.
    pub(super) fn read_file(&mut self, file: &Path) -> Result<(), ConfigError> {
        let text = files::settings(file)?;
        let name = file.display().to_string();
        let line_at = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        let unreadable = |error: toml::de::Error| {
            let line = line_at(error.span().map_or(0, |span| span.start));
            let written = text.lines().nth(line - 1).unwrap_or_default();
            ConfigError::new(format!("{name}, line {line}"), values::explain_syntax(error.message(), written))
        };
        let table = text.parse::<toml::Table>().map_err(unreadable)?;
        let lines = DeTable::parse(&text).map_err(unreadable)?;
        let mut found = Vec::new();
        self.walk("", &table, lines.get_ref(), &mut |key, value, at| {
            found.push((key, value.clone(), Place::File { name: name.clone(), line: line_at(at) }));
        });
        found.into_iter().try_for_each(|(key, value, place)| self.set(&key, value, place))
    }

    /// Calls `found` with each setting in `table`, or with what stands in its place, and where that is.
    fn walk(
        &self,
        section: &str,
        table: &toml::Table,
        lines: &DeTable<'_>,
        found: &mut impl FnMut(String, &Value, usize),
    ) {
        for (name, line) in lines {
            let key = joined(section, name.get_ref());
            match (table.get(name.get_ref().as_ref()), line.get_ref()) {
                (Some(Value::Table(table)), DeValue::Table(lines)) if self.names().is_section(&key) => {
                    self.walk(&key, table, lines, found);
                }
                (Some(value), _) => found(key, value, name.span().start),
                (None, _) => {}
            }
        }
    }

    /// On top of what there is, the settings in environment variables.
    pub(super) fn read_environment(&mut self, environment: &HashMap<String, String>) -> Result<(), ConfigError> {
        let mut variables: Vec<(&String, &String)> = environment.iter().collect();
        // `DATABASE_URL` comes before `LATCHKEY__DATABASE__URL`, which wins.
        variables.sort();
        for (variable, value) in variables {
            let secret = SECRETS.into_iter().find(|(name, _)| variable.strip_suffix("_FILE") == Some(name));
            if let Some((name, key)) = secret {
                if environment.contains_key(name) {
                    return Err(ConfigError::new(variable, format!("{name} is set, too. Unset one of them.")));
                }
                let value = Value::String(files::secret(variable, value)?);
                self.set(key, value, Place::Variable(variable.clone()))?;
            } else if let Some(key) = self.names().setting_of(variable) {
                self.set(&key, Value::String(value.clone()), Place::Variable(variable.clone()))?;
            } else if names::looks_like_ours(variable, value) {
                return Err(ConfigError::new(variable, self.names().explain_variable(variable)));
            }
        }
        Ok(())
    }

    fn names(&self) -> Names<'_> {
        Names::new(self.defaults.keys().map(String::as_str).collect())
    }

    /// Sets a setting to a value of the type of its default.
    fn set(&mut self, key: &str, value: Value, place: Place) -> Result<(), ConfigError> {
        let placed = |message| ConfigError::new(format!("{key} ({place})"), message);
        let default = self.defaults.get(key).ok_or_else(|| match &value {
            _ if self.names().is_section(key) => placed(self.names().explain_section(key)),
            _ => placed(self.names().explain_key(key)),
        })?;
        let value = values::of_type_of(default, key, value).map_err(placed)?;
        self.values.insert(key.to_owned(), value);
        self.places.0.insert(key.to_owned(), place);
        Ok(())
    }

    /// The settings, or which of them is not possible.
    pub(super) fn settings(self) -> Result<Settings, ConfigError> {
        match nested(&self.values).try_into::<Settings>() {
            Ok(settings) => Ok(Settings { places: self.places, ..settings }),
            Err(error) => Err(self.culprit().unwrap_or_else(|| ConfigError::new("all", error.message()))),
        }
    }

    /// The setting that is not possible on top of the defaults, and why.
    fn culprit(&self) -> Option<ConfigError> {
        self.places.0.keys().find_map(|key| {
            let mut alone = self.defaults.clone();
            alone.insert(key.clone(), self.values.get(key)?.clone());
            let error = nested(&alone).try_into::<Settings>().err()?;
            Some(self.places.error(key, values::explain(error.message())))
        })
    }
}

fn joined(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// Tables within tables as keys with dots.
fn flatten(section: &str, table: toml::Table, flat: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        match (joined(section, &name), value) {
            (key, Value::Table(table)) => flatten(&key, table, flat),
            (key, value) => drop(flat.insert(key, value)),
        }
    }
}

/// Keys with dots as tables within tables.
fn nested(flat: &BTreeMap<String, Value>) -> toml::Table {
    let mut root = toml::Table::new();
    for (key, value) in flat {
        let (sections, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = Some(&mut root);
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            let entry = table.map(|table| table.entry(section).or_insert_with(|| Value::Table(toml::Table::new())));
            table = entry.and_then(Value::as_table_mut);
        }
        if let Some(table) = table {
            table.insert(name.to_owned(), value.clone());
        }
    }
    root
}
