//! What a worker does on its node, through the real binary.

use crate::harness::{Bed, skipped, until};
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

#[test]
fn a_worker_that_leaves_runs_its_hook_and_its_reason_is_told() {
    let bed = Bed::up(&["--jobs", "1"]);
    let hook = "echo \"$DCLUSTER_EXIT_REASON\" >> hook; echo hook was here; false";
    let joined = bed.spawn(&["worker", "join", "--cores", "1", "--on-exit", hook]);
    until("two workers", || (bed.status()["workers"].as_array().unwrap().len() == 2).then_some(()));
    joined.signal(Signal::SIGTERM);
    let left = joined.end().expect(0).says("left: terminated by a signal; the on-exit command failed: exit status: 1");
    assert_eq!(left.text(), "hook was here");
    assert_eq!(bed.read("hook"), "terminated by a signal\n");
    // One that never ends does not hold up the end of the walltime.
    let late =
        bed.spawn(&["worker", "join", "--cores", "1", "--time", "12s", "--on-exit", "echo x >> late; sleep 1000"]);
    assert_eq!(bed.appears("late"), "x\n");
    late.end().expect(0).says("left: the walltime ends; the on-exit command was ended after");
    bed.leaves_nothing();
}

#[test]
fn the_jobs_of_a_cluster_have_the_hook_too() {
    let bed = Bed::up(&["--on-exit", "echo \"left: $DCLUSTER_EXIT_REASON\""]);
    bed.run(&["scale", "0"]).expect(0);
    until("the hook has spoken", || bed.run(&["logs", "job", "1"]).text().contains("left: drained").then_some(()));
    bed.leaves_nothing();
}

#[test]
fn more_memory_than_asked_for_ends_a_task_and_says_so() {
    let bed = Bed::up(&["--memory", "1GB"]);
    let hog = "head -c 300M /dev/zero | tail -n 1 | sleep 100";
    bed.run(&["submit", "--memory", "50MiB", "--retries", "1", "--wait", "--", "sh", "-c", hog]).expect(137);
    let tasks = bed.lines(&["tasks", "--json"]);
    let text = tasks[0].to_string();
    assert!(text.contains("more than its 52 MB of memory (--memory asks for more)"), "{text}");
    assert_eq!(bed.tasks("failed"), 1);
    bed.leaves_nothing();
}

#[test]
fn pinned_tasks_run_on_different_cores_and_leave_no_scratch_folder() {
    let mut bed = Bed::new();
    let scratch = bed.root().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    bed.set("TMPDIR", scratch.to_str().unwrap());
    bed.run(&["up", "--wait", "1", "--pin"]).expect(0);
    let script = "echo x > \"$TMPDIR/x\"; allowed=$(grep Cpus_allowed_list /proc/self/status); \
                  echo $allowed $DCLUSTER_TASK_CPUS > cpus.$DCLUSTER_TASK_INDEX; until test -e go; do sleep 0.01; done";
    bed.submit(&["--array", "1-2"], script);
    let texts = [bed.appears("cpus.1"), bed.appears("cpus.2")];
    let cpus = texts.each_ref().map(|text| text.split_whitespace().skip(1).collect::<Vec<_>>());
    assert!(cpus.iter().all(|cpus| cpus.len() == 2 && cpus[0] == cpus[1]), "{cpus:?}");
    assert_ne!(cpus[0], cpus[1]);
    std::fs::write(bed.work.join("go"), "").unwrap();
    bed.run(&["down"]).expect(0);
    bed.nothing_left();
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}

#[test]
fn a_killed_workers_scratch_folder_is_swept() {
    let mut bed = Bed::new();
    let scratch = bed.root().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    bed.set("TMPDIR", scratch.to_str().unwrap());
    bed.run(&["up", "--wait", "1"]).expect(0);
    bed.submit(&[], "echo x > \"$TMPDIR/x\"; echo up > up; sleep 100");
    bed.appears("up");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 1);
    bed.run(&["cancel", "--all"]).expect(0);
    for pid in bed.workers() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    until("it is swept", || (std::fs::read_dir(&scratch).unwrap().count() == 0).then_some(()));
    bed.leaves_nothing();
}

#[test]
fn logs_of_a_host_that_does_not_see_the_files_come_through_the_server() {
    let bed = Bed::up(&[]);
    let own = ["--user", "--map-root-user", "--mount"];
    if !bed.program("unshare").args(own).arg("true").status().is_ok_and(|status| status.success()) {
        return skipped("no mount namespaces for users here");
    }
    // The same cluster as another host knows it: its keys and addresses, and a folder that is elsewhere.
    let elsewhere = bed.root().join("elsewhere");
    let far = elsewhere.join("default");
    std::fs::create_dir_all(&far).unwrap();
    std::fs::set_permissions(&far, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for name in ["id", "access", "worker", "spec", "ca.key", "lock"] {
        std::fs::copy(bed.folder().join(name), far.join(name)).unwrap();
    }
    let id = bed.submit(&[], "printf one; until test -e go; do sleep 0.01; done; echo two; echo three >&2");
    until("it has written", || (bed.ok(&["logs", &id]) == "one").then_some(()));
    // Out of sight: neither file nor folders are where the server says. The worker goes by its own names.
    let mut command = bed.program("unshare");
    let script = "mount -t tmpfs none \"$1\" && exec \"$2\" logs --follow \"$3\"";
    let state = bed.state.to_str().unwrap();
    command.args(own).args(["sh", "-c", script, "sh", state, crate::harness::BINARY, &id]);
    command.env("DCLUSTER_STATE", &elsewhere);
    let follow = bed.start(command);
    until("the first part is there", || (follow.out() == b"one").then_some(()));
    std::fs::write(bed.work.join("go"), "").unwrap();
    let ran = follow.end().expect(0).says("three");
    assert_eq!(ran.text(), "onetwo");
    bed.leaves_nothing();
}
