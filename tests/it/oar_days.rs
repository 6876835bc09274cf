//! Good and bad days of a user on a real OAR, with the real program: `tests/run tests`, or
//! `eval "$(tests/clusters/oar/up)"`, then `DCLUSTER_TEST_OAR=1 cargo test --test it oar_days`.

use crate::oar_bed::{OAR, bed, jobs, oar, record, start, stop_database, stop_server};
use crate::site::{ODD, Site, until};
use serde_json::Value;
use std::time::{Duration, Instant};

fn site() -> Site {
    Site::on(&OAR)
}

fn up_jobs(site: &Site, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while site.status()["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count() != count {
        assert!(Instant::now() < deadline, "not {count} are up within 120 s\n{}", site.story());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// An array, its script, what tasks see, what nobody else sees.
#[test]
fn a_good_day() {
    let Some(_bed) = bed() else { return };
    let mut site = site();
    site.environment = vec![("CUSTOM".into(), ODD.into())];
    let shape = ["--jobs", "3", "--walltime", "5m", "--cores", "2", "--memory", "300MB", "--prologue", "echo prologue"];
    site.ok(&[&["up", "--wait", "3"][..], &shape].concat());
    assert_eq!(site.ok(&["submit", "--wait", "--", "printenv", "CUSTOM"]), format!("{ODD}\n"));
    assert_eq!(site.calls("oarsub"), 1, "three jobs are one array");
    let seen = site.ok(&[
        "submit",
        "--wait",
        "--",
        "sh",
        "-c",
        "echo $PATH; env | grep -c -E '^(OARDO|BASH_ENV|PERL5)'; true",
    ]);
    // Nothing of what OAR's own commands set for themselves.
    assert_eq!(seen, format!("{}\n0\n", site.path()));
    assert!(site.ok(&["logs", "job", "3"]).contains("prologue"));
    assert_eq!(site.ok(&["submit", "--wait", "--", "printenv", "OAR_JOB_WALLTIME"]), "0:5:0\n");

    // What was submitted is what `render` prints, and its environment is nobody's business.
    let job = site.job_in("up");
    let id = job["id"].as_str().unwrap();
    let asked = record(id);
    assert_eq!(asked["walltime"], 300);
    let shown = site.ok(&[&["render"][..], &shape].concat());
    assert!(shown.contains("\n#OAR -l /nodes=1/core=2,walltime=0:05:00\n#OAR -p mem >= 287\n"), "{shown}");
    let script = site.read(&format!("state/default/jobs/{}000001/script.sh", site.letters()));
    assert_eq!(script.trim_end(), shown.trim_end());
    site.nobody_reads_secrets(&[&asked.to_string(), &shown]);
    site.down();
    assert_eq!((record(id)["state"].as_str(), &record(id)["exit_code"]), (Some("Terminated"), &0.into()));
}

/// What OAR says of its nodes is known before anything is made; what else it refuses is told, once, with what to do.
#[test]
fn refusals() {
    let Some(_bed) = bed() else { return };
    let site = site();
    for (option, value, says) in [
        ("--cores", "5", "its limit on one node is 4"),
        ("--memory", "500GB", "of memory are more than"),
        ("--qos", "high", "OAR has no --qos"),
        ("--gpus", "1", "GPUs are no resources here"),
        ("--directive", "-t idempotent", "does not go with dcluster"),
    ] {
        let refused = site.run(&["up", option, value, "--wait", "1"]);
        let early = option != "--gpus";
        let words = refused.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(refused.code == if early { 78 } else { 69 } && words.contains(says), "{refused:?}");
        assert_eq!(site.calls("oarsub"), 0);
        if !early {
            site.down();
            site.ok(&["down", "--purge"]);
        }
    }
    for (option, value, says, fix) in [
        ("--queue", "nosuch", "The queue nosuch does not exist", "another --queue"),
        ("--constraint", "nosuch=1", "\"nosuch\" does not exist", "oarnodes"),
        ("--nodelist", "127.0.9.9", "not enough resources", "ask for less"),
    ] {
        let before = site.calls("oarsub");
        let waited = site.run(&["up", "--wait", "1", option, value]);
        let words = waited.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(waited.code == 69 && words.contains(says) && words.contains(fix), "{waited:?}");
        assert_eq!(site.calls("oarsub"), before + 1, "no submit loop");
        site.down();
        site.ok(&["down", "--purge"]);
    }
}

/// The doctor, whose probe is a job.
#[test]
fn a_doctor() {
    let Some(_bed) = bed() else { return };
    let site = site();
    let ran = site.run(&["doctor", "--json", "--cores", "2", "--memory", "200MB"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    let verdict = |name: &str| {
        let mut checks = report["checks"].as_array().unwrap().iter();
        checks.find(|check| check["name"] == name).unwrap()["verdict"].as_str().unwrap()
    };
    for name in ["commands", "batch system", "queues", "accounting", "permission", "start", "shared folder", "clean-up"]
    {
        assert_eq!(verdict(name), "ok", "{name} {ran:?}");
    }
    assert_eq!(verdict("signals"), "warn", "oardel is SIGKILL at once");
    assert_eq!((ran.code, site.calls("oarsub"), (OAR.queue)().as_str()), (0, 1, ""), "{ran:?}");
}

/// Jobs that are held, let go, deleted by others, started again by OAR, and that could not start.
#[test]
fn jobs_meet_others() {
    let Some(_bed) = bed() else { return };
    let site = site();
    site.up(&["--directive", "--hold"]);
    let held = site.job_with("held", 60, |job| job["state"] == "pending" && job["reason"] == "Hold");
    assert!(site.ok(&["status"]).contains("somebody holds it"), "{}", site.story());
    site.down();
    assert_eq!(record(held["id"].as_str().unwrap())["exit_code"], Value::Null);

    // Deleted by the administrators: SIGKILL at once, no exit code, and another takes its place.
    site.up(&["--walltime", "10m"]);
    let task = site.submit("echo run >> runs; until [ -e go ]; do sleep 0.1; done");
    site.task_in(&task, "running");
    let job = site.job_in("up");
    let (name, id) = (job["name"].as_str().unwrap(), job["id"].as_str().unwrap());
    oar(&["oardel", id]);
    let ended = site.job_with("the job has ended", 60, |job| job["name"] == name && job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("cancelled by others"), "{ended}\n{}", site.story());
    until("it runs again", 60, || (site.read("runs").lines().count() == 2).then_some(()));

    // Started again under the old name and a new id, as OAR does by itself with a job that could not start.
    let home = site.folder.join("home");
    let again = site.command("oarsub").args(["--resubmit", id, "-d"]).arg(&home).output().unwrap();
    assert!(again.status.success(), "{again:?}");
    let clone = format!("resubmit_job_id = {id}");
    until("the clone is deleted", 90, || {
        site.ok(&["scale", "1"]);
        let found = jobs(&clone);
        found.values().next().is_some_and(|job| job["state"] == "Error").then_some(())
    });
    site.write("go", "");
    site.task_in(&task, "finished");
    assert_eq!((site.read("runs").as_str(), site.queued()), ("run\nrun\n", 1), "{}", site.story());
    site.down();

    // The folder in which it is to run is not there on its node.
    site.shim("oarsub", &format!("exec {} -S -d /no/such \"${{@:4}}\"", site.real("oarsub")));
    site.up(&[]);
    let failed = |job: &Value| job["reason"].as_str().is_some_and(|why| why.starts_with("could not start"));
    let ended = site.job_with("it could not start", 60, failed);
    assert!(ended["reason"].as_str().unwrap().contains("Cannot go into the working directory"), "{ended}");
    site.down();
}

/// OAR's server is away when we submit, its database while a task runs; and answers are lost.
#[test]
fn the_server_is_away() {
    let Some(_bed) = bed() else { return };
    let site = site();
    // "Job is killed", it says, and has submitted: that job is found and is the only one.
    stop_server();
    site.up(&["--walltime", "10m"]);
    until("it has submitted", 60, || (site.queued() == 1).then_some(()));
    start();
    site.job_in("up");
    assert_eq!((site.calls("oarsub"), site.queued()), (1, 1), "{}", site.story());

    let task = site.submit("echo run >> runs; until [ -e go ]; do sleep 0.1; done");
    site.task_in(&task, "running");
    stop_database();
    site.write("go", "");
    assert_eq!(site.task_in(&task, "finished")["exit_code"], 0);
    assert_eq!(site.job_in("up")["end"], Value::Null);
    // The server does not survive the loss of its database for long.
    stop_server();
    start();
    site.ok(&["scale", "2"]);
    up_jobs(&site, 2);
    assert_eq!((site.read("runs").as_str(), site.queued()), ("run\n", 2), "{}", site.story());
    site.down();

    // A wrapper of the site says something first, and then loses the answer.
    let real = site.real("oarsub");
    site.shim("oarsub", &format!("echo Welcome 12 to the cluster; {real} \"$@\" > /dev/null; exit 1"));
    let before = site.calls("oarsub");
    site.up(&["--jobs", "2"]);
    up_jobs(&site, 2);
    assert_eq!((site.calls("oarsub"), site.queued()), (before + 1, 2), "{}", site.story());
    site.down();
}
