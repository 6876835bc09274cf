//! Files of the cluster folder whose bytes somebody else chose.

use crate::runtime::disk::{Disk, DiskFile};
use crate::runtime::journal::recover;
use crate::runtime::lease::{newest_claim, read_claim, read_lease};
use std::io;

/// A folder whose every file holds these bytes; nothing can be written.
struct Folder<'a> {
    data: &'a [u8],
    names: &'static [&'static str],
}

struct NoFile;

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl DiskFile for NoFile {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }
    fn sync(&mut self) -> io::Result<()> {
        refused()
    }
    fn close(self) -> io::Result<()> {
        refused()
    }
}

impl Disk for Folder<'_> {
    type File = NoFile;
    fn create(&self, _: &str) -> io::Result<NoFile> {
        refused()
    }
    fn open_write(&self, _: &str) -> io::Result<NoFile> {
        refused()
    }
    fn read(&self, _: &str, limit: u64) -> io::Result<Vec<u8>> {
        if self.data.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(self.data.to_vec())
    }
    fn read_tail(&self, _: &str, limit: u64) -> io::Result<(u64, Vec<u8>)> {
        let from = self.data.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok((from as u64, self.data[from..].to_vec()))
    }
    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(self.names.iter().map(|name| (*name).to_owned()).collect())
    }
    fn make_folder(&self, _: &str) -> io::Result<()> {
        refused()
    }
    fn link(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }
    fn sync_folder(&self, _: &str) -> io::Result<()> {
        refused()
    }
}

/// The id of the cluster to which the seeds of [`journal`] belong.
pub(super) const CLUSTER: &str = "abcd";

/// A part of a journal.
pub fn journal(data: &[u8]) {
    let folder = Folder { data, names: &["1.1"] };
    if let Ok(recovered) = recover(&folder, CLUSTER, None) {
        let bytes: usize = recovered.records.iter().map(<[u8]>::len).sum();
        assert!(bytes <= data.len(), "nothing is invented");
        for record in recovered.records.iter() {
            // A record of any other kind is refused by name.
            let _ = crate::server::record::Record::decode(record);
        }
    }
}

/// A lease, and a claim.
pub fn lease(data: &[u8]) {
    let folder = Folder { data, names: &["1", "x", "4294967296", "7"] };
    if let Ok(Some(state)) = read_lease(&folder) {
        assert!(state.holder.host.len() <= 255);
    }
    assert!(matches!(newest_claim(&folder), Ok(7)));
    for epoch in [1, 7] {
        let _ = read_claim(&folder, epoch);
    }
}
