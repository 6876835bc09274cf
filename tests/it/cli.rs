//! What the commands do, print and exit with.

use crate::harness::{Bed, Ran, alive, until};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Write;
use std::process::Stdio;

/// Runs a command with text on its standard input.
#[track_caller]
fn with_input(bed: &Bed, words: &[&str], input: &[u8]) -> Ran {
    let path = bed.root().join("input");
    fs::write(&path, input).unwrap();
    let mut command = bed.command(words);
    command.stdin(fs::File::open(path).unwrap());
    bed.start(command).end()
}

#[test]
fn submit_prints_the_id_alone() {
    let bed = Bed::up(&[]);
    let ran = bed.run(&["submit", "--", "echo", "x"]).expect(0);
    assert_eq!((ran.out.as_slice(), ran.err.as_str()), (&b"1\n"[..], ""));
    let ran = bed.run(&["submit", "--array", "1-3", "--", "echo", "x"]).expect(0);
    assert_eq!((ran.out.as_slice(), ran.err.as_str()), (&b"2\n"[..], ""));
    // Words go to the program as they are; no `--` is needed.
    let ran = bed.run(&["submit", "--wait", "printf", "%s|", "--array", "a b", "$HOME", "*"]).expect(0);
    assert_eq!(ran.text(), "--array|a b|$HOME|*|");
}

#[test]
fn a_pipe_on_up_closes() {
    let bed = Bed::new();
    let mut command = bed.command(&["up", "--wait", "1"]);
    // Returns when nobody holds the pipes any more: a daemon that did would hang every script.
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success());
}

#[test]
fn submit_wait_prints_in_order_and_exits_as_the_task() {
    let bed = Bed::up(&[]);
    let script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; sleep 0.02; done; exit 7";
    let ran = bed.run(&["submit", "--wait", "--", "sh", "-c", script]).expect(7);
    assert_eq!(ran.text(), "out 1\nout 2\nout 3\nout 4\nout 5");
    assert_eq!(ran.err, "err 1\nerr 2\nerr 3\nerr 4\nerr 5\n");
    bed.run(&["submit", "--wait", "--", "sh", "-c", "kill -9 $$"]).expect(137).says("killed by signal 9");
    bed.run(&["submit", "--wait", "--", "/no/such"]).expect(127).says("/no/such");
    bed.run(&["submit", "--wait", "--time-limit", "1s", "--", "sleep", "1000"]).expect(124).says("time limit");
    // Array: output in the order of the indexes, 1 if any failed.
    let script = "sleep 0.$((4 - $DCLUSTER_TASK_INDEX)); echo $DCLUSTER_TASK_INDEX; exit $(($DCLUSTER_TASK_INDEX - 1))";
    let ran = bed.run(&["submit", "--array", "1-3", "--wait", "--", "sh", "-c", script]).expect(1);
    assert_eq!(ran.text(), "1\n2\n3");
    // What is printed early comes early.
    let running =
        bed.spawn(&["submit", "--wait", "--", "sh", "-c", "echo early; until [ -e go ]; do sleep 0.05; done"]);
    until("early", || (running.out() == b"early\n").then_some(()));
    fs::write(bed.work.join("go"), "").unwrap();
    running.end().expect(0);
}

#[test]
fn arrays_and_their_ids() {
    let bed = Bed::up(&[]);
    let id = bed.submit(
        &["--array", "1-9:4", "--name", "n", "--stdout", "out.{id}.{index}.{name}"],
        "echo $DCLUSTER_TASK_ID $DCLUSTER_TASK_INDEX",
    );
    bed.run(&["wait", &id]).expect(0);
    for index in [1, 5, 9] {
        assert_eq!(bed.read(&format!("out.1.{index}.{index}.n")), format!("1.{index} {index}\n"));
    }
    let ids: Vec<_> = bed.lines(&["tasks", "1.5-9", "--json"]).iter().map(|task| task["id"].clone()).collect();
    assert_eq!(ids, ["1.5", "1.9"]);
    for array in ["0-", "3-1", "x", "1-3:0", "1-20000000"] {
        let ran = bed.run(&["submit", "--array", array, "--", "true"]).expect(2);
        assert!(ran.out.is_empty());
    }
    // %N: so many at once.
    bed.submit(&["--array", "1-4%1"], "echo $$ >> running; [ $(pgrep -c -f 'marker-of-limit') -le 9 ]; sleep 0.05");
    until("one runs", || (bed.tasks("running") >= 1).then_some(()));
    assert!(bed.tasks("running") <= 1);
    bed.run(&["wait"]).expect(0);
}

#[test]
fn dependencies_order_and_fail() {
    let bed = Bed::up(&[]);
    let first = bed.submit(&[], "sleep 0.2; echo first >> order");
    let second = bed.submit(&["--after", &first], "echo second >> order");
    bed.run(&["submit", "--after", &format!("{first},{second}"), "--wait", "--", "sh", "-c", "echo third >> order"])
        .expect(0);
    assert_eq!(bed.read("order"), "first\nsecond\nthird\n");
    let fails = bed.submit(&["--array", "1-2"], "[ $DCLUSTER_TASK_INDEX = 1 ]");
    let one = bed.submit(&["--after", &format!("{fails}.1")], "true");
    let two = bed.submit(&["--after", &format!("{fails}.2")], "true");
    let after_two = bed.submit(&["--after", &two], "true");
    bed.run(&["wait", &one]).expect(0);
    let ran = bed.run(&["wait", &after_two]).expect(1);
    assert!(ran.out.is_empty());
    let lines = bed.lines(&["tasks", &two, &after_two, "--json"]);
    assert_eq!([&lines[0]["state"], &lines[1]["state"]], ["cancelled", "cancelled"]);
    let reason = lines[0]["reason"].as_str().unwrap();
    assert!(reason.contains("task 4.2 did not finish"), "{reason}");
    bed.run(&["submit", "--after", "99", "--", "true"]).expect(2).says("99");
    // Repaired: all of it goes on.
    bed.run(&["retry", "--failed"]).expect(0);
    bed.run(&["wait", &after_two]).expect(1);
}

#[test]
fn retries_limits_and_priorities() {
    let bed = Bed::up(&[]);
    bed.run(&["submit", "--retries", "2", "--wait", "--", "sh", "-c", "echo x >> tries; [ $(wc -l < tries) = 3 ]"])
        .expect(0);
    assert_eq!(bed.read("tries").lines().count(), 3);
    bed.run(&["submit", "--retries", "1", "--wait", "--", "sh", "-c", "echo x >> twice; exit 4"]).expect(4);
    assert_eq!(bed.read("twice").lines().count(), 2);
    // Both cores busy, then by priority, then in the order they came.
    let block = bed.submit(&["--cores", "2"], "until [ -e go ]; do sleep 0.02; done");
    until("it runs", || (bed.tasks("running") == 1).then_some(()));
    for (priority, name) in [("0", "a"), ("5", "b"), ("-1", "c"), ("5", "d")] {
        bed.submit(&["--cores", "2", "--priority", priority], &format!("echo {name} >> order"));
    }
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait"]).expect(1);
    assert_eq!(bed.read("order"), "b\nd\na\nc\n");
    assert_eq!(bed.lines(&["tasks", &block, "--json"])[0]["state"], "finished");
    bed.run(&["submit", "--cores", "0", "--", "true"]).expect(2);
    // More than any worker has: parked, with a sentence.
    let id = bed.submit(&["--cores", "64"], "true");
    let line = bed.lines(&["tasks", &id, "--json"]).remove(0);
    assert_eq!(line["state"], "ready");
    assert!(line["reason"].as_str().unwrap().contains("64 cores"), "{line}");
}

#[test]
fn surroundings_of_a_task() {
    let mut bed = Bed::up(&[]);
    bed.set("PASSED", "pässed on");
    fs::create_dir(bed.work.join("sub")).unwrap();
    fs::write(bed.work.join("in"), "input\n").unwrap();
    let ran = bed
        .run(&[
            "submit",
            "--wait",
            "--env",
            "A=b c=d",
            "--env",
            "PASSED",
            "--cwd",
            "sub",
            "--stdin",
            "../in",
            "--",
            "sh",
            "-c",
            "echo \"$A|$PASSED|$(basename $PWD)|$(cat)|$DCLUSTER_TASK_CORES|$(umask)\"",
        ])
        .expect(0);
    assert_eq!(ran.text(), "b c=d|pässed on|sub|input|1|0022");
    bed.run(&["submit", "--env", "NOT_SET", "--", "true"]).expect(2).says("NOT_SET is not set");
    bed.run(&["submit", "--wait", "--cwd", "/no/such", "--", "true"]).expect(127).says("/no/such");
    bed.run(&["submit", "--wait", "--stdin", "missing", "--", "cat"]).expect(127).says("missing");
    // Both streams into one file, in order; folders are made.
    let words = [
        "submit",
        "--wait",
        "--stdout",
        "deep/er/{id}",
        "--stderr",
        "deep/er/{id}",
        "--",
        "sh",
        "-c",
        "echo 1; echo 2 >&2; echo 3",
    ];
    let ran = bed.run(&words).expect(0);
    assert_eq!(ran.text(), "1\n2\n3");
    assert_eq!(fs::read_to_string(bed.work.join("deep/er/4")).unwrap(), "1\n2\n3\n");
    bed.run(&["submit", "--wait", "--stdout", "{nonsense}", "--", "true"])
        .expect(127)
        .says("unknown placeholder {nonsense}");
}

#[test]
fn wait_cancel_retry() {
    let bed = Bed::up(&[]);
    let id = bed.submit(&["--array", "1-3"], "echo > started; until [ -e go ]; do sleep 0.02; done; exit 3");
    bed.appears("started");
    bed.run(&["wait", &id, "--timeout", "1s"]).expect(124).says("3 of these tasks have not ended").says("they go on");
    bed.run(&["cancel", "1.3"]).expect(0).says("cancelled 1 task");
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait"]).expect(1);
    let states = |bed: &Bed| {
        bed.lines(&["tasks", "--json"])
            .iter()
            .map(|task| task["state"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(states(&bed), ["failed", "failed", "cancelled"]);
    assert_eq!(bed.run(&["retry", "--failed"]).expect(0).err, "running again: 2 tasks\n");
    bed.run(&["wait"]).expect(1);
    assert_eq!(states(&bed), ["failed", "failed", "cancelled"]);
    // A running one dies of it, by TERM first.
    let id = bed.submit(&[], "trap 'echo term > term; exit' TERM; echo $$ > pid; while :; do sleep 0.02; done");
    let pid: i32 = bed.appears("pid").trim().parse().unwrap();
    bed.run(&["cancel", &id]).expect(0);
    until("it is gone", || (!alive(pid)).then_some(()));
    assert_eq!(bed.read("term"), "term\n");
    bed.run(&["wait", &id]).expect(1);
    for words in [
        ["wait", "99"],
        ["cancel", "99"],
        ["retry", "99"],
        ["tasks", "99"],
        ["logs", "99"],
        ["wait", "1.77"],
        ["cancel", "x"],
    ] {
        bed.run(&words).expect(2);
    }
    bed.run(&["cancel", "--all"]).expect(0).says("cancelled 0 tasks");
}

#[test]
fn map_brings_a_cluster_and_takes_it_away() {
    let bed = Bed::new();
    let ran = bed.run(&["map", "echo {} > {}.out", ":::", "a", "b", "c"]).expect(0).says("started default on local");
    assert!(ran.out.is_empty());
    for name in ["a", "b", "c"] {
        assert_eq!(bed.read(&format!("{name}.out")), format!("{name}\n"));
    }
    bed.nothing_left();
    bed.run(&["status"]).expect(69);
    let ran = bed.run(&["map", "echo bad >&2; exit {}", ":::", "0", "3", "4"]).expect(1);
    ran.says("exit code 3: bad").says("dcluster logs 2 --failed");
    bed.nothing_left();
    assert_eq!(bed.run(&["logs", "--failed"]).expect(0).err.matches("==> task").count(), 2);
    bed.run(&["map", "--keep", "true", ":::", "1"]).expect(0);
    assert_eq!(bed.status()["cluster"], "default");
    bed.run(&["submit", "--wait", "--", "true"]).expect(0);
    bed.run(&["down"]).expect(0);
    bed.run(&["submit", "--wait", "--", "sh", "-c", "echo x; exit 5"]).expect(5);
    bed.nothing_left();
    bed.run(&["submit", "--", "true"]).expect(69).says("dcluster up");
}

#[test]
fn map_reads_inputs() {
    let bed = Bed::new();
    let dry = |words: &[&str], input: &[u8]| with_input(&bed, words, input).expect(0).text().to_owned();
    assert_eq!(dry(&["map", "--dry-run", "echo {}"], b"a b\nc\n"), "echo 'a b'\necho c");
    assert_eq!(dry(&["map", "--dry-run", "-0", "echo"], b"a\0b"), "echo a\necho b");
    assert_eq!(
        dry(&["map", "--dry-run", "echo {1} {2}", ":::", "a", "b", ":::", "1", "2"], b""),
        "echo a 1\necho a 2\necho b 1\necho b 2"
    );
    assert_eq!(
        dry(&["map", "--dry-run", "echo {1} {2}", ":::", "a", "b", ":::+", "1", "2"], b""),
        "echo a 1\necho b 2"
    );
    fs::write(bed.work.join("list"), "x\ny\n").unwrap();
    assert_eq!(dry(&["map", "--dry-run", "echo {/.} {//}", "::::", "list"], b""), "echo x .\necho y .");
    assert_eq!(dry(&["map", "--dry-run", "echo", "::::", "-"], b"z\n"), "echo z");
    bed.nothing_left();
    assert!(!bed.state.exists(), "a dry run makes nothing");
    assert_eq!(with_input(&bed, &["map", "cat {}"], b"").expect(0).err, "no inputs: nothing to run\n");
    bed.run(&["map", "echo {3}", ":::", "a"]).expect(2).says("the template wants 3 inputs");
    bed.run(&["map", "echo", "::::", "missing"]).expect(2).says("missing");
    with_input(&bed, &["map", "echo {} >> out"], b"one\ntwo\n").expect(0);
    assert_eq!(bed.read("out").lines().count(), 2);
}

#[test]
fn map_logs_and_halts() {
    let bed = Bed::up(&[]);
    bed.run(&["map", "--joblog", "log", "exit {}", ":::", "0", "2", "0"]).expect(1);
    let log = bed.read("log");
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines[0], ["Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command"]);
    let short: Vec<_> = lines[1..].iter().map(|line| (line[0], line[6], line[8])).collect();
    assert_eq!(short, [("1", "0", "exit 0"), ("2", "2", "exit 2"), ("3", "0", "exit 0")]);
    let ran = bed
        .run(&[
            "map",
            "-j2",
            "--halt",
            "now,fail=1",
            "if [ {} = 2 ]; then exit 9; fi; sleep 1000",
            ":::",
            "1",
            "2",
            "3",
            "4",
        ])
        .expect(1);
    ran.says("stopping early");
    let counts = bed.status()["tasks"].clone();
    assert_eq!([&counts["cancelled"], &counts["failed"], &counts["running"]], [3, 2, 0]);
    bed.run(&["map", "-j1", "--halt", "soon,success=1", "true", ":::", "1", "2", "3", "4"]);
    bed.run(&["map", "--halt", "whatever", "true", ":::", "1"]).expect(2);
}

fn catches_interrupts(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 2 != 0)
}

#[test]
fn ctrl_c_stops_waiting_and_nothing_else() {
    let bed = Bed::up(&[]);
    let script = "echo > started.$DCLUSTER_TASK_ID; until [ -e go ]; do sleep 0.05; done";
    let submit = bed.spawn(&["submit", "--wait", "--", "sh", "-c", script]);
    bed.appears("started.1");
    let map = bed.spawn(&["map", &format!("{script}; : {{}}"), ":::", "a"]);
    bed.appears("started.2.1");
    let wait = bed.spawn(&["wait", "1"]);
    // Waiting for signals begins with the command's work.
    for running in [&submit, &map, &wait] {
        until("it waits", || catches_interrupts(running.pid()).then_some(()));
    }
    for (running, id) in [(submit, "1"), (map, "2"), (wait, "1")] {
        running.signal(Signal::SIGINT);
        let ran = running.end().expect(130);
        ran.says("the tasks go on").says(&format!("dcluster wait {id}"));
    }
    assert_eq!(bed.tasks("running"), 2);
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait"]).expect(0);
    // A cluster that was started for one command: it stays, with its tasks, and says so.
    bed.run(&["down"]).expect(0);
    let map = bed.spawn(&["map", "echo > mine; sleep 1000; : {}", ":::", "a"]);
    bed.appears("mine");
    map.signal(Signal::SIGINT);
    map.end().expect(130).says("dcluster down");
    assert_eq!(bed.tasks("running"), 1);
    // Its jobs are wanted whether or not anybody waits for them.
    bed.run(&["down"]).expect(0);
    let up = bed.spawn(&["up", "--prologue", "sleep 1000", "--wait", "1"]);
    until("it waits", || (bed.run(&["status"]).code == 0 && catches_interrupts(up.pid())).then_some(()));
    up.signal(Signal::SIGINT);
    up.end().expect(130).says("it stays up").says("dcluster down");
    bed.run(&["down"]).expect(0);
}

#[test]
fn a_worker_joins_and_leaves() {
    let bed = Bed::new();
    bed.run(&["up", "--jobs", "0"]).expect(0);
    let id = bed.submit(&["--retries", "0"], "echo $$ >> pids; until [ -e go ]; do sleep 0.05; done");
    let worker = bed.spawn(&["worker", "join", "--cores", "1"]);
    let first: i32 = bed.appears("pids").trim().parse().unwrap();
    let workers = bed.status()["workers"].clone();
    assert_eq!((&workers[0]["job"], &workers[0]["cores"]), (&serde_json::Value::Null, &1.into()));
    worker.signal(Signal::SIGINT);
    let ran = worker.end();
    assert!(!alive(first), "its task ended with it");
    assert!(matches!(ran.code, 0 | 130), "{ran:?}");
    until("its leaving is known", || bed.status()["workers"].as_array().unwrap().is_empty().then_some(()));
    assert_eq!(bed.tasks("ready"), 1);
    // It goes on elsewhere, although it may not be retried: that was no failure of its own.
    bed.run(&["scale", "1"]).expect(0);
    until("it runs again", || (bed.read("pids").lines().count() == 2).then_some(()));
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait", &id]).expect(0);
    bed.run(&["down"]).expect(0);
    bed.run(&["worker", "join"]).expect(69).says("no cluster default is up");
}

#[test]
fn scaling() {
    let bed = Bed::up(&[]);
    let live = |bed: &Bed| {
        let jobs = bed.status()["jobs"].clone();
        jobs.as_array().unwrap().iter().filter(|job| job["state"] == "up").count()
    };
    bed.run(&["scale", "3"]).expect(0).says("now holds 3 jobs");
    until("three are up", || (live(&bed) == 3).then_some(()));
    bed.submit(
        &["--array", "1-6"],
        "echo > s.$DCLUSTER_TASK_INDEX; until [ -e go ]; do sleep 0.05; done; echo end > s.$DCLUSTER_TASK_INDEX",
    );
    until("six run", || (bed.tasks("running") == 6).then_some(()));
    bed.run(&["scale", "1"]).expect(0);
    // Draining jobs finish what they run: nothing is interrupted.
    assert_eq!(bed.tasks("running"), 6);
    fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait"]).expect(0);
    assert_eq!(bed.tasks("finished"), 6);
    until("one is left", || (live(&bed) == 1 && bed.workers().len() == 1).then_some(()));
    bed.run(&["scale", "0"]).expect(0);
    until("none is left", || (live(&bed) == 0 && bed.workers().is_empty()).then_some(()));
    let id = bed.submit(&[], "true");
    bed.run(&["scale", "1"]).expect(0);
    bed.run(&["wait", &id]).expect(0);
    bed.run(&["scale", "-1"]).expect(2);
}

#[test]
fn a_second_up_changes_nothing() {
    let bed = Bed::up(&["--cores", "1"]);
    let (server, workers) = (bed.server(), bed.workers());
    bed.run(&["up", "--cores", "1"]).expect(0).says("is up already, with the same options");
    bed.run(&["up", "--cores", "2", "--counter", "lic=3"])
        .expect(2)
        .says("cores: 1 is up, 2 was asked")
        .says("lic")
        .says("nothing was changed");
    bed.run(&["up", "--take-over", "--cores", "2"]).expect(2).says("cores: 1 is up, 2 was asked");
    assert_eq!((bed.server(), bed.workers()), (server, workers));
    // Another name is another cluster.
    bed.run(&["up", "--name", "two", "--wait", "1"]).expect(0).says("dcluster status --cluster two");
    bed.run(&["submit", "--cluster", "two", "--wait", "--", "true"]).expect(0);
    let names: Vec<_> =
        bed.lines(&["ls", "--json"]).iter().map(|row| (row["cluster"].clone(), row["state"].clone())).collect();
    assert_eq!(names, [("default".into(), "up".into()), ("two".into(), "up".into())]);
    bed.run(&["down", "--purge", "--cluster", "two"]).expect(0);
    assert!(!bed.state.join("two").exists());
    assert_eq!(bed.tasks("finished"), 0);
}

/// All commands, the nested ones too.
const COMMANDS: &[&[&str]] = &[
    &[],
    &["up"],
    &["scale"],
    &["adapt"],
    &["explain"],
    &["status"],
    &["ls"],
    &["down"],
    &["submit"],
    &["map"],
    &["wait"],
    &["tasks"],
    &["cancel"],
    &["retry"],
    &["logs"],
    &["events"],
    &["journal"],
    &["journal", "check"],
    &["journal", "show"],
    &["journal", "repair"],
    &["render"],
    &["simulate"],
    &["doctor"],
    &["config"],
    &["config", "show"],
    &["worker"],
    &["worker", "join"],
    &["completions"],
    &["man"],
    &["server"],
];

#[test]
fn every_command_has_help_with_an_example() {
    let bed = Bed::new();
    let listed = bed.ok(&["--help"]);
    for line in listed.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().unwrap();
        let known =
            COMMANDS.iter().any(|words| words.first() == Some(&name)) || name == "help" || line.starts_with("   ");
        assert!(known, "{name} is not tested");
    }
    for words in COMMANDS {
        let long: Vec<&str> = words.iter().copied().chain(["--help"]).collect();
        let ran = bed.run(&long).expect(0);
        assert!(ran.err.is_empty());
        let text = ran.text();
        assert!(
            text.contains("Example") || words.is_empty() && text.contains("dcluster map 'gzip {}'"),
            "{words:?}:\n{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{words:?}");
        assert!(!text.contains('\x1b'));
        let short: Vec<&str> = words.iter().copied().chain(["-h"]).collect();
        bed.run(&short).expect(0);
    }
    assert!(!bed.state.exists());
}

#[test]
fn exit_codes() {
    let bed = Bed::new();
    for (words, code) in [
        (&["--version"][..], 0),
        (&[], 0),
        (&["nonsense"], 2),
        (&["up", "--nonsense"], 2),
        (&["submit"], 2),
        (&["submit", "--nonsense", "true"], 2),
        (&["map", "--nonsense", "true", ":::", "1"], 2),
        (&["map", "-j0", "true", ":::", "1"], 2),
        (&["cancel"], 2),
        (&["status"], 69),
        (&["submit", "--", "true"], 69),
        (&["tasks"], 69),
        (&["events"], 69),
        (&["logs", "1"], 69),
        (&["wait"], 69),
        (&["down"], 69),
        (&["scale", "1"], 69),
        (&["ls"], 0),
        (&["up", "--cores", "many"], 78),
        (&["config", "show"], 0),
        (&["map", "true", ":::", "1"], 0),
        (&["map", "false", ":::", "1"], 1),
    ] {
        let ran = bed.run(words);
        assert_eq!(ran.code, code, "{words:?}: {}", ran.err);
        if code != 0 {
            assert!(!ran.err.is_empty() || code == 1, "{words:?}");
            assert!(ran.out.is_empty(), "{words:?}");
        }
    }
    let mut command = bed.command(&["up", "--backend", "slurm", "--name", "none"]);
    command.env("PATH", bed.root());
    let ran = bed.start(command).end().expect(69);
    ran.says("there is no sbatch on the PATH").says("nothing was started");
    // A reader that goes away is no error.
    let mut command = bed.program("sh");
    command.args(["-c", "\"$0\" --help | head -1", crate::harness::BINARY]);
    let ran = bed.start(command).end().expect(0);
    assert!(ran.err.is_empty(), "{}", ran.err);
    bed.run(&["up", "--wait", "1"]).expect(0);
    let mut command = bed.program("sh");
    command.args(["-c", "\"$0\" submit --wait -- seq 1 200000 | head -1", crate::harness::BINARY]);
    let ran = bed.start(command).end().expect(0);
    assert_eq!((ran.text(), ran.err.as_str()), ("1", ""));
}

#[test]
fn logs_and_events_after_the_end() {
    let bed = Bed::up(&[]);
    bed.run(&["submit", "--wait", "--", "sh", "-c", "echo out; echo err >&2"]).expect(0);
    let follower = bed.spawn(&["events", "--follow"]);
    bed.run(&["map", "echo {}", ":::", "a", "b"]).expect(0);
    let ran = bed.run(&["logs", "2"]).expect(0);
    assert_eq!(ran.text(), "a\nb");
    bed.run(&["down"]).expect(0);
    until("the follower saw it", || {
        String::from_utf8_lossy(&follower.out()).contains("nothing of it is left").then_some(())
    });
    follower.signal(Signal::SIGINT);
    follower.end().expect(130);
    let ran = bed.run(&["logs", "1"]).expect(0);
    assert_eq!((ran.text(), ran.err.as_str()), ("out", "err\n"));
    bed.run(&["logs", "job", "1"]).expect(0);
    bed.run(&["logs", "job", "9"]).expect(1).says("job 9 has written nothing");
    assert!(bed.events().contains(&"closed".to_owned()));
    bed.run(&["down", "--purge"]).expect(0);
    bed.run(&["logs", "1"]).expect(69);
}

#[test]
fn a_foreign_configuration_is_refused() {
    let bed = Bed::new();
    let path = bed.work.join("dcluster.toml");
    let mut file = fs::File::create(&path).unwrap();
    writeln!(file, "prologue = [\"touch pwned\"]").unwrap();
    drop(file);
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    bed.run(&["up"]).expect(78).says("dcluster.toml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    if nix::unistd::Uid::effective().is_root() {
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        bed.run(&["up"]).expect(78).says("dcluster.toml");
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
    bed.run(&["config", "show"]).expect(0);
    assert!(!bed.work.join("pwned").exists());
    assert!(!bed.state.exists());
}
