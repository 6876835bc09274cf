//! Good and bad days of a user on a real HTCondor, with the real program: `tests/run tests`, or
//! `eval "$(tests/clusters/condor/up)"`, then `DCLUSTER_TEST_CONDOR=1 cargo test --test it condor`.

use crate::condor_bed::{CONDOR, bed, condor, pids, schedd_away, schedd_back};
use crate::site::{ODD, Site, kill, until};
use std::time::Duration;

fn site() -> Site {
    Site::on(&CONDOR)
}

/// Text as one line of words: messages are folded.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn attribute(id: &str, name: &str) -> String {
    let of = |program| condor(&[program, id, "-af", name]);
    let told = until("the history knows it", 60, || Some(of("condor_history")).filter(|told| !told.is_empty()));
    told.trim().to_owned()
}

/// An array, its description, what tasks see, and what nobody else sees.
#[test]
fn a_good_day() {
    let Some(_bed) = bed() else { return };
    let mut site = site();
    site.environment = vec![("CUSTOM".into(), ODD.into())];
    let shape =
        ["--jobs", "4", "--walltime", "5m", "--cores", "2", "--directive", "rank = Memory", "--memory", "300MB"];
    let prologue = ["--prologue", "echo from the prologue; export FROM_PROLOGUE=yes"];
    site.ok(&[&["up", "--wait", "4"][..], &shape, &prologue].concat());
    assert_eq!(site.ok(&["submit", "--wait", "--", "printenv", "CUSTOM"]), format!("{ODD}\n"));
    let real = site.read("calls.condor_submit").lines().filter(|line| !line.contains("-dry-run")).count();
    assert_eq!(real, 1, "four jobs are one cluster of HTCondor");
    let seen = site.ok(&["submit", "--wait", "--", "bash", "-c", "echo $PATH; echo $FROM_PROLOGUE"]);
    assert_eq!(seen, format!("{}\nyes\n", site.path()));
    assert!(site.ok(&["logs", "job", "3"]).contains("from the prologue"));

    // What was submitted is what `render` prints, and its environment is nobody's business.
    let id = site.job_in("up")["id"].as_str().unwrap().to_owned();
    assert!(site.ok(&["status"]).contains(&id), "processes of a cluster are told apart");
    let shown = site.ok(&[&["render"][..], &shape, &prologue].concat());
    let folder = format!("state/default/jobs/{}000001", site.letters());
    let (description, script) = shown.split_once("#!/bin/bash\n").unwrap();
    assert_eq!(site.read(&format!("{folder}/job.sub")), description);
    assert_eq!(site.read(&format!("{folder}/script.sh")).trim_end(), format!("#!/bin/bash\n{}", script.trim_end()));
    assert!(description.contains("\nrequest_cpus = 2\n") && description.contains("\nrank = Memory\n"), "{shown}");
    let public = condor(&["condor_q", "-l", &id]);
    assert!(public.contains("JobBatchName = ") && !public.contains("CUSTOM"), "{public}");
    site.nobody_reads_secrets(&[&public, &shown]);
    site.down();
}

/// What a submit description has no word for, and what HTCondor would not read: nothing is submitted.
#[test]
fn refusals() {
    let Some(_bed) = bed() else { return };
    let site = site();
    for (option, value, says) in [
        ("--queue", "long", "HTCondor has no queues"),
        ("--qos", "high", "HTCondor has no --qos"),
        ("--gpus", "a100:1", "require_gpus"),
        ("--directive", "getenv = True", "sets getenv"),
        ("--directive", "--exclusive", "NAME = VALUE"),
    ] {
        let refused = site.run(&["up", option, value]);
        assert!(matches!(refused.code, 2 | 78) && words(&refused.err).contains(says), "{refused:?}");
        assert!(!site.folder.join("home/state/default").exists() && site.calls("condor_submit") == 0);
    }
    // It takes no notice of a name that it does not know, but to say so.
    for (directive, says) in [("frobnicate = 3", "was unused by condor_submit"), ("rank = banana(", "Parse error")] {
        let waited = site.run(&["up", "--wait", "1", "--directive", directive]);
        assert!(waited.code == 69 && words(&waited.err).contains(says), "{waited:?}");
        assert_eq!(site.queued(), 0, "{}", site.story());
        site.down();
        site.ok(&["down", "--purge"]);
    }
}

/// Why jobs wait, in words; what waits is taken down like what runs.
#[test]
fn reasons() {
    let Some(_bed) = bed() else { return };
    let (large, apart, held) = (site(), site(), site());
    large.ok(&["up", "--cores", "17", "--memory", "200MB", "--jobs", "2"]);
    apart.up(&["--directive", "requirements = TARGET.FileSystemDomain == \"other\""]);
    held.up(&["--jobs", "3", "--directive", "hold = True"]);
    for (site, reason, says) in [
        (&large, "no machine fulfils TARGET.Cpus >= RequestCpus", "no machine has as many free cores as it asks for"),
        (&apart, "FileSystemDomain", "no machine says that it shares a file system"),
        (&held, "held: submitted on hold", "somebody holds it"),
    ] {
        site.job_with(reason, 60, |job| {
            job["state"] == "pending" && job["reason"].as_str().is_some_and(|why| why.contains(reason))
        });
        assert!(words(&site.ok(&["status"])).contains(says), "{}", site.story());
        site.down();
    }
}

/// The schedd is away when we submit, list and cancel.
#[test]
fn the_schedd_is_away() {
    let Some(_bed) = bed() else { return };
    let site = site();
    schedd_away();
    site.up(&[]);
    let trouble = until("trouble is told", 60, || site.status()["trouble"].as_str().map(str::to_owned));
    assert!(trouble.contains("Failed to connect"), "{trouble}");
    assert_eq!(site.status()["gave_up"], false);
    let id = site.submit("until [ -e go ]; do sleep 0.1; done");
    schedd_back();
    site.job_in("up");
    assert_eq!(site.queued(), 1, "{}", site.story());
    site.task_in(&id, "running");

    // While a task runs: nothing changes. `condor_rm` then says that it finds no job, which proves nothing.
    schedd_away();
    let before = site.status()["jobs"].clone();
    let address = site.listening();
    let mut down = site.spawn(&["down"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(down.try_wait().unwrap().is_none(), "{before} {}", site.story());
    schedd_back();
    until("down ends", 90, || down.try_wait().unwrap());
    assert!(down.wait_with_output().unwrap().status.success());
    site.nothing_left(address);
}

/// Answers that are lost, banners of wrappers, listings that are cut.
#[test]
fn lost_answers_and_wrappers_that_lie() {
    let Some(_bed) = bed() else { return };
    let site = site();
    let submit = site.real("condor_submit");
    let lost = "echo 'ERROR: Failed to commit job submission into the queue.' >&2; exit 1";
    site.shim("condor_submit", &format!("{submit} \"$@\" >/dev/null; {lost}"));
    site.up(&["--jobs", "3"]);
    until("three are up", 60, || {
        let status = site.status();
        (status["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count() == 3).then_some(())
    });
    assert_eq!((site.calls("condor_submit"), site.queued()), (1, 3), "{}", site.story());
    site.down();

    // It failed in such words and submitted nothing: given up by name, then tried again.
    site.shim("condor_submit", &format!("[ \"$(wc -l < ~/calls.condor_submit)\" != 2 ] || {{ {lost}; }}"));
    site.up(&[]);
    site.job_in("up");
    assert_eq!((site.calls("condor_submit"), site.queued()), (3, 1), "{}", site.story());
    site.down();

    let banner = "echo Welcome 12 - 14 to the pool; REAL \"$@\"; code=$?; echo Bye - bye; exit $code";
    site.shim("condor_submit", &banner.replace("REAL", &submit));
    let q = site.real("condor_q");
    site.shim("condor_q", &banner.replace("REAL", &q));
    site.up(&["--jobs", "2", "--wait", "2"]);
    assert_eq!((site.calls("condor_submit"), site.queued()), (4, 2), "{}", site.story());
    site.shim("condor_q", &format!("{q} \"$@\" | head -c 300; exit 0"));
    let before = site.calls("condor_q");
    site.ok(&["scale", "2"]);
    until("it is asked", 60, || (site.calls("condor_q") > before).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    let status = site.status();
    let up = status["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count();
    assert_eq!(up, 2, "{}", site.story());
    assert_eq!(site.queued(), 2, "{}", site.story());
    site.shim("condor_q", "");
    site.down();
}

/// Ends that HTCondor and others bring: a removal, a hold, a log that cannot be written, an eviction, the time limit of a
/// worker that does not hear, a machine that is lost. None of these jobs starts again.
#[test]
fn htcondor_ends_jobs() {
    let Some(_bed) = bed() else { return };
    let (timed, lost, site, broken) = (site(), site(), site(), site());
    let task =
        "exec 9>> lock; flock -n 9 || echo overlap >> runs; echo run >> runs; until [ -e go ]; do sleep 0.1; done";
    timed.up(&["--walltime", "61s", "--drain-lead", "1s", "--wait", "1"]);
    lost.up(&["--walltime", "10m", "--wait", "1", "--directive", "job_lease_duration = 20"]);
    let (first, second) = (timed.submit(task), lost.submit(task));
    timed.task_in(&first, "running");
    lost.task_in(&second, "running");
    let (deaf, other) = (timed.job_in("up"), lost.job_in("up"));
    kill(timed.process(&format!("--job {}", deaf["name"].as_str().unwrap())), "STOP");

    // Its log cannot be written there: it is held, and would be for ever.
    broken.shim(
        "condor_submit",
        &format!(
            "sed -i 's|^output = .*|output = /no/such/log|' \"${{@: -1}}\"; exec {} \"$@\"",
            broken.real("condor_submit")
        ),
    );
    broken.up(&[]);
    let ended = broken.job_with("it could not start", 60, |job| job["state"] == "ended");
    let why = ended["reason"].as_str().unwrap();
    assert!(why.starts_with("could not start") && why.contains("/no/such/log"), "{ended}");
    broken.down();

    // From outside.
    site.up(&["--wait", "1"]);
    let id = site.submit(task);
    for (runs, program, reason) in [
        (1, "condor_rm", "cancelled by others"),
        (2, "condor_hold", "cancelled by others"),
        (3, "condor_vacate_job", "preempted"),
    ] {
        site.task_in(&id, "running");
        until("it runs", 60, || (site.read("runs").lines().count() == runs).then_some(()));
        let job = site.job_in("up");
        condor(&[program, job["id"].as_str().unwrap()]);
        let ended =
            site.job_with("the job has ended", 60, |seen| seen["name"] == job["name"] && seen["state"] == "ended");
        assert!(ended["reason"].as_str().unwrap().starts_with(reason), "{program} {ended}\n{}", site.story());
    }
    site.task_in(&id, "running");
    site.write("go", "");
    site.task_in(&id, "finished");
    assert_eq!((site.read("runs").as_str(), site.queued()), ("run\nrun\nrun\nrun\n", 1), "{}", site.story());
    site.down();

    let name = &deaf["name"];
    let ended = timed.job_with("its time is over", 150, |job| job["name"] == *name && job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("walltime"), "{ended}\n{}", timed.story());
    assert_eq!(attribute(deaf["id"].as_str().unwrap(), "LastHoldReasonCode"), "46");
    timed.write("go", "");
    timed.task_in(&first, "finished");
    assert_eq!(timed.read("runs"), "run\nrun\n", "never twice at once");
    timed.down();

    // The machine is lost with all that runs on it: HTCondor waits for it as long as the lease lasts.
    for pid in [pids("condor_startd"), pids("condor_starter")].concat() {
        kill(pid, "KILL");
    }
    for (pid, _) in lost.processes() {
        if std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default().contains("_CONDOR_SCRATCH_DIR=")
        {
            kill(pid, "KILL");
        }
    }
    let ended = lost.job_with("the job is over", 150, |seen| seen["name"] == other["name"] && seen["state"] == "ended");
    assert!(ended["exit_code"] != 0, "{ended}");
    until("it runs again", 60, || (lost.read("runs").lines().count() == 2).then_some(()));
    lost.write("go", "");
    lost.task_in(&second, "finished");
    assert_eq!(lost.read("runs"), "run\nrun\n", "never twice at once");
    lost.down();
}
