//! The two clocks of a server or worker, and what identifies a process on a host.

use crate::ledger::Moment;
use crate::runtime::lease::{Evidence, Holder};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns milliseconds since boot, sleep included; never goes back.
pub fn boot_milliseconds() -> u64 {
    let clock = if cfg!(target_os = "linux") { ClockId::CLOCK_BOOTTIME } else { ClockId::CLOCK_MONOTONIC };
    let time = clock_gettime(clock).map_or(std::time::Duration::ZERO, std::time::Duration::from);
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns now, on both clocks.
pub fn now() -> Moment {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { wall: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX), clock: boot_milliseconds() }
}

/// Returns this host's name.
pub fn host() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

/// Returns the start time of a live process in clock ticks since boot (`proc(5)`, stat field 22);
/// `None` when there is none, or only a zombie.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, spaces and parentheses included.
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether a process of this host lives (a zombie does not).
pub fn is_alive(pid: u32) -> bool {
    start_of(pid).is_some()
}

/// Returns how this process is known in lease and claim.
pub fn holder(nonce: [u8; 16]) -> Holder {
    let pid = std::process::id();
    Holder {
        nonce,
        host: host(),
        boot: boot_id(),
        pid,
        pid_namespace: pid_namespace(),
        pid_start: start_of(pid).unwrap_or(0),
    }
}

/// Returns what this host knows of a former server.
pub fn evidence(holder: &Holder, flock_free: Option<bool>) -> Evidence {
    let same_host = holder.host == host();
    Evidence {
        same_host,
        same_boot: same_host.then(|| holder.boot == boot_id()),
        same_pid_namespace: holder.pid_namespace == pid_namespace(),
        pid_alive_with_same_start: same_host.then(|| start_of(holder.pid) == Some(holder.pid_start)),
        flock_free,
        job_ended: None,
    }
}
