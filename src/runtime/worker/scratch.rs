//! Scratch folders on the node, one for each run: its `TMPDIR`. All are in one folder of the worker with a name that
//! nobody can guess, which is removed when the worker leaves; what a worker that was killed leaves is swept at the
//! end of its job ([`sweep`]).
//!
//! Making and removing a folder costs as much as starting a process, so one that a run left empty serves the next.

use crate::runtime::ids::JobName;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The scratch folders of one worker.
#[derive(Debug)]
pub(super) struct Scratch {
    parent: PathBuf,
    prefix: String,
    /// Made for the first run. Removed when this is dropped.
    root: Option<TempDir>,
    idle: Vec<PathBuf>,
    made: u64,
}

fn prefix(job: Option<&JobName>) -> String {
    job.map_or_else(|| "dcluster-".to_owned(), |job| format!("dcluster-{job}-"))
}

impl Scratch {
    /// Below this folder, which is the node's.
    pub(super) fn below(parent: PathBuf, job: Option<&JobName>) -> Self {
        Self { parent, prefix: prefix(job), root: None, idle: Vec::new(), made: 0 }
    }

    /// Returns an empty folder, mode 0700.
    pub(super) fn take(&mut self) -> io::Result<PathBuf> {
        if let Some(folder) = self.idle.pop() {
            return Ok(folder);
        }
        let root = match &self.root {
            Some(root) => root,
            None => {
                let private = fs::Permissions::from_mode(0o700);
                let made =
                    tempfile::Builder::new().prefix(&self.prefix).permissions(private).tempdir_in(&self.parent)?;
                self.root.insert(made)
            }
        };
        self.made += 1;
        let folder = root.path().join(self.made.to_string());
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(folder)
    }

    /// Takes a folder back from a run that has ended.
    pub(super) fn give_back(&mut self, folder: PathBuf) {
        let private = || Ok::<_, io::Error>(folder.symlink_metadata()?.mode() == libc::S_IFDIR | 0o700);
        let empty = || Ok::<_, io::Error>(fs::read_dir(&folder)?.next().is_none());
        if matches!((private(), empty()), (Ok(true), Ok(true))) {
            self.idle.push(folder);
        } else if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "a scratch folder is left behind");
        }
    }
}

/// Removes what workers of a job have left below the node's folder for temporary files.
pub fn sweep(parent: &Path, job: &JobName) {
    let me = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix(Some(job))));
        // Of the entry itself, not of what a link points to.
        let ours = named && entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == me);
        if ours && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(folder = %entry.path().display(), %error, "a scratch folder is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::JobSeq;
    use std::os::unix::fs::symlink;

    #[test]
    fn empty_folders_serve_again_and_others_are_emptied() {
        let parent = tempfile::tempdir().unwrap();
        let job = JobName::new("abcd", JobSeq(5));
        let mut scratch = Scratch::below(parent.path().to_owned(), Some(&job));
        let first = scratch.take().unwrap();
        assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o700);
        let root = first.parent().unwrap().to_owned();
        assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        scratch.give_back(first.clone());
        assert_eq!(scratch.take().unwrap(), first);

        let elsewhere = parent.path().join("precious");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("data"), "x").unwrap();
        symlink(&elsewhere, first.join("link")).unwrap();
        scratch.give_back(first.clone());
        assert!(!first.exists() && elsewhere.join("data").exists());

        let open = scratch.take().unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        scratch.give_back(open.clone());
        assert!(!open.exists());
        // A run removed its folder and put a link in its place.
        let replaced = scratch.take().unwrap();
        fs::remove_dir(&replaced).unwrap();
        symlink(&elsewhere, &replaced).unwrap();
        scratch.give_back(replaced.clone());
        assert!(scratch.idle.is_empty() && elsewhere.join("data").exists());

        drop(scratch);
        assert!(!root.exists());
    }

    #[test]
    fn a_sweep_removes_the_folders_of_one_job() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            fs::create_dir_all(parent.path().join(name).join("1")).unwrap();
        };
        make("dcluster-dcabcd-000005-x1");
        make("dcluster-dcabcd-000006-x1");
        make("other");
        symlink(parent.path().join("other"), parent.path().join("dcluster-dcabcd-000005-link")).unwrap();
        sweep(parent.path(), &JobName::new("abcd", JobSeq(5)));
        let mut left: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["dcluster-dcabcd-000005-link", "dcluster-dcabcd-000006-x1", "other"]);
        assert!(parent.path().join("other/1").exists());
    }
}
