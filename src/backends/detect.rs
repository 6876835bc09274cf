//! Which batch system this host belongs to, from what lies on the `PATH`, environment variables and a few files.
//! Called for every command that is not told a backend, so it is quick: it looks at names, and runs one short
//! command only where two systems cannot be told apart otherwise.
//!
//! Traps: PBS and Grid Engine both have `qsub`, `qstat` and `qdel`. Slurm ships Perl wrappers with the names of
//! PBS (Debian's slurm-wlm-torque, `contribs/torque`) and of LSF (`contribs/openlava`), all of which name Slurm in
//! their first lines. Debian's gridengine-client is installed on many machines that have no cell.

use crate::backends::batch::{Call, bounded_to};
use crate::config::host::Found;
use crate::config::layers::Settings;
use crate::config::paths::Variables;
use crate::config::spec::BackendKind;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Commands that are looked for.
const COMMANDS: &[&str] = &[
    "sbatch",
    "squeue",
    "qsub",
    "qstat",
    "bsub",
    "bjobs",
    "qconf",
    "qhost",
    "pbsnodes",
    "qmgr",
    "qselect",
    "oarsub",
    "oarstat",
    "condor_submit",
    "condor_q",
];
/// Variables that the site's setup of a batch system exports, and whose they are.
const VARIABLES: &[(&str, BackendKind)] = &[
    ("SLURM_CONF", BackendKind::Slurm),
    ("PBS_CONF_FILE", BackendKind::Pbs),
    ("PBS_EXEC", BackendKind::Pbs),
    ("PBS_SERVER", BackendKind::Pbs),
    ("SGE_ROOT", BackendKind::Sge),
    ("LSF_ENVDIR", BackendKind::Lsf),
    ("CONDOR_CONFIG", BackendKind::Condor),
];
/// The configuration of PBS where `PBS_CONF_FILE` is not set (PBS Professional Administrator's Guide, "pbs.conf").
const PBS_CONF: &str = "/etc/pbs.conf";
/// Where a Slurm that `SLURM_CONF` does not name has its configuration: as packaged, and as slurmd or sackd of a
/// "configless" site leave it (slurm.conf(5), "configless_slurm").
const SLURM_CONFS: &[&str] = &["/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/run/slurm/conf/slurm.conf"];
/// Where Debian's gridengine-wrapper looks when `SGE_ROOT` is not set, and its folder otherwise.
const SGE_DEFAULTS: (&str, &str) = ("/etc/default/gridengine", "/var/lib/gridengine");
/// Beginning of a command's file that is read: the licence at the head of Slurm's wrappers names Slurm within it.
const HEAD_BYTES: u64 = 4096;
/// Time for the one command that may be asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    /// The folder it lies in.
    folder: PathBuf,
    /// The batch system whose script it is, when it is another one than its name says.
    wraps: Option<BackendKind>,
}

/// What is known of a host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Clues {
    commands: BTreeMap<&'static str, Seen>,
    variables: BTreeSet<&'static str>,
    /// `pbs.conf` is there.
    pbs_conf: bool,
    /// There is a `slurm.conf`. Without one Slurm may still find its controller by DNS.
    slurm_conf: bool,
    /// Grid Engine has a cell: it knows who its master is.
    sge_cell: bool,
    /// Programs here know a Kubernetes.
    kubernetes: bool,
}

/// Looks around on this host, unless somebody says where jobs run.
pub fn unless_named(settings: &Settings, variables: &Variables) -> Found {
    match settings.names_backend() {
        true => Found { kind: BackendKind::Local, why: "nobody looked, for it is said elsewhere".to_owned() },
        false => of_host(variables),
    }
}

/// Looks around on this host.
pub fn of_host(variables: &Variables) -> Found {
    choose(&Clues::of_host(variables), || ask(Call::new("qstat").arg("--version")))
}

impl Clues {
    fn of_host(variables: &Variables) -> Self {
        let seen = |name: &&'static str| {
            let path = variables.find_program(name)?;
            let wraps = wrapped(name, &head(&path));
            Some((*name, Seen { folder: path.parent()?.to_owned(), wraps }))
        };
        let set = VARIABLES.iter().map(|(name, _)| *name).filter(|name| variables.get(name).is_some());
        let commands: BTreeMap<_, _> = COMMANDS.iter().filter_map(seen).collect();
        // Nothing else has a use for these files.
        let q = commands.contains_key("qsub");
        let pbs_conf = variables.get("PBS_CONF_FILE").map_or_else(|| PathBuf::from(PBS_CONF), PathBuf::from);
        let beside = |seen: &Seen| seen.folder.parent().map(|prefix| prefix.join("etc/slurm.conf"));
        let mut confs = SLURM_CONFS.iter().map(PathBuf::from).chain(commands.get("sbatch").and_then(beside));
        Self {
            slurm_conf: commands.contains_key("sbatch") && confs.any(|path| path.is_file()),
            variables: set.collect(),
            pbs_conf: q && pbs_conf.is_file(),
            sge_cell: q && sge_cell(variables),
            kubernetes: kubernetes(variables),
            commands,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.commands.get(name).is_some_and(|seen| seen.wraps.is_none())
    }

    fn variable_of(&self, kind: BackendKind) -> Option<&'static str> {
        VARIABLES.iter().find(|(name, of)| *of == kind && self.variables.contains(name)).map(|(name, _)| *name)
    }

    /// Whose `qsub` and `qstat` these are, with the reason; the words say why nobody's.
    fn qsub(&self, ask: impl FnOnce() -> Option<String>) -> Result<(BackendKind, String), Option<String>> {
        use BackendKind::{Pbs, Sge};
        if !(self.has("qsub") && self.has("qstat")) {
            return Err(None);
        }
        let beside = |names: &[&'static str]| {
            let folder = &self.commands["qsub"].folder;
            let mut found = names.iter().filter(|name| self.has(name) && self.commands[*name].folder == *folder);
            found.next().map(|name| format!("{name} is beside qsub"))
        };
        let word = |name: &str| format!("{name} is set");
        // The surest first: what came with this very qsub, what the site's setup says, what lies about.
        let signs = [
            (beside(&["pbsnodes", "qmgr"]), beside(&["qconf", "qhost"])),
            (self.variable_of(Pbs).map(word), self.variable_of(Sge).map(word)),
            (self.pbs_conf.then(|| "there is a pbs.conf".to_owned()), None),
        ];
        let found = signs.into_iter().find_map(|signs| match signs {
            (Some(why), None) => Some((Pbs, why)),
            (None, Some(why)) => Some((Sge, why)),
            _ => None,
        });
        let found = found.or_else(|| ask().and_then(|said| maker(&said)));
        match found {
            Some((Sge, _)) if !self.sge_cell => {
                Err(Some("Grid Engine's commands are on the PATH, and it has no cell here".to_owned()))
            }
            Some((kind, why)) => Ok((kind, format!("qsub and qstat are on the PATH, and {why}"))),
            None => Err(Some("qsub and qstat are on the PATH, and do not say whose they are".to_owned())),
        }
    }
}

/// Chooses the backend. Of several systems the one whose variable is set wins, then the order of
/// [`BackendKind::ALL`]: on a host with a new and an old system the site's setup names the one in use. A Slurm whose
/// configuration is not seen comes last: its client is in every distribution.
fn choose(clues: &Clues, ask: impl FnOnce() -> Option<String>) -> Found {
    let mut found: Vec<(BackendKind, String)> = Vec::new();
    let pairs = [
        (BackendKind::Slurm, ["sbatch", "squeue"]),
        (BackendKind::Lsf, ["bsub", "bjobs"]),
        (BackendKind::Oar, ["oarsub", "oarstat"]),
        (BackendKind::Condor, ["condor_submit", "condor_q"]),
    ];
    for (kind, [submit, list]) in pairs {
        if clues.has(submit) && clues.has(list) {
            found.push((kind, format!("{submit} and {list} are on the PATH")));
        }
    }
    let mut nothing = None;
    match clues.qsub(ask) {
        Ok(kind_and_why) => found.push(kind_and_why),
        Err(why) => nothing = why,
    }
    let unsure = |kind| kind == BackendKind::Slurm && !clues.slurm_conf && clues.variable_of(kind).is_none();
    found.sort_by_key(|(kind, _)| (clues.variable_of(*kind).is_none(), unsure(*kind), *kind));
    let mut found = found.into_iter();
    let Some((kind, mut why)) = found.next() else {
        let wrapper = clues.commands.iter().find_map(|(name, seen)| Some((*name, seen.wraps?)));
        let mut why = match (nothing, wrapper) {
            (Some(why), _) => why,
            (None, Some((name, kind))) => {
                format!("{name} on the PATH is a wrapper of {}, whose own commands are not on the PATH", kind.title())
            }
            (None, None) => "no batch system's commands are on the PATH".to_owned(),
        };
        if clues.kubernetes {
            why += "; there is a Kubernetes, which is not a backend yet";
        }
        return Found { kind: BackendKind::Local, why };
    };
    let others: Vec<_> = found.map(|(kind, _)| format!("--backend {}", kind.as_str())).collect();
    if let Some(variable) = clues.variable_of(kind).filter(|_| !others.is_empty()) {
        why = format!("{variable} is set; {why}");
    }
    if !others.is_empty() {
        why = format!("{why}; there is also {}", others.join(" and "));
    }
    Found { kind, why }
}

/// Reads whose `qstat` it is out of what `qstat --version` says: `pbs_version = 23.06.06` (capture qstat_version),
/// `Version: 6.1.2` (TORQUE); Grid Engine knows no such option, and its usage begins with its name, `SGE 8.1.9`
/// (capture qsub_version), `GE 6.2u5`, `UGE 8.6`, `OGS/GE 2011.11`.
fn maker(said: &str) -> Option<(BackendKind, String)> {
    let quoted = |line: &str| format!("`qstat --version` says {}", bounded_to(line.trim(), 60));
    said.lines().find_map(|line| {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let release = rest.trim_start().starts_with(|first: char| first.is_ascii_digit());
        match word {
            "pbs_version" | "Version:" => Some((BackendKind::Pbs, quoted(line))),
            "SGE" | "GE" | "UGE" | "AGE" | "OGS/GE" if release => Some((BackendKind::Sge, quoted(line))),
            _ => None,
        }
    })
}

/// Returns the batch system that a script with another one's name hands its work to.
fn wrapped(name: &str, head: &[u8]) -> Option<BackendKind> {
    if !head.starts_with(b"#!") {
        return None;
    }
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mentions = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match name {
        "sbatch" | "squeue" | "condor_submit" | "condor_q" => None,
        _ if mentions(&["slurm", "sbatch"]) => Some(BackendKind::Slurm),
        "bsub" | "bjobs" => None,
        _ if mentions(&["bsub", "openlava"]) => Some(BackendKind::Lsf),
        _ => None,
    }
}

fn head(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What cannot be read wraps nothing.
        let _ = file.take(HEAD_BYTES).read_to_end(&mut bytes);
    }
    bytes
}

/// Whether Grid Engine knows who its master is (`act_qmaster`, sge_conf(5)): without it no command of it works.
fn sge_cell(variables: &Variables) -> bool {
    let (file, folder) = SGE_DEFAULTS;
    let defaults = std::fs::read_to_string(file).unwrap_or_default();
    let value = |name: &str, otherwise: &str| {
        let written = || {
            let mut lines = defaults.lines().rev();
            lines.find_map(|line| Some(line.trim().strip_prefix(name)?.strip_prefix('=')?.trim_matches('"').to_owned()))
        };
        let set = variables.get(name).map(|value| value.to_string_lossy().into_owned());
        set.or_else(written).filter(|value| !value.is_empty()).unwrap_or_else(|| otherwise.to_owned())
    };
    let cell = Path::new(&value("SGE_ROOT", folder)).join(value("SGE_CELL", "default"));
    cell.join("common/act_qmaster").is_file()
}

/// Whether a kubeconfig is here (kubectl(1): the files of `KUBECONFIG`, else `~/.kube/config`), or this is a pod, to
/// which Kubernetes gives the address of its API.
fn kubernetes(variables: &Variables) -> bool {
    let files = match variables.get("KUBECONFIG") {
        Some(list) => std::env::split_paths(list).collect(),
        None => Vec::from_iter(variables.home().map(|home| home.join(".kube/config"))),
    };
    variables.get("KUBERNETES_SERVICE_HOST").is_some() || files.iter().any(|file| file.is_file())
}

/// Runs a command and returns all it says; in a thread of its own, for the caller may be in a runtime or not.
fn ask(call: Call) -> Option<String> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let answer = runtime.block_on(call.timeout(PATIENCE).run()).ok()?;
        Some(format!("{}\n{}", answer.stdout, answer.stderr))
    };
    std::thread::spawn(run).join().ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::programs;

    fn silent() -> Option<String> {
        panic!("no command is needed for this")
    }

    /// `folder/name` for a command of its own, `folder/name!` for a wrapper of Slurm.
    fn clues(commands: &[&str], variables: &[&'static str]) -> Clues {
        let one = |text: &&str| {
            let (folder, name) = text.rsplit_once('/').unwrap_or(("/usr/bin", text));
            let wraps = name.ends_with('!').then_some(BackendKind::Slurm);
            let name = COMMANDS.iter().find(|known| **known == name.trim_end_matches('!')).unwrap();
            (*name, Seen { folder: folder.into(), wraps })
        };
        let commands = commands.iter().map(one).collect();
        let variables = variables.iter().copied().collect();
        Clues { commands, variables, pbs_conf: false, slurm_conf: true, sge_cell: true, kubernetes: false }
    }

    fn chosen(clues: &Clues) -> (BackendKind, String) {
        let found = choose(clues, silent);
        (found.kind, found.why)
    }

    #[test]
    fn nothing_is_local() {
        let why = "no batch system's commands are on the PATH".to_owned();
        assert_eq!(chosen(&Clues::default()), (BackendKind::Local, why.clone()));
        // A lone command, or a variable that a removed system left in a profile, is no batch system.
        assert_eq!(
            chosen(&clues(&["sbatch", "qstat", "pbsnodes"], &["SGE_ROOT", "LSF_ENVDIR"])),
            (BackendKind::Local, why)
        );
    }

    #[test]
    fn each_alone() {
        for (commands, variables, kind, why) in [
            (&["sbatch", "squeue"][..], &[][..], BackendKind::Slurm, "sbatch and squeue are on the PATH"),
            (&["bsub", "bjobs"], &["LSF_ENVDIR"], BackendKind::Lsf, "bsub and bjobs are on the PATH"),
            (&["oarsub", "oarstat"], &[], BackendKind::Oar, "oarsub and oarstat are on the PATH"),
            (&["condor_submit", "condor_q"], &[], BackendKind::Condor, "condor_submit and condor_q are on the PATH"),
            (
                &["qsub", "qstat", "qselect", "pbsnodes"],
                &[],
                BackendKind::Pbs,
                "qsub and qstat are on the PATH, and pbsnodes is beside qsub",
            ),
            (
                &["qsub", "qstat"],
                &["PBS_SERVER"],
                BackendKind::Pbs,
                "qsub and qstat are on the PATH, and PBS_SERVER is set",
            ),
            (
                &["qsub", "qstat", "qselect", "qconf"],
                &[],
                BackendKind::Sge,
                "qsub and qstat are on the PATH, and qconf is beside qsub",
            ),
            (
                &["qsub", "qstat"],
                &["SGE_ROOT"],
                BackendKind::Sge,
                "qsub and qstat are on the PATH, and SGE_ROOT is set",
            ),
        ] {
            assert_eq!(chosen(&clues(commands, variables)), (kind, why.to_owned()), "{commands:?}");
        }
    }

    #[test]
    fn slurms_wrappers_for_pbs_are_not_pbs() {
        // Debian's slurm-wlm-torque, `contribs/torque/qsub.pl` of Slurm 22.05.
        let head =
            b"#! /usr/bin/perl -w\n####\n#\n# qsub - submit a batch job in familiar pbs/Grid Engine format.\n#\n\
            #  This file is part of Slurm, a resource management program.\n";
        assert_eq!(wrapped("qsub", head), Some(BackendKind::Slurm));
        let all = &["sbatch", "squeue", "qsub!", "qstat!", "pbsnodes!"];
        let why = "sbatch and squeue are on the PATH".to_owned();
        assert_eq!(chosen(&clues(all, &["PBS_SERVER"])), (BackendKind::Slurm, why));
        let (kind, why) = chosen(&clues(&["qsub!", "qstat!", "pbsnodes!"], &[]));
        assert_eq!(kind, BackendKind::Local);
        assert!(why.contains("is a wrapper of Slurm, whose own commands are not on the PATH"), "{why}");
        // Its copy of LSF's commands, and scripts that hand qsub's work to LSF.
        assert_eq!(wrapped("bsub", head), Some(BackendKind::Slurm));
        assert_eq!(wrapped("qsub", b"#!/bin/sh\nexec bsub \"$@\"\n"), Some(BackendKind::Lsf));
        // A site's own script around the real one, Debian's around Grid Engine, a binary.
        assert_eq!(
            wrapped("qsub", b"#!/bin/sh\n# SGE Wrapper script to ensure correct environment variables are set\n"),
            None
        );
        assert_eq!(wrapped("sbatch", b"#!/bin/bash\nexec /opt/slurm/bin/sbatch \"$@\"\n"), None);
        assert_eq!(wrapped("qsub", b"\x7fELF..slurm"), None);
    }

    #[test]
    fn grid_engine_without_a_cell_is_not_here() {
        let mut clues = clues(&["qsub", "qstat", "qconf"], &[]);
        clues.sge_cell = false;
        let why = "Grid Engine's commands are on the PATH, and it has no cell here".to_owned();
        assert_eq!(chosen(&clues), (BackendKind::Local, why));
    }

    #[test]
    fn pbs_and_grid_engine_are_told_apart_by_what_is_beside_and_else_by_their_version() {
        // Both installed: the one whose qsub comes first.
        let both = ["/opt/sge/qsub", "/opt/sge/qstat", "/opt/sge/qconf", "/opt/pbs/pbsnodes"];
        assert_eq!(chosen(&clues(&both, &[])).0, BackendKind::Sge);
        // What is beside it counts more than what the site sets, and that more than a file.
        let beside = ["qsub", "qstat", "pbsnodes"];
        assert_eq!(chosen(&clues(&beside, &["SGE_ROOT"])).0, BackendKind::Pbs);
        let file = |commands: &[&str], variables| Clues { pbs_conf: true, ..clues(commands, variables) };
        assert_eq!(chosen(&file(&["qsub", "qstat", "qconf"], &[])).0, BackendKind::Sge);
        assert_eq!(chosen(&file(&["qsub", "qstat"], &["SGE_ROOT"])).0, BackendKind::Sge);
        let (kind, why) = chosen(&file(&["qsub", "qstat"], &[]));
        assert_eq!((kind, why.as_str()), (BackendKind::Pbs, "qsub and qstat are on the PATH, and there is a pbs.conf"));
        assert_eq!(chosen(&clues(&["qsub", "qstat", "qconf", "pbsnodes"], &["SGE_ROOT"])).0, BackendKind::Sge);
        // In one folder, or nothing beside it.
        for commands in [&["qsub", "qstat", "qconf", "pbsnodes"][..], &["qsub", "qstat"]] {
            for (said, kind) in [
                ("pbs_version = 23.06.06\n", BackendKind::Pbs),
                ("\nVersion: 6.1.2\nCommit: 661e092\n", BackendKind::Pbs),
                ("error: unknown option\nSGE 8.1.9\nusage: qstat [options]\n", BackendKind::Sge),
                ("UGE 8.6.18\nusage: qstat [options]\n", BackendKind::Sge),
                ("OGS/GE 2011.11p1\n", BackendKind::Sge),
                ("qstat: command of a site\n", BackendKind::Local),
            ] {
                let found = choose(&clues(commands, &[]), || Some(said.to_owned()));
                assert_eq!(found.kind, kind, "{said} {found:?}");
            }
            assert_eq!(choose(&clues(commands, &[]), || None).kind, BackendKind::Local);
        }
        assert_eq!(maker("pbs_version = 23.06.06\n").unwrap().1, "`qstat --version` says pbs_version = 23.06.06");
    }

    #[test]
    fn of_several_the_one_whose_variable_is_set() {
        let commands = &["sbatch", "squeue", "qsub", "qstat", "qconf", "bsub", "bjobs"];
        let why = "sbatch and squeue are on the PATH; there is also --backend sge and --backend lsf";
        assert_eq!(chosen(&clues(commands, &[])), (BackendKind::Slurm, why.to_owned()));
        let (kind, why) = chosen(&clues(commands, &["LSF_ENVDIR"]));
        assert_eq!(kind, BackendKind::Lsf);
        assert_eq!(
            why,
            "LSF_ENVDIR is set; bsub and bjobs are on the PATH; there is also --backend slurm and --backend sge"
        );
        assert_eq!(chosen(&clues(commands, &["LSF_ENVDIR", "SLURM_CONF"])).0, BackendKind::Slurm);
    }

    #[test]
    fn a_slurm_without_configuration_comes_last() {
        let mut clues = clues(&["sbatch", "squeue", "bsub", "bjobs"], &[]);
        clues.slurm_conf = false;
        assert_eq!(chosen(&clues).0, BackendKind::Lsf);
        clues.variables.insert("SLURM_CONF");
        assert_eq!(chosen(&clues).0, BackendKind::Slurm);
        // Alone it may find its controller by DNS.
        let mut alone = self::clues(&["sbatch", "squeue"], &[]);
        alone.slurm_conf = false;
        assert_eq!(chosen(&alone).0, BackendKind::Slurm);
    }

    #[test]
    fn looks_at_real_files() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let put = |name: &str, text: &str| programs::write(&bin.join(name), text);
        let look = |more: &[(&str, &Path)]| {
            let pairs = [("PATH", bin.as_path())].into_iter().chain(more.iter().copied());
            let home = ("HOME", root.path());
            of_host(&pairs.chain([home]).map(|(name, value)| (name.into(), value.into())).collect())
        };
        assert_eq!(look(&[]).kind, BackendKind::Local);
        let none = "no batch system's commands are on the PATH";
        let kubernetes = format!("{none}; there is a Kubernetes, which is not a backend yet");
        assert_eq!(look(&[]).why, none);
        assert_eq!(look(&[("KUBERNETES_SERVICE_HOST", Path::new("10.0.0.1"))]).why, kubernetes);
        let kube = root.path().join(".kube");
        std::fs::create_dir(&kube).unwrap();
        std::fs::write(kube.join("config"), "").unwrap();
        assert_eq!(look(&[]).why, kubernetes);
        // Those of `KUBECONFIG` are in its place.
        assert_eq!(look(&[("KUBECONFIG", Path::new("/nowhere:/no/file"))]).why, none);
        let second = format!("/nowhere:{}", kube.join("config").display());
        assert_eq!(look(&[("KUBECONFIG", Path::new(&second))]).why, kubernetes);
        put("qsub", "#!/bin/sh\n# site's own\n");
        put("qstat", "#!/bin/sh\n");
        put("qconf", "#!/bin/sh\n");
        let sge = root.path().join("sge");
        std::fs::create_dir_all(sge.join("other/common")).unwrap();
        std::fs::write(sge.join("other/common/act_qmaster"), "host\n").unwrap();
        assert_eq!(look(&[("SGE_ROOT", &sge)]).kind, BackendKind::Local, "no cell of the name `default`");
        assert_eq!(look(&[("SGE_ROOT", &sge), ("SGE_CELL", Path::new("other"))]).kind, BackendKind::Sge);
        put("sbatch", "\x7fELF");
        put("squeue", "\x7fELF");
        put("qsub", "#!/usr/bin/perl -w\nuse Slurm ':all';\n");
        assert_eq!(look(&[("SGE_ROOT", &sge)]).kind, BackendKind::Slurm);
    }

    #[test]
    fn asks_one_command_within_its_time() {
        assert_eq!(ask(Call::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap(), "out\n\nerr\n");
        assert_eq!(ask(Call::new("no-such-program-here")), None);
    }
}
