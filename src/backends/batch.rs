//! What the batch systems share: run one of their commands within bounds, judge its answer, and map an
//! array's elements to our job names. Called by the backends; knows no batch system by name.
//!
//! A command runs in a session of its own with stdin from `/dev/null`, `LC_ALL=C` and no inherited
//! descriptor. Past its time or output it is killed with its process group. Nothing is ever retried here.

use crate::backends::{BackendError, ErrorClass, JobRef, Observation};
use crate::runtime::ids::{JobName, JobSeq};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Most bytes of output of one command (`reliability.md` section 10).
pub const OUTPUT_LIMIT_BYTES: usize = 64 << 20;
/// Time one command may take (`reliability.md` section 10).
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of foreign text kept in an error or a reason.
pub const TEXT_LIMIT_BYTES: usize = 2048;
/// How long output is read on after the command itself ended: a daemon it left behind may hold the pipe.
const LINGER: Duration = Duration::from_secs(1);

/// A command to run.
#[derive(Clone, Debug)]
pub struct Call {
    program: &'static str,
    arguments: Vec<OsString>,
    set: Vec<(&'static str, OsString)>,
    remove: Vec<&'static str>,
    keep: Option<fn(&str) -> bool>,
    input: Option<PathBuf>,
    timeout: Duration,
    output_limit_bytes: usize,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// Killed.
    Signal(i32),
}

/// What a command answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// How it ended.
    pub exit: Exit,
    /// Its output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Its diagnostics, invalid UTF-8 replaced.
    pub stderr: String,
}

/// A command that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no such program.
    #[error("{program} is not on PATH")]
    Missing {
        /// The program.
        program: &'static str,
    },
    /// It could not be started: nothing happened.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Its time was over and it was killed.
    #[error("no answer within {seconds} s{}", said(.stderr))]
    TimedOut {
        /// The time it had.
        seconds: u64,
        /// What it had said on stderr by then.
        stderr: String,
    },
    /// It wrote too much and was killed.
    #[error("more than {limit} bytes of output")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// Its output could not be read.
    #[error("cannot read the output of {program}: {source}")]
    Read {
        /// The program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// What a command was to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Submit jobs: `sbatch`, `qsub`, `bsub`.
    Submit,
    /// Say what jobs do, or what the site has: `squeue`, `qstat`, `bjobs`, `bqueues`.
    List,
    /// Say how jobs ended: `sacct`, `qacct`, `bhist`.
    Account,
    /// Cancel jobs: `scancel`, `qdel`, `bkill`.
    Cancel,
}

/// Says what a failed command's answer means: its class and what to do about it. Each batch system has one.
pub type Classify = fn(Verb, &Answer) -> (ErrorClass, Option<String>);

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!("; it had said: {text}"),
    }
}

impl Call {
    /// Returns a call of `program`, which is looked up on the `PATH` of this process.
    pub fn new(program: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            set: Vec::new(),
            remove: Vec::new(),
            keep: None,
            input: None,
            timeout: COMMAND_TIMEOUT,
            output_limit_bytes: OUTPUT_LIMIT_BYTES,
        }
    }
    /// Appends one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }
    /// Appends arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }
    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.set.push((name, value.into()));
        self
    }
    /// Names environment variables the command must not inherit.
    #[must_use]
    pub fn without(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        self.remove.extend(names);
        self
    }
    /// Lets the command inherit only those environment variables whose names this accepts.
    #[must_use]
    pub fn only(mut self, keep: fn(&str) -> bool) -> Self {
        self.keep = Some(keep);
        self
    }
    /// Names the file that it reads as its standard input, in place of `/dev/null`.
    #[must_use]
    pub fn input(mut self, file: impl Into<PathBuf>) -> Self {
        self.input = Some(file.into());
        self
    }
    /// Sets the time it may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
    /// Returns the command as a person would type it, cut at [`TEXT_LIMIT_BYTES`].
    pub fn line(&self) -> String {
        let mut line = self.program.to_owned();
        for argument in &self.arguments {
            let text = argument.to_string_lossy();
            line.push(' ');
            line.push_str(&shlex::try_quote(&text).unwrap_or_else(|_| text.as_ref().into()));
        }
        if let Some(file) = &self.input {
            let text = file.to_string_lossy();
            line.push_str(" < ");
            line.push_str(&shlex::try_quote(&text).unwrap_or_else(|_| text.as_ref().into()));
        }
        bounded(&line)
    }
    /// Runs it. Dropping the future kills the command.
    pub async fn run(&self) -> Result<Answer, CallError> {
        let program = self.program;
        let mut command = std::process::Command::new(program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(path) = &self.input {
            let file = std::fs::File::open(path).map_err(|source| CallError::Start { program, source })?;
            command.stdin(file);
        }
        if let Some(keep) = self.keep {
            command.env_clear();
            command.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(keep)));
        }
        for name in &self.remove {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C");
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
        crate::sys::new_session(&mut command);
        let mut child = tokio::process::Command::from(command).spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => CallError::Missing { program },
            _ => CallError::Start { program, source },
        })?;
        let group = Group(child.id());
        let limit = self.output_limit_bytes;
        let read_error = |source| CallError::Read { program, source };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let conversation = async {
            let mut reading = std::pin::pin!(async {
                tokio::try_join!(read(stdout, &mut out, limit), read(stderr, &mut err, limit))
            });
            let status = tokio::select! {
                read = &mut reading => {
                    read.map_err(read_error)?;
                    return child.wait().await.map_err(read_error);
                }
                status = child.wait() => status.map_err(read_error)?,
            };
            match tokio::time::timeout(LINGER, reading).await {
                Ok(read) => read.map_err(read_error).map(|_| status),
                Err(_) => Ok(status),
            }
        };
        let ended = tokio::time::timeout(self.timeout, conversation).await;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let status = match ended {
            Ok(Ok(status)) => status,
            Ok(Err(CallError::Read { source, .. })) if source.kind() == std::io::ErrorKind::FileTooLarge => {
                return Err(CallError::TooLong { limit });
            }
            Ok(Err(other)) => return Err(other),
            Err(_) => {
                return Err(CallError::TimedOut { seconds: self.timeout.as_secs(), stderr: bounded(text(err).trim()) });
            }
        };
        group.ended();
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        };
        Ok(Answer { exit, stdout: text(out), stderr: text(err) })
    }
    /// Returns an error of this call.
    pub fn error(&self, class: ErrorClass, says: &str, fix: Option<String>) -> BackendError {
        BackendError { class, command: self.line(), says: bounded(says.trim()), fix }
    }
}

/// Returns the answer of a command that did what it was to do.
///
/// # Errors
/// Of the class that `classify` says; a submission that gave no answer at all is ambiguous.
pub fn judge(
    verb: Verb,
    call: &Call,
    answer: Result<Answer, CallError>,
    classify: Classify,
) -> Result<Answer, BackendError> {
    let answer = match answer {
        Ok(answer) if answer.exit == Exit::Code(0) => return Ok(answer),
        Ok(answer) => answer,
        Err(error) => {
            let (class, fix) = match (&error, verb) {
                (CallError::Missing { .. }, _) => (
                    ErrorClass::Permanent,
                    Some(
                        "the batch system's commands must be on PATH where the cluster is brought up: load the site's module, or use another --backend",
                    ),
                ),
                (CallError::Start { .. }, _) => (ErrorClass::Transient, None),
                (_, Verb::Submit) => (ErrorClass::Ambiguous, None),
                _ => (ErrorClass::Transient, None),
            };
            return Err(call.error(class, &error.to_string(), fix.map(str::to_owned)));
        }
    };
    let (class, fix) = classify(verb, &answer);
    Err(call.error(class, &answer.says(), fix))
}

/// Runs a command and judges its answer: see [`judge`].
///
/// # Errors
/// See [`judge`].
pub async fn run(verb: Verb, call: &Call, classify: Classify) -> Result<Answer, BackendError> {
    judge(verb, call, call.run().await, classify)
}

impl Answer {
    /// Returns what the command said of a failure: its diagnostics, else its output, else how it ended.
    pub fn says(&self) -> String {
        match (self.stderr.trim(), self.stdout.trim()) {
            ("", "") => match self.exit {
                Exit::Code(code) => format!("exit code {code} and no word"),
                Exit::Signal(signal) => format!("killed by signal {signal}, without a word"),
            },
            ("", out) => out.to_owned(),
            (err, _) => err.to_owned(),
        }
    }
}

/// This user, as a number: no directory service needed.
pub fn user_id() -> String {
    nix::unistd::geteuid().to_string()
}

/// Kills the process group of a command that is given up.
struct Group(Option<u32>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // Nothing but this group has the number: its leader is not reaped, or, when it is, what it left
            // behind holds the pipe we still read.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, limit: usize) -> std::io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    loop {
        if pipe.read_buf(into).await? == 0 {
            return Ok(());
        }
        if into.len() > limit {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
    }
}

/// Returns foreign text fit for people: control characters escaped, at most [`TEXT_LIMIT_BYTES`], a cut
/// marked by `…`.
pub fn bounded(text: &str) -> String {
    bounded_to(text, TEXT_LIMIT_BYTES)
}

/// Does what [`bounded`] does, with another limit.
pub fn bounded_to(text: &str, limit_bytes: usize) -> String {
    let mut out = String::new();
    let mut cut = 0;
    for character in text.chars() {
        if out.len() + '…'.len_utf8() <= limit_bytes {
            cut = out.len();
        }
        match character {
            '\n' => out.push_str("; "),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
        if out.len() > limit_bytes {
            out.truncate(cut);
            out.push('…');
            break;
        }
    }
    out
}

/// Jobs submitted by one command: consecutive numbers, an array when there is more than one. The batch
/// system knows the array by the name of its first job; element `index` (from 0) is the job `first + index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobArray {
    /// Number of the first job.
    pub first: JobSeq,
    /// How many, at least 1.
    pub count: u32,
}

impl JobArray {
    /// Returns the array of a submission's jobs.
    ///
    /// # Panics
    /// If there is no job or the numbers are not consecutive: [`crate::backends::Submit`] promises both.
    pub fn of(jobs: &[(JobSeq, JobName)]) -> Self {
        assert!(!jobs.is_empty(), "a submission has at least one job");
        let consecutive = jobs.windows(2).all(|pair| pair[0].0.0.checked_add(1) == Some(pair[1].0.0));
        assert!(consecutive, "jobs of a submission are consecutive");
        let count = u32::try_from(jobs.len()).expect("consecutive u32 numbers are no more than u32::MAX");
        Self { first: jobs[0].0, count }
    }
    /// Returns the name the batch system knows it by.
    pub fn name(&self, id4: &str) -> JobName {
        JobName::new(id4, self.first)
    }
}

/// Returns the job that is element `index` of the array called `array_name`; `None` when that is no name of
/// the cluster `id4`. A job that is no array is its own element 0.
pub fn element(id4: &str, array_name: &str, index: u32) -> Option<(JobName, JobSeq)> {
    let (_, first) = JobName::parse(id4, array_name)?;
    let seq = JobSeq(first.0.checked_add(index)?);
    Some((JobName::new(id4, seq), seq))
}

/// Returns those observations that are of these jobs: ids are used again when a counter is full or a spool was lost,
/// names are not.
pub fn of(jobs: &[JobRef], observations: impl IntoIterator<Item = Observation>) -> Vec<Observation> {
    let wanted: BTreeMap<_, _> = jobs.iter().map(|job| (&job.name, &job.id)).collect();
    let ours = |seen: &Observation| match wanted.get(&seen.name) {
        Some(Some(id)) => *id == seen.id,
        Some(None) => true,
        None => false,
    };
    observations.into_iter().filter(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bash(script: &str) -> Call {
        Call::new("bash").args(["-c", script])
    }

    #[tokio::test]
    async fn returns_what_a_command_says() {
        let answer = bash("echo out $LC_ALL $A $B; echo err >&2; cat; exit 3")
            .env("A", "a b")
            .without(["B"])
            .run()
            .await
            .unwrap();
        assert_eq!(answer.exit, Exit::Code(3));
        assert_eq!(answer.stdout, "out C a b\n");
        assert_eq!(answer.stderr, "err\n");
        let killed = bash("kill -KILL $$").run().await.unwrap();
        assert_eq!(killed.exit, Exit::Signal(9));
    }

    #[tokio::test]
    async fn reads_a_file_and_inherits_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in put");
        std::fs::write(&path, "from a file\n").unwrap();
        let call = bash("cat; env").only(|name| name == "PATH").env("SET", "x").input(&path);
        assert!(call.line().ends_with(&format!("< '{}'", path.display())), "{}", call.line());
        let answer = call.run().await.unwrap();
        assert!(answer.stdout.starts_with("from a file\n"), "{}", answer.stdout);
        let names: Vec<_> = answer.stdout.lines().skip(1).filter_map(|line| line.split('=').next()).collect();
        for name in names {
            assert!(matches!(name, "PATH" | "SET" | "LC_ALL" | "PWD" | "SHLVL" | "_"), "{name}");
        }
        let missing = bash("true").input(folder.path().join("none")).run().await.unwrap_err();
        assert!(matches!(missing, CallError::Start { .. }));
    }

    #[tokio::test]
    async fn missing_program() {
        let error = Call::new("no-such-program-here").run().await.unwrap_err();
        assert!(matches!(error, CallError::Missing { .. }));
    }

    #[tokio::test]
    async fn kills_the_group_when_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo busy >&2; wait", file.display());
        let error = bash(&script).timeout(Duration::from_millis(700)).run().await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 0 s; it had said: busy");
        let pid = std::fs::read_to_string(file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z ")) {
            assert!(std::time::Instant::now() < deadline, "sleep lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[tokio::test]
    async fn output_has_a_limit() {
        let mut call = bash("printf %100s x");
        call.output_limit_bytes = 100;
        assert_eq!(call.run().await.unwrap().stdout.len(), 100);
        let mut call = bash("printf %101s x; sleep 1000");
        call.output_limit_bytes = 100;
        assert!(matches!(call.run().await.unwrap_err(), CallError::TooLong { limit: 100 }));
    }

    #[tokio::test]
    async fn does_not_wait_for_a_daemon_that_holds_the_pipe() {
        let began = std::time::Instant::now();
        let answer = bash("echo 1; sleep 30 & disown; exit 0").run().await.unwrap();
        assert_eq!(answer.stdout, "1\n");
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn calls_without_an_answer() {
        let call = Call::new("sbatch");
        let classify: Classify = |_, _| (ErrorClass::Limit, None);
        let timed_out = || CallError::TimedOut { seconds: 1, stderr: String::new() };
        let class = |verb, error| judge(verb, &call, Err(error), classify).unwrap_err().class;
        assert_eq!(class(Verb::Submit, timed_out()), ErrorClass::Ambiguous);
        assert_eq!(class(Verb::List, timed_out()), ErrorClass::Transient);
        let missing = judge(Verb::Submit, &call, Err(CallError::Missing { program: "sbatch" }), classify).unwrap_err();
        assert_eq!((missing.class, missing.fix.is_some()), (ErrorClass::Permanent, true));
        let silent = Answer { exit: Exit::Code(3), stdout: String::new(), stderr: String::new() };
        let failed = judge(Verb::List, &call, Ok(silent), classify).unwrap_err();
        assert_eq!((failed.class, failed.says.as_str()), (ErrorClass::Limit, "exit code 3 and no word"));
    }

    #[test]
    fn foreign_text_is_bounded() {
        assert_eq!(bounded("a\nb\u{1b}[1m\u{9b}"), "a; b\\u{1b}[1m\\u{9b}");
        assert_eq!(bounded(&"x".repeat(2048)), "x".repeat(2048), "at the bound");
        assert_eq!(bounded(&"x".repeat(2049)), format!("{}…", "x".repeat(2045)), "one past it");
        let cut = bounded(&"ä".repeat(5000));
        assert!(cut.len() <= TEXT_LIMIT_BYTES && cut.ends_with('…'));
        assert_eq!(Call::new("x").args(["a b", "c"]).line(), "x 'a b' c".to_owned());
    }

    #[test]
    fn elements_are_jobs() {
        let jobs: Vec<_> = (7..10).map(|n| (JobSeq(n), JobName::new("abcd", JobSeq(n)))).collect();
        let array = JobArray::of(&jobs);
        assert_eq!((array.first, array.count), (JobSeq(7), 3));
        assert_eq!(array.name("abcd").as_str(), "dcabcd-000007");
        assert_eq!(element("abcd", "dcabcd-000007", 2).unwrap(), (jobs[2].1.clone(), JobSeq(9)));
        assert_eq!(element("abcd", "dcabce-000007", 2), None);
        assert_eq!(element("abcd", "dcabcd-4294967295", 1), None);
    }
}
