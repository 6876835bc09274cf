//! The OAR of `tests/clusters/oar/up`: one, so its tests run one after the other.

use crate::site::{System, kill, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

static BED: Mutex<()> = Mutex::new(());

pub(crate) static OAR: System = System {
    name: "oar",
    submit: "oarsub",
    list: "oarstat",
    bed: || Some(Box::new(bed()?)),
    variables: &[],
    commands: || None,
    user,
    queue,
    cancel: "oardel",
    hold: "--hold",
};

/// Takes the OAR for this test alone; `None`, said on stderr, where there is none to test on.
pub(crate) fn bed() -> Option<MutexGuard<'static, ()>> {
    let asked = std::env::var_os("DCLUSTER_TEST_OAR").is_some_and(|v| v == "1");
    if !asked || std::env::var_os("OAR_BED").is_none() {
        #[expect(clippy::print_stderr, reason = "a skipped test must say so")]
        {
            eprintln!("skipped: DCLUSTER_TEST_OAR=1 and OAR_BED are not set");
        }
        return None;
    }
    Some(BED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The folder of the bed.
fn folder() -> PathBuf {
    std::env::var_os("OAR_BED").unwrap().into()
}

fn user() -> String {
    std::env::var("OAR_BED_USER").unwrap_or_else(|_| "hpc".to_owned())
}

/// Runs a command of OAR as root, and returns what it prints.
pub(crate) fn oar(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What OAR knows of the jobs of which a condition is true.
pub(crate) fn jobs(condition: &str) -> serde_json::Map<String, Value> {
    serde_json::from_str(&oar(&["oarstat", "-J", "-f", "--sql", condition])).unwrap_or_default()
}

/// What OAR knows of a job.
pub(crate) fn record(id: &str) -> Value {
    jobs(&format!("job_id = {id}"))[id].clone()
}

/// Jobs of the user that are not over, one line for each element of an array.
fn queue() -> String {
    let live = jobs(&format!("job_user = '{}' AND state NOT IN ('Terminated', 'Error')", user()));
    let line = |(id, job): (&String, &Value)| format!("{id} {} {}\n", job["name"], job["state"]).replace('"', "");
    live.iter().map(line).collect()
}

/// Ends a process as a crash would.
fn end(file: &Path, signal: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let pid: u32 = text.lines().next().unwrap().trim().parse().unwrap();
    kill(pid, signal);
    let exe = format!("/proc/{pid}/exe");
    until("the daemon is down", 60, || std::fs::read_link(&exe).is_err().then_some(()));
}

/// Ends OAR's server.
pub(crate) fn stop_server() {
    end(Path::new("/var/run/oar-server.pid"), "TERM");
}

/// Ends OAR's database: `oarstat` fails, `oarsub` and `oardel` hang.
pub(crate) fn stop_database() {
    end(&folder().join("pg/postmaster.pid"), "INT");
}

/// Starts what is not there, and waits until it can be used.
pub(crate) fn start() {
    let up = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clusters/oar/up");
    let output = Command::new(up).env("OAR_BED", folder()).env("OAR_BED_USER", user()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
