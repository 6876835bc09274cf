//! Files without a name, for outputs that most often stay empty.
//!
//! Making and removing two files for every task costs more than starting its process (on ext4 a quarter of a
//! millisecond). So a task writes into a file that has no name yet (`O_TMPFILE`). It gets its name when the task
//! has run for a moment, or at its end if something was written. A file that stayed empty serves the next task,
//! but only if the kernel says that nobody else has it open: a write lease is granted to a sole opener.
//!
//! Where the file system has no such files (NFS, Lustre) the caller makes named ones.

use crate::sys;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Files that are kept for the next tasks.
const IDLE_MAX: usize = 256;

/// Where nameless files come from.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    idle: Vec<File>,
    supported: bool,
}

impl Spool {
    /// Files of this spool can be named on the file system of this folder.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, idle: Vec::new(), supported: true }
    }

    /// Returns an empty file, mode 0600, that nobody else has open; `None` where there are no nameless files.
    pub(super) fn take(&mut self) -> Option<File> {
        if let Some(file) = self.idle.pop() {
            return Some(file);
        }
        if !self.supported {
            return None;
        }
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
        match options.open(&self.folder) {
            Ok(file) => Some(file),
            Err(error) => {
                // A folder that is missing is made with the first named file.
                self.supported = error.kind() == io::ErrorKind::NotFound;
                None
            }
        }
    }

    /// Takes back a file of an ended run that has no name.
    pub(super) fn give_back(&mut self, file: File) {
        if self.idle.len() >= IDLE_MAX {
            return;
        }
        // Opened anew, so that neither offset nor flags are those the task has left.
        let anew = OpenOptions::new().write(true).open(path_of(&file));
        drop(file);
        if let Ok(file) = anew
            && sys::is_sole_opener(&file)
            && is_empty(&file)
        {
            self.idle.push(file);
        }
    }
}

/// Gives the file its name; what had it before loses it.
pub(super) fn name(file: &File, path: &Path) -> io::Result<()> {
    let link = || -> io::Result<()> {
        let follow = nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW;
        let here = nix::fcntl::AT_FDCWD;
        Ok(nix::unistd::linkat(here, &path_of(file), here, path, follow)?)
    };
    match link() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            link()
        }
        result => result,
    }
}

/// Whether nothing was written; a file that cannot be looked at is none that may be dropped.
pub(super) fn is_empty(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.len() == 0)
}

fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned());
        (folder, spool)
    }

    #[test]
    fn a_file_serves_again_only_if_empty_and_nobody_else_has_it() {
        let (_folder, mut spool) = spool();
        let Some(file) = spool.take() else { return };
        spool.give_back(file);
        assert_eq!(spool.idle.len(), 1);

        let file = spool.take().unwrap();
        let left_open = file.try_clone().unwrap();
        spool.give_back(file);
        assert_eq!(spool.idle.len(), 0, "a process has kept it");
        drop(left_open);

        let mut file = spool.take().unwrap();
        file.write_all(b"x").unwrap();
        spool.give_back(file);
        assert_eq!(spool.idle.len(), 0);
    }

    #[test]
    fn a_name_replaces_what_an_earlier_run_left() {
        let (folder, mut spool) = spool();
        let Some(mut file) = spool.take() else { return };
        let path = folder.path().join("1.out");
        std::fs::write(&path, "old").unwrap();
        file.write_all(b"new").unwrap();
        name(&file, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
