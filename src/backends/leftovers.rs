//! Ends what a job left behind: processes that bear its mark in their environment. Called by
//! `worker --sweep` at the end of a job script and by the local backend.

use crate::backends::processes::{self, Process};
use crate::runtime::ids::JobName;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Time left-over processes have between TERM and KILL.
const GRACE: Duration = Duration::from_secs(1);
/// Time after which what survives KILL (a process in uninterruptible sleep) is left.
const LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// What a sweep did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Swept {
    /// Processes that were there at the first look.
    pub found: usize,
    /// Processes that could not be ended.
    pub left: usize,
}

/// Ends every process of this user that belongs to `job`, but this one and its ancestors: TERM, a second,
/// then KILL until there is none. Blocks for at most 6 s; returns at once where there is nothing to end.
pub fn sweep(job: &JobName) -> Swept {
    let spared = lineage();
    let find = || {
        let mut processes = processes::own();
        processes.retain(|p| !spared.contains(&p.pid) && p.job().as_deref() == Some(job.as_str()));
        processes
    };
    end(find, GRACE)
}

/// Ends what `find` finds, again and again until that is nothing.
pub(super) fn end(find: impl Fn() -> Vec<Process>, grace: Duration) -> Swept {
    let began = Instant::now();
    let mut processes = find();
    let found = processes.len();
    if !grace.is_zero() {
        processes.iter().for_each(|p| p.signal(Signal::SIGTERM));
    }
    while began.elapsed() < grace && processes.iter().any(Process::is_alive) {
        std::thread::sleep(PAUSE);
    }
    loop {
        processes = find();
        if processes.is_empty() || began.elapsed() > grace + LIMIT {
            let left = processes.len();
            return Swept { found, left };
        }
        processes.iter().for_each(|p| p.signal(Signal::SIGKILL));
        std::thread::sleep(PAUSE);
    }
}

/// This process and its ancestors.
fn lineage() -> Vec<i32> {
    let mut pids = Vec::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(pid) = next.filter(|pid| *pid > 0 && !pids.contains(pid)) {
        pids.push(pid);
        next = Process::of(pid).map(|p| p.parent);
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::JobSeq;
    use std::process::{Command, Stdio};

    #[test]
    fn ends_what_bears_the_mark_and_nothing_else() {
        let name = |seq| JobName::new(&format!("t{:03}", std::process::id() % 1000), JobSeq(seq));
        let spawn = |job: &JobName, script: &str| {
            let mut command = Command::new("bash");
            command.args(["-c", script]).env(processes::MARK, job.as_str()).stdout(Stdio::piped());
            let mut child = crate::sys::new_session(&mut command).spawn().unwrap();
            let mut line = [0; 1];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
            child
        };
        let mut polite = spawn(&name(1), "sleep 1000 & echo; wait");
        let mut stubborn = spawn(&name(1), "trap '' TERM; setsid sleep 1000 & echo; wait");
        let mut other = spawn(&name(2), "sleep 1000 & echo; wait");
        let swept = sweep(&name(1));
        assert!(swept.found >= 4 && swept.left == 0, "{swept:?}");
        polite.wait().unwrap();
        stubborn.wait().unwrap();
        assert_eq!(other.try_wait().unwrap(), None);
        assert_eq!(sweep(&name(1)), Swept { found: 0, left: 0 });
        assert_eq!(sweep(&name(2)).left, 0);
        other.wait().unwrap();
    }
}
