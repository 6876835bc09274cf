//! Good and bad days of a user on a real Slurm, with the real program: `tests/run tests`, or
//! `eval "$(tests/clusters/slurm/up --db)"`, then `DCLUSTER_TEST_SLURM=1 cargo test --test it slurm_days`.

use crate::site::{Site, bed, has_cgroups, kill, queue, slurm, start_controller, start_node, stop_daemon, until};
use std::io::Write;
use std::time::{Duration, Instant};

/// An array, its script, what tasks see, what nobody else sees, a node that joins by hand, a changed limit.
#[test]
fn a_good_day() {
    let Some(_bed) = bed() else { return };
    let mut site = Site::new();
    let odd = "two  words, 'quotes', $HOME\nand a line";
    site.environment = vec![
        ("CUSTOM".into(), odd.into()),
        ("BASH_FUNC_greet%%".into(), "() {  echo \"hello $1\"\n}".into()),
        // What a login shell may hold, and what must not change our jobs.
        ("SBATCH_EXPORT".into(), "NONE".into()),
        ("SQUEUE_STATES".into(), "PENDING".into()),
    ];
    let shape = &["--jobs", "4", "--walltime", "3m"][..];
    let prologue = ["--prologue", "echo from the prologue; export FROM_PROLOGUE=yes"];
    let begun = Instant::now();
    site.up(&[shape, &prologue[..]].concat());
    assert_eq!(site.ok(&["submit", "--wait", "--", "printenv", "CUSTOM"]), format!("{odd}\n"));
    note(&format!("from up to the end of the first task: {} ms", begun.elapsed().as_millis()));
    site.up(&[shape, &prologue, &["--wait", "4"][..]].concat());
    assert_eq!(site.calls("sbatch"), 1, "four jobs are one array");

    let seen = site.ok(&["submit", "--wait", "--", "bash", "-c", "greet you; echo $PATH; echo $FROM_PROLOGUE"]);
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", site.folder.join("shims").display());
    assert_eq!(seen, format!("hello you\n{path}\nyes\n"));
    assert!(site.ok(&["logs", "job", "3"]).contains("from the prologue"));

    // What was submitted is what `render` prints.
    let job = site.job_in("up");
    let array = job["id"].as_str().unwrap().split('_').next().unwrap().to_owned();
    let shown = site.ok(&[&["render", "--cores", "1", "--memory", "200MB"][..], shape, &prologue].concat());
    let submitted = slurm(&["scontrol", "write", "batch_script", &array, "-"]);
    assert_eq!(submitted.trim_end(), shown.trim_end());
    nobody_sees_keys(&site, &array, &submitted);

    // A task that needs more time than the jobs have waits until the limit is raised.
    let long = site.ok(&["submit", "--time-limit", "30m", "--", "true"]).trim().to_owned();
    until("it is known that it does not fit", 20, || {
        site.status()["waiting_for"].as_str().is_some_and(|why| !why.is_empty()).then_some(())
    });
    assert_eq!(site.task(&long)["state"], "ready", "{}", site.story());
    slurm(&["scontrol", "update", &format!("JobId={array}"), "TimeLimit=60"]);
    site.ok(&["scale", "4"]);
    site.task_in(&long, "finished");

    // A node of an allocation by hand joins, runs tasks and leaves.
    let program = site.folder.join("dcluster");
    let join = [program.to_str().unwrap(), "worker", "join", "--cores", "7", "--memory", "1GB"];
    let mut salloc = site.command("salloc").args(["-Q", "-n", "1", "-t", "5"]).args(join).spawn().unwrap();
    let wide = ["submit", "--wait", "--cores", "7", "--", "printenv", "DCLUSTER_TASK_CORES"];
    assert_eq!(site.ok(&wide), "7\n");
    kill(site.process("worker join"), "INT");
    assert!(until("salloc ends", 30, || salloc.try_wait().unwrap()).code().is_some());

    // Down while tasks run, one of them deaf to SIGTERM.
    let deaf = site.submit("trap '' TERM; touch deaf; while :; do sleep 0.2; done");
    site.task_in(&deaf, "running");
    until("it is deaf", 10, || site.folder.join("home/deaf").exists().then_some(()));
    site.down();
    assert_eq!(site.task(&deaf)["state"], "ready");
}

fn nobody_sees_keys(site: &Site, array: &str, script: &str) {
    let mut secrets = Vec::new();
    for name in ["ca.key", "access", "worker"] {
        let text = site.read(&format!("state/default/{name}")).replace("\\n", "\n");
        let mut inside = false;
        for line in text.lines() {
            inside |= line.contains("BEGIN PRIVATE KEY");
            if inside && !line.contains("-----") {
                secrets.push(line.to_owned());
            }
            inside &= !line.contains("END PRIVATE KEY");
        }
    }
    assert!(secrets.len() >= 3 && secrets.iter().all(|line| line.len() > 20), "{secrets:?}");
    let mut public = vec![script.to_owned(), slurm(&["scontrol", "show", "-d", "job", array])];
    for (pid, _) in site.processes() {
        for name in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            public.push(String::from_utf8_lossy(&text).into_owned());
        }
    }
    for secret in secrets {
        assert!(public.iter().all(|text| !text.contains(&secret)));
    }
    // The user's environment is no business of others either.
    assert!(!public[0].contains("two  words") && !public[1].contains("two  words"));
}

/// `down` at each stage of a job's life.
#[test]
fn down_at_any_time() {
    let Some(_bed) = bed() else { return };
    let site = Site::new();
    // Just submitted.
    site.up(&["--jobs", "3"]);
    site.down();
    // Pending.
    site.up(&["--jobs", "3", "--directive", "--begin=now+1hour"]);
    site.job_with("pending, with a reason", 60, |job| {
        job["state"] == "pending" && job["reason"].as_str().is_some_and(|why| why.contains("BeginTime"))
    });
    site.down();
    // Started, its worker not yet.
    site.up(&["--jobs", "2", "--prologue", "sleep 300"]);
    site.job_in("started");
    site.down();
    // Twice, and with nothing there.
    let again = site.run(&["down"]);
    assert_eq!((again.code, again.err.contains("down already")), (0, true), "{again:?}");
    let nothing = site.run(&["status"]);
    assert_eq!(nothing.code, 69, "{nothing:?}");
}

/// What Slurm refuses, and what it never starts.
#[test]
fn refusals() {
    let Some(_bed) = bed() else { return };
    let site = Site::new();
    let mut nowhere = site.dcluster(&["up"]);
    let output = nowhere.env("PATH", site.folder.join("home")).output().unwrap();
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{says}");
    assert!(says.contains("no sbatch on the PATH") && says.contains("module load"), "{says}");
    assert!(!site.folder.join("home/state/default").exists());

    for (option, value, says, fix) in [
        ("--queue", "nosuch", "nvalid partition name", "sinfo -s"),
        ("--account", "nosuch", "Invalid account", "sacctmgr show assoc"),
    ] {
        let before = site.calls("sbatch");
        site.up(&[option, value]);
        let waited = site.run(&["up", "--cores", "1", "--memory", "200MB", option, value, "--wait", "1"]);
        assert_eq!(waited.code, 69, "{waited:?}");
        assert!(waited.err.contains(says) && waited.err.contains(fix), "{waited:?}");
        let status = site.ok(&["status"]);
        assert!(status.contains(says) && status.contains(fix), "{status}");
        let id = site.submit("true");
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(site.calls("sbatch"), before + 1, "no submit loop");
        let shown = site.run(&["wait", &id, "--timeout", "4s"]);
        assert_eq!(shown.code, 124, "{shown:?}");
        assert!(shown.err.contains(says), "{shown:?}");
        // The user has changed something: one more attempt.
        site.ok(&["scale", "1"]);
        until("it is tried again", 10, || (site.calls("sbatch") == before + 2).then_some(()));
        site.ok(&["cancel", &id]);
        site.down();
        site.ok(&["down", "--purge"]);
    }

    // More cores than all nodes have: accepted, and never started.
    site.ok(&["up", "--cores", "500", "--memory", "200MB"]);
    site.submit("true");
    site.job_with("a reason", 60, |job| {
        job["state"] == "pending" && job["reason"].as_str().is_some_and(|why| why.contains("PartitionConfig") || why.contains("PartitionNodeLimit") || why.contains("Resources"))
    });
    let status = site.ok(&["status"]);
    note(&status);
    assert!(status.contains("ask for less"), "{status}");
    site.down();
}

fn note(text: &str) {
    // Captured by the test runner unless it fails or --nocapture is given.
    let _ = writeln!(std::io::stderr(), "{text}");
}
