//! Good and bad days of a user on a real Grid Engine, with the real program: `tests/run tests`, or
//! `eval "$(tests/clusters/sge/up)"`, then `DCLUSTER_TEST_SGE=1 cargo test --test it sge_days`.

use crate::sge_bed::{SGE, bed, folder, kill_host, sge, start, stop_master};
use crate::site::{ODD, Site, kill, until};
use serde_json::Value;
use std::time::Duration;

fn site() -> Site {
    Site::on(&SGE)
}

/// The accounting record of a job or task, once it is there.
fn record(id: &str) -> String {
    let (job, task) = id.split_once('.').map_or((id, None), |(job, task)| (job, Some(task)));
    until("accounting knows", 60, || {
        let mut words = vec!["-j", job];
        words.extend(task.iter().flat_map(|task| ["-t", task]));
        let output = std::process::Command::new("qacct").args(words).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    })
}

/// A value of a record.
fn value(record: &str, name: &str) -> String {
    let line = record.lines().rfind(|line| line.starts_with(name)).unwrap_or_default();
    line[name.len().min(line.len())..].trim().to_owned()
}

/// An array, its script, what tasks see, what nobody else sees, and request files that say the contrary.
#[test]
fn a_good_day() {
    let Some(_bed) = bed() else { return };
    let mut site = site();
    site.environment =
        vec![("CUSTOM".into(), ODD.into()), ("BASH_FUNC_greet%%".into(), "() {  echo \"hello $1\"\n}".into())];
    // What a user or a site may have as defaults (sge_request(5), sge_qstat(5)), where qsub and qstat look.
    site.write(".sge_request", "-b y -V -j n -N mine -sync y -o /nowhere -r y -w n\n");
    site.write(".sge_qstat", "-s r -u nobody\n");
    let shape = &["--jobs", "4", "--walltime", "5m", "--cores", "2"][..];
    let prologue = ["--prologue", "echo from the prologue; export FROM_PROLOGUE=yes"];
    let up = [&["up", "--memory", "300MB", "--wait", "4"][..], shape, &prologue].concat();
    site.ok(&up);
    assert_eq!(site.ok(&["submit", "--wait", "--", "printenv", "CUSTOM"]), format!("{ODD}\n"));
    assert_eq!(site.calls("qsub"), 1, "four jobs are one array");

    let seen =
        site.ok(&["submit", "--wait", "--", "bash", "-c", "greet you; echo $PATH; echo $FROM_PROLOGUE; ulimit -v"]);
    assert_eq!(seen, format!("hello you\n{}\nyes\n294912\n", site.path()), "two slots of 144 MiB");
    assert!(site.ok(&["logs", "job", "3"]).contains("from the prologue"));

    // What was submitted is what `render` prints, and its environment is nobody's business.
    let id = site.job_in("up")["id"].as_str().unwrap().to_owned();
    let array = id.split('.').next().unwrap();
    assert!(site.ok(&["status"]).contains(&id), "tasks are told apart");
    let shown = site.ok(&[&["render", "--memory", "300MB"][..], shape, &prologue].concat());
    assert!(shown.contains("\n#$ -pe smp 2\n") && shown.contains("\n#$ -l h_vmem=144M\n"), "{shown}");
    // All users of the host can read it there.
    let spooled = std::fs::read_dir(folder().join("spool/execd")).unwrap().flatten();
    let spooled = spooled.map(|host| std::fs::read_to_string(host.path().join("job_scripts").join(array)).ok());
    let spooled = spooled.flatten().next();
    assert_eq!(spooled.unwrap().trim_end(), shown.trim_end());
    let public = sge(&["qstat", "-j", array]);
    assert!(public.contains("job_name:") && !public.contains("CUSTOM"), "{public}");
    site.nobody_reads_secrets(&[&public, &shown]);
    site.down();
    assert_eq!(value(&record(&id), "exit_status"), "0");
}

/// What Grid Engine refuses, and what it would never start: both at once, with the limit named.
#[test]
fn refusals() {
    let Some(_bed) = bed() else { return };
    let site = site();
    // What Grid Engine itself says of its queues is known before anything is made.
    for (option, value, says) in [
        ("--queue", "shrt.q", "did you mean --queue short.q?"),
        ("--cores", "17", "is 16"),
        ("--memory", "500GB", "64 GiB"),
        // What its job scripts have no word for, too.
        ("--qos", "high", "Grid Engine has no --qos"),
    ] {
        let refused = site.run(&["up", option, value]);
        assert!(refused.code == 78 && refused.err.contains(says), "{refused:?}");
        assert!(!site.folder.join("home/state/default").exists() && site.calls("qsub") == 0);
    }

    // Own directives are not understood, so nothing is refused beforehand.
    let small = ["--directive", "-R n", "--cores", "1", "--memory", "200MB"];
    for (options, says, fix) in [
        (&["--queue", "nosuch.q"][..], "unknown queue", "qstat -g c"),
        (&["--account", "nosuch"], "project \"nosuch\" does not exist", "qconf -sprjl"),
        (&["--memory", "500GB"], "offers only hc:h_vmem=64.000G", "ask for less"),
        (&["--cores", "17"], "no suitable queues", "ask for less"),
        (&["--queue", "short.q", "--walltime", "1h"], "because of cluster queue", "ask for less"),
        (&["--cores", "1000"], "allocation_rule $pe_slots", "dcluster render"),
        (&["--gpus", "1"], "qconf -sc", "dcluster render"),
    ] {
        let before = site.calls("qsub");
        let mut all = small.to_vec();
        for pair in options.chunks(2) {
            all.retain(|word| *word != pair[0] && !small.windows(2).any(|s| s[0] == pair[0] && s[1] == *word));
            all.extend(pair);
        }
        site.ok(&[&["up"][..], &all].concat());
        let waited = site.run(&[&["up", "--wait", "1"][..], &all].concat());
        assert_eq!(waited.code, 69, "{waited:?}");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&waited.err).contains(says) && words(&waited.err).contains(fix), "{options:?} {waited:?}");
        let status = words(&site.ok(&["status"]));
        assert!(status.contains(says) && status.contains(fix), "{status}");
        let id = site.submit("true");
        std::thread::sleep(Duration::from_secs(2));
        // Where nothing fits, a second call asks why.
        assert!(site.calls("qsub") <= before + 2, "no submit loop");
        site.ok(&["cancel", &id]);
        site.down();
        site.ok(&["down", "--purge"]);
    }
}

/// The master is away when we submit, list and cancel.
#[test]
fn the_master_is_away() {
    let Some(_bed) = bed() else { return };
    let site = site();
    // At submit: tried again, once at a time.
    stop_master();
    site.up(&[]);
    let trouble = until("trouble is told", 60, || site.status()["trouble"].as_str().map(str::to_owned));
    assert!(trouble.contains("unable to send message to qmaster"), "{trouble}");
    assert_eq!(site.status()["gave_up"], false);
    let id = site.submit("until [ -e go ]; do sleep 0.1; done");
    start();
    let first = site.job_in("up")["id"].as_str().unwrap().to_owned();
    assert_eq!(site.queued(), 1, "{}", site.story());
    assert_eq!(site.status()["trouble"], Value::Null, "{}", site.story());

    // While a task runs and another job is up: nothing changes, nothing is lost or doubled.
    site.task_in(&id, "running");
    site.ok(&["scale", "2"]);
    site.job_with("all up", 60, |job| job["state"] == "up" && job["id"] != first.as_str());
    stop_master();
    site.write("go", "");
    site.task_in(&id, "finished");
    let up = site.status()["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count();
    assert_eq!(up, 2, "{}", site.story());

    // At cancel: `down` says what it waits for, and ends once the master is back.
    let address = site.listening();
    let mut down = site.spawn(&["down"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(down.try_wait().unwrap().is_none(), "{}", site.story());
    start();
    until("down ends", 90, || down.try_wait().unwrap());
    let output = down.wait_with_output().unwrap();
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && says.contains("waiting for job"), "{says}");
    site.nothing_left(address);
}

const NO_RESPONSE: &str =
    "echo 'error: failed receiving gdi request response for mid=1 (got no response from qmaster)' >&2; exit 1";

/// qsub submits, and its answer is lost.
#[test]
fn lost_answers() {
    let Some(_bed) = bed() else { return };
    let site = site();
    let qsub = site.real("qsub");
    site.shim("qsub", &format!("{qsub} \"$@\" >/dev/null; {NO_RESPONSE}"));
    site.up(&["--jobs", "3", "--walltime", "10m"]);
    until("three are up", 60, || {
        let status = site.status();
        (status["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count() == 3).then_some(())
    });
    assert_eq!((site.calls("qsub"), site.queued()), (1, 3), "{}", site.story());
    assert_eq!(site.ok(&["submit", "--wait", "--", "echo", "done"]), "done\n");
    site.down();

    // It failed in such words and submitted nothing: given up by name, then tried again.
    site.shim("qsub", &format!("[ \"$(wc -l < ~/calls.qsub)\" != 2 ] || {{ {NO_RESPONSE}; }}"));
    site.up(&["--jobs", "1"]);
    site.job_in("up");
    assert_eq!((site.calls("qsub"), site.queued()), (3, 1), "{}", site.story());
    site.down();

    // A wrapper of the site fails after the real one had done its work, whatever it says.
    site.shim("qsub", &format!("{qsub} \"$@\"; echo 'Unable to run job: cannot write my log' >&2; exit 1"));
    site.up(&["--jobs", "2"]);
    site.job_with("both are up", 60, |job| job["state"] == "up" && job["seq"] == 6 || site.queued() == 2);
    assert_eq!((site.calls("qsub"), site.queued()), (4, 2), "{}", site.story());
    site.down();

    // It submitted and then hung: killed at our time-out, and the job that exists is the only one.
    let unclear = || site.ok(&["events", "--json"]).matches("submit_ambiguous").count();
    let before = unclear();
    site.shim("qsub", &format!("{qsub} \"$@\" >/dev/null\nexec sleep 600"));
    site.up(&["--jobs", "1"]);
    site.job_in("up");
    until("the hanging qsub is given up", 100, || (unclear() > before).then_some(()));
    assert_eq!(site.ok(&["submit", "--wait", "--", "echo", "done"]), "done\n");
    assert_eq!((site.calls("qsub"), site.queued()), (5, 1), "{}", site.story());
    site.down();
}

/// Wrappers of the site that print banners, take options away, answer with half a listing or with success.
#[test]
fn wrappers_that_lie() {
    let Some(_bed) = bed() else { return };
    let site = site();
    let real = |program| site.real(program);
    site.shim(
        "qsub",
        &format!(
            "echo Welcome 12 to the cluster; {} \"${{@:2}}\"; code=$?; echo Use less memory; exit $code",
            real("qsub")
        ),
    );
    let qstat = real("qstat");
    site.shim("qstat", &format!("echo Welcome; {qstat} \"$@\"; code=$?; echo; echo Bye; exit $code"));
    site.up(&["--jobs", "3", "--wait", "3"]);
    assert_eq!((site.calls("qsub"), site.queued()), (1, 3), "{}", site.story());

    // Nothing of what follows is the end of a job.
    let id = site.submit("until [ -e go ]; do sleep 0.1; done");
    site.task_in(&id, "running");
    for lie in [
        "exit 0",
        "echo \"<?xml version='1.0'?>\"; echo '<comunication_error ><AN_status>11</AN_status></comunication_error>'; exit 0",
        &format!("{qstat} \"$@\" | head -c 300; exit 0"),
        "exit 1",
        "exec sleep 100",
    ] {
        site.shim("qstat", lie);
        let before = site.calls("qstat");
        site.ok(&["scale", "3"]);
        until("it is asked", 60, || (site.calls("qstat") > before).then_some(()));
    }
    std::thread::sleep(Duration::from_secs(3));
    let status = site.status();
    assert!(status["jobs"].as_array().unwrap().iter().all(|job| job["state"] == "up"), "{}", site.story());
    site.write("go", "");
    assert_eq!(site.task_in(&id, "finished")["exit_code"], 0);
    site.shim("qstat", "");

    // qdel says that it did it, and did not, once.
    site.down();
    site.up(&["--jobs", "2", "--directive", "-h"]);
    site.job_in("pending");
    site.shim("qdel", "[ \"$(wc -l < ~/calls.qdel)\" != 1 ] || { echo hpc has deleted job 1; exit 0; }");
    site.down();
    assert!(site.calls("qdel") > 1);
}

/// Whether tasks run in a job.
fn works(site: &Site, job: &Value) -> bool {
    let status = site.status();
    let mut workers = status["workers"].as_array().unwrap().iter();
    job["state"] == "up" && workers.any(|worker| worker["job"] == job["name"] && worker["running"] != 0)
}

/// Workers, jobs and servers are killed while tasks run.
#[test]
fn processes_die() {
    let Some(_bed) = bed() else { return };
    let site = site();
    let task = "echo run >> runs.$DCLUSTER_TASK_ID; until [ -e go ]; do sleep 0.1; done";
    // One job fills more than half of the host: the other waits.
    site.ok(&["up", "--jobs", "2", "--wait", "1", "--cores", "9", "--memory", "900MB", "--walltime", "10m"]);
    let first = site.submit(task);
    site.task_in(&first, "running");
    site.job_with("the other waits, and says why", 60, |job| {
        job["state"] == "pending" && job["reason"].as_str().is_some_and(|why| why.contains("only offers 0 slots"))
    });
    assert!(site.ok(&["status"]).contains("no host has as many free slots"), "{}", site.story());

    // The worker: its job ends, another takes its place, the task runs again.
    let job = site.job_with("the job of the task", 60, |job| works(&site, job));
    let name = job["name"].as_str().unwrap();
    kill(site.process(&format!("--job {name}")), "KILL");
    let ended = site.job_with("the job has ended", 60, |job| job["name"] == name && job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("crashed"), "{ended}");
    assert_eq!(ended["exit_code"], 137);
    until("it runs again", 60, || (site.read(&format!("runs.{first}")) == "run\nrun\n").then_some(()));

    // From outside: qdel, which sends USR2 to all processes of the job, tasks too, and later KILL.
    let job = site.job_with("the job of the task", 60, |job| works(&site, job));
    let (name, id) = (job["name"].as_str().unwrap(), job["id"].as_str().unwrap());
    sge(&["qdel", id]);
    let ended = site.job_with("the job has ended", 60, |job| job["name"] == name && job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("cancelled by others"), "{ended}\n{}", site.story());
    assert_eq!(value(&record(id), "exit_status").split(' ').next(), Some("140"), "the script had time to end");
    until("it runs a third time", 60, || (site.read(&format!("runs.{first}")).lines().count() == 3).then_some(()));

    // The server, while a task runs and a job is pending.
    site.ok(&["scale", "2"]);
    until("two jobs", 60, || (site.queued() == 2).then_some(()));
    let server = site.status()["server"]["pid"].as_u64().unwrap();
    kill(server.try_into().unwrap(), "KILL");
    let second = site.submit("true");
    site.task_in(&second, "finished");
    assert_ne!(site.status()["server"]["pid"], server);
    assert_eq!(site.task(&first)["state"], "running");
    site.write("go", "");
    site.task_in(&first, "finished");
    assert_eq!(site.read(&format!("runs.{first}")).lines().count(), 3);
    assert_eq!(site.queued(), 2, "{}", site.story());
    site.down();
}

/// Ends that Grid Engine brings: a job in error, memory, the time limit with and without a worker that hears, a host that is
/// lost. The slow ones together.
#[test]
fn grid_engine_ends_jobs() {
    let Some(_bed) = bed() else { return };
    let (timed, short, lost, broken, greedy) = (site(), site(), site(), site(), site());
    let task = "exec 9>> lock; flock -n 9 || echo overlap >> runs; echo run >> runs; \
                until [ -e go ]; do sleep 0.1; done";
    // The worker knows its limit: it drains, then interrupts the task, and leaves in time.
    short.up(&["--walltime", "2m", "--wait", "1"]);
    let third = short.submit(task);
    // A worker that hears nothing: Grid Engine kills all of it.
    timed.up(&["--walltime", "61s", "--drain-lead", "1s", "--wait", "1"]);
    lost.up(&["--walltime", "10m", "--wait", "1"]);
    let (first, second) = (timed.submit(task), lost.submit(task));
    timed.task_in(&first, "running");
    lost.task_in(&second, "running");
    let (job, other) = (timed.job_in("up"), lost.job_in("up"));
    kill(timed.process(&format!("--job {}", job["name"].as_str().unwrap())), "STOP");

    // The job's folder is not there on its host: it would stay in error for ever.
    broken.shim("qsub", &format!("exec {} \"${{@:1:5}}\" -wd /no/such \"${{@:8}}\"", broken.real("qsub")));
    broken.up(&[]);
    let ended = broken.job_with("it could not start", 60, |job| job["state"] == "ended");
    let why = ended["reason"].as_str().unwrap();
    assert!(why.starts_with("could not start") && why.contains("can't chdir to /no/such"), "{ended}");
    broken.down();

    // A job whose processes have more memory than it asked for, each of them less. The second time there is enough.
    greedy.up(&["--walltime", "10m", "--wait", "1"]);
    let eater = greedy.submit(
        "[ ! -e once ] || exit 0; touch once; \
         for i in 1 2 3; do python3 -c 'x = b\"x\" * 100_000_000; import time; time.sleep(60)' & done; wait",
    );
    let ended = greedy.job_with("out of memory", 60, |job| job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("out of memory"), "{ended}\n{}", greedy.story());
    greedy.task_in(&eater, "finished");
    greedy.down();

    let over = |job: &Value| job["state"] == "ended";
    let ended = timed.job_with("its time is over", 150, over);
    assert!(ended["reason"].as_str().unwrap().starts_with("walltime"), "{ended}\n{}", timed.story());
    let told = record(job["id"].as_str().unwrap());
    assert!(value(&told, "failed").starts_with("37") && value(&told, "exit_status").starts_with("137"), "{told}");
    timed.write("go", "");
    let done = timed.task_in(&first, "finished");
    assert_eq!((&done["exit_code"], timed.read("runs").as_str()), (&0.into(), "run\nrun\n"), "never twice at once");
    timed.down();

    let ended = short.job_with("it has left in time", 120, over);
    assert!(ended["reason"].as_str().unwrap().starts_with("walltime"), "{ended}\n{}", short.story());
    assert!(!value(&record(ended["id"].as_str().unwrap()), "failed").starts_with("37"), "before it was killed");
    until("it runs again", 60, || (short.read("runs").lines().count() > 1).then_some(()));
    short.write("go", "");
    short.task_in(&third, "finished");
    assert_eq!(short.read("runs"), "run\nrun\n", "never twice at once");
    short.down();

    // The host dies with all that runs on it. Its jobs stay `r` in all listings until it is back.
    kill_host();
    for (pid, _) in lost.processes() {
        if std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default().contains("JOB_SCRIPT=") {
            kill(pid, "KILL");
        }
    }
    std::thread::sleep(Duration::from_secs(5));
    assert_ne!(lost.task(&second)["state"], "finished");
    start();
    let ended = lost.job_with("the job is over", 150, |seen| seen["name"] == other["name"] && over(seen));
    assert!(ended["exit_code"] != 0, "{ended}");
    lost.write("go", "");
    lost.task_in(&second, "finished");
    assert_eq!(lost.read("runs"), "run\nrun\n", "never twice at once");
    lost.down();
}
