//! Tasks that run on several workers at once, through the real binary. The workers are all on this machine.

use crate::harness::{Bed, alive, skipped, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;

/// Says that it runs and on which job, then waits for the file `go`.
const WAITS: &str = "echo $DCLUSTER_JOB >> started; until test -e go; do sleep 0.01; done; echo end >> ended";

/// A cluster of jobs with one core each.
fn up(jobs: &str) -> Bed {
    let bed = Bed::new();
    bed.run(&["up", "--jobs", jobs, "--wait", jobs, "--cores", "1"]).expect(0);
    bed
}

/// Number of runs on the worker of each job that is up.
fn loads(bed: &Bed) -> BTreeMap<String, u64> {
    let status = bed.status();
    let workers = status["workers"].as_array().unwrap().iter().filter(|worker| worker["state"] == "up");
    workers.map(|worker| (worker["job"].as_str().unwrap().to_owned(), worker["running"].as_u64().unwrap())).collect()
}

fn kill_worker_of(bed: &Bed, job: &str) {
    for pid in bed.pids_of(job) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn a_task_on_three_workers_is_told_of_them_and_none_starts_without_the_others() {
    let bed = up("2");
    let id = bed.submit(&["--nodes", "3"], "cat $DCLUSTER_NODE_FILE; echo $DCLUSTER_TASK_NODE_COUNT $DCLUSTER_NODES");
    let reason = bed.lines(&["tasks", "--json", &id])[0]["reason"].to_string();
    assert!(reason.contains("needs 3 workers at once; 2 are up"), "{reason}");
    bed.run(&["scale", "3"]).expect(0);
    bed.run(&["wait", &id]).expect(0);
    let text = bed.ok(&["logs", &id]);
    let host = text.split(' ').next().unwrap();
    assert_eq!(text, format!("{host} slots=3\n3 {host},{host},{host}"));
    bed.leaves_nothing();
}

#[test]
fn guests_occupy_their_workers_and_leave_with_the_task() {
    let bed = up("2");
    let team = bed.submit(&["--nodes", "2"], WAITS);
    let other = bed.submit(&[], "echo other");
    bed.appears("started");
    assert_eq!(loads(&bed).into_values().collect::<Vec<_>>(), [1, 1]);
    assert_eq!(bed.tasks("ready"), 1);
    std::fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait", &team, &other]).expect(0);
    assert_eq!(loads(&bed).into_values().sum::<u64>(), 0);
    bed.leaves_nothing();
}

#[test]
fn a_task_whose_other_worker_is_killed_runs_again() {
    let bed = up("3");
    let id = bed.submit(&["--nodes", "2"], WAITS);
    let lead = bed.appears("started").trim().to_owned();
    let member = loads(&bed).into_iter().find(|(job, runs)| *runs == 1 && *job != lead).unwrap().0;
    kill_worker_of(&bed, &member);
    until("it runs again", || (bed.read("started").lines().count() == 2).then_some(()));
    std::fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait", &id]).expect(0);
    // The first run was ended, not left behind.
    assert_eq!(bed.read("ended"), "end\n");
    bed.leaves_nothing();
}

#[test]
fn a_task_whose_first_worker_is_killed_runs_again() {
    let bed = up("3");
    let id = bed.submit(&["--nodes", "2"], WAITS);
    let lead = bed.appears("started").trim().to_owned();
    kill_worker_of(&bed, &lead);
    until("it runs again", || (bed.read("started").lines().count() == 2).then_some(()));
    std::fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait", &id]).expect(0);
    assert_eq!(bed.read("ended"), "end\n");
    bed.leaves_nothing();
}

#[test]
fn a_new_server_finds_a_task_on_several_workers_as_it_was() {
    let bed = up("2");
    let team = bed.submit(&["--nodes", "2"], WAITS);
    bed.appears("started");
    kill(Pid::from_raw(bed.server()), Signal::SIGKILL).unwrap();
    // Any command brings one back.
    let other = bed.submit(&[], "test -e ended");
    until("both are back", || (loads(&bed).into_values().collect::<Vec<_>>() == [1, 1]).then_some(()));
    assert_eq!(bed.tasks("ready"), 1);
    std::fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["wait", &team, &other]).expect(0);
    assert_eq!(bed.read("started").lines().count(), 1);
    bed.leaves_nothing();
}

#[test]
fn cancel_and_down_end_a_task_on_several_workers() {
    let bed = up("2");
    let script = "echo $$ > pid; exec sleep 1000";
    let id = bed.submit(&["--nodes", "2"], script);
    let pid = bed.appears("pid").trim().parse().unwrap();
    bed.run(&["cancel", &id]).expect(0);
    until("it has ended", || (!alive(pid)).then_some(()));
    until("its workers are free", || (loads(&bed).into_values().sum::<u64>() == 0).then_some(()));
    std::fs::remove_file(bed.work.join("pid")).unwrap();
    bed.submit(&["--nodes", "2"], script);
    bed.appears("pid");
    bed.run(&["down"]).expect(0);
    bed.nothing_left();
}

#[test]
fn mpirun_starts_a_process_for_each_core_of_all_workers() {
    let bed = up("2");
    if !bed.program("mpirun").arg("--version").output().is_ok_and(|ran| ran.status.success()) {
        return skipped("no mpirun here");
    }
    let script = "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun sh -c 'echo started'";
    let ran = bed.run(&["submit", "--nodes", "2", "--wait", "--", "sh", "-c", script]).expect(0);
    assert_eq!(ran.text(), "started\nstarted");
    bed.leaves_nothing();
}
