//! Good and bad days of a user on PBS, with the real program; the stand-in is PBS.

use crate::harness::{PATIENCE, until};
use crate::site::ODD;
use crate::standin::StandIn;
use dcluster::backends::Backend;
use dcluster::backends::pbs::Pbs;
use dcluster::backends::render::JobHome;
use dcluster::config::spec::PoolSpec;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

const COMMANDS: &[&str] = &["qsub", "qstat", "qdel", "qselect", "qsig", "qhold", "qrls", "qrerun", "pbsnodes"];

/// A PBS that keeps history, as sites with users of workflow tools do.
fn pbs(settings: &Value) -> StandIn {
    let mut all = json!({ "history": true });
    for (key, value) in settings.as_object().unwrap() {
        all[key] = value.clone();
    }
    StandIn::new("pbs", COMMANDS, &all)
}

/// An array, its logs while it runs, what tasks see, and that `down` leaves nothing.
#[test]
fn a_good_day() {
    let mut site = pbs(&json!({}));
    site.bed.set("CUSTOM", ODD);
    // What would change the script's directives.
    site.bed.set("PBS_DPREFIX", "#XXX");
    site.ok(&["up", "--jobs", "4", "--walltime", "10m", "--prologue", "echo from the prologue", "--wait", "4"]);
    assert_eq!(site.calls("qsub").len(), 1, "four jobs are one array");
    let ids: Vec<String> =
        site.status()["jobs"].as_array().unwrap().iter().map(|j| j["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["0[0].pbsvm", "0[1].pbsvm", "0[2].pbsvm", "0[3].pbsvm"]);
    assert_eq!(site.ok(&["submit", "--wait", "--", "printenv", "CUSTOM"]), ODD);
    let held = site.jobs()[2].clone();
    assert_eq!((&held["cpus"], &held["walltime"]), (&1.into(), &600.into()));
    // PBS delivers its own file at the end only.
    assert!(site.ok(&["logs", "job", "3"]).contains("from the prologue"));
    let shown = site.ok(&["render", "--jobs", "4", "--walltime", "10m", "--prologue", "echo from the prologue"]);
    assert_eq!(held["script"].as_str().unwrap().trim_end(), shown.trim_end());
    let array = site.ok(&["submit", "--array", "1-20", "--", "sh", "-c", "echo $DCLUSTER_TASK_INDEX"]);
    site.ok(&["wait"]);
    assert_eq!(site.ok(&["logs", &format!("{array}.7")]), "7");
    // Asked for arrays, never for each element.
    assert!(
        site.calls("qstat").iter().filter(|call| call.contains(" -t ")).all(|call| call.ends_with("-f -t 0[].pbsvm"))
    );
    site.down();
}

/// A server's first job has the number 0, and one job is no array.
#[test]
fn job_0_and_one_job_is_no_array() {
    let site = pbs(&json!({}));
    site.ok(&["up", "--wait", "1"]);
    assert_eq!(site.job_in("up")["id"], "0.pbsvm");
    site.ok(&["scale", "2"]);
    site.up(2);
    assert_eq!(site.calls("qsub").len(), 2);
    assert!(site.jobs().iter().all(|job| job["index"].is_null()));
    site.down();
}

/// Without history what is over is unknown: what the script left, or silence, tells.
#[test]
fn history_off() {
    let site = pbs(&json!({ "history": false, "nodes": [{ "name": "n1", "cpus": 2, "memory": 1 << 30 }] }));
    site.ok(&["up", "--jobs", "3", "--wait", "2"]);
    site.job_with("one waits", |job| {
        job["state"] == "pending" && job["reason"].as_str().is_some_and(|why| why.contains("Insufficient"))
    });
    // It learned that `-x` is refused; the jobs were never taken for lost.
    assert!(site.calls("qstat").iter().any(|call| call == "qstat -E -f -t 0[].pbsvm"), "{}", site.story());
    site.ok(&["scale", "2"]);
    site.ok(&["submit", "--wait", "--", "true"]);
    site.down();
    // One job alone: PBS forgets it at its end.
    site.ok(&["up", "--wait", "1"]);
    let job = site.job_in("up");
    site.command(&["qdel", job["id"].as_str().unwrap()]);
    site.job_with("it has ended", |seen| seen["name"] == job["name"] && seen["state"] == "ended");
    site.ok(&["submit", "--wait", "--", "true"]);
    site.down();
}

/// A PBS that does not know `-E`, keeps no history and whose JSON is broken.
#[test]
fn an_old_pbs() {
    let site =
        pbs(&json!({ "grouping": false, "history": false, "flavour": "pbs23", "keep": "oen", "version": "13.1" }));
    site.ok(&["up", "--jobs", "2", "--wait", "2"]);
    site.ok(&["scale", "3"]);
    site.up(3);
    assert_eq!(site.ok(&["submit", "--wait", "--", "echo", "done"]), "done");
    assert!(site.calls("qstat").iter().all(|call| !call.contains("json")));
    site.down();
}

/// TORQUE: no select, -t for arrays, other names of variables and states; -x would be XML.
#[test]
fn torque() {
    let site = pbs(&json!({ "flavour": "torque", "version": "6.1.2", "history": false }));
    let shown = site.ok(&["render", "--jobs", "3"]);
    assert!(shown.contains("#PBS -t 0-2\n#PBS -l nodes=1:ppn=1\n"), "{shown}");
    site.ok(&["up", "--jobs", "3", "--memory", "200MB", "--walltime", "10m", "--wait", "3"]);
    let job = site.jobs()[1].clone();
    assert_eq!((&job["attrs"]["array"], &job["attrs"]["resources"]["nodes"]), (&json!("0-2"), &json!("1:ppn=1")));
    assert_eq!(job["attrs"]["resources"]["mem"], "191mb");
    assert_eq!(site.ok(&["submit", "--wait", "--", "echo", "done"]), "done");
    let id = site.job_in("up")["id"].as_str().unwrap().to_owned();
    site.command(&["qdel", &id]);
    let ended = site.job_with("cancelled", |job| job["state"] == "ended");
    assert_eq!(ended["id"], id.as_str());
    assert!(ended["reason"].as_str().unwrap().starts_with("cancelled by others"), "{ended}");
    assert!(site.calls("qstat").iter().all(|call| !call.contains("-x") && !call.contains("-E")));
    site.down();
}

/// What a login shell prints, and where it goes, is not the job's business.
#[test]
fn login_shell_and_home() {
    let site = pbs(&json!({}));
    let profile = "echo noise of the profile; echo more >&2; cd /; export PATH=/usr/bin:/bin LEAK=yes; set -u\n";
    fs::write(site.bed.root().join("home/.bash_profile"), profile).unwrap();
    site.ok(&["up", "--wait", "1"]);
    assert_eq!(site.ok(&["submit", "--wait", "--", "pwd"]), site.bed.work.canonicalize().unwrap().to_str().unwrap());
    assert!(!site.ok(&["logs", "job", "1"]).contains("noise"));
    let delivered = fs::read_dir(site.bed.folder().join("jobs")).unwrap().flatten();
    assert_eq!(delivered.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log")).count(), 0);
    site.down();
    // PBS's own file comes at the end.
    let logs = fs::read_dir(site.bed.folder().join("jobs")).unwrap().flatten().map(|entry| entry.path());
    let log = logs.into_iter().find(|path| path.extension().is_some_and(|e| e == "log")).unwrap();
    assert_eq!(fs::read_to_string(log).unwrap(), "noise of the profile\nmore\n");
}

/// What PBS refuses, and what it never starts.
#[test]
fn refusals() {
    let site = pbs(&json!({ "queues": {
        "workq": {}, "private": { "acl": false }, "short": { "resources_max": { "walltime": "00:10:00" } },
    } }));
    // What the site says of its queues is looked at before anything is asked for.
    for (options, says) in [
        (&["--queue", "nosuch"][..], "nosuch"),
        (&["--queue", "private"], "private"),
        (&["--queue", "short", "--walltime", "1h"], "short"),
    ] {
        let refused = site.run(&[&["up", "--wait", "1"], options].concat());
        assert_eq!((refused.code, site.calls("qsub").len()), (78, 0), "{refused:?}");
        refused.says(says).says("fix");
    }
    // Own directives are not understood, so nothing is refused beforehand.
    for (options, says, fix) in [
        (&["--directive=-q nosuch"][..], "Unknown queue", "qstat -Q"),
        (&["--directive=-q private"], "Unauthorized Request", "may not use the queue"),
        (&["--directive=-q short", "--walltime", "1h"], "violates queue", "qstat -Qf"),
    ] {
        let before = site.calls("qsub").len();
        let waited = site.run(&[&["up", "--wait", "1"], options].concat());
        assert_eq!(waited.code, 69, "{waited:?}");
        let waited = waited.says(says).says(fix);
        let status = site.ok(&["status"]);
        assert!(status.contains(says), "{status}\n{waited:?}");
        assert_eq!(site.calls("qsub").len(), before + 1, "no submit loop");
        site.down();
        site.ok(&["down", "--purge"]);
    }
    site.set("hook", &json!("Project 'forbidden' has no hours left.\nContact helpdesk@example.org"));
    site.run(&["up", "--wait", "1"]).expect(69).says("has no hours left").says("Contact helpdesk@example.org");
    site.set("hook", &json!(null));
    site.down();
    site.ok(&["down", "--purge"]);
    // More cores than a node has, where the nodes are not shown to us: accepted, and never started.
    site.fault("pbsnodes", &json!({ "times": -1, "rc": 1, "err": "pbsnodes: Unauthorized Request\n" }));
    site.ok(&["up", "--cores", "64"]);
    let job = site.job_with("a reason", |job| job["reason"].as_str().is_some_and(|why| !why.is_empty()));
    assert_eq!(job["reason"], "Can Never Run: Insufficient amount of resource: ncpus (R: 64 A: 8 T: 8)");
    let status = site.ok(&["status"]);
    assert!(status.contains("ask for less per job"), "{status}");
    site.down();
}

/// A limit of the site is learned: what fits runs.
#[test]
fn a_limit_on_jobs() {
    let site = pbs(&json!({ "queues": { "workq": { "max_queued": 2 } } }));
    site.ok(&["up"]);
    for count in ["2", "3"] {
        site.ok(&["scale", count]);
    }
    site.up(2);
    until("the limit is told", || {
        site.status()["trouble"].as_str().map(str::to_owned).filter(|why| why.contains("per-user limit"))
    });
    assert_eq!(site.ok(&["submit", "--wait", "--", "echo", "done"]), "done");
    site.down();
}

/// The server is away when we submit, list and cancel.
#[test]
fn the_server_is_away() {
    let site = pbs(&json!({}));
    site.control(&["stop"]);
    site.ok(&["up"]);
    let trouble = until("trouble is told", || site.status()["trouble"].as_str().map(str::to_owned));
    assert!(trouble.contains("cannot connect to server"), "{trouble}");
    let id = site.bed.submit(&[], "until [ -e go ]; do sleep 0.05; done");
    site.control(&["start"]);
    site.task_in(&id, "running");
    assert_eq!(site.alive(), 1);
    // Nothing is lost or doubled while it is away; `qstat` says an empty list then.
    site.control(&["kill"]);
    site.ok(&["scale", "2"]);
    until("it was asked in vain", || site.ok(&["events"]).contains("cannot connect").then_some(()));
    fs::write(site.bed.work.join("go"), "").unwrap();
    site.task_in(&id, "finished");
    let down = site.spawn(&["down"]);
    until("down waits", || down.err().contains("waiting for job").then_some(()));
    site.control(&["start"]);
    let ended = down.end_within(PATIENCE * 3);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(site.alive(), 0);
}

/// qsub submits, and its answer is lost, or does not come in time.
#[test]
fn lost_answers() {
    let site = pbs(&json!({}));
    site.fault("qsub", &json!({ "done": true, "rc": 183, "err": "qsub: Batch protocol error\n" }));
    site.ok(&["up", "--jobs", "3"]);
    site.up(3);
    assert_eq!((site.calls("qsub").len(), site.alive()), (1, 3), "{}", site.story());
    site.down();
    // It failed so and had submitted nothing: given up by name, then tried again.
    site.fault("qsub", &json!({ "rc": 183, "err": "qsub: Batch protocol error\n" }));
    site.ok(&["up"]);
    site.up(1);
    assert_eq!((site.calls("qsub").len(), site.alive()), (3, 1), "{}", site.story());
    site.down();
}

/// A server that hangs: commands do not end by themselves, and what was submitted is the only job.
#[test]
fn a_server_that_hangs() {
    let site = pbs(&json!({}));
    site.fault("qsub", &json!({ "hang": "after" }));
    site.ok(&["up"]);
    // It joins before qsub has ended.
    site.up(1);
    site.fault("qstat", &json!({ "hang": "before", "times": 1 }));
    // After a minute.
    let given_up = || site.ok(&["events", "--json"]).contains("submit_ambiguous");
    let deadline = Instant::now() + PATIENCE * 3;
    while !given_up() {
        assert!(Instant::now() < deadline, "the hanging qsub is not given up\n{}", site.story());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(site.ok(&["submit", "--wait", "--", "echo", "done"]), "done");
    assert_eq!((site.calls("qsub").len(), site.alive()), (1, 1), "{}", site.story());
    site.down();
}

/// Listings that leave jobs out, fail, or say nothing: no job is taken for over while its worker is there.
#[test]
fn listings_that_lie() {
    let site = pbs(&json!({ "second": 1.0 }));
    site.ok(&["up", "--jobs", "2", "--wait", "2"]);
    let id = site.bed.submit(&[], "until [ -e go ]; do sleep 0.05; done");
    site.task_in(&id, "running");
    // Silence is none of PBS's answers: it complains of jobs that it does not know.
    site.fault("qstat", &json!({ "times": -1, "rc": 0, "out": "" }));
    site.ok(&["scale", "3"]);
    until("it is no answer", || site.ok(&["events"]).contains("no job in its answer").then_some(()));
    site.ok(&["scale", "2"]);
    for fault in [
        json!({ "times": -1, "lie": { "omit": "all" } }),
        json!({ "times": -1, "rc": 255, "err": "Connection refused\nqstat: cannot connect to server pbsvm (errno=15010)\n" }),
        json!({ "times": -1, "rc": 0, "out": "<html>maintenance</html>\n" }),
    ] {
        site.fault("qstat", &fault);
        let before = site.calls("qstat").len();
        // A change of plan asks for a listing.
        site.ok(&["scale", "2"]);
        site.ok(&["scale", "3"]);
        until("it is asked", || (site.calls("qstat").len() > before).then_some(()));
    }
    site.fault("qstat", &Value::Null);
    site.up(3);
    fs::write(site.bed.work.join("go"), "").unwrap();
    assert_eq!(site.task_in(&id, "finished")["runs"].as_u64().unwrap_or(1), 1);
    assert_eq!(site.alive(), 3, "{}", site.story());
    site.down();
}

/// Wrappers of the site print banners around every command's answer, with numbers in them.
#[test]
fn banners() {
    let site = pbs(&json!({ "server_comment": "Maintenance on Friday 08:00" }));
    let banner = "Welcome to the Stampede3 Supercomputer\n--> 10.0.0.1\n3\n12.5\n";
    for command in ["qsub", "qstat", "qdel", "qselect"] {
        site.fault(
            command,
            &json!({ "times": -1, "banner": banner, "banner_err": "No project given, 42 hours left\n" }),
        );
    }
    site.ok(&["up", "--jobs", "2", "--wait", "2"]);
    let ids: Vec<Value> = site.status()["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect();
    assert_eq!(ids, ["0[0].pbsvm", "0[1].pbsvm"]);
    assert_eq!(site.ok(&["submit", "--wait", "--", "echo", "done"]), "done");
    site.ok(&["scale", "1"]);
    until("one is left", || (site.alive() == 1).then_some(()));
    site.down();
}

/// Others cancel a job; its walltime ends; its processes die; the server of ours dies.
#[test]
fn jobs_and_servers_die() {
    let site = pbs(&json!({}));
    site.ok(&["up", "--jobs", "2", "--walltime", "10m", "--wait", "2"]);
    // Jobs that end are replaced while there is work.
    let more = site.bed.submit(&["--array", "1-8"], "until [ -e enough ]; do sleep 0.05; done");
    let ended = |name: &Value| site.job_with("it has ended", |job| job["name"] == *name && job["state"] == "ended");

    let job = site.job_in("up");
    site.command(&["qdel", job["id"].as_str().unwrap()]);
    let over = ended(&job["name"]);
    assert!(over["reason"].as_str().unwrap().starts_with("cancelled by others"), "{over}\n{}", site.story());
    site.up(2);

    // The worker, and all that belongs to it, at one blow.
    let job = site.job_in("up");
    let session =
        site.jobs().into_iter().find(|known| job["id"] == format!("{}.pbsvm", known["key"].as_str().unwrap())).unwrap()
            ["session"]
            .clone();
    for pid in session_of(session.as_i64().unwrap()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let over = ended(&job["name"]);
    assert!(over["reason"].as_str().unwrap().starts_with("crashed"), "{over}\n{}", site.story());
    site.up(2);

    // Our server, while a task runs; jobs are found again.
    fs::write(site.bed.work.join("enough"), "").unwrap();
    site.ok(&["wait", &more]);
    let id = site.bed.submit(&[], "echo run >> runs; until [ -e go ]; do sleep 0.05; done");
    site.task_in(&id, "running");
    let calls = site.calls("qsub").len();
    kill(Pid::from_raw(site.bed.server()), Signal::SIGKILL).unwrap();
    site.ok(&["submit", "--wait", "--", "true"]);
    fs::write(site.bed.work.join("go"), "").unwrap();
    site.task_in(&id, "finished");
    assert_eq!((site.bed.read("runs").as_str(), site.calls("qsub").len(), site.alive()), ("run\n", calls, 2));

    // An hour of PBS passes in seconds: its limit is over, and the worker does not know.
    site.set("second", &json!(0.001));
    let over =
        site.job_with("its time is over", |job| job["reason"].as_str().is_some_and(|why| why.starts_with("walltime")));
    site.set("second", &json!(1.0));
    assert_eq!(over["state"], "ended");
    site.down();
}

/// qdel sends TERM to every process of a job, tasks too, one after the other: no task is at fault.
#[test]
fn qdel_reaches_tasks_before_the_worker() {
    let site = pbs(&json!({}));
    site.ok(&["up", "--jobs", "3", "--wait", "3"]);
    let id = site.bed.submit(&["--array", "1-3"], "echo run >> runs; until [ -e go ]; do sleep 0.05; done");
    until("all run", || (site.bed.read("runs").lines().count() == 3).then_some(()));
    for index in 0..3 {
        site.command(&["qdel", &format!("0[{index}].pbsvm")]);
    }
    until("all have ended", || (site.alive() == 0).then_some(()));
    fs::write(site.bed.work.join("go"), "").unwrap();
    site.ok(&["wait", &id]);
    assert_eq!((site.bed.tasks("finished"), site.bed.tasks("failed")), (3, 0));
    site.down();
}

/// OpenPBS does not do all of a `qdel` of several ids; a job whose node is dead holds up no other one.
#[test]
fn one_qdel_names_one_job_or_neighbours() {
    let site = pbs(&json!({ "scheduling": false }));
    site.ok(&["up", "--jobs", "2"]);
    for jobs in [2, 4, 5] {
        site.ok(&["scale", &jobs.to_string()]);
        until("all are asked for", || (site.alive() == jobs).then_some(()));
    }
    site.fault("qdel", &json!({ "rc": 222, "err": "qdel: Server could not connect to MOM 0[0].pbsvm\n" }));
    site.down();
    let calls: BTreeSet<_> = site.calls("qdel").into_iter().collect();
    assert_eq!(calls, ["qdel 0[0-1].pbsvm", "qdel 1[0-1].pbsvm", "qdel 2.pbsvm"].map(str::to_owned).into());
}

/// A server that is killed while it submits finds the job by its name, and asks for no second one.
#[test]
fn a_server_that_dies_while_it_submits() {
    let site = pbs(&json!({ "scheduling": false }));
    site.fault("qsub", &json!({ "hang": "after" }));
    site.ok(&["up", "--jobs", "2"]);
    until("PBS has the jobs", || (site.alive() == 2).then_some(()));
    kill(Pid::from_raw(site.bed.server()), Signal::SIGKILL).unwrap();
    // The hanging qsub, whose parent is gone.
    for pid in site.bed.pids_of(site.bed.root().join("bin/qsub").to_str().unwrap()) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    site.set("scheduling", &json!(true));
    site.up(2);
    assert_eq!((site.calls("qsub").len(), site.alive()), (1, 2), "{}", site.story());
    site.down();
}

/// The elements of an array are rerunnable, whatever we want: PBS may put one back into the queue.
#[test]
fn an_element_is_requeued() {
    let site = pbs(&json!({}));
    site.ok(&["up", "--jobs", "2", "--wait", "2"]);
    let id = site.bed.submit(&["--array", "1-2"], "echo run >> runs; until [ -e go ]; do sleep 0.05; done");
    until("both run", || (site.bed.read("runs") == "run\nrun\n").then_some(()));
    // Long enough in the queue to be seen there.
    site.set("scheduling", &json!(false));
    site.command(&["qrerun", "0[1].pbsvm"]);
    site.job_with("it is in the queue again", |job| job["id"] == "0[1].pbsvm" && job["state"] == "pending");
    site.set("scheduling", &json!(true));
    site.up(2);
    until("its task runs again", || (site.bed.read("runs").lines().count() == 3).then_some(()));
    fs::write(site.bed.work.join("go"), "").unwrap();
    site.task_in(&format!("{id}.2"), "finished");
    // The script of the second run counts as such: its end is believed.
    site.command(&["qsig", "-s", "SIGTERM", "0[1].pbsvm"]);
    let ended = site.job_with("ended", |job| job["id"] == "0[1].pbsvm" && job["state"] == "ended");
    assert_eq!(ended["exit_code"], 0, "{ended}");
    site.down();
}

/// Held by hand: the reason is told, and what to do.
#[test]
fn a_job_that_is_held() {
    let site = pbs(&json!({ "scheduling": false }));
    site.ok(&["up"]);
    let job = site.job_in("pending");
    site.command(&["qhold", job["id"].as_str().unwrap()]);
    site.ok(&["scale", "2"]);
    site.job_with("held", |seen| seen["name"] == job["name"] && seen["reason"] == "held: Hold_Types = u");
    let status = site.ok(&["status"]);
    assert!(status.contains("qrls"), "{status}");
    site.command(&["qrls", job["id"].as_str().unwrap()]);
    site.set("scheduling", &json!(true));
    site.up(2);
    site.down();
}

/// Queues with their limits, as the backend tells them.
#[test]
fn what_the_site_says() {
    let site = pbs(&json!({ "queues": {
        "workq": {}, "off": { "enabled": false }, "private": { "acl": false },
        "short": { "resources_max": { "walltime": "00:10:00", "ncpus": 4, "mem": "4gb" }, "max_queued": 2 },
    } }));
    let me = std::env::current_exe().unwrap();
    let mut inner = site.bed.program(me.to_str().unwrap());
    let output = inner.args(["--exact", "pbs_days::asks_the_site", "--ignored"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_str(&site.bed.read("site.json")).unwrap();
    assert_eq!((&said["version"], &said["accounting"]), (&json!("pbs 23.06.06"), &json!(true)));
    let queue =
        |name: &str| said["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == name).unwrap().clone();
    assert_eq!((&queue("workq")["is_default"], &queue("workq")["max_cores"]), (&json!(true), &json!(8)));
    assert!(queue("off")["closed"].is_string() && queue("private")["closed"].is_string());
    let short = queue("short");
    assert_eq!((&short["max_walltime_seconds"], &short["max_cores"]), (&json!(600), &json!(4)));
    assert_eq!((&short["max_memory_bytes"], &short["max_jobs"]), (&json!(4_u64 << 30), &json!(2)));
}

/// The inner half: a process whose PATH has the stand-in.
#[tokio::test]
#[ignore = "run by what_the_site_says"]
async fn asks_the_site() {
    let home = JobHome::new("/tmp".into(), "/bin/true".into(), "abcd", PoolSpec::new(1));
    let said = Pbs::new(home).site().await.unwrap();
    fs::write("site.json", serde_json::to_vec(&said).unwrap()).unwrap();
}

/// Jobs of others, and jobs of ours under other names, are never touched.
#[test]
fn jobs_of_others() {
    let site = pbs(&json!({}));
    let other = site.bed.root().join("other.sh");
    fs::write(&other, "#!/bin/bash\nsleep 300\n").unwrap();
    site.command(&["qsub", "-N", "big", "-J", "0-300", "-h", "-o", "/dev/null", "-j", "oe", other.to_str().unwrap()]);
    site.command(&["qsub", "-N", "dcwxyz-000001", "-o", "/dev/null", "-j", "oe", other.to_str().unwrap()]);
    site.ok(&["up", "--wait", "1"]);
    site.ok(&["down", "--now"]);
    let alive: Vec<_> = site.jobs().into_iter().filter(|job| job["state"] != "done").collect();
    assert_eq!(alive.len(), 302);
    assert!(alive.iter().all(|job| job["name"] == "dcwxyz-000001" || job["name"] == "big"));
    // An array of others is never asked for element by element.
    assert!(site.calls("qstat").iter().all(|call| !(call.contains(" -t ") && call.contains("0[]"))));
    assert!(site.calls("qdel").iter().all(|call| call.contains("2.pbsvm")), "{:?}", site.calls("qdel"));
    site.control(&["sweep"]);
}

fn session_of(session: i64) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields.split_whitespace().nth(3).and_then(|field| field.parse().ok()) == Some(session)
    };
    pids.filter(ours).collect()
}
