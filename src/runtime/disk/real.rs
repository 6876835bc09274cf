//! The disk of the operating system, rooted at one folder of ours.
//!
//! Everything goes through `openat` from a file descriptor of that folder, and no symbolic link is
//! followed below it: whoever swaps a path for a link after the check gets nothing.

use super::{Disk, DiskFile};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, close, fsync, geteuid, linkat, unlinkat};
use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const LEAF: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC);

/// Files below one folder that belongs to this user. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: Arc<OwnedFd>,
}

/// A file of [`RealDisk`], open for writing.
#[derive(Debug)]
pub struct RealFile(File);

/// Runs a system call again as long as a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

impl RealDisk {
    /// Opens the folder `root`, which must be ours and not writable by anybody else.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = retry(|| nix::fcntl::open(root, FOLDER, Mode::empty()))?;
        let stat = fstat(&root)?;
        if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the folder belongs to, or can be written by, another user",
            ));
        }
        Ok(Self { root: Arc::new(root) })
    }

    /// Calls `operation` with the folder that holds `path` and the last part of `path`.
    fn within<T>(
        &self,
        path: &str,
        mut operation: impl FnMut(BorrowedFd<'_>, &str) -> nix::Result<T>,
    ) -> io::Result<T> {
        match path.rsplit_once('/') {
            None => retry(|| operation(self.root.as_fd(), path)),
            Some((folder, leaf)) => {
                let folder = self.folder(folder)?;
                retry(|| operation(folder.as_fd(), leaf))
            }
        }
    }

    fn folder(&self, path: &str) -> io::Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        for part in if path.is_empty() { "." } else { path }.split('/') {
            let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            at = Some(retry(|| openat(from, part, FOLDER, Mode::empty()))?);
        }
        Ok(at.expect("split yields at least one part"))
    }

    fn open_read(&self, path: &str) -> io::Result<File> {
        self.within(path, |folder, leaf| openat(folder, leaf, LEAF | OFlag::O_RDONLY, Mode::empty())).map(File::from)
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn create(&self, path: &str) -> io::Result<RealFile> {
        let flags = LEAF | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = File::from(self.within(path, |folder, leaf| openat(folder, leaf, flags, mode))?);
        // The umask may be anything, 0777 included.
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(RealFile(file))
    }

    fn open_write(&self, path: &str) -> io::Result<RealFile> {
        self.within(path, |folder, leaf| openat(folder, leaf, LEAF | OFlag::O_WRONLY, Mode::empty()))
            .map(|fd| RealFile(File::from(fd)))
    }

    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        self.open_read(path)?.take(limit.saturating_add(1)).read_to_end(&mut data)?;
        if data.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(data)
    }

    fn read_tail(&self, path: &str, limit: u64) -> io::Result<(u64, Vec<u8>)> {
        let mut file = self.open_read(path)?;
        let offset = file.metadata()?.len().saturating_sub(limit);
        file.seek(SeekFrom::Start(offset))?;
        let mut data = Vec::new();
        file.take(limit).read_to_end(&mut data)?;
        Ok((offset, data))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        // Through /proc, as std has no `fdopendir`; the descriptor, not the path, names the folder.
        let folder = self.folder(folder)?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
            // We write only names that are UTF-8; others are not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn make_folder(&self, path: &str) -> io::Result<()> {
        let made = self.within(path, |folder, leaf| mkdirat(folder, leaf, Mode::S_IRWXU));
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                // A umask that takes our own bits makes a folder that we cannot open: go by path.
                let at = match path.rsplit_once('/') {
                    Some((folder, _)) => Some(self.folder(folder)?),
                    None => None,
                };
                let from = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
                let leaf = path.rsplit('/').next().unwrap_or(path);
                retry(|| {
                    nix::sys::stat::fchmodat(from, leaf, Mode::S_IRWXU, nix::sys::stat::FchmodatFlags::FollowSymlink)
                })
            }
        }
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.within(to, |to_folder, to_leaf| {
            let (folder, leaf) = from.rsplit_once('/').unwrap_or((".", from));
            let from_folder = openat(&*self.root, folder, FOLDER, Mode::empty())?;
            linkat(&from_folder, leaf, to_folder, to_leaf, AtFlags::empty())
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.within(path, |folder, leaf| unlinkat(folder, leaf, UnlinkatFlags::NoRemoveDir))
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        let folder = self.folder(path)?;
        match retry(|| fsync(&folder)) {
            // File systems without fsync for folders (CIFS, some FUSE) make names durable at once
            // or never; refusing to run there would help nobody.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
            other => other,
        }
    }
}

impl DiskFile for RealFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn close(self) -> io::Result<()> {
        match close(OwnedFd::from(self.0)) {
            // Linux has freed the descriptor all the same, and callers synced before they close.
            Ok(()) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("it exists").permissions().mode() & 0o7777
    }

    #[test]
    fn files_and_folders_have_our_modes_and_contents() {
        let root = tempfile::tempdir().expect("temp");
        let disk = RealDisk::open(root.path()).expect("open");
        disk.make_folder("a").expect("make");
        disk.make_folder("a").expect("twice is fine");
        let mut file = disk.create("a/x").expect("create");
        file.write_at(3, b"def").expect("write");
        file.write_at(0, b"abc").expect("write");
        file.sync().expect("sync");
        file.close().expect("close");
        disk.sync_folder("a").expect("sync");
        disk.sync_folder("").expect("sync");
        assert_eq!(disk.read("a/x", 6).expect("read"), b"abcdef");
        let error = disk.read("a/x", 5).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(disk.read_tail("a/x", 2).expect("tail"), (4, b"ef".to_vec()));
        assert_eq!(disk.read_tail("a/x", 9).expect("tail"), (0, b"abcdef".to_vec()));
        assert_eq!(mode(&root.path().join("a")), 0o700);
        assert_eq!(mode(&root.path().join("a/x")), 0o600);

        let error = disk.create("a/x").expect_err("exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        disk.link("a/x", "a/y").expect("link");
        let error = disk.link("a/x", "a/y").expect_err("exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.list("a").expect("list"), ["x", "y"]);
        disk.remove("a/x").expect("remove");
        assert_eq!(disk.list("a").expect("list"), ["y"]);
        let error = disk.read("a/x", 5).expect_err("gone");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_and_foreign_folders_are_refused() {
        let root = tempfile::tempdir().expect("temp");
        let outside = tempfile::tempdir().expect("temp");
        std::fs::write(outside.path().join("x"), b"secret").expect("write");
        std::os::unix::fs::symlink(outside.path(), root.path().join("folder")).expect("link");
        std::os::unix::fs::symlink(outside.path().join("x"), root.path().join("file")).expect("link");
        let disk = RealDisk::open(root.path()).expect("open");
        assert!(disk.read("folder/x", 9).is_err());
        assert!(disk.read("file", 9).is_err());
        assert!(disk.create("folder/y").is_err());
        assert!(disk.open_write("file").is_err());
        assert!(RealDisk::open(&root.path().join("folder")).is_err());

        std::fs::set_permissions(outside.path(), Permissions::from_mode(0o777)).expect("chmod");
        assert!(RealDisk::open(outside.path()).is_err());
    }
}
