//! One frame: a header of 32 bytes and a payload of records.

use super::Part;

/// Size of a frame's header.
pub const HEADER_BYTES: usize = 32;
/// Largest payload of a frame; longer lists of records are split.
pub const PAYLOAD_LIMIT: usize = 64 << 20;
pub(super) const MAGIC: [u8; 4] = *b"DCJ1";
const CRC: usize = 28;
/// Bytes that a record adds to a payload beside its own.
pub(super) const RECORD_HEADER: usize = 4;

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A piece of the state with which a part begins.
    Base,
    /// The base is whole and was durable before this frame was written.
    BaseEnd,
    /// Records that were acknowledged together.
    Batch,
    /// Nothing; it keeps the frame before it from being the last.
    Mark,
    /// The server stopped by its own will.
    Close,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Base => 1,
            Self::BaseEnd => 2,
            Self::Batch => 3,
            Self::Mark => 4,
            Self::Close => 5,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Base,
            2 => Self::BaseEnd,
            3 => Self::Batch,
            4 => Self::Mark,
            5 => Self::Close,
            _ => return None,
        })
    }
}

/// A header whose fields are possible; its checksum is not looked at yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) part: Part,
    pub(super) sequence: u64,
    pub(super) length: usize,
    pub(super) previous: u32,
    pub(super) crc: u32,
}

impl Header {
    /// Reads the header at the beginning of `bytes`; `None` when it is cut or impossible.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
        if header[..4] != MAGIC {
            return None;
        }
        let length = usize::try_from(u32_at(20)?).ok()?;
        if length > PAYLOAD_LIMIT || length > bytes.len() - HEADER_BYTES {
            return None;
        }
        Some(Self {
            kind: Kind::from_code(header[4])?,
            part: Part { epoch: u32_at(16)?, number: u32_at(4)? >> 8 },
            sequence: u64::from_le_bytes(header[8..16].try_into().ok()?),
            length,
            previous: u32_at(24)?,
            crc: u32_at(CRC)?,
        })
    }

    /// Returns the payload of the frame that begins `bytes`, if the checksum fits.
    pub(super) fn payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + self.length)?;
        (checksum(&bytes[..CRC], payload) == self.crc).then_some(payload)
    }
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(header);
    crc.update(payload);
    crc.finalize()
}

/// Largest number of a part: its field has 24 bits.
pub(super) const PART_NUMBER_LIMIT: u32 = (1 << 24) - 1;

/// Builds a frame and returns it with its checksum, which the next frame names.
pub(super) fn encode(kind: Kind, part: Part, sequence: u64, previous: u32, payload: &[u8]) -> (Vec<u8>, u32) {
    assert!(payload.len() <= PAYLOAD_LIMIT, "callers split payloads");
    assert!(part.number <= PART_NUMBER_LIMIT, "callers count parts");
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(u32::from(kind.code()) | part.number << 8).to_le_bytes());
    frame.extend_from_slice(&sequence.to_le_bytes());
    frame.extend_from_slice(&part.epoch.to_le_bytes());
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&previous.to_le_bytes());
    let crc = checksum(&frame, payload);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(payload);
    (frame, crc)
}

/// Packs records into payloads of at most `limit` bytes, in order, and gives each to `emit`. A
/// record that does not fit alone ends it with the record's size.
pub(super) fn pack<E: From<TooLarge>>(
    records: impl Iterator<Item = impl AsRef<[u8]>>,
    limit: usize,
    mut emit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut payload = Vec::new();
    for record in records {
        let record = record.as_ref();
        let size = record.len().saturating_add(RECORD_HEADER);
        if size > limit {
            return Err(TooLarge { bytes: record.len() }.into());
        }
        if payload.len() + size > limit {
            emit(&payload)?;
            payload.clear();
        }
        payload.extend_from_slice(&(record.len() as u32).to_le_bytes());
        payload.extend_from_slice(record);
    }
    if payload.is_empty() { Ok(()) } else { emit(&payload) }
}

/// A record that fits no frame.
#[derive(Debug)]
pub(super) struct TooLarge {
    pub(super) bytes: usize,
}

/// Takes the first record off a payload; `None` at its end, or when the length is too large for it.
pub(super) fn first_record<'a>(payload: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = payload.split_first_chunk()?;
    let (record, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    *payload = rest;
    Some(record)
}

/// Returns how many records a payload has; `None` when the lengths do not add up.
pub(super) fn count_records(mut payload: &[u8]) -> Option<usize> {
    let records = std::iter::from_fn(|| first_record(&mut payload)).count();
    payload.is_empty().then_some(records)
}
