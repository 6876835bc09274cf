//! PBS and LSF as `tests/standins/batch` plays them, for the tests that hold on every system.

use crate::site::{Guard, System};
use crate::standin_folder::{StandInFolder, control};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) static PBS: System = System {
    name: "pbs",
    submit: "qsub",
    list: "qstat",
    bed: || Some(PBS_BED.start("pbs", &[("history", "true")], &["qsub", "qstat", "qdel", "qselect", "pbsnodes"])),
    variables: &[],
    commands: || PBS_BED.bin(),
    user: own_name,
    queue: || PBS_BED.queue(),
    cancel: "qdel",
    hold: "-h",
};

pub(crate) static LSF: System = System {
    name: "lsf",
    submit: "bsub",
    list: "bjobs",
    bed: || {
        let commands = ["bsub", "bjobs", "bkill", "bhist", "bqueues", "bhosts", "bparams", "lsid", "lshosts"];
        Some(LSF_BED.start("lsf", &[("flavour", "\"openlava\"")], &commands))
    },
    variables: &[],
    commands: || LSF_BED.bin(),
    user: own_name,
    queue: || LSF_BED.queue(),
    cancel: "bkill",
    hold: "-H",
};

static PBS_BED: Bed = Bed { alone: Mutex::new(()), bin: Mutex::new(None) };
static LSF_BED: Bed = Bed { alone: Mutex::new(()), bin: Mutex::new(None) };

/// The stand-in's jobs are processes of whoever starts it.
fn own_name() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
}

/// One stand-in at a time, and the folder of its commands.
struct Bed {
    alone: Mutex<()>,
    bin: Mutex<Option<PathBuf>>,
}

/// A stand-in that runs.
struct Running {
    _folder: StandInFolder,
    _alone: MutexGuard<'static, ()>,
}

impl Bed {
    fn start(&'static self, system: &str, settings: &[(&str, &str)], commands: &[&str]) -> Guard {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = StandInFolder::new(commands);
        folder.control(&["set", "system", &format!("\"{system}\"")]);
        settings.iter().for_each(|(name, value)| drop(folder.control(&["set", name, value])));
        folder.control(&["start"]);
        *self.bin.lock().unwrap() = Some(folder.bin());
        Box::new(Running { _folder: folder, _alone: alone })
    }

    fn bin(&self) -> Option<PathBuf> {
        Some(self.bin.lock().unwrap().clone().expect("it runs"))
    }

    fn queue(&self) -> String {
        let jobs: Vec<Value> = serde_json::from_str(&control(&self.bin().unwrap(), &["jobs"])).unwrap();
        let alive = jobs.iter().filter(|job| job["state"] != "done");
        alive.map(|job| format!("{} {} {}\n", job["id"], job["name"], job["state"])).collect()
    }
}
