//! A user of an LSF that the stand-in plays (`tests/standins`): a bed of its own, with LSF's commands on the PATH.

use crate::harness::{Bed, processes_with, until};
use crate::standin_folder::StandInFolder;
use serde_json::Value;

/// LSF's commands.
const COMMANDS: &[&str] =
    &["bsub", "bjobs", "bkill", "brequeue", "bhist", "bqueues", "bhosts", "bparams", "bresume", "lsid", "lshosts"];

/// Which LSF it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Face {
    OpenLava,
    Ibm,
}

/// The bed is dropped first: its cluster goes down while the stand-in is there.
pub(crate) struct Lsf {
    pub(crate) bed: Bed,
    standin: StandInFolder,
}

impl Lsf {
    pub(crate) fn new(face: Face) -> Self {
        Self::with(face, &[])
    }

    /// One with settings that differ from the stand-in's own (`DEFAULTS` in `core.py` and `lsf.py`).
    pub(crate) fn with(face: Face, settings: &[(&str, &str)]) -> Self {
        let standin = StandInFolder::new(COMMANDS);
        let flavour = if face == Face::Ibm { "\"ibm\"" } else { "\"openlava\"" };
        for (name, value) in [("system", "\"lsf\""), ("flavour", flavour)].iter().chain(settings) {
            standin.control(&["set", name, value]);
        }
        standin.control(&["start"]);
        let mut bed = Bed::new();
        bed.set("DCLUSTER_BACKEND", "lsf");
        bed.set("DCLUSTER_CORES", "1");
        bed.set("DCLUSTER_ADDRESS", "127.0.0.1");
        bed.set("PATH", &format!("{}:/usr/local/bin:/usr/bin:/bin", standin.bin().display()));
        Self { bed, standin }
    }

    /// A command of the stand-in itself.
    pub(crate) fn standin(&self, words: &[&str]) -> String {
        self.standin.control(words)
    }

    /// A command of LSF, as the user types it.
    pub(crate) fn lsf(&self, words: &[&str]) -> String {
        let output = self.bed.program(words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// How often a command was called, with arguments that contain this.
    pub(crate) fn calls(&self, command: &str) -> usize {
        let calls = std::fs::read_to_string(self.standin.state().join("calls")).unwrap_or_default();
        calls.lines().filter(|line| line.starts_with(command)).count()
    }

    /// Processes of a command that have not ended.
    pub(crate) fn running(&self, command: &str) -> Vec<i32> {
        processes_with(&self.standin.real(command))
    }

    /// How many processes of the user have this command line.
    pub(crate) fn running_of_user(&self, line: &str) -> usize {
        let pids = processes_with(self.bed.root());
        let is = |pid: &i32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ") == line
        };
        pids.iter().filter(|pid| is(pid)).count()
    }

    /// LSF's records of jobs.
    pub(crate) fn records(&self) -> Vec<Value> {
        serde_json::from_str(&self.standin(&["jobs"])).unwrap()
    }

    /// Jobs that LSF has not ended.
    pub(crate) fn queued(&self) -> usize {
        self.records().iter().filter(|job| job["state"] != "done").count()
    }

    /// Whether LSF has sent mail.
    pub(crate) fn mailed(&self) -> bool {
        self.standin.state().join("mail").exists()
    }

    pub(crate) fn up(&self, options: &[&str]) {
        self.bed.run(&[&["up"][..], options].concat()).expect(0);
    }

    /// Submits a script of bash and returns the task's id.
    pub(crate) fn submit(&self, script: &str) -> String {
        self.bed.ok(&["submit", "--", "bash", "-c", script])
    }

    pub(crate) fn task(&self, id: &str) -> Value {
        serde_json::from_str(&self.bed.ok(&["tasks", "--json", id])).unwrap()
    }

    /// What has happened, for the message of a failed test.
    pub(crate) fn story(&self) -> String {
        let log = std::fs::read_to_string(self.bed.folder().join("server.log")).unwrap_or_default();
        format!("{}\n{}\n{log}\n{:#?}", self.bed.ok(&["status", "-v"]), self.bed.ok(&["events"]), self.records())
    }

    /// Waits until a task is in this state.
    #[track_caller]
    pub(crate) fn task_in(&self, id: &str, state: &str) -> Value {
        let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
        loop {
            let task = self.task(id);
            if task["state"] == state {
                return task;
            }
            assert!(std::time::Instant::now() < deadline, "task {id} is not {state}\n{}", self.story());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Waits for the last job of which this is true.
    #[track_caller]
    pub(crate) fn job_with(&self, what: &str, pick: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, || {
                last = self.bed.status();
                last["jobs"].as_array().unwrap().iter().rfind(|job| pick(job)).cloned()
            })
        }));
        found.unwrap_or_else(|_| panic!("never: {what}\n{last:#}\n{}", self.bed.ok(&["events"])))
    }

    #[track_caller]
    pub(crate) fn job_in(&self, state: &str) -> Value {
        self.job_with(state, |job| job["state"] == state)
    }

    /// Takes the cluster down; LSF has nothing of it then.
    #[track_caller]
    pub(crate) fn down(&self) {
        self.bed.run(&["down"]).expect(0);
        assert_eq!(self.queued(), 0, "{:#?}", self.records());
        self.bed.nothing_left();
    }
}
