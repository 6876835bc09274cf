//! Good and bad days of a user on LSF, with the real program and the stand-in that runs the scripts: OpenLava 2.2,
//! where `bjobs` has a table only, and IBM's 10.1.

mod bed;

use crate::harness::until;
use crate::site::ODD;
use bed::{Face, Lsf};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::Duration;

const FACES: [Face; 2] = [Face::OpenLava, Face::Ibm];

/// An array, its script, what tasks see, what LSF does not see, logs, mail.
fn a_good_day(face: Face) {
    let mut lsf = Lsf::new(face);
    for (name, value) in [("CUSTOM", ODD), ("BSUB_QUIET", "1"), ("LSB_BJOBS_FORMAT", "user"), ("LSB_SUB_QUEUE", "x")] {
        lsf.bed.set(name, value);
    }
    let shape = ["--jobs", "3", "--walltime", "30m", "--memory", "200MB", "--prologue", "echo from the prologue"];
    lsf.up(&[&shape[..], &["--wait", "3"]].concat());
    assert_eq!(lsf.calls("bsub"), 1, "three jobs are one array");
    assert_eq!(lsf.bed.ok(&["submit", "--wait", "--", "printenv", "CUSTOM"]), ODD);
    assert!(lsf.bed.ok(&["logs", "job", "2"]).contains("from the prologue"));

    let jobs = lsf.bed.status()["jobs"].clone();
    let ids: Vec<_> = jobs.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["101[1]", "101[2]", "101[3]"]);

    // What was submitted is what `render` prints, and nothing of our environment.
    let record = lsf.records().remove(0);
    let shown = lsf.bed.ok(&[&["render"][..], &shape].concat());
    assert_eq!(record["script"].as_str().unwrap().trim_end(), shown.trim_end());
    let names: Vec<&String> = record["env"].as_object().unwrap().keys().collect();
    assert!(names.iter().all(|name| !["CUSTOM", "LSB_SUB_QUEUE"].contains(&name.as_str())), "{names:?}");
    assert_eq!(record["memory"], 200_000_000u64.div_ceil(1 << 20) << 20);
    assert_eq!((&record["walltime"], &record["cpus"]), (&1800.into(), &1.into()));

    // One more is a job without an index.
    lsf.bed.ok(&["scale", "4"]);
    let fourth = lsf.job_with("a fourth job", |job| job["id"] == "102" && job["state"] == "up");
    assert_eq!(fourth["name"].as_str().unwrap().split('-').nth(1), Some("000004"));
    let args = if face == Face::Ibm { "bsub -rn" } else { "bsub" };
    let all = lsf.calls("bsub");
    assert_eq!((all, lsf.calls(args)), (2, 2));
    lsf.down();
    assert!(!lsf.mailed());
}

#[test]
fn a_good_day_on_openlava() {
    a_good_day(Face::OpenLava);
}

#[test]
fn a_good_day_on_ibm() {
    a_good_day(Face::Ibm);
}

/// LSF copies the environment of `bsub` into the job, and `up` may be typed in a shell that is a job itself.
#[test]
fn what_tasks_see_is_of_the_user_and_of_their_own_job() {
    let mut lsf = Lsf::new(Face::OpenLava);
    lsf.bed.set("LANG", "C.UTF-8");
    lsf.bed.set("LSB_JOBID", "7");
    let mut up = lsf.bed.command(&["up", "--wait", "1"]);
    up.env_remove("LC_ALL");
    lsf.bed.start(up).end_within(Duration::from_secs(60)).expect(0);
    let told = "echo ${LC_ALL-unset} $LANG $LSB_JOBID";
    assert_eq!(lsf.bed.ok(&["submit", "--wait", "--", "bash", "-c", told]), "unset C.UTF-8 101");
    lsf.down();
}

/// LSF_UNIT_FOR_LIMITS of `lsf.conf`, and reservations that the site multiplies by the slots.
#[test]
fn memory_in_the_sites_units() {
    let mut lsf = Lsf::with(Face::Ibm, &[("unit", "\"GB\""), ("per_task", "true")]);
    let folder = lsf.bed.root().join("lsf");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("lsf.conf"), "LSF_UNIT_FOR_LIMITS=GB\n").unwrap();
    lsf.bed.set("LSF_ENVDIR", folder.to_str().unwrap());
    lsf.up(&["--cores", "2", "--memory", "4GB", "--wait", "1"]);
    let shown = lsf.bed.ok(&["render", "--cores", "2", "--memory", "4GB"]);
    assert!(shown.contains("#BSUB -R \"span[hosts=1] rusage[mem=2]\"\n#BSUB -M 4\n"), "{shown}");
    // 4 GB are 3.7 GiB: two for each of two slots, as `bparams` says.
    assert_eq!(lsf.records()[0]["memory"], 4u64 << 30);
    assert!(lsf.records()[0]["script"].as_str().unwrap().contains("#BSUB -M 4\n"));
    lsf.down();
}

/// Why a job waits, in LSF's words and in plain English; `down` of what waits.
#[test]
fn reasons_and_held_jobs() {
    for face in FACES {
        let lsf = Lsf::new(face);
        lsf.up(&["--directive", "-H"]);
        let held = lsf.job_with("held", |job| {
            job["state"] == "pending" && job["reason"].as_str().is_some_and(|why| why.contains("suspended by the user"))
        });
        let status = lsf.bed.ok(&["status"]);
        assert!(status.contains("somebody holds it") && status.contains("bresume"), "{status}");
        lsf.lsf(&["bresume", held["id"].as_str().unwrap()]);
        lsf.job_in("up");
        lsf.down();
        lsf.bed.ok(&["down", "--purge"]);

        lsf.up(&["--queue", "night", "--jobs", "2"]);
        lsf.job_with("it waits", |job| job["reason"].as_str().is_some_and(|why| why.contains("time windows")));
        lsf.down();
        let killed = lsf.records().iter().filter(|job| job["why"] == "bkill").count();
        assert_eq!(killed, 2);
    }
}

/// How `bjobs` can be asked is found out by asking, once.
#[test]
fn bjobs_json_where_it_exists_and_the_table_where_not() {
    for (face, json, words) in [
        (Face::Ibm, "true", "bjobs -a -json -o"),
        (Face::Ibm, "false", "bjobs -a -noheader -o"),
        (Face::OpenLava, "false", "bjobs -a -w"),
    ] {
        let lsf = Lsf::with(face, &[("json", json)]);
        lsf.up(&["--queue", "night"]);
        lsf.job_in("pending");
        until("it was asked again", || (lsf.calls(words) > 1).then_some(()));
        let tried = ["bjobs -a -json -o", "bjobs -a -noheader -o"].map(|tried| lsf.calls(tried));
        for (tried, count) in ["bjobs -a -json -o", "bjobs -a -noheader -o"].into_iter().zip(tried) {
            assert!(tried == words || count <= 1, "{tried}: {count}");
        }
        lsf.down();
    }
}

/// What `bjobs` has forgotten after CLEAN_PERIOD `bhist` knows.
#[test]
fn bhist_knows_what_bjobs_has_forgotten() {
    // IBM's kills a parallel job at once: the script leaves no record.
    let lsf = Lsf::with(Face::Ibm, &[("clean_period", "0")]);
    lsf.up(&["--cores", "2", "--wait", "1"]);
    lsf.lsf(&["bkill", "101"]);
    let ended = lsf.job_with("it has ended", |job| job["id"] == "101" && job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("cancelled by others"), "{ended}");
    assert!(lsf.calls("bhist") > 0);
    lsf.down();
}

/// IBM's `bkill` sends a parallel job KILL only: it is told to end before, and the script leaves its record.
#[test]
fn a_parallel_job_is_told_before_it_is_killed() {
    let lsf = Lsf::new(Face::Ibm);
    lsf.up(&["--cores", "2", "--prologue", "sleep 300"]);
    let job = lsf.job_in("started");
    until("the prologue runs", || (lsf.running_of_user("sleep 300") == 1).then_some(()));
    lsf.down();
    // TERM reaches the prologue a moment before the script, which may go on to its worker: the code tells nothing.
    let record = lsf.bed.folder().join("jobs").join(job["name"].as_str().unwrap()).join("exit");
    assert!(record.exists(), "{:#?}", lsf.records());
}

/// Where `bkill` could not tell a job, the job has not been told: it is told again, not killed.
#[test]
fn a_job_that_was_not_told_is_told_again() {
    let lsf = Lsf::new(Face::Ibm);
    lsf.up(&["--cores", "2", "--prologue", "sleep 300"]);
    let job = lsf.job_in("started");
    until("the prologue runs", || (lsf.running_of_user("sleep 300") == 1).then_some(()));
    lsf.standin(&["fault", "bkill", r#"{"rc": 255, "err": "Job <101>: Communication time out\n"}"#]);
    lsf.down();
    assert_eq!(lsf.calls("bkill -s TERM 101"), 2);
    let record = lsf.bed.folder().join("jobs").join(job["name"].as_str().unwrap()).join("exit");
    assert!(record.exists(), "{:#?}", lsf.records());
}

/// What LSF refuses is told in its words, with a fix, and not tried again.
#[test]
fn refusals() {
    let lsf = Lsf::new(Face::OpenLava);
    // Where the site says its limits, `up` knows beforehand.
    for (options, what, limit) in [
        (&["--queue", "nosuch"][..], "there is no queue", "normal"),
        (&["--queue", "short", "--walltime", "1h"], "walltime", "00:05:00"),
        (&["--cores", "64"], "cores", "8"),
    ] {
        let refused = lsf.bed.run(&[&["up"][..], options].concat()).expect(78);
        assert!(refused.err.contains(what) && refused.err.contains(limit), "{}", refused.err);
    }
    assert_eq!(lsf.calls("bsub"), 0);
    lsf.standin(&["fault", "bqueues", r#"{"times": -1, "rc": 255, "err": "Batch daemon cannot fork\n"}"#]);
    for (options, says, fix) in [
        (&["--queue", "nosuch"][..], "No such queue", "bqueues"),
        (&["--queue", "nobody"], "User cannot use the queue", "bqueues"),
        (&["--queue", "short", "--walltime", "1h"], "RUNLIMIT: Cannot exceed", "--walltime"),
        (&["--cores", "64"], "Too many processors requested", "--cores"),
    ] {
        let before = lsf.calls("bsub");
        lsf.up(options);
        let told = until(says, || lsf.bed.status()["trouble"].as_str().map(str::to_owned));
        assert!(told.contains(says), "{told}");
        let status = lsf.bed.ok(&["status"]);
        assert!(status.contains(fix), "{status}");
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(lsf.calls("bsub"), before + 1, "no submit loop");
        lsf.down();
        lsf.bed.ok(&["down", "--purge"]);
    }
    // At one site it exits with 0 all the same.
    lsf.standin(&["fault", "bsub", r#"{"rc": 0, "err": "moon: Bad phase. Job not submitted.\n"}"#]);
    let before = lsf.calls("bsub");
    lsf.up(&[]);
    let told = until("it is told", || lsf.bed.status()["trouble"].as_str().map(str::to_owned));
    assert!(told.contains("Bad phase") && lsf.calls("bsub") == before + 1, "{told}");
    lsf.down();
    lsf.bed.ok(&["down", "--purge"]);
    lsf.standin(&["set", "esub", r#"{"refuse": "esub: ask helpdesk@example.org", "out": "Welcome 2 all\n"}"#]);
    lsf.up(&[]);
    let told = until("esub", || lsf.bed.status()["trouble"].as_str().map(str::to_owned));
    assert!(told.contains("helpdesk@example.org"), "{told}");
    lsf.down();
}

/// An esub and a wrapper print numbers and banners around the id.
#[test]
fn banners_and_esub_text() {
    let esub = r#"{"out": "=== Job <7> of 12 today ===\n", "err": "billed\n", "after": "Job <9> is a good number\n"}"#;
    let lsf = Lsf::with(Face::Ibm, &[("esub", esub)]);
    lsf.standin(&["fault", "bjobs", r#"{"times": -1, "banner": "LSF is down. Please wait ...\n{notice}\n"}"#]);
    lsf.up(&["--jobs", "2", "--wait", "2"]);
    assert_eq!(lsf.job_in("up")["id"], "101[2]");
    lsf.standin(&["fault", "bjobs", r#"{"times": -1, "banner": "LSF is down. Please wait ...\n"}"#]);
    lsf.down();
}

/// The answer of `bsub` is lost, or is silence: the job that exists is found by its name, and is the only one.
#[test]
fn lost_answers() {
    for (face, fault) in [
        (Face::OpenLava, r#"{"done": true, "rc": 255, "err": "Contacting batch daemon: Communication timeout\n"}"#),
        (Face::Ibm, r#"{"done": true, "rc": 0, "out": ""}"#),
        (Face::Ibm, r#"{"hang": "after"}"#),
    ] {
        let lsf = Lsf::new(face);
        lsf.standin(&["fault", "bsub", fault]);
        lsf.up(&["--jobs", "2"]);
        until("two are up", || {
            let status = lsf.bed.status();
            (status["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count() == 2).then_some(())
        });
        assert_eq!(lsf.bed.ok(&["submit", "--wait", "--", "echo", "done"]), "done");
        assert_eq!((lsf.calls("bsub"), lsf.queued()), (1, 2));
        // One that hangs is given up after a minute; here somebody else ends it.
        for pid in lsf.running("bsub") {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        assert_eq!(lsf.job_with("its id", |job| job["id"] == "101[2]")["state"], "up");
        lsf.down();
    }
}

/// The master is away when we submit, list and cancel. LSB_NTRIES: its commands would ask for ever.
#[test]
fn the_master_is_away_and_lsb_ntries_ends_the_asking() {
    let lsf = Lsf::new(Face::OpenLava);
    lsf.standin(&["stop"]);
    lsf.up(&[]);
    let trouble = until("trouble is told", || lsf.bed.status()["trouble"].as_str().map(str::to_owned));
    assert!(trouble.contains("Connection refused by server"), "{trouble}");
    assert_eq!(lsf.bed.status()["gave_up"], false);
    lsf.standin(&["start"]);
    lsf.job_in("up");
    assert_eq!((lsf.queued(), &lsf.bed.status()["trouble"]), (1, &serde_json::Value::Null));

    // While a task runs nothing changes, nothing is lost or doubled.
    let task = lsf.submit("echo run >> runs; until [ -e go ]; do sleep 0.1; done");
    lsf.task_in(&task, "running");
    lsf.standin(&["stop"]);
    lsf.bed.ok(&["scale", "2"]);
    until("it was asked", || lsf.bed.status()["trouble"].as_str().map(drop));
    assert_eq!(lsf.task(&task)["state"], "running");
    lsf.standin(&["start"]);
    until("a second job", || (lsf.queued() == 2).then_some(()));
    fs::write(lsf.bed.work.join("go"), "").unwrap();
    lsf.task_in(&task, "finished");
    assert_eq!(lsf.bed.read("runs"), "run\n");

    // `down` waits for it.
    lsf.standin(&["set", "scheduling", "false"]);
    lsf.bed.ok(&["scale", "3"]);
    until("a third job", || (lsf.queued() == 3).then_some(()));
    lsf.standin(&["stop"]);
    let down = lsf.bed.spawn(&["down"]);
    until("it says so", || down.err().contains("waiting for job").then_some(()));
    lsf.standin(&["start"]);
    down.end_within(Duration::from_secs(90)).expect(0);
    assert_eq!(lsf.queued(), 0);
}

/// `bjobs` answers with nothing, or says that it knows no job: no job ends of that.
#[test]
fn lies() {
    for face in FACES {
        let lsf = Lsf::with(face, &[("scheduling", "false")]);
        lsf.up(&["--jobs", "2"]);
        lsf.job_with("pending", |job| job["state"] == "pending" && job["reason"] != "");
        for lie in ["empty", "forget"] {
            lsf.standin(&["fault", "bjobs", &format!(r#"{{"times": -1, "lie": "{lie}"}}"#)]);
            let before = lsf.calls("bjobs");
            until("it was asked", || (lsf.calls("bjobs") > before + 2).then_some(()));
            let status = lsf.bed.status();
            let jobs = status["jobs"].as_array().unwrap();
            assert!(jobs.len() == 2 && jobs.iter().all(|job| job["state"] == "pending"), "{lie}: {status:#}");
        }
        lsf.standin(&["fault", "bjobs", "null"]);
        lsf.standin(&["set", "scheduling", "true"]);
        lsf.job_in("up");
        assert_eq!(lsf.calls("bsub"), 1);
        lsf.down();
    }
}

/// The server is killed while a task runs and a job waits: the next one finds both by name.
#[test]
fn the_server_is_killed() {
    for face in FACES {
        let lsf = Lsf::new(face);
        lsf.up(&["--wait", "1"]);
        let task = lsf.submit("echo run >> runs; until [ -e go ]; do sleep 0.1; done");
        lsf.task_in(&task, "running");
        lsf.standin(&["set", "scheduling", "false"]);
        lsf.bed.ok(&["scale", "2"]);
        until("a second job", || (lsf.queued() == 2).then_some(()));
        let server = lsf.bed.server();
        kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
        let second = lsf.submit("true");
        assert_ne!(lsf.bed.server(), server);
        lsf.standin(&["set", "scheduling", "true"]);
        lsf.task_in(&second, "finished");
        assert!(lsf.calls("bjobs") > 0);
        fs::write(lsf.bed.work.join("go"), "").unwrap();
        lsf.task_in(&task, "finished");
        assert_eq!((lsf.bed.read("runs").as_str(), lsf.queued()), ("run\n", 2));
        lsf.down();
    }
}

/// Somebody kills a job with `bkill`: INT, TERM and KILL go to all its processes. The task has not failed.
#[test]
fn killed_by_others() {
    for face in FACES {
        let lsf = Lsf::new(face);
        lsf.up(&["--wait", "1"]);
        let task = lsf.submit("echo run >> runs; [ \"$(wc -l < runs)\" -gt 1 ] || exec sleep 1000");
        lsf.task_in(&task, "running");
        until("it has begun", || (lsf.bed.read("runs") == "run\n").then_some(()));
        lsf.lsf(&["bkill", "101"]);
        let ended = lsf.job_with("it has ended", |job| job["id"] == "101" && job["state"] == "ended");
        assert!(ended["reason"].as_str().unwrap().starts_with("cancelled by others"), "{face:?}: {ended}");
        let done = lsf.task_in(&task, "finished");
        assert_eq!((&done["exit_code"], lsf.bed.read("runs").as_str()), (&0.into(), "run\nrun\n"));
        lsf.down();
    }
}

/// The run limit: LSF sends USR2 to all processes of the job long before it kills. A task that dies of it has not
/// failed; one that lives on may end while its worker takes no more.
#[test]
fn the_run_limit_is_told_to_all_processes() {
    // Of LSF's clock two minutes are over in four seconds; the worker does not know.
    let settings = [("second", "0.033"), ("runlimit_grace", "600")];
    let lsf = Lsf::with(Face::Ibm, &settings);
    lsf.up(&["--cores", "2", "--walltime", "2m", "--wait", "1"]);
    let dies = lsf.submit("echo run >> dies; [ \"$(wc -l < dies)\" -gt 1 ] || exec sleep 1000");
    let lives = lsf.submit("trap 'echo USR2 >> told' USR2; until [ -e go ]; do sleep 0.1; done 2>/dev/null");
    until("USR2", || (lsf.bed.read("told") == "USR2\n").then_some(()));
    let first = lsf.job_with("it drains", |job| job["id"] == "101");
    assert_ne!(first["state"], "ended");
    assert_eq!((&lsf.task(&dies)["state"], &lsf.task(&lives)["state"]), (&"ready".into(), &"running".into()));
    // The job that takes its place has the time it was promised.
    lsf.standin(&["set", "second", "1.0"]);
    fs::write(lsf.bed.work.join("go"), "").unwrap();
    lsf.task_in(&lives, "finished");
    let done = lsf.task_in(&dies, "finished");
    assert_eq!((&done["exit_code"], lsf.bed.read("dies").as_str()), (&0.into(), "run\nrun\n"));
    lsf.job_with("it has ended", |job| job["id"] == "101" && job["state"] == "ended");
    lsf.down();
}

/// A node dies, and LSF keeps what was killed there as ZOMBI, which is no end, until the node is back. `down` does
/// not wait for that.
#[test]
fn down_removes_what_was_on_a_dead_node() {
    for face in FACES {
        for killed_by_others in [false, true] {
            let lsf = Lsf::new(face);
            lsf.up(&["--prologue", "until [ -e go ]; do sleep 0.1; done"]);
            lsf.job_in("started");
            lsf.standin(&["set", "silent", "[\"n1\"]"]);
            lsf.job_with("UNKWN", |job| job["reason"].as_str().is_some_and(|why| why.contains("UNKWN")));
            if killed_by_others {
                lsf.lsf(&["bkill", "101"]);
                lsf.job_with("ZOMBI", |job| job["reason"].as_str().is_some_and(|why| why.contains("ZOMBI")));
                let job = lsf.bed.status()["jobs"][0].clone();
                assert_eq!((&job["id"], &job["state"], lsf.calls("bsub")), (&"101".into(), &"started".into(), 1));
            }
            lsf.down();
            assert_eq!(lsf.records()[0]["why"], "removed");
            assert_eq!((lsf.calls("bkill 101"), lsf.calls("bkill -r 101"), lsf.calls("bkill -s")), (1, 1, 0));
        }
    }
}

/// A node of which LSF hears nothing: UNKWN is not an end.
#[test]
fn unkwn_is_not_an_end() {
    let lsf = Lsf::new(Face::Ibm);
    lsf.up(&["--prologue", "until [ -e go ]; do sleep 0.1; done"]);
    lsf.job_in("started");
    lsf.standin(&["set", "silent", "[\"n1\"]"]);
    let unknown = lsf.job_with("UNKWN", |job| job["reason"].as_str().is_some_and(|why| why.contains("UNKWN")));
    assert_eq!(unknown["state"], "started");
    let before = lsf.calls("bjobs");
    until("it was asked again", || (lsf.calls("bjobs") > before + 2).then_some(()));
    let job = lsf.bed.status()["jobs"][0].clone();
    assert_eq!((&job["id"], &job["state"], lsf.calls("bsub")), (&"101".into(), &"started".into(), 1));
    lsf.standin(&["set", "silent", "[]"]);
    fs::write(lsf.bed.folder().join("go"), "").unwrap();
    lsf.job_in("up");
    lsf.down();
}

/// Somebody says `brequeue`: OpenLava's job counts as over for a while, and then waits again under its number. It has
/// not ended, so nothing takes its place and runs beside it.
#[test]
fn a_job_that_is_requeued_has_not_ended() {
    let lsf = Lsf::new(Face::OpenLava);
    lsf.up(&["--wait", "1"]);
    let task = lsf.submit("echo run >> runs; [ \"$(wc -l < runs)\" -gt 1 ] || exec sleep 1000");
    until("it has begun", || (lsf.bed.read("runs") == "run\n").then_some(()));
    lsf.lsf(&["brequeue", "101"]);
    lsf.job_with("over", |job| job["reason"].as_str().is_some_and(|why| why.contains("to run again")));
    lsf.job_with("up again", |job| {
        job["id"] == "101" && job["state"] == "up" && job["queued_seconds"].as_u64() > Some(5)
    });
    let done = lsf.task_in(&task, "finished");
    assert_eq!((&done["exit_code"], lsf.bed.read("runs").as_str()), (&0.into(), "run\nrun\n"));
    assert_eq!((lsf.calls("bsub"), lsf.records().len()), (1, 1));
    lsf.down();
}

/// OpenLava says DONE of a job whose shell was killed: the task runs again all the same.
#[test]
fn done_of_openlava_proves_nothing() {
    let lsf = Lsf::new(Face::OpenLava);
    lsf.up(&["--wait", "1"]);
    let task = lsf.submit("echo run >> runs; [ \"$(wc -l < runs)\" -gt 1 ] || exec sleep 1000");
    until("it has begun", || (lsf.bed.read("runs") == "run\n").then_some(()));
    let session = lsf.records()[0]["session"].as_i64().unwrap();
    kill(Pid::from_raw(session.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let ended = lsf.job_with("it has ended", |job| job["id"] == "101" && job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("crashed"), "{ended}");
    assert!(lsf.lsf(&["bjobs", "-w", "101"]).contains(" DONE "));
    lsf.task_in(&task, "finished");
    lsf.down();
}
