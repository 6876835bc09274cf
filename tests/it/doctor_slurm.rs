//! `dcluster doctor` on the real Slurm of `tests/clusters/slurm/up`. Skipped where there is none.

use crate::site::{Site, bed};
use serde_json::Value;

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

    // Nothing is left, in the queue or beside it.
    assert!(site.processes().is_empty(), "{:?}", site.processes());
    assert!(std::fs::read_dir(site.folder.join("home/state")).map_or(0, Iterator::count) == 0);

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
