//! The journal: what the server acknowledged, as opaque records, on a file system that may lie
//! about nothing but may fail at any time. Format and protocol are in `docs/journal.md`.
//!
//! Called by the server's journal thread (writing) and by `up` and `dcluster journal check`
//! (reading). Invariants: a part has one writer and no byte of it is written twice; the next frame
//! is begun when the last one is durable, so only the last frame can be torn; nothing is read
//! before the lease shows our epoch.

mod frame;
pub mod inspect;
mod recover;
mod write;

pub use frame::{HEADER_BYTES, Kind, PAYLOAD_LIMIT};
pub use recover::{JournalError, Position, Records, Recovered, recover};
pub use write::{AppendError, BuiltPart, Condemned, Journal, Limits, PartPlan, StartError};

use std::fmt;

/// Folder of the parts below the cluster's folder.
pub const JOURNAL_FOLDER: &str = "journal";

/// One file of the journal. Order is age: a later epoch is newer than any part of an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Part {
    /// The epoch of the server that writes it, alone.
    pub epoch: u32,
    /// Its number in that epoch, from 1.
    pub number: u32,
}

impl Part {
    fn parse(name: &str) -> Option<Self> {
        let (epoch, number) = name.split_once('.')?;
        let part = Self { epoch: epoch.parse().ok()?, number: number.parse().ok()? };
        // `+1.01` is nothing that we write.
        (part.name() == name).then_some(part)
    }

    fn name(self) -> String {
        format!("{}.{}", self.epoch, self.number)
    }

    /// What the first frame names as its previous one: a file of another cluster, or one that was
    /// renamed, does not read as ours.
    fn origin(self, cluster_id: &str) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(cluster_id.as_bytes());
        crc.update(&self.epoch.to_le_bytes());
        crc.update(&self.number.to_le_bytes());
        crc.finalize()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{JOURNAL_FOLDER}/{}.{}", self.epoch, self.number)
    }
}

#[cfg(test)]
mod tests;
