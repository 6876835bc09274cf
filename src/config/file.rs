//! Reads the text of one configuration file into a [`Layer`]. Every value keeps its line; unknown
//! keys, wrong types and doubled keys are errors that say where and what was probably meant.

use super::keys::Key;
use super::layers::{Layer, Origin, Raw, RawValue, Values};
use super::problem::{ConfigError, quoted, shown_path};
use std::collections::BTreeMap;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Parses a configuration file. Returns what could be understood, and every problem.
pub fn parse(path: &Path, text: &str) -> (Layer, Vec<ConfigError>) {
    let mut reader = Reader { path, text, problems: Vec::new() };
    let layer = match DeTable::parse(text) {
        Ok(table) => reader.file(table.get_ref()),
        Err(error) => {
            reader.syntax(&error);
            Layer::default()
        }
    };
    (layer, reader.problems)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    problems: Vec<ConfigError>,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn at(&self, offset: usize) -> String {
        format!("{}:{}", shown_path(self.path), self.line(offset))
    }

    fn syntax(&mut self, error: &toml::de::Error) {
        let message = error.message().trim().replace('\n', ", ");
        let problem = ConfigError::new("the file is no TOML").because(message);
        let problem = match error.span() {
            Some(span) => {
                let line = self.text.lines().nth(self.line(span.start) - 1);
                problem.at(self.at(span.start)).fix(syntax_fix(line.unwrap_or_default()))
            }
            None => problem.at(shown_path(self.path)),
        };
        self.problems.push(problem);
    }

    fn file(&mut self, table: &DeTable<'_>) -> Layer {
        let mut profiles = BTreeMap::new();
        let values = self.values(table, None, &mut profiles);
        Layer { values, profiles }
    }

    /// Reads the keys of the file, or of one profile.
    fn values(
        &mut self,
        table: &DeTable<'_>,
        profile: Option<&str>,
        profiles: &mut BTreeMap<String, Values>,
    ) -> Values {
        let mut values = Values::new();
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(written, _)| written.span().start);
        for (written, value) in entries {
            let (name, at) = (written.get_ref().as_ref(), written.span().start);
            let origin = Origin::File {
                path: self.path.to_owned(),
                line: self.line(at),
                key: name.to_owned(),
                profile: profile.map(str::to_owned),
            };
            let Some(key) = Key::find(name) else {
                self.unknown(name, &origin);
                continue;
            };
            if key == Key::Profile {
                match value.get_ref() {
                    DeValue::Table(table) if profile.is_none() && name == "profile" => {
                        self.profiles(table, profiles);
                        continue;
                    }
                    _ if profile.is_some() => {
                        self.problems.push(
                            ConfigError::new("a profile cannot choose a profile").at(&origin).fix("take this key out"),
                        );
                        continue;
                    }
                    _ => {}
                }
            }
            match raw_value(key, value) {
                Ok(value) => {
                    let raw = Raw { value, origin };
                    if let Some(other) = values.insert(key, raw) {
                        self.doubled(key, name, &other.origin, at);
                    }
                }
                Err(error) => self.problems.push(error.at(&origin)),
            }
        }
        values
    }

    fn profiles(&mut self, table: &DeTable<'_>, profiles: &mut BTreeMap<String, Values>) {
        for (written, value) in table {
            let name = written.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Table(table) => {
                    let values = self.values(table, Some(name), &mut BTreeMap::new());
                    profiles.insert(name.to_owned(), values);
                }
                _ => self.problems.push(
                    ConfigError::new(format!("profile {} is no table", quoted(name)))
                        .at(self.at(written.span().start))
                        .fix(format!(
                            "write its values below a line [profile.{}], or choose a profile with default-profile = \"NAME\"",
                            quoted(name)
                        )),
                ),
            }
        }
    }

    fn unknown(&mut self, name: &str, origin: &Origin) {
        let error = ConfigError::new(format!("unknown key {}", quoted(name))).at(origin);
        let meant = match normal_table(name) {
            Some(meant) => Some(meant),
            None => Key::suggest(name),
        };
        self.problems.push(match meant {
            Some(meant) => error.fix(format!("did you mean {meant}?")),
            None => error.fix("take it out, or see `dcluster config show` for the keys there are"),
        });
    }

    fn doubled(&mut self, key: Key, name: &str, other: &Origin, at: usize) {
        let what = match other {
            Origin::File { key: first, line, .. } => {
                format!("{} and {} (line {line}) are the same setting", quoted(name), quoted(first))
            }
            _ => format!("{} stands twice", key.name()),
        };
        self.problems
            .push(ConfigError::new(what).at(self.at(at)).fix(format!("keep one of them; we call it {}", key.name())));
    }
}

/// Tables that users of other tools try.
fn normal_table(name: &str) -> Option<&'static str> {
    matches!(name, "profiles" | "pool" | "pools").then_some("[profile.NAME]")
}

/// The most common slip: text without quotes.
fn syntax_fix(line: &str) -> String {
    if line.trim_start().starts_with("[profile") {
        return "to choose a profile in a file that has profiles, write default-profile = \"NAME\" \
                instead of profile = \"NAME\""
            .to_owned();
    }
    if let Some((key, value)) = line.split_once('=') {
        let value = value.trim();
        let plain = |c: char| c.is_alphanumeric() || "-_.:/ ".contains(c);
        if value.chars().any(char::is_alphanumeric) && value.chars().all(plain) {
            return format!("write {} = {}: text needs quotes", key.trim(), quoted(value));
        }
    }
    "mend this line; TOML is described at https://toml.io".to_owned()
}

/// Turns a value into a raw one of the form the key has.
fn raw_value(key: Key, value: &Spanned<DeValue<'_>>) -> Result<RawValue, ConfigError> {
    let name = key.name();
    match (key, value.get_ref()) {
        (Key::Counters, DeValue::Table(table)) => table
            .iter()
            .map(|(counter, total)| match total.get_ref() {
                DeValue::Integer(total) => Ok((counter.get_ref().to_string(), total.to_string())),
                other => Err(ConfigError::new(format!(
                    "counter {} must be a whole number, not {}",
                    quoted(counter.get_ref()),
                    type_name(other)
                ))),
            })
            .collect::<Result<_, _>>()
            .map(RawValue::Table),
        (Key::Counters, other) => Err(ConfigError::new(format!("{name} must be a table, not {}", type_name(other)))
            .fix("write counters = { lic = 2 }")),
        (Key::Directives | Key::Prologue | Key::Nodelist | Key::Exclude, DeValue::Array(items)) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                other => {
                    Err(ConfigError::new(format!("{name} must be a list of texts, but one is {}", type_name(other))))
                }
            })
            .collect::<Result<_, _>>()
            .map(RawValue::List),
        (_, DeValue::String(text)) => Ok(RawValue::Scalar(text.to_string())),
        (Key::Pin, DeValue::Boolean(value)) => Ok(RawValue::Scalar(value.to_string())),
        (_, DeValue::Integer(number)) => Ok(RawValue::Scalar(number.to_string())),
        (_, DeValue::Float(number)) => Ok(RawValue::Scalar(number.to_string())),
        // A TOML time, `walltime = 01:30:00` without quotes: what was written is what was meant.
        (Key::Walltime | Key::DrainLead | Key::OrphanTimeout, DeValue::Datetime(time))
            if time.date.is_none() && time.offset.is_none() =>
        {
            Ok(RawValue::Scalar(time.to_string()))
        }
        (_, other) => Err(ConfigError::new(format!("{name} must be text or a number, not {}", type_name(other)))),
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests;
