//! Who may write: claims of epochs, the lease that shows the newest server alive, and the fence.
//!
//! Safety comes from the claim (one name, made once) and from the order *claim, lease, only then
//! read the old parts* together with the fence after every sync: whatever an older server
//! acknowledged before it saw our slot was durable before we read. Time only avoids needless
//! take-overs. Called by the server's journal thread and by `up`.

mod claim;
mod slot;
mod verdict;

pub use claim::{Claim, claim, newest_claim, read_claim};
pub use slot::{Holder, LeaseState, ServerState};
pub use verdict::{Evidence, Reason, Situation, TTL_SECONDS, Verdict, may_take_over};

use crate::runtime::disk::{Disk, DiskFile};
use slot::{SLOT, decode, encode};
use std::io;

/// Path of the lease below the cluster's folder.
pub const LEASE_PATH: &str = "lease";
/// What readers look at: the slots of the last eight epochs.
const TAIL: u64 = 16 * SLOT as u64;

/// Why a lease or claim could not be read, written or kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What we tried.
        action: &'static str,
        /// The file, below the cluster's folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another server holds the cluster: no acknowledgement, no outside effect, exit.
    #[error("epoch {epoch} holds this cluster now ({holder}); epoch {ours} must stop")]
    Fenced {
        /// Our epoch.
        ours: u32,
        /// The epoch that holds the cluster.
        epoch: u32,
        /// Who that is.
        holder: Box<Holder>,
    },
    /// Slots were written, and none of those we look at is whole.
    #[error("{path} is damaged: no valid slot at offsets {offset} to {end}")]
    Damaged {
        /// The file.
        path: &'static str,
        /// Where the bytes that were looked at begin.
        offset: u64,
        /// Where they end.
        end: u64,
    },
    /// Our own slot is no longer there.
    #[error("{path} no longer holds the slot of epoch {epoch}")]
    Vanished {
        /// The file.
        path: &'static str,
        /// Our epoch.
        epoch: u32,
    },
}

impl LeaseError {
    fn io(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Returns whether another server holds the cluster (as opposed to: the file system fails).
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }
}

/// Reads the lease; `None` when no server ever wrote a whole slot. The state is that of the newest
/// slot, with the highest durable sequence number that any slot in sight tells.
pub fn read_lease<D: Disk>(disk: &D) -> Result<Option<LeaseState>, LeaseError> {
    let (offset, bytes) = match disk.read_tail(LEASE_PATH, TAIL) {
        Ok(tail) => tail,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LeaseError::io("read", LEASE_PATH)(error)),
    };
    newest(offset, &bytes)
}

fn newest(offset: u64, bytes: &[u8]) -> Result<Option<LeaseState>, LeaseError> {
    // The tail of a file whose last slot is torn does not begin at a slot.
    let skip = (offset.next_multiple_of(SLOT as u64) - offset) as usize;
    let first = (offset + skip as u64) / SLOT as u64;
    let slots = bytes.get(skip..).unwrap_or_default().chunks(SLOT);
    let mut newest: Option<LeaseState> = None;
    let mut durable = 0;
    let mut served = false;
    for (index, slot) in (first..).zip(slots) {
        // A server's first slot has the even index. One that wrote only a torn first slot never
        // served; the odd slot shows that a server lived to its first beat.
        served |= index % 2 == 1 && slot.iter().any(|&byte| byte != 0);
        let Some(state) = decode(slot).filter(|state| u64::from(state.epoch) == index / 2) else {
            continue;
        };
        durable = durable.max(state.durable);
        if newest.as_ref().is_none_or(|n| (n.epoch, n.beat) < (state.epoch, state.beat)) {
            newest = Some(state);
        }
    }
    match newest {
        Some(state) => Ok(Some(LeaseState { durable, ..state })),
        None if served => Err(LeaseError::Damaged { path: LEASE_PATH, offset, end: offset + bytes.len() as u64 }),
        None => Ok(None),
    }
}

/// Our own slots in the lease.
#[derive(Debug)]
pub struct Lease<D> {
    disk: D,
    state: LeaseState,
}

impl<D: Disk> Lease<D> {
    /// Writes the first slot of the epoch that `holder` has claimed, and returns with it the lease
    /// as the servers before left it. Only after this may old parts of the journal be read.
    pub fn open(disk: D, holder: Holder, epoch: u32) -> Result<(Self, Option<LeaseState>), LeaseError> {
        let before = read_lease(&disk)?;
        let durable = before.as_ref().map_or(0, |state| state.durable);
        let lease = Self { disk, state: LeaseState { epoch, holder, beat: 0, state: ServerState::Serving, durable } };
        if let Some(before) = &before {
            lease.check_newer(before)?;
        }
        match lease.disk.create(LEASE_PATH).and_then(DiskFile::close) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(LeaseError::io("create", LEASE_PATH)(error));
            }
            _ => {}
        }
        lease.write(&lease.state)?;
        lease.disk.sync_folder("").map_err(LeaseError::io("sync the folder of", LEASE_PATH))?;
        lease.fence()?;
        lease.refresh("journal")?;
        Ok((lease, before))
    }

    /// Tells that we live, and up to which sequence number the journal is durable. A failed beat
    /// is tried again with the same number in the same slot: the other slot stays whole.
    pub fn beat(&mut self, durable: u64) -> Result<(), LeaseError> {
        self.advance(durable, ServerState::Serving)
    }

    /// Tells that we stop by our own will: a successor need not wait.
    pub fn close(&mut self, durable: u64) -> Result<(), LeaseError> {
        self.advance(durable, ServerState::Closed)
    }

    /// Checks that no other server has taken over. To be called after every sync of the journal
    /// and before every acknowledgement or outside effect; any error forbids both.
    pub fn fence(&self) -> Result<(), LeaseError> {
        match read_lease(&self.disk)? {
            Some(state) if state.epoch == self.state.epoch && state.holder.nonce == self.state.holder.nonce => Ok(()),
            Some(state) => {
                self.check_newer(&state)?;
                Err(self.vanished())
            }
            None => Err(self.vanished()),
        }
    }

    /// Returns our epoch.
    pub fn epoch(&self) -> u32 {
        self.state.epoch
    }

    fn advance(&mut self, durable: u64, state: ServerState) -> Result<(), LeaseError> {
        let next = LeaseState {
            beat: self.state.beat + 1,
            state,
            // Never less than a server before us told: what it acknowledged is ours to keep.
            durable: durable.max(self.state.durable),
            ..self.state.clone()
        };
        self.fence()?;
        self.write(&next)?;
        self.state = next;
        self.fence()
    }

    fn check_newer(&self, other: &LeaseState) -> Result<(), LeaseError> {
        if other.epoch < self.state.epoch {
            return Ok(());
        }
        Err(LeaseError::Fenced { ours: self.state.epoch, epoch: other.epoch, holder: Box::new(other.holder.clone()) })
    }

    fn vanished(&self) -> LeaseError {
        LeaseError::Vanished { path: LEASE_PATH, epoch: self.state.epoch }
    }

    fn write(&self, state: &LeaseState) -> Result<(), LeaseError> {
        // A descriptor of its own for every slot: after a failed sync it must not be used again.
        let mut file = self.disk.open_write(LEASE_PATH).map_err(LeaseError::io("open", LEASE_PATH))?;
        let offset = (2 * u64::from(state.epoch) + state.beat % 2) * SLOT as u64;
        file.write_at(offset, &encode(state))
            .and_then(|()| file.sync())
            .and_then(|()| file.close())
            .map_err(LeaseError::io("write", LEASE_PATH))
    }

    /// Changes a folder, so that the next listing of it cannot come from a cache of this client.
    fn refresh(&self, folder: &str) -> Result<(), LeaseError> {
        let path = format!("{folder}/.fresh-{}", self.state.holder.nonce_hex());
        self.disk.make_folder(folder).map_err(LeaseError::io("make", folder))?;
        self.disk
            .create(&path)
            .and_then(DiskFile::close)
            .and_then(|()| self.disk.remove(&path))
            .map_err(LeaseError::io("create", &path))
    }
}

#[cfg(test)]
mod tests;
