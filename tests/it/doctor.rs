//! `dcluster doctor` and how a backend is chosen, with the real binary on this machine. The probe is a real job of
//! the local backend.

use crate::harness::{Bed, Ran, alive, until};
use crate::programs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn checks(json: &str) -> Vec<(String, String)> {
    let value: Value = serde_json::from_str(json).unwrap();
    let word = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    value["checks"].as_array().unwrap().iter().map(|check| (word(check, "name"), word(check, "verdict"))).collect()
}

/// Nothing of a doctor: no folder of its in the state folder, no process.
#[track_caller]
fn nothing_is_left(bed: &Bed) {
    let left: Vec<_> = fs::read_dir(&bed.state).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    bed.nothing_left();
}

#[test]
fn a_healthy_machine() {
    let bed = Bed::new();
    let ran = bed.run(&["doctor", "--json"]).expect(0);
    let checks = checks(ran.text());
    let names: Vec<_> = checks.iter().map(|(name, _)| name.as_str()).collect();
    let all = "backend commands state-folder home umask limits log-out tls queues permission start shared-folder \
        network clock in-a-job signals clean-up";
    assert_eq!(names.iter().map(|name| name.replace(' ', "-")).collect::<Vec<_>>().join(" "), all.replace('\n', ""));
    assert!(checks.iter().all(|(_, verdict)| verdict != "fail"), "{checks:?}");
    nothing_is_left(&bed);
    // For people: a line each, the verdict first, as long as it goes.
    let text = bed.ok(&["doctor"]);
    assert!(text.starts_with("ok    backend        local: says DCLUSTER_BACKEND\n"), "{text}");
    assert!(text.contains("\nok    signals        a cancelled job gets TERM, and was over after "), "{text}");
    nothing_is_left(&bed);
}

#[test]
fn without_a_probe_no_job_runs() {
    let bed = Bed::new();
    let ran = bed.run(&["doctor", "--no-probe", "--json"]).expect(0);
    let names: Vec<_> = checks(ran.text()).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"tls".to_owned()) && !names.contains(&"permission".to_owned()), "{names:?}");
    nothing_is_left(&bed);
}

#[test]
fn a_state_folder_that_cannot_be_written_fails() {
    let mut bed = Bed::new();
    // A file where the folder is to be stops root, too.
    fs::write(bed.root().join("file"), "").unwrap();
    let state = bed.root().join("file/state").display().to_string();
    bed.set("DCLUSTER_STATE", &state);
    let ran = bed.run(&["doctor", "--save"]).expect(69).says("nothing was saved");
    assert!(ran.text().contains("\nfail  state folder   "), "{}", ran.text());
    assert!(ran.text().contains("fix          set DCLUSTER_STATE to a folder of yours"), "{}", ran.text());
    assert!(!ran.text().contains("permission"), "no probe is sent: {}", ran.text());
}

#[test]
fn a_batch_system_without_its_commands_fails() {
    let mut bed = Bed::new();
    bed.set("PATH", "/nowhere");
    let ran = bed.run(&["doctor", "--backend", "slurm"]).expect(69);
    assert!(ran.text().contains("\nfail  commands       sbatch, squeue, scancel not on the PATH\n"), "{}", ran.text());
}

/// Starts a doctor whose probe has a prologue that waits, and returns it once its job runs.
fn held(bed: &Bed) -> crate::harness::Running {
    let running = bed.spawn(&["doctor", "--prologue", "touch held; while [ ! -e go ]; do sleep 0.05; done"]);
    until("the probe's job runs", || probe_folder(bed).filter(|folder| folder.join("held").exists()));
    running
}

fn probe_folder(bed: &Bed) -> Option<std::path::PathBuf> {
    let entries = fs::read_dir(&bed.state).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(".doctor-")
    })
}

#[test]
fn ctrl_c_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let bed = Bed::new();
        let running = held(&bed);
        running.signal(signal);
        running.end().expect(130).says("the probe is gone");
        nothing_is_left(&bed);
    }
}

/// One Ctrl-C at any moment, also while the probe is being taken away.
#[test]
fn one_ctrl_c_at_any_moment_leaves_nothing() {
    for milliseconds in [300, 600, 900, 1200] {
        let bed = Bed::new();
        let running = bed.spawn(&["doctor"]);
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        running.signal(Signal::SIGINT);
        let ran = running.end();
        assert!(!ran.err.contains("may still run"), "after {milliseconds} ms: {}", ran.err);
        nothing_is_left(&bed);
    }
}

#[test]
fn what_a_killed_doctor_left_is_ended_by_the_next() {
    let bed = Bed::new();
    let running = held(&bed);
    let folder = probe_folder(&bed).unwrap();
    kill(Pid::from_raw(running.pid()), Signal::SIGKILL).unwrap();
    let killed = running.pid();
    drop(running.end());
    until("it is dead", || (!alive(killed)).then_some(()));
    // One that lives is left alone: it is no leftover.
    let text = bed.ok(&["doctor"]);
    assert!(text.contains("leftovers      ended what 1 killed doctor left"), "{text}");
    assert!(!folder.exists());
    nothing_is_left(&bed);
}

#[test]
fn doctors_do_not_end_each_other() {
    let bed = Bed::new();
    let first = held(&bed);
    let folder = probe_folder(&bed).unwrap();
    let text = bed.ok(&["doctor"]);
    assert!(!text.contains("leftovers"), "{text}");
    fs::write(folder.join("go"), "").unwrap();
    assert!(first.end().expect(0).text().contains("a cancelled job gets TERM"));
    nothing_is_left(&bed);
}

#[test]
fn a_probe_that_ends_too_early_says_why() {
    let bed = Bed::new();
    let ran = bed.run(&["doctor", "--prologue", "echo no module of this name >&2; exit 3"]).expect(69);
    let line = ran.text().lines().find(|line| line.starts_with("fail")).unwrap().to_owned();
    assert!(line.contains("shared folder  the job ended without a word from inside (exit code 3"), "{line}");
    assert!(line.contains("no module of this name"), "{line}");
    nothing_is_left(&bed);
}

#[test]
fn what_is_saved_is_used() {
    let bed = Bed::new();
    let ran = bed.run(&["doctor", "--no-probe", "--save", "--json"]).expect(0);
    let saved: Value = serde_json::from_str(ran.text()).unwrap();
    let saved = Path::new(saved["saved"].as_str().unwrap());
    assert!(saved.starts_with(bed.root().join("home/.config/dcluster/hosts")), "{saved:?}");
    assert_eq!(fs::metadata(saved).unwrap().permissions().mode() & 0o777, 0o600);
    // Of this machine there is nothing to keep; what stands there is a setting below the user's own.
    fs::write(saved, "interface = \"eth9\"\norphan-timeout = \"7min\"\n").unwrap();
    fs::write(bed.root().join("home/.config/dcluster/config.toml"), "interface = \"eth8\"\n").unwrap();
    let shown = bed.lines(&["config", "show", "--json"]);
    let value = |key: &str| shown.iter().find(|line| line["key"] == key).unwrap().clone();
    assert_eq!(value("interface")["value"], "eth8");
    assert_eq!(value("orphan-timeout")["value"], 420);
    assert_eq!(value("orphan-timeout")["origin"]["path"], saved.to_str().unwrap());
}

/// Puts programs of these names and texts into a folder that alone is the PATH, beside the system's.
fn with_programs(bed: &mut Bed, programs: &[(&str, &str)]) {
    let bin = bed.root().join("bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["bash", "sh", "sleep", "head", "uname", "mkdir", "mv", "rm", "cat"] {
        let real = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
        let real = real.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(real, bin.join(name)).unwrap();
    }
    for (name, text) in programs {
        programs::write(&bin.join(name), text);
    }
    bed.set("PATH", bin.to_str().unwrap());
    bed.set("DCLUSTER_BACKEND", "");
}

fn backend(ran: Ran) -> String {
    ran.text().lines().find(|line| line.starts_with("ok    backend")).unwrap().to_owned()
}

#[test]
fn up_says_which_backend_it_chose_and_why() {
    let mut bed = Bed::new();
    with_programs(&mut bed, &[]);
    bed.run(&["up", "--wait", "1"]).expect(0).says("backend local: no batch system's commands are on the PATH");
    // Not again when it is up, and not when somebody said so.
    assert!(!bed.run(&["up"]).expect(0).err.contains("backend local"));
}

#[test]
fn slurms_wrapper_of_qsub_is_not_taken_for_pbs() {
    let mut bed = Bed::new();
    let perl = "#! /usr/bin/perl -w\n#  This file is part of Slurm, a resource management program.\n";
    with_programs(&mut bed, &[("qsub", perl), ("qstat", perl), ("pbsnodes", perl)]);
    let line = backend(bed.run(&["doctor", "--no-probe"]).expect(0));
    assert!(line.contains("local: ") && line.contains("is a wrapper of Slurm"), "{line}");
}

/// A Slurm of three scripts, which says of its queues what a real one says, and takes no job.
const SITE: [(&str, &str); 4] = [
    (
        "scontrol",
        "#!/bin/sh\ncase \"$*\" in\n*config*) echo 'MaxArraySize = 1001'; echo 'SLURM_VERSION = 22.05.8';;\n\
         *partition*) echo 'PartitionName=debug Default=YES MaxTime=00:30:00 DefaultTime=00:05:00 State=UP'\n\
         echo 'PartitionName=long Default=NO MaxTime=2-00:00:00 DefaultTime=01:00:00 State=UP'\n\
         echo 'PartitionName=old Default=NO MaxTime=UNLIMITED State=DRAIN';;\nesac\n",
    ),
    ("sinfo", "#!/bin/sh\nprintf 'debug|4|8000|(null)\\nlong|24|110000|gpu:2\\n'\n"),
    ("sbatch", "#!/bin/sh\necho sbatch was called >> \"$HOME/called\"\nexit 1\n"),
    ("squeue", "#!/bin/sh\nexit 0\n"),
];

fn on_site(silent: bool) -> Bed {
    let mut bed = Bed::new();
    let mut programs = SITE.to_vec();
    programs.extend([("scancel", "#!/bin/sh\n"), ("sacct", "#!/bin/sh\n")]);
    if silent {
        programs[0].1 = "#!/bin/sh\necho 'slurm_load_partitions: Unable to contact slurm controller' >&2\nexit 1\n";
    }
    with_programs(&mut bed, &programs);
    bed
}

#[test]
fn a_request_that_can_never_run_is_refused_before_anything_is_made() {
    let bed = on_site(false);
    for (options, what, fix) in [
        (
            &["--queue", "debug", "--walltime", "1h"][..],
            "a walltime of 01:00:00 is more than queue \"debug\" allows",
            "--queue long",
        ),
        (
            &["--queue", "long", "--cores", "25"],
            "25 cores are more than one job can have in queue \"long\"",
            "--cores 24",
        ),
        (&["--queue", "debug", "--memory", "9GB"], "of memory are more than one job can have in queue", "--queue long"),
        (&["--queue", "lnog"], "there is no queue \"lnog\"", "did you mean --queue long?"),
        (&["--queue", "old"], "queue \"old\" takes no jobs", "State=DRAIN"),
        (&["--walltime", "3 days"], "no other queue takes it", "--walltime 2-00:00:00"),
    ] {
        let ran = bed.run(&[&["up"], options].concat()).expect(78).says("nothing was started");
        let ran = ran.says(what).says(fix);
        assert!(ran.err.contains("backend slurm: sbatch and squeue are on the PATH"), "{}", ran.err);
    }
    assert!(!bed.state.exists() && !bed.root().join("home/called").exists());
}

#[test]
fn a_site_that_does_not_answer_refuses_nothing() {
    let mut bed = on_site(true);
    bed.set("DCLUSTER_ADDRESS", "127.0.0.1");
    bed.run(&["up", "--queue", "nosuch", "--cores", "1000"]).expect(0);
}

#[test]
fn what_was_saved_of_a_site_is_told_when_it_does_not_answer_and_refuses_nothing() {
    let mut bed = on_site(false);
    bed.set("DCLUSTER_ADDRESS", "127.0.0.1");
    bed.run(&["doctor", "--no-probe", "--save", "--queue", "debug"]).expect(0).says("saved to");
    programs::write(&bed.root().join("bin/scontrol"), "#!/bin/sh\nexit 1\n");
    let words = ["render", "--explain", "--queue", "debug", "--walltime", "20m"];
    let ran = bed.run(&words).expect(0).says("these are as `dcluster doctor --save` found them");
    assert!(ran.text().contains("; queue debug: at most 00:30:00"), "{}", ran.text());
    let ran = bed.run(&["up", "--queue", "debug", "--walltime", "1h"]).expect(0);
    ran.says("its limit is 00:30:00 (as `dcluster doctor --save` found it); a job may wait for ever");
}

#[test]
fn one_command_runs_where_two_systems_cannot_be_told_apart_and_none_where_one_is_named() {
    let mut bed = Bed::new();
    let asked = "#!/bin/sh\necho \"$*\" >> \"$HOME/asked\"\necho 'pbs_version = 23.06.06'\n";
    let programs = ["qsub", "qdel", "qconf", "pbsnodes"].map(|name| (name, "#!/bin/sh\n"));
    with_programs(&mut bed, &[&programs[..], &[("qstat", asked)]].concat());
    // Whatever lies about on the machine of this test.
    bed.set("PBS_CONF_FILE", "/nowhere");
    bed.set("SGE_ROOT", "/nowhere");
    let asked = bed.root().join("home/asked");
    let backend = |bed: &Bed| {
        let shown = bed.lines(&["config", "show", "--json"]);
        shown.iter().find(|line| line["key"] == "backend").unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(backend(&bed), "pbs");
    assert_eq!(fs::read_to_string(&asked).unwrap(), "--version\n");
    fs::remove_file(&asked).unwrap();
    bed.set("DCLUSTER_BACKEND", "local");
    assert_eq!(backend(&bed), "local");
    assert!(!asked.exists());
}

#[test]
fn render_explains_with_the_limits_of_the_queue() {
    let bed = on_site(false);
    let words = ["render", "--explain", "--queue", "debug", "--walltime", "20m", "--cores", "2"];
    let ran = bed
        .run(&words)
        .expect(0)
        .says("queues of slurm 22.05.8")
        .says("debug at most 00:30:00 (default 00:05:00), 4 cores");
    assert!(ran.text().contains("; queue debug: at most 00:30:00"), "{}", ran.text());
    // Without --explain nobody is asked, and without a batch system it works all the same.
    assert!(!bed.run(&["render", "--queue", "nosuch"]).expect(0).err.contains("queues of"));
    let nowhere = Bed::new();
    let ran = nowhere.run(&["render", "--explain", "--backend", "slurm", "--queue", "debug"]).expect(0);
    assert!(ran.text().contains("#SBATCH --partition=debug") && !ran.err.contains("queues of"));
}

#[test]
fn a_refused_probe_says_what_the_batch_system_says() {
    let bed = on_site(false);
    fs::write(
        bed.root().join("bin/sbatch"),
        "#!/bin/sh\necho 'sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified' >&2\nexit 1\n",
    )
    .unwrap();
    let ran = bed.run(&["doctor", "--queue", "debug", "--account", "nosuch"]).expect(78);
    assert!(ran.text().contains("fail  permission     sbatch "), "{}", ran.text());
    assert!(ran.text().contains("Invalid account or account/partition combination specified"), "{}", ran.text());
    assert!(ran.text().contains("ok    clean-up"), "{}", ran.text());
    nothing_is_left(&bed);
}
