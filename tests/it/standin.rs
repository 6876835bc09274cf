//! A user of a batch system that the stand-in (`tests/standins/batch`) plays: it really runs the job scripts, prints
//! what the real one prints, and goes wrong as a test says. Each test has one of its own.

use crate::harness::{Bed, PATIENCE, Ran, Running, until};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

/// A bed whose backend is a stand-in.
pub(crate) struct StandIn {
    pub(crate) bed: Bed,
    folder: PathBuf,
}

impl StandIn {
    /// Starts one: `system` is its backend's name, `commands` those on the PATH.
    pub(crate) fn new(system: &str, commands: &[&str], settings: &Value) -> Self {
        let mut bed = Bed::new();
        let (folder, bin) = (bed.root().join("standin"), bed.root().join("bin"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&bin).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standins/batch");
        for command in commands.iter().chain(&["standin"]) {
            std::os::unix::fs::symlink(&program, bin.join(command)).unwrap();
        }
        bed.set("PATH", &format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
        bed.set("DCLUSTER_STANDIN", folder.to_str().unwrap());
        bed.set("DCLUSTER_BACKEND", system);
        bed.set("DCLUSTER_CORES", "1");
        bed.set("DCLUSTER_ADDRESS", "127.0.0.1");
        let mut all = json!({ "system": system });
        for (key, value) in settings.as_object().unwrap() {
            all[key] = value.clone();
        }
        fs::write(folder.join("settings.json"), all.to_string()).unwrap();
        let standin = Self { bed, folder };
        standin.control(&["start"]);
        standin
    }

    /// Runs a command of the batch system, as the user would.
    pub(crate) fn command(&self, words: &[&str]) -> Output {
        self.bed.program(words[0]).args(&words[1..]).output().unwrap()
    }

    /// `standin WORDS`.
    #[track_caller]
    pub(crate) fn control(&self, words: &[&str]) -> String {
        let output = self.bed.program("standin").args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Changes a setting.
    #[track_caller]
    pub(crate) fn set(&self, key: &str, value: &Value) {
        self.control(&["set", key, &value.to_string()]);
    }

    /// Lets a command go wrong; null takes it back.
    #[track_caller]
    pub(crate) fn fault(&self, command: &str, fault: &Value) {
        self.control(&["fault", command, &fault.to_string()]);
    }

    /// All calls of a command so far.
    pub(crate) fn calls(&self, command: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.join("calls")).unwrap_or_default();
        calls.lines().filter(|line| line.split(' ').next() == Some(command)).map(str::to_owned).collect()
    }

    /// What the stand-in knows of all jobs.
    #[track_caller]
    pub(crate) fn jobs(&self) -> Vec<Value> {
        serde_json::from_str(&self.control(&["jobs"])).unwrap()
    }

    /// Its jobs that are not over.
    #[track_caller]
    pub(crate) fn alive(&self) -> usize {
        self.jobs().iter().filter(|job| job["state"] != "done").count()
    }

    /// Runs dcluster.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.bed.spawn(words).end_within(PATIENCE * 3)
    }

    /// Runs dcluster, which must succeed, and returns what it prints.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "{words:?}\n{}\n{}\n{}", ran.text(), ran.err, self.story());
        ran.text().to_owned()
    }

    /// Starts dcluster.
    pub(crate) fn spawn(&self, words: &[&str]) -> Running {
        self.bed.spawn(words)
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }

    /// Waits for a job of which this is true.
    #[track_caller]
    pub(crate) fn job_with(&self, what: &str, pick: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            let status = self.status();
            if let Some(job) = status["jobs"].as_array().unwrap().iter().rfind(|job| pick(job)) {
                return job.clone();
            }
            assert!(Instant::now() < deadline, "never: {what}\n{}", self.story());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Waits for a job in this state.
    #[track_caller]
    pub(crate) fn job_in(&self, state: &str) -> Value {
        self.job_with(state, |job| job["state"] == state)
    }

    /// Waits until so many jobs are up.
    #[track_caller]
    pub(crate) fn up(&self, count: usize) {
        until(&format!("{count} jobs up\n{}", self.story()), || {
            let status = self.status();
            let up = status["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count();
            (up == count).then_some(())
        });
    }

    /// Waits until a task is in this state.
    #[track_caller]
    pub(crate) fn task_in(&self, id: &str, state: &str) -> Value {
        let task = || serde_json::from_str::<Value>(&self.ok(&["tasks", "--json", id])).unwrap();
        until(&format!("task {id} {state}\n{}", self.story()), || Some(task()).filter(|task| task["state"] == state))
    }

    /// What has happened, for the message of a failed test.
    pub(crate) fn story(&self) -> String {
        let run = |mut command: Command| String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
        let mut jobs = self.bed.program("standin");
        jobs.arg("jobs");
        let calls = fs::read_to_string(self.folder.join("calls")).unwrap_or_default();
        let calls: Vec<_> = calls.lines().rev().take(12).collect();
        let status = run(self.bed.command(&["status", "-v"]));
        let events = run(self.bed.command(&["events"]));
        format!("{status}\n{events}\ncalls, newest first:\n{}", calls.join("\n"))
    }

    /// Takes the cluster down; no job of it may be left.
    #[track_caller]
    pub(crate) fn down(&self) {
        self.ok(&["down", "--now"]);
        assert_eq!(self.alive(), 0, "{:#?}", self.jobs());
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.bed.folder().join("id").exists() {
            self.down();
        }
        // Jobs whose cluster has gone wrong, then the server, which is a process of the bed.
        for words in [["sweep"], ["stop"]] {
            let _ = self.bed.program("standin").args(words).output();
        }
    }
}
