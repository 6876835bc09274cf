//! Processes of this user, from `/proc` (proc(5)). Called by the local backend and the sweep.

use nix::unistd::Pid;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

/// Environment variable that marks every process of a job; set by the job script and by the local backend.
pub(super) const MARK: &str = "DCLUSTER_JOB";
/// Most bytes read of an environment or command line; the kernel allows argv + environment of 6 MiB at most.
const READ_LIMIT_BYTES: u64 = 8 << 20;

/// A process, told from a later one of the same number by its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its session.
    pub session: i32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// It has ended and is not reaped.
    pub zombie: bool,
}

impl Process {
    /// Returns the process that has this number now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Self::parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
    /// Parses `/proc/<pid>/stat`; the name in it may hold spaces and parentheses.
    fn parse(pid: i32, stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
            zombie: matches!(*fields.first()?, "Z" | "X" | "x"),
        })
    }
    /// Returns whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.start == self.start && !now.zombie)
    }
    /// Sends a signal, if it still runs.
    pub(super) fn signal(&self, signal: nix::sys::signal::Signal) {
        if self.is_alive() {
            let _ = nix::sys::signal::kill(Pid::from_raw(self.pid), signal);
        }
    }
    /// Returns its command line.
    pub(super) fn arguments(&self) -> Vec<Vec<u8>> {
        let bytes = read(self.pid, "cmdline");
        bytes.split(|b| *b == 0).map(<[u8]>::to_vec).collect()
    }
    /// Returns the job it belongs to by its [`MARK`].
    pub(super) fn job(&self) -> Option<String> {
        let environment = read(self.pid, "environ");
        let mut variables = environment.split(|b| *b == 0);
        let value = variables.find_map(|v| v.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
        String::from_utf8(value.to_vec()).ok()
    }
}

/// Returns all processes of this user that run.
pub(super) fn own() -> Vec<Process> {
    let uid = nix::unistd::geteuid().as_raw();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (entry.metadata().ok()?.uid() == uid).then(|| Process::of(pid))?
    });
    processes.filter(|p| !p.zombie).collect()
}

fn read(pid: i32, file: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(format!("/proc/{pid}/{file}")) {
        // What was read before an error is still true.
        let _ = file.take(READ_LIMIT_BYTES).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses() {
        let stat = "12 (a) S) R 1 12 34 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 9 10";
        let process = Process::parse(12, stat).unwrap();
        assert_eq!((process.parent, process.session, process.start), (1, 34, 777));
        assert!(!process.zombie);
        assert_eq!(Process::parse(12, "12 (a) R"), None);
        assert_eq!(Process::parse(12, ""), None);
    }

    #[test]
    fn sees_itself() {
        let me = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive() && own().iter().any(|p| p.pid == me.pid));
    }
}
