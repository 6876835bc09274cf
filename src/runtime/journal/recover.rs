//! Reading: the newest part with a whole base, up to the first frame that is not whole. Read-only.

use super::frame::{HEADER_BYTES, Header, Kind, MAGIC, count_records, first_record};
use super::{JOURNAL_FOLDER, Part};
use crate::runtime::disk::Disk;
use crate::runtime::lease::LeaseState;
use std::io;
use std::ops::Range;

/// Largest part that is read: a base of 10^8 tasks stays far below.
pub(super) const PART_LIMIT: u64 = 64 << 30;

/// What the journal holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Records of the base and of all whole frames after it, in order.
    pub records: Records,
    /// Where the next server goes on.
    pub position: Position,
    /// The last server stopped by its own will.
    pub clean: bool,
    /// Bytes of a torn last frame, which was never acknowledged.
    pub torn_bytes: u64,
    /// Newer parts whose base is not whole: their server died or failed before it used them.
    pub unfinished: Vec<Part>,
}

/// Records of a part, in the bytes that were read: a million of them cost no memory of their own.
#[derive(Clone, Default)]
pub struct Records {
    bytes: Vec<u8>,
    /// Payloads of the whole frames; their lengths add up.
    payloads: Vec<Range<usize>>,
    count: usize,
}

impl Records {
    /// Returns them in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.payloads.iter().flat_map(|payload| {
            let mut payload = &self.bytes[payload.clone()];
            std::iter::from_fn(move || first_record(&mut payload))
        })
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Records {}

impl<T: AsRef<[Vec<u8>]>> PartialEq<T> for Records {
    fn eq(&self, other: &T) -> bool {
        self.iter().eq(other.as_ref())
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Where a journal ends.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Position {
    /// Sequence number of the last whole frame, 0 for none.
    pub sequence: u64,
    /// The part it stands in.
    pub source: Option<Part>,
}

/// Why the journal is refused. Nothing is ever shortened to make it readable.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
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
    /// A frame is not whole although a later one is: no crash does that.
    #[error(
        "{part} is damaged at offset {offset}: sequence numbers after {last_sequence} are at stake, \
         as a whole frame (number {later_sequence}) stands at offset {later_offset}"
    )]
    Damaged {
        /// The file.
        part: Part,
        /// Where the first bad frame begins.
        offset: u64,
        /// The last good frame before it; 0 for none.
        last_sequence: u64,
        /// Where a later good frame begins.
        later_offset: u64,
        /// Its sequence number.
        later_sequence: u64,
    },
    /// A frame is whole but does not belong here: a copied file, another cluster, a bug.
    #[error("{part} holds a frame at offset {offset} that does not follow the one before it")]
    Foreign {
        /// The file.
        part: Part,
        /// Where the frame begins.
        offset: u64,
    },
    /// The lease says that more was durable than is there.
    #[error(
        "the file system lost acknowledged data: {path} ends with sequence number {found}, the \
         lease says that {durable} was durable"
    )]
    Lost {
        /// The newest readable part, or the folder.
        path: String,
        /// Where it ends.
        offset: u64,
        /// Its last sequence number.
        found: u64,
        /// What the lease says.
        durable: u64,
    },
}

/// One part, read up to its first bad frame.
struct Scan {
    payloads: Vec<Range<usize>>,
    count: usize,
    sequence: u64,
    whole: bool,
    closed: bool,
    end: usize,
}

/// Reads the journal of the cluster. A server that takes over gives the lease as it was before its
/// own slot, and calls this only after that slot is written. While another server writes, a part may
/// vanish or grow under the reader: after an error, look at the fence first.
pub fn recover<D: Disk>(disk: &D, cluster_id: &str, lease: Option<&LeaseState>) -> Result<Recovered, JournalError> {
    let io = |action, path: String| move |source| JournalError::Io { action, path, source };
    let names = match disk.list(JOURNAL_FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(io("list", JOURNAL_FOLDER.to_owned()))?,
    };
    let mut parts: Vec<Part> = names.iter().filter_map(|name| Part::parse(name)).collect();
    parts.sort_unstable();

    let mut recovered = Recovered {
        records: Records::default(),
        position: Position::default(),
        clean: false,
        torn_bytes: 0,
        unfinished: Vec::new(),
    };
    let mut end = 0;
    for &part in parts.iter().rev() {
        let bytes = disk.read(&part.to_string(), PART_LIMIT).map_err(io("read", part.to_string()))?;
        let scan = scan(&bytes, part, cluster_id)?;
        if scan.whole {
            end = scan.end as u64;
            recovered.torn_bytes = bytes.len() as u64 - end;
            recovered.records = Records { bytes, payloads: scan.payloads, count: scan.count };
            recovered.clean = scan.closed;
            recovered.position = Position { sequence: scan.sequence, source: Some(part) };
            break;
        }
        recovered.unfinished.push(part);
    }
    let durable = lease.map_or(0, |lease| lease.durable);
    if recovered.position.sequence < durable {
        return Err(JournalError::Lost {
            path: recovered.position.source.map_or_else(|| JOURNAL_FOLDER.to_owned(), |part| part.to_string()),
            offset: end,
            found: recovered.position.sequence,
            durable,
        });
    }
    Ok(recovered)
}

fn scan(bytes: &[u8], part: Part, cluster_id: &str) -> Result<Scan, JournalError> {
    let mut scan = Scan { payloads: Vec::new(), count: 0, sequence: 0, whole: false, closed: false, end: 0 };
    let mut previous = part.origin(cluster_id);
    let mut first = true;
    while scan.end < bytes.len() {
        let rest = &bytes[scan.end..];
        let Some((header, payload)) = Header::parse(rest)
            .filter(|header| header.part == part && header.previous == previous)
            .filter(|header| first || header.sequence == scan.sequence + 1)
            .and_then(|header| Some((header, header.payload(rest)?)))
        else {
            refuse_later_frames(bytes, part, &scan)?;
            break;
        };
        let in_place = match header.kind {
            Kind::Base => !scan.whole,
            Kind::BaseEnd => !scan.whole,
            Kind::Batch | Kind::Mark | Kind::Close => scan.whole && !scan.closed,
        };
        let Some(records) = count_records(payload).filter(|_| in_place) else {
            return Err(JournalError::Foreign { part, offset: scan.end as u64 });
        };
        if records > 0 {
            let from = scan.end + HEADER_BYTES;
            scan.payloads.push(from..from + header.length);
            scan.count += records;
        }
        scan.whole |= header.kind == Kind::BaseEnd;
        scan.closed |= header.kind == Kind::Close;
        scan.sequence = header.sequence;
        scan.end += HEADER_BYTES + header.length;
        previous = header.crc;
        first = false;
    }
    Ok(scan)
}

/// Looks for a whole frame at or after the first bad one, which only damage can leave: a frame is
/// begun when the one before it is durable. The frames of a base are the exception; they become
/// durable together, and what proves that they did is the base-end frame.
fn refuse_later_frames(bytes: &[u8], part: Part, scan: &Scan) -> Result<(), JournalError> {
    let mut from = scan.end;
    while let Some(found) = find(&bytes[from..]) {
        let at = from + found;
        from = at + 1;
        let rest = &bytes[at..];
        let Some(header) = Header::parse(rest) else {
            continue;
        };
        // Frames of other parts are what the blocks held before: no sync promised anything yet. The
        // bad frame has the next number; lower ones are bytes of a journal that was itself input.
        let lowest = scan.sequence + if at == scan.end { 1 } else { 2 };
        let possible = header.part == part
            && header.sequence >= lowest
            && (scan.whole || at == scan.end || header.kind != Kind::Base);
        if !possible || header.payload(rest).is_none() {
            continue;
        }
        return Err(if at == scan.end {
            JournalError::Foreign { part, offset: at as u64 }
        } else {
            JournalError::Damaged {
                part,
                offset: scan.end as u64,
                last_sequence: scan.sequence,
                later_offset: at as u64,
                later_sequence: header.sequence,
            }
        });
    }
    Ok(())
}

fn find(bytes: &[u8]) -> Option<usize> {
    bstr::ByteSlice::find(bytes, MAGIC)
}
