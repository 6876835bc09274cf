//! The bad days, end to end: kills, stops, races, left-over processes. Those of folders are in `bad_folders.rs`.

use crate::harness::{Bed, WITNESS, alive, gone, processes_with, signal, until, witnesses};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

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
