//! The Grid Engine of `tests/clusters/sge/up`: one, so its tests run one after the other.

use crate::site::{System, kill, until};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

static BED: Mutex<()> = Mutex::new(());

pub(crate) static SGE: System = System {
    name: "sge",
    submit: "qsub",
    list: "qstat",
    bed: || Some(Box::new(bed()?)),
    variables: &["SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT", "SGE_EXECD_PORT"],
    commands: || Some(commands()),
    user,
    queue,
    cancel: "qdel",
    hold: "-h",
};

/// Takes the Grid Engine for this test alone; `None`, said on stderr, where there is none to test on.
pub(crate) fn bed() -> Option<MutexGuard<'static, ()>> {
    let asked = std::env::var_os("DCLUSTER_TEST_SGE").is_some_and(|v| v == "1");
    if !asked || std::env::var_os("SGE_ROOT").is_none() {
        #[expect(clippy::print_stderr, reason = "a skipped test must say so")]
        {
            eprintln!("skipped: DCLUSTER_TEST_SGE=1 and SGE_ROOT are not set");
        }
        return None;
    }
    Some(BED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The folder of the bed.
pub(crate) fn folder() -> PathBuf {
    Path::new(&std::env::var_os("SGE_ROOT").unwrap()).parent().unwrap().to_owned()
}

/// The folder of the commands, one for each kind of machine.
fn commands() -> PathBuf {
    let folders = std::fs::read_dir(folder().join("root/bin")).unwrap();
    folders.flatten().map(|entry| entry.path()).next().unwrap()
}

fn user() -> String {
    std::env::var("SGE_BED_USER").unwrap_or_else(|_| "hpc".to_owned())
}

/// Runs a command of Grid Engine as root, and returns what it prints.
pub(crate) fn sge(words: &[&str]) -> String {
    let output = Command::new(commands().join(words[0])).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Jobs of the user that are not over, one line for each task of an array.
fn queue() -> String {
    let output = Command::new(commands().join("qstat")).args(["-s", "a", "-g", "d", "-u", &user(), "-xml"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let field = |job: &str, name: &str| {
        let (_, rest) = job.split_once(&format!("<{name}>")).unwrap_or_default();
        rest.split_once("</").unwrap_or_default().0.to_owned()
    };
    let line = |job: &str| {
        let task = field(job, "tasks");
        let dot = if task.is_empty() { "" } else { "." };
        format!("{}{dot}{task} {} {}\n", field(job, "JB_job_number"), field(job, "JB_name"), field(job, "state"))
    };
    text.split("<job_list").skip(1).map(line).collect()
}

fn pid(daemon: &str) -> u32 {
    std::fs::read_to_string(folder().join(format!("run/{daemon}.pid"))).unwrap().trim().parse().unwrap()
}

fn stop(daemon: &str, signal: &str) {
    let pid = pid(daemon);
    kill(pid, signal);
    let exe = format!("/proc/{pid}/exe");
    until("the daemon is down", 60, || std::fs::read_link(&exe).is_err().then_some(()));
}

/// Ends the master in order.
pub(crate) fn stop_master() {
    stop("sge_qmaster", "TERM");
}

/// Ends the host's daemon, as a crash would: its jobs go on.
pub(crate) fn kill_host() {
    stop("sge_execd", "KILL");
}

/// Starts what is not there, and waits until it can be used.
pub(crate) fn start() {
    let up = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clusters/sge/up");
    let port = std::env::var_os("SGE_QMASTER_PORT").unwrap();
    let mut command = Command::new(up);
    command.env("SGE_BED", folder()).env("SGE_BED_PORT", port).env("SGE_BED_USER", user());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
