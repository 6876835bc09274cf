//! Where things are on this machine: home, user, state and configuration folders, all from one
//! snapshot of the environment taken at the start.

use super::problem::{ConfigError, quoted};
use nix::unistd::{Uid, User};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// A snapshot of the environment variables. Debug output tells their number only: values may be secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Variables(Vec<(OsString, OsString)>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({})", self.0.len())
    }
}

impl FromIterator<(OsString, OsString)> for Variables {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Variables {
    /// Takes those of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// Returns all of them.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns a value; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Returns a folder; the XDG rules say that a relative one is to be ignored.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|p| p.is_absolute())
    }

    /// Returns the user's home: `HOME`, else what the user database says.
    pub fn home(&self) -> Option<PathBuf> {
        self.absolute("HOME").or_else(|| {
            let user = User::from_uid(Uid::effective()).ok()??;
            Some(user.dir).filter(|p| p.is_absolute())
        })
    }

    /// Returns the user's name: `USER` or `LOGNAME`, else what the user database says, else the number.
    pub fn user_name(&self) -> String {
        let named = ["USER", "LOGNAME"].into_iter().find_map(|name| self.get(name)?.to_str());
        if let Some(name) = named {
            return name.to_owned();
        }
        let uid = Uid::effective();
        match User::from_uid(uid) {
            Ok(Some(user)) => user.name,
            _ => uid.to_string(),
        }
    }

    /// Returns the state folder: `$DCLUSTER_STATE`, else `$XDG_STATE_HOME/dcluster`, else
    /// `~/.local/state/dcluster`. It need not exist.
    pub fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        if let Some(state) = self.get("DCLUSTER_STATE") {
            let path = PathBuf::from(state);
            if path.is_absolute() {
                return Ok(path);
            }
            return Err(ConfigError::new(format!(
                "the state folder {} is not absolute",
                quoted(&state.to_string_lossy())
            ))
            .at("DCLUSTER_STATE")
            .because("jobs on other machines look for it from another folder")
            .fix("write the whole path, from / on"));
        }
        self.absolute("XDG_STATE_HOME")
            .or_else(|| Some(self.home()?.join(".local/state")))
            .map(|state| state.join("dcluster"))
            .ok_or_else(|| {
                ConfigError::new("there is no place for the state folder")
                    .because("you have no home folder here")
                    .fix("set DCLUSTER_STATE to a folder of yours that all nodes see")
            })
    }

    /// Returns the user's configuration file. It need not exist.
    pub fn user_config(&self) -> Option<PathBuf> {
        self.absolute("XDG_CONFIG_HOME")
            .or_else(|| Some(self.home()?.join(".config")))
            .map(|folder| folder.join("dcluster/config.toml"))
    }

    /// Returns the file that `dcluster doctor --save` writes for this host, beside the user's configuration: home
    /// folders are shared by hosts whose networks and batch systems differ. It need not exist.
    pub fn saved_config(&self) -> Option<PathBuf> {
        let host = nix::unistd::gethostname().ok()?.into_string().ok()?;
        let plain = !host.is_empty() && !host.starts_with('.') && !host.contains('/');
        plain.then(|| self.user_config()?.parent().map(|folder| folder.join("hosts").join(format!("{host}.toml"))))?
    }

    /// Returns whether a program is on the `PATH`.
    pub fn has_program(&self, program: &str) -> bool {
        self.find_program(program).is_some()
    }

    /// Returns where on the `PATH` a program lies.
    pub fn find_program(&self, program: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let runs =
            |file: &Path| file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
        let mut files = std::env::split_paths(self.get("PATH")?).map(|folder| folder.join(program));
        files.find(|file| runs(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(n, v)| (n.into(), v.into())).collect()
    }

    #[test]
    fn finds_the_state_folder() {
        let home = ("HOME", "/home/ann");
        for (pairs, expected) in [
            (vec![home], "/home/ann/.local/state/dcluster"),
            (vec![home, ("XDG_STATE_HOME", "/s")], "/s/dcluster"),
            (vec![home, ("XDG_STATE_HOME", "s")], "/home/ann/.local/state/dcluster"),
            (vec![home, ("XDG_STATE_HOME", "/s"), ("DCLUSTER_STATE", "/x/y")], "/x/y"),
            (vec![home, ("DCLUSTER_STATE", "")], "/home/ann/.local/state/dcluster"),
        ] {
            assert_eq!(variables(&pairs).state_dir(), Ok(PathBuf::from(expected)), "{pairs:?}");
        }
        let error = variables(&[("DCLUSTER_STATE", "state")]).state_dir().expect_err("relative");
        assert_eq!(error.what, "the state folder \"state\" is not absolute");
    }

    #[test]
    fn finds_user_and_configuration() {
        assert_eq!(variables(&[("USER", "ann")]).user_name(), "ann");
        assert_eq!(variables(&[("LOGNAME", "bob")]).user_name(), "bob");
        assert!(!variables(&[]).user_name().is_empty());
        assert_eq!(variables(&[("HOME", "/h")]).user_config(), Some("/h/.config/dcluster/config.toml".into()));
        assert_eq!(
            variables(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]).user_config(),
            Some("/c/dcluster/config.toml".into())
        );
    }

    #[test]
    fn debug_output_has_no_values() {
        let variables = variables(&[("TOKEN", "secret")]);
        assert_eq!(format!("{variables:?}"), "Variables(1)");
    }

    #[test]
    fn finds_programs() {
        let here = Variables::of_process();
        assert!(here.has_program("sh"));
        assert!(!here.has_program("no-such-program"));
        assert!(!variables(&[]).has_program("sh"));
    }
}
