//! The same bad days on every system that there is: this machine, the batch systems whose beds `tests/run` has
//! started, and stand-ins of those that it cannot. What is peculiar to one of them is in `slurm_days.rs`,
//! `sge_days.rs`, `pbs_days.rs`, `lsf_days.rs`, `oar_days.rs` and `condor_days.rs`.

use crate::condor_bed::CONDOR;
use crate::oar_bed::OAR;
use crate::sge_bed::SGE;
use crate::site::{SLURM, Site, System, kill, until};
use crate::standin_bed::{LSF, PBS};
use std::sync::{Mutex, PoisonError};

/// One test for each day on each system.
macro_rules! table {
    ($($system:ident: $at:expr),*; $days:tt) => {
        $(mod $system {
            table!(@days $at; $days);
        })*
    };
    (@days $at:expr; [$($day:ident),*]) => {
        $(#[test]
        fn $day() {
            let system: &'static super::System = &$at;
            let Some(_bed) = (system.bed)() else { return };
            super::$day(system);
        })*
    };
}

table!(
    local: super::LOCAL, slurm: super::SLURM, sge: super::SGE, pbs: super::PBS, lsf: super::LSF,
    oar: super::OAR, condor: super::CONDOR;
    [
        a_result_and_an_array,
        walltime,
        down_at_any_time,
        down_leaves_nothing,
        a_killed_server_finds_its_jobs,
        listings_that_fail_and_lie
    ]
);

/// This machine: its jobs are the workers that run.
static LOCAL: System = System {
    name: "local",
    submit: "",
    list: "",
    bed: || {
        static ALONE: Mutex<()> = Mutex::new(());
        Some(Box::new(ALONE.lock().unwrap_or_else(PoisonError::into_inner)))
    },
    variables: &[],
    commands: || None,
    user: || nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name,
    queue: || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| {
            let line = std::fs::read(process.path().join("cmdline")).ok()?;
            let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            let job = words.iter().position(|word| word == "--job").filter(|_| words[1] == "worker")?;
            Some(format!("{} {} up\n", process.file_name().to_string_lossy(), words.get(job + 1)?))
        });
        lines.collect()
    },
    cancel: "kill",
    hold: "",
};

fn up(site: &Site, jobs: usize, more: &[&str]) {
    let jobs = jobs.to_string();
    site.up(&[&["--jobs", &jobs, "--wait", &jobs], more].concat());
}

/// Tasks give what they print, as one and as members of an array, and see their job.
fn a_result_and_an_array(system: &'static System) {
    let site = Site::on(system);
    up(&site, 3, &["--walltime", "10m"]);
    assert_eq!(site.ok(&["submit", "--wait", "--", "sh", "-c", "echo out; echo err >&2"]), "out\n");
    let failed = site.run(&["submit", "--wait", "--", "sh", "-c", "exit 7"]);
    assert_ne!(failed.code, 0, "{failed:?}");
    let id = site.ok(&["submit", "--array", "1-5", "--", "sh", "-c", "echo member $DCLUSTER_TASK_INDEX"]);
    site.run(&["wait"]);
    assert_eq!(site.ok(&["logs", &format!("{}.4", id.trim())]), "member 4\n");
    assert_eq!(site.queued(), 3, "{}", site.story());
    site.down();
}

/// A worker leaves before its time is over, what it ran runs again, never twice at once.
fn walltime(system: &'static System) {
    let site = Site::on(system);
    up(&site, 1, &["--walltime", "90s", "--drain-lead", "40s"]);
    let task = site.submit(
        "exec 9>> lock; flock -n 9 || echo overlap >> runs; echo run >> runs; until [ -e go ]; do sleep 0.1; done",
    );
    site.task_in(&task, "running");
    let ended = site.job_with("its time is over", 150, |job| job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("walltime"), "{ended}\n{}", site.story());
    until("it runs again", 60, || (site.read("runs").lines().count() > 1).then_some(()));
    site.write("go", "");
    site.task_in(&task, "finished");
    assert_eq!(site.read("runs"), "run\nrun\n");
    site.down();
}

/// `down` at each stage of a job's life.
fn down_at_any_time(system: &'static System) {
    let site = Site::on(system);
    // Just submitted.
    site.up(&["--jobs", "3"]);
    site.down();
    if !system.hold.is_empty() {
        site.up(&["--jobs", "3", "--directive", system.hold]);
        site.job_in("pending");
        until("status says why", 60, || site.ok(&["status"]).contains("somebody holds it").then_some(()));
        site.down();
    }
    // Started, its worker not yet.
    site.up(&["--jobs", "2", "--prologue", "sleep 300"]);
    site.job_in("started");
    site.down();
    // Twice, and with nothing there.
    let again = site.run(&["down"]);
    assert_eq!((again.code, again.err.contains("down already")), (0, true), "{again:?}");
    assert_eq!(site.run(&["status"]).code, 69);
}

/// Jobs that run something deaf, and tasks that wait: all gone when `down` returns.
fn down_leaves_nothing(system: &'static System) {
    let site = Site::on(system);
    up(&site, 2, &[]);
    let deaf =
        site.submit("trap '' TERM INT HUP USR1 USR2; setsid sleep 1000 & touch deaf; while :; do sleep 0.2; done");
    let waits = site.ok(&["submit", "--cores", "1", "--array", "1-9", "--", "sleep", "1000"]);
    until("it is deaf", 60, || site.folder.join("home/deaf").exists().then_some(()));
    site.down();
    assert_eq!(site.task(&deaf)["state"], "ready");
    assert!(!waits.is_empty() && site.run(&["status"]).code != 0);
}

/// The server is killed while its command submits, and again while a task runs: no job is lost, none is there twice.
fn a_killed_server_finds_its_jobs(system: &'static System) {
    let site = Site::on(system);
    if system.submit.is_empty() {
        up(&site, 2, &[]);
    } else {
        let real = site.real(system.submit);
        let once = "[ \"$(wc -l < ~/calls.SUBMIT)\" = 1 ] || exec REAL \"$@\"; REAL \"$@\" > /dev/null; kill -KILL $PPID; exit 1";
        site.shim(system.submit, &once.replace("SUBMIT", system.submit).replace("REAL", &real));
        // Its server dies under it.
        site.run(&["up", "--cores", "1", "--memory", "200MB", "--jobs", "2"]);
        until("it has submitted", 60, || (site.calls(system.submit) == 1).then_some(()));
        until("two jobs are up", 90, || {
            let status = site.status();
            (status["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count() == 2).then_some(())
        });
        assert_eq!((site.calls(system.submit), site.queued()), (1, 2), "{}", site.story());
    }
    let task = site.submit("echo run >> runs; until [ -e go ]; do sleep 0.1; done");
    site.task_in(&task, "running");
    let server = site.status()["server"]["pid"].as_u64().unwrap();
    kill(server.try_into().unwrap(), "KILL");
    let other = site.submit("true");
    site.task_in(&other, "finished");
    assert_ne!(site.status()["server"]["pid"], server);
    site.write("go", "");
    site.task_in(&task, "finished");
    assert_eq!((site.read("runs").as_str(), site.queued()), ("run\n", 2), "{}", site.story());
    site.down();
}

/// The command that lists fails, says nothing and hangs: nothing of that is the end of a job.
fn listings_that_fail_and_lie(system: &'static System) {
    if system.list.is_empty() {
        return;
    }
    let site = Site::on(system);
    up(&site, 2, &[]);
    let task = site.submit("echo run >> runs; until [ -e go ]; do sleep 0.1; done");
    site.task_in(&task, "running");
    for lie in ["echo cannot read my config >&2; exit 1", "exit 0", "kill -SEGV $$", "exec sleep 20"] {
        site.shim(system.list, lie);
        let before = site.calls(system.list);
        site.ok(&["scale", "2"]);
        until("it is asked", 90, || (site.calls(system.list) > before).then_some(()));
    }
    let status = site.status();
    assert!(status["jobs"].as_array().unwrap().iter().all(|job| job["state"] == "up"), "{}", site.story());
    site.shim(system.list, "");
    assert_eq!(site.queued(), 2, "{}", site.story());
    site.write("go", "");
    site.task_in(&task, "finished");
    assert_eq!(site.read("runs"), "run\n");
    site.down();
}
