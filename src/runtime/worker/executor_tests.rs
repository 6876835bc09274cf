//! Real processes. Each test runs in a process of its own, because an executor owns all children, the
//! umask and the signal dispositions of its process.

use super::*;
use crate::runtime::ids::{ArrayId, JobSeq};
use crate::runtime::protocol::{Body, Command, Gpus, Indexes, Output, Place, Request};
use bstr::ByteSlice;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

const ALONE: &str = "DCLUSTER_TEST_ALONE";
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the test in a process of its own, in which SIGHUP is ignored as under nohup.
fn alone<F: FnOnce()>(test: F) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    // `dcluster::path::of::the_test::{{closure}}`.
    let path = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    let (_, name) = path.split_once("::").unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = output.stdout.to_str_lossy();
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{}", output.stderr.as_bstr());
}

struct Bed {
    folder: tempfile::TempDir,
    executor: Executor,
    next_run: RunId,
    now: Millis,
    /// Of the next runs.
    place: Place,
}

impl Bed {
    fn new() -> Self {
        Self::with_gpus(&[])
    }

    fn with_gpus(gpus: &[&str]) -> Self {
        umask_of_worker();
        let folder = tempfile::tempdir().unwrap();
        let mut environment: BTreeMap<BString, BString> =
            std::env::vars_os().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())).collect();
        environment.insert("DCLUSTER_SECRET".into(), "x".into());
        environment.insert("INHERITED".into(), "\u{fc}".into());
        environment.remove(b"OMP_NUM_THREADS".as_bstr());
        let executor = Executor::new(ExecutorOptions {
            cluster_folder: folder.path().join("cluster"),
            cluster_name: "demo".into(),
            job: Some(JobName::new("abcd", JobSeq(5))),
            environment,
            gpus: gpus.iter().map(|&gpu| gpu.to_owned()).collect(),
            cores: None,
            temporary: folder.path().to_owned(),
            kill_grace: Duration::from_secs(5),
            parse: |template| match template.as_slice() {
                b"bad" => Err("bad template".to_owned()),
                _ => {
                    let template = template.clone();
                    Ok(Box::new(move |input, element| {
                        let number = element.to_string();
                        let words = [b"echo".as_bstr(), template.as_bstr(), number.as_bytes().as_bstr()];
                        words.into_iter().map(BString::from).chain(input.iter().cloned()).collect()
                    }))
                }
            },
        })
        .unwrap();
        Self { folder, executor, next_run: RunId::first(1), now: 0, place: Place::default() }
    }

    fn body(&self, words: &[&str]) -> Body {
        Body {
            command: Command::Argv(words.iter().map(|&word| word.into()).collect()),
            name: "a/b".into(),
            cwd: self.folder.path().as_os_str().as_bytes().into(),
            env: BTreeMap::new(),
            stdin: None,
            stdout: Output::Default,
            stderr: Output::Default,
            time_limit_seconds: None,
            needs: Request::default().into(),
            indexes: Indexes::Single,
            umask: 0o022,
        }
    }

    fn shell(&self, script: &str) -> Body {
        self.body(&["sh", "-c", script])
    }

    fn start(&mut self, body: Body) -> (RunId, u32) {
        self.try_start(0, body).unwrap()
    }

    fn try_start(&mut self, element: u32, body: Body) -> Result<(RunId, u32), StartError> {
        self.next_run = self.next_run.next();
        let run = self.next_run;
        let task = TaskId { array: ArrayId(3), element };
        let input = [BString::from("in 1")];
        let start =
            TaskStart { task, run, variant: 0, place: self.place.clone(), body: Arc::new(body), input: input.to_vec() };
        let pid = self.executor.start(&start, self.now)?;
        Ok((run, pid))
    }

    fn wait(&mut self, count: usize) -> Vec<EndReport> {
        let mut reports = vec![];
        self.until("tasks have ended", |bed| {
            reports.extend(bed.executor.on_child_signal(bed.now));
            // Ends by signals are kept back for a moment.
            reports.extend(bed.executor.shared.take(bed.now + 1000));
            reports.len() >= count
        });
        reports
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < give_up, "timed out: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn run(&mut self, body: Body) -> Outcome {
        self.start(body);
        self.wait(1).remove(0).outcome
    }

    fn refusal(&mut self, body: Body) -> String {
        match Outcome::from(self.try_start(0, body).unwrap_err()) {
            Outcome::NotStarted { error } => error.replace(self.folder.path().to_str().unwrap(), "[bed]"),
            other => panic!("{other:?}"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Standard output of the single task of submission 3.
    fn stdout(&self) -> String {
        self.read("cluster/tasks/3/task.out")
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8(fs::read(self.path(name)).unwrap()).unwrap()
    }

    fn wait_for_text(&mut self, name: &str) -> String {
        let path = self.path(name);
        self.until(name, |bed| {
            bed.executor.on_deadline(bed.now + NAMELESS_FOR);
            fs::read(&path).is_ok_and(|text| text.ends_with(b"\n"))
        });
        self.read(name)
    }

    fn script(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn umask_of_worker() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn exit_codes_and_signals() {
    alone(|| {
        let mut bed = Bed::new();
        for (script, outcome) in [
            ("exit 0", Outcome::Finished),
            ("exit 3", Outcome::Failed { code: 3 }),
            ("exit 255", Outcome::Failed { code: 255 }),
            ("kill -SEGV $$", Outcome::Signalled { signal: 11 }),
            ("kill -TERM $$", Outcome::Signalled { signal: 15 }),
            ("kill -35 $$", Outcome::Signalled { signal: 35 }),
        ] {
            let body = bed.shell(script);
            assert_eq!(bed.run(body), outcome, "{script}");
        }
        assert_eq!(bed.executor.running().count(), 0);
    });
}

/// LSF's run limit sends USR2 to all processes of a job, PBS and `bkill` send TERM and INT.
#[test]
fn a_signal_to_the_whole_job_is_no_failure() {
    alone(|| {
        let mut bed = Bed::new();
        let body = bed.shell("kill -USR2 $$");
        bed.start(body.clone());
        bed.until("it has ended", |bed| {
            assert_eq!(bed.executor.on_child_signal(bed.now), []);
            bed.executor.next_deadline() == Some(250)
        });
        bed.executor.on_signal(Signal::SIGUSR2, bed.now);
        let after = bed.executor.on_child_signal(bed.now).remove(0).outcome;
        bed.start(body.clone());
        let with = bed.wait(1).remove(0).outcome;
        assert_eq!([after, with], [Outcome::Interrupted, Outcome::Interrupted]);
        bed.now += 10_000;
        assert_eq!(bed.run(body), Outcome::Signalled { signal: 12 }, "the task alone");
    });
}

#[test]
fn time_limit_is_term_then_kill() {
    alone(|| {
        let mut bed = Bed::new();
        let mut body = bed.shell("trap '' TERM; echo ready; while :; do sleep 0.01; done");
        body.time_limit_seconds = Some(10);
        let (_, pid) = bed.start(body);
        bed.wait_for_text("cluster/tasks/3/task.out");
        assert_eq!(bed.executor.next_deadline(), Some(10_000));
        bed.executor.on_deadline(9_999);
        assert_eq!(bed.executor.next_deadline(), Some(10_000));
        bed.executor.on_deadline(10_000);
        assert_eq!(bed.executor.next_deadline(), Some(15_000));
        assert!(alive(&pid.to_string()));
        bed.executor.on_deadline(15_000);
        bed.now = 15_001;
        let report = bed.wait(1).remove(0);
        assert_eq!(report.outcome, Outcome::TimeLimit);
        assert_eq!(report.usage.wall_milliseconds, 15_001);
        assert_eq!(bed.executor.next_deadline(), None);
    });
}

#[test]
fn kill_reaches_the_whole_group_even_stopped() {
    alone(|| {
        let mut bed = Bed::new();
        let body = bed.shell("sleep 100 & echo $!; kill -STOP $$; wait");
        let (run, _) = bed.start(body);
        let background = bed.wait_for_text("cluster/tasks/3/task.out");
        bed.executor.kill(run, 0);
        assert_eq!(bed.wait(1)[0].outcome, Outcome::Killed);
        bed.until("background process is gone", |_| !alive(&background));
    });
}

#[test]
fn rests_of_the_group_do_not_outlive_the_task() {
    alone(|| {
        let mut bed = Bed::new();
        let body = bed.shell("sleep 100 & echo $!");
        assert_eq!(bed.run(body), Outcome::Finished);
        let background = bed.stdout();
        bed.until("background process is gone", |_| !alive(&background));
    });
}

#[test]
fn a_daemon_dies_with_its_task_and_not_with_another() {
    alone(|| {
        let mut bed = Bed::new();
        let daemon = "(setsid sh -c 'sleep 100 & echo $! $$ >pid.new; mv pid.new pid; wait' &); \
                      until test -e pid; do sleep 0.01; done; echo up; exec sleep 100";
        let body = bed.shell(daemon);
        let (run, _) = bed.start(body);
        bed.wait_for_text("cluster/tasks/3/task.out");
        let mut other = bed.body(&["true"]);
        other.stdout = Output::File("other".into());
        assert_eq!(bed.run(other), Outcome::Finished);
        let pids = bed.read("pid");
        let pids: Vec<&str> = pids.split_whitespace().collect();
        assert!(pids.iter().all(|pid| alive(pid)));

        bed.executor.kill(run, 0);
        bed.until("daemon and its child are gone", |bed| {
            bed.executor.on_child_signal(0);
            !pids.iter().any(|pid| alive(pid)) && OwnChildren::new().list().is_empty()
        });
        assert!(bed.executor.adopted.is_empty());
    });
}

#[test]
fn nothing_is_left_below_a_worker_that_ends() {
    alone(|| {
        let mut bed = Bed::new();
        // Clean environment, own sessions, TERM ignored: only the parent chain leads to them.
        let body = bed.shell(
            "trap '' TERM; for i in 1 2 3; do env -i PATH=\"$PATH\" setsid setsid -f sh -c \
             'sleep 100 & sleep 100 & wait' & done; echo up; sleep 100",
        );
        bed.start(body);
        bed.wait_for_text("cluster/tasks/3/task.out");
        let reports = bed.executor.kill_descendants(PATIENCE, 0);
        assert_eq!(reports[0].outcome, Outcome::Interrupted);
        assert!(OwnChildren::new().list().is_empty());
    });
}

#[test]
fn interruption_is_nobodys_fault() {
    alone(|| {
        let mut bed = Bed::new();
        let loop_forever = "echo up; while :; do sleep 0.01; done";
        for (trap, kill_too, outcome) in [
            ("", false, Outcome::Interrupted),
            ("trap 'exit 3' TERM;", false, Outcome::Interrupted),
            ("trap 'exit 0' TERM;", false, Outcome::Finished),
            ("trap '' TERM;", true, Outcome::Killed),
        ] {
            let body = bed.shell(&format!("{trap} {loop_forever}"));
            let (run, _) = bed.start(body);
            bed.wait_for_text("cluster/tasks/3/task.out");
            bed.executor.interrupt_all(Duration::from_secs(60), 0);
            if kill_too {
                bed.executor.kill(run, 0);
                assert_eq!(bed.executor.next_deadline(), Some(5_000));
                bed.executor.on_deadline(5_000);
            }
            assert_eq!(bed.wait(1)[0].outcome, outcome, "{trap}");
        }
    });
}

#[test]
fn many_at_once_each_with_its_own_usage() {
    alone(|| {
        let mut bed = Bed::new();
        for element in 0..200 {
            let mut body = bed.shell("exit $DCLUSTER_TASK_INDEX");
            if element == 7 {
                // Killed after one second of CPU time, however busy the machine is.
                body = bed.shell("exec 2>/dev/null; (ulimit -t 1; while :; do :; done); exit 7");
            }
            if element == 8 {
                body = bed.shell("dd if=/dev/zero of=/dev/null bs=64M count=1 2>&-; exit 8");
            }
            body.indexes = Indexes::Range { first: 0, count: 200, step: 1 };
            bed.try_start(element, body).unwrap();
        }
        let reports = bed.wait(200);
        for report in &reports {
            let expected = match i32::try_from(report.task.element).unwrap() {
                0 => Outcome::Finished,
                code => Outcome::Failed { code },
            };
            assert_eq!(report.outcome, expected);
            let usage = report.usage;
            assert_eq!(usage.cpu_milliseconds >= 500, report.task.element == 7, "{report:?}");
            assert_eq!(usage.memory_bytes >= 64 << 20, report.task.element == 8, "{report:?}");
            assert!(usage.memory_bytes > 0);
        }
        // All were silent: every default output is gone.
        assert_eq!(fs::read_dir(bed.path("cluster/tasks/3")).unwrap().count(), 0);
    });
}

#[test]
fn bytes_that_are_not_utf8() {
    alone(|| {
        let mut bed = Bed::new();
        let folder = bed.folder.path().join(OsStr::from_bytes(b"d\xff"));
        fs::create_dir(&folder).unwrap();
        let mut body = bed.body(&["printf", "%s|%s", "x"]);
        if let Command::Argv(words) = &mut body.command {
            words.push(BString::from(b"\xfe\xff".as_slice()));
        }
        body.cwd = folder.as_os_str().as_bytes().into();
        body.stdout = Output::File(b"out\xfe".as_slice().into());
        assert_eq!(bed.run(body), Outcome::Finished);
        let out = fs::read(folder.join(OsStr::from_bytes(b"out\xfe"))).unwrap();
        assert_eq!(out, b"x|\xfe\xff");
    });
}

#[test]
fn a_task_gets_three_descriptors_and_default_signals() {
    alone(|| {
        let _inherited = nix::unistd::dup(std::io::stderr()).unwrap();
        SigSet::from(Signal::SIGUSR1).thread_block().unwrap();
        let mut bed = Bed::new();
        let body = bed.body(&["sleep", "100"]);
        let (run, pid) = bed.start(body);
        // The system lets us go on while it is still in the middle of the exec: the loader may have a
        // file open, and what is closed on exec may not be closed yet.
        bed.until("only the three standard descriptors are open", |_| {
            let folder = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            let mut open: Vec<_> = folder.map(|entry| entry.unwrap().file_name()).collect();
            open.sort();
            open == ["0", "1", "2"]
        });
        // glibc's posix_spawn leaves its two internal signals, 32 and 33, ignored.
        let internal = 0b11 << 31;
        bed.until("all signals have their defaults", |_| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            ["SigBlk:\t", "SigIgn:\t", "SigCgt:\t"].iter().all(|field| {
                let at = status.find(field).unwrap() + field.len();
                u64::from_str_radix(&status[at..at + 16], 16).unwrap() & !internal == 0
            })
        });
        bed.executor.kill(run, 0);
        bed.wait(1);
    });
}

#[test]
fn the_umask_is_the_submitters() {
    alone(|| {
        let mut bed = Bed::new();
        let mut body = bed.shell("umask; touch made; echo x >&2");
        body.umask = 0o002;
        body.stdout = Output::File("new/deep/out".into());
        assert_eq!(bed.run(body), Outcome::Finished);
        assert_eq!(bed.read("new/deep/out").trim_start_matches('0'), "2\n");
        assert_eq!(mode(&bed.path("made")), 0o664);
        assert_eq!(mode(&bed.path("new/deep/out")), 0o664);
        assert_eq!(mode(&bed.path("new/deep")), 0o775);
        assert_eq!(mode(&bed.path("cluster/tasks/3/task.err")), 0o600);
        assert_eq!(mode(&bed.path("cluster/tasks/3")), 0o700);
        assert_eq!(mode(&bed.path("cluster")), 0o700);
        fs::write(bed.path("by_worker"), "").unwrap();
        assert_eq!(mode(&bed.path("by_worker")), 0o600);
    });
}

#[test]
fn standard_streams() {
    alone(|| {
        let mut bed = Bed::new();
        let text = "echo out; echo err >&2; echo out2";
        // The same file under two names.
        let mut body = bed.shell(text);
        body.stdout = Output::File("{name}-{id}".into());
        body.stderr = Output::File("./x/../{name}-{id}".into());
        fs::create_dir(bed.path("x")).unwrap();
        assert_eq!(bed.run(body), Outcome::Finished);
        assert_eq!(bed.read("a_b-3"), "out\nerr\nout2\n");

        let mut body = bed.shell(text);
        body.stderr = Output::SameAsStdout;
        assert_eq!(bed.run(body), Outcome::Finished);
        assert_eq!(bed.stdout(), "out\nerr\nout2\n");

        // Another run starts anew; empty default outputs vanish, named ones stay.
        let mut body = bed.shell("cat >&2");
        body.stdin = Some("a_b-3".into());
        assert_eq!(bed.run(body), Outcome::Finished);
        assert!(!bed.path("cluster/tasks/3/task.out").exists());
        assert_eq!(bed.read("cluster/tasks/3/task.err"), "out\nerr\nout2\n");
        let mut body = bed.shell("cat");
        body.stdout = Output::File("empty".into());
        assert_eq!(bed.run(body), Outcome::Finished);
        assert_eq!(bed.read("empty"), "");
        assert!(!bed.path("cluster/tasks/3/task.err").exists());
    });
}

#[test]
fn programs_are_found_like_a_shell_finds_them() {
    alone(|| {
        let mut bed = Bed::new();
        fs::create_dir(bed.path("bin")).unwrap();
        bed.script("bin/tool", "#!/bin/sh\necho \"$0 in $(pwd)\"\n", 0o755);
        let cwd = bed.folder.path().canonicalize().unwrap();
        let expected = format!("bin/tool in {}\n", cwd.display());

        let body = bed.body(&["./bin/tool"]);
        assert_eq!(bed.run(body), Outcome::Finished);
        assert_eq!(bed.stdout(), format!("./{expected}"));

        let mut body = bed.body(&["tool"]);
        body.env.insert("PATH".into(), "/nowhere:bin:/usr/bin:/bin".into());
        assert_eq!(bed.run(body), Outcome::Finished);
        assert_eq!(bed.stdout(), expected);

        let mut body = bed.body(&[]);
        body.command = Command::Template("words".into());
        assert_eq!(bed.run(body), Outcome::Finished);
        assert_eq!(bed.stdout(), "words 0 in 1\n");
    });
}

#[test]
fn what_cannot_start_says_why() {
    alone(|| {
        let mut bed = Bed::new();
        bed.script("plain", "echo no line\n", 0o755);
        bed.script("foreign", "\x7fELF and so on", 0o755);
        bed.script("lost", "#! /no/python3 -u\n", 0o755);
        bed.script("closed", "#!/bin/sh\n", 0o644);
        nix::unistd::mkfifo(&bed.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let long = "x".repeat(200_000);
        let mut sentences = String::new();
        let mut say = |bed: &mut Bed, body: Body| {
            sentences.push_str(&bed.refusal(body));
            sentences.push('\n');
        };
        for words in [
            &["nosuch"][..],
            &["closed"],
            &["./nosuch"],
            &["./plain"],
            &["./foreign"],
            &["./lost"],
            &["./closed"],
            &["/"],
            &["a\0b"],
            &[""],
            &[],
        ] {
            let mut body = bed.body(words);
            let path = format!("/no:{}", bed.folder.path().display());
            body.env.insert("PATH".into(), path.into());
            say(&mut bed, body);
        }
        let body = Body { command: Command::Template("bad".into()), ..bed.body(&[]) };
        say(&mut bed, body);
        for change in [
            |body: &mut Body| body.cwd.push(b'x'),
            |body: &mut Body| body.cwd.extend_from_slice(b"/plain"),
            |body: &mut Body| body.stdin = Some("nosuch".into()),
            |body: &mut Body| body.stdin = Some(".".into()),
            |body: &mut Body| body.stdout = Output::File("pipe".into()),
            |body: &mut Body| body.stdout = Output::File("plain/out".into()),
            |body: &mut Body| body.stderr = Output::File(".".into()),
            |body: &mut Body| body.stderr = Output::File("{x}".into()),
            |body: &mut Body| body.needs.variants[0].gpus = Gpus::whole(1),
        ] {
            let mut body = bed.body(&["true"]);
            change(&mut body);
            say(&mut bed, body);
        }
        insta::assert_snapshot!(sentences, @"
        no such program: nosuch (looked in PATH=/no:[bed])
        [bed]/closed is not executable (chmod +x makes it so)
        no such program: ./nosuch
        [bed]/./plain has no #! line that says what runs it: add one, or submit `sh FILE`
        [bed]/./foreign is not a program for this kind of machine
        the interpreter of [bed]/./lost does not exist: /no/python3
        [bed]/./closed is not executable (chmod +x makes it so)
        cannot start /: is a directory
        an argument contains a NUL byte
        the command is empty
        the command is empty
        cannot fill in the command: bad template
        working directory [bed]x does not exist
        cannot use the working directory [bed]/plain: not a directory
        cannot open [bed]/nosuch for standard input: No such file or directory (os error 2)
        cannot open [bed]/. for standard input: is a directory
        cannot open [bed]/pipe for standard output: No such device or address (os error 6)
        cannot open [bed]/plain/out for standard output: Not a directory (os error 20)
        cannot open [bed]/. for standard error: Is a directory (os error 21)
        standard error has the unknown placeholder {x}: {id}, {index} and {name} are known, {{ and }} stand for braces
        GPUs requested: 1, of this worker's 0 the server gave none that exists
        ");

        let body = bed.body(&["true", &long]);
        assert!(bed.refusal(body).starts_with("arguments and environment are too long for the system (2"));
        assert_eq!(bed.executor.running().count(), 0);
        assert!(!bed.path("cluster/tasks/3/task.out").exists());
        assert!(OwnChildren::new().list().is_empty());
    });
}

#[path = "executor_share_tests.rs"]
mod share;
