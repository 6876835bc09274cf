//! PBS and LSF as `tests/standins/batch` plays them, for the tests that hold on every system.

use crate::site::{Guard, System};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

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
};

static PBS_BED: Bed = Bed { alone: Mutex::new(()), folder: Mutex::new(None) };
static LSF_BED: Bed = Bed { alone: Mutex::new(()), folder: Mutex::new(None) };

/// The stand-in's jobs are processes of whoever starts it.
fn own_name() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
}

/// One stand-in at a time, and its folder.
struct Bed {
    alone: Mutex<()>,
    folder: Mutex<Option<PathBuf>>,
}

/// A stand-in that runs.
struct Running {
    bed: &'static Bed,
    _folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Bed {
    fn start(&'static self, system: &str, settings: &[(&str, &str)], commands: &[&str]) -> Guard {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new().prefix("standin-").tempdir().unwrap();
        // The commands have a clean environment: they are told here where the stand-in is. Written by a process of its
        // own: what this one has open for writing another thread's child may hold a moment longer, and then it
        // cannot be run.
        let script = r#"
            cd "$1" && mkdir real bin s && shift && program=$1 && shift && umask 022 && for command; do
                ln -s "$program" "real/$command"
                printf '#!/bin/sh\nDCLUSTER_STANDIN="%s" exec "%s" "$@"\n' "$PWD/s" "$PWD/real/$command" > "bin/$command"
                chmod 755 "bin/$command"
            done"#;
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standins/batch");
        let mut shell = Command::new("sh");
        shell.args(["-euc", script, "sh"]).arg(folder.path()).arg(program).args(commands).arg("standin");
        assert!(shell.status().unwrap().success());
        *self.folder.lock().unwrap() = Some(folder.path().to_owned());
        self.control(&["set", "system", &format!("\"{system}\"")]);
        settings.iter().for_each(|(name, value)| drop(self.control(&["set", name, value])));
        self.control(&["start"]);
        Box::new(Running { bed: self, _folder: folder, _alone: alone })
    }

    fn bin(&self) -> Option<PathBuf> {
        Some(self.folder.lock().unwrap().as_ref().expect("it runs").join("bin"))
    }

    fn control(&self, words: &[&str]) -> String {
        let output = Command::new(self.bin().unwrap().join("standin")).args(words).output().unwrap();
        assert!(output.status.success(), "standin {words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn queue(&self) -> String {
        let jobs: Vec<Value> = serde_json::from_str(&self.control(&["jobs"])).unwrap();
        let alive = jobs.iter().filter(|job| job["state"] != "done");
        alive.map(|job| format!("{} {} {}\n", job["id"], job["name"], job["state"])).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for words in ["sweep", "stop"] {
            let _ = Command::new(self.bed.bin().unwrap().join("standin")).arg(words).output();
        }
    }
}
