//! What a worker does on its node, through the real binary.

use crate::harness::{Bed, until};
use nix::sys::signal::Signal;

#[test]
fn simulated_workers_finish_tasks_that_never_run() {
    let bed = Bed::new();
    bed.run(&["up", "--jobs", "0"]).expect(0);
    let join = ["worker", "join", "--simulate", "sleep", "--workers", "3", "--cores", "64", "--gpus", "4"];
    let workers = bed.spawn(&join);
    until("three workers", || (bed.status()["workers"].as_array().unwrap().len() == 3).then_some(()));
    // There is no such program, and twelve GPUs there are not either.
    bed.ok(&["submit", "--array", "1-2000", "--wait", "--", "no-such-program"]);
    bed.ok(&["submit", "--array", "1-12", "--gpus", "1", "--wait", "--", "no-such-program"]);
    let sleeps = bed.ok(&["submit", "--", "sleep", "3600"]);
    bed.ok(&["submit", "--wait", "--", "sleep", "0.01"]);
    until("it is taken", || (bed.tasks("running") == 1).then_some(()));
    bed.ok(&["cancel", &sleeps]);
    assert_eq!(bed.tasks("finished"), 2013);
    assert_eq!(std::fs::read_dir(bed.folder().join("tasks")).unwrap().count(), 0);
    workers.signal(Signal::SIGINT);
    workers.end().expect(0).says("left: terminated by a signal");
    bed.leaves_nothing();
}
