//! Sources of settings: the defaults, a file and environment variables. Records where each setting was set.

mod names;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use self::names::{Names, SECRETS};
use super::{ConfigError, DEFAULTS, Settings, files, roles, values};

/// The setting without a default in `config/default.toml`.
const UNSET: &str = "auth.api_key_token";

/// Where a setting was set.
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

/// Where each setting that is not a default was set, by key, such as `server.listen`.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, Place>);

impl Places {
    /// Where the setting with this key was set. `None` for a default.
    pub fn of(&self, key: &str) -> Option<impl fmt::Display> {
        self.0.get(key)
    }

    /// Creates an error about the setting with this key that states where it was set.
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

/// All settings by key, and where they were set.
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

    /// Adds the settings in `file`, which override earlier ones.
    pub(super) fn read_file(&mut self, file: &Path) -> Result<(), ConfigError> {
        let text = files::settings(file)?;
        let name = file.display().to_string();
        let line_at = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        let unreadable = |error: toml::de::Error| {
            let line = line_at(error.span().map_or(0, |span| span.start));
            let line_text = text.lines().nth(line - 1).unwrap_or_default();
            ConfigError::new(format!("{name}, line {line}"), values::explain_syntax(error.message(), line_text))
        };
        let table = text.parse::<toml::Table>().map_err(unreadable)?;
        let lines = DeTable::parse(&text).map_err(unreadable)?;
        let mut found = Vec::new();
        self.walk("", &table, lines.get_ref(), &mut |key, value, at| {
            found.push((key, value.clone(), Place::File { name: name.clone(), line: line_at(at) }));
        });
        found.into_iter().try_for_each(|(key, value, place)| self.set(&key, value, place))
    }

    /// Calls `found` with key, value and byte offset of each entry in `table`. Entries of known sections are visited
    /// recursively. Keys and values are not checked.
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
                (Some(Value::Table(table)), DeValue::Table(lines))
                    if self.names().is_section(&key) || (section == roles::SECTION && !table.is_empty()) =>
                {
                    self.walk(&key, table, lines, found);
                }
                (Some(value), _) => found(key, value, name.span().start),
                (None, _) => {}
            }
        }
    }

    /// Adds the settings in environment variables, which override earlier ones.
    pub(super) fn read_environment(&mut self, environment: &HashMap<String, String>) -> Result<(), ConfigError> {
        let mut variables: Vec<(&String, &String)> = environment.iter().collect();
        // `LATCHKEY__DATABASE__URL` overrides `DATABASE_URL`, which is sorted before it.
        variables.sort();
        for (variable, value) in variables {
            let secret = SECRETS.into_iter().find(|(name, _)| variable.strip_suffix("_FILE") == Some(name));
            if let Some((name, key)) = secret {
                if environment.contains_key(name) {
                    return Err(ConfigError::new(variable, format!("{name} is also set. Unset one of them.")));
                }
                let value = Value::String(files::secret(variable, value)?);
                self.set(key, value, Place::Variable(variable.clone()))?;
            } else if let Some(key) = self.names().setting_of(variable) {
                self.set(&key, Value::String(value.clone()), Place::Variable(variable.clone()))?;
            } else if names::is_intended_as_setting(variable, value) {
                return Err(ConfigError::new(variable, self.names().explain_variable(variable)));
            }
        }
        Ok(())
    }

    fn names(&self) -> Names<'_> {
        Names::new(self.defaults.keys().map(String::as_str).collect())
    }

    /// Sets a setting. The value is converted to the type of the default.
    ///
    /// Errors: the key is unknown, or the value has another type.
    fn set(&mut self, key: &str, value: Value, place: Place) -> Result<(), ConfigError> {
        let placed = |message| ConfigError::new(format!("{key} ({place})"), message);
        let default = self.defaults.get(key).cloned().or_else(|| roles::default_of(key));
        let default = default.ok_or_else(|| {
            let explain = || match self.names().is_section(key) {
                true => self.names().explain_section(key),
                false => self.names().explain_key(key),
            };
            placed(roles::explain(key).unwrap_or_else(explain))
        })?;
        let value = values::of_type_of(&default, key, value).map_err(placed)?;
        self.values.insert(key.to_owned(), value);
        self.places.0.insert(key.to_owned(), place);
        Ok(())
    }

    /// Builds the settings.
    ///
    /// Errors name the first setting with an invalid value.
    pub(super) fn settings(self) -> Result<Settings, ConfigError> {
        match nested(&self.values).try_into::<Settings>() {
            Ok(settings) => Ok(Settings { places: self.places, ..settings }),
            Err(error) => Err(self.first_invalid().unwrap_or_else(|| ConfigError::new("all", error.message()))),
        }
    }

    /// The first setting that is invalid in combination with the defaults, as an error.
    fn first_invalid(&self) -> Option<ConfigError> {
        self.places.0.keys().find_map(|key| {
            let mut candidate = self.defaults.clone();
            candidate.insert(key.clone(), self.values.get(key)?.clone());
            let error = nested(&candidate).try_into::<Settings>().err()?;
            Some(self.places.error(key, values::explain(error.message())))
        })
    }
}

fn joined(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// Converts nested tables to dotted keys.
fn flatten(section: &str, table: toml::Table, flat: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        match (joined(section, &name), value) {
            (key, Value::Table(table)) => flatten(&key, table, flat),
            (key, value) => drop(flat.insert(key, value)),
        }
    }
}

/// Converts dotted keys to nested tables.
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
