//! One slot of the lease, which is also the content of a claim: 512 bytes, little endian.
//!
//! ```text
//!   0 magic "DCL1"   4 epoch u32    8 nonce 16      24 beat u64     32 durable u64
//!  40 state u8      41 host length u8  42 boot length u8  43 zero
//!  44 pid u32       48 pid namespace u64            56 pid start u64
//!  64 host (255)   319 boot (64)  383 zero          508 crc32 of bytes 0..508
//! ```

use std::fmt;

/// Size of a slot: what every disk writes whole or not at all. The checksum does not rely on it.
pub(super) const SLOT: usize = 512;
const MAGIC: [u8; 4] = *b"DCL1";
const HOST: usize = 64;
const HOST_LIMIT: usize = 255;
const BOOT: usize = HOST + HOST_LIMIT;
const BOOT_LIMIT: usize = 64;
const CRC: usize = SLOT - 4;

/// A server process, told apart from any other there ever was by its nonce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Random, made at the start of the process.
    pub nonce: [u8; 16],
    /// Host name; cut at 255 bytes in the file.
    pub host: String,
    /// Boot id of the host; cut at 64 bytes in the file.
    pub boot: String,
    /// Process id.
    pub pid: u32,
    /// Inode of the pid namespace in which `pid` counts.
    pub pid_namespace: u64,
    /// Start time of the process in clock ticks since boot.
    pub pid_start: u64,
}

impl Holder {
    /// Returns the nonce in hexadecimal.
    pub fn nonce_hex(&self) -> String {
        self.nonce.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} on {}", self.pid, self.host.escape_debug())
    }
}

/// What the server says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerState {
    /// It serves, or tries to.
    Serving,
    /// It stopped by its own will.
    Closed,
}

/// The lease as its newest slot tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseState {
    /// The epoch that holds the cluster.
    pub epoch: u32,
    /// Who holds it.
    pub holder: Holder,
    /// Counts up as long as the server lives.
    pub beat: u64,
    /// Whether it still serves.
    pub state: ServerState,
    /// Sequence number up to which the journal was durable at that beat.
    pub durable: u64,
}

/// Cuts a text at a character's border so that it fits `limit` bytes.
fn cut(text: &str, limit: usize) -> &[u8] {
    &text.as_bytes()[..text.floor_char_boundary(limit)]
}

pub(super) fn encode(state: &LeaseState) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    let mut put = |at: usize, bytes: &[u8]| slot[at..at + bytes.len()].copy_from_slice(bytes);
    let holder = &state.holder;
    let host = cut(&holder.host, HOST_LIMIT);
    let boot = cut(&holder.boot, BOOT_LIMIT);
    put(0, &MAGIC);
    put(4, &state.epoch.to_le_bytes());
    put(8, &holder.nonce);
    put(24, &state.beat.to_le_bytes());
    put(32, &state.durable.to_le_bytes());
    let code = match state.state {
        ServerState::Serving => 1,
        ServerState::Closed => 2,
    };
    put(40, &[code, host.len() as u8, boot.len() as u8]);
    put(44, &holder.pid.to_le_bytes());
    put(48, &holder.pid_namespace.to_le_bytes());
    put(56, &holder.pid_start.to_le_bytes());
    put(HOST, host);
    put(BOOT, boot);
    let crc = crc32fast::hash(&slot[..CRC]);
    slot[CRC..].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// Reads a slot; `None` for anything that is not whole.
pub(super) fn decode(slot: &[u8]) -> Option<LeaseState> {
    let slot: &[u8; SLOT] = slot.try_into().ok()?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(slot.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let text = |at: usize, length: u8| String::from_utf8(slot.get(at..at + usize::from(length))?.to_vec()).ok();
    if slot[..4] != MAGIC || u32_at(CRC)? != crc32fast::hash(&slot[..CRC]) {
        return None;
    }
    if usize::from(slot[42]) > BOOT_LIMIT {
        return None;
    }
    Some(LeaseState {
        epoch: u32_at(4)?,
        holder: Holder {
            nonce: slot[8..24].try_into().ok()?,
            host: text(HOST, slot[41])?,
            boot: text(BOOT, slot[42])?,
            pid: u32_at(44)?,
            pid_namespace: u64_at(48)?,
            pid_start: u64_at(56)?,
        },
        beat: u64_at(24)?,
        state: match slot[40] {
            1 => ServerState::Serving,
            2 => ServerState::Closed,
            _ => return None,
        },
        durable: u64_at(32)?,
    })
}
