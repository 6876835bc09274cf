//! Good and bad days of a user on a real Slurm, with the real program: `tests/run tests`, or
//! `eval "$(tests/clusters/slurm/up --db)"`, then `DCLUSTER_TEST_SLURM=1 cargo test --test it slurm_days`.

use crate::site::{
    ODD, Site, bed, has_cgroups, kill, kill_node, kill_step_manager, slurm, start_controller, start_node,
    stop_controller, until,
};
use std::io::Write;
use std::time::{Duration, Instant};

/// An array, its script, what tasks see, what nobody else sees, a node that joins by hand, a changed limit.
#[test]
fn a_good_day() {
    let Some(_bed) = bed() else { return };
    let mut site = Site::new();
    site.environment = vec![
        ("CUSTOM".into(), ODD.into()),
        ("BASH_FUNC_greet%%".into(), "() {  echo \"hello $1\"\n}".into()),
        // What a login shell may hold, and what must not change our jobs.
        ("SBATCH_EXPORT".into(), "NONE".into()),
        ("SQUEUE_STATES".into(), "PENDING".into()),
    ];
    let shape = &["--jobs", "4", "--walltime", "3m"][..];
    let prologue = ["--prologue", "echo from the prologue; export FROM_PROLOGUE=yes"];
    let begun = Instant::now();
    site.up(&[shape, &prologue[..]].concat());
    assert_eq!(site.ok(&["submit", "--wait", "--", "printenv", "CUSTOM"]), format!("{ODD}\n"));
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
    site.nobody_reads_secrets(&[&submitted, &slurm(&["scontrol", "show", "-d", "job", &array])]);

    // A task that needs more time than the jobs have waits until the limit is raised.
    let long = site.ok(&["submit", "--time-request", "30m", "--", "true"]).trim().to_owned();
    until("it is known that it does not fit", 60, || {
        site.status()["waiting_for"].as_str().is_some_and(|why| why.contains("needs 30 min")).then_some(())
    });
    slurm(&["scontrol", "update", &format!("JobId={array}"), "TimeLimit=60"]);
    site.ok(&["scale", "4"]);
    site.task_in(&long, "finished");

    // A node of an allocation by hand joins, runs tasks and leaves.
    let program = site.folder.join("dcluster");
    let join = ["srun", program.to_str().unwrap(), "worker", "join", "--cores", "7", "--memory", "1GB"];
    let mut salloc = site.command("salloc").args(["-Q", "-n", "1", "-t", "5"]).args(join).spawn().unwrap();
    let wide = ["submit", "--wait", "--cores", "7", "--", "printenv", "DCLUSTER_TASK_CORES"];
    assert_eq!(site.ok(&wide), "7\n");
    kill(site.process("worker join"), "INT");
    assert!(until("salloc ends", 60, || salloc.try_wait().unwrap()).code().is_some());
    site.down();
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
    assert!(says.contains("no sbatch on the PATH") && says.contains("load the module of Slurm"), "{says}");
    assert!(!site.folder.join("home/state/default").exists());

    // What Slurm itself says of its partitions is known before anything is made.
    let impossible =
        [("--queue", "regulr", "did you mean --queue regular?"), ("--cores", "25", "is 24"), ("--gpus", "5", "is 4")];
    for (option, value, says) in impossible {
        let refused = site.run(&["up", option, value]);
        assert!(refused.code == 78 && refused.err.contains(says), "{refused:?}");
        assert!(!site.folder.join("home/state/default").exists() && site.calls("sbatch") == 0);
    }

    // Own directives are not understood, so nothing is refused beforehand.
    for (option, value, says, fix) in [
        ("--directive", "--partition=nosuch", "nvalid partition name", "sinfo -s"),
        ("--account", "nosuch", "Invalid account", "sacctmgr show assoc"),
    ] {
        let before = site.calls("sbatch");
        site.up(&[option, value]);
        let waited = site.run(&["up", "--cores", "1", "--memory", "200MB", option, value, "--wait", "1"]);
        assert_eq!(waited.code, 69, "{waited:?}");
        let told = waited.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(says) && told.contains(fix), "{waited:?}");
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
        until("it is tried again", 60, || (site.calls("sbatch") == before + 2).then_some(()));
        site.ok(&["cancel", &id]);
        site.down();
        site.ok(&["down", "--purge"]);
    }

    // More cores than all nodes have: accepted, and never started.
    site.ok(&["up", "--cores", "500", "--memory", "200MB", "--directive=--comment=mine"]);
    site.submit("true");
    site.job_with("a reason", 60, |job| {
        job["state"] == "pending"
            && job["reason"].as_str().is_some_and(|why| {
                why.contains("PartitionConfig") || why.contains("PartitionNodeLimit") || why.contains("Resources")
            })
    });
    let status = site.ok(&["status"]);
    note(&status);
    assert!(status.contains("ask for less"), "{status}");
    site.down();
}

/// The controller is away when we submit, list and cancel.
#[test]
fn the_controller_is_away() {
    let Some(_bed) = bed() else { return };
    let site = Site::new();
    // At submit: tried again, once at a time.
    stop_controller();
    site.up(&[]);
    let trouble = until("trouble is told", 60, || site.status()["trouble"].as_str().map(str::to_owned));
    assert!(trouble.contains("Unable to contact slurm controller"), "{trouble}");
    assert_eq!(site.status()["gave_up"], false);
    let mut waiting = site.spawn(&["up", "--cores", "1", "--memory", "200MB", "--wait", "1"]);
    let id = site.submit("until [ -e go ]; do sleep 0.1; done");
    start_controller();
    let first = site.job_in("up")["id"].as_str().unwrap().to_owned();
    assert!(until("up --wait returns", 60, || waiting.try_wait().unwrap()).success());
    assert_eq!(site.queued(), 1, "{}", site.story());
    assert_eq!(site.status()["trouble"], serde_json::Value::Null, "{}", site.story());

    // While a task runs and a job is pending: nothing changes, nothing is lost or doubled.
    site.task_in(&id, "running");
    site.ok(&["scale", "2"]);
    until("a second job", 60, || (site.queued() == 2).then_some(()));
    site.job_with("all up", 60, |job| job["state"] == "up" && job["id"] != first.as_str());
    let slow = site.submit("until [ -e go ]; do sleep 0.1; done");
    site.task_in(&slow, "running");
    stop_controller();
    site.write("go", "");
    for task in [&id, &slow] {
        site.task_in(task, "finished");
    }
    let jobs =
        |site: &Site| site.status()["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count();
    assert_eq!(jobs(&site), 2);

    // At cancel: `down` says what it waits for, and ends once the controller is back.
    site.ok(&["scale", "3"]);
    let address = site.listening();
    let mut down = site.spawn(&["down"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(down.try_wait().unwrap().is_none(), "{}", site.story());
    start_controller();
    until("down ends", 90, || down.try_wait().unwrap());
    let output = down.wait_with_output().unwrap();
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && says.contains("waiting for job"), "{says}");
    site.nothing_left(address);
}

/// sbatch submits, and its answer is lost.
#[test]
fn lost_answers() {
    let Some(_bed) = bed() else { return };
    let site = Site::new();
    site.shim(
        "sbatch",
        "/usr/bin/sbatch \"$@\" >/dev/null\n\
         echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\n\
         exit 1",
    );
    site.up(&["--jobs", "3", "--walltime", "10m"]);
    until("three are up", 60, || {
        let status = site.status();
        (status["jobs"].as_array().unwrap().iter().filter(|job| job["state"] == "up").count() == 3).then_some(())
    });
    assert_eq!((site.calls("sbatch"), site.queued()), (1, 3), "{}", site.story());
    assert_eq!(site.status()["trouble"], serde_json::Value::Null);
    assert_eq!(site.ok(&["submit", "--wait", "--", "echo", "done"]), "done\n");
    site.down();

    // It failed in such words and submitted nothing: given up by name, then tried again.
    site.shim(
        "sbatch",
        "[ \"$(wc -l < ~/calls.sbatch)\" != 2 ] || {\n\
         echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\n\
         exit 1; }",
    );
    site.up(&["--jobs", "1"]);
    site.job_in("up");
    assert_eq!((site.calls("sbatch"), site.queued()), (3, 1), "{}", site.story());
    site.down();

    // It submitted and then hung: killed at our time-out, and the job that exists is the only one.
    let unclear = || site.ok(&["events", "--json"]).matches("submit_ambiguous").count();
    let before = unclear();
    site.shim("sbatch", "/usr/bin/sbatch \"$@\" >/dev/null\nexec sleep 600");
    site.up(&["--jobs", "1"]);
    site.job_in("up");
    until("the hanging sbatch is given up", 170, || (unclear() > before).then_some(()));
    assert_eq!(site.ok(&["submit", "--wait", "--", "echo", "done"]), "done\n");
    assert_eq!((site.calls("sbatch"), site.queued()), (4, 1), "{}", site.story());
    site.down();
}

/// Workers and servers are killed while tasks run.
#[test]
fn processes_die() {
    let Some(_bed) = bed() else { return };
    let site = Site::new();
    let task = "echo run >> runs.$DCLUSTER_TASK_ID; until [ -e go ]; do sleep 0.1; done";
    // One job fills more than half of a node: the other waits.
    let shape = ["--cores", "13", "--memory", "200MB", "--nodelist", "n01", "--walltime", "10m"];
    site.ok(&[&["up", "--jobs", "2", "--wait", "1"][..], &shape].concat());
    let first = site.submit(task);
    site.task_in(&first, "running");

    // The worker: its job ends, another takes its place, the task runs again.
    let job = site.job_with("the job of the task", 60, |job| works(&site, job));
    let name = job["name"].as_str().unwrap();
    kill(site.process(&format!("--job {name}")), "KILL");
    let ended = site.job_with("the job has ended", 60, |job| job["name"] == name && job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("crashed"), "{ended}");
    assert_eq!(ended["exit_code"], 137);
    until("it runs again", 60, || (site.read(&format!("runs.{first}")) == "run\nrun\n").then_some(()));

    // From outside: scancel.
    let job = site.job_with("the job of the task", 60, |job| works(&site, job));
    let (name, id) = (job["name"].as_str().unwrap(), job["id"].as_str().unwrap());
    slurm(&["scancel", id]);
    let ended = site.job_with("the job has ended", 60, |job| job["name"] == name && job["state"] == "ended");
    assert!(ended["reason"].as_str().unwrap().starts_with("cancelled by others"), "{ended}\n{}", site.story());
    until("it runs a third time", 60, || (site.read(&format!("runs.{first}")).lines().count() == 3).then_some(()));

    // The server, while a task runs and a job is pending.
    site.ok(&["scale", "3"]);
    until("three jobs", 60, || (site.queued() == 3).then_some(()));
    let server = site.status()["server"]["pid"].as_u64().unwrap();
    kill(server.try_into().unwrap(), "KILL");
    let second = site.submit("true");
    site.task_in(&second, "finished");
    assert_ne!(site.status()["server"]["pid"], server);
    assert_eq!(site.task(&first)["state"], "running");
    site.write("go", "");
    site.task_in(&first, "finished");
    assert_eq!(site.read(&format!("runs.{first}")).lines().count(), 3);
    assert_eq!(site.queued(), 3, "{}", site.story());
    site.down();
}

/// Whether tasks run in a job.
fn works(site: &Site, job: &serde_json::Value) -> bool {
    let status = site.status();
    let mut workers = status["workers"].as_array().unwrap().iter();
    job["state"] == "up" && workers.any(|worker| worker["job"] == job["name"] && worker["running"] != 0)
}

/// Ends that Slurm brings: out of memory, the time limit, a node that fails. The slow ones together.
#[test]
fn slurm_ends_jobs() {
    let Some(_bed) = bed() else { return };
    let (timed, short, lost, split, greedy) = (Site::new(), Site::new(), Site::new(), Site::new(), Site::new());
    let task = "exec 9>> lock; flock -n 9 || echo overlap >> runs; echo run >> runs; \
                until [ -e go ]; do sleep 0.1; done";
    // The worker knows its limit: it drains, then interrupts the task, and leaves in time.
    short.up(&["--walltime", "2m", "--wait", "1"]);
    let third = short.submit(task);
    timed.up(&["--walltime", "10m", "--nodelist", "n01", "--wait", "1"]);
    lost.up(&["--walltime", "10m", "--nodelist", "n02", "--wait", "1"]);
    let (first, second) = (timed.submit(task), lost.submit(task));
    timed.task_in(&first, "running");
    lost.task_in(&second, "running");
    // An administrator cuts the limit: the worker does not know.
    let job = timed.job_in("up");
    slurm(&["scontrol", "update", &format!("JobId={}", job["id"].as_str().unwrap()), "TimeLimit=1"]);
    // The node dies with all that runs on it.
    let job = lost.job_in("up");
    kill_node("n02");
    kill_step_manager(job["id"].as_str().unwrap());
    for (pid, _) in lost.processes() {
        if std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default().contains("SLURMD_NODENAME=n02") {
            kill(pid, "KILL");
        }
    }
    lost.write("go", "");
    // Of another node only Slurm's daemon dies: all else goes on there, and our worker is connected.
    split.up(&["--walltime", "10m", "--nodelist", "n03", "--wait", "1"]);
    let fourth = split.submit(task);
    split.task_in(&fourth, "running");
    let apart = split.job_in("up");
    kill_node("n03");

    if has_cgroups() {
        greedy.up(&["--walltime", "10m", "--wait", "1"]);
        // The kernel takes the worker first; the second time there is enough memory.
        let eater = greedy.submit(
            "[ ! -e once ] || exit 0; touch once; echo 1000 > /proc/$PPID/oom_score_adj; \
             python3 -c 'x = b\"x\" * 400_000_000; import time; time.sleep(60)'",
        );
        let ended = greedy.job_with("out of memory", 60, |job| job["state"] == "ended");
        assert!(ended["reason"].as_str().unwrap().starts_with("out of memory"), "{ended}\n{}", greedy.story());
        greedy.task_in(&eater, "finished");
        greedy.ok(&["down"]);
    }

    let over = |job: &serde_json::Value| job["state"] == "ended";
    let ended = timed.job_with("its time is over", 120, over);
    assert!(ended["reason"].as_str().unwrap().starts_with("walltime"), "{ended}\n{}", timed.story());
    timed.write("go", "");
    let done = timed.task_in(&first, "finished");
    assert_eq!((&done["exit_code"], timed.read("runs").as_str()), (&0.into(), "run\nrun\n"));
    timed.ok(&["down"]);

    for (site, job) in [(&lost, job), (&split, apart)] {
        let id = job["id"].as_str().unwrap();
        until("Slurm has seen it", 120, || {
            slurm(&["squeue", "-h", "-t", "all", "-j", id, "-o", "%T"]).contains("NODE_FAIL").then_some(())
        });
        // While all workers are connected Slurm is asked every three minutes only: sooner when the user does something.
        site.ok(&["scale", "1"]);
        let ended = site.job_with("the node has failed", 60, |seen| seen["name"] == job["name"] && over(seen));
        assert!(ended["reason"].as_str().unwrap().starts_with("node failed"), "{ended}\n{}", site.story());
    }
    start_node("n02");
    start_node("n03");
    lost.task_in(&second, "finished");
    lost.down();
    until("it runs again", 60, || (split.read("runs").lines().count() > 1).then_some(()));
    split.write("go", "");
    split.task_in(&fourth, "finished");
    assert_eq!(split.read("runs"), "run\nrun\n", "never twice at once");
    split.down();

    let ended = short.job_with("it has left in time", 120, over);
    assert!(ended["reason"].as_str().unwrap().starts_with("walltime"), "{ended}\n{}", short.story());
    until("it runs again", 60, || (short.read("runs").lines().count() > 1).then_some(()));
    short.write("go", "");
    short.task_in(&third, "finished");
    assert_eq!(short.read("runs"), "run\nrun\n", "never twice at once");
    short.down();
}

fn note(text: &str) {
    // Captured by the test runner unless it fails or --nocapture is given.
    let _ = writeln!(std::io::stderr(), "{text}");
}
