//! `dcluster doctor` on the real Slurm of `tests/clusters/slurm/up`. Skipped where there is none.

use crate::site::{Site, bed, kill, slurm, until};
use serde_json::Value;
use std::process::{Child, Command};

/// Jobs of the user that are not over.
fn jobs() -> String {
    let user = std::env::var("SLURM_BED_USER").unwrap_or_else(|_| "hpc".to_owned());
    slurm(&["squeue", "-h", "-u", &user, "-o", "%i %j %T"])
}

fn nothing_is_left(site: &Site) {
    assert_eq!(jobs(), "");
    until("no process left", 60, || site.processes().is_empty().then_some(()));
    assert_eq!(std::fs::read_dir(site.folder.join("home/state")).map_or(0, Iterator::count), 0);
}

/// The partition takes jobs and starts none, while `held` runs.
fn with_a_closed_partition(held: impl FnOnce()) {
    slurm(&["scontrol", "update", "PartitionName=debug", "State=DOWN"]);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(held));
    slurm(&["scontrol", "update", "PartitionName=debug", "State=UP"]);
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

fn pending(site: &Site) -> Child {
    let doctor = site.spawn(&["doctor", "--queue", "debug"]);
    until("the probe is in the queue", 60, || jobs().contains("PENDING").then_some(()));
    doctor
}

#[test]
fn a_probe_that_does_not_start() {
    let Some(_bed) = bed() else { return };
    let site = Site::new();
    with_a_closed_partition(|| {
        let ran = site.run(&["doctor", "--queue", "debug", "--wait", "3s"]);
        assert!(ran.code == 0 && ran.out.contains("PENDING PartitionDown"), "{ran:?}");
        nothing_is_left(&site);

        let doctor = pending(&site);
        kill(doctor.id(), "INT");
        let ended = doctor.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130), "{ended:?}");
        nothing_is_left(&site);

        let mut doctor = pending(&site);
        kill(doctor.id(), "KILL");
        doctor.wait().unwrap();
        assert!(jobs().contains("PENDING"));
        let ran = site.run(&["doctor", "--queue", "debug", "--wait", "1s"]);
        assert!(ran.out.contains("ended what 1 killed doctor left"), "{ran:?}");
        nothing_is_left(&site);
    });
}

/// The doctor alone sees its state folder, as on a login node with a local home.
#[test]
fn a_state_folder_that_nodes_do_not_see() {
    let Some(_bed) = bed() else { return };
    let site = Site::new();
    let state = site.folder.join("home/state");
    std::fs::create_dir(&state).unwrap();
    let doctor = site.dcluster(&["doctor"]);
    let script = "mount -t tmpfs -o mode=0700 tmpfs \"$1\" && chown \"$2\" \"$1\" && shift 2 && exec \"$@\"";
    let user = std::env::var("SLURM_BED_USER").unwrap_or_else(|_| "hpc".to_owned());
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", script, "sh"]).arg(&state).arg(user);
    hidden.arg(doctor.get_program()).args(doctor.get_args()).env_clear();
    hidden.envs(doctor.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = hidden.current_dir(site.folder.join("home")).output().unwrap();
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(ran.status.code(), Some(69), "{ran:?}");
    assert!(out.contains("fail  shared folder  the job ended without a word from inside (FAILED"), "{out}");
    assert!(out.contains("ok    clean-up"), "{out}");
    nothing_is_left(&site);
}

#[test]
fn a_doctor_on_slurm() {
    let Some(_bed) = bed() else { return };
    let site = Site::new();
    let ran = site.run(&["doctor", "--json", "--save", "--cores", "4", "--memory", "200MB", "--walltime", "20m"]);
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    let check = |name: &str| report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    for name in ["batch system", "queues", "accounting", "permission", "start", "shared folder", "network", "clean-up"]
    {
        assert_eq!(check(name)["verdict"], "ok", "{ran:?}");
    }
    assert!(check("signals")["says"].as_str().unwrap().contains("gets TERM"), "{ran:?}");
    let queues = report["site"]["queues"].as_array().unwrap();
    let debug = queues.iter().find(|queue| queue["name"] == "debug").unwrap();
    assert_eq!((debug["max_walltime_seconds"].as_u64(), debug["max_cores"].as_u64()), (Some(1800), Some(24)));
    assert_eq!(queues.iter().find(|queue| queue["is_default"] == true).unwrap()["name"], "regular");

    nothing_is_left(&site);

    // What was saved is used, and what can never run is refused with the partition's limit.
    let shown = site.ok(&["config", "show", "--json"]);
    assert!(shown.contains("backend"), "{shown}");
    let refused = site.run(&["up", "--queue", "debug", "--walltime", "1h"]);
    assert_eq!(refused.code, 78, "{refused:?}");
    assert!(refused.err.contains("its limit is 00:30:00"), "{refused:?}");
    let refused = site.run(&["up", "--cores", "25"]);
    assert!(refused.code == 78 && refused.err.contains("its limit on one node is 24"), "{refused:?}");
    assert_eq!(site.calls("sbatch"), 1, "the probe's");
}
