//! Layers of raw values, each with its origin, and how they are laid over each other:
//! files < the chosen profile < environment variables < flags. A later value replaces an earlier
//! one whole, lists and tables too.

use super::keys::Key;
use super::problem::{ConfigError, nearest, quoted, shown_path};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Origin {
    /// A default.
    BuiltIn {
        /// What it was derived from, if anything.
        because: Option<String>,
    },
    /// A file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key as it is written there.
        key: String,
        /// The profile in whose table it stands.
        profile: Option<String>,
    },
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// A flag of the command line.
    Flag {
        /// It, with its dashes.
        flag: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn { because: None } => f.write_str("built-in"),
            Self::BuiltIn { because: Some(why) } => write!(f, "built-in: {why}"),
            Self::File { path, line, key, profile } => {
                write!(f, "{}:{line}, key {}", shown_path(path), quoted(key))?;
                match profile {
                    Some(profile) => write!(f, " of profile {}", quoted(profile)),
                    None => Ok(()),
                }
            }
            Self::Variable { name } => f.write_str(name),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// A value as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RawValue {
    /// A text or number.
    Scalar(String),
    /// A list of texts.
    List(Vec<String>),
    /// A table of names and numbers.
    Table(Vec<(String, String)>),
}

/// A raw value with its origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raw {
    /// What was written.
    pub value: RawValue,
    /// Where.
    pub origin: Origin,
}

/// Values by key.
pub type Values = BTreeMap<Key, Raw>;

/// What one file, the environment or the command line says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layer {
    /// Its values.
    pub values: Values,
    /// Its `[profile.NAME]` tables.
    pub profiles: BTreeMap<String, Values>,
}

impl Layer {
    /// Sets a value given as a flag.
    pub fn set_flag(&mut self, key: Key, value: RawValue) {
        let origin = Origin::Flag { flag: key.flag().to_owned() };
        self.values.insert(key, Raw { value, origin });
    }
}

/// The merged values, not yet understood.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    pub(super) values: Values,
    /// The settings of each profile that is a further pool.
    pub(super) pools: BTreeMap<String, Settings>,
}

impl Settings {
    /// Whether somebody says where jobs run, so that nobody needs to look.
    pub fn names_backend(&self) -> bool {
        self.values.contains_key(&Key::Backend)
    }
}

/// All layers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layers {
    /// Files, the weakest first.
    pub files: Vec<Layer>,
    /// The environment.
    pub variables: Layer,
    /// The command line.
    pub flags: Layer,
    /// What could not be read; anything here is fatal for all commands but `config`.
    pub problems: Vec<ConfigError>,
    /// The files that were read, the weakest first.
    pub read: Vec<PathBuf>,
}

impl Layers {
    /// Returns the merged settings, with the profile that was asked for, or the first problem.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        if let Some(problem) = self.problems.first() {
            return Err(problem.clone());
        }
        let Some(asked) = self.profile() else {
            return self.with_pools(self.merged(None));
        };
        let RawValue::Scalar(name) = &asked.value else {
            return Err(ConfigError::new("a profile is one name").at(&asked.origin));
        };
        if self.profile_names().any(|known| known == name) {
            return self.with_pools(self.merged(Some(name)));
        }
        let error = ConfigError::new(format!("there is no profile {}", quoted(name))).at(&asked.origin);
        Err(self.with_known_profiles(error, name))
    }

    /// Returns the names of all profiles, each once, sorted.
    pub fn profile_names(&self) -> impl Iterator<Item = &str> {
        let names: std::collections::BTreeSet<&str> =
            self.files.iter().flat_map(|file| file.profiles.keys().map(String::as_str)).collect();
        names.into_iter()
    }

    /// Returns the settings with the values of one profile, which need not be the one asked for.
    pub(super) fn merged(&self, profile: Option<&str>) -> Settings {
        let of_profile = self.files.iter().filter_map(|file| file.profiles.get(profile?));
        let mut values = Values::new();
        for layer in self
            .files
            .iter()
            .map(|file| &file.values)
            .chain(of_profile)
            .chain([&self.variables.values, &self.flags.values])
        {
            values.extend(layer.iter().map(|(key, raw)| (*key, raw.clone())));
        }
        Settings { values, pools: BTreeMap::new() }
    }

    /// Adds the settings of the further pools: their profiles are laid over everything else.
    ///
    /// # Errors
    /// If there is no such profile.
    fn with_pools(&self, mut settings: Settings) -> Result<Settings, ConfigError> {
        let Some(raw) = settings.values.get(&Key::Pools) else { return Ok(settings) };
        // What is no list of names is said where values are read.
        for name in super::values::pools(&raw.value).unwrap_or_default() {
            if !self.profile_names().any(|known| known == name) {
                let error = ConfigError::new(format!("there is no profile {} to be a pool", quoted(&name)));
                return Err(self.with_known_profiles(error.at(&raw.origin), &name));
            }
            let mut values = self.merged(None).values;
            values.remove(&Key::Backend);
            for file in &self.files {
                values.extend(file.profiles.get(&name).into_iter().flatten().map(|(key, raw)| (*key, raw.clone())));
            }
            settings.pools.insert(name, Settings { values, pools: BTreeMap::new() });
        }
        Ok(settings)
    }

    /// Returns who asks for a profile: the strongest layer that does.
    fn profile(&self) -> Option<&Raw> {
        [&self.flags, &self.variables]
            .into_iter()
            .chain(self.files.iter().rev())
            .find_map(|layer| layer.values.get(&Key::Profile))
    }

    fn with_known_profiles(&self, error: ConfigError, asked: &str) -> ConfigError {
        let known: Vec<&str> = self.profile_names().collect();
        if let Some(name) = nearest(asked, known.iter().copied()) {
            return error.fix(format!("did you mean {}?", quoted(name)));
        }
        if known.is_empty() {
            return error.because("no configuration file has one").fix(format!(
                "write its values below [profile.{asked}] in a configuration file, or leave the profile out"
            ));
        }
        let shown: Vec<String> = known.iter().take(20).map(|name| quoted(name)).collect();
        error.because(format!("the profiles are {}", shown.join(", "))).fix("choose one of these")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(origin: &Origin, pairs: &[(Key, &str)]) -> Layer {
        let values = pairs.iter().map(|(key, text)| {
            let raw = Raw { value: RawValue::Scalar((*text).to_owned()), origin: origin.clone() };
            (*key, raw)
        });
        Layer { values: values.collect(), profiles: BTreeMap::new() }
    }

    fn file(path: &str, pairs: &[(Key, &str)]) -> Layer {
        let origin = Origin::File { path: path.into(), line: 1, key: "k".into(), profile: None };
        layer(&origin, pairs)
    }

    fn text(settings: &Settings, key: Key) -> &str {
        match &settings.values[&key].value {
            RawValue::Scalar(text) => text,
            other => panic!("{other:?}"),
        }
    }

    fn example() -> Layers {
        let mut site = file("/etc", &[(Key::Queue, "site"), (Key::Account, "site")]);
        let big = [(Key::Queue, "big"), (Key::Cores, "48"), (Key::Memory, "1G")];
        site.profiles.insert("big".into(), file("/etc", &big).values);
        let mut user = file("~", &[(Key::Queue, "user"), (Key::Cores, "2")]);
        let more = [(Key::Memory, "2G")];
        user.profiles.insert("big".into(), file("~", &more).values);
        Layers { files: vec![site, user], ..Layers::default() }
    }

    #[test]
    fn later_layers_replace() {
        let mut layers = example();
        let settings = layers.settings().expect("no profile");
        assert_eq!(text(&settings, Key::Queue), "user");
        assert_eq!(text(&settings, Key::Account), "site");

        let variable = Origin::Variable { name: "V".into() };
        layers.variables = layer(&variable, &[(Key::Profile, "big"), (Key::Cores, "3")]);
        layers.flags.set_flag(Key::Account, RawValue::Scalar("mine".into()));
        let settings = layers.settings().expect("profile big");
        assert_eq!(text(&settings, Key::Queue), "big");
        assert_eq!(text(&settings, Key::Memory), "2G");
        assert_eq!(text(&settings, Key::Cores), "3");
        assert_eq!(text(&settings, Key::Account), "mine");
        assert_eq!(settings.values[&Key::Account].origin.to_string(), "--account");
    }

    #[test]
    fn unknown_profiles_are_errors() {
        let mut layers = example();
        for (asked, fix) in [("bigg", "did you mean \"big\"?"), ("small", "choose one of these")] {
            layers.flags.set_flag(Key::Profile, RawValue::Scalar(asked.into()));
            let error = layers.settings().expect_err(asked);
            assert_eq!(error.what, format!("there is no profile {asked:?}"));
            assert_eq!(error.location.as_deref(), Some("--profile"));
            assert_eq!(error.fix.as_deref(), Some(fix));
        }
        layers.files.clear();
        let error = layers.settings().expect_err("no profiles");
        assert_eq!(error.why.as_deref(), Some("no configuration file has one"));
    }

    #[test]
    fn the_strongest_asks_for_the_profile() {
        let mut layers = example();
        layers.files[0].values.extend(file("/etc", &[(Key::Profile, "none")]).values);
        assert!(layers.settings().is_err());
        layers.files[1].values.extend(file("~", &[(Key::Profile, "big")]).values);
        assert_eq!(text(&layers.settings().expect("big"), Key::Queue), "big");
    }
}
