//! Where the layers come from: four files and the environment.

use super::file;
use super::keys::Key;
use super::layers::{Layer, Layers, Origin, Raw, RawValue};
use super::paths::Variables;
use super::problem::{ConfigError, nearest, quoted, shown_path};
use super::trust;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Configuration of the whole machine or site.
const SITE_FILE: &str = "/etc/dcluster/config.toml";

/// Variables that are ours but no settings: of the program itself, or set by workers for tasks.
const NOT_SETTINGS: [&str; 6] = ["ACCESS", "CLUSTER", "CPUS", "JOB", "LOG", "STATE"];

/// What to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sources {
    /// The site's file.
    pub site: PathBuf,
    /// What the doctor saved for this host.
    pub saved: Option<PathBuf>,
    /// The user's file.
    pub user: Option<PathBuf>,
    /// `dcluster.toml` in the working folder.
    pub project: PathBuf,
    /// The state folder, in which it is remembered which files are trusted.
    pub state: PathBuf,
    /// The environment.
    pub variables: Variables,
    /// Who I am.
    pub uid: u32,
}

impl Sources {
    /// Returns those of a process started by the user in the current folder.
    pub fn of_process(variables: Variables) -> Result<Self, ConfigError> {
        let folder = std::env::current_dir().map_err(|error| {
            ConfigError::new("there is no current folder").because(error).fix("cd to a folder that exists")
        })?;
        Ok(Self {
            site: SITE_FILE.into(),
            saved: variables.saved_config(),
            user: variables.user_config(),
            project: folder.join("dcluster.toml"),
            state: variables.state_dir()?,
            variables,
            uid: nix::unistd::Uid::effective().as_raw(),
        })
    }

    /// Reads all layers but the flags. What is wrong is kept in [`Layers::problems`].
    pub fn layers(&self) -> Layers {
        let mut layers = Layers::default();
        for path in
            [Some(&self.site), self.saved.as_ref(), self.user.as_ref(), Some(&self.project)].into_iter().flatten()
        {
            match self.file(path) {
                Ok(Some((layer, problems))) => {
                    layers.files.push(layer);
                    layers.problems.extend(problems);
                    layers.read.push(path.clone());
                }
                Ok(None) => {}
                Err(problem) => layers.problems.push(problem),
            }
        }
        let (variables, problems) = from_variables(&self.variables);
        layers.variables = variables;
        layers.problems.extend(problems);
        layers
    }

    fn file(&self, path: &Path) -> Result<Option<(Layer, Vec<ConfigError>)>, ConfigError> {
        let Some((content, access)) = trust::read(path)? else {
            return Ok(None);
        };
        if path == self.project {
            trust::check(&self.state, path, &content, access, self.uid)?;
        }
        let text = String::from_utf8(content).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            ConfigError::new("the file is no TOML")
                .at(format!("{}:{line}", shown_path(path)))
                .because("it is not UTF-8 text")
                .fix("save it as UTF-8")
        })?;
        Ok(Some(file::parse(path, &text)))
    }
}

/// Reads the `DCLUSTER_*` variables. One that looks like a slip of the pen is an error; others that
/// are no settings are left alone, for sites and wrappers have theirs.
fn from_variables(variables: &Variables) -> (Layer, Vec<ConfigError>) {
    let mut layer = Layer::default();
    let mut problems = Vec::new();
    for (name, value) in variables.iter() {
        let Some(short) = name.to_str().and_then(|n| n.strip_prefix("DCLUSTER_")) else {
            continue;
        };
        if value.is_empty() || NOT_SETTINGS.contains(&short) {
            continue;
        }
        let variable = format!("DCLUSTER_{short}");
        let exact = Key::ALL.into_iter().find(|key| key.variable() == variable);
        let Some(key) = exact else {
            problems.extend(slip(&variable, short));
            continue;
        };
        match variable_value(key, value) {
            Some(value) => {
                let origin = Origin::Variable { name: variable };
                layer.values.insert(key, Raw { value, origin });
            }
            None => problems
                .push(ConfigError::new(format!("{} is not UTF-8 text", quoted(&value.to_string_lossy()))).at(variable)),
        }
    }
    (layer, problems)
}

/// Returns an error when the variable is nearly one of ours.
fn slip(variable: &str, short: &str) -> Option<ConfigError> {
    let by_alias = Key::find(short).map(Key::variable);
    let meant = by_alias.or_else(|| nearest(variable, Key::ALL.into_iter().map(Key::variable)))?;
    // The common prefix makes everything look near: judge by the rest.
    let rest = meant.strip_prefix("DCLUSTER_").unwrap_or(meant);
    if by_alias.is_none() && nearest(short, [rest]).is_none() {
        return None;
    }
    Some(
        ConfigError::new(format!("unknown variable {}", quoted(variable)))
            .at("environment")
            .fix(format!("did you mean {meant}? If not, unset the variable")),
    )
}

fn variable_value(key: Key, value: &OsStr) -> Option<RawValue> {
    let text = value.to_str()?;
    Some(match key {
        Key::Directives => {
            RawValue::List(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
        }
        Key::Counters => RawValue::Table(text.split(',').map(counter).collect()),
        _ => RawValue::Scalar(text.to_owned()),
    })
}

/// Splits `lic=2`; without a total, the total is empty, which is refused later, with its origin.
pub(super) fn counter(text: &str) -> (String, String) {
    let (name, total) = text.split_once('=').unwrap_or((text, ""));
    (name.trim().to_owned(), total.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    fn sources(folder: &Path, pairs: &[(&str, &str)]) -> Sources {
        Sources {
            site: folder.join("site.toml"),
            saved: Some(folder.join("saved.toml")),
            user: Some(folder.join("user.toml")),
            project: folder.join("dcluster.toml"),
            state: folder.join("state"),
            variables: pairs.iter().map(|(n, v)| (n.into(), v.into())).collect(),
            uid: nix::unistd::Uid::effective().as_raw(),
        }
    }

    fn origin(layers: &Layers, key: Key) -> String {
        let settings = layers.settings().expect("no problems");
        settings.values[&key].origin.to_string()
    }

    #[test]
    fn all_layers_are_read_in_order() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().display();
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("write");
        };
        write("site.toml", "cores = 1\nqueue = \"a\"\nqos = \"q\"\nmemory = \"1G\"");
        write("saved.toml", "interface = \"eth1\"\nqos = \"saved\"\nqueue = \"saved\"");
        write("user.toml", "cores = 2\nqueue = \"b\"\nmemory = \"2G\"");
        write("dcluster.toml", "cores = 3\nmemory = \"3G\"");
        fs::set_permissions(folder.path().join("dcluster.toml"), fs::Permissions::from_mode(0o644)).expect("chmod");
        let layers = sources(folder.path(), &[("DCLUSTER_CORES", "4"), ("PATH", "/")]).layers();
        assert_eq!(origin(&layers, Key::Qos), format!("{path}/saved.toml:2, key \"qos\""));
        assert_eq!(origin(&layers, Key::Queue), format!("{path}/user.toml:2, key \"queue\""));
        assert_eq!(origin(&layers, Key::Memory), format!("{path}/dcluster.toml:2, key \"memory\""));
        assert_eq!(origin(&layers, Key::Cores), "DCLUSTER_CORES");
        assert_eq!(layers.read.len(), 4);
    }

    #[test]
    fn a_file_of_others_is_refused_and_not_used() {
        let folder = tempfile::tempdir().expect("folder");
        let project = folder.path().join("dcluster.toml");
        fs::write(&project, "prologue = \"evil\"").expect("write");
        fs::set_permissions(&project, fs::Permissions::from_mode(0o666)).expect("chmod");
        let sources = sources(folder.path(), &[]);
        let layers = sources.layers();
        assert!(layers.files.is_empty() && layers.read.is_empty());
        assert!(layers.settings().is_err());
        trust::trust(&sources.state, &project).expect("trusted");
        assert!(sources.layers().settings().is_ok());
    }

    #[test]
    fn variables_have_their_own_forms() {
        let pairs = [
            ("DCLUSTER_DIRECTIVES", "--exclusive\n\n--gres=x\n"),
            ("DCLUSTER_COUNTERS", "lic=2, db = 1"),
            ("DCLUSTER_QUEUE", ""),
            ("DCLUSTER_STATE", "/s"),
            ("DCLUSTER_JOB", "7"),
            ("DCLUSTER_SITE_THING", "7"),
        ];
        let (layer, problems) = from_variables(&sources(Path::new("/"), &pairs).variables);
        assert_eq!(problems, vec![]);
        assert_eq!(layer.values.len(), 2);
        assert_eq!(layer.values[&Key::Directives].value, RawValue::List(vec!["--exclusive".into(), "--gres=x".into()]));
        assert_eq!(
            layer.values[&Key::Counters].value,
            RawValue::Table(vec![("lic".into(), "2".into()), ("db".into(), "1".into())])
        );
    }

    #[test]
    fn slips_in_variables_are_errors() {
        for (name, meant) in [
            ("DCLUSTER_CROES", "DCLUSTER_CORES"),
            ("DCLUSTER_PARTITION", "DCLUSTER_QUEUE"),
            ("DCLUSTER_MEM", "DCLUSTER_MEMORY"),
        ] {
            let (_, problems) = from_variables(&sources(Path::new("/"), &[(name, "1")]).variables);
            assert_eq!(problems.len(), 1, "{name}");
            assert_eq!(problems[0].fix, Some(format!("did you mean {meant}? If not, unset the variable")));
        }
        let bytes = OsStr::from_bytes(b"\xff").to_owned();
        let (_, problems) = from_variables(&[("DCLUSTER_QUEUE".into(), bytes)].into_iter().collect());
        assert_eq!(problems[0].to_string(), "\"\u{fffd}\" is not UTF-8 text (DCLUSTER_QUEUE)");
    }

    #[test]
    fn files_that_are_no_text() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join("user.toml"), b"cores = 1\n\xff").expect("write");
        let error = sources(folder.path(), &[]).layers().settings().expect_err("bytes");
        assert!(error.location.unwrap_or_default().ends_with("user.toml:2"));
    }
}
