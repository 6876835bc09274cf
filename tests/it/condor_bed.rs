//! The HTCondor of `tests/clusters/condor/up`: one, so its tests run one after the other.

use crate::site::{System, kill, until};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

static BED: Mutex<()> = Mutex::new(());

pub(crate) static CONDOR: System = System {
    name: "condor",
    submit: "condor_submit",
    list: "condor_q",
    bed: || Some(Box::new(bed()?)),
    variables: &["CONDOR_CONFIG"],
    commands: || Some(folder().join("bin")),
    user,
    queue,
    cancel: "condor_rm",
    hold: "hold = true",
};

/// Takes the HTCondor for this test alone; `None`, said on stderr, where there is none to test on.
pub(crate) fn bed() -> Option<MutexGuard<'static, ()>> {
    let asked = std::env::var_os("DCLUSTER_TEST_CONDOR").is_some_and(|v| v == "1");
    if !asked || std::env::var_os("CONDOR_CONFIG").is_none() {
        #[expect(clippy::print_stderr, reason = "a skipped test must say so")]
        {
            eprintln!("skipped: DCLUSTER_TEST_CONDOR=1 and CONDOR_CONFIG are not set");
        }
        return None;
    }
    Some(BED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The folder of the bed.
pub(crate) fn folder() -> PathBuf {
    Path::new(&std::env::var_os("CONDOR_CONFIG").unwrap()).parent().unwrap().to_owned()
}

fn user() -> String {
    std::env::var("CONDOR_BED_USER").unwrap_or_else(|_| "hpc".to_owned())
}

/// Runs a command of HTCondor as root, and returns what it prints.
pub(crate) fn condor(words: &[&str]) -> String {
    let output = Command::new(folder().join("bin").join(words[0])).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Jobs of the user that are in the queue.
fn queue() -> String {
    let words = [&user(), "-af:j", "JobBatchName", "JobStatus"];
    let output = Command::new(folder().join("bin/condor_q")).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Numbers of the bed's processes of this program, its jobs' starters (`condor_starter`) for one.
pub(crate) fn pids(program: &str) -> Vec<u32> {
    let master = std::fs::read_to_string(folder().join("var/run/master.pid")).unwrap();
    let mut family = vec![master.trim().parse().unwrap()];
    let mut next = 0;
    while let Some(pid) = family.get(next).copied() {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        family.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
        next += 1;
    }
    let is = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with(program));
    family.into_iter().filter(is).collect()
}

/// Stops the master's hand, so that what is killed stays away, and kills the schedd.
pub(crate) fn schedd_away() {
    let [master] = pids("condor_master")[..] else { panic!("no master") };
    kill(master, "STOP");
    for pid in pids("condor_schedd") {
        kill(pid, "KILL");
    }
    until("the schedd is away", 60, || {
        (!Command::new(folder().join("bin/condor_q")).output().unwrap().status.success()).then_some(())
    });
}

/// Lets the master start it again, and waits until it answers.
pub(crate) fn schedd_back() {
    for pid in pids("condor_master") {
        kill(pid, "CONT");
    }
    until("the schedd is back", 60, || {
        Command::new(folder().join("bin/condor_q")).output().unwrap().status.success().then_some(())
    });
}
