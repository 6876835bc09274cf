//! The ways down: at any time, with a drain, at once, without a server.

use crate::harness::{Bed, alive, signal, until, witnesses};
use nix::sys::signal::Signal;
use std::fs;

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
