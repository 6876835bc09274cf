//! A bed for one cluster: the real binary with a state folder, home and working directory of its own, on the
//! local backend. When it is dropped the cluster is taken down and nothing of it may be left.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_dcluster");
/// What is not true after this long will not become true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code; 128 + signal.
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    /// Returns standard output without the last newline.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.out).expect("UTF-8 on standard output").trim_end_matches('\n')
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        let out = String::from_utf8_lossy(&self.out);
        assert_eq!(self.code, code, "--- stdout\n{out}\n--- stderr\n{}", self.err);
        self
    }

    /// Checks that standard error says something.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        // Sentences are wrapped at 80 columns.
        let flat = self.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words), "no `{words}` in:\n{}", self.err);
        self
    }
}

/// A command that runs.
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    words: String,
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub(crate) fn out(&self) -> Vec<u8> {
        fs::read(&self.out).unwrap()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(self) -> Ran {
        self.end_within(PATIENCE)
    }

    /// Waits for its end, for longer where much is to be done on a busy machine.
    #[track_caller]
    pub(crate) fn end_within(mut self, patience: Duration) -> Ran {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Ran { code: code_of(status), out: self.out(), err: self.err() };
            }
            assert!(Instant::now() < deadline, "`{}` does not end; it says {}", self.words, self.err());
            std::thread::sleep(Duration::from_millis(4));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `look` finds what it looks for.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(8));
    }
}

/// Whether a process runs (a zombie does not).
pub(crate) fn alive(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let rest = stat.iter().rposition(|byte| *byte == b')').map_or(&stat[..], |at| &stat[at + 1..]);
        !matches!(rest.get(1), Some(b'Z' | b'X'))
    })
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Returns the live processes, but this one, whose command line or environment contains a path.
pub(crate) fn processes_with(path: &Path) -> Vec<i32> {
    let me = i32::try_from(std::process::id()).unwrap();
    let needle = path.as_os_str().as_bytes();
    let mentions = |pid: &i32| {
        ["cmdline", "environ"].iter().any(|file| {
            fs::read(format!("/proc/{pid}/{file}"))
                .is_ok_and(|text| text.windows(needle.len()).any(|part| part == needle))
        })
    };
    pids().filter(|pid| *pid != me && alive(*pid)).filter(mentions).collect()
}

/// A listening TCP socket: IPv4 or IPv6 and the address as `/proc/net` writes it.
pub(crate) fn listening(pids: &[i32]) -> Vec<String> {
    let inodes: BTreeSet<String> = pids
        .iter()
        .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok())
        .flatten()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        for line in fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields[3] == "0A" || table.starts_with("udp");
            if listens && inodes.contains(fields[9]) {
                found.push(format!("{table} {}", fields[1]));
            }
        }
    }
    found
}

/// One cluster and its surroundings.
pub(crate) struct Bed {
    root: TempDir,
    pub(crate) state: PathBuf,
    pub(crate) work: PathBuf,
    environment: Vec<(String, String)>,
    count: AtomicU32,
    /// Clusters to take down at the end.
    pub(crate) clusters: Vec<&'static str>,
}

impl Bed {
    /// A bed without a cluster.
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("dc-bed-").tempdir().unwrap();
        let (state, work) = (root.path().join("state"), root.path().join("work"));
        fs::create_dir(&work).unwrap();
        fs::create_dir(root.path().join("home")).unwrap();
        let environment = Vec::new();
        Self { root, state, work, environment, count: AtomicU32::new(0), clusters: vec!["default"] }
    }

    /// A bed whose cluster is up, with these options.
    #[track_caller]
    pub(crate) fn up(options: &[&str]) -> Self {
        let bed = Self::new();
        let mut words = vec!["up", "--wait", "1"];
        words.extend_from_slice(options);
        bed.run(&words).expect(0);
        bed
    }

    /// Adds a variable to the environment of all commands.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The cluster folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.state.join("default")
    }

    /// A program with the bed's environment.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root().join("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("DCLUSTER_STATE", &self.state)
            .env("DCLUSTER_BACKEND", "local")
            .env("DCLUSTER_CORES", "2")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.work)
            .stdin(Stdio::null());
        command
    }

    /// The binary with arguments.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = self.program(BINARY);
        command.args(words);
        command
    }

    /// Starts a command. Its outputs are files: a pipe would hide that a daemon holds it.
    pub(crate) fn start(&self, mut command: Command) -> Running {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| self.root().join(format!("{number}.{kind}"));
        let (out, err) = (file("out"), file("err"));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let words = format!("{command:?}");
        Running { child: command.spawn().unwrap(), out, err, words }
    }

    /// Starts the binary.
    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, words: &[S]) -> Running {
        self.start(self.command(words))
    }

    /// Runs the binary to its end.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Ran {
        self.spawn(words).end()
    }

    /// Runs the binary, which must succeed, and returns what it prints.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, words: &[S]) -> String {
        self.run(words).expect(0).text().to_owned()
    }

    /// Submits a shell script and returns the id.
    #[track_caller]
    pub(crate) fn submit(&self, options: &[&str], script: &str) -> String {
        let mut words = vec!["submit"];
        words.extend_from_slice(options);
        words.extend_from_slice(&["--", "sh", "-c", script]);
        self.ok(&words)
    }

    /// `status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).unwrap()
    }

    /// A number of tasks, as status counts them.
    #[track_caller]
    pub(crate) fn tasks(&self, state: &str) -> u64 {
        self.status()["tasks"][state].as_u64().unwrap()
    }

    /// Lines of JSON that a command prints.
    #[track_caller]
    pub(crate) fn lines(&self, words: &[&str]) -> Vec<Value> {
        self.ok(words).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Kinds of the events so far.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<String> {
        let lines = self.lines(&["events", "--json"]);
        lines.iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// Process of the server, as it published it.
    #[track_caller]
    pub(crate) fn server(&self) -> i32 {
        let access: Value = serde_json::from_slice(&fs::read(self.folder().join("access")).unwrap()).unwrap();
        access["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// Processes whose command line contains this word.
    pub(crate) fn pids_of(&self, word: &str) -> Vec<i32> {
        let has = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|part| part == word.as_bytes())
        };
        processes_with(self.root()).into_iter().filter(has).collect()
    }

    /// The worker processes of jobs.
    pub(crate) fn workers(&self) -> Vec<i32> {
        self.pids_of("worker")
    }

    /// Reads a file of the working directory; empty if it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.work.join(name)).unwrap_or_default()).into_owned()
    }

    /// Waits for a file of the working directory that ends with a newline.
    #[track_caller]
    pub(crate) fn appears(&self, name: &str) -> String {
        until(name, || Some(self.read(name)).filter(|text| text.ends_with('\n')))
    }

    /// Takes the clusters down and checks that nothing is left.
    #[track_caller]
    pub(crate) fn leaves_nothing(&self) {
        for name in &self.clusters {
            if self.state.join(name).join("id").exists() {
                self.run(&["down", "--now", "--cluster", name]).expect(0);
            }
        }
        self.nothing_left();
    }

    /// Checks that no process of the bed is left; sockets go with them.
    #[track_caller]
    pub(crate) fn nothing_left(&self) {
        // The bash of a job ends a moment after its cluster.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = processes_with(self.root());
            if left.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                let lines: Vec<String> = left
                    .iter()
                    .map(|pid| {
                        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                        format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
                    })
                    .collect();
                panic!("left over:\n{}", lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(8));
        }
    }
}

impl Drop for Bed {
    #[expect(clippy::print_stderr, reason = "what a failing test leaves to read")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder().join("server.log")).unwrap_or_default();
            let last = log.lines().rev().take(15).collect::<Vec<_>>();
            for line in last.iter().rev() {
                eprintln!("server.log: {line}");
            }
            // Ends what it started, by process id.
            for pid in processes_with(self.root.path()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            return;
        }
        self.leaves_nothing();
    }
}

/// Says that a test could not run here; never silently.
#[expect(clippy::print_stderr, reason = "the one place where tests speak")]
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Sends a signal to a process that is there.
pub(crate) fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Waits for a process to end.
#[track_caller]
pub(crate) fn gone(pid: i32) {
    until("the process is gone", || (!alive(pid)).then_some(()));
}

/// A script that leaves `w.<task>.<pid>` when it starts and adds `end` when it ends, after `go` exists.
pub(crate) const WITNESS: &str =
    "w=w.$DCLUSTER_TASK_ID.$$; set -C; : > $w; until [ -e go ]; do sleep 0.05; done; echo end >> $w";

/// The files that such scripts have left.
pub(crate) fn witnesses(bed: &Bed) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(&bed.work)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("w."))
        .collect();
    names.sort();
    names
}
