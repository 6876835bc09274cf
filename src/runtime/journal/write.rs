//! Writing: one frame, one sync. An error condemns the part, never the server.

use super::frame::{Kind, PART_NUMBER_LIMIT, PAYLOAD_LIMIT, RECORD_HEADER, TooLarge, encode, pack};
use super::recover::Position;
use super::{JOURNAL_FOLDER, Part};
use crate::runtime::disk::{Disk, DiskFile};
use std::io;

const RESERVE_PATH: &str = "reserve";

/// Sizes; the defaults are what the server uses.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Ballast that is given back when the disk is full.
    pub reserve_bytes: usize,
    /// A part below this size is never compacted.
    pub compact_bytes: u64,
    /// Largest payload of one frame.
    pub payload_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reserve_bytes: 1 << 20, compact_bytes: 64 << 20, payload_bytes: PAYLOAD_LIMIT }
    }
}

/// The current part cannot be used any more. Whether the records of the call that failed are
/// durable is unknown until [`Journal::restart_part`] has succeeded; then its base decides.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {part} at offset {offset}: {source}")]
pub struct Condemned {
    /// What we tried.
    pub action: &'static str,
    /// The file.
    pub part: Part,
    /// Where the frame begins.
    pub offset: u64,
    /// What the system said.
    pub source: io::Error,
}

impl Condemned {
    /// Returns whether the disk or the quota is full.
    pub fn is_full(&self) -> bool {
        is_full(&self.source)
    }
}

/// Why records were not made durable.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The part is lost: open the next one.
    #[error(transparent)]
    Condemned(#[from] Condemned),
    /// A record fits no frame. Nothing was written.
    #[error("a record of {bytes} bytes is larger than a journal frame")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Why a new part could not be opened. Whatever was used before it still stands.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What we tried.
        action: &'static str,
        /// The file or folder, below the cluster's folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A record of the base fits no frame.
    #[error("a record of {bytes} bytes is larger than a journal frame")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl From<TooLarge> for StartError {
    fn from(TooLarge { bytes }: TooLarge) -> Self {
        Self::RecordTooLarge { bytes }
    }
}

impl From<TooLarge> for AppendError {
    fn from(TooLarge { bytes }: TooLarge) -> Self {
        Self::RecordTooLarge { bytes }
    }
}

impl StartError {
    fn io(action: &'static str, path: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_string();
        move |source| Self::Io { action, path, source }
    }

    /// Returns whether the disk or the quota is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Frames that the old part may get while the next one is built: more than any disk syncs in that time. The
/// base of the next one takes its numbers behind them.
const GAP: u64 = 1 << 20;

/// A part to be built beside the one in use.
#[derive(Debug)]
pub struct PartPlan {
    part: Part,
    origin: u32,
    /// Its frames have higher numbers.
    before: u64,
    payload_bytes: usize,
}

/// A part whose base is durable, and that does not count yet.
#[derive(Debug)]
pub struct BuiltPart<F> {
    current: Current<F>,
    before: u64,
    sequence: u64,
}

impl PartPlan {
    /// Writes the base, on whatever thread. A part that fails is removed again: it can never count.
    pub fn build<D: Disk, I>(self, disk: &D, base: I) -> Result<BuiltPart<D::File>, StartError>
    where
        I: Iterator<Item: AsRef<[u8]>>,
    {
        let Self { part, origin, before, payload_bytes } = self;
        let file = disk.create(&part.to_string()).map_err(StartError::io("create", part))?;
        let current = Current { part, file, offset: 0, base_bytes: 0, previous: origin };
        let mut built = BuiltPart { current, before, sequence: before };
        let written = pack(base, payload_bytes, |payload| {
            built.sequence += 1;
            built.current.add(Kind::Base, built.sequence, payload)
        })
        .and_then(|()| built.current.file.sync().map_err(StartError::io("sync", part)));
        if let Err(error) = written {
            // It would use up the disk, one part every retry.
            let _ = disk.remove(&part.to_string());
            return Err(error);
        }
        built.current.base_bytes = built.current.offset;
        Ok(built)
    }
}

/// The part that is being written.
#[derive(Debug)]
struct Current<F> {
    part: Part,
    file: F,
    offset: u64,
    base_bytes: u64,
    previous: u32,
}

/// The journal of one server, in its own epoch.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    cluster_id: String,
    limits: Limits,
    epoch: u32,
    /// `None` after an error: condemned, or closed.
    current: Option<Current<D::File>>,
    next_number: u32,
    /// The highest number given to a frame; none is given twice in parts that may count.
    sequence: u64,
    durable: u64,
    /// The newest part with a whole base; with `current` there are two newer than all before it.
    newest_whole: Option<Part>,
    reserve_freed: bool,
}

impl<D: Disk> Journal<D> {
    /// Opens the first part of `epoch` and makes its base durable: the whole state, which the
    /// caller made of the records that were recovered up to `position`.
    pub fn start<I>(
        disk: D,
        cluster_id: &str,
        epoch: u32,
        position: Position,
        base: I,
        limits: Limits,
    ) -> Result<Self, StartError>
    where
        I: Iterator<Item: AsRef<[u8]>> + Clone,
    {
        disk.make_folder(JOURNAL_FOLDER).map_err(StartError::io("make", JOURNAL_FOLDER))?;
        disk.sync_folder("").map_err(StartError::io("sync the folder of", JOURNAL_FOLDER))?;
        let mut journal = Self {
            disk,
            cluster_id: cluster_id.to_owned(),
            limits,
            epoch,
            current: None,
            next_number: 1,
            sequence: position.sequence,
            durable: position.sequence,
            newest_whole: position.source,
            reserve_freed: false,
        };
        journal.restart_part(base)?;
        journal.make_reserve();
        Ok(journal)
    }

    /// Makes records durable, and returns the sequence number that the journal has reached. The
    /// caller checks the fence next, and only then acknowledges.
    pub fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, AppendError> {
        // Look before the first byte is written: half a list would be worse than none.
        if let Some(large) = records.iter().find(|record| record.len() + RECORD_HEADER > self.limits.payload_bytes) {
            return Err(AppendError::RecordTooLarge { bytes: large.len() });
        }
        pack(records.iter(), self.limits.payload_bytes, |payload| {
            self.frame(Kind::Batch, payload).map_err(AppendError::from)
        })?;
        Ok(self.durable)
    }

    /// Writes an empty frame, after 1 s of quiet: the last data frame is then not the last frame,
    /// and damage to it is noticed.
    pub fn mark(&mut self) -> Result<u64, Condemned> {
        self.frame(Kind::Mark, &[])?;
        Ok(self.durable)
    }

    /// Ends the journal: the successor sees that nothing is missing.
    pub fn close(&mut self) -> Result<u64, Condemned> {
        self.frame(Kind::Close, &[])?;
        if let Some(current) = self.current.take() {
            let (part, offset) = (current.part, current.offset);
            current.file.close().map_err(|source| Condemned { action: "close", part, offset, source })?;
        }
        Ok(self.durable)
    }

    /// Goes on in a new part that begins with `base`: after an error, or to drop what is obsolete.
    /// When it fails during a compaction the old part stays in use, unless the new one may count.
    pub fn restart_part<I>(&mut self, base: I) -> Result<u64, StartError>
    where
        I: Iterator<Item: AsRef<[u8]>> + Clone,
    {
        let result = match self.next_part(base.clone()) {
            Err(error) if error.is_full() && self.free_reserve() => self.next_part(base),
            other => other,
        };
        result.map(|()| self.durable)
    }

    /// Returns whether the part has outgrown its base.
    pub fn should_compact(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.offset > self.limits.compact_bytes.max(4 * current.base_bytes))
    }

    /// Returns whether the part failed, so that only [`restart_part`](Self::restart_part) helps.
    pub fn is_condemned(&self) -> bool {
        self.current.is_none()
    }

    /// Returns the last sequence number that is durable; the lease tells it.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Condemned> {
        // Taken out, and put back only when all went well: after an error the file is never
        // touched again. The kernel may have dropped the pages and would say yes to a second sync.
        let Some(mut current) = self.current.take() else {
            return Err(Condemned {
                action: "write",
                part: Part { epoch: self.epoch, number: self.next_number - 1 },
                offset: 0,
                source: io::Error::other("it failed before or is closed"),
            });
        };
        self.sequence += 1;
        let written = current.write(kind, self.sequence, payload);
        let (part, offset) = (current.part, current.offset);
        let condemned = |action| move |source| Condemned { action, part, offset, source };
        let length = written.map_err(condemned("write"))?;
        current.file.sync().map_err(condemned("sync"))?;
        current.offset += length;
        self.durable = self.sequence;
        self.current = Some(current);
        Ok(())
    }

    fn next_part<I>(&mut self, base: I) -> Result<(), StartError>
    where
        I: Iterator<Item: AsRef<[u8]>>,
    {
        let plan = self.plan(0)?;
        let built = plan.build(&self.disk, base)?;
        self.finish(built, std::iter::empty::<&[u8]>())
    }

    fn plan(&mut self, gap: u64) -> Result<PartPlan, StartError> {
        let part = Part { epoch: self.epoch, number: self.next_number };
        if part.number > PART_NUMBER_LIMIT {
            let full = io::Error::other("this epoch has used up its numbers of parts");
            return Err(StartError::io("create", part)(full));
        }
        self.next_number += 1;
        let origin = part.origin(&self.cluster_id);
        Ok(PartPlan { part, origin, before: self.sequence + gap, payload_bytes: self.limits.payload_bytes })
    }

    /// Gives the next part its number, so that its base can be written elsewhere while this part is used on:
    /// by [`PartPlan::build`]. Everything appended from now on is not in that base, and must be given to
    /// [`Journal::adopt_part`].
    pub fn plan_part(&mut self) -> Result<PartPlan, StartError> {
        self.plan(GAP)
    }

    /// Goes on in a part that was built beside this one. `tail` is what was appended since it was planned.
    /// When this fails the old part stays in use, unless the new one may count.
    pub fn adopt_part<I>(&mut self, built: BuiltPart<D::File>, tail: I) -> Result<u64, StartError>
    where
        I: Iterator<Item: AsRef<[u8]>>,
    {
        let part = built.current.part;
        let in_use = self.current.as_ref().map(|current| current.part);
        if in_use.is_none_or(|in_use| in_use > part) || self.sequence > built.before {
            // What the old part holds is not known any more, or it is a newer one, or numbers would be used twice.
            self.discard_part(built);
            return Err(StartError::io("use", part)(io::Error::other("it was overtaken")));
        }
        self.finish(built, tail).map(|()| self.durable)
    }

    /// Drops a part that was built and is not wanted; it never counted.
    pub fn discard_part(&self, built: BuiltPart<D::File>) {
        let _ = self.disk.remove(&built.current.part.to_string());
    }

    /// Gives the reserve back if the disk or the quota was full; a later try may then succeed.
    pub fn make_room(&mut self, error: &StartError) {
        if error.is_full() {
            self.free_reserve();
        }
    }

    /// The last steps: what came since, base-end, mark; then the part counts.
    fn finish<I>(&mut self, built: BuiltPart<D::File>, tail: I) -> Result<(), StartError>
    where
        I: Iterator<Item: AsRef<[u8]>>,
    {
        let BuiltPart { mut current, mut sequence, .. } = built;
        let part = current.part;
        let mut may_count = false;
        match self.end_base(&mut current, &mut sequence, tail, &mut may_count) {
            Ok(()) => {
                // All that the old part holds is in the new one: how its close ends is no matter.
                self.current = Some(current);
                self.sequence = sequence;
                self.durable = sequence;
                self.prune(part);
                Ok(())
            }
            Err(error) => {
                // It would use up the disk, one part every retry.
                let _ = self.disk.remove(&part.to_string());
                if may_count {
                    // After a crash the removed part may be back, with a whole base, and win over
                    // anything that is still added to the old part.
                    self.current = None;
                    self.sequence = sequence;
                }
                // Else it never will be; the old part goes on without a gap.
                Err(error)
            }
        }
    }

    fn end_base<I>(
        &self,
        current: &mut Current<D::File>,
        sequence: &mut u64,
        tail: I,
        may_count: &mut bool,
    ) -> Result<(), StartError>
    where
        I: Iterator<Item: AsRef<[u8]>>,
    {
        let part = current.part;
        let mut write = |current: &mut Current<D::File>, kind, payload: &[u8]| {
            *sequence += 1;
            current.add(kind, *sequence, payload)
        };
        pack(tail, self.limits.payload_bytes, |payload| write(current, Kind::Base, payload))?;
        let base_bytes = current.offset;
        if base_bytes > current.base_bytes {
            current.file.sync().map_err(StartError::io("sync", part))?;
        }
        current.base_bytes = base_bytes;
        // The mark makes sure that the base-end frame, on which all rests, is never the last.
        for kind in [Kind::BaseEnd, Kind::Mark] {
            *may_count = true;
            write(current, kind, &[])?;
            current.file.sync().map_err(StartError::io("sync", part))?;
        }
        self.disk.sync_folder(JOURNAL_FOLDER).map_err(StartError::io("sync", JOURNAL_FOLDER))
    }

    /// Deletes the parts that have two newer whole bases. Failures leave garbage, nothing worse.
    fn prune(&mut self, newest: Part) {
        if let Some(second) = self.newest_whole.replace(newest) {
            for name in self.disk.list(JOURNAL_FOLDER).unwrap_or_default() {
                if let Some(part) = Part::parse(&name).filter(|&part| part < second)
                    && let Err(error) = self.disk.remove(&part.to_string())
                {
                    tracing::warn!(%part, %error, "old journal part not removed");
                }
            }
        }
    }

    fn make_reserve(&mut self) {
        let file = match self.disk.create(RESERVE_PATH) {
            Ok(file) => file,
            Err(error) => {
                if error.kind() != io::ErrorKind::AlreadyExists {
                    tracing::warn!(%error, "no reserve of disk space");
                }
                return;
            }
        };
        // Zeros would be a hole on file systems that compress.
        let noise: Vec<u8> = (0..self.limits.reserve_bytes as u32 / 4)
            .flat_map(|n| n.wrapping_mul(0x9E37_79B1).rotate_left(n % 32).to_le_bytes())
            .collect();
        let mut file = file;
        let written = file.write_at(0, &noise).and_then(|()| file.sync()).and_then(|()| file.close());
        if let Err(error) = written {
            tracing::warn!(%error, "no reserve of disk space");
            let _ = self.disk.remove(RESERVE_PATH);
        }
    }

    /// Gives the reserve back, once; returns whether that may have helped.
    fn free_reserve(&mut self) -> bool {
        !std::mem::replace(&mut self.reserve_freed, true) && self.disk.remove(RESERVE_PATH).is_ok()
    }
}

impl<F: DiskFile> Current<F> {
    /// Adds a frame to a part that is not used yet.
    fn add(&mut self, kind: Kind, sequence: u64, payload: &[u8]) -> Result<(), StartError> {
        self.offset += self.write(kind, sequence, payload).map_err(StartError::io("write", self.part))?;
        Ok(())
    }

    /// Writes a frame at the end, not yet durable, and returns its length.
    fn write(&mut self, kind: Kind, sequence: u64, payload: &[u8]) -> io::Result<u64> {
        let (frame, crc) = encode(kind, self.part, sequence, self.previous, payload);
        self.file.write_at(self.offset, &frame)?;
        self.previous = crc;
        Ok(frame.len() as u64)
    }
}
