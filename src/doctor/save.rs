//! What `--save` keeps: settings that work on this host, in a file that configuration reads below the user's own,
//! and beside it what the site said of its queues, for when it does not answer.

use crate::backends::Site;
use crate::config::spec::BackendKind;
use crate::error::{Kind, Problem};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Most bytes of a saved site.
const SITE_BYTES_MAX: u64 = 4 << 20;

/// What is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// The host.
    pub host: String,
    /// When, for people.
    pub date: String,
    /// The batch system; of this machine alone nothing is kept.
    pub backend: BackendKind,
    /// The interface by which jobs reach this host, where not all do.
    pub interface: Option<String>,
    /// What the site said.
    pub site: Option<Site>,
}

impl Profile {
    /// Returns the settings as a configuration file.
    pub fn text(&self) -> String {
        let mut text = format!(
            "# What `dcluster doctor --save` found on {} on {}. Your own configuration, profiles,\n\
             # variables and flags win over it. After a change of the site save it again, or delete it.\n",
            plain(&self.host),
            plain(&self.date)
        );
        if self.backend != BackendKind::Local {
            text.push_str(&format!("backend = \"{}\"\n", self.backend.as_str()));
        }
        if let Some(interface) = &self.interface {
            text.push_str(&format!("interface = {}\n", toml::Value::String(interface.clone())));
        }
        if let Some(site) = self.site.as_ref().filter(|site| !site.queues.is_empty()) {
            text.push_str(&format!("#\n# Queues of {}:\n", plain(&site.version)));
            for line in super::site::queue_lines(site) {
                text.push_str(&format!("#   {}\n", plain(&line)));
            }
        }
        text
    }

    /// Writes it to `path` and, beside it, the site.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Problem> {
        let failed = |error: std::io::Error| {
            Problem::new(Kind::Failed, format!("cannot write {}", path.display())).says(error.to_string()).fix(
                "the folder is $XDG_CONFIG_HOME/dcluster, else ~/.config/dcluster: make it one that can be written",
            )
        };
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        replace(path, self.text().as_bytes()).map_err(failed)?;
        let beside = path.with_extension("json");
        match &self.site {
            Some(site) => replace(&beside, &serde_json::to_vec_pretty(site).unwrap_or_default()).map_err(failed),
            None => match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            },
        }
    }
}

/// Returns the site that was saved beside a saved configuration.
pub fn saved_site(path: &Path) -> Option<Site> {
    let path = path.with_extension("json");
    let size = path.metadata().ok()?.len();
    (size <= SITE_BYTES_MAX).then(|| serde_json::from_slice(&std::fs::read(path).ok()?).ok())?
}

/// Foreign words fit for a comment: on one line.
fn plain(text: &str) -> String {
    crate::ui::words::escape(text)
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Queue;
    use crate::config::file;
    use crate::config::keys::Key;
    use crate::config::layers::RawValue;

    fn profile() -> Profile {
        let debug = Queue { name: "de\nbug".into(), max_cores: Some(4), ..Queue::default() };
        let site = Site { version: "slurm 22.05.8".into(), queues: vec![debug], accounting: Some(true) };
        Profile {
            host: "login1".into(),
            date: "2026-11-26".into(),
            backend: BackendKind::Slurm,
            interface: Some("ib0\"\n".into()),
            site: Some(site),
        }
    }

    #[test]
    fn what_is_saved_is_a_configuration() {
        let (layer, problems) = file::parse(Path::new("/saved.toml"), &profile().text());
        assert_eq!(problems, []);
        assert_eq!(layer.values[&Key::Backend].value, RawValue::Scalar("slurm".into()));
        assert_eq!(layer.values[&Key::Interface].value, RawValue::Scalar("ib0\"\n".into()));
        assert_eq!(layer.values.len(), 2);
        let local = Profile { backend: BackendKind::Local, interface: None, site: None, ..profile() };
        assert_eq!(file::parse(Path::new("/saved.toml"), &local.text()).0.values.len(), 0);
    }

    #[test]
    fn the_site_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts/login1.toml");
        assert_eq!(saved_site(&path), None);
        profile().write(&path).unwrap();
        assert_eq!(saved_site(&path), profile().site);
        Profile { site: None, ..profile() }.write(&path).unwrap();
        assert_eq!(saved_site(&path), None, "of another day");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
