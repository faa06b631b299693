//! Merging layers of settings, with the origin of every key.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use crate::Settings;
use crate::check::check;
use crate::renamed_keys::new_name;

/// Prefix of environment variables that are settings: `FACEFLOW_FETCH__PER_HOST` is `fetch.per_host`.
const ENV_PREFIX: &str = "FACEFLOW_";

/// Why settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file that cannot be read.
    #[error("{file}: cannot be read: {reason}")]
    File {
        /// The file.
        file: String,
        /// The system's words.
        reason: String,
    },
    /// Text that is not TOML.
    #[error("{origin}: {reason}")]
    Syntax {
        /// The file or flag.
        origin: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A key that does not exist, or a value of the wrong type.
    #[error("{origin}: {key}{}: {reason}", .value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default())]
    Key {
        /// The file, variable or flag.
        origin: String,
        /// The key.
        key: String,
        /// Its value, where there is one.
        value: Option<String>,
        /// What is allowed.
        reason: String,
    },
}

/// Layers of settings, later ones overriding earlier ones.
pub struct Layers {
    defaults: Table,
    merged: Table,
    origins: BTreeMap<String, String>,
}

impl Default for Layers {
    fn default() -> Self {
        let defaults = Table::try_from(Settings::default()).expect("the defaults are a TOML table");
        Self { defaults, merged: Table::new(), origins: BTreeMap::new() }
    }
}

impl Layers {
    /// Adds a file.
    pub fn file(self, path: &Path) -> Result<Self, SettingsError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| SettingsError::File { file: file.clone(), reason: error.to_string() })?;
        self.text(&file, &text)
    }

    /// Adds TOML text that came from `origin`.
    pub fn text(mut self, origin: &str, text: &str) -> Result<Self, SettingsError> {
        let table: Table = toml::from_str(text)
            .map_err(|error| SettingsError::Syntax { origin: origin.to_owned(), reason: error.to_string() })?;
        for (path, value) in leaves(table) {
            self.put(&path, value, origin);
        }
        Ok(self)
    }

    /// Adds the environment variables that are settings: `FACEFLOW_SECTION__KEY`.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(ENV_PREFIX).filter(|rest| rest.contains("__")) else { continue };
            let path: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
            self.put_text(&path, &text, &name);
        }
        self
    }

    /// Adds one `key=value`, as after `--set`.
    pub fn set(self, assignment: &str) -> Result<Self, SettingsError> {
        self.assign(&format!("--set {assignment}"), assignment)
    }

    /// Adds one `key=value` that came from `origin`.
    pub fn assign(mut self, origin: &str, assignment: &str) -> Result<Self, SettingsError> {
        let Some((key, text)) = assignment.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
            let reason = "expected key=value, as in --set fetch.per_host=8".to_owned();
            return Err(SettingsError::Syntax { origin: origin.to_owned(), reason });
        };
        let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        self.put_text(&path, text.trim(), origin);
        Ok(self)
    }

    /// The settings that the layers make, checked.
    pub fn settings(self) -> Result<Settings, SettingsError> {
        let parsed: Result<Settings, _> = serde_path_to_error::deserialize(Value::Table(self.merged.clone()));
        let settings = parsed.map_err(|error| {
            let key = error.path().to_string();
            self.complaint(&key, error.into_inner().to_string().trim().to_owned())
        })?;
        check(&settings).map_err(|wrong| self.complaint(&wrong.key, format!("allowed: {}", wrong.allowed)))?;
        Ok(settings)
    }

    fn complaint(&self, key: &str, reason: String) -> SettingsError {
        // An unknown key is reported at its table; name the key itself.
        let unknown = reason.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let key = match unknown {
            Some(field) if key == "." => field.to_owned(),
            Some(field) if !key.ends_with(&format!(".{field}")) && key != field => format!("{key}.{field}"),
            _ => key.to_owned(),
        };
        let reason = match (unknown, new_name(&key)) {
            (Some(_), Some(new)) => format!("it is called {new} now"),
            _ => reason,
        };
        let under = |path: &&String| {
            **path == key || path.starts_with(&format!("{key}.")) || key.starts_with(&format!("{path}["))
        };
        let origin = self.origins.keys().find(under).and_then(|path| self.origins.get(path));
        let value = key.split('.').try_fold(None::<&Value>, |at, part| match at {
            None => self.merged.get(part).map(Some),
            Some(value) => value.get(part).map(Some),
        });
        SettingsError::Key {
            origin: origin.cloned().unwrap_or_else(|| "settings".to_owned()),
            value: value.flatten().map(Value::to_string),
            key,
            reason: reason.replace('\n', " "),
        }
    }

    fn put_text(&mut self, path: &[String], text: &str, origin: &str) {
        let value = text.parse::<Value>().unwrap_or_else(|_| Value::String(text.to_owned()));
        let value = match (self.default_of(path), value) {
            (Some(Value::Array(_)), Value::Array(items)) => Value::Array(items),
            (Some(Value::Array(like)), _) => list(text, like.first()),
            (Some(Value::String(_)), Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_)) => {
                Value::String(text.to_owned())
            }
            (_, value) => value,
        };
        self.put(path, value, origin);
    }

    fn default_of(&self, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.defaults.get(first)?, |at, part| at.get(part))
    }

    fn put(&mut self, path: &[String], value: Value, origin: &str) {
        self.origins.insert(path.join("."), origin.to_owned());
        let mut at = &mut self.merged;
        let (last, tables) = path.split_last().expect("a key has a name");
        for part in tables {
            let entry = at.entry(part.clone()).or_insert_with(|| Value::Table(Table::new()));
            if !entry.is_table() {
                *entry = Value::Table(Table::new());
            }
            at = entry.as_table_mut().expect("it was just made a table");
        }
        at.insert(last.clone(), value);
    }
}

/// `a, b` as a list, each item of the kind that the default's items have.
fn list(text: &str, like: Option<&Value>) -> Value {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(|item| match like {
        Some(Value::String(_)) | None => item
            .parse::<i64>()
            .ok()
            .filter(|_| like.is_none())
            .map_or_else(|| Value::String(item.to_owned()), Value::Integer),
        Some(_) => item.parse::<Value>().unwrap_or_else(|_| Value::String(item.to_owned())),
    });
    Value::Array(items.collect())
}

/// Every value of the settings with its key. One that is left out has none.
pub fn leaves_of(settings: &Settings) -> BTreeMap<String, Value> {
    let table = Table::try_from(settings).expect("settings are a TOML table");
    leaves(table).into_iter().map(|(path, value)| (path.join("."), value)).collect()
}

/// Every value of a table with its path.
fn leaves(table: Table) -> Vec<(Vec<String>, Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) if !inner.is_empty() => {
                found.extend(leaves(inner).into_iter().map(|(mut path, value)| {
                    path.insert(0, key.clone());
                    (path, value)
                }));
            }
            value => found.push((vec![key], value)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(layers: Result<Layers, SettingsError>) -> String {
        match layers.and_then(Layers::settings) {
            Ok(_) => panic!("these settings are wrong"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_reference_file_has_every_key_at_its_default() {
        let table: Table = toml::from_str(crate::REFERENCE).expect("the reference file is TOML");
        let written: BTreeMap<String, Value> =
            leaves(table).into_iter().map(|(path, value)| (path.join("."), value)).collect();
        let defaults: BTreeMap<String, Value> =
            leaves(Layers::default().defaults).into_iter().map(|(path, value)| (path.join("."), value)).collect();
        assert_eq!(written, defaults, "every key of the defaults is in config/faceflow.toml, with its default");
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let variable = ("FACEFLOW_FETCH__PER_HOST".to_owned(), "3".to_owned());
        let file = "[fetch]\nper_host = 2\nconcurrency = 9\n";
        let layers = || Layers::default().text("f.toml", file).expect("TOML").environment([variable.clone()]);
        let settings = layers().settings().expect("valid");
        assert_eq!((settings.fetch.per_host, settings.fetch.concurrency), (3, 9));
        let settings = layers().set("fetch.per_host=4").and_then(Layers::settings).expect("valid");
        assert_eq!(settings.fetch.per_host, 4);
    }

    #[test]
    fn lists_are_written_with_commas_or_as_toml() {
        for text in ["fetch.allow_networks=127.0.0.0/8, ::1/128", "fetch.allow_networks=[\"127.0.0.0/8\", \"::1/128\"]"]
        {
            let settings = Layers::default().set(text).and_then(Layers::settings).expect("valid");
            assert_eq!(settings.fetch.allow_networks.len(), 2, "{text}");
        }
    }

    #[test]
    fn mistakes_name_key_origin_value_and_what_is_allowed() {
        let unknown = refused(Layers::default().text("my.toml", "[fetch]\nper_hots = 2\n"));
        assert!(
            unknown.contains("my.toml") && unknown.contains("fetch.per_hots") && unknown.contains("per_host"),
            "{unknown}"
        );
        let section = refused(Layers::default().text("my.toml", "[fetsch]\nper_host = 2\n"));
        assert!(section.contains("my.toml") && section.contains("fetsch") && section.contains("`fetch`"), "{section}");
        let kind = refused(Layers::default().set("fetch.per_host=many"));
        assert!(kind.contains("--set fetch.per_host=many") && kind.contains("\"many\""), "{kind}");
        let value = refused(Layers::default().set("retry.web.attempts_max=0"));
        assert!(value.contains("retry.web.attempts_max = 0") && value.contains("1 or more"), "{value}");
        let shape = refused(Layers::default().set("crawl.shape=wide"));
        assert!(shape.contains("crawl.shape") && shape.contains("3x3"), "{shape}");
        let renamed = refused(Layers::default().text("my.toml", "[mine]\nlisting_images_max = 2\n"));
        let names = ["my.toml", "mine.listing_images_max", "called mine.feed_images_max now"];
        assert!(names.iter().all(|name| renamed.contains(name)), "{renamed}");
        assert!(refused(Layers::default().set("per_host")).contains("key=value"));
        assert!(refused(Layers::default().file(Path::new("no/such.toml"))).contains("no/such.toml"));
        assert!(refused(Layers::default().text("my.toml", "[fetch\n")).contains("my.toml"));
    }
}
