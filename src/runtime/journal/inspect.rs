//! Looking at parts that may be damaged: what is whole, where the holes are, and what of it can be put
//! together again. Read-only, and for people: a server reads with [`recover`](super::recover) and refuses.
//!
//! Called by `dcluster journal` and `server::repair`. A frame counts here when it is whole and follows the
//! one before it, or stands behind a hole with a higher number.

use super::frame::{HEADER_BYTES, Header, Kind, MAGIC, count_records, first_record};
use super::recover::PART_LIMIT;
use super::{JOURNAL_FOLDER, JournalError, Part};
use crate::runtime::disk::Disk;
use std::io;

/// A frame, or bytes that are none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// A whole frame.
    Frame {
        /// Where it begins.
        offset: u64,
        /// What it is for.
        kind: Kind,
        /// Its number.
        sequence: u64,
        /// What it carries.
        records: Vec<Vec<u8>>,
    },
    /// No frame.
    Hole(Hole),
}

/// Bytes that are no frame of this part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Number of the frame before them; 0 for none.
    pub after: u64,
    /// Number of the frame behind them; `None` at the end of the part, where a crash may leave a torn frame.
    pub before: Option<u64>,
}

/// One part as it lies on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspected {
    /// Which.
    pub part: Part,
    /// Size of the file.
    pub bytes: u64,
    /// What it consists of, in order; nothing if it is foreign.
    pub pieces: Vec<Piece>,
    /// Its first frame is whole and belongs to another cluster.
    pub foreign: bool,
}

impl Inspected {
    /// Returns the frames: kind, number, records.
    pub fn frames(&self) -> impl Iterator<Item = (Kind, u64, &[Vec<u8>])> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Frame { kind, sequence, records, .. } => Some((*kind, *sequence, records.as_slice())),
            Piece::Hole(_) => None,
        })
    }

    /// Whether a server used it: it has frames that are written after the base is durable.
    pub fn served(&self) -> bool {
        self.frames().any(|(kind, ..)| kind != Kind::Base)
    }

    /// Whether the base is there from its first byte to its end.
    pub fn has_whole_base(&self) -> bool {
        let base = self.pieces.iter().take_while(|piece| !matches!(piece, Piece::Hole(_)));
        base.into_iter().any(|piece| matches!(piece, Piece::Frame { kind: Kind::BaseEnd, .. }))
    }

    /// Whether its server stopped by its own will.
    pub fn is_closed(&self) -> bool {
        self.frames().last().is_some_and(|(kind, ..)| kind == Kind::Close)
    }

    /// Returns the number of the last whole frame; 0 for none.
    pub fn last_sequence(&self) -> u64 {
        self.frames().last().map_or(0, |(_, sequence, _)| sequence)
    }

    /// Returns what no crash does: holes before a whole frame, in a part that was used.
    pub fn damage(&self) -> impl Iterator<Item = Hole> {
        let served = self.served();
        self.holes().filter(move |hole| served && hole.before.is_some())
    }

    /// Returns the bytes at the end that are no frame.
    pub fn torn_bytes(&self) -> u64 {
        self.holes().find(|hole| hole.before.is_none()).map_or(0, |hole| hole.bytes)
    }

    fn holes(&self) -> impl Iterator<Item = Hole> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Hole(hole) => Some(*hole),
            Piece::Frame { .. } => None,
        })
    }
}

/// Reads all parts, oldest first. One that vanishes meanwhile (a server removes old ones) is left out.
///
/// # Errors
///
/// If the folder or a part cannot be read at all.
pub fn inspect<D: Disk>(disk: &D, cluster_id: &str) -> Result<Vec<Inspected>, JournalError> {
    let io = |action, path: String| move |source| JournalError::Io { action, path, source };
    let names = match disk.list(JOURNAL_FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(io("list", JOURNAL_FOLDER.to_owned()))?,
    };
    let mut parts: Vec<Part> = names.iter().filter_map(|name| Part::parse(name)).collect();
    parts.sort_unstable();
    let mut inspected = Vec::new();
    for part in parts {
        let bytes = match disk.read(&part.to_string(), PART_LIMIT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(io("read", part.to_string()))?,
        };
        let origin = part.origin(cluster_id);
        let foreign = Header::parse(&bytes)
            .is_some_and(|first| first.part == part && first.previous != origin && first.payload(&bytes).is_some());
        let pieces = if foreign { Vec::new() } else { pieces(&bytes, part, origin) };
        inspected.push(Inspected { part, bytes: bytes.len() as u64, pieces, foreign });
    }
    Ok(inspected)
}

/// Takes a part apart.
fn pieces(bytes: &[u8], part: Part, origin: u32) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut at, mut last) = (0, 0);
    // The sum that the next frame must name; unknown behind a hole.
    let mut previous = Some(origin);
    let mut hole: Option<usize> = None;
    while at < bytes.len() {
        let follows = |header: &Header| match previous {
            Some(previous) => header.previous == previous && (last == 0 || header.sequence == last + 1),
            // The hole held at least one frame.
            None => header.sequence > last + 1 || last == 0,
        };
        let rest = &bytes[at..];
        let frame = Header::parse(rest).filter(|header| header.part == part && follows(header)).and_then(|header| {
            let mut payload = header.payload(rest)?;
            count_records(payload)?;
            let records = std::iter::from_fn(|| first_record(&mut payload).map(<[u8]>::to_vec)).collect();
            Some((header, records))
        });
        let Some((header, records)) = frame else {
            hole = hole.or(Some(at));
            previous = None;
            let next = bstr::ByteSlice::find(&bytes[at + 1..], MAGIC);
            at = next.map_or(bytes.len(), |next| at + 1 + next);
            continue;
        };
        if let Some(from) = hole.take() {
            pieces.push(Piece::Hole(Hole {
                offset: from as u64,
                bytes: (at - from) as u64,
                after: last,
                before: Some(header.sequence),
            }));
        }
        pieces.push(Piece::Frame { offset: at as u64, kind: header.kind, sequence: header.sequence, records });
        (last, previous) = (header.sequence, Some(header.crc));
        at += HEADER_BYTES + header.length;
    }
    if let Some(from) = hole {
        let bytes = (bytes.len() - from) as u64;
        pieces.push(Piece::Hole(Hole { offset: from as u64, bytes, after: last, before: None }));
    }
    pieces
}

/// What can be put together of a damaged journal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Salvage {
    /// Records in the order of their writing, with the numbers of their frames.
    pub records: Vec<(u64, Vec<u8>)>,
    /// What is missing in between.
    pub lost: Vec<(Part, Hole)>,
    /// A part whose base is damaged, and the older one that holds the state before it.
    pub base_from: Option<(Part, Part)>,
    /// The highest number of all frames, used or not.
    pub last_sequence: u64,
}

/// Chooses what to read: the newest part that was used, and if its base is damaged the one before it for
/// what the base said. `None` if no part was ever used.
pub fn salvage(parts: &[Inspected]) -> Option<Salvage> {
    let newest = parts.iter().rfind(|part| part.served())?;
    let mut salvage =
        Salvage { last_sequence: parts.iter().map(Inspected::last_sequence).max().unwrap_or(0), ..Salvage::default() };
    let older = parts.iter().rfind(|part| part.part < newest.part && part.has_whole_base());
    match older.filter(|_| !newest.has_whole_base()) {
        Some(older) => {
            salvage.base_from = Some((newest.part, older.part));
            salvage.take(older, true);
            salvage.take(newest, false);
        }
        None => salvage.take(newest, true),
    }
    Some(salvage)
}

impl Salvage {
    fn take(&mut self, part: &Inspected, with_base: bool) {
        let mut in_base = true;
        for (piece, next) in part.pieces.iter().zip(part.pieces.iter().skip(1).map(Some).chain([None])) {
            match piece {
                Piece::Frame { kind, sequence, records, .. } => {
                    in_base &= *kind == Kind::Base;
                    if with_base || *kind == Kind::Batch {
                        self.records.extend(records.iter().map(|record| (*sequence, record.clone())));
                    }
                }
                Piece::Hole(hole) => {
                    let base_goes_on = matches!(next, Some(Piece::Frame { kind: Kind::Base | Kind::BaseEnd, .. }));
                    // What a hole in the base held stands in the older part.
                    if hole.before.is_some() && (with_base || !(in_base && base_goes_on)) {
                        self.lost.push((part.part, *hole));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::disk::RealDisk;
    use crate::runtime::journal::{Journal, Limits, Position};

    /// Whatever byte is flipped, all frames but the one it is in are found, and the hole is told exactly.
    #[test]
    fn what_is_whole_around_a_hole_is_found() {
        let root = tempfile::tempdir().expect("temp");
        let disk = RealDisk::open(root.path()).expect("open");
        let limits = Limits { reserve_bytes: 8, ..Limits::default() };
        let mut journal =
            Journal::start(disk.clone(), "id", 1, Position::default(), [b"base"].iter(), limits).expect("start");
        // The second part is what counts; the first holds its state.
        journal.append(&[b"old".to_vec()]).expect("append");
        journal.restart_part([&b"base"[..], b"old"].iter()).expect("part");
        for number in 0..6_u8 {
            journal.append(&[vec![number; 5], vec![number; 40]]).expect("append");
        }
        let path = root.path().join("journal/1.2");
        let whole = std::fs::read(&path).expect("read");
        let read = || inspect(&disk, "id").expect("inspect");
        let frames: Vec<(u64, Kind, u64)> = read()[1]
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Frame { offset, kind, sequence, .. } => (*offset, *kind, *sequence),
                Piece::Hole(hole) => panic!("{hole:?} in a whole part"),
            })
            .collect();
        let all = salvage(&read()).expect("used");
        assert_eq!((all.records.len(), all.lost.len(), all.base_from), (14, 0, None));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, bytes).expect("write");
            let hit = frames.iter().rposition(|(offset, ..)| *offset <= at as u64).expect("a frame is there");
            let (offset, kind, sequence) = frames[hit];
            let parts = read();
            let found = salvage(&parts).expect("used");
            let mut expected = all.records.clone();
            if kind == Kind::Batch {
                expected.retain(|(number, _)| *number != sequence);
            }
            let records: Vec<_> = found.records.iter().map(|(_, record)| record).collect();
            assert_eq!(records, expected.iter().map(|(_, record)| record).collect::<Vec<_>>(), "byte {at}");
            let last = hit + 1 == frames.len();
            let lost = if kind == Kind::Base || kind == Kind::BaseEnd || last { 0 } else { 1 };
            // Behind a damaged base-end comes the mark: it cannot be told from a batch that was lost.
            let lost = if kind == Kind::BaseEnd { 1 } else { lost };
            assert_eq!(found.lost.len(), lost, "byte {at}");
            assert_eq!(found.base_from.is_some(), matches!(kind, Kind::Base | Kind::BaseEnd), "byte {at}");
            if let Some((_, hole)) = found.lost.first() {
                let end = frames[hit + 1].0;
                let expected =
                    Hole { offset, bytes: end - offset, after: sequence - 1, before: Some(frames[hit + 1].2) };
                assert_eq!(*hole, expected, "byte {at}");
            }
            assert_eq!(parts[1].damage().count(), usize::from(!last), "byte {at}");
        }
    }
}
