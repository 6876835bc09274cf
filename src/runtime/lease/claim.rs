//! Claims of epochs: the file `epochs/<n>` appears whole and once, and never changes.

use super::slot::{SLOT, decode, encode};
use super::{Holder, LeaseError, LeaseState, ServerState};
use crate::runtime::disk::{Disk, DiskFile};
use nix::errno::Errno;
use std::io;

const FOLDER: &str = "epochs";

/// What came of an attempt to claim an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The epoch is ours.
    Won {
        /// The epoch.
        epoch: u32,
    },
    /// Somebody else was faster.
    Lost {
        /// The newest epoch that is claimed.
        epoch: u32,
        /// Who claimed it, where the claim can be read.
        holder: Option<Holder>,
    },
}

/// Returns the newest epoch that is claimed, 0 for none.
pub fn newest_claim<D: Disk>(disk: &D) -> Result<u32, LeaseError> {
    let names = match disk.list(FOLDER) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(LeaseError::io("list", FOLDER)(error)),
    };
    let epochs = names.iter().filter_map(|name| name.parse().ok());
    Ok(epochs.max().unwrap_or(0))
}

/// Reads who claimed an epoch; `None` when the claim is not whole (where hard links are missing it
/// is written in place) or not there.
pub fn read_claim<D: Disk>(disk: &D, epoch: u32) -> Result<Option<Holder>, LeaseError> {
    let path = path(epoch);
    match disk.read(&path, SLOT as u64) {
        Ok(bytes) => Ok(decode(&bytes).filter(|state| state.epoch == epoch).map(|state| state.holder)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => Ok(None),
        Err(error) => Err(LeaseError::io("read", &path)(error)),
    }
}

/// Claims `epoch`, which must be one more than the newest claim at the time when the caller decided
/// that its holder is dead or gone.
pub fn claim<D: Disk>(disk: &D, holder: &Holder, epoch: u32) -> Result<Claim, LeaseError> {
    disk.make_folder(FOLDER).map_err(LeaseError::io("make", FOLDER))?;
    disk.sync_folder("").map_err(LeaseError::io("sync the folder of", FOLDER))?;
    let temporary = format!("{FOLDER}/.claim-{}", holder.nonce_hex());
    // Left by an earlier attempt of ours.
    let _ = disk.remove(&temporary);
    write(disk, &temporary, holder, epoch)?;
    let linked = disk.link(&temporary, &path(epoch));
    let claimed = match linked {
        Ok(()) => Ok(()),
        Err(error) if is_unsupported(&error) => write(disk, &path(epoch), holder, epoch),
        Err(error) => Err(LeaseError::io("link", &path(epoch))(error)),
    };
    let _ = disk.remove(&temporary);
    // Whatever the call said, the file tells: NFS repeats requests and gets EEXIST for its own
    // first one, and an error can come after the deed.
    let winner = read_claim(disk, epoch)?;
    if winner.as_ref().is_none_or(|w| w.nonce != holder.nonce) {
        return match claimed {
            Err(LeaseError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => lost(disk, epoch),
            Err(error) => Err(error),
            Ok(()) => Err(LeaseError::io("read back", &path(epoch))(io::ErrorKind::InvalidData.into())),
        };
    }
    // Not before the name is durable may anything rest on it: else the epoch could be claimed
    // again after a crash.
    disk.sync_folder(FOLDER).map_err(LeaseError::io("sync", FOLDER))?;
    // Our own change above made any cached listing stale, so this one is new.
    let newest = newest_claim(disk)?;
    if newest > epoch {
        return lost(disk, newest);
    }
    Ok(Claim::Won { epoch })
}

fn lost<D: Disk>(disk: &D, at_least: u32) -> Result<Claim, LeaseError> {
    let epoch = newest_claim(disk)?.max(at_least);
    let holder = read_claim(disk, epoch)?;
    Ok(Claim::Lost { epoch, holder })
}

fn path(epoch: u32) -> String {
    format!("{FOLDER}/{epoch}")
}

fn write<D: Disk>(disk: &D, path: &str, holder: &Holder, epoch: u32) -> Result<(), LeaseError> {
    let state = LeaseState { epoch, holder: holder.clone(), beat: 0, state: ServerState::Serving, durable: 0 };
    let mut file = disk.create(path).map_err(LeaseError::io("create", path))?;
    file.write_at(0, &encode(&state))
        .and_then(|()| file.sync())
        .and_then(|()| file.close())
        .map_err(LeaseError::io("write", path))
}

/// Returns whether the file system has no hard links (vfat, some FUSE and object stores).
fn is_unsupported(error: &io::Error) -> bool {
    let codes = [Errno::EPERM, Errno::ENOTSUP, Errno::EOPNOTSUPP, Errno::ENOSYS];
    match error.raw_os_error() {
        Some(code) => codes.contains(&Errno::from_raw(code)),
        None => error.kind() == io::ErrorKind::Unsupported,
    }
}
