//! `adapt` and `explain` through the real binary: the number of jobs follows the load.

use crate::harness::{Bed, until};
use std::os::unix::fs::PermissionsExt;

fn live(bed: &Bed) -> usize {
    let status = bed.status();
    let jobs = status["jobs"].as_array().unwrap();
    jobs.iter().filter(|job| job["state"] != "ended").count()
}

#[test]
fn jobs_come_with_work_and_go_without() {
    let bed = Bed::new();
    bed.run(&["up", "--min", "0", "--max", "2", "--cores", "1", "--prefer", "speed", "--idle-timeout", "2s"]).expect(0);
    let scaling = &bed.status()["scaling"];
    assert_eq!((&scaling["mode"], &scaling["min"], &scaling["max"]), (&"adapt".into(), &0.into(), &2.into()));
    assert_eq!(scaling["efficiency"], 0.5);
    assert_eq!(live(&bed), 0);
    let task = bed.submit(&["--array", "1-6"], "sleep 1");
    until("both are there", || (live(&bed) == 2).then_some(()));
    until("all are done", || {
        assert!(live(&bed) <= 2, "more than the maximum");
        (bed.tasks("finished") == 6).then_some(())
    });
    let first = bed.ok(&["explain", "job", "1"]);
    assert!(first.contains("asked for    by decision") && first.contains("ready and no job can run them"), "{first}");
    until("all jobs are given up", || (live(&bed) == 0).then_some(()));
    let gone = bed.ok(&["explain", "job", "1"]);
    assert!(gone.contains("ended: drained") && gone.contains("it was given up by decision"), "{gone}");
    let text = bed.ok(&["explain"]);
    assert!(text.starts_with("0..2 jobs by load, speed, idle for at most 2.0 s\n"), "{text}");
    let done = bed.ok(&["explain", &format!("{task}.3")]);
    assert!(done.starts_with(&format!("task {task}.3 ")) && done.contains(" finished"), "{done}");
    let decisions = &bed.lines(&["explain", "-n", "1000", "--json"])[0]["decisions"];
    let submits = |entry: &serde_json::Value| !entry["decision"]["submit"].as_array().unwrap().is_empty();
    assert!(decisions.as_array().unwrap().iter().any(submits), "{decisions}");
    let events = bed.lines(&["events", "--json"]);
    let scalings: Vec<_> = events.iter().filter(|event| event["kind"] == "scaling").collect();
    assert!(scalings.iter().any(|event| event["decision"]["rule"] == "first-job"), "{scalings:?}");
    assert!(scalings.iter().any(|event| event["decision"]["rule"] == "idle"), "{scalings:?}");
    bed.leaves_nothing();
}

#[test]
fn an_idle_job_is_kept_while_tasks_wait_for_others() {
    let bed = Bed::new();
    bed.run(&["up", "--max", "2", "--cores", "2", "--idle-timeout", "40s"]).expect(0);
    let first = bed.submit(&["--array", "1-4"], "sleep 4");
    let last = bed.submit(&["--after", &first], "true");
    bed.run(&["wait", &last]).expect(0);
    let decisions = &bed.lines(&["explain", "-n", "1000", "--json"])[0]["decisions"];
    let drains = |entry: &serde_json::Value| !entry["decision"]["drain"].as_array().unwrap().is_empty();
    assert!(!decisions.as_array().unwrap().iter().any(drains), "{decisions}");
    bed.leaves_nothing();
}

#[test]
fn what_no_job_can_run_brings_none_and_says_what_would() {
    let bed = Bed::new();
    bed.run(&["up", "--max", "2", "--cores", "1"]).expect(0);
    let wide = bed.submit(&["--cores", "3"], "true");
    let why = until("it is parked", || {
        bed.status()["waiting_for"].as_str().filter(|why| why.contains("parked")).map(str::to_owned)
    });
    assert!(why.contains("needs 3 cores, and a job has 1: ask for jobs with --cores 3"), "{why}");
    assert_eq!(live(&bed), 0);
    let text = bed.ok(&["explain", &wide]);
    assert!(text.contains("ask for jobs with --cores 3"), "{text}");
    let waited = bed.run(&["wait", &wide, "--timeout", "2s"]).expect(124);
    waited.says("ask for jobs with --cores 3");
    assert_eq!(live(&bed), 0, "no job is of use");
    bed.leaves_nothing();
}

#[test]
fn the_mode_and_what_was_learned_survive() {
    let bed = Bed::new();
    bed.run(&["up", "--jobs", "0", "--cores", "1"]).expect(0);
    bed.run(&["adapt", "--min", "1", "--max", "3"]).expect(0);
    until("the minimum is there", || (live(&bed) == 1).then_some(()));
    let pid = bed.status()["server"]["pid"].as_i64().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    bed.ok(&["submit", "--array", "1-9", "--wait", "--", "sleep", "0.3"]);
    let status = bed.status();
    assert_ne!(status["server"]["pid"].as_i64(), Some(pid));
    assert_eq!((&status["scaling"]["mode"], &status["scaling"]["max"]), (&"adapt".into(), &3.into()));
    // A job of this server's time: how long the former one's waited it cannot know.
    bed.run(&["adapt", "--min", "3", "--max", "3"]).expect(0);
    until("three jobs are up", || {
        let status = bed.status();
        let up = status["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count();
        (up == 3).then_some(())
    });
    bed.run(&["down"]).expect(0);
    let file = bed.state.join(".learned/local-default.json");
    let learned: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(!learned["pools"]["default"]["waits"].as_array().unwrap().is_empty(), "{learned}");
    assert!(learned["pools"]["default"]["startup"].is_number(), "{learned}");
    assert!(learned["durations"]["1 core"]["ended"].as_u64().unwrap() >= 4, "{learned}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn scale_and_off_end_it_and_nonsense_is_refused() {
    let bed = Bed::new();
    bed.run(&["up", "--jobs", "2", "--max", "3"]).expect(78).says("--jobs 2 holds a number of jobs");
    bed.run(&["up", "--jobs", "0", "--cores", "1"]).expect(0);
    bed.run(&["adapt", "--min", "3", "--max", "2"]).expect(78).says("the minimum of 3 jobs is above the maximum of 2");
    bed.run(&["adapt", "--min", "3"]).expect(78).says("--max");
    bed.run(&["adapt", "--max", "3", "--efficiency", "2"]).expect(78).says("0.05 to 0.95");
    bed.run(&["explain", "job", "9"]).expect(2).says("there is no job 9");
    bed.run(&["explain", "9"]).expect(2).says("there is no task 9");
    bed.run(&["explain", "nonsense"]).expect(2).says("is not a task id");
    bed.run(&["adapt", "--min", "1", "--max", "2"]).expect(0);
    until("the minimum is there", || (live(&bed) == 1).then_some(()));
    bed.run(&["adapt", "--off"]).expect(0);
    assert_eq!(bed.status()["scaling"]["mode"], "fixed");
    assert_eq!(bed.status()["scaling"]["jobs"], 1);
    bed.run(&["adapt", "--max", "2"]).expect(0);
    bed.run(&["scale", "0"]).expect(0);
    assert_eq!(bed.status()["scaling"]["mode"], "fixed");
    bed.leaves_nothing();
}

#[test]
fn tasks_decide_which_kind_of_job_is_asked_for() {
    let bed = Bed::new();
    let config = bed.root().join("home/.config/dcluster");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.toml"), "[profile.wide]\ncores = 2\nmemory = \"256MB\"\n").unwrap();
    bed.run(&["up", "--max", "3", "--cores", "1", "--memory", "128MB", "--pool", "wide"]).expect(0);
    let shown = bed.ok(&["status"]);
    assert!(
        shown.contains("default: 1 core, 128 MB a job") && shown.contains("wide: 2 cores, 256 MB a job"),
        "{shown}"
    );
    let both = bed.submit(&["--cores", "2"], "echo $DCLUSTER_JOB");
    bed.run(&["wait", &both]).expect(0);
    let status = bed.status();
    let jobs = status["jobs"].as_array().unwrap();
    let pools: Vec<_> =
        jobs.iter().map(|job| (job["pool"].as_str().unwrap(), job["cores"].as_u64().unwrap())).collect();
    assert_eq!(pools, [("wide", 2)]);
    let never = bed.submit(&["--cores", "3"], "true");
    let why = bed.run(&["wait", &never, "--timeout", "2s"]).expect(124);
    why.says("needs 3 cores");
    let explained = bed.ok(&["explain", &never]);
    assert!(explained.contains("needs 3 cores, and a job has 2"), "{explained}");
    bed.run(&["cancel", &never]).expect(0);
    bed.run(&["up", "--pool", "wdie"]).expect(78).says("there is no profile \"wdie\" to be a pool").says("wide");
    bed.leaves_nothing();
}
