//! The bad days, end to end: kills, stops, full disks, races, damaged folders, left-over processes.

use crate::harness::{Bed, alive, processes_with, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Waits for a process to end.
#[track_caller]
fn gone(pid: i32) {
    until("the process is gone", || (!alive(pid)).then_some(()));
}

/// A script that leaves `w.<task>.<pid>` when it starts and adds `end` when it ends, after `go` exists.
const WITNESS: &str = "w=w.$DCLUSTER_TASK_ID.$$; set -C; : > $w; until [ -e go ]; do sleep 0.05; done; echo end >> $w";

fn witnesses(bed: &Bed) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(&bed.work)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("w."))
        .collect();
    names.sort();
    names
}

#[test]
fn a_killed_worker_loses_its_job_and_no_task() {
    let bed = Bed::up(&[]);
    bed.submit(
        &["--array", "1-2"],
        "setsid sleep 1000 & echo $! >> left.$DCLUSTER_TASK_INDEX; echo $$ >> pid.$DCLUSTER_TASK_INDEX; \
         until [ -e go ]; do sleep 0.05; done",
    );
    bed.appears("pid.1");
    bed.appears("pid.2");
    signal(bed.workers()[0], Signal::SIGKILL);
    let twice = |name: &str| until(name, || Some(bed.read(name)).filter(|text| text.lines().count() == 2));
    for number in [1, 2] {
        for name in [format!("pid.{number}"), format!("left.{number}")] {
            let first: i32 = twice(&name).lines().next().unwrap().parse().unwrap();
            gone(first);
        }
    }
    let jobs = bed.status()["jobs"].clone();
    assert_eq!(jobs[0]["state"], "ended", "{jobs}");
    assert_eq!(jobs[1]["state"], "up", "{jobs}");
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait"]).expect(0);
    assert_eq!(bed.tasks("finished"), 2);
    let events = bed.events();
    assert!(events.iter().any(|kind| kind == "job_ended"), "{events:?}");
}

#[test]
fn a_killed_server_comes_back_and_running_tasks_go_on() {
    let bed = Bed::up(&[]);
    assert_eq!(
        bed.submit(&["--array", "1-1000"], "until [ -e go ]; do sleep 0.05; done; echo $$ >> w.$DCLUSTER_TASK_INDEX"),
        "1"
    );
    until("two run", || (bed.tasks("running") == 2).then_some(()));
    let before = running_pids(&bed);
    let server = bed.server();
    signal(server, Signal::SIGKILL);
    gone(server);
    let counts = bed.status()["tasks"].clone();
    assert_ne!(bed.server(), server);
    assert_eq!(
        counts["waiting"].as_u64().unwrap() + counts["ready"].as_u64().unwrap() + counts["running"].as_u64().unwrap(),
        1000
    );
    until("both are known to run", || (bed.tasks("running") == 2).then_some(()));
    assert_eq!(running_pids(&bed), before);
    fs::write(bed.work.join("go"), "").unwrap();
    // Again, while they end; whatever command comes next brings it back.
    until("some finished", || (bed.tasks("finished") > 20).then_some(()));
    signal(bed.server(), Signal::SIGKILL);
    bed.run(&["wait"]).expect(0);
    assert_eq!(bed.tasks("finished"), 1000);
    for name in witnesses(&bed) {
        assert_eq!(bed.read(&name).lines().count(), 1, "{name} ran twice");
    }
    assert_eq!(witnesses(&bed).len(), 1000);
    let all: Vec<String> = witnesses(&bed).iter().map(|name| bed.read(name).trim().to_owned()).collect();
    for pid in before {
        assert!(all.contains(&pid.to_string()), "{pid} was started anew");
    }
    assert_eq!(bed.events().iter().filter(|kind| *kind == "server_started").count(), 3);
}

/// Process ids of the shells of running tasks.
fn running_pids(bed: &Bed) -> Vec<i32> {
    let mut pids = bed.pids_of("-c");
    pids.retain(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sh\0-c\0until")));
    // Not what they fork: a task leads its group.
    pids.retain(|pid| nix::unistd::getpgid(Some(Pid::from_raw(*pid))) == Ok(Pid::from_raw(*pid)));
    pids.sort_unstable();
    pids
}

#[test]
fn up_brings_a_dead_server_back_as_it_was() {
    let bed = Bed::up(&[]);
    bed.run(&["scale", "2"]).expect(0);
    signal(bed.server(), Signal::SIGKILL);
    bed.run(&["up", "--wait", "2"]).expect(0).says("was gone and is back");
    assert_eq!(bed.status()["scaling"]["jobs"], 2);
    signal(bed.server(), Signal::SIGTERM);
    bed.run(&["scale", "0"]).expect(0);
    bed.run(&["up"]).expect(0).says("with the same options");
    bed.run(&["down"]).expect(0);
    bed.run(&["up", "--wait", "1"]).expect(0);
    assert_eq!(bed.status()["scaling"]["jobs"], 1);
}

#[test]
fn a_stopped_server_is_told_from_a_dead_one() {
    let bed = Bed::up(&[]);
    let server = bed.server();
    signal(server, Signal::SIGSTOP);
    let ran = bed.run(&["status"]).expect(69).says("does not answer").says("dcluster up --take-over");
    assert!(ran.out.is_empty());
    signal(server, Signal::SIGCONT);
    bed.run(&["status"]).expect(0);
    assert_eq!(bed.server(), server);
}

#[test]
fn a_stopped_server_that_wakes_does_no_harm() {
    // The command that takes over need not repeat what the cluster was made with.
    let bed = Bed::up(&["--orphan-timeout", "9m"]);
    bed.submit(&[], WITNESS);
    until("it runs", || (witnesses(&bed).len() == 1).then_some(()));
    let old = bed.server();
    signal(old, Signal::SIGSTOP);
    bed.run(&["up", "--take-over"]).expect(0);
    let new = bed.server();
    assert_ne!(new, old);
    assert_eq!(bed.submit(&[], WITNESS), "2");
    signal(old, Signal::SIGCONT);
    gone(old);
    // The address files are the successor's, and it serves.
    assert_eq!(bed.server(), new);
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait"]).expect(0);
    let names = witnesses(&bed);
    assert_eq!(names.len(), 2, "each ran once: {names:?}");
    assert!(fs::read_to_string(bed.folder().join("server.log")).unwrap().contains("epoch 2"));
}

#[test]
fn of_two_servers_one_acknowledges() {
    let bed = Bed::up(&[]);
    let old = bed.server();
    signal(old, Signal::SIGSTOP);
    // Sent to the old one: it accepts the connection in its backlog and is asleep.
    let asked = bed.spawn(&["submit", "--", "true"]);
    bed.run(&["up", "--take-over"]).expect(0);
    signal(old, Signal::SIGCONT);
    gone(old);
    let ran = asked.end();
    // Unknown to the client, or told that it was not accepted; never an id that is not there.
    let there: u64 = bed.status()["tasks"].as_object().unwrap().values().map(|number| number.as_u64().unwrap()).sum();
    assert!(ran.code == 69 && there <= 1 || ran.code == 0 && there == 1, "{there} {ran:?}");
}

#[test]
fn two_ups_at_once_make_one_cluster() {
    let bed = Bed::new();
    let all: Vec<_> = (0..3).map(|_| bed.spawn(&["up", "--wait", "1"])).collect();
    for one in all {
        one.end().expect(0);
    }
    assert_eq!(bed.pids_of("server").len(), 1);
    assert_eq!(bed.status()["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(bed.workers().len(), 1);
    // The same when it was down, and when its server was killed.
    bed.run(&["down"]).expect(0);
    let all: Vec<_> = (0..3).map(|_| bed.spawn(&["up", "--wait", "1"])).collect();
    for one in all {
        one.end().expect(0);
    }
    assert_eq!(bed.pids_of("server").len(), 1);
    signal(bed.server(), Signal::SIGKILL);
    let all: Vec<_> = (0..3).map(|_| bed.spawn(&["status"])).collect();
    for one in all {
        one.end().expect(0);
    }
    assert_eq!(bed.pids_of("server").len(), 1);
}

/// Mounts a file system for a test; `None`, with a line, where that is not possible.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(at: &'a Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Uid::effective().is_root()
            && std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(at)
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            crate::harness::skipped("mount is not possible here");
        }
        mounted.then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_new_work_and_goes_on() {
    let bed = Bed::new();
    let state = bed.state.clone();
    let Some(mount) = Mount::new(&state, "size=6m,mode=0700") else { return };
    bed.run(&["up", "--wait", "1"]).expect(0);
    let accepted = bed.submit(&["--stdout", "/dev/null"], WITNESS);
    until("it runs", || (witnesses(&bed).len() == 1).then_some(()));
    let ballast = state.join("ballast");
    let fill = || {
        let mut file = fs::File::options().append(true).create(true).open(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    };
    fill();
    // The first failure gives the reserve back; after that there is nothing to give.
    let mut refusals = 0;
    let refused = until("submissions are refused", || {
        fill();
        let ran = bed.run(&["submit", "--", "true"]);
        refusals = if ran.code == 0 { 0 } else { refusals + 1 };
        (refusals == 2).then_some(ran)
    });
    let refused = refused.expect(75).says("cannot write its journal").says("No space left");
    assert!(refused.out.is_empty(), "an id of something that was refused");
    let there: u64 = bed.status()["tasks"].as_object().unwrap().values().map(|number| number.as_u64().unwrap()).sum();
    bed.run(&["submit", "--", "true"]).expect(75).says("make room there");
    let status = bed.status();
    assert!(status["journal_trouble"].as_str().unwrap().contains("No space left"), "{status}");
    bed.run(&["status"]).expect(0);
    // Accepted work goes on.
    fs::write(bed.work.join("go"), "").unwrap();
    until("the accepted task ends", || bed.read(&witnesses(&bed)[0]).contains("end").then_some(()));
    fs::remove_file(&ballast).unwrap();
    until("it recovers by itself", || bed.status()["journal_trouble"].is_null().then_some(()));
    let id: usize = bed.submit(&[], "true").parse().unwrap();
    bed.run(&["wait", &accepted, &id.to_string()]).expect(0);
    let listed = bed.lines(&["tasks", "--json"]);
    assert_eq!(listed.len() as u64, there + 1, "{listed:?}");
    // What it told is true after a crash, too.
    signal(bed.server(), Signal::SIGKILL);
    let again = bed.lines(&["tasks", "--json"]);
    let states = |lines: &[serde_json::Value]| {
        lines.iter().map(|line| (line["id"].clone(), line["state"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(states(&again), states(&listed));
    bed.leaves_nothing();
    drop(mount);
}

#[test]
fn a_read_only_file_system_is_a_clear_error() {
    let bed = Bed::new();
    let state = bed.state.clone();
    let Some(mount) = Mount::new(&state, "size=6m,mode=0700") else { return };
    let remount = |how: &str| {
        let status = std::process::Command::new("mount").args(["-o", how]).arg(&state).status().unwrap();
        assert!(status.success());
    };
    remount("remount,ro");
    bed.run(&["up"]).expect(69).says("cannot create the cluster folder").says("Read-only file system");
    bed.run(&["map", "true", ":::", "1"]).expect(69).says("Read-only file system");
    remount("remount,rw");
    bed.run(&["up"]).expect(0);
    bed.run(&["down"]).expect(0);
    remount("remount,ro");
    bed.run(&["up"]).expect(69).says("Read-only file system").says("nothing was started");
    bed.run(&["tasks"]).expect(0);
    remount("remount,rw");
    bed.nothing_left();
    drop(mount);
}

#[test]
fn ten_thousand_failures_are_fast_and_few_words() {
    let bed = Bed::up(&[]);
    let begun = Instant::now();
    let id = bed.ok(&["submit", "--array", "1-10000", "--", "false"]);
    let ran = bed.spawn(&["wait"]).end_within(Duration::from_secs(180)).expect(1);
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(ran.err.lines().count() < 40, "{}", ran.err);
    assert_eq!(bed.tasks("failed"), 10_000);
    let status = bed.ok(&["status"]);
    assert!(status.contains("10,000 of 1: exit code 1"), "{status}");
    assert!(status.lines().count() < 25, "{status}");
    // At most 21 a second, and those of the job.
    let events = bed.events().len();
    assert!(events < 21 * (seconds + 2) + 10, "{events} events in {seconds} s");
    assert_eq!(bed.lines(&["tasks", &id, "--failed", "--json"]).len(), 10_000);
    let table = bed.run(&["tasks", "--failed"]).expect(0).says("the first 1000 tasks");
    assert_eq!(table.text().lines().count(), 1001);
    // Nothing was printed, so no file is left of 20,000.
    let files = fs::read_dir(bed.folder().join("tasks").join(&id));
    assert!(files.map_or(0, Iterator::count) < 10);
}

#[test]
fn output_need_not_be_text() {
    let bed = Bed::up(&[]);
    let script = r"printf '\377\000\033[31m\200bytes'; printf 'err\376' >&2";
    let ran = bed.run(&["submit", "--wait", "--", "sh", "-c", script]).expect(0);
    assert_eq!(ran.out, b"\xff\0\x1b[31m\x80bytes");
    assert_eq!(bed.run(&["logs", "1"]).expect(0).out, b"\xff\0\x1b[31m\x80bytes");
    bed.run(&["map", r"printf '\377' >&2; exit 3", ":::", "1"]).expect(1);
    bed.run(&["tasks", "--json"]).expect(0);
}

/// Leaves a daemon: a new session, forked twice, its parent gone.
const DAEMON: &str = "(setsid sh -c 'sleep 1000 & echo $! > daemon' &) ; until [ -s daemon ]; do sleep 0.02; done";

#[test]
fn daemons_end_with_their_task_and_with_the_cluster() {
    let bed = Bed::up(&[]);
    bed.run(&["submit", "--wait", "--", "sh", "-c", DAEMON]).expect(0);
    gone(bed.appears("daemon").trim().parse().unwrap());
    fs::remove_file(bed.work.join("daemon")).unwrap();
    // Without any of our variables it cannot be told from others by its mark, only by its parent.
    let bare = DAEMON.replace("setsid sh", "setsid env -i PATH=$PATH sh");
    bed.submit(&[], &format!("{bare}; sleep 1000"));
    let daemon = bed.appears("daemon").trim().parse().unwrap();
    assert!(alive(daemon));
    bed.run(&["down"]).expect(0);
    assert!(!alive(daemon));
}

#[test]
fn a_huge_array_is_accepted_and_cancelled_as_one() {
    let bed = Bed::new();
    bed.run(&["up", "--jobs", "0"]).expect(0);
    let journal = || -> u64 {
        let parts = fs::read_dir(bed.folder().join("journal")).unwrap().flatten();
        parts.map(|part| part.metadata().unwrap().len()).sum()
    };
    let before = journal();
    let id = bed.ok(&["submit", "--array", "1-100000", "--", "true"]);
    let written = journal() - before;
    assert!(written < 10_000, "{written} bytes, as if each task had a record");
    bed.run(&["cancel", &id]).expect(0);
    bed.run(&["wait", &id]).expect(1);
    let tasks = bed.status()["tasks"].clone();
    let number = |state: &str| tasks[state].as_u64().unwrap();
    assert_eq!(number("cancelled"), 100_000, "{tasks}");
    signal(bed.server(), Signal::SIGKILL);
    assert_eq!(bed.status()["tasks"], tasks);
}

#[test]
fn hostile_names_are_refused_or_quoted() {
    let bed = Bed::up(&[]);
    for name in ["a\nb", "\x1b[31mred", "bell\x07", &"x".repeat(256)] {
        let ran = bed.run(&["submit", "--name", name, "--", "true"]).expect(2).says("a name has at most");
        assert!(ran.out.is_empty() && !ran.err.contains('\x1b'), "{ran:?}");
    }
    let odd = "it's \"a\" $(touch pwned) `touch pwned`; touch pwned # ünï ☃ {index}";
    let id = bed.ok(&["submit", "--name", odd, "--stdout", "{name}.out", "--", "echo", odd]);
    bed.run(&["wait"]).expect(0);
    let task = &bed.lines(&["tasks", "--json"])[0];
    assert_eq!(task["name"], odd);
    let file = task["stdout"].as_str().unwrap();
    assert_eq!(fs::read_to_string(file).unwrap().trim_end(), odd);
    assert_eq!(Path::new(file).parent().unwrap(), bed.work);
    assert_eq!(bed.ok(&["logs", &id]), odd);
    // A name is no path.
    bed.ok(&["submit", "--name", "../../evil", "--stdout", "{name}", "--wait", "--", "echo", "x"]);
    assert!(!bed.work.join("../../evil").exists());
    // Control characters of files and arguments are escaped where people read them.
    bed.run(&["submit", "--wait", "--stdout", "new\nline\x1b[31m", "--", "echo", "\x1b[31mred\n"]).expect(0);
    assert_eq!(fs::read(bed.work.join("new\nline\x1b[31m")).unwrap(), b"\x1b[31mred\n\n");
    for words in [&["tasks"][..], &["status", "-v"], &["events"], &["tasks", "--json"]] {
        let out = bed.run(words).expect(0).out;
        assert!(!out.contains(&0x1b), "{words:?}");
    }
    // Files of any name are one word to map.
    let files = ["a b", "q'u\"o", "$(touch pwned)", "new\nline", "-rf", "ünï", "`x`;&|<>*?~"];
    for name in files {
        fs::write(bed.work.join(name), name).unwrap();
    }
    let raw = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    fs::write(bed.work.join(raw), "raw").unwrap();
    let mut words: Vec<&std::ffi::OsStr> = ["map", "cat -- {} > {}.copy", ":::"].map(AsRef::as_ref).to_vec();
    words.extend(files.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
    words.push(raw);
    bed.run(&words).expect(0);
    for name in files {
        let copy = bed.work.join(format!("./{name}.copy"));
        assert_eq!(fs::read_to_string(&copy).unwrap(), name, "{copy:?}");
    }
    assert_eq!(fs::read(bed.work.join(std::ffi::OsStr::from_bytes(b"\xff\xfe.copy"))).unwrap(), b"raw");
    assert!(!bed.work.join("pwned").exists());
    // Names of clusters.
    for name in ["a b", "../x", "", ".", "..", "-x", "a/b", "a\nb", "ü", "a;b", &"x".repeat(65)] {
        let ran = bed.run(&["up", &format!("--name={name}")]);
        assert!(matches!(ran.code, 2 | 78), "{name:?}: {ran:?}");
        assert!(!ran.err.contains("\nb"), "{ran:?}");
    }
    let names: Vec<_> = fs::read_dir(&bed.state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["default"]);
}

#[test]
fn down_while_jobs_start() {
    let bed = Bed::new();
    bed.run(&["up", "--jobs", "3", "--prologue", "sleep 1000"]).expect(0);
    bed.run(&["down"]).expect(0);
    bed.nothing_left();
    // In the middle of everything.
    bed.run(&["up", "--jobs", "3"]).expect(0);
    bed.run(&["down"]).expect(0);
    bed.nothing_left();
}

#[test]
fn down_keeps_what_is_unfinished_and_up_goes_on() {
    let bed = Bed::up(&[]);
    bed.submit(&["--array", "1-4"], "echo $$ >> w.$DCLUSTER_TASK_INDEX; until [ -e go ]; do sleep 0.05; done");
    until("two run", || (witnesses(&bed).len() == 2).then_some(()));
    bed.run(&["down"]).expect(0).says("4 tasks not finished: dcluster up goes on with them");
    bed.nothing_left();
    assert_eq!(bed.lines(&["tasks", "--json"]).len(), 4);
    bed.run(&["status"]).expect(69).says("no cluster default is up");
    bed.run(&["down"]).expect(0).says("down already");
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["up"]).expect(0).says("4 tasks of before go on");
    bed.run(&["wait"]).expect(0);
    assert_eq!(bed.tasks("finished"), 4);
}

#[test]
fn down_drain_lets_tasks_finish() {
    let bed = Bed::up(&[]);
    bed.submit(
        &["--array", "1-3"],
        "echo $$ >> w.$DCLUSTER_TASK_INDEX; until [ -e go ]; do sleep 0.05; done; echo end >> w.$DCLUSTER_TASK_INDEX",
    );
    until("two run", || (witnesses(&bed).len() == 2).then_some(()));
    let down = bed.spawn(&["down", "--drain"]);
    until("it goes down", || bed.events().contains(&"stopping".to_owned()).then_some(()));
    bed.run(&["submit", "--", "true"]).expect(75).says("going down");
    fs::write(bed.work.join("go"), "").unwrap();
    down.end().expect(0);
    bed.nothing_left();
    let ended = witnesses(&bed).iter().filter(|name| bed.read(name).ends_with("end\n")).count();
    assert_eq!(ended, 2);
    let states: Vec<_> = bed.lines(&["tasks", "--json"]).iter().map(|line| line["state"].clone()).collect();
    assert_eq!(states, ["finished", "finished", "ready"]);
}

#[test]
fn down_now_kills_what_ignores_signals() {
    let bed = Bed::up(&[]);
    bed.submit(&[], "trap '' TERM INT HUP; echo $$ > pid; while :; do sleep 0.1; done");
    let pid = bed.appears("pid").trim().parse().unwrap();
    bed.run(&["down", "--now"]).expect(0);
    assert!(!alive(pid));
    bed.nothing_left();
}

#[test]
fn down_hurries_when_told_so() {
    let bed = Bed::up(&[]);
    bed.submit(&[], "echo > started; until [ -e go ]; do sleep 0.05; done");
    bed.appears("started");
    let patient = bed.spawn(&["down", "--drain"]);
    until("it goes down", || bed.events().contains(&"stopping".to_owned()).then_some(()));
    bed.run(&["down", "--now"]).expect(0);
    patient.end().expect(0);
    bed.nothing_left();
}

#[test]
fn a_dead_servers_cluster_goes_down() {
    let bed = Bed::up(&[]);
    bed.submit(&[], "echo > started; sleep 1000");
    bed.appears("started");
    let server = bed.server();
    signal(server, Signal::SIGKILL);
    bed.run(&["down"]).expect(0);
    bed.nothing_left();
}

fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Every file below a folder with its bytes.
fn snapshot(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                files.push((name, fs::read(path).unwrap_or_default()));
            }
        }
    }
    files.sort();
    // The log and the lock are no data.
    files.retain(|(name, _)| name != "server.log" && name != "lock");
    files
}

#[test]
fn a_copied_folder_is_refused() {
    let bed = Bed::up(&[]);
    copy(&bed.folder(), &bed.state.join("other"));
    for words in [
        &["up", "--name", "other"][..],
        &["status", "--cluster", "other"],
        &["submit", "--cluster", "other", "--", "true"],
        &["down", "--cluster", "other"],
        &["tasks", "--cluster", "other"],
    ] {
        bed.run(words).expect(69).says("is a copy of the cluster folder");
    }
    assert_eq!(bed.pids_of("server").len(), 1);
    assert!(bed.state.join("other").join("id").exists());
    // Moved, not copied: the old one is gone.
    bed.run(&["down"]).expect(0);
    fs::remove_dir_all(bed.state.join("other")).unwrap();
    fs::rename(bed.folder(), bed.state.join("moved")).unwrap();
    bed.run(&["up", "--name", "moved", "--wait", "1"]).expect(0);
    bed.run(&["submit", "--cluster", "moved", "--wait", "--", "true"]).expect(0);
    bed.run(&["down", "--cluster", "moved"]).expect(0);
}

#[test]
fn a_damaged_folder_is_refused_and_left_alone() {
    let bed = Bed::up(&[]);
    bed.submit(&["--array", "1-50"], "true");
    bed.run(&["wait"]).expect(0);
    bed.run(&["down"]).expect(0);
    let folder = bed.folder();
    let truncate = |file: &str, to: usize| {
        let path = folder.join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..to]).unwrap();
        bytes
    };
    let refused = |words: &str| {
        let before = snapshot(&folder);
        for command in [&["up"][..], &["map", "true", ":::", "1"]] {
            let ran = bed.run(command).says(words);
            assert!(matches!(ran.code, 1 | 69 | 75 | 78), "{ran:?}");
            assert!(ran.out.is_empty());
        }
        let after: Vec<_> = snapshot(&folder).into_iter().map(|(name, _)| name).collect();
        let names: Vec<_> = before.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            assert!(after.contains(&name), "{name} was deleted");
        }
        bed.nothing_left();
    };
    for (file, to, words) in [("id", 0, "damaged"), ("id", 40, "damaged"), ("spec", 10, ""), ("ca.key", 10, "")] {
        let bytes = truncate(file, to);
        if file == "spec" {
            // `up` after `down` writes it anew.
            bed.run(&["tasks"]).expect(69).says("spec is damaged");
        } else {
            refused(words);
        }
        fs::write(folder.join(file), bytes).unwrap();
    }
    let id = fs::read_to_string(folder.join("id")).unwrap();
    fs::write(folder.join("id"), id.replace("\"format\": 1", "\"format\": 99")).unwrap();
    refused("was made by a newer dcluster");
    bed.run(&["tasks"]).expect(69).says("format 99");
    bed.run(&["down", "--purge"]).expect(69).says("newer dcluster");
    fs::write(folder.join("id"), &id).unwrap();
    bed.run(&["up", "--wait", "1"]).expect(0);
    assert_eq!(bed.tasks("finished"), 50);
}

#[test]
fn a_flipped_bit_in_the_journal_is_refused() {
    let bed = Bed::up(&[]);
    bed.submit(&["--array", "1-50"], "true");
    bed.run(&["wait"]).expect(0);
    bed.run(&["down"]).expect(0);
    let journal = bed.folder().join("journal");
    let mut parts: Vec<_> = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    let newest = parts.last().unwrap();
    let whole = fs::read(newest).unwrap();
    for at in [40, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(newest, &bytes).unwrap();
        let ran = bed.run(&["tasks"]);
        assert_ne!(ran.code, 0, "byte {at} of {}: {ran:?}", whole.len());
        bed.run(&["up"]).expect(1).says("the journal of cluster default is not usable").says("nothing was changed");
        bed.nothing_left();
        assert_eq!(fs::read(newest).unwrap(), bytes, "touched");
    }
    fs::write(newest, &whole[..whole.len() / 2]).unwrap();
    bed.run(&["up"]).expect(1).says("is not usable");
    fs::write(newest, whole).unwrap();
    bed.run(&["up", "--wait", "1"]).expect(0);
    assert_eq!(bed.tasks("finished"), 50);
}

/// No decision rests on the wall clock: it is read to be shown, in one place.
#[test]
fn the_wall_clock_decides_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut readers = Vec::new();
    let mut deciders = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            if name.ends_with("tests.rs") {
                continue;
            }
            if text.contains("SystemTime::now") || text.contains("Timestamp::now") || text.contains("Zoned::now") {
                readers.push(name.clone());
            }
            let compares =
                |line: &str| line.contains(".wall ") && ["<", ">", " - ", " + "].iter().any(|op| line.contains(op));
            if text.lines().any(compares) {
                deciders.push(name);
            }
        }
    }
    readers.sort();
    assert_eq!(readers, ["cli/events.rs", "server/clock.rs"], "only to show it, and the one clock");
    assert!(deciders.is_empty(), "{deciders:?}");
}

#[test]
fn processes_of_other_beds_are_not_mine() {
    let (one, two) = (Bed::up(&[]), Bed::up(&[]));
    one.run(&["down", "--now"]).expect(0);
    assert!(processes_with(one.root()).is_empty());
    two.run(&["submit", "--wait", "--", "true"]).expect(0);
}
