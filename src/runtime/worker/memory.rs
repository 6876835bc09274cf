//! Watches the memory of tasks that asked for some: what they asked for is also their limit.
//!
//! Looks at the processes from time to time, since batch systems seldom give a job control groups of its own. A
//! look first adds up resident sets, which counts shared pages once per process; only what exceeds the limit that
//! way is measured exactly, without pages of files, which the system can take back.

use super::Millis;
use crate::runtime::ids::RunId;
use nix::unistd::{SysconfVar, sysconf};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// From a start to the first look, and between looks at a task that is near its limit.
const SOON: Millis = 250;
/// Between looks otherwise.
const LATER: Millis = 1_000;
/// Looking may take this part of the time, one in so many.
const EFFORT: Millis = 50;

/// A process, as far as memory is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    resident_bytes: u64,
}

/// A run that is to be ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Excess {
    pub(super) run: RunId,
    pub(super) used_bytes: u64,
    pub(super) limit_bytes: u64,
    /// All its processes.
    pub(super) pids: Vec<i32>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    pid: i32,
    limit_bytes: u64,
    peak_bytes: u64,
}

/// The runs that have a limit.
#[derive(Debug, Default)]
pub(super) struct MemoryWatch {
    runs: BTreeMap<RunId, Watched>,
    next: Option<Millis>,
}

impl MemoryWatch {
    /// Watches a run from now on.
    pub(super) fn add(&mut self, run: RunId, pid: i32, limit_bytes: u64, now: Millis) {
        self.runs.insert(run, Watched { pid, limit_bytes, peak_bytes: 0 });
        let soon = now.saturating_add(SOON);
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    /// Ends the watch; returns the most bytes that were seen, 0 if nobody looked.
    pub(super) fn remove(&mut self, run: RunId) -> u64 {
        let watched = self.runs.remove(&run);
        if self.runs.is_empty() {
            self.next = None;
        }
        watched.map_or(0, |watched| watched.peak_bytes)
    }

    #[cfg(test)]
    pub(super) fn peak(&self, run: RunId) -> u64 {
        self.runs.get(&run).map_or(0, |watched| watched.peak_bytes)
    }

    /// Returns when [`Self::look`] is due.
    pub(super) fn next(&self) -> Option<Millis> {
        self.next
    }

    /// If it is time: returns the runs that use more than they may. `adopted`: processes that runs have left to the
    /// worker.
    pub(super) fn look(&mut self, adopted: &BTreeMap<i32, RunId>, now: Millis) -> Vec<Excess> {
        if self.next.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let begin = std::time::Instant::now();
        let processes = processes();
        let mut excess = Vec::new();
        let mut near = false;
        for (run, watched) in &mut self.runs {
            let left = adopted.iter().filter(|(_, of)| *of == run).map(|(pid, _)| *pid);
            let tree = tree(&processes, watched.pid, left);
            let mut used = tree.iter().map(|process| process.resident_bytes).sum();
            if exceeds(used, watched.limit_bytes) {
                used = tree.iter().map(|process| exact_bytes(*process)).sum();
            }
            watched.peak_bytes = watched.peak_bytes.max(used);
            near |= used > watched.limit_bytes / 2;
            if exceeds(used, watched.limit_bytes) {
                let pids = tree.iter().map(|process| process.pid).collect();
                excess.push(Excess { run: *run, used_bytes: used, limit_bytes: watched.limit_bytes, pids });
            }
        }
        self.next = Some(now.saturating_add(pause(near, begin.elapsed())));
        excess
    }
}

/// Whether a task has more than its limit: what it asked for it may have, to the last byte.
fn exceeds(used_bytes: u64, limit_bytes: u64) -> bool {
    used_bytes > limit_bytes
}

/// Returns the time to the next look, given how long the last one took.
fn pause(near: bool, took: Duration) -> Millis {
    let took = Millis::try_from(took.as_millis()).unwrap_or(Millis::MAX);
    took.saturating_mul(EFFORT).max(if near { SOON } else { LATER })
}

/// Returns the processes of a run: those of its group, those it left to the worker, and all below them.
fn tree(processes: &[Process], leader: i32, left: impl Iterator<Item = i32>) -> Vec<Process> {
    let left: Vec<i32> = left.collect();
    let mut chosen: Vec<Process> = Vec::new();
    let is_root = |process: &Process| process.pid == leader || process.group == leader || left.contains(&process.pid);
    let mut waiting: Vec<Process> = processes.iter().copied().filter(|process| is_root(process)).collect();
    while let Some(process) = waiting.pop() {
        if chosen.iter().any(|other| other.pid == process.pid) {
            continue;
        }
        chosen.push(process);
        waiting.extend(processes.iter().copied().filter(|child| child.parent == process.pid));
    }
    chosen
}

fn processes() -> Vec<Process> {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok()).unwrap_or(4096);
    let names =
        fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse::<i32>().ok());
    pids.filter_map(|pid| parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?, page)).collect()
}

/// Reads `/proc/PID/stat` (proc(5)); the command in parentheses may contain any byte.
fn parse(pid: i32, stat: &[u8], page: u64) -> Option<Process> {
    let rest = String::from_utf8_lossy(&stat[stat.iter().rposition(|&byte| byte == b')')? + 1..]).into_owned();
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let pages: u64 = fields.nth(18)?.parse().ok()?;
    Some(Process { pid, parent, group, resident_bytes: pages.saturating_mul(page) })
}

/// Returns the process's own share of memory that only ends with it; its resident set where the system does not
/// tell.
fn exact_bytes(process: Process) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).unwrap_or_default();
    proportional(&text).unwrap_or(process.resident_bytes)
}

/// Adds up anonymous and shared memory of `smaps_rollup`; before Linux 5.4 it has only the whole.
fn proportional(text: &str) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    match (field("Pss_Anon:"), field("Pss_Shmem:")) {
        (Some(anonymous), Some(shared)) => Some(anonymous.saturating_add(shared)),
        _ => field("Pss:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_may_be_used() {
        assert!(!exceeds(1000, 1000));
        assert!(exceeds(1001, 1000));
    }

    #[test]
    fn looks_are_seldom_where_they_take_long() {
        assert_eq!(pause(true, Duration::ZERO), SOON);
        assert_eq!(pause(false, Duration::from_millis(3)), LATER);
        assert_eq!(pause(true, Duration::from_millis(40)), 2_000);
    }

    #[test]
    fn all_processes_of_a_run_count_once() {
        let process = |pid, parent, group| Process { pid, parent, group, resident_bytes: 0 };
        let all = [
            process(10, 1, 10),
            process(11, 10, 10),
            process(12, 11, 12),
            process(20, 1, 20),
            process(21, 20, 20),
            process(30, 1, 30),
            process(31, 30, 30),
        ];
        let mut pids: Vec<i32> = tree(&all, 10, [30].into_iter()).iter().map(|process| process.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [10, 11, 12, 30, 31]);
    }

    #[test]
    fn the_kernels_texts_are_understood() {
        let stat = b"7 (a ) b) S 3 5 5 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 99 1000000 25 18446744073709551615";
        let expected = Process { pid: 7, parent: 3, group: 5, resident_bytes: 25 * 4096 };
        assert_eq!(parse(7, stat, 4096), Some(expected));
        assert_eq!(parse(7, b"7 (x", 4096), None);
        let rollup = "Rss: 9 kB\nPss:                 800 kB\nPss_Anon:            500 kB\nPss_File:  290 kB\nPss_Shmem:  10 kB\n";
        assert_eq!(proportional(rollup), Some(510 * 1024));
        assert_eq!(proportional("Pss:  8 kB\n"), Some(8 * 1024));
        assert_eq!(proportional(""), None);
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(processes().iter().any(|process| process.pid == me && process.resident_bytes > 0));
    }
}
