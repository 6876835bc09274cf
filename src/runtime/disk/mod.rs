//! The file operations that the journal and the lease need, and nothing else: small enough that a
//! simulated disk (tests) can say what survives a crash.

mod real;

pub use real::RealDisk;

use std::io;

/// A folder of files. All paths are relative, with `/`; the folder itself is `""`. Nothing is
/// durable before the matching sync call returned.
pub trait Disk {
    /// A file open for writing.
    type File: DiskFile;
    /// Creates a file that must not exist (`O_CREAT | O_EXCL`, mode 0600).
    fn create(&self, path: &str) -> io::Result<Self::File>;
    /// Opens an existing file for writing (never truncates).
    fn open_write(&self, path: &str) -> io::Result<Self::File>;
    /// Reads a whole file, at most `limit` bytes (more is an error); opened, read and closed, so that NFS shows the newest.
    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>>;
    /// Reads the last bytes of a file, at most `limit` of them, and says at which offset they
    /// begin; opened, read and closed like [`read`](Self::read).
    fn read_tail(&self, path: &str, limit: u64) -> io::Result<(u64, Vec<u8>)>;
    /// Names in a folder, sorted. A network file system may answer from a cache that is some
    /// seconds old, unless this client changed the folder itself.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes a folder (mode 0700); fine when it exists.
    fn make_folder(&self, path: &str) -> io::Result<()>;
    /// Hard link; fails with `AlreadyExists`.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &str) -> io::Result<()>;
}

/// A file open for writing.
pub trait DiskFile {
    /// Writes all of `data` at `offset`.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes data and size durable (`fdatasync`).
    fn sync(&mut self) -> io::Result<()>;
    /// Closes; on network file systems this can be where an error shows.
    fn close(self) -> io::Result<()>;
}

impl<D: Disk> Disk for &D {
    type File = D::File;
    fn create(&self, path: &str) -> io::Result<Self::File> {
        (**self).create(path)
    }
    fn open_write(&self, path: &str) -> io::Result<Self::File> {
        (**self).open_write(path)
    }
    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        (**self).read(path, limit)
    }
    fn read_tail(&self, path: &str, limit: u64) -> io::Result<(u64, Vec<u8>)> {
        (**self).read_tail(path, limit)
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        (**self).list(folder)
    }
    fn make_folder(&self, path: &str) -> io::Result<()> {
        (**self).make_folder(path)
    }
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        (**self).link(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        (**self).remove(path)
    }
    fn sync_folder(&self, path: &str) -> io::Result<()> {
        (**self).sync_folder(path)
    }
}
